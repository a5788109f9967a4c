"""The steps of a rollout, and what a policy computes for them."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from typing_extensions import Self

from sb3_vpg.common.observations import take
from sb3_vpg.numpy_policy.eligibility import acts_as_sb3


class Steps:
    """
    Steps of a rollout. What a policy reads besides observations is passed on as keywords, such as action masks. If it reads
    several steps together, as a recurrent policy does, a subclass overrides the methods.

    :param observations: of n steps, shape (n, *observation_space.shape), or a dict of such tensors
    :param actions: of these steps, as the rollout buffer holds them, shape (n, A)
    :param keywords: more arguments of ``evaluate_actions`` and ``get_distribution``, each with n rows
    """

    def __init__(self, observations: Any, actions: th.Tensor, keywords: Mapping[str, th.Tensor] | None = None) -> None:
        self.observations, self.actions, self.keywords = observations, actions, keywords or {}

    def __len__(self) -> int:
        return len(self.actions)

    def take(self, rows: th.Tensor) -> Self:
        """Return the steps with these indices, shape (n,)."""
        keywords = {name: value[rows] for name, value in self.keywords.items()}
        return type(self)(take(self.observations, rows), self.actions[rows], keywords)

    def minibatch_indices(self, size: int, rng: np.random.Generator, rows: np.ndarray | None = None) -> Iterator[th.Tensor]:
        """
        Yield the indices of all steps in random minibatches of up to ``size``, whose sizes differ by one at most.

        :param rows: of each step of all processes, its index here, or -1 if it is another process's; of every minibatch the
            part of this process is yielded, which may be empty. None: all steps are here
        """
        rows = np.arange(len(self)) if rows is None else rows
        parts = np.array_split(rows[rng.permutation(len(rows))], -(-len(rows) // size))
        here = [part[part >= 0] for part in parts]
        # One copy to the device for all of them
        order = th.as_tensor(np.concatenate(here), device=self.actions.device)
        yield from th.split(order, [len(part) for part in here])

    def evaluate_actions(self, policy: ActorCriticPolicy) -> tuple[th.Tensor, th.Tensor, th.Tensor | None]:
        """Return what ``policy.evaluate_actions`` does: values, log-probabilities and entropies."""
        return policy.evaluate_actions(self.observations, self._actions(policy), **self.keywords)

    def evaluate(self, policy: ActorCriticPolicy, has_critic: bool) -> tuple[th.Tensor, th.Tensor]:
        """
        Call ``evaluate_actions``, or compute the same without the values if they are not needed.

        :param policy: the policy that learns
        :param has_critic: whether the value network learns too; its batch norm must then see the rollout
        :return: log-probability of each action and entropy of its distribution, both of shape (n,)
        :raises ValueError: if the policy returns another number of log-probabilities or entropies
        """
        log_prob, entropy = self._log_prob_and_entropy(policy, has_critic)
        log_prob = _per_step(policy, "log-probability", log_prob, len(self))
        # Without a closed form (squashed gSDE), -log pi of the sampled action estimates the entropy
        return log_prob, -log_prob if entropy is None else _per_step(policy, "entropy", entropy, len(self))

    def _log_prob_and_entropy(self, policy: ActorCriticPolicy, has_critic: bool) -> tuple[th.Tensor, th.Tensor | None]:
        if needs_no_values(policy, has_critic):
            distribution = policy.get_distribution(self.observations, **self.keywords)
            return distribution.log_prob(self._actions(policy)), distribution.entropy()
        _, log_prob, entropy = self.evaluate_actions(policy)
        return log_prob, entropy

    def values(self, policy: ActorCriticPolicy) -> th.Tensor:
        """
        Return the critic's values, shape (n,): those of ``predict_values``, or those of ``evaluate_actions``, on which SB3's
        algorithms train the critic, if they may differ.
        """
        if acts_as_sb3(policy, values=True):
            return policy.predict_values(self.observations).flatten()
        values, _, _ = self.evaluate_actions(policy)
        return values.flatten()

    def _actions(self, policy: ActorCriticPolicy) -> th.Tensor:
        # SB3's algorithms convert the actions of a rollout buffer before evaluate_actions
        return self.actions.long().flatten() if isinstance(policy.action_space, spaces.Discrete) else self.actions


def needs_no_values(policy: ActorCriticPolicy, has_critic: bool, is_known: bool | None = None) -> bool:
    """
    Return whether the policy's step can leave out the values. Other parameters: see ``Steps.evaluate``.

    :param is_known: whether the policy's methods are those of a library, so that they agree; None: whether they are SB3's
    """
    is_known = acts_as_sb3(policy) if is_known is None else is_known
    return is_known and not (has_critic and any(True for _ in policy.buffers()))


def minibatches(
    steps: Steps,
    returns: th.Tensor,
    n_passes: int,
    size: int | None,
    rng: np.random.Generator,
    rows: np.ndarray | None = None,
) -> Iterator[tuple[Steps, th.Tensor]]:
    """
    Yield steps and returns of the whole rollout or of random minibatches, in several passes.

    :param steps: of the rollout
    :param returns: of these steps, shape (n,)
    :param n_passes: how often each step is yielded
    :param size: largest number of steps in a minibatch; None: the whole rollout
    :param rng: for the random order
    :param rows: see ``Steps.minibatch_indices``
    """
    n_all = len(returns) if rows is None else len(rows)
    for _ in range(n_passes):
        if size is None or size >= n_all:
            yield steps, returns
            continue
        for part in steps.minibatch_indices(size, rng, rows):
            yield steps.take(part), returns[part]


def _per_step(policy: ActorCriticPolicy, quantity: str, numbers: th.Tensor, n_steps: int) -> th.Tensor:
    if numbers.numel() != n_steps:
        raise ValueError(
            f"{type(policy).__name__} returned the {quantity} with shape {tuple(numbers.shape)} for {n_steps} actions, but "
            "one number for each action is needed: sum over the dimensions of an action"
        )
    # With shape (n, 1), the product with advantages of shape (n,) would have shape (n, n)
    return numbers.flatten()
