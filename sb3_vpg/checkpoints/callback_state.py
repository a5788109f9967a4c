"""The state of callbacks as plain values, and its restoration in the same callbacks of another process."""

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

# Attributes that each process sets anew
_OF_A_PROCESS = ("locals", "globals", "parent")
_REFERENCES = (BaseAlgorithm, BaseCallback, VecEnv, Logger, KVWriter)
_STREAMS = (np.random.Generator, np.random.RandomState, random.Random)
# Arguments that may differ when training resumes
_NOT_COMPARED = ("verbose", "warn", "render")


def callbacks_in(callback: BaseCallback) -> Iterator[tuple[str, BaseCallback]]:
    """:return: the callback and all callbacks inside of it, each with a name that is the same in another process"""
    counts: Counter[str] = Counter()
    for part in _walk(callback):
        kind = type(part).__name__
        if not isinstance(part, (CallbackList, ProgressBarCallback)):
            yield f"{kind} {counts[kind]}", part
            counts[kind] += 1


def _walk(callback: BaseCallback) -> Iterator[BaseCallback]:
    yield callback
    inner = list(callback.callbacks) if isinstance(callback, CallbackList) else []
    inner += [callback.callback] if isinstance(callback, EventCallback) and callback.callback is not None else []
    inner += [best] if (best := getattr(callback, "callback_on_new_best", None)) is not None else []
    for part in inner:
        yield from _walk(part)


def callback_state(callback: BaseCallback) -> dict[str, Any]:
    """
    :return: ``own``, the result of its ``state_dict``. If it has none: ``attributes``, the plain ones (see
        ``sb3_vpg.checkpoints.env_state``) that are no arguments of the constructor; ``hidden``, why others are not saved;
        ``arguments``, the plain arguments. Always ``env``, the state of its evaluation environment, if it has one
    """
    if hasattr(callback, "state_dict"):
        state = {"own": callback.state_dict(), "attributes": {"n_calls": callback.n_calls}}
        encode(state["own"], f"state_dict() of {type(callback).__name__}")
    else:
        state = _encoded(callback)
    env = getattr(callback, "eval_env", None)
    if isinstance(env, VecEnv):
        state["env"] = get_state(env)
    return state


def _encoded(callback: BaseCallback) -> dict[str, Any]:
    argument_names, encoder, kind = _argument_names(callback), AttributeEncoder([callback]), type(callback).__name__
    attributes: dict[str, Any] = {}
    arguments: dict[str, Any] = {}
    hidden = []
    for name, value in present_attributes(callback).items():
        if name in _OF_A_PROCESS or isinstance(value, _REFERENCES) or _is_path(value):
            continue
        is_argument = name in argument_names and not isinstance(value, _STREAMS)
        try:
            # Arguments are only compared, one by one
            encoded = (AttributeEncoder([]) if is_argument else encoder).encode(value)
            encode(encoded, "a value that")
        except TypeError as error:
            if not is_argument:
                hidden.append(f"the attribute {name!r} of the callback {kind} holds {error}, which is not plain")
        else:
            (arguments if is_argument else attributes)[name] = encoded
    base = hidden_base(callback)
    if base is not None:
        hidden.append(f"the callback {kind} inherits from {base}, whose content cannot be saved")
    return {"attributes": attributes, "arguments": arguments, "hidden": hidden}


def _argument_names(callback: BaseCallback) -> set[str]:
    constructors = (vars(cls).get("__init__") for cls in type(callback).__mro__)
    # Constructors in C have no signature
    return {name for init in constructors if isinstance(init, FunctionType) for name in inspect.signature(init).parameters}


def _is_path(value: Any) -> bool:
    """:return: True if the value is a path, which may differ when training resumes"""
    return isinstance(value, os.PathLike) or (isinstance(value, str) and ("/" in value or os.sep in value))


def restore_callbacks(callback: BaseCallback, states: dict[str, Any], best: dict[str, bytes]) -> list[str]:
    """
    :param callback: the callback of ``learn``
    :param states: as ``callback_state`` returned them, by the names of ``callbacks_in``
    :param best: file contents of the best models, by the same names
    :return: the reasons why callbacks may not go on exactly
    """
    present, reasons = dict(callbacks_in(callback)), []
    for name in dict.fromkeys([*present, *states]):
        part = present.get(name)
        if part is not None and name in states:
            reasons += _restore(part, states[name])
            restore_files(part, best.get(name))
        elif _has_own_state(states[name] if part is None else callback_state(part)):
            when = "is not there now, so its state is lost" if part is None else "was not there before"
            reasons.append(f"the callback {name.rpartition(' ')[0]} {when}")
    return reasons


def _has_own_state(state: dict[str, Any]) -> bool:
    """:return: True if a callback has other state than the counters that every callback has"""
    # Older checkpoints hold verbose and parent among the attributes
    of_every_callback = {"n_calls", "num_timesteps", "verbose", "parent"}
    return bool({*state, *state["attributes"]} - {"attributes", "arguments", "hidden", *of_every_callback})


def _restore(callback: BaseCallback, state: dict[str, Any]) -> list[str]:
    kind, reasons = type(callback).__name__, list(state.get("hidden", ()))
    if reasons:
        reasons[-1] += f"; give {kind} the methods state_dict() and load_state_dict(state)"
    if "own" in state:
        callback.load_state_dict(state["own"])  # type: ignore[attr-defined]  # the saved one had state_dict()
    # Older checkpoints do not have arguments
    now = _encoded(callback)["arguments"] if state.get("arguments") else {}
    for name, was in state.get("arguments", {}).items():
        if name in now and name not in _NOT_COMPARED and repr(encode(now[name])) != repr(encode(was)):
            reasons.append(f"the callback {kind} had {name}={was!r:.80}, and has {name}={now[name]!r:.80} now")
    decoder, present = AttributeDecoder([callback]), present_attributes(callback)
    for name, value in state["attributes"].items():
        try:
            put_attribute(callback, name, decoder.decode(value, present.get(name)))
        except ValueError as error:
            reasons.append(f"{name} of the callback {kind} {error}")
            break
    env = getattr(callback, "eval_env", None)
    if isinstance(env, VecEnv) and "env" in state:
        reason = set_state(env, state["env"])
        reasons += [] if reason is None else [f"the callback {kind} evaluates in new episodes, because {reason}"]
    return reasons


def best_model(callback: BaseCallback) -> Path | None:
    """:return: path of the best model of an ``EvalCallback``; None if it saves none, and for other callbacks"""
    folder = callback.best_model_save_path if isinstance(callback, EvalCallback) else None
    return None if folder is None else Path(folder) / "best_model.zip"


def restore_files(callback: BaseCallback, best: bytes | None) -> None:
    """
    Write the files of an ``EvalCallback`` as they were at the checkpoint.

    :param callback: already restored
    :param best: file content of its best model at the checkpoint; None if there was none
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
            **successes,  # type: ignore[arg-type]  # NumPy declares a flag as its last keyword
        )
