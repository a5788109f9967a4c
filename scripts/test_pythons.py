"""``make test-pythons``: run ``make test`` with every Python version of pyproject.toml that this machine has."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def declared_versions() -> list[str]:
    """:return: the versions in pyproject.toml, such as "3.10"; found in its text, as Python 3.10 has no TOML reader"""
    return re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text())


def interpreter(version: str) -> str | None:
    """:return: a Python of this version, from PATH, else the newest of pyenv; None if none of them starts"""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    installed = sorted(pyenv.glob(f"{version}.*/bin/python"), key=lambda path: [int(n) for n in re.findall(r"\d+", f"{path}")])
    print_version = "import sys; print(*sys.version_info[:2], sep='.')"
    for path in (shutil.which(f"python{version}"), *map(str, reversed(installed))):
        # pyenv's python3.x on PATH fails if that version is not activated
        if path and subprocess.run([path, "-c", print_version], capture_output=True, text=True).stdout.strip() == version:
            return path
    return None


def main() -> int:
    """:return: exit code: 1 if the tests failed with a version, or if no version was found"""
    rows = []
    for version in declared_versions():
        path, start = interpreter(version), time.monotonic()
        if path is None:
            rows.append((version, "not found", "", ""))
            continue
        print(f"\n=== Python {version}: {path}", flush=True)
        # Each version keeps its environment for the next call
        failed = subprocess.run(["make", "test", f"PYTHON={path}", f"VENV=.venv-{version}"], cwd=ROOT).returncode
        rows.append((version, "FAILED" if failed else "passed", f"{(time.monotonic() - start) / 60:.0f} min", path))
    print()
    for row in (("Python", "make test", "time", "interpreter"), *rows):
        print("{:<8}{:<11}{:<8}{}".format(*row).rstrip())
    results = {row[1] for row in rows}
    return int("FAILED" in results or "passed" not in results)


if __name__ == "__main__":
    sys.exit(main())
