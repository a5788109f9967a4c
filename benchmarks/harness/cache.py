"""A finished run leaves a JSON file, so a killed benchmark repeats only the runs that are missing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def cached(file: Path, run: Callable[[], Any]) -> Any:
    """:return: the content of ``file``; if there is no such file, the result of ``run``, which is then written to it"""
    if not file.is_file():
        result = run()
        unfinished = file.with_suffix(".tmp")
        unfinished.write_text(json.dumps(result))
        unfinished.replace(file)
    return json.loads(file.read_text())
