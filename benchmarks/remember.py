"""Runs that are done stay done: each leaves a JSON file, so a killed benchmark goes on where it was."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def remembered(file: Path, run: Callable[[], Any]) -> Any:
    """:return: the result of ``run``, from ``file`` if that is there. Only a finished run leaves the file."""
    if not file.is_file():
        result = run()
        unfinished = file.with_suffix(".tmp")
        unfinished.write_text(json.dumps(result))
        unfinished.replace(file)
    return json.loads(file.read_text())
