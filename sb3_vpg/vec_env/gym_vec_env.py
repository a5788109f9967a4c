"""gymnasium's vector environments as an SB3 ``VecEnv``."""

import os
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from stable_baselines3.common.monitor import ResultsWriter
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices, VecEnvObs, VecEnvStepReturn

from sb3_vpg.common.arguments import whole_number
from sb3_vpg.exceptions import VecEnvContractError
from sb3_vpg.vec_env.attributes import env_attributes
from sb3_vpg.vec_env.autoreset import ResetHook, autoreset_of
from sb3_vpg.vec_env.env_checks import check_action_space, check_observation_space
from sb3_vpg.vec_env.envpool_vector_env import make_envpool
from sb3_vpg.vec_env.infos import own_observations, split_infos


class GymVecEnv(VecEnv):
    """
    A ``gymnasium.vector.VectorEnv`` as an SB3 ``VecEnv``. With a native vector environment such as gymnasium's CartPole, which
    steps all environments in a few array operations, it is many times as fast as ``DummyVecEnv``.

    Observations, rewards, dones and infos are those of ``DummyVecEnv`` and ``Monitor``: a new episode begins in the step that
    ends the last one; ``infos`` hold the environment's own entries, and at an episode's end ``terminal_observation``,
    ``TimeLimit.truncated`` and ``episode`` ("r" return, "l" steps, "t" seconds). Two differences:

    * environments without infos share one empty dict, a new one in each step; do not write to it;
    * a native environment draws from one random stream: ``seed`` repeats a run, but with another ``n_envs`` an environment
      gets other episodes. ``SyncVectorEnv`` and ``AsyncVectorEnv`` seed as ``DummyVecEnv`` does.

    All autoreset modes of gymnasium are supported: ``SAME_STEP``, ``DISABLED`` (with ``options={"reset_mask": ...}``), and
    ``NEXT_STEP`` if a reset hook prevents the extra step, which is not a transition of the task. ``CartPoleVectorEnv`` has a
    built-in hook. ``sb3_vpg.vec_env.attributes`` explains ``get_attr``, ``env_method`` and the like.

    :param env: the vector environment, which may be inside of gymnasium's vector wrappers
    :param monitor_file: file for the episodes of all environments, in ``Monitor``'s format; ``.monitor.csv`` is appended to
        the name if it is missing. None: no file
    :param info_keywords: entries of the infos at an episode's end to log as well, as in ``Monitor``
    :param reset_hook: for an environment that resets in the next step: ``hook(env, mask)`` resets at once the environments
        where ``mask``, bool of shape (n_envs,), is True, and returns their observations, shape ``(mask.sum(), *shape)``
    :param override_existing: replace an existing file; False: append to it. As in ``Monitor``
    :raises ValueError: if SB3 does not support the environment's spaces, if its metadata has no autoreset mode, or if it
        resets in the next step without a hook (also CartPole inside of vector wrappers, which the built-in hook would bypass)
    :raises VecEnvContractError: in a step, if an episode ends without an entry that ``info_keywords`` names, or in the mode
        ``SAME_STEP`` without the last observation
    """

    _NOT_STATE = ("_autoreset", "_env_attributes", "_writer", "_actions")
    """Attributes that a checkpoint leaves out: they are built anew, or written in each step before they are read."""

    def __init__(
        self,
        env: VectorEnv,
        monitor_file: str | None = None,
        info_keywords: tuple[str, ...] = (),
        reset_hook: ResetHook | None = None,
        override_existing: bool = True,
    ) -> None:
        check_observation_space(env, env.single_observation_space)
        check_action_space(env, env.single_action_space)
        self._autoreset = autoreset_of(env, reset_hook)
        self.env = env
        self.spec = env.spec
        self._env_attributes = env_attributes(env)
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        base = env.unwrapped
        # SyncVectorEnv and AsyncVectorEnv copy by default; others may write to the arrays they have returned
        self._copy = not (isinstance(base, (SyncVectorEnv, AsyncVectorEnv)) and base.copy)
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, dtype=np.int64)
        self._t_start = time.time()
        self._info_keywords = tuple(info_keywords)
        self._writer = self._open_writer(monitor_file, override_existing)

    def _open_writer(self, monitor_file: str | None, override: bool) -> ResultsWriter | None:
        if monitor_file is None:
            return None
        header: dict[str, float | str] = {"t_start": self._t_start, "env_id": str(self.spec and self.spec.id)}
        return ResultsWriter(str(monitor_file), header, self._info_keywords, override)

    def reset(self) -> VecEnvObs:
        """:return: first observations of all environments, (n_envs, *shape) or a dict of such; see SB3's ``VecEnv``"""
        observations, info = self.env.reset(seed=self._seeds[0], options=self._options[0] or None)
        self._reset_seeds()
        self._reset_options()
        self._returns[:] = 0.0
        self._lengths[:] = 0
        by_index = split_infos(info, range(self.num_envs))
        self.reset_infos = [by_index.get(index, {}) for index in range(self.num_envs)]
        return own_observations(self.observation_space, observations, self._copy)

    def step_async(self, actions: np.ndarray) -> None:
        """
        :param actions: shape (n_envs, *action shape). They are converted to the type of the action space if that loses
            nothing, and else passed on as they are, as ``DummyVecEnv`` does
        """
        space = self.env.action_space
        given = np.asarray(actions).reshape(space.shape or ())
        converted = given.astype(space.dtype, copy=False)
        is_lossless = converted is given or converted.dtype.kind == "f" or np.array_equal(converted, given)
        self._actions = converted if is_lossless else given

    def step_wait(self) -> VecEnvStepReturn:
        """
        :return: observations (n_envs, *shape) or a dict of such, rewards float32 (n_envs,), dones bool (n_envs,), and the
            infos as the class describes them. The environment does not write to any of them later
        """
        observations, rewards, terminated, truncated, info = self.env.step(self._actions)
        observations = own_observations(self.observation_space, observations, self._copy)
        dones = np.logical_or(terminated, truncated)
        self._returns += rewards
        self._lengths += 1
        infos: list[dict[str, Any]] = [{}] * self.num_envs
        if dones.any():
            time_outs = np.logical_and(truncated, np.logical_not(terminated))
            observations = self._reset_ended(observations, info, infos, dones, time_outs)
        elif info:
            for index, own_info in split_infos(info, range(self.num_envs)).items():
                infos[index] = own_info
        # A copy: an algorithm adds to the rewards at time-outs
        return observations, np.array(rewards, dtype=np.float32), dones, infos

    def _reset_ended(
        self, observations: Any, info: dict[str, Any], infos: list[dict[str, Any]], dones: np.ndarray, time_outs: np.ndarray
    ) -> Any:
        """Reset the environments whose episodes ended, and fill in the infos. :return: the observations after the resets"""
        result = self._autoreset(self.env, observations, info, dones)
        for index, own_info in result.infos.items():
            infos[index] = own_info
        ended = np.flatnonzero(dones)
        indices: list[int] = ended.tolist()
        seconds = round(time.time() - self._t_start, 6)
        totals, lengths = self._returns[ended].tolist(), self._lengths[ended].tolist()
        episodes = zip(indices, result.terminal, time_outs[ended].tolist(), totals, lengths, strict=True)
        for index, terminal, time_out, total, length in episodes:
            # Rounded as in Monitor, but not if it is an integer: rounding would take as long as the rest of this loop
            episode = {"r": round(total, 6) if total % 1 else total, "l": length, "t": seconds}
            ending = {"TimeLimit.truncated": time_out, "terminal_observation": terminal, "episode": episode}
            if index in result.infos:
                ending = {**result.infos[index], **ending}
            infos[index] = ending
            if self._info_keywords:
                episode.update(self._logged(infos[index]))
            self.reset_infos[index] = result.reset_infos.get(index, {})
        self._returns[ended] = 0.0
        self._lengths[ended] = 0
        if self._writer is not None:
            # One flush for all episodes of this step
            self._writer.logger.writerows(infos[index]["episode"] for index in indices)
            self._writer.file_handler.flush()
        return result.observations

    def _logged(self, info: dict[str, Any]) -> dict[str, Any]:
        missing = [key for key in self._info_keywords if key not in info]
        if missing:
            raise VecEnvContractError(f"info_keywords names {missing}, but at an episode's end {self.env} has {sorted(info)}")
        return {key: info[key] for key in self._info_keywords}

    def set_options(self, options: list[dict[str, Any]] | dict[str, Any] | None = None) -> None:
        """:raises ValueError: if options in a list differ, because gymnasium takes one dict for all environments"""
        if isinstance(options, list) and any(option != options[0] for option in options):
            raise ValueError(f"options must be the same for all environments of {self.env}, but are {options}")
        super().set_options(options)

    def close(self) -> None:
        """Close the environment and the monitor file."""
        if self._writer is not None:
            self._writer.close()
        self.env.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """:return: one image per environment, or None for each if ``render_mode`` is not ``"rgb_array"``"""
        if self.render_mode != "rgb_array":
            warnings.warn(f"The render mode is {self.render_mode}, but images need `rgb_array`", stacklevel=2)
            return [None] * self.num_envs
        return list(self.env.render() or ())  # type: ignore[arg-type]  # images, in this mode

    def has_attr(self, attr_name: str) -> bool:
        """See SB3's ``VecEnv``."""
        return self._env_attributes.has(attr_name)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """See SB3's ``VecEnv``, and ``sb3_vpg.vec_env.attributes`` for native environments."""
        return self._env_attributes.get(attr_name, list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """See SB3's ``VecEnv``, and ``sb3_vpg.vec_env.attributes`` for native environments."""
        self._env_attributes.set(attr_name, value, list(self._get_indices(indices)))

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """See SB3's ``VecEnv``, and ``sb3_vpg.vec_env.attributes`` for native environments."""
        return self._env_attributes.call(method_name, method_args, method_kwargs, list(self._get_indices(indices)))

    def env_is_wrapped(self, wrapper_class: Any, indices: VecEnvIndices = None) -> list[bool]:
        """See SB3's ``VecEnv``. For ``Monitor`` it is True, because this class does what ``Monitor`` does."""
        return self._env_attributes.is_wrapped(wrapper_class, list(self._get_indices(indices)))


def make_vec_env(
    env_id: str | Callable[..., gym.Env[Any, Any]],
    n_envs: int = 1,
    seed: int | None = None,
    monitor_dir: str | None = None,
    env_kwargs: dict[str, Any] | None = None,
    monitor_kwargs: dict[str, Any] | None = None,
    vectorization_mode: str | None = None,
) -> GymVecEnv:
    """
    Like SB3's ``make_vec_env``, with gymnasium's vector environments.

    :param env_id: id of a registered environment, also as ``"module:id"``; or a class or function that returns an environment,
        for which there is no native vector environment
    :param n_envs: number of environments
    :param seed: of the environments and their action space; None: random
    :param monitor_dir: folder for ``0.monitor.csv``, which holds the episodes of all environments; None: no file
    :param env_kwargs: arguments of the environment. Unlike SB3's function, this one sets no ``render_mode``
    :param monitor_kwargs: ``info_keywords`` and ``override_existing`` are supported
    :param vectorization_mode: ``"native"`` uses the environment's vector entry point, ``"sync"`` steps one environment after
        the other, ``"async"`` runs each in a process, ``"envpool"`` steps all in EnvPool's threads (``EnvPoolVectorEnv``);
        None: native if the environment has such an entry point, else sync
    :return: the environment, not yet reset
    :raises ImportError: if EnvPool is to be used, but is not installed
    :raises ValueError: if an argument is out of range, if the environment does not exist, if it does not support the
        vectorization mode, or if its constructor refuses ``env_kwargs``
    """
    n_envs = whole_number("n_envs", n_envs, at_least=1)
    keywords = dict(monitor_kwargs or {})
    info_keywords, override = tuple(keywords.pop("info_keywords", ())), bool(keywords.pop("override_existing", True))
    if keywords:
        raise ValueError(f"monitor_kwargs may hold only 'override_existing' and 'info_keywords' here, not {sorted(keywords)}")
    monitor_file = None if monitor_dir is None else os.path.join(monitor_dir, "0")
    vector_env = _make_vector_env(env_id, n_envs, env_kwargs or {}, vectorization_mode)
    env = GymVecEnv(vector_env, monitor_file, info_keywords, override_existing=override)
    env.seed(seed)
    if seed is not None:
        env.action_space.seed(seed)
    return env


def _make_vector_env(env_id: Any, n_envs: int, env_kwargs: dict[str, Any], mode: str | None) -> VectorEnv:
    spec = _spec(env_id) if isinstance(env_id, str) else None
    if spec is None and not callable(env_id):
        raise ValueError(f"env_id must be an id, or a class or function that returns an environment, but is {env_id!r:.200}")
    has_native = spec is not None and spec.vector_entry_point is not None
    mode = ("native" if has_native else "sync") if mode is None else mode
    if mode not in ("native", "sync", "async", "envpool"):
        raise ValueError(f"vectorization_mode must be 'native', 'sync', 'async', 'envpool' or None, but is {mode!r}")
    if mode == "native" and not has_native:
        raise ValueError(
            f"{env_id} has no native vector environment; use vectorization_mode='sync' or 'async', "
            "or on the command line leave out --vec-env native"
        )
    same_step = {"autoreset_mode": AutoresetMode.SAME_STEP}
    try:
        if mode == "envpool":
            env: VectorEnv = make_envpool(env_id, n_envs, env_kwargs)
        elif spec is None:
            build: Any = SyncVectorEnv if mode == "sync" else AsyncVectorEnv
            env = build([partial(_make_env, env_id, env_kwargs)] * n_envs, **same_step)
        elif mode == "native":
            env = gym.make_vec(spec, n_envs, vectorization_mode="vector_entry_point", **env_kwargs)
        else:
            env = gym.make_vec(spec, n_envs, vectorization_mode=mode, vector_kwargs=same_step, **env_kwargs)
    except (TypeError, gym.error.Error) as error:
        raise ValueError(f"{env_id} ({mode}) cannot be built with env_kwargs {env_kwargs}: {error}") from error
    render_modes = env.metadata.get("render_modes", [])
    if env.render_mode is not None and env.render_mode not in render_modes:
        env.close()
        raise ValueError(f"{env_id} ({mode}) has no render_mode {env.render_mode!r}; choose from {render_modes}, or None")
    return env


def _spec(env_id: str) -> EnvSpec:
    module, _, name = env_id.rpartition(":")
    try:
        if module:
            import_module(module)
        return gym.spec(name)
    except (gym.error.Error, ModuleNotFoundError) as error:
        raise ValueError(f"there is no environment {env_id!r}: {error}") from error


def _make_env(make: Callable[..., Any], env_kwargs: dict[str, Any]) -> gym.Env[Any, Any]:
    env = make(**env_kwargs)
    if isinstance(env, gym.Env):
        return env
    advice = "wrap it in GymVecEnv" if isinstance(env, VectorEnv) else "return a gymnasium.Env"
    raise ValueError(f"{make!r:.200} returned a {type(env).__qualname__}, which is no gymnasium.Env: {advice}")
