"""gymnasium's Pendulum-v1 for many environments at once; gymnasium itself has only the single environment."""

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space


class PendulumVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """
    All pendulums are computed in a few array operations. Observations are those of gymnasium's environment to the last bit,
    rewards to rounding.

    :param num_envs: number of environments N
    """

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.DISABLED, "render_modes": []}

    def __init__(self, num_envs: int) -> None:
        single = gym.make("Pendulum-v1")
        self.num_envs, self.spec = num_envs, single.spec
        self.single_observation_space, self.single_action_space = single.observation_space, single.action_space
        self.observation_space = batch_space(single.observation_space, num_envs)
        self.action_space = batch_space(single.action_space, num_envs)
        self.angles_N, self.speeds_N = np.zeros(num_envs), np.zeros(num_envs)
        self.n_steps_N = np.zeros(num_envs, dtype=np.int64)
        self._terminated_N = np.zeros(num_envs, dtype=bool)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """
        :param seed: of the random stream from which all environments draw
        :param options: ``"reset_mask"``, bool of shape (N,), resets only the environments where it is True
        :return: observations of all environments, shape (N, 3), and no infos
        """
        super().reset(seed=seed)
        mask_N = (options or {}).get("reset_mask", np.ones(self.num_envs, dtype=bool))
        n = int(np.count_nonzero(mask_N))
        self.angles_N[mask_N] = self.np_random.uniform(-np.pi, np.pi, n)
        self.speeds_N[mask_N] = self.np_random.uniform(-1.0, 1.0, n)
        self.n_steps_N[mask_N] = 0
        return self._observations(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """
        :param actions: torques, shape (N, 1)
        :return: observations (N, 3), rewards (N,), terminated (N,), which is False, truncated (N,), and no infos
        """
        angles_N, speeds_N = self.angles_N, self.speeds_N
        torques_N = np.minimum(np.maximum(actions[:, 0], -2.0), 2.0)
        # The angle in [-pi, pi). NumPy's % would take twice as long
        turned_N = angles_N + np.pi
        upright_N = turned_N - 2.0 * np.pi * np.floor(turned_N / (2.0 * np.pi)) - np.pi
        costs_N = upright_N**2 + 0.1 * speeds_N**2 + 0.001 * torques_N**2
        speeds_N = speeds_N + (15.0 * np.sin(angles_N) + 3.0 * torques_N) * 0.05
        self.speeds_N = np.minimum(np.maximum(speeds_N, -8.0), 8.0)
        self.angles_N = angles_N + self.speeds_N * 0.05
        self.n_steps_N += 1
        return self._observations(), -costs_N, self._terminated_N, self.n_steps_N >= 200, {}

    def _observations(self) -> np.ndarray:
        observations_N3 = np.empty((self.num_envs, 3), dtype=np.float32)
        observations_N3[:, 0] = np.cos(self.angles_N)
        observations_N3[:, 1] = np.sin(self.angles_N)
        observations_N3[:, 2] = self.speeds_N
        return observations_N3
