"""The versions and the machine on which a result depends. Imports nothing slow, for ``sb3-vpg --version``."""

import os
import platform
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from sb3_vpg.version import __version__


def versions(zoo: bool = False) -> dict[str, str]:
    """
    :param zoo: include rl_zoo3
    :return: the versions of sb3-vpg, of its libraries and of Python, by the names that pip uses
    """
    libraries = ("stable-baselines3", *(("rl_zoo3",) if zoo else ()), "gymnasium", "torch", "numpy")
    # Not version("sb3-vpg"): a checkout need not be installed
    return {"sb3-vpg": __version__, **{name: version(name) for name in libraries}, "python": platform.python_version()}


def describe() -> str:
    """:return: the processor, the number of cores and all versions, in two lines of Markdown"""
    packages = versions(zoo=True)
    python = packages.pop("python")
    machine = f"Machine: {_processor()}, {os.cpu_count()} cores, {platform.system()}."
    return f"{machine}  \nPython {python}, {', '.join(f'{name} {number}' for name, number in packages.items())}."


def usable_cores() -> int:
    """:return: number of cores that this process may use"""
    with suppress(AttributeError):  # macOS and Windows do not restrict a process
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
