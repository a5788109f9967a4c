"""Gradients of log-probabilities, episode by episode. Two backward passes per episode: for small policies."""

from collections.abc import Sequence

import numpy as np
import torch as th

from sb3_vpg.estimation.returns import Episodes, Floats


def score_products(
    log_prob: th.Tensor, parameters: Sequence[th.Tensor], episodes: Episodes, weights_M: Floats, returns_EM: Floats
) -> tuple[Floats, Floats]:
    """
    With ``S = sum_t w_t grad log pi_t`` and ``A = sum_t w_t G_t grad log pi_t``, what ``optimal_constant`` needs.

    :param log_prob: of the counted steps in the order of ``episodes``, with its graph
    :param parameters: of the policy
    :param episodes: which step belongs where
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
        plain = flat_gradient(weighted.sum(), parameters)
        with_returns = flat_gradient((returns[start:end] * weighted).sum(), parameters)
        products.append(float(with_returns @ plain))
        squares.append(float(plain @ plain))
    return np.array(products), np.array(squares)


def flat_gradient(output: th.Tensor, parameters: Sequence[th.Tensor]) -> th.Tensor:
    """:return: the gradient of a scalar by all parameters, one after the other, shape (n,); its graph stays usable"""
    parts = th.autograd.grad(output, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
    return th.cat([part.flatten() for part in parts])
