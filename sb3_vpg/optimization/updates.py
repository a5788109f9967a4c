"""Steps of the optimisers, which refuse NaN and infinity, and the batches for them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from math import isfinite
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import RolloutBufferSamples, TensorDict
from torch.optim import Optimizer

from sb3_vpg.common.observations import take
from sb3_vpg.common.world import ALONE, World
from sb3_vpg.exceptions import NotFiniteError
from sb3_vpg.numpy_policy.eligibility import acts_as_sb3
from sb3_vpg.optimization.optimizers import trainable_parameters


def evaluate_steps(
    policy: ActorCriticPolicy, observations: Any, actions: th.Tensor, has_critic: bool
) -> tuple[th.Tensor, th.Tensor]:
    """
    Call ``evaluate_actions``, or compute the same without the values if they are not needed.

    :param policy: the policy that learns
    :param observations: of n steps
    :param actions: of n steps as the rollout buffer holds them, shape (n, A)
    :param has_critic: whether the value network learns too; its batch norm must then see the rollout
    :return: log-probability of each action and entropy of its distribution, both of shape (n,)
    :raises ValueError: if the policy returns another number of log-probabilities or entropies
    """
    n_steps, actions = len(actions), _as_evaluated(policy, actions)
    if needs_no_values(policy, has_critic):
        distribution = policy.get_distribution(observations)
        log_prob, entropy = distribution.log_prob(actions), distribution.entropy()
    else:
        _, log_prob, entropy = policy.evaluate_actions(observations, actions)
    log_prob = _per_step(policy, "log-probability", log_prob, n_steps)
    # Without a closed form (squashed gSDE), -log pi of the sampled action estimates the entropy
    return log_prob, -log_prob if entropy is None else _per_step(policy, "entropy", entropy, n_steps)


def needs_no_values(policy: ActorCriticPolicy, has_critic: bool) -> bool:
    """Return whether the policy's step can leave out the values; parameters: see ``evaluate_steps``."""
    return acts_as_sb3(policy) and not (has_critic and any(True for _ in policy.buffers()))


def _per_step(policy: ActorCriticPolicy, quantity: str, numbers: th.Tensor, n_steps: int) -> th.Tensor:
    if numbers.numel() != n_steps:
        raise ValueError(
            f"{type(policy).__name__} returned the {quantity} with shape {tuple(numbers.shape)} for {n_steps} actions, but "
            "one number for each action is needed: sum over the dimensions of an action"
        )
    # With shape (n, 1), the product with advantages of shape (n,) would have shape (n, n)
    return numbers.flatten()


def evaluate_values(policy: ActorCriticPolicy, observations: Any, actions: th.Tensor) -> th.Tensor:
    """Return the values that ``evaluate_actions`` computes, on which SB3's algorithms train the critic, shape (n, 1)."""
    values, _, _ = policy.evaluate_actions(observations, _as_evaluated(policy, actions))
    return values


def _as_evaluated(policy: ActorCriticPolicy, actions: th.Tensor) -> th.Tensor:
    """Convert the actions of a rollout buffer as SB3's algorithms do before ``evaluate_actions``."""
    return actions.long().flatten() if isinstance(policy.action_space, spaces.Discrete) else actions


@contextmanager
def rollback_unless_finite(optimizers: Sequence[Optimizer]) -> Iterator[None]:
    """
    Restore the weights and the optimisers' states if the update raises or leaves a weight that is not finite. A weight that
    was NaN or infinite before and has not changed, such as a mask of minus infinity, is ignored.

    :param optimizers: those that take the steps
    :raises NotFiniteError: if the update leaves NaN or infinite weights
    """
    parameters = [parameter for optimizer in optimizers for parameter in trainable_parameters(optimizer)]
    before = [parameter.detach().clone() for parameter in parameters]
    states = [_copy(optimizer.state) for optimizer in optimizers]
    try:
        yield
        norm = th.nn.utils.get_total_norm(parameters).item()
        if not isfinite(norm):
            pairs = zip(parameters, before, strict=True)
            norm = th.nn.utils.get_total_norm([_without_constants(value, old) for value, old in pairs]).item()
        _check_finite("norm of the weights after the step", norm)
    except BaseException:
        # An interrupt too
        with th.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)
        for optimizer, state in zip(optimizers, states, strict=True):
            optimizer.state.clear()
            optimizer.state.update(state)
        raise


