"""What a log needs to go on as one log: values that wait for the next line, and TensorBoard's folder."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import TensorBoardOutputFormat

from sb3_vpg.persistence.json_codec import is_plain


def log_state(model: BaseAlgorithm) -> dict[str, Any]:
    """:return: plain values"""
    logger = model.logger
    waiting = {name: [value, logger.name_to_excluded.get(name)] for name, value in logger.name_to_value.items()}
    folder = logger.get_dir()
    return {
        "waiting": {name: value for name, value in waiting.items() if is_plain(value)},
        "lost": [name for name, value in waiting.items() if not is_plain(value)],
        "folder": None if folder is None else Path(folder).name,
    }


def restore_log(model: BaseAlgorithm, state: dict[str, Any]) -> list[str]:
    """
    Go on with the log that ``state`` is of. TensorBoard's points from after the checkpoint are purged.

    :param model: with the logger that ``learn`` has made, which for TensorBoard begins a folder of its own
    :param state: what ``log_state`` has returned
    :return: what is missing in the log
    """
    for name, (value, excluded) in state["waiting"].items():
        model.logger.record(name, value, excluded)
    for output in model.logger.output_formats:
        if isinstance(output, TensorBoardOutputFormat):
            writer = output.writer
            begun = Path(writer.log_dir)
            writer.close()
            folder = begun
            if not model._custom_logger and state["folder"] is not None:
                folder = begun.parent / Path(state["folder"]).name
            if folder != begun:
                _remove_unused(begun)
                model.logger.dir = str(folder)
            output.writer = type(writer)(str(folder), purge_step=model.num_timesteps + 1)
    # Older checkpoints have no such entry
    lost = state.get("lost")
    return [f"the next log entry lacks {lost}, whose values are not plain"] if lost else []


def _remove_unused(folder: Path) -> None:
    """A folder in which nothing was written but the head of one file."""
    files = list(folder.iterdir()) if folder.is_dir() else []
    if len(files) == 1 and files[0].name.startswith("events.out.tfevents."):
        with suppress(OSError):
            files[0].unlink()
            folder.rmdir()
