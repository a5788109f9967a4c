"""What a file says of itself. Each value is JSON, so that Python and JavaScript can read it."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_vpg.common.system_info import versions
from sb3_vpg.export.agent import Agent
from sb3_vpg.export.observations import Pipeline
from sb3_vpg.export.signature import describe


def metadata(
    model: BaseAlgorithm, agent: Agent, pipeline: Pipeline, environment: Mapping[str, Any] | None, n_checked: int
) -> dict[str, str]:
    """
    :param model: that is exported
    :param agent: the module that is exported
    :param pipeline: between environment and model
    :param environment: what the caller says of the environment; None: its id, if it has one
    :param n_checked: number of observations with which the file is compared
    :return: JSON, by the name of the entry
    """
    base = pipeline.base
    if environment is None:
        spec = base.get_attr("spec", [0])[0] if base.has_attr("spec") else None
        environment = {"id": None if spec is None else spec.id}
    entries = {
        "environment": dict(environment),
        "algorithm": type(model).__name__,
        "policy": type(agent.policy).__name__,
        "observation_space": space_as_json(base.observation_space),
        "action_space": space_as_json(base.action_space),
        "normalization": "of VecNormalize, inside the file" if pipeline.is_normalized else "none",
        "stochastic": agent.stochastic,
        "inputs": describe(agent.inputs),
        "outputs": describe(agent.outputs),
        "num_timesteps": model.num_timesteps,
        "n_checked": n_checked,
        "versions": versions(),
    }
    # Arguments of the environment may be any objects
    return {name: json.dumps(value, default=str) for name, value in entries.items()}


def space_as_json(space: spaces.Space[Any]) -> dict[str, Any]:
    """Return a space in plain values; an infinite bound is None, and a bound that all entries share is one number."""
    if isinstance(space, spaces.Dict):
        return {"type": "Dict", "spaces": {key: space_as_json(part) for key, part in space.spaces.items()}}
    plain: dict[str, Any] = {"type": type(space).__name__, "shape": list(space.shape or ()), "dtype": str(space.dtype)}
    if isinstance(space, spaces.Box):
        plain |= {"low": _bounds(space.low), "high": _bounds(space.high)}
    elif isinstance(space, spaces.Discrete):
        plain |= {"n": int(space.n), "start": int(space.start)}
    elif isinstance(space, spaces.MultiDiscrete):
        plain["nvec"] = space.nvec.tolist()
    return plain


def _bounds(array: np.ndarray) -> Any:
    values = array.astype(object)
    if array.dtype.kind == "f":
        values[~np.isfinite(array)] = None
    flat = values.ravel().tolist()
    return flat[0] if flat and all(value == flat[0] for value in flat) else values.tolist()
