"""
From the raw observations of an environment to those that the policy takes: VecNormalize's statistics, and images with the
channels first. Once as a module of torch, which a file holds, and once in the NumPy of the wrappers themselves.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import (
    VecCheckNan,
    VecEnv,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
    VecVideoRecorder,
)
from torch import nn

from sb3_vpg.export.signature import OBSERVATION
from sb3_vpg.vec_env.vec_normalize import wrappers_of

_WITHOUT_EFFECT = (VecMonitor, VecCheckNan, VecVideoRecorder)


class Normalize(nn.Module):
    """
    What a ``VecNormalize`` does to observations, in its 64-bit numbers.

    :param wrapper: whose present statistics are copied
    """

    def __init__(self, wrapper: VecNormalize) -> None:
        super().__init__()
        statistics: Any = wrapper.obs_rms
        statistics = statistics if isinstance(statistics, dict) else {OBSERVATION: statistics}
        self.keys, self.clip = list(statistics), float(wrapper.clip_obs)
        for index, rms in enumerate(statistics.values()):
            self.register_buffer(f"mean_{index}", th.as_tensor(np.asarray(rms.mean, np.float64)))
            self.register_buffer(f"scale_{index}", th.as_tensor(np.sqrt(np.asarray(rms.var, np.float64) + wrapper.epsilon)))

    def forward(self, observations: dict[str, th.Tensor]) -> dict[str, th.Tensor]:
        """Return the observations with these keys normalised."""
        normalized = dict(observations)
        for index, key in enumerate(self.keys):
            mean, scale = self.get_buffer(f"mean_{index}"), self.get_buffer(f"scale_{index}")
            normalized[key] = ((observations[key].double() - mean) / scale).clamp(-self.clip, self.clip).float()
        return normalized


class Transpose(nn.Module):
    """Puts the channels of images first. ``keys``: of the images."""

    def __init__(self, keys: Iterable[str]) -> None:
        super().__init__()
        self.keys = list(keys)

    def forward(self, observations: dict[str, th.Tensor]) -> dict[str, th.Tensor]:
        """Return the observations with these keys transposed."""
        return {key: value.permute(0, 3, 1, 2) if key in self.keys else value for key, value in observations.items()}


class Pipeline:
    """
    The wrappers between an environment and a model.

    :param env: the environment as the model sees it
    :param space: of the model's observations
    :raises ValueError: if a wrapper changes observations in a way that a file cannot hold, or if they do not fit the model
    """

    def __init__(self, env: VecEnv, space: spaces.Space[Any]) -> None:
        self._wrappers = [wrapper for wrapper in wrappers_of(env)[::-1] if not isinstance(wrapper, _WITHOUT_EFFECT)]
        self.base = env.unwrapped
        """The environment without wrappers, which returns raw observations."""
        modules: list[nn.Module] = []
        for wrapper in self._wrappers:
            if isinstance(wrapper, VecNormalize):
                modules += [Normalize(wrapper)] if wrapper.norm_obs else []
            elif isinstance(wrapper, VecTransposeImage):
                modules += [] if wrapper.skip else [Transpose(_image_keys(wrapper.venv.observation_space))]
            else:
                raise ValueError(_refusal(wrapper))
        last = _transposed_by_predict(env.observation_space, space)
        self.module = nn.Sequential(*modules, *([Transpose(last)] if last else []))
        """Its observations are dicts; one that is no ``Dict`` has the key ``OBSERVATION``."""

    def through_wrappers(self, observations: Any) -> Any:
        """Return raw observations as the wrappers would return them. Their statistics do not change."""
        for wrapper in self._wrappers:
            if isinstance(wrapper, VecNormalize):
                observations = wrapper.normalize_obs(observations)
            else:
                assert isinstance(wrapper, VecTransposeImage)
                observations = wrapper.transpose_observations(observations)
        return observations

    @property
    def is_normalized(self) -> bool:
        """Whether a VecNormalize scales observations."""
        return any(isinstance(module, Normalize) for module in self.module)


def _parts(space: spaces.Space[Any]) -> dict[str, spaces.Space[Any]]:
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {OBSERVATION: space}


def _image_keys(space: spaces.Space[Any]) -> list[str]:
    return [key for key, part in _parts(space).items() if is_image_space(part)]


def _transposed_by_predict(seen: spaces.Space[Any], expected: spaces.Space[Any]) -> list[str]:
    """
    :param seen: the space of the environment with all wrappers
    :param expected: the model's
    :return: the keys of the images that ``predict`` transposes
    :raises ValueError: if the observations do not fit the model
    """
    given, wanted = _parts(seen), _parts(expected)
    keys = []
    for key, part in wanted.items():
        shape = given[key].shape if key in given else None
        if shape == part.shape:
            continue
        if not is_image_space(part) or shape is None or (shape[2], *shape[:2]) != part.shape:
            raise ValueError(
                f"the model takes observations in {expected}, but the environment gives {seen}: "
                "pass the environment that it was trained in (env=...)"
            )
        keys.append(key)
    return keys


def _refusal(wrapper: Any) -> str:
    name = type(wrapper).__name__
    if isinstance(wrapper, VecFrameStack):
        return (
            f"the model sees the stacked frames of a {name}, which remembers earlier observations, but an exported file takes "
            "one observation. Stack them in the environment, where they are "
            "part of its own observation, with gymnasium.wrappers.FrameStackObservation, and train on it"
        )
    return (
        f"the environment has a {name}, which may change observations in a way that a file cannot hold. Pass the environment "
        "without it (env=...), or do its work in a wrapper of the environment itself"
    )
