"""What the gradient looked like. Each number costs a further pass over the batch, so ``VPG`` asks for it before a log."""

from collections.abc import Sequence

import torch as th

from sb3_vpg.estimation.score_function import flat_gradient

N_PARTS = 8


def parts_of(losses: th.Tensor, lengths: Sequence[int] | None) -> list[th.Tensor]:
    """
    :param losses: of each step in the order of collection, shape (n,), with their graph
    :param lengths: steps of each whole episode, None for a rollout that is cut at a number of steps
    :return: the loss of each of up to ``N_PARTS`` parts of the batch. Whole episodes stay whole, a part being a mean over
        its episodes of the sum over their steps; else neighbours stay together, a part being a mean over its steps
    """
    if lengths is None:
        return [part.mean() for part in losses.tensor_split(min(N_PARTS, len(losses)))]
    episodes = [episode.sum() for episode in th.split(losses, list(lengths))]
    return [part.mean() for part in th.stack(episodes).tensor_split(min(N_PARTS, len(episodes)))]


def signal_to_noise(losses: Sequence[th.Tensor], parameters: Sequence[th.Tensor]) -> float:
    """
    How much of the mean gradient is signal: its squared norm over the variance of its estimate, less the 1 that pure noise
    would give. 0 says that the batch is too small to see a direction; 1 that signal and noise are equally strong. It is
    itself an estimate from few parts: single values scatter widely, and for policies of few weights they run high.

    The variance is estimated from the differences between parts of the batch, as in McCandlish et al. 2018
    (https://arxiv.org/abs/1812.06162, appendix A).

    :param losses: of the parts, scalars with their graph
    :param parameters: what the loss is differentiated by
    :return: the ratio; NaN for fewer than two parts, or where nothing varies
    """
    if len(losses) < 2 or not parameters:
        return float("nan")
    gradients = th.stack([flat_gradient(loss, parameters) for loss in losses])
    variance_of_mean = gradients.var(dim=0).sum() / len(losses)
    return float(gradients.mean(dim=0).square().sum() / variance_of_mean - 1.0) if variance_of_mean > 0 else float("nan")


def approximate_kl(old_log_prob: th.Tensor, new_log_prob: th.Tensor) -> float:
    """
    KL divergence of the new policy from the old one, estimated on the actions of the old: the mean of ``r - 1 - log r``
    with the ratio ``r`` of their probabilities (http://joschu.net/blog/kl-approx.html), as PPO logs it.
    """
    log_ratio = new_log_prob - old_log_prob
    return float((log_ratio.exp() - 1.0 - log_ratio).mean())
