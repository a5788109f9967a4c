"""What a figure was measured on, for the foot of every result."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

from sb3_vpg.version import __version__


def describe() -> str:
    """:return: processor, cores and the versions that matter, in two lines of Markdown"""
    packages = ("stable-baselines3", "rl_zoo3", "gymnasium", "torch", "numpy")
    # A checkout need not be installed
    versions = ", ".join([f"sb3-vpg {__version__}", *(f"{package} {version(package)}" for package in packages)])
    machine = f"Machine: {_processor()}, {os.cpu_count()} cores, {platform.system()}."
    return f"{machine}  \nPython {platform.python_version()}, {versions}."


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
