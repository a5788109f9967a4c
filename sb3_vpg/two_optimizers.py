"""An on-policy algorithm whose critic has an optimiser of its own, which comes along with the policy and with its file."""

import warnings
from collections.abc import Callable
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
from sb3_vpg.optimization.optimizers import CRITIC, Split, name_parameters, split_as_named, split_of, trainable_parameters
from sb3_vpg.persistence.model_files import PathOrFile
from sb3_vpg.policies import original


class TwoOptimizers(LeanOnPolicyAlgorithm):
    """
    Differs from its parent in ``policy.optimizer``, which is the actor's alone, and in ``critic_optimizer``. The policy or its
    optimiser may be replaced between rollouts, as with SB3's algorithms: see ``sb3_vpg.optimization.optimizers.split_of``.

    Parameters: see ``OnPolicyAlgorithm``.
    """

    vf_lr_schedule: Callable[[float], float]
    _built: dict[str, tuple[int, ...]]

    def _split(self) -> Split:
        """:return: that of the present policy and its present optimiser"""
        return split_of(self.policy)

    def _begin_split(self) -> None:
        """The policy has just been built."""
        self._built = _shapes(self.policy)
        critic = self._split().critic
        if critic is not None:
            update_learning_rate(critic, self.vf_lr_schedule(1.0))

    def _check_policy(self) -> None:
        """
        Warn, before hours of training, of what would neither be trained nor loaded.

        :raises ValueError: for a policy that cannot be trained
        """
        split = self._split()
        if _shapes(self.policy) != self._built:
            warnings.warn(
                "model.policy has other parameters than policy_class and policy_kwargs build. To load a saved model, pass "
                'custom_objects={"policy_class": ..., "policy_kwargs": {...}} that build this one',
                stacklevel=3,
            )
        critic = split.critic if self._estimator.has_critic else None
        if not any(trainable_parameters(one) for one in (split.optimizer, critic) if one is not None):
            warnings.warn(
                "every parameter of the policy is frozen (requires_grad=False), so nothing is learned; unfreeze some with "
                "requires_grad_(True)",
                stacklevel=3,
            )

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
        name_parameters(self.policy, split, saved)
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
            split_as_named(self.policy, self._split(), load_path_or_dict)
        super().set_parameters(load_path_or_dict, exact_match, device)

    def _excluded_save_params(self) -> list[str]:
        # Of the policy that the arguments build
        return [*super()._excluded_save_params(), "_built"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        state_dicts, variables = super()._get_torch_save_params()
        return [*state_dicts, *([] if self._split().critic is None else [CRITIC])], variables


def _shapes(policy: ActorCriticPolicy) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in original(policy).named_parameters()}
