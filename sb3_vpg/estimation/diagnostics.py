"""Diagnostics of an update. Each costs another pass over the batch, so ``VPG`` computes them only if a log follows."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch as th

from sb3_vpg.estimation.score_function import flat_gradient

N_PARTS = 8
"""Parts of a batch, each with its own gradient."""


class Part(NamedTuple):
    """
    A part of a batch. Its loss is the sum over its steps, divided by the number of terms.

    :param rows: indices of its steps in the batch, shape (n,)
    :param n_terms: number of steps, or of episodes
    """

    rows: th.Tensor
    n_terms: int


def batch_parts(rows: th.Tensor, lengths: Sequence[int] | None) -> list[Part]:
    """
    Split the batch into up to ``N_PARTS`` parts of neighbouring steps.

    :param rows: indices of the steps in the batch, in the order of collection, shape (n,)
    :param lengths: steps of each episode; no episode is split then, and the loss of a part is a mean over its episodes of
        the sum over their steps. None: the loss of a part is a mean over its steps
    """
    if lengths is None:
        return [Part(part, len(part)) for part in rows.tensor_split(min(N_PARTS, len(rows)))]
    episodes = np.array_split(lengths, min(N_PARTS, len(lengths)))
    parts = th.split(rows, [int(part.sum()) for part in episodes])
    return [Part(part, len(own)) for part, own in zip(parts, episodes, strict=True)]


def part_gradients(losses: th.Tensor, parts: Sequence[Part], parameters: Sequence[th.Tensor]) -> list[th.Tensor]:
    """
    :param losses: of each step of the batch, shape (n,), with their graph
    :param parts: of the batch
    :param parameters: with respect to which the losses are differentiated
    :return: for each part, the gradient of its loss, shape (n_parameters,); an empty list if there are no parameters
    """
    return [flat_gradient(losses[rows].sum() / n_terms, parameters) for rows, n_terms in parts] if parameters else []


def signal_to_noise(gradients: Sequence[th.Tensor]) -> float:
    """
    Return the squared norm of the mean gradient over the variance of that mean, minus the 1 that pure noise would give. 0
    means that the batch is too small to show a direction; 1, that signal and noise are equally strong. The estimate comes
    from few parts: single values scatter widely, and for policies with few weights they tend to be too high.

    The variance is estimated from the differences between parts of the batch, as in McCandlish et al. 2018
    (https://arxiv.org/abs/1812.06162, appendix A).

    :param gradients: of the loss of each part, shape (n_parameters,)
    :return: the ratio; NaN for fewer than two parts, and if all parts have the same gradient
    """
    if len(gradients) < 2:
        return float("nan")
    rows = th.stack(list(gradients))
    variance_of_mean = rows.var(dim=0).sum() / len(rows)
    return float(rows.mean(dim=0).square().sum() / variance_of_mean - 1.0) if variance_of_mean > 0 else float("nan")


def approximate_kl(old_log_prob: th.Tensor, new_log_prob: th.Tensor) -> float:
    """
    Estimate the KL divergence KL(old, new) as SB3's PPO does: the mean of ``r - 1 - log r`` over actions of the old policy,
    with ``r = new / old`` of their probabilities (http://joschu.net/blog/kl-approx.html).

    :param old_log_prob: of each action, shape (n,)
    :param new_log_prob: of each action, shape (n,)
    """
    log_ratio = new_log_prob - old_log_prob
    return float((log_ratio.exp() - 1.0 - log_ratio).mean())
