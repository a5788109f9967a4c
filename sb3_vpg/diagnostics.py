"""What the gradient looked like. Each number costs a further pass over the batch, so ``VPG`` asks for it before a log."""

from collections.abc import Sequence

import torch as th

from sb3_vpg.scores import flat_gradient

N_PARTS = 8


def signal_to_noise(losses: th.Tensor, parameters: Sequence[th.Tensor]) -> float:
    """
    How much of the mean gradient is signal: its squared norm over the variance of its estimate, less the 1 that pure noise
    would give. 0 says that the batch is too small to see a direction; 1 that signal and noise are equally strong.

    The variance is estimated from the differences between parts of the batch, as in McCandlish et al. 2018
    (https://arxiv.org/abs/1812.06162, appendix A). Neighbours stay together, so steps of one episode mostly do.

    :param losses: of each step in the order of collection, shape (n,), with their graph
    :param parameters: what the loss is differentiated by
    :return: the ratio; NaN for too few steps, or where nothing varies
    """
    if len(losses) < N_PARTS or not parameters:
        return float("nan")
    gradients = th.stack([flat_gradient(part.mean(), parameters) for part in losses.tensor_split(N_PARTS)])
    variance_of_mean = gradients.var(dim=0).sum() / N_PARTS
    return float(gradients.mean(dim=0).square().sum() / variance_of_mean - 1.0) if variance_of_mean > 0 else float("nan")


def approximate_kl(old_log_prob: th.Tensor, new_log_prob: th.Tensor) -> float:
    """
    KL divergence of the new policy from the old one, estimated on the actions of the old: the mean of ``r - 1 - log r``
    with the ratio ``r`` of their probabilities (http://joschu.net/blog/kl-approx.html), as PPO logs it.
    """
    log_ratio = new_log_prob - old_log_prob
    return float((log_ratio.exp() - 1.0 - log_ratio).mean())
