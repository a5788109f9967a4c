"""Vanilla policy gradient as a Stable-Baselines3 algorithm."""

import inspect
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, RolloutBufferSamples, TensorDict
from stable_baselines3.common.utils import explained_variance, update_learning_rate
from torch.nn import functional as F
from torch.optim import Optimizer
from typing_extensions import Self, Unpack

from sb3_vpg.advantages import normalize
from sb3_vpg.arguments import CheckedSchedule, OnPolicyKwargs, ScheduleLike, real_number, refuse_unknown, whole_number
from sb3_vpg.optimizers import split_optimizer, trainable_parameters
from sb3_vpg.policies import CnnPolicy, MlpPolicy, MultiInputPolicy, check_policy_class


class VPG(OnPolicyAlgorithm):
    """
    Vanilla Policy Gradient (REINFORCE with a learned baseline).

    Papers: Williams 1992, https://doi.org/10.1007/BF00992696 (REINFORCE); Sutton et al. 1999 (the policy gradient
    theorem); Schulman et al. 2015, https://arxiv.org/abs/1506.02438 (the advantages, GAE).

    Each iteration plays ``n_steps`` steps in each of ``n_envs`` environments, takes *one* step of the policy along the
    mean over these T * N steps of ``A_t * grad log pi(a_t | s_t)``, and then fits the critic, which provides the
    baseline of the next advantages, in ``n_critic_updates`` passes over the same steps. The two have optimisers of
    their own (SB3 issue #338): the first follows a noisy gradient once, the second solves a regression. No step of the
    critic changes the policy.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or any subclass of ``ActorCriticPolicy``
        that is not recurrent
    :param env: the environment, a vectorised environment, or an id registered in Gymnasium
    :param learning_rate: step size of the policy: a number, a function of the remaining progress (1 to 0), or the
        zoo's ``"lin_0.001"``
    :param n_steps: steps per environment and iteration (T); an iteration learns from ``n_steps * n_envs`` of them
    :param batch_size: at most so many steps in a minibatch of the critic, whose sizes are evened out; None: all steps
    :param gamma: discount factor
    :param gae_lambda: 1 for Monte-Carlo advantages (the least biased), towards 0 for those that trust the critic
    :param n_critic_updates: passes of the critic over the steps of an iteration, as in TRPO; with ``batch_size=None``
        one pass is one gradient step
    :param vf_learning_rate: step size of the critic, in the same forms; None: that of the policy
    :param ent_coef: weight of the entropy bonus, in the same forms
    :param max_grad_norm: bound on the norm of the policy's gradient and, separately, of the critic's;
        ``float("inf")`` for none
    :param normalize_advantage: give the advantages of an iteration mean 0 and standard deviation 1
    :param use_sde: explore with generalised state-dependent noise instead of independent noise per step
    :param sde_sample_freq: draw a new noise matrix every so many steps; -1: once per rollout
    :param _init_setup_model: build the networks at once
    :param kwargs: other parameters: see ``OnPolicyAlgorithm``
    :raises ValueError: for an argument that is out of range, and for a policy that VPG cannot train
    :raises TypeError: for an unknown keyword
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }
    critic_optimizer: Optimizer | None
    """None where the value shares every parameter with the policy, or has none."""

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
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        _init_setup_model: bool = True,
        **kwargs: Unpack[OnPolicyKwargs],
    ) -> None:
        refuse_unknown("VPG", kwargs, [*OnPolicyKwargs.__annotations__, *inspect.signature(VPG).parameters])
        super().__init__(
            policy,
            env,  # type: ignore[arg-type]  # None is SB3's own way to say "for prediction only"
            learning_rate=learning_rate,  # type: ignore[arg-type]  # a text becomes a schedule in _setup_lr_schedule
            n_steps=n_steps,
            gamma=gamma,
            gae_lambda=gae_lambda,
            ent_coef=ent_coef,  # type: ignore[arg-type]  # likewise
            vf_coef=1.0,
            max_grad_norm=max_grad_norm,
            use_sde=use_sde,
            sde_sample_freq=sde_sample_freq,
            _init_setup_model=False,
            supported_action_spaces=(spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary),
            **kwargs,
        )
        check_policy_class(self.policy_class)
        self.batch_size = batch_size
        self.n_critic_updates = n_critic_updates
        self.vf_learning_rate = vf_learning_rate
        self.normalize_advantage = normalize_advantage
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        # Here rather than in the constructor: load() replaces the attributes in between
        self._check_arguments()
        super()._setup_model()
        self.critic_optimizer = split_optimizer(self.policy, self.vf_lr_schedule(1.0))

    def _check_arguments(self) -> None:
        self.n_steps = whole_number("n_steps", self.n_steps, at_least=1)
        self.n_critic_updates = whole_number("n_critic_updates", self.n_critic_updates, at_least=1)
        if self.batch_size is not None:
            self.batch_size = whole_number("batch_size", self.batch_size, at_least=1)
        self.gamma = real_number("gamma", self.gamma, high=1.0)
        self.gae_lambda = real_number("gae_lambda", self.gae_lambda, high=1.0)
        CheckedSchedule("ent_coef", self.ent_coef)
        self.max_grad_norm = real_number("max_grad_norm", self.max_grad_norm)
        if self.max_grad_norm == 0.0:
            raise ValueError("max_grad_norm must be above 0, or nothing is ever learnt; use float('inf') for no bound")

    def _setup_lr_schedule(self) -> None:
        self.lr_schedule = CheckedSchedule("learning_rate", self.learning_rate)
        critic = self.learning_rate if self.vf_learning_rate is None else self.vf_learning_rate
        self.vf_lr_schedule = CheckedSchedule("vf_learning_rate", critic)

    def _maybe_recommend_cpu(self, mlp_class_name: str = "MlpPolicy") -> None:
        super()._maybe_recommend_cpu(mlp_class_name)

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        if policy_name not in self.policy_aliases:
            raise ValueError(
                f"VPG knows no policy {policy_name!r}, only {', '.join(self.policy_aliases)} and subclasses of "
                "ActorCriticPolicy given as a class. Recurrent policies (such as MlpLstmPolicy) are not supported; "
                "use sb3_contrib.RecurrentPPO for them"
            )
        return self.policy_aliases[policy_name]

    def collect_rollouts(self, *args: Any, **kwargs: Any) -> bool:
        """
        See ``OnPolicyAlgorithm.collect_rollouts``.

        :raises ValueError: if the policy has no valid distribution over actions: its weights or an observation are not
            finite, or so large that its output is not
        """
        try:
            return super().collect_rollouts(*args, **kwargs)
        except (ValueError, RuntimeError) as error:
            # How torch refuses the parameters of a distribution, and how its sampling does when validation is switched off
            # (th.compile does that for the whole process); any other error is somebody else's
            if "of distribution" not in str(error) and "probability tensor" not in str(error):
                raise
            raise self._divergence("the policy's distribution over actions has NaN or infinite parameters") from error

    def train(self) -> None:
        """
        Learn from the rollout that was just collected: one step of the policy, then the passes of the critic.

        :raises ValueError: if a loss or a gradient is NaN or infinite; no such step is taken, so the weights stay those
            of the last good one
        """
        # Batch norm and dropout behave differently while training
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)

        # The whole rollout as one batch of T * N steps
        rollout = next(iter(self.rollout_buffer.get(batch_size=None)))
        self._train_policy(rollout)
        self._train_critic(rollout)

        self._n_updates += 1
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        fit = explained_variance(rollout.old_values.cpu().numpy(), rollout.returns.cpu().numpy())
        self.logger.record("train/explained_variance", fit)
        if hasattr(self.policy, "log_std"):
            self.logger.record("train/std", th.exp(self.policy.log_std).mean().item())

    def _train_policy(self, rollout: RolloutBufferSamples) -> None:
        actions = rollout.actions
        if isinstance(self.action_space, spaces.Discrete):
            # The buffer holds them as floats of shape (T * N, 1)
            actions = actions.long().flatten()
        _, log_prob, entropy = self.policy.evaluate_actions(rollout.observations, actions)

        advantages = normalize(rollout.advantages) if self.normalize_advantage else rollout.advantages
        policy_loss = -(advantages * log_prob).mean()
        # Without a closed form (squashed gSDE), -log pi of the sampled action estimates the entropy
        entropy_loss = -th.mean(-log_prob if entropy is None else entropy)
        ent_coef = CheckedSchedule("ent_coef", self.ent_coef)(self._current_progress_remaining)
        self._take_step(self.policy.optimizer, policy_loss + ent_coef * entropy_loss, "policy")

        self.logger.record("train/policy_gradient_loss", policy_loss.item())
        self.logger.record("train/entropy_loss", entropy_loss.item())

    def _train_critic(self, rollout: RolloutBufferSamples) -> None:
        if self.critic_optimizer is None:
            return
        vf_learning_rate = self.vf_lr_schedule(self._current_progress_remaining)
        update_learning_rate(self.critic_optimizer, vf_learning_rate)
        # Batch statistics belong to the policy as well: they have seen this rollout once, and stay
        for module in self.policy.modules():
            module.training = module.training and not any(True for _ in module.buffers(recurse=False))
        losses = []
        for _ in range(self.n_critic_updates):
            for observations, returns in self._minibatches(rollout):
                values = self.policy.predict_values(observations).flatten()
                loss = F.mse_loss(returns, values)
                self._take_step(self.critic_optimizer, loss, "critic")
                losses.append(loss.item())
        self.logger.record("train/vf_learning_rate", vf_learning_rate)
        self.logger.record("train/value_loss", np.mean(losses))

    def _minibatches(self, rollout: RolloutBufferSamples) -> Iterator[tuple[th.Tensor | TensorDict, th.Tensor]]:
        """One pass over the rollout: all of it at once, or in random parts of nearly equal size."""
        n_samples = len(rollout.returns)
        if self.batch_size is None or self.batch_size >= n_samples:
            yield rollout.observations, rollout.returns
            return
        n_parts = -(-n_samples // self.batch_size)
        for part in th.randperm(n_samples, device=self.device).tensor_split(n_parts):
            yield _take(rollout.observations, part), rollout.returns[part]

    def _take_step(self, optimizer: Optimizer, loss: th.Tensor, who: str) -> None:
        """One step of an optimiser that touches nothing but its own parameters, unless a number is not finite."""
        parameters = trainable_parameters(optimizer)
        if not parameters:
            # The user has frozen all of them
            return
        self._check_finite(f"loss of the {who}", loss)
        optimizer.zero_grad()
        loss.backward(inputs=parameters)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        norm = th.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
        self._check_finite(f"gradient norm of the {who}", norm)
        optimizer.step()

    def _check_finite(self, quantity: str, value: th.Tensor) -> None:
        if not th.isfinite(value):
            raise self._divergence(f"the {quantity} is {value.item()}")

    def _divergence(self, what: str) -> ValueError:
        return ValueError(
            f"Training diverged in iteration {self._n_updates + 1} (after {self.num_timesteps} steps): {what}. The weights "
            "are those of the last step that was sound. Look for NaN, infinite or huge observations and rewards "
            "(VecNormalize scales them), or lower learning_rate, vf_learning_rate or max_grad_norm"
        )

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 10,
        tb_log_name: str = "VPG",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """See ``OnPolicyAlgorithm.learn``; this one only has defaults of its own."""
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def _excluded_save_params(self) -> list[str]:
        # Derived from learning_rate and vf_learning_rate whenever a model is built
        return [*super()._excluded_save_params(), "lr_schedule", "vf_lr_schedule"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        state_dicts, variables = super()._get_torch_save_params()
        return [*state_dicts, *([] if self.critic_optimizer is None else ["critic_optimizer"])], variables


def _take(observations: Any, indices: th.Tensor) -> Any:
    if isinstance(observations, dict):
        return {key: value[indices] for key, value in observations.items()}
    return observations[indices]
