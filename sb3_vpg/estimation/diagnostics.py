"""Diagnostics of an update. Each costs another pass over the batch, so ``VPG`` computes them only if a log follows."""

from collections.abc import Sequence

import torch as th

from sb3_vpg.estimation.score_function import flat_gradient

N_PARTS = 8
"""Parts of a batch, each with its own gradient."""


def part_losses(losses: th.Tensor, lengths: Sequence[int] | None) -> list[th.Tensor]:
    """
    Split the batch into up to ``N_PARTS`` parts of neighbouring steps, and return the loss of each part.

    :param losses: of each step in the order of collection, shape (n,), with their graph
    :param lengths: steps of each episode; no episode is split then, and the loss of a part is a mean over its episodes of
        the sum over their steps. None: the loss of a part is a mean over its steps
    """
    if lengths is None:
        return [part.mean() for part in losses.tensor_split(min(N_PARTS, len(losses)))]
    episodes = [episode.sum() for episode in th.split(losses, list(lengths))]
    return [part.mean() for part in th.stack(episodes).tensor_split(min(N_PARTS, len(episodes)))]


def signal_to_noise(losses: Sequence[th.Tensor], parameters: Sequence[th.Tensor]) -> float:
    """
    Return the squared norm of the mean gradient over the variance of that mean, minus the 1 that pure noise would give. 0
    means that the batch is too small to show a direction; 1, that signal and noise are equally strong. The estimate comes
    from few parts: single values scatter widely, and for policies with few weights they tend to be too high.

    The variance is estimated from the differences between parts of the batch, as in McCandlish et al. 2018
    (https://arxiv.org/abs/1812.06162, appendix A).

    :param losses: of the parts, scalars with their graph
    :param parameters: with respect to which the losses are differentiated
    :return: the ratio; NaN for fewer than two parts, without parameters, and if all parts have the same gradient
    """
    if len(losses) < 2 or not parameters:
        return float("nan")
    gradients = th.stack([flat_gradient(loss, parameters) for loss in losses])
    variance_of_mean = gradients.var(dim=0).sum() / len(losses)
    return float(gradients.mean(dim=0).square().sum() / variance_of_mean - 1.0) if variance_of_mean > 0 else float("nan")


def approximate_kl(old_log_prob: th.Tensor, new_log_prob: th.Tensor) -> float:
    """
    Estimate the KL divergence KL(old, new) as SB3's PPO does: the mean of ``r - 1 - log r`` over actions of the old policy,
    with ``r = new / old`` of their probabilities (http://joschu.net/blog/kl-approx.html).

    :param old_log_prob: of each action, shape (n,)
    :param new_log_prob: of each action, shape (n,)
    """
    log_ratio = new_log_prob - old_log_prob
    return float((log_ratio.exp() - 1.0 - log_ratio).mean())
