"""
Make a run folder, which ``enjoy``, ``evaluate`` and ``record_video`` can play, from the files of a repository.

No file is copied as it is, except monitor files: the model is loaded and saved again, ``vecnormalize.pkl`` is written from the
model's statistics, and the settings from plain values.
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
from sb3_vpg.vec_env.vec_normalize import normalizer_state
from sb3_vpg.zoo.agents.masked_play import with_masks
from sb3_vpg.zoo.algorithms import algorithm_class
from sb3_vpg.zoo.hub.repository import ARGS, CONFIG, PICKLED_STATISTICS, Repository


def make_run(
    repository: Repository,
    run: Path,
    algo: str,
    env_name: EnvironmentName,
    trust: bool = False,
    gym_packages: Sequence[str] = (),
) -> None:
    """
    Write the folder of a run, and check that the agent can play.

    :param repository: its checked files
    :param run: the folder, which must not exist yet
    :param algo: one of our algorithms
    :param env_name: environment that the user has named; the repository's is not used
    :param trust: whether the model and its statistics may be unpickled
    :param gym_packages: modules that the user has named; playing the run will import them
    :raises RefusedFileError: if the model is damaged, contains pickles, or does not fit this environment
    """
    trusting: dict[str, Any] = {"trust": True} if trust else {}
    model = algorithm_class(algo).load(repository.model, device="cpu", **trusting)
    statistics = read_archive(repository.model).get(STATISTICS)
    settings = run / env_name
    settings.mkdir(parents=True)
    env = _bare_env(repository, env_name)
    try:
        if repository.config.get("normalize"):
            normalizer = _normalizer(repository, env, statistics, trust)
            normalizer.save(str(settings / "vecnormalize.pkl"))
            statistics, env = json.dumps(encode(normalizer_state(normalizer))).encode(), normalizer
        elif statistics is not None:
            raise RefusedFileError(
                f"{repository.model} was trained on normalised observations, but its config.yml does not say so; refused"
            )
        _check_plays(model, env, repository, env_name)
    finally:
        env.close()
    (run / f"{env_name}.zip").write_bytes(repacked(model, statistics, trust))
    for name, content in repository.metrics.items():
        (run / name).write_bytes(content)
    env_kwargs = repository.env_kwargs
    write_yaml(settings / CONFIG, {**repository.config, "env_kwargs": env_kwargs})
    args = {"algo": algo, "env": env_name.gym_id, **repository.args, "env_kwargs": env_kwargs}
    write_yaml(settings / ARGS, {**args, "gym_packages": list(gym_packages)})


def _bare_env(repository: Repository, env_name: EnvironmentName) -> VecEnv:
    """Return the environment in the allowed wrappers, without ``VecNormalize`` and ``VecFrameStack``."""
    config = repository.config
    # A copy, because create_test_env removes what it has read
    wrappers = {name: deepcopy(config[name]) for name in ("env_wrapper", "vec_env_wrapper") if config.get(name)}
    env: VecEnv = create_test_env(
        env_name.gym_id, should_render=False, hyperparams=wrappers, env_kwargs=repository.env_kwargs, vec_env_cls=DummyVecEnv
    )
    return env


def _normalizer(repository: Repository, env: VecEnv, statistics: bytes | None, trust: bool) -> VecNormalize:
    """Return ``env`` normalised with the statistics of the model; if it has none, and ``trust``, with those of the pickle."""
    pickled = repository.model.parent / PICKLED_STATISTICS
    if statistics is None and trust and pickled.exists():
        return VecNormalize.load(str(pickled), env)
    return load_vec_normalize(repository.model, env)


def _check_plays(model: BaseAlgorithm, env: VecEnv, repository: Repository, env_name: EnvironmentName) -> None:
    """Raise RefusedFileError if the spaces of the model and the environment differ, or if one step fails."""
    frames = repository.config.get("frame_stack", 0)
    if frames > 0:
        env = VecFrameStack(env, frames)
    if isinstance(env, VecNormalize):
        env.training = False
    try:
        # _wrap_env transposes images, as in training
        check_for_correct_spaces(model._wrap_env(env, 0, False), model.observation_space, model.action_space)
    except ValueError as error:
        raise RefusedFileError(
            f"{repository.model} was trained on another environment than {env_name.gym_id}: {error}; refused"
        ) from error
    try:
        actions, _ = with_masks(model, env).predict(env.reset(), deterministic=True)
        env.step(actions)
    except Exception as error:  # environments and wrappers may raise anything
        raise RefusedFileError(
            f"{repository.model} cannot play in {env_name.gym_id} with the wrappers of its config.yml: "
            f"{type(error).__name__}: {error}; refused (if {env_name.gym_id} is yours, see the traceback of the cause)"
        ) from error


def repacked(model: BaseAlgorithm, statistics: bytes | None, trust: bool = False) -> bytes:
    """
    Save a model again, without pickles and without its ``tensorboard_log``, a folder of its author.

    :param model: as loaded
    :param statistics: the member of the archive with its ``VecNormalize``; None if it has none
    :param trust: replace a schedule that is a function by its first value, which does not change how the agent plays
    :return: content of the archive
    :raises RefusedFileError: if the model has other settings that are not plain data
    """
    assert isinstance(model, Packable)
    vars(model)["tensorboard_log"] = None
    if trust:
        for name in set(vars(model)) - set(model._excluded_save_params()):
            value = getattr(model, name)
            if callable(value) and not is_plain(value) and not isinstance(value, type):
                setattr(model, name, float(value(1.0)))
    content = pack(model, extra_members={} if statistics is None else {STATISTICS: statistics}, pickles=False)
    # Raises RefusedFileError if it cannot be loaded without trust=True
    type(model).load(BytesIO(content), device="cpu")
    return content


def write_yaml(path: Path, content: dict[str, Any]) -> None:
    """Write plain values. Passing them through JSON turns tuples into lists and avoids YAML aliases."""
    path.write_text(yaml.safe_dump(json.loads(json.dumps(content)), sort_keys=True))
