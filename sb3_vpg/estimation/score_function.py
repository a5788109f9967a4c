"""Gradients of log-probabilities, episode by episode. They cost two backward passes per episode."""

from collections.abc import Sequence

import numpy as np
import torch as th

from sb3_vpg.estimation.returns import Episodes, Floats


def score_products(
    log_prob: th.Tensor, parameters: Sequence[th.Tensor], episodes: Episodes, weights_M: Floats, returns_EM: Floats
) -> tuple[Floats, Floats]:
    """
    Return what ``optimal_constant`` needs, with ``S = sum_t w_t grad log pi_t`` and ``A = sum_t w_t G_t grad log pi_t``.

    :param log_prob: of the counted steps in the order of ``episodes``, shape (n,), with its graph
    :param parameters: of the policy
    :param episodes: of the rollout
    :param weights_M: ``w_t``
    :param returns_EM: ``G_t``
    :return: ``A · S`` and ``S · S`` of each episode, shapes (E,)
    """
    weights = th.as_tensor(weights_M[episodes.times], dtype=log_prob.dtype, device=log_prob.device)
    returns = th.as_tensor(returns_EM[episodes.episodes, episodes.times], dtype=log_prob.dtype, device=log_prob.device)
    products, squares = [], []
    ends = np.cumsum(episodes.lengths_E)
    for start, end in zip(ends - episodes.lengths_E, ends, strict=True):
        weighted = weights[start:end] * log_prob[start:end]
        s = flat_gradient(weighted.sum(), parameters)
        a = flat_gradient((returns[start:end] * weighted).sum(), parameters)
        products.append(a @ s)
        squares.append(s @ s)
    # Together, since each number that is read from a GPU waits for it
    products_E, squares_E = th.stack([th.stack(products), th.stack(squares)]).cpu().numpy().astype(np.float64)
    return products_E, squares_E


def flat_gradient(output: th.Tensor, parameters: Sequence[th.Tensor]) -> th.Tensor:
    """Return the gradient of a scalar with respect to all parameters, concatenated, shape (n,). Its graph is kept."""
    parts = th.autograd.grad(output, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
    return th.cat([part.flatten() for part in parts])
