"""The mathematics of the policy gradient, free of environments and networks."""

import torch as th


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
