"""
The softmax distribution in NumPy: noise to sample from it, log-probabilities, and the terms of the policy's loss.

Shapes: n steps, K outputs of the action network.
"""

from typing import NamedTuple

import numpy as np

from sb3_vpg.numpy_policy.networks import Array

_TINY = np.finfo(np.float32).tiny


class PolicyTerms(NamedTuple):
    """
    The parts of a policy's loss, ``- sum(weights * log_prob) - entropy_weight * sum(entropy)``, and its gradient.

    :param log_prob: log-probability of each action, shape (n,)
    :param entropy: entropy of each step's distribution, shape (n,)
    :param gradient: gradient of the loss with respect to the outputs, shape (n, K)
    :param own_gradients: gradients of the loss with respect to the distribution's own ``parameters``
    """

    log_prob: Array
    entropy: Array
    gradient: Array
    own_gradients: list[Array]


def gumbel(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return standard Gumbel noise: minus the logarithm of an exponentially distributed number."""
    exponential = rng.standard_exponential(shape, dtype=np.float32)
    noise: Array = -np.log(np.maximum(exponential, _TINY))
    return noise


def masked(logits_nK: Array, masks_nK: Array) -> Array:
    """Return the logits, with minus infinity, and so probability 0, where the mask is False."""
    allowed: Array = np.where(masks_nK, logits_nK, -np.inf).astype(logits_nK.dtype, copy=False)
    return allowed


def log_softmax_at(logits_nK: Array, indices_n: Array) -> Array:
    """Return the logarithm of the softmax of each row at its index, shape (n,)."""
    # Transposed, because n is larger than K and NumPy is faster along long axes
    shifted_Kn = logits_nK.T - logits_nK.max(axis=1)
    chosen_n = np.take_along_axis(shifted_Kn, indices_n[None].astype(np.intp), axis=0)[0]
    log_prob: Array = chosen_n - np.log(np.exp(shifted_Kn).sum(axis=0))
    return log_prob


def softmax_terms(logits_nK: Array, indices_n: Array, weights_n: Array, entropy_weight: float) -> PolicyTerms:
    """Return the ``PolicyTerms`` of a softmax over each row."""
    # Transposed as above
    shifted_Kn = np.ascontiguousarray(logits_nK.T)
    shifted_Kn = shifted_Kn - shifted_Kn.max(axis=0)
    exp_Kn = np.exp(shifted_Kn)
    sums_n = exp_Kn.sum(axis=0)
    log_prob_Kn, probability_Kn = shifted_Kn - np.log(sums_n), exp_Kn / sums_n
    at = indices_n.astype(np.intp), np.arange(len(indices_n))
    # As torch's distribution: an action of probability 0 adds 0, though its logarithm is infinite
    finite_Kn = np.maximum(log_prob_Kn, np.finfo(log_prob_Kn.dtype).min)
    entropy_n = -(probability_Kn * finite_Kn).sum(axis=0)
    gradient_Kn = probability_Kn * weights_n
    gradient_Kn[at] -= weights_n
    if entropy_weight:
        gradient_Kn += entropy_weight * probability_Kn * (finite_Kn + entropy_n)
    return PolicyTerms(log_prob_Kn[at], entropy_n, gradient_Kn.T, [])
