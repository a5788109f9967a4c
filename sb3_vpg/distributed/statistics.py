"""
The statistics of ``VecNormalize`` under torchrun: they stand still while a rollout is played, and are then updated with the
steps of all processes. Moments are computed for each environment and combined in the order of their indices, so that they do
not depend on the number of processes. Observations of explicit resets are not counted.

T steps, N environments.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_vpg.common.world import World
from sb3_vpg.vec_env.vec_normalize import normalizers


class PooledStatistics:
    """
    Within a ``with`` block, the statistics of the environment do not change.

    :param env: with any number of ``VecNormalize``; those with ``training=False`` are left alone
    """

    def __init__(self, env: VecEnv) -> None:
        self._layers = [_Layer(one) for one in normalizers(env) if one.training]

    def __enter__(self) -> "PooledStatistics":
        self._let_learn(False)
        return self

    def __exit__(self, *_: object) -> None:
        self._let_learn(True)

    def _let_learn(self, training: bool) -> None:
        for layer in self._layers:
            layer.env.training = training

    def recording(self, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """
        :param step: takes actions and returns what ``env.step`` returns
        :return: the same step, which records what the statistics need
        """
        layers = self._layers
        if not layers:
            return step
        # Between steps a callback may save the wrapper, which must go on learning when it is loaded
        self._let_learn(True)

        def recorded(actions: Any) -> Any:
            # Copies, because the step sets those of finished episodes to 0
            returns = [layer.env.returns.copy() for layer in layers]
            self._let_learn(False)
            try:
                result = step(actions)
            finally:
                self._let_learn(True)
            for layer, before in zip(layers, returns, strict=True):
                layer.record(before, result[2])
            return result

        return recorded

    def pool(self, world: World) -> None:
        """Update the statistics, after the block; not if the processes have played different numbers of steps."""
        if not self._layers:
            return
        moments = [layer.moments() for layer in self._layers]
        steps, everyones = zip(*world.all_gather((len(self._layers[0].returns_TN), moments)), strict=True)
        if steps[0] == 0 or len(set(steps)) > 1:
            return
        for index, layer in enumerate(self._layers):
            layer.update([one[index] for one in everyones], steps[0])


class _Layer:
    """One ``VecNormalize``, and its rewards and observations before normalisation, in the steps of a rollout."""

    def __init__(self, env: VecNormalize) -> None:
        self.env = env
        self.returns_TN: list[np.ndarray] = []
        self.observations: list[dict[str, np.ndarray]] = []

    def record(self, returns_N: np.ndarray, dones_N: np.ndarray) -> None:
        """
        :param returns_N: discounted sums of rewards before the step
        :param dones_N: whether the step ended an episode
        """
        env = self.env
        returns_N = returns_N * env.gamma + env.old_reward
        self.returns_TN.append(returns_N)
        env.returns = np.where(dones_N, 0.0, returns_N)
        if env.norm_obs:
            seen: Any = env.old_obs
            self.observations.append({key: np.array(part) for key, part in _items(seen) if key in self._statistics()})

    def _statistics(self) -> dict[str, RunningMeanStd]:
        return dict(_items(self.env.obs_rms))

    def moments(self) -> dict[str | None, list[np.ndarray]]:
        """:return: mean and variance over time, each with shape (N, ...), of the returns (key None) and the observations"""
        if not self.returns_TN:
            return {}
        columns: dict[str | None, Any] = {None: np.stack(self.returns_TN)}
        for key in self._statistics() if self.env.norm_obs else ():
            columns[key] = np.stack([one[key] for one in self.observations])
        return {key: moments_over_time(array) for key, array in columns.items()}

    def update(self, everyones: Sequence[dict[str | None, list[np.ndarray]]], n_steps: int) -> None:
        """
        :param everyones: ``moments`` of each process
        :param n_steps: T
        """
        targets: dict[str | None, RunningMeanStd] = {None: self.env.ret_rms}
        if self.env.norm_obs:
            targets.update(self._statistics())
        for key, rms in targets.items():
            means, variances = (np.concatenate([one[key][kind] for one in everyones]) for kind in (0, 1))
            # All environments have played as many steps
            mean = means.mean(axis=0)
            variance = variances.mean(axis=0) + np.square(means - mean).mean(axis=0)
            rms.update_from_moments(mean, variance, len(means) * n_steps)


def moments_over_time(array: np.ndarray) -> list[np.ndarray]:
    """:return: mean and variance over time of an array with shape (T, N, ...)"""
    n_envs = array.shape[1]
    # NumPy adds up a single column in another order than one of several
    array = np.repeat(array, 2, axis=1) if n_envs == 1 else array
    return [array.mean(axis=0, dtype=float)[:n_envs], array.var(axis=0, dtype=float)[:n_envs]]


def _items(value: Any) -> list[tuple[str, Any]]:
    """:return: keys and parts of a dict; any other value under an empty key"""
    return list(value.items()) if isinstance(value, dict) else [("", value)]
