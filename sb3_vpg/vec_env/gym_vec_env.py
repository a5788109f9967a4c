"""gymnasium's vector environments for SB3, whose own ``DummyVecEnv`` steps one environment after the other in Python."""

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
from sb3_vpg.vec_env.attributes import members_of
from sb3_vpg.vec_env.autoreset import ResetHook, autoreset_of
from sb3_vpg.vec_env.env_checks import check_action_space, check_observation_space
from sb3_vpg.vec_env.infos import own_observations, split_infos


class GymVecEnv(VecEnv):
    """
    A ``gymnasium.vector.VectorEnv`` as an SB3 ``VecEnv``: for a native one such as gymnasium's CartPole, which steps all
    environments in a few array operations, that is many times as fast as ``DummyVecEnv``.

    What a learner sees is what ``DummyVecEnv`` and ``Monitor`` show it: a new episode begins in the step that ends the last,
    ``infos`` hold ``terminal_observation``, ``TimeLimit.truncated`` and ``episode`` ("r" return, "l" steps, "t" seconds)
    where an episode ended, and the environment's own entries where it has any. Two differences:

    * environments with nothing to tell share one empty dict, a new one in each step; do not write to it;
    * a native environment draws from one random stream, so ``seed`` repeats a run, but with another ``n_envs`` an
      environment does not see the same episodes. ``SyncVectorEnv`` and ``AsyncVectorEnv`` seed as ``DummyVecEnv`` does.

    All of gymnasium's ways to reset will do: ``SAME_STEP``, ``DISABLED`` (with ``options={"reset_mask": ...}``), and
    ``NEXT_STEP`` where a reset hook prevents the extra step, which is no transition of the task. For ``CartPoleVectorEnv``
    we bring the hook. ``get_attr``, ``env_method`` and the like are explained in ``sb3_vpg.vec_env.attributes``.

    :param env: the vector environment, also inside of gymnasium's vector wrappers
    :param monitor_file: where to log the episodes of all environments, in ``Monitor``'s format; ``.monitor.csv`` is
        appended if it does not end so. None: no file
    :param info_keywords: entries of the infos at an episode's end to log as well, as in ``Monitor``
    :param reset_hook: ``hook(env, mask)`` for an environment that resets in the next step: resets those of the mask, bool
        of shape (n_envs,), at once and returns their observations, shape (mask.sum(), *shape)
    :param override_existing: begin the file anew where there is one; False: append to it. As in ``Monitor``
    :raises ValueError: if the environment's spaces are none that SB3 knows, if it does not say how it resets, or if it resets
        in the next step without a hook (also for a native one inside of vector wrappers, which our hook would bypass)
    :raises VecEnvContractError: in a step, if an episode ends without an entry that ``info_keywords`` names, or without the
        last observation in an environment that resets in the same step
    """

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
        self._turn = autoreset_of(env, reset_hook)
        self.env = env
        self.spec = env.spec
        self._members = members_of(env)
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        base = env.unwrapped
        # Others may write to what they returned; these copy by default
        self._copy = not (isinstance(base, (SyncVectorEnv, AsyncVectorEnv)) and base.copy)
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, dtype=np.int64)
        self._t_start = time.time()
        self._info_keywords = tuple(info_keywords)
        self._writer = self._open(monitor_file, override_existing)

    def _open(self, monitor_file: str | None, override: bool) -> ResultsWriter | None:
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
        told = split_infos(info, range(self.num_envs))
        self.reset_infos = [told.get(index, {}) for index in range(self.num_envs)]
        return own_observations(self.observation_space, observations, self._copy)

    def step_async(self, actions: np.ndarray) -> None:
        """
        :param actions: shape (n_envs, *action shape); in the environment's own type where that loses nothing, else handed
            over as they are, as ``DummyVecEnv`` does
        """
        space = self.env.action_space
        given = np.asarray(actions).reshape(space.shape or ())
        own = given.astype(space.dtype, copy=False)
        self._actions = own if own is given or own.dtype.kind == "f" or np.array_equal(own, given) else given

    def step_wait(self) -> VecEnvStepReturn:
        """
        :return: observations (n_envs, *shape) or a dict of such, rewards float32 (n_envs,), dones bool (n_envs,), and the
            infos as the class describes them; all of them are the caller's own
        """
        observations, rewards, terminated, truncated, info = self.env.step(self._actions)
        observations = own_observations(self.observation_space, observations, self._copy)
        dones = np.logical_or(terminated, truncated)
        self._returns += rewards
        self._lengths += 1
        nothing: dict[str, Any] = {}
        infos = [nothing] * self.num_envs
        if dones.any():
            time_outs = np.logical_and(truncated, np.logical_not(terminated))
            observations = self._turn_over(observations, info, infos, dones, time_outs)
        elif info:
            for index, told in split_infos(info, range(self.num_envs)).items():
                infos[index] = told
        # A copy: an algorithm adds to the rewards at time-outs
        return observations, np.array(rewards, dtype=np.float32), dones, infos

    def _turn_over(
        self, observations: Any, info: dict[str, Any], infos: list[dict[str, Any]], dones: np.ndarray, time_outs: np.ndarray
    ) -> Any:
        """Fill in the infos of a step in which episodes ended, and begin the next ones. :return: the new observations"""
        turn = self._turn(self.env, observations, info, dones)
        for index, told in turn.infos.items():
            infos[index] = told
        ended = np.flatnonzero(dones)
        indices: list[int] = ended.tolist()
        seconds = round(time.time() - self._t_start, 6)
        totals, lengths = self._returns[ended].tolist(), self._lengths[ended].tolist()
        facts = zip(indices, turn.terminal, time_outs[ended].tolist(), totals, lengths, strict=True)
        for index, terminal, time_out, total, length in facts:
            # Rounded as in Monitor; a whole number needs none, and rounding would cost as much as all the rest
            episode = {"r": round(total, 6) if total % 1 else total, "l": length, "t": seconds}
            told = {"TimeLimit.truncated": time_out, "terminal_observation": terminal, "episode": episode}
            if index in turn.infos:
                told = {**turn.infos[index], **told}
            if self._info_keywords:
                episode.update(self._logged(told))
            infos[index] = told
            self.reset_infos[index] = turn.reset_infos.get(index, {})
        self._returns[ended] = 0.0
        self._lengths[ended] = 0
        if self._writer is not None:
            # One flush for all that ended together
            self._writer.logger.writerows(infos[index]["episode"] for index in indices)
            self._writer.file_handler.flush()
        return turn.observations

    def _logged(self, told: dict[str, Any]) -> dict[str, Any]:
        missing = [key for key in self._info_keywords if key not in told]
        if missing:
            raise VecEnvContractError(f"info_keywords names {missing}, but at an episode's end {self.env} told {sorted(told)}")
        return {key: told[key] for key in self._info_keywords}

    def set_options(self, options: list[dict[str, Any]] | dict[str, Any] | None = None) -> None:
        """
        :param options: for the next reset of all environments; a list must hold the same for each
        :raises ValueError: if a list holds different ones, because gymnasium's vector environments take one dict for all
        """
        if isinstance(options, list) and any(option != options[0] for option in options):
            raise ValueError(f"options must be the same for all environments of {self.env}, but are {options}")
        super().set_options(options)

    def close(self) -> None:
        """Close the environment and the monitor file."""
        if self._writer is not None:
            self._writer.close()
        self.env.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """:return: one picture per environment, or None each unless ``render_mode`` is ``"rgb_array"``"""
        if self.render_mode != "rgb_array":
            warnings.warn(f"The render mode is {self.render_mode}, but images need `rgb_array`", stacklevel=2)
            return [None] * self.num_envs
        return list(self.env.render() or ())  # type: ignore[arg-type]  # pictures, in this mode

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """See SB3's ``VecEnv``, and ``sb3_vpg.vec_env.attributes`` for native environments."""
        return self._members.get(attr_name, list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """See SB3's ``VecEnv``, and ``sb3_vpg.vec_env.attributes`` for native environments."""
        self._members.set(attr_name, value, list(self._get_indices(indices)))

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """See SB3's ``VecEnv``, and ``sb3_vpg.vec_env.attributes`` for native environments."""
        return self._members.call(method_name, method_args, method_kwargs, list(self._get_indices(indices)))

    def env_is_wrapped(self, wrapper_class: Any, indices: VecEnvIndices = None) -> list[bool]:
        """See SB3's ``VecEnv``. For ``Monitor`` it is True, because this class does all that ``Monitor`` does."""
        return self._members.is_wrapped(wrapper_class, list(self._get_indices(indices)))


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
    Like SB3's ``make_vec_env``, on the fastest of gymnasium's vector environments.

    :param env_id: a registered environment, also as ``"module:id"``; or a class or function that makes one, which has no
        native vector environment
    :param n_envs: how many
    :param seed: of the environments and their action space; None: a random one
    :param monitor_dir: folder for ``0.monitor.csv``, which holds the episodes of all environments; None: no file
    :param env_kwargs: for what makes the environment. Unlike SB3's function, this one sets no ``render_mode``
    :param monitor_kwargs: may hold ``info_keywords`` and ``override_existing``
    :param vectorization_mode: ``"native"`` takes the environment's own vector entry point, ``"sync"`` steps one environment
        after the other, ``"async"`` in a process each; None: native where there is such an entry point, else sync
    :return: the environment, to be reset
    :raises ValueError: if an argument is out of range, if there is no such environment, if it has no such vectorization, or
        if its constructor refuses ``env_kwargs``
    """
    n_envs = whole_number("n_envs", n_envs, at_least=1)
    keywords = dict(monitor_kwargs or {})
    info_keywords = tuple(keywords.pop("info_keywords", ()))
    override = bool(keywords.pop("override_existing", True))
    if keywords:
        raise ValueError(
            "monitor_kwargs may hold 'override_existing' and 'info_keywords' alone for a vector environment, but holds "
            f"{sorted(keywords)}"
        )
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
        raise ValueError(f"env_id must be an id, a class or a function that makes an environment, but is {env_id!r:.200}")
    has_native = spec is not None and spec.vector_entry_point is not None
    if mode is None:
        mode = "native" if has_native else "sync"
    if mode not in ("native", "sync", "async"):
        raise ValueError(f"vectorization_mode must be 'native', 'sync', 'async' or None, but is {mode!r}")
    if mode == "native" and not has_native:
        raise ValueError(
            f"{env_id} has no native vector environment; use vectorization_mode='sync' or 'async', "
            "or on the command line leave out --vec-env native"
        )
    at_once = {"autoreset_mode": AutoresetMode.SAME_STEP}
    try:
        if spec is None:
            build: Any = SyncVectorEnv if mode == "sync" else AsyncVectorEnv
            env: VectorEnv = build([partial(_called, env_id, env_kwargs)] * n_envs, **at_once)
        elif mode == "native":
            env = gym.make_vec(spec, n_envs, vectorization_mode="vector_entry_point", **env_kwargs)
        else:
            env = gym.make_vec(spec, n_envs, vectorization_mode=mode, vector_kwargs=at_once, **env_kwargs)
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


def _called(make: Callable[..., Any], env_kwargs: dict[str, Any]) -> gym.Env[Any, Any]:
    env = make(**env_kwargs)
    if isinstance(env, gym.Env):
        return env
    way = "wrap it in GymVecEnv" if isinstance(env, VectorEnv) else "return a gymnasium.Env"
    raise ValueError(f"{make!r:.200} returned a {type(env).__qualname__}, which is no gymnasium.Env: {way}")
