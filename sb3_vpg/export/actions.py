"""From the distribution of a policy to the action that the environment takes, in torch operations that a file can hold."""

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from sb3_contrib.common.maskable.distributions import (
    MaskableBernoulliDistribution,
    MaskableCategoricalDistribution,
    MaskableMultiCategoricalDistribution,
)
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
)
from stable_baselines3.common.policies import BasePolicy
from torch.distributions import Bernoulli

from sb3_vpg.export.signature import action_dtype

_SAMPLED = (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
    MaskableBernoulliDistribution,
    MaskableCategoricalDistribution,
    MaskableMultiCategoricalDistribution,
)


def parts_of(distribution: Any) -> list[Any]:
    """Return the distributions of torch in one of SB3 or sb3_contrib: of ``MultiDiscrete``, one for each dimension."""
    parts = getattr(distribution, "distributions", None) or distribution.distribution
    return list(parts) if isinstance(parts, (list, tuple)) else [parts]


def check_sampling(distribution: Any) -> None:
    """:raises ValueError: if ``sample`` does not know how this distribution samples"""
    if type(distribution) not in _SAMPLED:
        raise ValueError(
            f"it is unknown how a {type(distribution).__name__} samples: export the likeliest actions, without stochastic"
        )


def sample(distribution: Any, noise: th.Tensor) -> th.Tensor:
    """
    :param distribution: of SB3 or sb3_contrib, see ``check_sampling``
    :param noise: see ``signature.noise_tensor``, shape (n, size)
    :return: a sample for each row, shape (n, A)
    """
    parts = parts_of(distribution)
    if isinstance(distribution, DiagGaussianDistribution):
        return parts[0].mean + parts[0].stddev * noise  # type: ignore[no-any-return]  # torch leaves properties untyped
    if isinstance(parts[0], Bernoulli):
        return noise < parts[0].probs
    # The largest logit plus Gumbel noise is a sample of the softmax
    gumbel = th.split(-th.log(-th.log(noise)), [part.logits.shape[1] for part in parts], dim=1)
    choices = [(part.logits + added).argmax(dim=1) for part, added in zip(parts, gumbel, strict=True)]
    return th.stack(choices, dim=1)


def as_environment_takes(actions: th.Tensor, policy: BasePolicy) -> th.Tensor:
    """
    :param actions: of a policy
    :return: what ``predict`` makes of them: of a ``Box``, unscaled if the policy squashes, else clipped; shape
        (n, \\*action_space.shape)
    """
    space: Any = policy.action_space
    dtype = getattr(th, str(action_dtype(space)))
    actions = actions.reshape((-1, *space.shape))
    if not isinstance(space, spaces.Box):
        return actions.to(dtype)
    low, high = (
        th.as_tensor(np.asarray(bound, action_dtype(space)), device=actions.device) for bound in (space.low, space.high)
    )
    if policy.squash_output:
        return low + (0.5 * (actions + 1.0)).to(dtype) * (high - low)
    return actions.to(dtype).clamp(low, high)
