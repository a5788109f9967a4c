"""What callbacks have counted and found, as plain values, and back into the same callbacks of another process."""

import inspect
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback, EventCallback, ProgressBarCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_vpg.env_states import get_state, set_state
from sb3_vpg.files import replaced_whole, written_whole
from sb3_vpg.plain import encode, is_plain

_ANOTHER_PROCESS = ("locals", "globals")
_BEST = "best_model.zip"


def callbacks_in(callback: BaseCallback) -> Iterator[tuple[str, BaseCallback]]:
    """:return: each callback and those inside of it, with a name that is the same in another process"""
    seen: Counter[str] = Counter()
    for one in _walk(callback):
        kind = type(one).__name__
        if not isinstance(one, (CallbackList, ProgressBarCallback)):
            yield f"{kind} {seen[kind]}", one
            seen[kind] += 1


def _walk(callback: BaseCallback) -> Iterator[BaseCallback]:
    yield callback
    inner = list(callback.callbacks) if isinstance(callback, CallbackList) else []
    inner += [callback.callback] if isinstance(callback, EventCallback) and callback.callback is not None else []
    inner += [one] if (one := getattr(callback, "callback_on_new_best", None)) is not None else []
    for one in inner:
        yield from _walk(one)


def callback_state(callback: BaseCallback) -> dict[str, Any]:
    """
    :return: ``own``, what its ``state_dict`` gives; or ``attributes``, all that are plain but for its arguments and texts (a
        path may be another one when it is taken up again); and ``env``, the state of an environment that it evaluates in
    """
    if hasattr(callback, "state_dict"):
        state = {"own": callback.state_dict(), "attributes": {"n_calls": callback.n_calls}}
        encode(state["own"], f"state_dict() of {type(callback).__name__}")
    else:
        state = {"attributes": dict(_plain_attributes(callback))}
    env = getattr(callback, "eval_env", None)
    if isinstance(env, VecEnv):
        state["env"] = get_state(env)
    return state


def _plain_attributes(callback: BaseCallback) -> Iterator[tuple[str, Any]]:
    arguments = inspect.signature(type(callback).__init__).parameters
    for name, value in vars(callback).items():
        if name not in (*arguments, *_ANOTHER_PROCESS) and not isinstance(value, str) and is_plain(value):
            yield name, value


def restore_callback(callback: BaseCallback, state: dict[str, Any]) -> None:
    """:param state: what ``callback_state`` has returned for such a callback"""
    if "own" in state:
        callback.load_state_dict(state["own"])  # type: ignore[attr-defined]  # it had a state_dict
    for name, value in state.get("attributes", {}).items():
        setattr(callback, name, value)
    env = getattr(callback, "eval_env", None)
    if isinstance(env, VecEnv) and "env" in state:
        set_state(env, state["env"])


def best_model(callback: BaseCallback) -> Path | None:
    """:return: where it keeps the best model that it has found, if it is one that does"""
    folder = callback.best_model_save_path if isinstance(callback, EvalCallback) else None
    return None if folder is None else Path(folder) / _BEST


def restore_files(callback: BaseCallback, best: bytes | None) -> None:
    """
    Let the files of an ``EvalCallback`` say what it knows: not what was found after the checkpoint and will be found again.

    :param callback: as restored
    :param best: content of its best model at that time; None: there was none
    """
    if not isinstance(callback, EvalCallback):
        return
    path = best_model(callback)
    if path is not None and best is not None:
        with written_whole(path) as file:
            file.write(best)
    elif path is not None:
        path.unlink(missing_ok=True)
    if callback.log_path is None:
        return
    history = Path(f"{callback.log_path}.npz")
    if not callback.evaluations_timesteps:
        history.unlink(missing_ok=True)
        return
    successes = {"successes": callback.evaluations_successes} if callback.evaluations_successes else {}
    with replaced_whole(history) as part:
        np.savez(
            part,
            timesteps=callback.evaluations_timesteps,
            results=callback.evaluations_results,
            ep_lengths=callback.evaluations_length,
            **successes,  # type: ignore[arg-type]  # numpy's last keyword is a flag
        )
