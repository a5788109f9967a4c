"""``sb3-vpg enjoy --onnx``: watch an exported agent in its environment."""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_vpg.exceptions import RefusedFileError
from sb3_vpg.export import OnnxPlayer
from sb3_vpg.export.metadata import space_as_json
from sb3_vpg.zoo.agents.masked_play import with_masks
from sb3_vpg.zoo.agents.play_env import create_gym_vec_test_env, create_test_env
from sb3_vpg.zoo.own_modules import check_registered
from sb3_vpg.zoo.registration import register
from sb3_vpg.zoo.safe_yaml import check_plain


def enjoy_onnx(file: str, args: argparse.Namespace, vector_mode: str | None = None) -> None:
    """
    Play an ONNX file and print the return of each episode, as the zoo's ``enjoy`` does.

    :param file: that ``export`` has written
    :param args: of ``enjoy_onnx_parser``
    :param vector_mode: one of ``VECTOR_MODES``; None: a ``DummyVecEnv``
    :raises FileNotFoundError: if there is no such file
    :raises RefusedFileError: if an argument of the environment in the file may be a path or code
    :raises ValueError: if it is another file, or if the environment has other spaces than the file
    """
    register()
    if not Path(file).is_file():
        raise FileNotFoundError(f"there is no file {file}; write one: sb3-vpg export --env ENV -o {file}")
    # As the zoo's enjoy does, for environments that draw from the global generators
    set_random_seed(args.seed)
    player = OnnxPlayer(file, args.seed)
    of_file = player.metadata["environment"]
    env_id = args.env or of_file["id"]
    if env_id is None:
        raise ValueError(f"{file} does not name its environment: add --env ENV")
    check_registered(env_id)
    kwargs = {**_checked_kwargs(of_file.get("kwargs") or {}, args.env_kwargs or {}, file), **(args.env_kwargs or {})}
    env = _environment(env_id, args, kwargs, vector_mode)
    try:
        for name, space in (("observation_space", env.observation_space), ("action_space", env.action_space)):
            expected, given = player.metadata[name], json.loads(json.dumps(space_as_json(space)))
            if given != expected:
                what = name.replace("_", " ")
                raise ValueError(
                    f"the {what} of {file} is {expected!s:.300}, but that of {env_id} is {space}; {_advice(of_file)}"
                )
        print(f"Playing {file} in {env_id}")
        _play(with_masks(player, env), env, args.n_timesteps, not args.no_render)
    finally:
        env.close()


def _checked_kwargs(of_file: dict[str, Any], given: dict[str, Any], file: str) -> dict[str, Any]:
    """Return the file's arguments of the environment, without the given ones. The file may be of someone else."""
    kept = {name: value for name, value in of_file.items() if name not in given}
    for name, value in kept.items():
        try:
            check_plain(value, f"{file}: the environment's argument {name}")
        except RefusedFileError as error:
            raise RefusedFileError(error.reason, f"if you trust it, give it yourself: --env-kwargs {name}:VALUE") from None
    return kept


def _environment(env_id: str, args: argparse.Namespace, kwargs: dict[str, Any], vector_mode: str | None) -> VecEnv:
    create = create_test_env if vector_mode is None else partial(create_gym_vec_test_env, vector_mode)
    return create(
        env_id,
        n_envs=args.n_envs,
        seed=args.seed,
        should_render=not args.no_render,
        hyperparams={"env_wrapper": args.env_wrapper} if args.env_wrapper else {},
        env_kwargs=kwargs,
        vec_env_cls=DummyVecEnv,
    )


def _advice(of_file: dict[str, Any]) -> str:
    wrappers = of_file.get("wrappers")
    if not wrappers:
        return f"name its environment, {of_file['id']}, with --env"
    return f"the agent was trained in {of_file['id']} with the wrappers {wrappers}: name them with --env-wrapper"


def _play(player: Any, env: VecEnv, n_timesteps: int, renders: bool) -> None:
    observations: Any = env.reset()
    state, starts = None, np.ones(env.num_envs, dtype=bool)
    returns, lengths = np.zeros(env.num_envs), np.zeros(env.num_envs, dtype=int)
    finished: list[float] = []
    for _ in range(n_timesteps):
        actions, state = player.predict(observations, state, starts)
        observations, rewards, starts, _ = env.step(actions)
        if renders:
            env.render("human")
        returns += rewards
        lengths += 1
        for index in np.flatnonzero(starts):
            print(f"Episode Reward: {returns[index]:.2f}\nEpisode Length {lengths[index]}")
            finished.append(float(returns[index]))
            returns[index] = lengths[index] = 0
    if finished:
        print(f"{len(finished)} Episodes\nMean reward: {np.mean(finished):.2f} +/- {np.std(finished):.2f}")
