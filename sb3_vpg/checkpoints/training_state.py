"""The state of training that a saved model lacks, taken between an update and the next rollout."""

import inspect
import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback

from sb3_vpg.checkpoints.callback_state import best_model, callback_state, callbacks_in, restore_callbacks
from sb3_vpg.checkpoints.env_state import get_state, set_state
from sb3_vpg.checkpoints.logger_state import log_state, restore_log
from sb3_vpg.checkpoints.shared_env_state import ANOTHER_RUN_ADVICE, SHARED, get_shared_state, is_of_torchrun, set_shared_state
from sb3_vpg.common import system_info
from sb3_vpg.common.random_state import copy_streams, restore_streams
from sb3_vpg.on_policy_algorithm import LeanOnPolicyAlgorithm
from sb3_vpg.persistence.json_codec import decode
from sb3_vpg.persistence.packing import was_left_out

_NOT_COMPARED = ("verbose", "tensorboard_log", "device", "stats_window_size", "monitor_wrapper", "env", "policy")
"""Arguments that may differ when training resumes."""
# Attributes, not arguments, that must be equal when training resumes
_OF_THE_TASK = ("policy_class", "observation_space", "action_space", "n_envs")
# Attributes that each process sets anew
_OF_A_PROCESS = ("verbose", "tensorboard_log", "start_time", "_num_timesteps_at_start", "_log_interval", "action_noise")
REQUIRED_KEYS = {"versions", "num_timesteps", "total_timesteps", "streams", "env", "callbacks", "monitors", "log"}
"""Keys that every checkpoint has."""
# Numbers that a policy or a rollout buffer sets anew in each iteration
_OF_A_ROLLOUT = ("training", "pos", "full", "generator_ready")
_WITHOUT_NUMBERS = ("torch", "stable_baselines3", "sb3_vpg")
"""Packages whose layers and buffers keep no state in plain numbers."""


def versions() -> dict[str, str]:
    """:return: versions of what affects results, and the number of threads, on which the rounding of sums depends"""
    libraries = {name.replace("-", "_"): number for name, number in system_info.versions().items()}
    return {**libraries, "number of threads": str(th.get_num_threads())}


def training_state(model: LeanOnPolicyAlgorithm, callback: BaseCallback, monitor_dir: Path | None) -> dict[str, Any]:
    """
    Call it in all processes of a run.

    :return: plain values; ``callback`` is that of ``learn``, and ``monitor_dir`` the folder of ``Monitor``'s files
    """
    assert model.env is not None
    # First: it waits until the other processes have played their steps
    env = {SHARED: get_shared_state(model)} if model._world.is_distributed else get_state(model.env)
    monitors = [] if monitor_dir is None else monitor_dir.glob("*.monitor.csv")
    return {
        "versions": {**versions(), "device": str(model.device)},
        "num_timesteps": model.num_timesteps,
        "total_timesteps": model._total_timesteps,
        "streams": {**copy_streams(), "training": model._rng, "predict": model._predict_rng},
        "env": env,
        "callbacks": {name: callback_state(part) for name, part in callbacks_in(callback)},
        "monitors": {path.name: _synced_size(path) for path in monitors},
        "log": log_state(model),
        "numbers": _numbers(model),
    }


def _numbers(model: LeanOnPolicyAlgorithm) -> dict[str, float]:
    """:return: plain numbers in attributes of a user's own layers, policy or rollout buffer, which state dicts do not hold"""
    owners = {f"policy.{name}".rstrip("."): module for name, module in model.policy.named_modules()}
    numbers = {}
    for owner, instance in {**owners, "rollout_buffer": model.rollout_buffer}.items():
        if type(instance).__module__.partition(".")[0] not in _WITHOUT_NUMBERS:
            for name, value in vars(instance).items():
                if type(value) in (bool, int, float) and name not in _OF_A_ROLLOUT:
                    numbers[f"{owner}.{name}"] = value
    return numbers


def _synced_size(path: Path) -> int:
    """Sync the file to the disk, because a checkpoint relies on its rows. :return: its size in bytes"""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


def best_models(callback: BaseCallback) -> dict[str, bytes]:
    """:return: the file contents of the best models, by the name of the callback"""
    return {name: path.read_bytes() for name, part in callbacks_in(callback) if (path := best_model(part)) and path.is_file()}


