"""What callbacks have counted and found, as plain values, and back into the same callbacks of another process."""

import inspect
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback, EventCallback, ProgressBarCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import VecEnv

from sb3_vpg.checkpoints.attribute_decoder import AttributeDecoder
from sb3_vpg.checkpoints.attribute_encoder import AttributeEncoder
from sb3_vpg.checkpoints.env_attributes import hidden_base, present_attributes, put_attribute
from sb3_vpg.checkpoints.env_state import get_state, set_state
from sb3_vpg.common.atomic_files import atomic_replace, atomic_write
from sb3_vpg.persistence.json_codec import encode

_ANOTHER_PROCESS = ("locals", "globals", "parent")
_CONNECTIONS = (BaseAlgorithm, BaseCallback, VecEnv, Logger, KVWriter)
_STREAMS = (np.random.Generator, np.random.RandomState, random.Random)
_LOOKS = ("verbose", "warn", "render")
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
    :return: ``own``, what its ``state_dict`` returns. Without one: ``attributes``, those that are plain (see
        ``sb3_vpg.checkpoints.env_state``) and no arguments of the constructor; ``hidden``, the names of the others;
        ``arguments``, the plain arguments; and ``env``, the state of an environment that it evaluates in
    """
    if hasattr(callback, "state_dict"):
        state = {"own": callback.state_dict(), "attributes": {"n_calls": callback.n_calls}}
        encode(state["own"], f"state_dict() of {type(callback).__name__}")
    else:
        state = _written(callback)
    env = getattr(callback, "eval_env", None)
    if isinstance(env, VecEnv):
        state["env"] = get_state(env)
    return state


def _written(callback: BaseCallback) -> dict[str, Any]:
    given, writer, kind = _arguments(callback), AttributeEncoder([callback]), type(callback).__name__
    attributes: dict[str, Any] = {}
    arguments: dict[str, Any] = {}
    hidden = []
    for name, value in present_attributes(callback).items():
        if name in _ANOTHER_PROCESS or isinstance(value, _CONNECTIONS) or _is_path(value):
            continue
        is_argument = name in given and not isinstance(value, _STREAMS)
        try:
            # What it is given is only compared, each for itself
            written = (AttributeEncoder([]) if is_argument else writer).attribute(value)
            encode(written, "something")
        except TypeError as error:
            if not is_argument:
                hidden.append(f"the attribute {name!r} of the callback {kind} holds {error}, which is not plain")
        else:
            (arguments if is_argument else attributes)[name] = written
    base = hidden_base(callback)
    if base is not None:
        hidden.append(f"the callback {kind} inherits from {base}, whose content cannot be saved")
    return {"attributes": attributes, "arguments": arguments, "hidden": hidden}


def _arguments(callback: BaseCallback) -> set[str]:
    own = (vars(cls).get("__init__") for cls in type(callback).__mro__)
    # Nobody knows the parameters of what is written in C
    return {name for one in own if isinstance(one, FunctionType) for name in inspect.signature(one).parameters}


def _is_path(value: Any) -> bool:
    """:return: whether it may be another one where training is taken up"""
    return isinstance(value, os.PathLike) or (isinstance(value, str) and ("/" in value or os.sep in value))


def restore_callbacks(callback: BaseCallback, states: dict[str, Any], best: dict[str, bytes]) -> list[str]:
    """
    :param callback: that of ``learn``
    :param states: what ``callback_state`` has returned, by the names of ``callbacks_in``
    :param best: contents of the best models, by the same names
    :return: what does not go on as it was
    """
    present, reasons = dict(callbacks_in(callback)), []
    for name in dict.fromkeys([*present, *states]):
        one = present.get(name)
        if one is not None and name in states:
            reasons += _restore(one, states[name])
            restore_files(one, best.get(name))
        elif _counts(states[name] if one is None else callback_state(one)):
            when = "is not there now, so its state is lost" if one is None else "was not there before"
            reasons.append(f"the callback {name.rpartition(' ')[0]} {when}")
    return reasons


def _counts(state: dict[str, Any]) -> bool:
    """:return: whether a callback has a state besides what all have"""
    return bool({*state, *state["attributes"]} - {"attributes", "arguments", "hidden", "n_calls", "num_timesteps"})


def _restore(callback: BaseCallback, state: dict[str, Any]) -> list[str]:
    kind, reasons = type(callback).__name__, list(state.get("hidden", ()))
    if reasons:
        reasons[-1] += f"; give {kind} the methods state_dict() and load_state_dict(state)"
    if "own" in state:
        callback.load_state_dict(state["own"])  # type: ignore[attr-defined]  # it had a state_dict
    # Older checkpoints say nothing of arguments
    now = _written(callback)["arguments"] if state.get("arguments") else {}
    for name, was in state.get("arguments", {}).items():
        if name in now and name not in _LOOKS and repr(encode(now[name])) != repr(encode(was)):
            reasons.append(f"the callback {kind} had {name}={was!r:.80}, and has {name}={now[name]!r:.80} now")
    reader, present = AttributeDecoder([callback]), present_attributes(callback)
    for name, value in state["attributes"].items():
        try:
            put_attribute(callback, name, reader.attribute(value, present.get(name)))
        except ValueError as error:
            reasons.append(f"{name} of the callback {kind} {error}")
            break
    env = getattr(callback, "eval_env", None)
    if isinstance(env, VecEnv) and "env" in state:
        reason = set_state(env, state["env"])
        reasons += [] if reason is None else [f"the callback {kind} evaluates in new episodes, because {reason}"]
    return reasons


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
        with atomic_write(path) as file:
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
    with atomic_replace(history) as part:
        np.savez(
            part,
            timesteps=callback.evaluations_timesteps,
            results=callback.evaluations_results,
            ep_lengths=callback.evaluations_length,
            **successes,  # type: ignore[arg-type]  # numpy's last keyword is a flag
        )
