"""
The state of MuJoCo's ``MjModel`` and ``MjData`` as plain arrays, and its restoration in objects that were built again.

``mj_getState`` returns what the next physics step reads. An environment may read more before that step, such as the positions
of bodies from the last one, so all arrays of real numbers whose size is fixed are saved too. Contacts and constraints, whose
number changes, cannot be restored without a step: an environment must not read those of the last step.

An environment may edit its model, for example masses at each reset. Real numbers of a model are restored. Whole numbers are
only compared, because many are places in memory, and a file must not change those.
"""

import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from sb3_vpg.exceptions import NotPlainError

_OPTIONS = ("opt", "stat")
"""Parts of a model on which the physics depends; ``vis`` is only for rendering."""
_NOT_SAVED = {"nplugin": "plugins", "nhistory": "delays"}
"""Sizes of a model that must be 0: plugins have memory of their own, and delays have places in memory among their numbers."""


def simulations_in(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """:return: those attributes that are a ``MjModel`` or ``MjData``"""
    # Who has made such an object has imported MuJoCo
    mujoco = sys.modules.get("mujoco")
    kinds = tuple(getattr(mujoco, name, None) for name in ("MjModel", "MjData"))
    return {name: value for name, value in attributes.items() if type(value) in kinds}


def check_simulation(value: Any, simulations: Iterable[Any]) -> None:
    """
    :param value: a ``MjModel`` or ``MjData``
    :param simulations: all that are saved
    :raises NotPlainError: if it has state that cannot be saved
    """
    mujoco: Any = sys.modules["mujoco"]
    name = type(value).__name__
    if not hasattr(mujoco.MjData, "model"):
        raise NotPlainError(f"a {name} of MuJoCo {mujoco.__version__}, which is too old")
    if name == "MjData" and not any(value.model is other for other in simulations):
        raise NotPlainError("a MjData whose MjModel is in no attribute of an environment")
    parts = _not_saved(value) if name == "MjModel" else []
    if parts:
        raise NotPlainError(f"a MjModel with {' and '.join(parts)}")


def _not_saved(model: Any) -> list[str]:
    """:return: what a model has whose state is more than real numbers"""
    mujoco: Any = sys.modules["mujoco"]
    parts = [text for name, text in _NOT_SAVED.items() if getattr(model, name, 0)]
    is_asleep = model.opt.enableflags & int(getattr(mujoco.mjtEnableBit, "mjENBL_SLEEP", 0))
    return [*parts, "bodies that sleep"] if is_asleep else parts


def is_view(array: np.ndarray, simulations: Iterable[Any]) -> bool:
    """:return: True if the array is in the memory of a ``MjModel`` or ``MjData``, and changes with it"""
    return any(np.may_share_memory(array, own) for simulation in simulations for _, own in _arrays(simulation))


def simulation_state(value: Any) -> dict[str, Any]:
    """
    :param value: a ``MjModel`` or ``MjData`` that ``check_simulation`` accepts
    :return: plain values, a copy: ``numbers``, all real numbers; ``sizes`` of their arrays; ``digests`` of a model's arrays
        of whole numbers; ``state`` from ``mj_getState``, of ``MjData``
    """
    mujoco: Any = sys.modules["mujoco"]
    content: dict[str, Any] = {"kind": type(value).__name__, "version": mujoco.__version__, "digests": {}, "state": None}
    arrays = dict(_arrays(value))
    if isinstance(value, mujoco.MjData):
        # In a new object there are no contacts, so that their arrays are empty
        arrays = {name: arrays[name] for name, array in _arrays(mujoco.MjData(value.model)) if array.size}
        content["state"] = np.empty(_state_size(value.model))
        mujoco.mj_getState(value.model, value, content["state"], mujoco.mjtState.mjSTATE_INTEGRATION)
    else:
        content["digests"] = {name: _digest(array) for name, array in arrays.items() if array.size and not _is_real(array)}
    real = {name: array for name, array in arrays.items() if array.size and _is_real(array)}
    content["sizes"] = [[name, array.size] for name, array in real.items()]
    return content | {"numbers": np.concatenate([np.empty(0), *map(np.ravel, real.values())])}


def difference(content: dict[str, Any], current: Any) -> str | None:
    """
    :param content: as ``simulation_state`` returned it
    :param current: the object that will get the state
    :return: why it cannot get it; None if it can
    """
    kind, mujoco = content["kind"], sys.modules.get("mujoco")
    if simulations_in({kind: current}) == {} or type(current).__name__ != kind:
        return f"is {current!r:.80}, but the state is of a {kind}; reset it if a reset sets it"
    version = getattr(mujoco, "__version__", None)
    if version != content["version"]:
        return f"is of MuJoCo {version}, but the state is of MuJoCo {content['version']}"
    parts = _not_saved(current if kind == "MjModel" else current.model)
    if parts:
        return f"is of a model with {' and '.join(parts)}, whose state cannot be restored"
    present = {name: array for name, array in _arrays(current) if array.size}
    sizes, digests = dict(content["sizes"]), content["digests"]
    other = [name for name, size in sizes.items() if name not in present or present[name].size != size]
    if kind == "MjModel":
        other += present.keys() - sizes.keys() - digests.keys()
    elif content["state"].shape != (_state_size(current.model),):
        other.append("state")
    if other:
        return f"has another size of {min(other)!r} than the state"
    for name, digest in digests.items():
        if name not in present or _digest(present[name]) != digest:
            return f"has other whole numbers in {name!r} than the state, and a checkpoint restores only real numbers"
    return None


def restore_simulation(content: dict[str, Any], current: Any) -> None:
    """
    :param content: as ``simulation_state`` returned it
    :param current: an object without a ``difference``; it stays the same object, because wrappers and renderers hold it
    :raises ValueError: if the content names an array of whole numbers or has too few numbers; such a file is damaged
    """
    mujoco: Any = sys.modules["mujoco"]
    if content["kind"] == "MjData":
        mujoco.mj_setState(current.model, current, content["state"], mujoco.mjtState.mjSTATE_INTEGRATION)
    present, place = dict(_arrays(current)), 0
    for name, size in content["sizes"]:
        array, numbers = present[name], content["numbers"][place : place + size]
        if not _is_real(array) or numbers.shape != (size,):
            raise ValueError(f"the state of {name!r} is damaged")
        place += size
        if array.ndim:
            array[...] = numbers.reshape(array.shape)
        else:
            owner, _, part = name.rpartition(".")
            setattr(getattr(current, owner), part, float(numbers[0]))


def _arrays(simulation: Any) -> Iterator[tuple[str, np.ndarray]]:
    """:return: names and arrays of a ``MjModel`` or ``MjData``; numbers of a model's options as arrays without dimensions"""
    for name in dir(simulation):
        value = None if name.startswith("_") else getattr(simulation, name)
        if isinstance(value, np.ndarray):
            yield name, value
        elif name in _OPTIONS:
            for part in dir(value):
                number = None if part.startswith("_") else getattr(value, part)
                if isinstance(number, (bool, int, float, np.ndarray)):
                    yield f"{name}.{part}", np.asarray(number)


def _is_real(array: np.ndarray) -> bool:
    return array.dtype.kind == "f"


def _digest(array: np.ndarray) -> str:
    content = f"{array.dtype.str}{array.shape}".encode() + array.tobytes()
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _state_size(model: Any) -> int:
    mujoco: Any = sys.modules["mujoco"]
    return int(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_INTEGRATION))
