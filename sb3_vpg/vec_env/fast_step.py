"""
The step of an SB3 ``VecEnv`` through SB3's wrappers, without needless copies.

In each step, ``DummyVecEnv`` makes deep copies of observations and infos, and ``VecNormalize`` of observations. A fast step
returns the same numbers and leaves the same state in each wrapper. A user's wrapper keeps its own step. So does a wrapper of
SB3's on which a method of the step has been replaced. The wrappers around these are fast again.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecCheckNan,
    VecEnv,
    VecExtractDictObs,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from sb3_vpg.vec_env import dummy_step, normalize_step

Step = Callable[[Any], VecEnvStepReturn]
After = Callable[[Any, VecEnvStepReturn], VecEnvStepReturn]
_METHODS = {"step", "step_async", "step_wait", "transpose_observations", "_check_val"} | normalize_step.METHODS
"""A wrapper on which a user has set one of these keeps its own step."""


def fast_step(env: VecEnv) -> Step:
    """:return: a function that takes actions and returns what ``env.step`` returns"""
    return _fast_step(env, env.step)


def _fast_step(env: VecEnv, own: Step) -> Step:
    """:param own: the environment's own step, where a fast one might differ"""
    if type(env) is DummyVecEnv and dummy_step.METHODS.isdisjoint(vars(env)):
        return partial(dummy_step.step, env)
    after = _AFTER.get(type(env))
    if after is None:
        return own
    venv: Any = env.venv  # type: ignore[attr-defined]  # all in _AFTER are wrappers
    inner = _fast_step(venv, partial(_inner_step, venv))
    if isinstance(env, VecCheckNan):
        inner = partial(_check_actions, env, inner)
    return own if _is_changed(env) else partial(step, env, own, inner, after)


def step(env: VecEnv, own: Step, inner: Step, after: After, actions: Any) -> VecEnvStepReturn:
    """Do what ``env.step`` of a wrapper does: the step of the environment inside, then ``after``."""
    if _is_changed(env):
        # A callback has replaced something in the middle of a rollout
        return own(actions)
    return after(env, inner(actions))


def _inner_step(env: VecEnv, actions: Any) -> VecEnvStepReturn:
    """Step as a wrapper of SB3's steps the environment inside; it does not call ``env.step``."""
    env.step_async(actions)
    return env.step_wait()


def _is_changed(env: VecEnv) -> bool:
    changed = not vars(env).keys().isdisjoint(_METHODS)
    return changed or (isinstance(env, VecNormalize) and not normalize_step.can_normalize(env))


def _monitor(env: VecMonitor, result: VecEnvStepReturn) -> VecEnvStepReturn:
    observations, rewards, dones, infos = result
    env.episode_returns += rewards
    env.episode_lengths += 1
    infos = list(infos)
    for index in np.flatnonzero(dones) if dones.any() else ():
        info = infos[index] = infos[index].copy()
        seconds = round(time.time() - env.t_start, 6)
        episode = {"r": env.episode_returns[index], "l": env.episode_lengths[index], "t": seconds}
        info["episode"] = episode | {key: info[key] for key in env.info_keywords}
        env.episode_count += 1
        env.episode_returns[index] = 0
        env.episode_lengths[index] = 0
        if env.results_writer:
            env.results_writer.write_row(info["episode"])
    return observations, rewards, dones, infos


def _stack_frames(env: VecFrameStack, result: VecEnvStepReturn) -> VecEnvStepReturn:
    observations: Any
    observations, rewards, dones, infos = result
    observations, infos = env.stacked_obs.update(observations, dones, infos)
    return observations, rewards, dones, infos


def _transpose_images(env: VecTransposeImage, result: VecEnvStepReturn) -> VecEnvStepReturn:
    observations: Any
    observations, rewards, dones, infos = result
    for index in np.flatnonzero(dones):
        if "terminal_observation" in infos[index]:
            infos[index]["terminal_observation"] = env.transpose_observations(infos[index]["terminal_observation"])
    if isinstance(observations, dict) and not env.skip:
        copies = {key: array.copy() for key, array in observations.items()}
        images = {key: env.transpose_image(copies[key]) for key in env.image_space_keys}
        return {**copies, **images}, rewards, dones, infos
    return env.transpose_observations(observations), rewards, dones, infos


def _extract(env: VecExtractDictObs, result: VecEnvStepReturn) -> VecEnvStepReturn:
    observations: Any
    observations, rewards, dones, infos = result
    for info in infos:
        if "terminal_observation" in info:
            info["terminal_observation"] = info["terminal_observation"][env.key]
    return observations[env.key], rewards, dones, infos


def _check_actions(env: VecCheckNan, inner: Step, actions: Any) -> VecEnvStepReturn:
    env._check_val(event="step_async", actions=actions)
    env._actions = actions
    return inner(actions)


def _check_result(env: VecCheckNan, result: VecEnvStepReturn) -> VecEnvStepReturn:
    observations, rewards, dones, _ = result
    env._check_val(event="step_wait", observations=observations, rewards=rewards, dones=dones)
    env._observations = observations
    return result


_AFTER: dict[type[VecEnv], After] = {
    VecNormalize: normalize_step.normalized,
    VecMonitor: _monitor,
    VecFrameStack: _stack_frames,
    VecTransposeImage: _transpose_images,
    VecExtractDictObs: _extract,
    VecCheckNan: _check_result,
}
"""What a wrapper's ``step_wait`` does after the step of the environment inside."""
