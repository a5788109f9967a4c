"""
From what a repository holds to a run folder in which ``enjoy``, ``evaluate`` and ``record_video`` play the agent.

Everything in the folder is written by us: the model anew from what was read of it, its statistics from the model, and settings
from plain values.
"""

import json
from collections.abc import Sequence
from copy import deepcopy
from io import BytesIO
from pathlib import Path
from typing import Any

import yaml
from huggingface_sb3 import EnvironmentName
from rl_zoo3 import create_test_env
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import check_for_correct_spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecNormalize

from sb3_vpg.exceptions import RefusedFileError
from sb3_vpg.normalization import load_vec_normalize
from sb3_vpg.persistence.archives import STATISTICS, read_archive
from sb3_vpg.persistence.json_codec import encode, is_plain
from sb3_vpg.persistence.packing import Packable, pack
from sb3_vpg.vec_env.vec_normalize import describe
from sb3_vpg.zoo.algorithms import algorithm_class
from sb3_vpg.zoo.hub.repository import ARGS, CONFIG, PICKLED_STATISTICS, Repository


def make_run(
    found: Repository,
    run: Path,
    algo: str,
    env_name: EnvironmentName,
    trust: bool = False,
    gym_packages: Sequence[str] = (),
) -> None:
    """
    Write what was found into the folder of a run, and see whether the agent can play.

    :param found: looked at
    :param run: the folder, which is not there yet
    :param algo: one of ours
    :param env_name: the user's, not the repository's
    :param trust: whether the model and its statistics may be unpickled
    :param gym_packages: modules that the user has named, not the repository; whoever plays the run imports them
    :raises RefusedFileError: if the model is damaged, holds pickles, or is none for this environment
    """
    more: dict[str, Any] = {"trust": True} if trust else {}
    model = algorithm_class(algo).load(found.model, device="cpu", **more)
    statistics = read_archive(found.model).get(STATISTICS)
    settings = run / env_name
    settings.mkdir(parents=True)
    env = _bare_env(found, env_name)
    try:
        if found.config.get("normalize"):
            normalizer = _normalizer(found, env, statistics, trust)
            normalizer.save(str(settings / "vecnormalize.pkl"))
            statistics, env = json.dumps(encode(describe(normalizer))).encode(), normalizer
        elif statistics is not None:
            raise RefusedFileError(
                f"{found.model} was trained on normalised observations, but the config.yml beside it does not say so; refused"
            )
        _check_plays(model, env, found, env_name)
    finally:
        env.close()
    (run / f"{env_name}.zip").write_bytes(repacked(model, statistics, trust))
    for name, content in found.metrics.items():
        (run / name).write_bytes(content)
    write_yaml(settings / CONFIG, {**found.config, "env_kwargs": found.env_kwargs})
    args = {"algo": algo, "env": env_name.gym_id, **found.args, "env_kwargs": found.env_kwargs}
    write_yaml(settings / ARGS, {**args, "gym_packages": list(gym_packages)})


def _bare_env(found: Repository, env_name: EnvironmentName) -> VecEnv:
    """:return: the environment, with the wrappers that are allowed"""
    # The zoo takes out what it has read
    wrappers = {name: deepcopy(found.config[name]) for name in ("env_wrapper", "vec_env_wrapper") if found.config.get(name)}
    env: VecEnv = create_test_env(
        env_name.gym_id, should_render=False, hyperparams=wrappers, env_kwargs=found.env_kwargs, vec_env_cls=DummyVecEnv
    )
    return env


def _normalizer(found: Repository, env: VecEnv, statistics: bytes | None, trust: bool) -> VecNormalize:
    """:return: the environment with the statistics of the model, or for who trusts, where it has none, of a pickle"""
    pickled = found.model.parent / PICKLED_STATISTICS
    if statistics is None and trust and pickled.exists():
        return VecNormalize.load(str(pickled), env)
    return load_vec_normalize(found.model, env)


def _check_plays(model: BaseAlgorithm, env: VecEnv, found: Repository, env_name: EnvironmentName) -> None:
    frames = found.config.get("frame_stack", 0)
    if frames > 0:
        env = VecFrameStack(env, frames)
    if isinstance(env, VecNormalize):
        env.training = False
    try:
        # Images the other way round, as when it was trained
        check_for_correct_spaces(model._wrap_env(env, 0, False), model.observation_space, model.action_space)
    except ValueError as error:
        raise RefusedFileError(
            f"{found.model} was trained on another environment than {env_name.gym_id}: {error}; refused"
        ) from error
    try:
        actions, _ = model.predict(env.reset(), deterministic=True)  # type: ignore[arg-type]  # what SB3's predict takes
        env.step(actions)
    except Exception as error:  # environments and wrappers raise what they like
        raise RefusedFileError(
            f"{found.model} cannot play in {env_name.gym_id} with the wrappers of the config.yml beside it: "
            f"{type(error).__name__}: {error}; refused (if {env_name.gym_id} is yours, see the traceback of the cause)"
        ) from error


def repacked(model: BaseAlgorithm, statistics: bytes | None, trust: bool = False) -> bytes:
    """
    :param model: as loaded
    :param statistics: of its ``VecNormalize``, as its archive holds them
    :param trust: make plain what is not, which is enough to play: a learning rate that is a function is what it was at first
    :return: its archive, with no folder to log to, which was its author's
    :raises RefusedFileError: if it has other settings that no plain data holds
    """
    assert isinstance(model, Packable)
    vars(model)["tensorboard_log"] = None
    if trust:
        for name in set(vars(model)) - set(model._excluded_save_params()):
            value = getattr(model, name)
            if callable(value) and not is_plain(value) and not isinstance(value, type):
                setattr(model, name, float(value(1.0)))
    content = pack(model, more={} if statistics is None else {STATISTICS: statistics}, pickles=False)
    # It must be readable for those who do not trust
    type(model).load(BytesIO(content), device="cpu")
    return content


def write_yaml(path: Path, content: dict[str, Any]) -> None:
    """Write plain values, each of them out in full."""
    # Through JSON, so that there are neither tuples nor aliases
    path.write_text(yaml.safe_dump(json.loads(json.dumps(content)), sort_keys=True))
