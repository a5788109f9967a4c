"""An on-policy algorithm whose critic has a second optimiser, which is saved and loaded with the policy."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import update_learning_rate
from stable_baselines3.common.vec_env import VecEnv
from torch.optim import Optimizer

from sb3_vpg.common import torchrun
from sb3_vpg.common.caller import stacklevel_of_caller
from sb3_vpg.on_policy_algorithm import LeanOnPolicyAlgorithm
from sb3_vpg.optimization.optimizers import (
    ACTOR,
    CRITIC,
    Split,
    check_class,
    options_of,
    parameters_of,
    restore_split,
    save_split,
    split_of,
    trainable_parameters,
)
from sb3_vpg.persistence.class_names import class_name
from sb3_vpg.policies import check_policy_class, original

# Not common.libraries: the policy classes of sb3_contrib differ in more than their defaults
_POLICY_PACKAGES = ("sb3_vpg", "stable_baselines3")


class TwoOptimizers(LeanOnPolicyAlgorithm):
    """
    Adds ``critic_optimizer``; ``policy.optimizer`` holds the actor's parameters only. The policy or its optimiser may be
    replaced between rollouts, as with SB3's algorithms: see ``sb3_vpg.optimization.optimizers.split_of``.

    Parameters: see ``OnPolicyAlgorithm``.
    """

    vf_lr_schedule: Callable[[float], float]
    _built: "_PolicyStructure"
    _step_sizes: dict[str, float]
    _check_policy_class = staticmethod(check_policy_class)

    def _split(self) -> Split:
        """:return: which optimiser holds which parameter of the present policy"""
        return split_of(self.policy, self.steps_class, self._check_policy_class)

    def _begin_split(self) -> None:
        """Note the structure of the policy, which has just been built, and set the critic's step size."""
        self._built = _PolicyStructure.of(self.policy)
        critic = self._split().critic
        if critic is not None:
            update_learning_rate(critic, self.vf_lr_schedule(1.0))

    def _check_policy(self) -> None:
        """Warn if every parameter is frozen. Raises ValueError if VPG cannot train the policy."""
        split = self._split()
        critic = split.critic if self._estimator.has_critic else None
        learning = (split.optimizer, critic)
        if not any(trainable_parameters(one) for one in learning if one is not None) and torchrun.get_rank() == 0:
            warnings.warn(
                "every parameter of the policy is frozen (requires_grad=False), so nothing is learned; unfreeze some with "
                "requires_grad_(True)",
                stacklevel=stacklevel_of_caller(),
            )

    def saved_settings(self) -> dict[str, Any]:
        """See ``Packable.saved_settings``. ``policy_kwargs`` names the present optimiser's class, which may be a new one."""
        optimizer = self._split().optimizer
        if class_name(type(optimizer)) == self._built.optimizer:
            return super().saved_settings()
        named = {"optimizer_class": type(optimizer), "optimizer_kwargs": options_of(optimizer)}
        return {**super().saved_settings(), "policy_kwargs": {**self.policy_kwargs, **named}}

    def unloadable(self) -> dict[str, str]:
        """See ``Packable.unloadable``: parts that ``policy_class`` and ``policy_kwargs`` do not build."""
        split, reasons = self._split(), {}
        difference = self._built.difference(_PolicyStructure.of(self.policy))
        if difference:
            reasons["policy"] = (
                f"model.policy has other {difference}. To load a saved model, pass "
                'custom_objects={"policy_class": ..., "policy_kwargs": {...}} that build this one'
            )
        foreign = {*parameters_of(split.optimizer), *parameters_of(split.critic)} - {*original(self.policy).parameters()}
        if foreign:
            reasons["foreign"] = (
                f"policy.optimizer holds {len(foreign)} parameters that are not those of model.policy, and no file holds "
                "them. After replacing a layer, replace the optimizer: policy.optimizer = Adam(policy.parameters(), lr=...). "
                "The parameters of another module must be created by a policy class of your own"
            )
        if split.critic is not None and type(split.critic) is not type(split.optimizer):
            actor_class, critic_class = type(split.optimizer).__name__, type(split.critic).__name__
            reasons["critic_optimizer"] = (
                f"policy.optimizer is a {actor_class} and critic_optimizer a {critic_class}, but load builds both of one "
                "class; replace policy.optimizer by an optimizer of all parameters, which is then split"
            )
        return reasons

    @property
    def critic_optimizer(self) -> Optimizer | None:
        """
        The critic's optimiser, stored on the policy as ``policy.optimizer`` is. None if only the actor's parameters affect the
        value, and until the first rollout if that is needed to find the critic's parameters.
        """
        return self._split().critic

    @critic_optimizer.setter
    def critic_optimizer(self, optimizer: Optimizer | None) -> None:
        self._split().critic = optimizer

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """See ``LeanOnPolicyAlgorithm.collect_rollouts``. Raises ValueError first if VPG cannot train the policy."""
        self._split()
        return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)

    def _note_step_size(self, name: str, optimizer: Optimizer) -> None:
        present = max((float(group["lr"]) for group in optimizer.param_groups), default=0.0)
        self._step_sizes[name] = max(self._step_sizes.get(name, 0.0), present)

    def _warn_if_standing_still(self) -> None:
        for name, largest in self._step_sizes.items():
            schedule = self.lr_schedule if name == "learning_rate" else self.vf_lr_schedule
            # A step size that is always 0 is intended
            if largest == 0.0 and any(schedule(progress) > 0.0 for progress in (1.0, 0.75, 0.5, 0.25)):
                warnings.warn(
                    f"{name}={getattr(self, name)!r} was 0 at each update of this learn(), so these weights did not change. "
                    "A schedule is evaluated after each rollout, and is at its end after the last one. Use a constant, or "
                    f"shorter rollouts (n_steps={self.n_steps}, n_envs={self.n_envs}), or raise total_timesteps",
                    stacklevel=stacklevel_of_caller(),
                )

    def get_parameters(self) -> dict[str, dict[str, Any]]:
        """See ``BaseAlgorithm.get_parameters``. The policy optimiser's state also names the parameters of both optimisers."""
        split = self._split()
        saved = super().get_parameters()
        save_split(self.policy, split, saved)
        return saved

    def load_state_dicts(self, states: dict[str, Any], exact_match: bool, device: th.device | str) -> None:
        """See ``PlainSaving.load_state_dicts``. Also restores which optimiser holds which parameter."""
        split = self._split()
        restore_split(self.policy, split, states)
        for what, optimizer in ((ACTOR, split.optimizer), (CRITIC, split.critic)):
            # A state dict without param_groups is left to torch, which says what is wrong with it
            if optimizer is not None and "param_groups" in states.get(what, ()):
                check_class(what, optimizer, states[what])
        # A callback may load weights in the middle of a rollout: the steps so far keep the values of the old weights
        if self._late is not None:
            self._late.catch_up()
        super().load_state_dicts(states, exact_match, device)
        if self._late is not None:
            self._late.note_weights()

    def _excluded_save_params(self) -> list[str]:
        # load builds the policy, and notes this anew
        return [*super()._excluded_save_params(), "_built"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        state_dicts, variables = super()._get_torch_save_params()
        return [*state_dicts, *([] if self._split().critic is None else [CRITIC])], variables


@dataclass
class _PolicyStructure:
    """
    The structure of a policy, to be compared with that of the policy that ``load`` builds.

    :param shapes: of its parameters
    :param classes: of its modules; for the policy itself its first class from outside of SB3 and sb3_vpg, whose policy classes
        differ only in their defaults
    :param optimizer: the class of its optimiser
    """

    shapes: dict[str, tuple[int, ...]]
    classes: dict[str, str]
    optimizer: str

    @staticmethod
    def of(policy: ActorCriticPolicy) -> "_PolicyStructure":
        policy = original(policy)
        shapes = {name: tuple(value.shape) for name, value in policy.named_parameters()}
        # A features extractor that is shared has several names
        classes = {name: class_name(type(module)) for name, module in policy.named_modules(remove_duplicate=False)}
        own = next(cls for cls in type(policy).__mro__ if cls.__module__.partition(".")[0] not in _POLICY_PACKAGES)
        return _PolicyStructure(shapes, {**classes, "": class_name(own)}, class_name(type(policy.optimizer)))

    def difference(self, other: "_PolicyStructure") -> str:
        """:return: how the parameters or modules of the other differ; empty if they do not"""
        if self.shapes != other.shapes:
            return "parameters than policy_class and policy_kwargs build"
        changed = sorted(name for name, cls in other.classes.items() if self.classes.get(name, cls) != cls)
        if not changed:
            return ""
        name = changed[0]
        where = f"the class of {name}" if name else "its class"
        return (
            f"classes than policy_class and policy_kwargs build ({where} is {other.classes[name]}, not {self.classes[name]}), "
            "so that it may compute something else than what load builds"
        )
