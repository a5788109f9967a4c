"""Steps of the optimisers, which refuse NaN and infinity."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from math import isfinite
from typing import Any

import torch as th
from torch.optim import Optimizer

from sb3_vpg.common.world import SINGLE_PROCESS, World
from sb3_vpg.exceptions import NotFiniteError
from sb3_vpg.optimization.optimizers import trainable_parameters


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
    world: World = SINGLE_PROCESS,
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
        first loss is not finite, the weights are NaN now, and the caller restores them
    """
    parameters = trainable_parameters(optimizer)
    if not parameters:
        # The user has frozen all of them
        return th.zeros_like(losses[0]), [loss.detach() for loss in world.all_reduce_grads(losses, [], weight)]
    optimizer.zero_grad()
    losses[0].backward(inputs=parameters)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    losses = world.all_reduce_grads(losses, parameters, weight)
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
