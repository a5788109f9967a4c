"""
The state of the environments of all processes, by the index of the environment among all, so that training resumes with
another number of processes. It is taken from a ``DummyVecEnv`` inside of SB3's wrappers; with others, new episodes begin.

N environments of this process.
"""

import copy
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecCheckNan,
    VecEnv,
    VecEnvWrapper,
    VecExtractDictObs,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)

from sb3_vpg.checkpoints.env_state import get_state, set_state
from sb3_vpg.common.world import World
from sb3_vpg.on_policy_algorithm import LeanOnPolicyAlgorithm
from sb3_vpg.vec_env.vec_normalize import fill_statistics, normalizer_state, wrappers_of

ANOTHER_RUN_ADVICE = "Use another save_path, or resume=False to remove the checkpoints"
SHARED = "shared"
"""The key of this state, which a run without torchrun does not have."""
# Attributes of a wrapper with one entry for each environment
_ENTRIES: dict[type, tuple[str, ...]] = {
    VecNormalize: ("returns",),
    VecMonitor: ("episode_returns", "episode_lengths"),
    VecFrameStack: ("stacked_obs.stacked_obs",),
    VecTransposeImage: (),
    VecExtractDictObs: (),
    VecCheckNan: (),
}
_LISTS_OF_DUMMY = ("_seeds", "_options", "reset_infos")


def get_shared_state(model: LeanOnPolicyAlgorithm) -> dict[str, Any]:
    """
    :return: plain values: ``num_envs`` of all processes; ``wrappers``, what each wrapper keeps; ``envs``, the state of each
        environment; ``last_obs`` and ``last_starts``, what the next rollout begins with; ``missing``, why new episodes must
        begin, or None. All processes return the same
    """
    assert model.env is not None
    world, (wrappers, base, missing) = model._world, _layers(model.env)
    own: dict[str, Any] = {
        "rows": [{name: _entry(one, name) for name in _ENTRIES.get(type(one), ())} for one in wrappers],
        "envs": [get_state(_alone(base, index)) for index in range(base.num_envs)] if isinstance(base, DummyVecEnv) else [],
        "last_obs": model._last_obs,
        "last_starts": model._last_episode_starts,
    }
    everyones = world.all_gather(own)
    envs = [state for one in everyones for state in one["envs"]]
    missing = missing or next((state["missing"] for state in envs if state["missing"]), None)
    joined = {key: _joined([one[key] for one in everyones]) for key in ("last_obs", "last_starts")}
    rows = [
        {
            "class": type(wrapper).__qualname__,
            "entries": {name: _joined([one["rows"][number][name] for one in everyones]) for name in own["rows"][number]},
            "statistics": normalizer_state(wrapper) if isinstance(wrapper, VecNormalize) else None,
        }
        for number, wrapper in enumerate(wrappers)
    ]
    return {"num_envs": base.num_envs * world.size, "wrappers": rows, "envs": envs, "missing": missing, **joined}


def set_shared_state(model: LeanOnPolicyAlgorithm, state: dict[str, Any]) -> str | None:
    """
    Restore this process's share.

    :param state: as ``get_shared_state`` returned it, in a run with any number of processes
    :return: None if the episodes continue, else the reason why not; the statistics of ``VecNormalize`` are restored anyway
    :raises ValueError: if the state is of other environments or wrappers
    """
    assert model.env is not None
    world, (wrappers, base, missing) = model._world, _layers(model.env)
    n_envs = base.num_envs
    if state["num_envs"] != n_envs * world.size:
        raise ValueError(
            f"the state is of {state['num_envs']} environments, but there are {n_envs * world.size}; build as many"
        )
    names, saved = [type(one).__qualname__ for one in wrappers], [row["class"] for row in state["wrappers"]]
    if names != saved:
        raise ValueError(f"the state is of the wrappers {saved}, but the environment has {names}")
    own = slice(world.rank * n_envs, (world.rank + 1) * n_envs)
    for wrapper, row in zip(wrappers, state["wrappers"], strict=True):
        if isinstance(wrapper, VecNormalize):
            fill_statistics(wrapper, row["statistics"])
        for name, entries in row["entries"].items():
            _put_entry(wrapper, name, _taken(entries, own))
    reason: str | None = state["missing"] or missing
    if reason is None:
        assert isinstance(base, DummyVecEnv)
        reasons = [set_state(_alone(base, index), one) for index, one in enumerate(state["envs"][own])]
        reason = next((one for one in reasons if one is not None), None)
    # If one process begins new episodes, all do
    reason = next((one for one in world.all_gather(reason) if one is not None), None)
    if reason is None:
        model._last_obs, model._last_episode_starts = _taken(state["last_obs"], own), _taken(state["last_starts"], own)
        # A reset that waits would be that of the seed
        base._reset_seeds()
        base._reset_options()
    return reason


def _layers(env: VecEnv) -> tuple[list[VecEnvWrapper], VecEnv, str | None]:
    """:return: the wrappers, the outermost first; what they wrap; and why its state cannot be divided, or None"""
    wrappers = wrappers_of(env)
    env = wrappers[-1].venv if wrappers else env
    unknown = [type(one).__qualname__ for one in wrappers if type(one) not in _ENTRIES]
    if type(env) is not DummyVecEnv:
        unknown.append(type(env).__qualname__)
    text = (
        f"the state of a {unknown[0]} cannot be divided among processes; use DummyVecEnv and SB3's wrappers"
        if unknown
        else None
    )
    return wrappers, env, text


def _alone(env: DummyVecEnv, index: int) -> DummyVecEnv:
    """:return: one of the environments, in a ``DummyVecEnv`` of its own"""
    alone = copy.copy(env)
    alone.envs, alone.num_envs = [env.envs[index]], 1
    for name in _LISTS_OF_DUMMY:
        setattr(alone, name, getattr(env, name)[index : index + 1])
    return alone


def _entry(wrapper: VecEnvWrapper, path: str) -> Any:
    value: Any = wrapper
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _put_entry(wrapper: VecEnvWrapper, path: str, value: Any) -> None:
    owner, _, name = path.rpartition(".")
    setattr(_entry(wrapper, owner) if owner else wrapper, name, value)


def _joined(parts: list[Any]) -> Any:
    """:return: the arrays of all processes, concatenated; of dicts key by key"""
    if isinstance(parts[0], dict):
        return {key: _joined([part[key] for part in parts]) for key in parts[0]}
    return np.concatenate(parts)


def _taken(value: Any, rows: slice) -> Any:
    return {key: _taken(part, rows) for key, part in value.items()} if isinstance(value, dict) else value[rows].copy()


def is_of_torchrun(state: dict[str, Any]) -> bool:
    """:return: whether the state of training is that of a run under torchrun"""
    return SHARED in state["env"]


def check_launch(state: dict[str, Any], world: World, path: object) -> None:
    """:raises ValueError: if the run began without torchrun and goes on with it, or the other way round"""
    if is_of_torchrun(state) and not world.is_distributed:
        raise ValueError(
            f"{path} belongs to a run under torchrun, where statistics and checkpoints have another form: go on with "
            "torchrun, with any number of processes that divides the number of environments, such as --nproc-per-node 1. "
            f"To begin a new run: {ANOTHER_RUN_ADVICE}"
        )
    if world.is_distributed and not is_of_torchrun(state):
        raise ValueError(
            f"{path} belongs to a run without torchrun: go on without it. To begin a new run: {ANOTHER_RUN_ADVICE}"
        )
