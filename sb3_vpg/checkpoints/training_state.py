"""Everything that decides how training goes on, besides what a saved model holds: taken between an update and a rollout."""

import inspect
import json
import os
import warnings
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback

import sb3_vpg
from sb3_vpg.checkpoints.callback_state import best_model, callback_state, callbacks_in, restore_callbacks
from sb3_vpg.checkpoints.env_state import get_state, set_state
from sb3_vpg.checkpoints.logger_state import log_state, restore_log
from sb3_vpg.common.random_state import copy_streams, restore_streams
from sb3_vpg.on_policy_algorithm import LeanOnPolicyAlgorithm
from sb3_vpg.persistence.json_codec import decode
from sb3_vpg.persistence.packing import was_left_out

_LOOKS = ("verbose", "tensorboard_log", "device", "stats_window_size", "monitor_wrapper", "env", "policy")
_OF_THE_TASK = ("policy_class", "observation_space", "action_space", "n_envs")
_OF_A_PROCESS = ("verbose", "tensorboard_log", "start_time", "_num_timesteps_at_start", "_log_interval", "action_noise")
PARTS = {"versions", "num_timesteps", "total_timesteps", "streams", "env", "callbacks", "monitors", "log"}
"""What ``training_state`` returns."""
_OF_A_ROLLOUT = ("training", "pos", "full", "generator_ready")
_KEEP_NONE = ("torch", "stable_baselines3", "sb3_vpg")
_LIBRARIES = ("stable_baselines3", "gymnasium", "torch", "numpy")


def versions() -> dict[str, str]:
    """:return: of what decides the course of training, and how many threads share the sums, which rounds otherwise"""
    ours = {"python": python_version(), "sb3_vpg": sb3_vpg.__version__, "number of threads": str(th.get_num_threads())}
    return {**ours, **{name: version(name) for name in _LIBRARIES}}


def training_state(model: LeanOnPolicyAlgorithm, callback: BaseCallback, monitor_dir: Path | None) -> dict[str, Any]:
    """
    :param model: between an update and the next rollout
    :param callback: that of ``learn``
    :param monitor_dir: folder of ``Monitor``'s files
    :return: plain values
    """
    assert model.env is not None
    return {
        "versions": {**versions(), "device": str(model.device)},
        "num_timesteps": model.num_timesteps,
        "total_timesteps": model._total_timesteps,
        "streams": {**copy_streams(), "training": model._rng, "predict": model._predict_rng},
        "env": get_state(model.env),
        "callbacks": {name: callback_state(one) for name, one in callbacks_in(callback)},
        "monitors": {} if monitor_dir is None else {path.name: _size(path) for path in monitor_dir.glob("*.monitor.csv")},
        "log": log_state(model),
        "numbers": _numbers(model),
    }


def _numbers(model: LeanOnPolicyAlgorithm) -> dict[str, float]:
    """:return: those that are attributes of a user's own layers, policy or rollout buffer, which no file of weights holds"""
    owners = {f"policy.{name}".rstrip("."): module for name, module in model.policy.named_modules()}
    found = {}
    for owner, value in {**owners, "rollout_buffer": model.rollout_buffer}.items():
        if type(value).__module__.partition(".")[0] not in _KEEP_NONE:
            numbers = {name: one for name, one in vars(value).items() if type(one) in (bool, int, float)}
            found.update({f"{owner}.{name}": one for name, one in numbers.items() if name not in _OF_A_ROLLOUT})
    return found


def _size(path: Path) -> int:
    """:return: in bytes, once they are on the disk: a checkpoint must not outlive rows that it counts on"""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


def best_models(callback: BaseCallback) -> dict[str, bytes]:
    """:return: by the name of the callback, the best model that it has found"""
    paths = {name: best_model(one) for name, one in callbacks_in(callback)}
    return {name: path.read_bytes() for name, path in paths.items() if path is not None and path.is_file()}


