"""An on-policy algorithm whose critic has an optimiser of its own, which comes along with the policy and with its file."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import TensorDict
from stable_baselines3.common.utils import update_learning_rate
from stable_baselines3.common.vec_env import VecEnv
from torch.optim import Optimizer

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
from sb3_vpg.persistence.model_files import PathOrFile
from sb3_vpg.policies import original

_OURS = ("sb3_vpg", "stable_baselines3")


class TwoOptimizers(LeanOnPolicyAlgorithm):
    """
    Differs from its parent in ``policy.optimizer``, which is the actor's alone, and in ``critic_optimizer``. The policy or its
    optimiser may be replaced between rollouts, as with SB3's algorithms: see ``sb3_vpg.optimization.optimizers.split_of``.

    Parameters: see ``OnPolicyAlgorithm``.
    """

    vf_lr_schedule: Callable[[float], float]
    _built: "_Kinds"

    def _split(self) -> Split:
        """:return: that of the present policy and its present optimiser"""
        return split_of(self.policy)

    def _begin_split(self) -> None:
        """The policy has just been built."""
        self._built = _Kinds.of(self.policy)
        critic = self._split().critic
        if critic is not None:
            update_learning_rate(critic, self.vf_lr_schedule(1.0))

    def _check_policy(self) -> None:
        """
        Warn, before hours of training, that nothing would be trained.

        :raises ValueError: for a policy that cannot be trained
        """
        split = self._split()
        critic = split.critic if self._estimator.has_critic else None
        if not any(trainable_parameters(one) for one in (split.optimizer, critic) if one is not None):
            warnings.warn(
                "every parameter of the policy is frozen (requires_grad=False), so nothing is learned; unfreeze some with "
                "requires_grad_(True)",
                stacklevel=3,
            )

    def saved_settings(self) -> dict[str, Any]:
        """``policy_kwargs`` name the class of the optimiser that is there: a user may have replaced it."""
        optimizer = self._split().optimizer
        if class_name(type(optimizer)) == self._built.optimizer:
            return super().saved_settings()
        named = {"optimizer_class": type(optimizer), "optimizer_kwargs": options_of(optimizer)}
        return {**super().saved_settings(), "policy_kwargs": {**self.policy_kwargs, **named}}

    def unloadable(self) -> dict[str, str]:
        """See ``Packable.unloadable``: what is in the place of what policy_class and policy_kwargs build."""
        split, found = self._split(), {}
        present = _Kinds.of(self.policy)
        differing = self._built.differing(present)
        if differing:
            found["policy"] = (
                f"model.policy has other {differing}. To load a saved model, pass "
                'custom_objects={"policy_class": ..., "policy_kwargs": {...}} that build this one'
            )
        foreign = {*parameters_of(split.optimizer), *parameters_of(split.critic)} - {*original(self.policy).parameters()}
        if foreign:
            found["foreign"] = (
                f"policy.optimizer holds {len(foreign)} parameters that are not those of model.policy, and no file holds "
                "them. After replacing a layer, replace the optimizer: policy.optimizer = Adam(policy.parameters(), lr=...). "
                "What another module brings must be created by a policy class of your own"
            )
        if split.critic is not None and type(split.critic) is not type(split.optimizer):
            actors, critics = type(split.optimizer).__name__, type(split.critic).__name__
            found["critic_optimizer"] = (
                f"policy.optimizer is a {actors} and critic_optimizer a {critics}, but "
                "load builds both of one class; replace policy.optimizer by an optimizer of all parameters, which is split"
            )
        return found

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
        """See ``LeanOnPolicyAlgorithm.collect_rollouts``. A policy that cannot be trained is refused before it plays."""
        self._split()
        return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)

    def get_parameters(self) -> dict[str, dict[str, Any]]:
        """See ``BaseAlgorithm.get_parameters``. The policy's optimiser says as well which parameters each of the two holds."""
        split = self._split()
        saved = super().get_parameters()
        save_split(self.policy, split, saved)
        return saved

    def set_parameters(
        self,
        load_path_or_dict: PathOrFile | TensorDict | dict[str, Any],
        exact_match: bool = True,
        device: th.device | str = "auto",
    ) -> None:
        """
        See ``BaseAlgorithm.set_parameters``. Also restores which optimiser holds which parameter.

        :raises RefusedFileError: as ``load``
        :raises ValueError: for parameters of another policy
        """
        if isinstance(load_path_or_dict, dict):
            split = self._split()
            restore_split(self.policy, split, load_path_or_dict)
            for what, optimizer in ((ACTOR, split.optimizer), (CRITIC, split.critic)):
                # Without param_groups, torch says what is wrong, and the policy's state dict comes first
                if optimizer is not None and "param_groups" in load_path_or_dict.get(what, ()):
                    check_class(what, optimizer, load_path_or_dict[what])
        # A callback may do this in the middle of a rollout: the steps so far keep the values of the old weights
        if self._late is not None:
            self._late.catch_up()
        super().set_parameters(load_path_or_dict, exact_match, device)
        if self._late is not None:
            self._late.note_weights()

    def _excluded_save_params(self) -> list[str]:
        # Of the policy that the arguments build; it is built anew
        return [*super()._excluded_save_params(), "_built"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        state_dicts, variables = super()._get_torch_save_params()
        return [*state_dicts, *([] if self._split().critic is None else [CRITIC])], variables


@dataclass
class _Kinds:
    """
    What a policy is made of, to be compared with what a file builds.

    :param shapes: of its parameters
    :param classes: of its modules; its own is that of the user's, since SB3's classes differ in their defaults alone
    :param optimizer: the class of its optimiser
    """

    shapes: dict[str, tuple[int, ...]]
    classes: dict[str, str]
    optimizer: str

    @staticmethod
    def of(policy: ActorCriticPolicy) -> "_Kinds":
        policy = original(policy)
        shapes = {name: tuple(value.shape) for name, value in policy.named_parameters()}
        # A features extractor that is shared has several names
        classes = {name: class_name(type(module)) for name, module in policy.named_modules(remove_duplicate=False)}
        classes[""] = class_name(next(cls for cls in type(policy).__mro__ if cls.__module__.partition(".")[0] not in _OURS))
        return _Kinds(shapes, classes, class_name(type(policy.optimizer)))

    def differing(self, other: "_Kinds") -> str:
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
