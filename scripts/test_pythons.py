"""``make test-pythons``: ``make test`` on every Python that pyproject.toml claims, as far as this machine has it."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def claimed() -> list[str]:
    """:return: the versions that pyproject.toml claims, such as "3.10"; by its text, since Python 3.10 reads no TOML"""
    return re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text())


def interpreter(version: str) -> str | None:
    """:return: the path of such a Python, on PATH or else of pyenv, the newest; None: there is none that starts"""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    installed = sorted(pyenv.glob(f"{version}.*/bin/python"), key=lambda path: [int(n) for n in re.findall(r"\d+", f"{path}")])
    ask = "import sys; print(*sys.version_info[:2], sep='.')"
    for path in (shutil.which(f"python{version}"), *map(str, reversed(installed))):
        # pyenv puts a python3.x on PATH that may only say that it is switched off
        if path and subprocess.run([path, "-c", ask], capture_output=True, text=True).stdout.strip() == version:
            return path
    return None


def main() -> int:
    """:return: the exit code: 1 if the tests failed on one of them, or if there is none"""
    rows = []
    for version in claimed():
        path, begun = interpreter(version), time.monotonic()
        if path is None:
            rows.append((version, "not found", "", ""))
            continue
        print(f"\n=== Python {version}: {path}", flush=True)
        # An environment each, which stays for the next time
        failed = subprocess.run(["make", "test", f"PYTHON={path}", f"VENV=.venv-{version}"], cwd=ROOT).returncode
        rows.append((version, "FAILED" if failed else "passed", f"{(time.monotonic() - begun) / 60:.0f} min", path))
    print()
    for row in (("Python", "make test", "time", "interpreter"), *rows):
        print("{:<8}{:<11}{:<8}{}".format(*row).rstrip())
    results = {row[1] for row in rows}
    return int("FAILED" in results or "passed" not in results)


if __name__ == "__main__":
    sys.exit(main())