def check_settings(model: LeanOnPolicyAlgorithm, stored: dict[str, Any], written: dict[str, Any], path: Path) -> None:
    """
    :param stored: settings of the checkpoint, as its file holds them
    :param written: those of ``model``, in the same form
    :raises ValueError: if the checkpoint is of another run, naming what differs
    """
    names = [*_OF_THE_TASK, *(name for name in _arguments(type(model)) if name not in _LOOKS)]
    for name in names:
        was, now = stored.get(name), written.get(name)
        # What no plain data holds cannot be compared
        if was != now and not (was_left_out(was) and was_left_out(now)):
            raise ValueError(
                f"{path} is of another run: {name} was {_shown(was)}, and is {_shown(now)} now. "
                "Use another save_path, or resume=False to remove what is there"
            )


def _arguments(cls: type) -> set[str]:
    return {name for one in cls.__mro__ for name in inspect.signature(one).parameters}


def _shown(value: Any) -> str:
    return f"{value if isinstance(value, (str, int, float, type(None))) else json.dumps(value)}"[:200]


def restore_training(
    model: LeanOnPolicyAlgorithm,
    callback: BaseCallback,
    data: dict[str, Any],
    weights: dict[str, Any],
    state: dict[str, Any],
    best: dict[str, bytes],
    monitor_dir: Path | None,
) -> list[str]:
    """
    Give a model that was built with the same arguments what ``training_state`` has taken.

    :param data: settings and counters of the checkpoint's model
    :param weights: its state dicts
    :param state: what ``training_state`` has returned
    :param best: what ``best_models`` has returned
    :return: empty if training goes on exactly; else why not
    :raises ValueError: if environment or weights do not fit
    """
    assert model.env is not None
    counters, reasons = _counters(type(model), data)
    model.set_parameters(weights, device=model.device)
    for name, value in counters.items():
        setattr(model, name, value)
    model._num_timesteps_at_start = model.num_timesteps
    hidden = set_state(model.env, state["env"])
    if hidden is not None:
        _begin_episodes(model)
        reasons.append(f"new episodes begin, because {hidden}")
    # Older checkpoints have no such entry
    was, now = state.get("numbers", {}), _numbers(model)
    for name in [name for name in now if name in was and repr(was[name]) != repr(now[name])]:
        reasons.append(f"{name} was {was[name]}, and is {now[name]} now (register_buffer would save it with the weights)")
    reasons += restore_callbacks(callback, state["callbacks"], best)
    _cut_monitors(monitor_dir, state["monitors"])
    reasons += restore_log(model, state["log"])
    streams = state["streams"]
    model._rng, model._predict_rng = streams["training"], streams["predict"]
    # Last, since whatever draws on the way must leave no trace
    restore_streams(streams)
    return reasons


def _counters(cls: type, data: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """:return: what a model has besides its settings, and what of that the file could not hold"""
    skipped = {*_arguments(cls), *_OF_THE_TASK, *_OF_A_PROCESS}
    others = {name: value for name, value in data.items() if name not in skipped}
    counters = {name: decode(value) for name, value in others.items() if not was_left_out(value)}
    for name in counters:
        if callable(getattr(cls, name, None)):
            raise ValueError(f"the checkpoint has a setting {name!r}, which would take the place of a method; refused")
    return counters, [f"the model's attribute {name!r} is not plain" for name in others if was_left_out(others[name])]


def _begin_episodes(model: LeanOnPolicyAlgorithm) -> None:
    """New episodes, and other ones than those that the seed began with."""
    assert model.env is not None
    seed = np.random.SeedSequence([model.seed or 0, model.num_timesteps]).generate_state(1)[0]
    model.env.seed(int(seed) % 2**31)
    model._last_obs = model.env.reset()  # type: ignore[assignment]  # SB3 declares None
    model._last_episode_starts = np.ones(model.n_envs, dtype=bool)
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        model._last_original_obs = normalizer.get_original_obs()


def _cut_monitors(folder: Path | None, sizes: dict[str, int]) -> None:
    """Rows from after the checkpoint go: the episodes will be played again."""
    if folder is None:
        return
    for name, size in sizes.items():
        path = folder / Path(name).name
        found = path.stat().st_size if path.is_file() else 0
        if found < size:
            warnings.warn(
                f"{path} has {found:,} bytes, and had {size:,} at the checkpoint: rows of episodes are lost. If Monitor has "
                'emptied it, create the environment with monitor_kwargs={"override_existing": latest(save_path) is None}',
                stacklevel=2,
            )
        elif found > size:
            os.truncate(path, size)
