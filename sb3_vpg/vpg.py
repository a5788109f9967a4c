"""Vanilla policy gradient as a Stable-Baselines3 algorithm."""

import inspect
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, RolloutBufferSamples
from stable_baselines3.common.utils import update_learning_rate
from torch.optim import Optimizer
from typing_extensions import Self, Unpack

from sb3_vpg.collection.actors import kept_network
from sb3_vpg.collection.batch_shard import BatchShard
from sb3_vpg.collection.buffers import SB3_BUFFERS, BufferClasses, buffer_class, full_batch
from sb3_vpg.collection.processes import prepare_process
from sb3_vpg.common import torchrun
from sb3_vpg.common.arguments import CheckedSchedule, OnPolicyKwargs, ScheduleLike, check_arguments, check_keywords, flag
from sb3_vpg.estimation.diagnostics import approximate_kl, signal_to_noise
from sb3_vpg.estimation.estimator import Baseline, Estimator
from sb3_vpg.exceptions import NotFiniteError
from sb3_vpg.optimization.critic import critic_fit
from sb3_vpg.optimization.graph import drop_graph
from sb3_vpg.optimization.optimizers import assign_by_rollout
from sb3_vpg.optimization.policy_step import PolicyBatch, policy_step
from sb3_vpg.optimization.steps import Steps, minibatches
from sb3_vpg.optimization.updates import rollback_unless_finite
from sb3_vpg.policies import POLICY_ALIASES, unknown_policy
from sb3_vpg.two_optimizers import TwoOptimizers
from sb3_vpg.vec_env.env_checks import check_policy_supports


