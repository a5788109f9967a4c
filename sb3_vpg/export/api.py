"""``export``: write a trained agent to a file that acts as the agent does."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv

from sb3_vpg.common.arguments import whole_number
from sb3_vpg.common.atomic_files import atomic_replace
from sb3_vpg.export.agent import Agent
from sb3_vpg.export.check import Recorder, compare
from sb3_vpg.export.metadata import metadata
from sb3_vpg.export.observations import Pipeline
from sb3_vpg.export.programs import check_extra, open_onnx, open_torch, trace, write_onnx, write_torch
from sb3_vpg.random_search import RandomSearch
from sb3_vpg.vec_env.vec_normalize import normalizers
from sb3_vpg.vpg import VPG

FORMATS = {"onnx": ".onnx", "torch": ".pt2"}
"""The formats of ``export``, with the suffixes of their files."""


def export(
    model: BaseAlgorithm,
    file: str | os.PathLike[str],
    env: GymEnv | None = None,
    format: str = "onnx",
    stochastic: bool = False,
    n_checked: int = 1000,
    environment: Mapping[str, Any] | None = None,
) -> Path:
    """
    Write an agent to one file that takes the environment's own observations and returns actions as the environment takes
    them: with the statistics of ``VecNormalize``, transposed images, and clipped or unscaled actions inside.

    Before the file gets its name, it is compared with ``predict``, in the running environment. That steps ``env``, and the
    next ``learn`` of the model begins new episodes; in a callback, pass another ``env``. The statistics of ``VecNormalize`` do
    not change.

    :param model: a ``VPG``, ``MaskableVPG``, ``RecurrentVPG`` or ``RandomSearch``
    :param file: path of the file to write or replace
    :param env: the environment in which the agent acts, with the wrappers that the model needs; None: that of the model
    :param format: ``"onnx"``, which needs the extra ``export``, or ``"torch"`` for a program of ``torch.export``
    :param stochastic: sample actions, from noise that is an input; False: take the likeliest action
    :param n_checked: number of observations on which the file is compared; 0: none
    :param environment: what the metadata say of the environment, in plain values; None: its id
    :return: the path of the file
    :raises ExportError: if torch cannot export the policy, or if the file does not act as the model; no file is written
    :raises ValueError: for a model that is not ours, a missing extra, an environment that is missing or does not fit, a
        wrapper that a file cannot hold (such as ``VecFrameStack``), and ``stochastic`` with gSDE
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, but is {format!r}")
    suffix = Path(file).suffix
    if suffix in FORMATS.values() and suffix != FORMATS[format]:
        raise ValueError(
            f"format is {format!r}, whose suffix is {FORMATS[format]}, but the file is {file}: change one of them"
        )
    whole_number("n_checked", n_checked, 0)
    if format == "onnx":
        check_extra()
    pipeline = Pipeline(_environment(model, env), model.observation_space)
    agent = Agent(model, pipeline, stochastic)
    program = trace(agent)
    described = metadata(model, agent, pipeline, environment, n_checked)
    with atomic_replace(file) as part:
        if format == "onnx":
            write_onnx(program, part, described, agent)
        else:
            write_torch(program, part, described)
        if n_checked > 0:
            own, was_training = model.get_env(), model.policy.training
            if own is not None and own.unwrapped is pipeline.base:
                # The next learn() begins new episodes
                model._last_obs = None
            played = Recorder(model, agent, pipeline).play(n_checked)
            model.policy.set_training_mode(was_training)
            compare(open_onnx(part) if format == "onnx" else open_torch(part), played, agent)
    return Path(file)


def _environment(model: BaseAlgorithm, env: GymEnv | None) -> VecEnv:
    if not isinstance(model, (VPG, RandomSearch)):
        raise ValueError(
            f"only agents of sb3-vpg can be exported, but the model is a {type(model).__name__}; for algorithms of SB3 see "
            "https://stable-baselines3.readthedocs.io/en/master/guide/export.html"
        )
    if env is None:
        env = model.get_env()
    if env is None:
        raise ValueError("the model has no environment, whose observations the file takes: pass env=, or load(path, env)")
    wrapped = env if isinstance(env, VecEnv) else model._wrap_env(env, monitor_wrapper=False)
    was_normalized = model.get_vec_normalize_env() is not None or model.has_saved_statistics
    if was_normalized and not normalizers(wrapped):
        raise ValueError(
            "the model was trained on normalised observations, but the environment has no VecNormalize: wrap it with the "
            "model's statistics (sb3_vpg.normalization.load_vec_normalize reads them from its file)"
        )
    return wrapped