def check_settings(model: LeanOnPolicyAlgorithm, stored: dict[str, Any], current: dict[str, Any], path: Path) -> None:
    """
    :param stored: settings in the checkpoint file
    :param current: settings of ``model``, in the same form
    :raises ValueError: if the checkpoint belongs to another run; the text names the setting that differs
    """
    of_the_task = [name for name in _OF_THE_TASK if name != "n_envs" or not model._world.is_distributed]
    names = [*of_the_task, *(name for name in _arguments(type(model)) if name not in _NOT_COMPARED)]
    for name in names:
        was, now = stored.get(name), current.get(name)
        # Settings that are not plain cannot be compared
        if was != now and not (was_left_out(was) and was_left_out(now)):
            raise ValueError(
                f"{path} belongs to another run: {name} was {_shown(was)}, and is {_shown(now)} now. {ANOTHER_RUN_ADVICE}"
            )


def _arguments(cls: type) -> set[str]:
    return {name for base in cls.__mro__ for name in inspect.signature(base).parameters}


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
    Restore the state of training in a model that was built with the same arguments.

    :param data: settings and counters of the checkpoint's model
    :param weights: state dicts of the checkpoint's model
    :param state: as ``training_state`` returned it
    :param best: as ``best_models`` returned it
    :return: the reasons why training may not go on exactly; empty if it does
    :raises ValueError: if environment or weights do not fit
    """
    assert model.env is not None
    counters, reasons = _counters(type(model), data)
    model.set_parameters(weights, device=model.device)
    for name, value in counters.items():
        setattr(model, name, value)
    model._num_timesteps_at_start = model.num_timesteps
    shared = state["env"][SHARED] if is_of_torchrun(state) else None
    reason = set_state(model.env, state["env"]) if shared is None else set_shared_state(model, shared)
    if reason is not None:
        _begin_episodes(model)
        reasons.append(f"new episodes begin, because {reason}")
    # Older checkpoints do not have this entry
    was, now = state.get("numbers", {}), _numbers(model)
    for name in [name for name in now if name in was and repr(was[name]) != repr(now[name])]:
        reasons.append(f"{name} was {was[name]}, and is {now[name]} now (register_buffer would save it with the weights)")
    reasons += restore_callbacks(callback, state["callbacks"], best)
    if model._world.is_main_process:
        _cut_monitors(monitor_dir, state["monitors"])
    reasons += restore_log(model, state["log"])
    streams = state["streams"]
    model._rng, model._predict_rng = streams["training"], streams["predict"]
    # Last, because the steps above may draw random numbers
    restore_streams(streams)
    return reasons


def _counters(cls: type, data: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """:return: the model's attributes that are no arguments, and the reasons why some could not be saved"""
    skipped = {*_arguments(cls), *_OF_THE_TASK, *_OF_A_PROCESS}
    others = {name: value for name, value in data.items() if name not in skipped}
    counters = {name: decode(value) for name, value in others.items() if not was_left_out(value)}
    for name in counters:
        if callable(getattr(cls, name, None)):
            raise ValueError(f"the checkpoint has a setting {name!r}, which would replace a method; refused")
    return counters, [f"the model's attribute {name!r} is not plain" for name in others if was_left_out(others[name])]


def _begin_episodes(model: LeanOnPolicyAlgorithm) -> None:
    """Reset the environment with another seed than at the start of the run."""
    assert model.env is not None
    seed = np.random.SeedSequence([model.seed or 0, model.num_timesteps]).generate_state(1)[0]
    model.env.seed(int(seed) % 2**31 + model._world.rank * model.n_envs)
    model._last_obs = model.env.reset()  # type: ignore[assignment]  # SB3 declares None
    model._last_episode_starts = np.ones(model.n_envs, dtype=bool)
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        model._last_original_obs = normalizer.get_original_obs()


def _cut_monitors(folder: Path | None, sizes: dict[str, int]) -> None:
    """Remove the rows after the checkpoint from Monitor's files: these episodes will be played again."""
    if folder is None:
        return
    for name, size in sizes.items():
        path = folder / Path(name).name
        size_now = path.stat().st_size if path.is_file() else 0
        if size_now < size:
            warnings.warn(
                f"{path} has {size_now:,} bytes, but had {size:,} at the checkpoint: rows of episodes are lost. If Monitor "
                'emptied it, create the environment with monitor_kwargs={"override_existing": latest(save_path) is None}',
                stacklevel=2,
            )
        elif size_now > size:
            os.truncate(path, size)
