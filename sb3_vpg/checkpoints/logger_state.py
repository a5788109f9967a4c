"""The state of a logger: recorded values that are not yet written, and the folder of TensorBoard."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import TensorBoardOutputFormat

from sb3_vpg.persistence.json_codec import is_plain


def log_state(model: BaseAlgorithm) -> dict[str, Any]:
    """:return: ``waiting``, the values not yet written; ``lost``, which of them are not plain; ``folder``, the log's name"""
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
    Continue the log that ``state`` was taken from. TensorBoard's points after the checkpoint are purged.

    :param model: has the logger that ``learn`` made, which has a new folder for TensorBoard
    :param state: as ``log_state`` returned it
    :return: reasons why the log is not the same
    """
    for name, (value, excluded) in state["waiting"].items():
        model.logger.record(name, value, excluded)
    for output in model.logger.output_formats:
        if isinstance(output, TensorBoardOutputFormat):
            writer = output.writer
            new = folder = Path(writer.log_dir)
            writer.close()
            if not model._custom_logger and state["folder"] is not None:
                folder = new.parent / Path(state["folder"]).name
            if folder != new:
                _remove_unused(new)
                model.logger.dir = str(folder)
            output.writer = type(writer)(str(folder), purge_step=model.num_timesteps + 1)
    # Older checkpoints do not have this entry
    lost = state.get("lost")
    return [f"the next log entry lacks {lost}, whose values are not plain"] if lost else []


def _remove_unused(folder: Path) -> None:
    """Remove a folder of TensorBoard if it holds only the one file that a new writer creates."""
    files = list(folder.iterdir()) if folder.is_dir() else []
    if len(files) == 1 and files[0].name.startswith("events.out.tfevents."):
        with suppress(OSError):
            files[0].unlink()
            folder.rmdir()
