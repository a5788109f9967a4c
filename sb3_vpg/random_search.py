"""
Random search: weights are drawn and never learned. It is a baseline for comparisons: an algorithm should find a better policy
than chance does with the same number of steps.
"""

import inspect
import math
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv
from typing_extensions import Self, Unpack

from sb3_vpg.common import torchrun
from sb3_vpg.common.arguments import check_keywords, flag, real_number
from sb3_vpg.persistence.model_files import PlainSaving
from sb3_vpg.policies import LinearDecisionPolicy
from sb3_vpg.vec_env.env_checks import check_env, check_flattenable
from sb3_vpg.vec_env.failures import naming_failed_env


class BaseKwargs(TypedDict, total=False):
    """The arguments of SB3's ``BaseAlgorithm`` that ``RandomSearch`` passes on unchanged."""

    policy_kwargs: dict[str, Any] | None
    stats_window_size: int
    tensorboard_log: str | None
    monitor_wrapper: bool
    verbose: int
    seed: int | None
    device: th.device | str


@dataclass
class _Episodes:
    """The current episodes of N environments: weights, shape (N, A, F), and the sum of rewards so far, shape (N,)."""

    weights: th.Tensor
    returns: np.ndarray


class RandomSearch(PlainSaving):
    """
    Each episode is played with newly drawn weights of a linear policy without bias, uniform in [-1, 1]. The weights whose
    episode had the highest return so far are kept, and ``predict`` uses them.

    On CartPole, 7 % of all draws balance the pole for 200 steps and 3 % for 500 (``tests/test_random_search.py``).
    The textbook agent for two actions, which acts by the sign of ``w · observation`` with one uniform vector w, does as well.

    Learning stops after ``total_timesteps``, or when an episode solves the task: when its return reaches the threshold of the
    environment's ``spec`` (CartPole-v1: 475; Pendulum-v1 has none). An episode that reaches the time limit is a success in
    CartPole, a failure in MountainCar, and neither in Pendulum, so it counts only with ``stop_at_full_length``.

    :param policy: ``"LinearPolicy"``, or a subclass of ``LinearDecisionPolicy``
    :param env: the environment, a vectorised environment (each of its N environments plays its own draw), or an id
        registered in Gymnasium
    :param stop_at_full_length: an episode that reaches the time limit solves the task. For tasks whose aim is to survive
    :param reward_threshold: an episode with this return or a higher one solves the task. The return is undiscounted, and of
        the rewards before ``VecNormalize``. None: the threshold of the environment's ``spec``; ``float("inf")``: no threshold
    :param _init_setup_model: draw the first weights at once
    :param kwargs: other parameters: see ``BaseAlgorithm``. The default ``device`` is the CPU, since a GPU gains nothing for so
        few weights
    :raises ValueError: for an unknown policy, an action space other than ``Discrete`` and ``Box``, and a threshold that is
        no number
    :raises TypeError: for an unknown keyword
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"LinearPolicy": LinearDecisionPolicy}
    policy: LinearDecisionPolicy

    def __init__(
        self,
        policy: str | type[LinearDecisionPolicy],
        env: GymEnv | str | None,
        stop_at_full_length: bool = False,
        reward_threshold: float | None = None,
        _init_setup_model: bool = True,
        **kwargs: Unpack[BaseKwargs],
    ) -> None:
        check_keywords("RandomSearch", kwargs, [*BaseKwargs.__annotations__, *inspect.signature(RandomSearch).parameters])
        kwargs.setdefault("device", "cpu")
        super().__init__(policy, env, learning_rate=0.0, support_multi_env=True, **kwargs)
        if not (isinstance(self.policy_class, type) and issubclass(self.policy_class, LinearDecisionPolicy)):
            raise _unknown_policy(policy)
        self.stop_at_full_length = flag("stop_at_full_length", stop_at_full_length)
        self.reward_threshold = reward_threshold
        self.solved = False
        """Whether an episode of the last ``learn`` solved the task."""
        self.n_draws = 0
        self._draw_seed = -1  # none yet
        self._episodes: _Episodes | None = None
        if _init_setup_model:
            self._setup_model()

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        check_env(env)
        check_flattenable(env.observation_space)
        return PlainSaving._wrap_env(env, verbose, monitor_wrapper)

    def _setup_model(self) -> None:
        if self.reward_threshold is not None:
            self.reward_threshold = real_number("reward_threshold", self.reward_threshold, low=-math.inf)
        super().set_random_seed(self.seed)
        if self.seed is not None:
            self._draw_seed = self.seed
        elif self._draw_seed < 0:
            self._draw_seed = int(np.random.randint(2**31))
        policy = self.policy_class(self.observation_space, self.action_space, **self.policy_kwargs)
        self.policy = policy.to(self.device)  # type: ignore[assignment]  # SB3 declares a BasePolicy; the constructor checked
        self.policy.weights.copy_(self.draw(0))

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        if policy_name not in self.policy_aliases:
            raise _unknown_policy(policy_name)
        return self.policy_aliases[policy_name]

    def set_random_seed(self, seed: int | None = None) -> None:
        """See ``BaseAlgorithm.set_random_seed``. The draws start again with number 0 of the new seed."""
        super().set_random_seed(seed)
        if seed is not None:
            self.seed = self._draw_seed = seed
            self.n_draws = 0

    def draw(self, number: int) -> th.Tensor:
        """
        :param number: of the draw, from 0. The seed and the number determine the weights, whatever the number of environments
        :return: the weights, uniform in [-1, 1], shape (A, F)
        """
        # One generator per number, so there is no state to save. default_rng((seed, 0)) would be the generator of an
        # environment with this seed, and the weights would be 20 times the first state of CartPole
        generator = np.random.default_rng(np.random.SeedSequence(self._draw_seed, spawn_key=(number,)))
        weights = generator.uniform(-1.0, 1.0, size=tuple(self.policy.weights.shape))
        return th.as_tensor(weights, dtype=th.float32, device=self.device)

    @property
    def best_return(self) -> float:
        """Return of the episode that the kept weights played; minus infinity before the first episode ends."""
        return float(self.policy.best_return)

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 100,
        tb_log_name: str = "RandomSearch",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """
        Search; see ``BaseAlgorithm.learn``. Another call continues with new draws and keeps the best weights so far.

        :param log_interval: episodes between two logs; a last log is written at the end. None or 0: no log
        :raises ValueError: if there is no environment, if torchrun has started several processes, if an observation is NaN,
            infinite or huge, or if the return of an episode is NaN or infinite
        :raises EnvironmentFailedError: if an environment raises an error, or its process dies
        """
        if self.env is None:
            raise ValueError("there is no environment to learn from: use set_env(env), or load(path, env)")
        if torchrun.get_world_size() > 1:
            raise ValueError(
                "RandomSearch does not search on several processes: start the program without torchrun; each of several "
                "environments plays a draw of its own"
            )
        self.warn_unloadable()
        new_episodes = reset_num_timesteps or self._last_obs is None or self._episodes is None
        with naming_failed_env(self.env, self):
            total_timesteps, callback = self._setup_learn(
                total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
            )
        if new_episodes:
            self._episodes = _Episodes(th.stack([self._next_draw() for _ in range(self.n_envs)]), np.zeros(self.n_envs))
        self.solved, n_logged, threshold = False, self._episode_num, self._threshold(self.env)

        callback.on_training_start(locals(), globals())
        callback.on_rollout_start()
        while self.num_timesteps < total_timesteps and not self.solved:
            if not self._play_step(self.env, callback, threshold):
                break
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            if log_interval and self._episode_num >= n_logged + log_interval:
                self.dump_logs()
                n_logged = self._episode_num
        callback.on_rollout_end()
        if log_interval and self._episode_num > n_logged:
            self.dump_logs()
        callback.on_training_end()
        return self

    def _play_step(self, env: VecEnv, callback: BaseCallback, threshold: float) -> bool:
        """:return: False if a callback stops training"""
        assert self._last_obs is not None
        assert self._episodes is not None
        with th.no_grad():
            actions = self.policy.act(obs_as_tensor(self._last_obs, self.device), self._episodes.weights).cpu().numpy()
        with naming_failed_env(env, self):
            new_obs, rewards, dones, infos = env.step(actions)
        self.num_timesteps += env.num_envs
        self._last_obs, self._last_episode_starts = new_obs, dones  # type: ignore[assignment]  # tuples: not in SB3
        normalizer = self._vec_normalize_env
        self._episodes.returns += rewards if normalizer is None else normalizer.get_original_reward()
        for index in np.flatnonzero(dones):
            self._finish_episode(self._episodes, int(index), infos[index], threshold)
        # After _finish_episode, so that a callback that saves or evaluates now has the best weights
        self._update_info_buffer(infos, dones)
        callback.update_locals(locals())
        return callback.on_step()

    def _finish_episode(self, episodes: _Episodes, index: int, info: dict[str, Any], threshold: float) -> None:
        score = float(episodes.returns[index])
        if not math.isfinite(score):
            raise ValueError(
                f"the return of an episode is {score} (environment {index}, after {self.num_timesteps} steps); check the "
                "rewards, for example with stable_baselines3.common.vec_env.VecCheckNan"
            )
        if score > self.best_return:
            self.policy.weights.copy_(episodes.weights[index])
            self.policy.best_return.fill_(score)
        at_full_length = self.stop_at_full_length and info.get("TimeLimit.truncated", False)
        self.solved = self.solved or at_full_length or score >= threshold
        self._episode_num += 1
        episodes.weights[index] = self._next_draw()
        episodes.returns[index] = 0.0

    def _next_draw(self) -> th.Tensor:
        self.n_draws += 1
        return self.draw(self.n_draws - 1)

    def _threshold(self, env: VecEnv) -> float:
        """Return the return that solves the task; infinity if it is unknown."""
        if self.reward_threshold is not None:
            return self.reward_threshold
        spec = env.get_attr("spec", [0])[0] if env.has_attr("spec") else None
        threshold = None if spec is None else spec.reward_threshold
        return math.inf if threshold is None else float(threshold)

    def dump_logs(self) -> None:
        """Write a log: SB3's ``rollout/`` and ``time/`` keys, and the highest return of an episode so far."""
        if math.isfinite(self.best_return):
            self.logger.record("rollout/best_ep_rew", self.best_return)
        OffPolicyAlgorithm.dump_logs(self)  # type: ignore[arg-type]  # it only reads attributes of BaseAlgorithm

    def _excluded_save_params(self) -> list[str]:
        # A loaded model starts new episodes
        return [*super()._excluded_save_params(), "_episodes"]


def _unknown_policy(policy: Any) -> ValueError:
    return ValueError(f"RandomSearch needs 'LinearPolicy' or a subclass of LinearDecisionPolicy, but got {policy!r}")
