"""The steps of the optimisers, which refuse numbers that are not finite, and the batches that they work on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from math import isfinite
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.type_aliases import RolloutBufferSamples, TensorDict
from torch.optim import Optimizer

from sb3_vpg.buffers import take
from sb3_vpg.optimizers import trainable_parameters

POLICY = (
    "Look for large observations and rewards (VecNormalize scales them), or lower learning_rate, vf_learning_rate or "
    "max_grad_norm"
)
ENVIRONMENT = (
    "Mend what the environment computes there (with VecCheckNan(env, raise_exception=True) around it, SB3 shows the action "
    "as well); what is only too large VecNormalize scales down"
)
"""What to try where the policy's numbers are broken, and where the environment's are."""


class NotFiniteError(ValueError):
    """A loss, a gradient or a weight is NaN or infinite; its text names which."""


class DivergedError(ValueError):
    """The policy's numbers are broken, which other hyperparameters may mend; the environment's are not."""


def diverged(what: str, n_updates: int, n_steps: int, advice: str = POLICY) -> ValueError:
    """:return: the error with which training stops, saying where it was and what to try"""
    verb, kind = ("diverged", DivergedError) if advice == POLICY else ("stopped", ValueError)
    return kind(
        f"Training {verb} in iteration {n_updates + 1} (after {n_steps} steps): {what}. The weights are those from before "
        f"this iteration. {advice}"
    )


@contextmanager
def undone_unless_finite(optimizers: Sequence[Optimizer]) -> Iterator[None]:
    """
    The steps of an update as a whole or not at all: when it raises, and when they leave a weight that is not finite,
    every weight, and what the optimisers remember of earlier gradients, is again what it was before. A weight that was
    infinite before, such as a mask of minus infinity, and has stayed what it was, is not judged.

    :param optimizers: which take the steps
    :raises NotFiniteError: if the update has left NaN or infinite weights
    """
    parameters = [parameter for optimizer in optimizers for parameter in trainable_parameters(optimizer)]
    before = [parameter.detach().clone() for parameter in parameters]
    remembered = [_copy(optimizer.state) for optimizer in optimizers]
    try:
        yield
        norm = th.nn.utils.get_total_norm(parameters)
        if not isfinite(norm.item()):
            pairs = zip(parameters, before, strict=True)
            norm = th.nn.utils.get_total_norm([_without_constants(value, old) for value, old in pairs])
        _check_finite("norm of the weights after the step", norm)
    except BaseException:
        # Also an interrupt
        with th.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)
        for optimizer, state in zip(optimizers, remembered, strict=True):
            optimizer.state.clear()
            optimizer.state.update(state)
        raise


def take_step(optimizer: Optimizer, loss: th.Tensor, max_grad_norm: float, who: str) -> float:
    """
    One step that touches nothing but the optimiser's own parameters.

    :param optimizer: the actor's or the critic's
    :param loss: scalar with its graph
    :param max_grad_norm: bound on the norm of the gradient
    :param who: whose step it is, for the error's text
    :return: the norm of the gradient before clipping
    :raises NotFiniteError: if loss or gradient is not finite; then no step is taken
    """
    parameters = trainable_parameters(optimizer)
    if not parameters:
        # The user has frozen all of them
        return 0.0
    _check_finite(f"loss of the {who}", loss)
    optimizer.zero_grad()
    loss.backward(inputs=parameters)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    norm = th.nn.utils.clip_grad_norm_(parameters, max_grad_norm)
    _check_finite(f"gradient norm of the {who}", norm)
    optimizer.step()
    return float(norm)


def minibatches(
    rollout: RolloutBufferSamples, n_passes: int, size: int | None, rng: np.random.Generator
) -> Iterator[tuple[th.Tensor | TensorDict, th.Tensor, th.Tensor]]:
    """
    Observations, returns and actions of some passes over the rollout: all of it at once, or in random parts.

    :param rollout: the batch
    :param n_passes: how often each step is yielded
    :param size: at most so many steps in a part, whose sizes differ by one at most; None: no parts
    :param rng: for the random order
    """
    n_samples = len(rollout.returns)
    for _ in range(n_passes):
        if size is None or size >= n_samples:
            yield rollout.observations, rollout.returns, rollout.actions
            continue
        order = th.as_tensor(rng.permutation(n_samples), device=rollout.returns.device)
        for part in order.tensor_split(-(-n_samples // size)):
            yield take(rollout.observations, part), rollout.returns[part], rollout.actions[part]


def normalize(advantages: th.Tensor) -> th.Tensor:
    """
    Advantages with mean 0 and standard deviation 1, and no surprise where there is nothing to compare.

    A single advantage is returned as it is (its deviation is undefined). Equal advantages prefer no action and become
    exactly zero: dividing the rounding error of their mean by a tiny deviation would make noise look like a signal.

    :param advantages: shape (n,)
    :return: shape (n,)
    """
    if advantages.numel() < 2:
        return advantages
    centred = advantages - advantages.mean()
    rounding = 4 * th.finfo(advantages.dtype).eps * advantages.abs().max()
    if centred.abs().max() <= rounding:
        return th.zeros_like(advantages)
    return centred / (advantages.std() + 1e-8)


def _without_constants(value: th.Tensor, before: th.Tensor) -> th.Tensor:
    """:return: the weights, with zero for those that were not finite before and are what they were"""
    unchanged = (value == before) | (value.isnan() & before.isnan())
    return th.where(unchanged & ~before.isfinite(), 0.0, value.detach())


def _copy(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _copy(value) for key, value in state.items()}
    return state.clone() if isinstance(state, th.Tensor) else deepcopy(state)


def _check_finite(quantity: str, value: th.Tensor) -> None:
    number = value.item()
    if not isfinite(number):
        raise NotFiniteError(f"the {quantity} is {number}")
