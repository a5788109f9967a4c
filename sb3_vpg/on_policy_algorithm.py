"""SB3's ``OnPolicyAlgorithm`` with a faster ``collect_rollouts`` and ``predict``, and hooks between iterations."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, RolloutBufferSamples
from stable_baselines3.common.vec_env import VecEnv
from typing_extensions import Self

from sb3_vpg.collection.actors import NO_KEYWORDS, Actor, LeanActor, lean_actor
from sb3_vpg.collection.advantages import check_advantages, compute_advantages
from sb3_vpg.collection.agreement import is_whole, of_this_process
from sb3_vpg.collection.buffers import full_batch, has_known_layout
from sb3_vpg.collection.callback_locals import Locals
from sb3_vpg.collection.check_nan import invalid_observation
from sb3_vpg.collection.late_values import LateValues
from sb3_vpg.collection.processes import join_processes
from sb3_vpg.collection.pure_modules import Purity, check_purity
from sb3_vpg.collection.rollouts import begin_rollout, check_resets, collect, env_replaced, everyones_rollout
from sb3_vpg.collection.sb3_loop import collect_by_sb3
from sb3_vpg.collection.stepwise_actor import StepwiseActor
from sb3_vpg.common import torchrun
from sb3_vpg.common.blas_threads import blas_threads_as_torch
from sb3_vpg.common.iteration_hook import HookedLearning
from sb3_vpg.common.random_state import random_streams
from sb3_vpg.common.world import SINGLE_PROCESS, World
from sb3_vpg.estimation.estimator import Estimator, next_average
from sb3_vpg.exceptions import ENVIRONMENT_ADVICE, DistributionError, UnsoundNumberError, training_error
from sb3_vpg.numpy_policy.eligibility import acts_as_sb3
from sb3_vpg.optimization.steps import Steps
from sb3_vpg.persistence.model_files import PlainSaving
from sb3_vpg.vec_env.env_checks import check_actions_count_from_zero, check_env
from sb3_vpg.vec_env.failures import naming_failed_env
from sb3_vpg.vec_env.vec_normalize import StatisticsSnapshot

# Derived from arguments and policy, or part of one learn() or rollout
_NOT_SAVED = ["_estimator", "_statistics", "_actor", "_rng", "_predict_rng", "_hooks", "_stop_requested"]
_NOT_SAVED += ["between_iterations", "_sb3_loop_env", "_late", "_purity", "_world"]


class LeanOnPolicyAlgorithm(HookedLearning, PlainSaving, OnPolicyAlgorithm):
    """
    Collects the rollouts of its parent faster, or whole episodes, and checks them for NaN: see ``collect_rollouts``. A
    subclass sets ``_estimator``, which defines the advantages. Parameters: see ``OnPolicyAlgorithm``.
    """

    steps_class: ClassVar[type[Steps]] = Steps
    policy_reads_only_observations: ClassVar[bool] = True
    """False: SB3's loop cannot collect, and ``_policy_keywords`` is called at each step."""
    _estimator: Estimator
    _actor: LeanActor | None = None
    _average_return: float | None = None
    _iteration = 0
    _log_interval = 0
    _sb3_loop_env: VecEnv | None = None  # while SB3's loop collects
    _late: LateValues | None = None  # while our loop collects
    _purity: Purity | None = None
    _world: World = SINGLE_PROCESS

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        check_env(env)
        check_actions_count_from_zero(env)
        return OnPolicyAlgorithm._wrap_env(env, verbose, monitor_wrapper)

    def set_random_seed(self, seed: int | None = None) -> None:
        """
        See ``BaseAlgorithm.set_random_seed``. Sampled actions and minibatches have their own random streams. Under torchrun,
        the environments of all processes get different seeds.
        """
        super().set_random_seed(seed)
        if seed is not None and self.env is not None and torchrun.get_rank() > 0:
            self.env.seed(seed + torchrun.get_rank() * self.n_envs)
        self._rng, self._predict_rng = random_streams(seed)

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "OnPolicyAlgorithm",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """
        See ``OnPolicyAlgorithm.learn``. Between an update and the next rollout, the hooks of ``add_hook`` are called. During
        ``learn``, NumPy's matrix products use as many threads as torch (``torch.set_num_threads``).

        :raises ValueError: if there is no environment, or if it cannot be reset as ``n_episodes`` needs; see also
            ``collect_rollouts`` and ``train``. Under torchrun also if the processes' models or numbers of environments differ
        :raises EnvironmentFailedError: see ``collect_rollouts``. Under torchrun, ``ProcessLostError`` if another process ends
        """
        if self.env is None:
            raise ValueError("there is no environment to learn from: use set_env(env), or load(path, env)")
        self.warn_unloadable()
        check_resets(self.env, self._estimator)
        self._iteration, self._log_interval, self._hooks, self._stop_requested = 0, log_interval or 0, [], False
        self._purity, self._statistics = None, StatisticsSnapshot(self.env)
        self._world = join_processes()
        self._world.check_model(self, total_timesteps)
        with self._world.learning(self):
            with naming_failed_env(self.env, self), self._world.frozen_statistics(self.env):
                total_timesteps, callback = self._setup_learn(
                    total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
                )
                self._world.check_start(self.env, self._hooks)
                self.between_iterations = True
                for hook in self._hooks:
                    hook.on_learn_start(total_timesteps, callback)
            self._check_first_observation()
            callback.on_training_start(Locals({**locals(), "iteration": 0}), globals())
            # NumPy has its own threads. With all cores in each of several processes, they mostly wait for one another
            with blas_threads_as_torch():
                self._iterate(total_timesteps, callback)
            callback.on_training_end()
        return self

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        return super()._init_callback(*self._world.own_callback(callback, progress_bar))

    def _reset_new_env(self) -> None:
        """Reset the environment after a callback has called ``set_env``."""
        if self._last_obs is not None or self.env is None:
            return
        check_resets(self.env, self._estimator)
        self._statistics = StatisticsSnapshot(self.env)
        with naming_failed_env(self.env, self), self._world.frozen_statistics(self.env):
            self._last_obs = self.env.reset()  # type: ignore[assignment]  # SB3 declares None
        self._last_episode_starts = np.ones(self.env.num_envs, dtype=bool)
        self._check_first_observation()

    def _check_first_observation(self) -> None:
        """:raises ValueError: if the first observation has made the statistics of ``VecNormalize`` NaN or infinite"""
        assert self.env is not None
        if not self._statistics.are_still_finite():
            found = invalid_observation(self.env, self._last_obs, 0, self.policy)
            what = found.with_timestep(self.num_timesteps, self.n_envs) if found else "an observation is NaN or infinite"
            raise self._training_error(what, ENVIRONMENT_ADVICE)

    def _iterate(self, total_timesteps: int, callback: BaseCallback) -> None:
        while self.num_timesteps < total_timesteps and self._begin_iteration():
            assert self.env is not None
            own_buffer = of_this_process(self.rollout_buffer)
            if not self.collect_rollouts(self.env, callback, own_buffer, n_rollout_steps=self.n_steps):
                break
            self._iteration += 1
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            if self._log_interval and self._iteration % self._log_interval == 0:
                self.dump_logs(self._iteration)
            self.train()
            self.between_iterations = True

    def _begin_iteration(self) -> bool:
        """Prepare the next rollout. Return False if ``request_stop`` was called."""
        self._reset_new_env()
        for hook in self._hooks:
            hook.on_iteration_start()
        if any(self._world.all_gather(self._stop_requested)):
            return False
        self.between_iterations = False
        return True

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        See ``BaseAlgorithm.predict``. With plain networks on the CPU, NumPy predicts, faster than ``policy.predict``. Sampled
        actions then come from a random stream that training does not use. Otherwise torch predicts, with its global stream.

        :raises ValueError: if the weights or the observation are NaN or infinite. When torch predicts, this depends on its
            validation of distributions, which ``th.compile`` switches off
        """
        actions = self._predict_by_numpy(observation, deterministic)
        return super().predict(observation, state, episode_start, deterministic) if actions is None else (actions, state)

    def _predict_by_numpy(self, observation: Any, deterministic: bool, masks: np.ndarray | None = None) -> np.ndarray | None:
        """Return what ``predict`` does; None if torch must predict. ``masks``: False for actions that are not allowed."""
        self._actor = lean_actor(self.policy, self._actor)
        if self._actor is None:
            return None
        actions = self._actor.predict(observation, deterministic, self._predict_rng, masks)
        if actions is not None and self.policy.training:
            self.policy.set_training_mode(False)
        return actions

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """
        See ``OnPolicyAlgorithm.collect_rollouts``. Values and log-probabilities are computed when the rollout is complete, or
        when a callback reads them in its ``locals``. With ``n_steps`` and a critic, SB3's own loop collects for gSDE, for
        policies that override SB3's methods or may return something else later (see ``collection.pure_modules``), and for a
        user's ``rollout_buffer_class``. With ``n_episodes``, ``n_rollout_steps`` has no effect.

        :raises ValueError: if an observation or a reward is NaN, infinite or huge; if the policy's distribution over actions
            is not valid; if an environment does not finish its ``n_episodes``; if a callback replaces the policy or the
            environment during the rollout
        :raises EnvironmentFailedError: if an environment raises an error or its process dies
        """
        self._reset_new_env()
        self._statistics = StatisticsSnapshot(self.env)
        begun, n_all = self.num_timesteps, env.num_envs * self._world.size
        try:
            with naming_failed_env(env, self), self._world.frozen_statistics(env):
                collected = self._collect(env, callback, rollout_buffer, n_rollout_steps)
        except (UnsoundNumberError, DistributionError) as error:
            inputs = env, self._last_obs, rollout_buffer.pos, self.policy
            seen = error if isinstance(error, UnsoundNumberError) else invalid_observation(*inputs)
            if seen is None:
                raise self._training_error("the policy's distribution over actions has NaN or infinite parameters") from error
            raise self._training_error(seen.with_timestep(begun, n_all), ENVIRONMENT_ADVICE) from None
        if not self._statistics.are_still_finite():
            raise self._training_error("an observation or a reward is NaN or infinite", ENVIRONMENT_ADVICE)
        return collected

    def _collect(self, env: VecEnv, callback: BaseCallback, buffer: RolloutBuffer, n_rollout_steps: int) -> bool:
        fits = has_known_layout(buffer) and n_rollout_steps == buffer.buffer_size
        by_sb3 = self.policy_reads_only_observations and self._estimator.is_gae_on_fixed_length
        if by_sb3 and not (fits and isinstance(self._choose_actor(), LeanActor)):
            self._world.check_policy(self.policy, is_lean=False)
            return collect_by_sb3(self, super().collect_rollouts, env, callback, buffer, n_rollout_steps)
        begin_rollout(self, env, callback, buffer, self._estimator.n_episodes)
        actor = self._choose_actor()
        self._world.check_policy(self.policy, isinstance(actor, LeanActor))
        actor.start(self._rng, self._world)
        self._late = late = LateValues(actor, buffer, self._estimator.has_critic)
        try:
            inputs = None if self.policy_reads_only_observations else self._policy_keywords
            options = (n_rollout_steps, self._world, inputs)
            if not collect(self, self._estimator, actor, late, env, callback, buffer, *options):
                return False
        finally:
            self._late = None
        buffer, *ends = everyones_rollout(self, late, callback, buffer, self._world)
        self._compute_advantages(buffer, *ends)
        returns = buffer.returns
        callback.on_rollout_end()
        check_advantages(self._estimator, buffer, returns)
        return True

    @property
    def _update_world(self) -> World:
        """The processes whose sums make an update: this one alone, if it has gathered the steps of all."""
        return SINGLE_PROCESS if is_whole(self.rollout_buffer) else self._world

    def _policy_keywords(self, env: VecEnv, n_steps: int) -> Mapping[str, np.ndarray]:
        """Return what else the policy reads after ``n_steps`` of the rollout: see ``EpisodeBuffer.keyword_names``."""
        return NO_KEYWORDS

    def _steps(self, buffer: RolloutBuffer, rollout: RolloutBufferSamples | None = None) -> Steps:
        """Return the steps of ``full_batch(buffer)`` as the update asks the policy about them. ``rollout``: this batch."""
        rollout = rollout or full_batch(buffer)
        return self.steps_class(rollout.observations, rollout.actions)

    def _choose_actor(self) -> Actor:
        """Return the actor for the next rollout: the fast one if it supports the policy."""
        self._actor = lean_actor(self.policy, self._actor)
        is_pure = acts_as_sb3(self.policy)
        if is_pure:
            self._purity = check_purity(self.policy, self._last_obs, self._purity, self.verbose)
            _, is_pure = self._purity
        if self._actor is not None and is_pure:
            return self._actor
        return StepwiseActor(self.policy, self.sde_sample_freq, self._estimator.has_critic, is_pure)

    def _update_info_buffer(self, infos: list[dict[str, Any]], dones: np.ndarray | None = None) -> None:
        # SB3's loop calls this after each on_step, before it stores the observation
        if self._sb3_loop_env is not None and self.env is not self._sb3_loop_env:
            raise env_replaced(self)
        super()._update_info_buffer(infos, dones)

    def _compute_advantages(self, buffer: RolloutBuffer, *ends: np.ndarray | None) -> None:
        # The average of earlier updates: a baseline must not depend on the actions of this one
        average = 0.0 if self._average_return is None else self._average_return
        steps, world = partial(self._steps, buffer), self._update_world
        mean = compute_advantages(self._estimator, buffer, self.policy, steps, average, world, *ends)
        self._average_return = next_average(self._average_return, mean)

    def _training_error(self, what: str, *how: Any) -> ValueError:
        """Return ``training_error(..., *how)``, and restore the statistics of ``VecNormalize`` from before the rollout."""
        self._statistics.restore()
        return training_error(what, self._n_updates, self.num_timesteps, *how)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), *_NOT_SAVED]

    def saved_settings(self) -> dict[str, Any]:
        """See ``Packable.saved_settings``. A model of several processes is used in one."""
        return {**super().saved_settings(), "n_envs": self.n_envs * self._world.size}