def take_step(
    optimizer: Optimizer,
    losses: Sequence[th.Tensor],
    max_grad_norm: float,
    world: World = ALONE,
    weight: float | None = None,
) -> tuple[th.Tensor, list[th.Tensor]]:
    """
    Take one step, which changes only the optimiser's own parameters. Nothing is read from a GPU, so nothing waits for it.

    :param optimizer: the actor's or the critic's
    :param losses: scalars: the first, with its graph, is minimised; the others are only summed
    :param max_grad_norm: bound on the norm of the gradient
    :param world: the processes whose losses and gradients are summed
    :param weight: of this process, if a mean is taken instead
    :return: the norm of the gradient before clipping, and the losses of all processes, without their graph. If the norm or the
        first loss is not finite, the weights are worthless now
    """
    parameters = trainable_parameters(optimizer)
    if not parameters:
        # The user has frozen all of them
        return th.zeros_like(losses[0]), [loss.detach() for loss in world.sum_grads(losses, [], weight)]
    optimizer.zero_grad()
    losses[0].backward(inputs=parameters)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    losses = world.sum_grads(losses, parameters, weight)
    norm = th.nn.utils.clip_grad_norm_(parameters, max_grad_norm)
    optimizer.step()
    return norm, [loss.detach() for loss in losses]


def finite_numbers(steps: Sequence[tuple[th.Tensor, th.Tensor]], who: str) -> list[tuple[float, float]]:
    """
    :param steps: the loss and the norm of the gradient of each step
    :param who: "policy" or "critic", for the error message
    :return: the same as numbers, which are read together, since reading from a GPU waits for it
    :raises NotFiniteError: for the first loss or gradient that is not finite
    """
    if not steps:
        return []
    numbers = th.stack([number for step in steps for number in step]).tolist()
    pairs = [*zip(numbers[::2], numbers[1::2], strict=True)]
    for loss, norm in pairs:
        _check_finite(f"loss of the {who}", loss)
        _check_finite(f"gradient norm of the {who}", norm)
    return pairs


def minibatches(
    rollout: RolloutBufferSamples,
    n_passes: int,
    size: int | None,
    rng: np.random.Generator,
    indices: np.ndarray | None = None,
    n_all: int = 0,
) -> Iterator[tuple[th.Tensor | TensorDict, th.Tensor, th.Tensor]]:
    """
    Yield observations, returns and actions of the whole rollout or of random minibatches, in several passes.

    :param rollout: the batch
    :param n_passes: how often each step is yielded
    :param size: largest number of steps in a minibatch; sizes differ by one at most. None: the whole rollout
    :param rng: for the random order
    :param indices: of the steps among those of all processes, shape (n,): of every minibatch, this process's
        part is yielded, which may be empty. None: there are no others
    :param n_all: number of steps of all processes
    """
    device, n_samples = rollout.returns.device, len(rollout.returns) if indices is None else n_all
    # Of each step of all processes, its row here; -1 for those of other processes
    rows = np.arange(n_samples) if indices is None else np.full(n_samples, -1)
    if indices is not None:
        rows[indices] = np.arange(len(indices))
    for _ in range(n_passes):
        if size is None or size >= n_samples:
            yield rollout.observations, rollout.returns, rollout.actions
            continue
        order = rows[rng.permutation(n_samples)]
        for some in np.array_split(order, -(-n_samples // size)):
            part = th.as_tensor(some[some >= 0], device=device)
            yield take(rollout.observations, part), rollout.returns[part], rollout.actions[part]


def _without_constants(value: th.Tensor, before: th.Tensor) -> th.Tensor:
    """Return the weights, with 0 for those that were not finite before and have not changed."""
    unchanged = (value == before) | (value.isnan() & before.isnan())
    return th.where(unchanged & ~before.isfinite(), 0.0, value.detach())


def _copy(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _copy(value) for key, value in state.items()}
    return state.clone() if isinstance(state, th.Tensor) else deepcopy(state)


def _check_finite(quantity: str, number: float) -> None:
    if not isfinite(number):
        raise NotFiniteError(f"the {quantity} is {number}")