class VPG(TwoOptimizers):
    """
    Vanilla Policy Gradient (REINFORCE with a learned baseline).

    Papers: Williams 1992, https://doi.org/10.1007/BF00992696 (REINFORCE); Sutton et al. 1999 (the policy gradient theorem);
    Schulman et al. 2015, https://arxiv.org/abs/1506.02438 (the advantages, GAE).

    Each iteration plays ``n_steps`` steps in each of ``n_envs`` environments, takes *one* step of the policy along the
    mean of ``A_t * grad log pi(a_t | s_t)`` over all of these steps, and then fits the critic in ``n_critic_updates`` passes
    over the same steps. The critic's values are the baseline of the next advantages. Policy and critic have separate
    optimisers (SB3 issue #338): one follows a noisy gradient once, the other solves a regression. No step of the critic
    changes the policy.

    With ``n_episodes``, an iteration plays whole episodes instead, each from a reset, and divides the sum over their steps
    by the number of episodes. The mean of this estimator is the policy gradient (with ``max_grad_norm=float("inf")`` and
    ``normalize_advantage=False``). A mean over steps is not, if episodes differ in length, and a rollout of fixed length
    ignores the rewards after its end or takes the critic's estimate of them.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"``, ``"LinearPolicy"`` or any subclass of
        ``ActorCriticPolicy`` that is not recurrent
    :param env: the environment, a vectorised environment, or an id registered in Gymnasium
    :param learning_rate: step size of the policy: a number, a function of the remaining progress (1 to 0), or the
        zoo's ``"lin_0.001"``
    :param n_steps: steps per environment and iteration; an iteration learns from ``n_steps * n_envs`` of them
    :param batch_size: largest number of steps in a minibatch of the critic (their sizes differ by 1 at most); None: all steps
    :param gamma: discount factor
    :param gae_lambda: trade-off in GAE between Monte-Carlo advantages (1, least bias) and the critic's (0, least variance)
    :param n_critic_updates: passes of the critic over the steps of an iteration, as in TRPO; one pass is one gradient step
        if ``batch_size=None``
    :param vf_learning_rate: step size of the critic, in the same forms; None: ``learning_rate``
    :param ent_coef: weight of the entropy bonus, in the same forms
    :param max_grad_norm: largest norm of the policy's gradient and, separately, of the critic's; may be infinite
    :param normalize_advantage: scale the advantages of an iteration to mean 0 and standard deviation 1
    :param baseline: what is subtracted from the return. ``"value"``: the critic's values, with GAE. The others train no
        critic and treat a time-out as the end of an episode. ``"none"``: nothing. ``"average"``: a moving average of the mean
        returns of earlier updates. ``"leave_one_out"``: the mean return, from the same time step on, of the other episodes
        of the update that last as long (of all others with ``reward_to_go=False``); 0 if there is none. ``"optimal"``: the
        constant of least variance (Greensmith et al. 2004), estimated from the other episodes with two backward passes per
        episode. The last two need ``n_episodes``
    :param n_episodes: whole episodes per environment and iteration; ``n_steps`` then has no effect. None: ``n_steps``.
        Steps an environment takes while others finish their episodes count in ``num_timesteps`` and appear in ``Monitor``'s
        files, but are not learned from
    :param reward_to_go: weight a step by the return from this step on. False: by the return of its whole episode, as in the
        first form of REINFORCE: the mean of ``discount_steps=True`` with more variance; needs ``n_episodes``, no critic
    :param discount_steps: also weight step t of an episode by gamma^t. The policy gradient theorem has this factor. Without
        it, as usual in practice, the update follows the gradient of no function (https://arxiv.org/abs/1906.07073). Needs
        ``n_episodes``
    :param use_sde: explore with generalised state-dependent noise instead of independent noise at each step
    :param sde_sample_freq: number of steps between new noise matrices; -1: one per rollout
    :param _init_setup_model: build the networks in the constructor
    :param kwargs: other parameters: see ``OnPolicyAlgorithm``
    :raises ValueError: if an argument is out of range, or if VPG cannot train the policy
    :raises TypeError: for an unknown keyword
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = POLICY_ALIASES
    buffer_classes: ClassVar[BufferClasses] = SB3_BUFFERS
    action_spaces: ClassVar[tuple[type[spaces.Space[Any]], ...]] = (
        spaces.Box,
        spaces.Discrete,
        spaces.MultiDiscrete,
        spaces.MultiBinary,
    )

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str | None,
        learning_rate: ScheduleLike = 2e-3,
        n_steps: int = 256,
        batch_size: int | None = None,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        n_critic_updates: int = 16,
        vf_learning_rate: ScheduleLike | None = None,
        ent_coef: ScheduleLike = 0.0,
        max_grad_norm: float = 0.5,
        normalize_advantage: bool = False,
        baseline: Baseline = "value",
        n_episodes: int | None = None,
        reward_to_go: bool = True,
        discount_steps: bool = False,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        _init_setup_model: bool = True,
        **kwargs: Unpack[OnPolicyKwargs],
    ) -> None:
        check_keywords(type(self).__name__, kwargs, [*OnPolicyKwargs.__annotations__, *inspect.signature(VPG).parameters])
        use_sde = flag("use_sde", use_sde)
        prepare_process(kwargs)
        if not isinstance(policy, str):
            self._check_policy_class(policy)
        super().__init__(
            policy,
            env,  # type: ignore[arg-type]  # SB3 takes None for a model that only predicts
            learning_rate=learning_rate,  # type: ignore[arg-type]  # a string becomes a schedule in _setup_lr_schedule
            n_steps=n_steps,
            gamma=gamma,
            gae_lambda=gae_lambda,
            ent_coef=ent_coef,  # type: ignore[arg-type]  # likewise
            vf_coef=1.0,
            max_grad_norm=max_grad_norm,
            use_sde=use_sde,
            sde_sample_freq=sde_sample_freq,
            _init_setup_model=False,
            supported_action_spaces=self.action_spaces,
            **kwargs,
        )
        self._check_policy_class(self.policy_class)
        self.batch_size = batch_size
        self.n_critic_updates = n_critic_updates
        self.vf_learning_rate = vf_learning_rate
        self.normalize_advantage = normalize_advantage
        self.baseline = baseline
        self.n_episodes = n_episodes
        self.reward_to_go = reward_to_go
        self.discount_steps = discount_steps
        # The largest step sizes of policy and critic in this learn(); saved in checkpoints
        self._step_sizes: dict[str, float] = {}
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        # Not in the constructor, because load() replaces attributes before it calls this
        check_arguments(self)
        check_policy_supports(self.policy_class, self.policy_kwargs, self.observation_space)
        options = ("baseline", "n_episodes", "reward_to_go", "discount_steps", "gamma", "use_sde")
        given = {name: getattr(self, name) for name in options}
        self._estimator = Estimator(**given, n_envs=self.n_envs * torchrun.get_world_size())
        self.rollout_buffer_class = buffer_class(
            self.rollout_buffer_class, self.observation_space, self._estimator, self.buffer_classes
        )
        try:
            super()._setup_model()
        except MemoryError as error:
            raise ValueError(
                f"not enough memory for n_steps={self.n_steps:,} in {self.n_envs:,} environments: {error}"
            ) from error
        self._begin_split()

    def _setup_lr_schedule(self) -> None:
        self.lr_schedule = CheckedSchedule("learning_rate", self.learning_rate)
        value = self.vf_learning_rate
        self.vf_lr_schedule = self._policy_lr if value is None else CheckedSchedule("vf_learning_rate", value)

    def _policy_lr(self, progress_remaining: float) -> float:
        # Read at each call, because a user may replace lr_schedule
        return self.lr_schedule(progress_remaining)

    def _maybe_recommend_cpu(self, mlp_class_name: str = "MlpPolicy") -> None:
        # SB3's default is the name of its own class, ActorCriticPolicy
        super()._maybe_recommend_cpu(mlp_class_name)

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        if policy_name not in self.policy_aliases:
            raise unknown_policy(policy_name, self.policy_aliases, type(self).__name__)
        return self.policy_aliases[policy_name]

    def train(self) -> None:
        """
        Learn from the collected rollout: one step of the policy, then ``n_critic_updates`` passes of the critic.

        :raises ValueError: if a loss, a gradient or a weight becomes NaN or infinite. The weights and the statistics of
            ``VecNormalize`` are then restored to those before the rollout
        """
        self._split()
        rollout = full_batch(self.rollout_buffer)
        share = BatchShard(self.rollout_buffer, len(rollout.returns), self._update_world)
        advantages = share.normalized(rollout.advantages) if self.normalize_advantage else rollout.advantages
        batch = PolicyBatch(self._steps(self.rollout_buffer, rollout), advantages)
        assign_by_rollout(self.policy, batch.steps)
        # Batch norm and dropout behave differently while training
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        self._note_step_size("learning_rate", self.policy.optimizer)
        # Logs are dumped before train(), so the diagnostics of this update appear in the next log, if there is one
        logged = self._log_interval if self.logger.output_formats else 0
        log_follows = self._update_world.broadcast(bool(logged and (self._iteration + 1) % logged == 0))

        critic = self.critic_optimizer if self._estimator.has_critic else None
        try:
            with rollback_unless_finite([self.policy.optimizer, *([] if critic is None else [critic])]):
                self._train_policy(batch, share, log_follows)
                if critic is not None:
                    self._train_critic(batch.steps, rollout, share, critic)
            if log_follows:
                self._record_change(batch.steps, rollout, share)
        except NotFiniteError as error:
            raise self._training_error(str(error)) from None
        finally:
            drop_graph(self.policy)

        self._n_updates += 1
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        if hasattr(self.policy, "log_std"):
            self.logger.record("train/std", th.exp(self.policy.log_std).mean().item())

    def _train_policy(self, batch: PolicyBatch, share: BatchShard, log_follows: bool) -> None:
        # A mean over steps, or over whole episodes
        n_terms = share.n_all if self.n_episodes is None else self.n_episodes * self._estimator.n_envs
        ent_coef = CheckedSchedule("ent_coef", self.ent_coef)(self._current_progress_remaining)
        network = kept_network(self._actor, self.policy, "action_net")
        step = policy_step(self.policy, batch, self.max_grad_norm, self._estimator.has_critic, network, self._update_world)
        if log_follows:
            gradients = [self._update_world.all_reduce(one) for one in step.part_gradients(share.parts(self.device))]
            self.logger.record("train/gradient_snr", signal_to_noise(gradients))
        for name, number in vars(step.run(n_terms, ent_coef)).items():
            self.logger.record(f"train/{name}", number)

    def _train_critic(self, steps: Steps, rollout: RolloutBufferSamples, share: BatchShard, optimizer: Optimizer) -> None:
        vf_learning_rate = self.vf_lr_schedule(self._current_progress_remaining)
        update_learning_rate(optimizer, vf_learning_rate)
        if self.vf_learning_rate is not None:
            self._note_step_size("vf_learning_rate", optimizer)
        batches = minibatches(steps, rollout.returns, self.n_critic_updates, self.batch_size, self._rng, share.rows)
        network = kept_network(self._actor, self.policy, "value_net")
        losses = critic_fit(self.policy, optimizer, self.max_grad_norm, network, self._update_world).run(batches)
        self.logger.record("train/vf_learning_rate", vf_learning_rate)
        self.logger.record("train/value_loss", np.mean(losses))
        self.logger.record("train/explained_variance", share.explained_variance(rollout.old_values, rollout.returns))

    def _record_change(self, steps: Steps, rollout: RolloutBufferSamples, share: BatchShard) -> None:
        """Log how much the update has changed policy and values, in eval mode as they will be used."""
        self.policy.set_training_mode(False)
        with th.no_grad():
            log_prob, _ = steps.evaluate(self.policy, self._estimator.has_critic)
            before, after = (self._update_world.all_gather_rows(one) for one in (rollout.old_log_prob, log_prob))
            self.logger.record("train/approx_kl", approximate_kl(before, after))
            if self._estimator.has_critic:
                values = steps.values(self.policy)
                self.logger.record("train/explained_variance_after", share.explained_variance(values, rollout.returns))

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 10,
        tb_log_name: str = "VPG",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """
        See ``OnPolicyAlgorithm.learn``. Warns if nothing could be learned: if every parameter is frozen, or if the step size
        was 0 at each update, as with ``"lin_0.001"`` and a single rollout, after which no progress remains.
        """
        self._check_policy()
        self._step_sizes = {}
        super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)
        if self._world.is_main_process:
            self._warn_if_standing_still()
        return self

    def _excluded_save_params(self) -> list[str]:
        # Derived from the arguments when a model is built
        return [*super()._excluded_save_params(), "lr_schedule", "vf_lr_schedule"]
