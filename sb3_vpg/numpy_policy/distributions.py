"""
Drawing actions without building a ``torch.distributions`` object at every step, which takes longer than a small network.

Shapes: N environments, n steps, K outputs of the action network, A entries of a flat action. The same distributions as
SB3's of the same names, in NumPy.
"""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy

Array = npt.NDArray[Any]
_LARGE = 1e8
_TINY = np.finfo(np.float32).tiny


class NumpyDistribution(ABC):
    """
    Actions from the outputs of the action network. The noise is drawn apart from them, for many steps at once.

    :param policy: whose distribution it is
    """

    def __init__(self, policy: ActorCriticPolicy) -> None:
        self.policy = policy
        self.distribution: Any = policy.action_dist

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """:return: what ``sample`` adds, one number for each output"""
        return gumbel(rng, shape)

    def surely_finite(self, outputs: Array) -> bool:
        """:return: True if they define a distribution for certain; False if they must be looked at, see ``is_valid``"""
        # A sum of squares is small if all are, and NaN is not smaller
        return bool(np.vdot(outputs, outputs) < _LARGE)

    def is_valid(self, outputs: Array) -> bool:
        """:return: whether they define a distribution"""
        return bool(np.isfinite(outputs).all())

    def in_range(self, outputs: Array) -> Array:
        """:return: outputs of the same distribution to which noise can be added without losing it to rounding"""
        return outputs

    @abstractmethod
    def sample(self, outputs_NK: Array, noise_NK: Array) -> Array:
        """:return: actions, N of them, in the form that SB3's distribution gives them"""

    @abstractmethod
    def mode(self, outputs_NK: Array) -> Array:
        """:return: the likeliest actions, N of them"""

    def remembered(self, outputs_NK: Array) -> Array:
        """:return: what ``log_prob`` must know of a step later, when the policy may have changed; N rows"""
        return outputs_NK

    @abstractmethod
    def log_prob(self, remembered_nR: Array, actions_nA: Array) -> Array:
        """:return: log-probability of each action, shape (n,)"""


class NumpyCategorical(NumpyDistribution):
    """``Discrete`` actions: the largest of logit plus Gumbel noise has the softmax distribution (Gumbel 1954)."""

    def is_valid(self, outputs: Array) -> bool:
        # An action may be ruled out by a logit of minus infinity, but not all of them
        return bool(np.isfinite(outputs.max(axis=-1)).all())

    def in_range(self, outputs: Array) -> Array:
        shifted: Array = outputs - outputs.max(axis=-1, keepdims=True)
        return shifted

    def sample(self, outputs_NK: Array, noise_NK: Array) -> Array:
        actions: Array = (outputs_NK + noise_NK).argmax(axis=1)
        return actions

    def mode(self, outputs_NK: Array) -> Array:
        actions: Array = outputs_NK.argmax(axis=1)
        return actions

    def log_prob(self, remembered_nR: Array, actions_nA: Array) -> Array:
        return log_softmax_at(remembered_nR, actions_nA[:, 0])


class NumpyMultiCategorical(NumpyDistribution):
    """``MultiDiscrete`` actions: a ``Discrete`` one for each dimension, with its own part of the outputs."""

    def __init__(self, policy: ActorCriticPolicy) -> None:
        super().__init__(policy)
        self.ends = np.cumsum(self.distribution.action_dims)[:-1]

    def is_valid(self, outputs: Array) -> bool:
        return all(np.isfinite(part.max(axis=-1)).all() for part in self._split(outputs))

    def in_range(self, outputs: Array) -> Array:
        return np.concatenate([part - part.max(axis=-1, keepdims=True) for part in self._split(outputs)], axis=-1)

    def sample(self, outputs_NK: Array, noise_NK: Array) -> Array:
        return self.mode(outputs_NK + noise_NK)

    def mode(self, outputs_NK: Array) -> Array:
        return np.stack([part.argmax(axis=1) for part in self._split(outputs_NK)], axis=1)

    def log_prob(self, remembered_nR: Array, actions_nA: Array) -> Array:
        parts = zip(self._split(remembered_nR), actions_nA.T, strict=True)
        log_prob: Array = np.sum([log_softmax_at(part, actions) for part, actions in parts], axis=0)
        return log_prob

    def _split(self, outputs: Array) -> list[Array]:
        return np.split(outputs, self.ends, axis=-1)


class NumpyBernoulli(NumpyDistribution):
    """``MultiBinary`` actions: 1 where logit plus logistic noise, the difference of two Gumbel's, is positive."""

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        noise: Array = gumbel(rng, shape) - gumbel(rng, shape)
        return noise

    def sample(self, outputs_NK: Array, noise_NK: Array) -> Array:
        return self.mode(outputs_NK + noise_NK)

    def mode(self, outputs_NK: Array) -> Array:
        # A float, as SB3's distribution has it
        return (outputs_NK > 0).astype(np.float32)

    def log_prob(self, remembered_nR: Array, actions_nA: Array) -> Array:
        log_prob: Array = -np.logaddexp(0.0, np.where(actions_nA > 0, -remembered_nR, remembered_nR)).sum(axis=1)
        return log_prob


class NumpyDiagGaussian(NumpyDistribution):
    """``Box`` actions: independent normal noise around the outputs, with the deviations of ``policy.log_std``."""

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        return rng.standard_normal(shape, dtype=np.float32)

    def surely_finite(self, outputs: Array) -> bool:
        log_std = self.policy.log_std.detach().cpu().numpy()
        # exp of numbers up to 80 is finite and positive in float32; NaN is not smaller
        return super().surely_finite(outputs) and bool(np.vdot(log_std, log_std) < 80**2)

    def is_valid(self, outputs: Array) -> bool:
        with np.errstate(over="ignore"):
            scale = self._scale()
        return super().is_valid(outputs) and super().is_valid(scale) and bool((scale > 0).all())

    def sample(self, outputs_NK: Array, noise_NK: Array) -> Array:
        actions: Array = outputs_NK + self._scale() * noise_NK
        return actions

    def remembered(self, outputs_NK: Array) -> Array:
        return np.concatenate([outputs_NK, np.broadcast_to(self._scale(), outputs_NK.shape)], axis=1)

    def mode(self, outputs_NK: Array) -> Array:
        return outputs_NK

    def log_prob(self, remembered_nR: Array, actions_nA: Array) -> Array:
        mean_nA, scale_nA = np.split(remembered_nR, 2, axis=1)
        log_prob_nA = -0.5 * np.square((actions_nA - mean_nA) / scale_nA) - np.log(scale_nA) - 0.5 * np.log(2 * np.pi)
        log_prob: Array = log_prob_nA.sum(axis=1)
        return log_prob

    def _scale(self) -> Array:
        # Read anew each time, so that it cannot be an old one
        scale: Array = np.exp(self.policy.log_std.detach().cpu().numpy())
        return scale


_SAMPLERS: dict[type, type[NumpyDistribution]] = {
    CategoricalDistribution: NumpyCategorical,
    MultiCategoricalDistribution: NumpyMultiCategorical,
    BernoulliDistribution: NumpyBernoulli,
    DiagGaussianDistribution: NumpyDiagGaussian,
}


_NAMES = {kind: frozenset(dir(kind)) for kind in _SAMPLERS}
"""The attributes of each of these classes: a distribution with an attribute of such a name has one of its own."""


def is_known(distribution: Any) -> bool:
    """
    :return: whether there is a sampler of it: not for gSDE's, nor for one that has a method of its own, as after
        ``policy.action_dist.sample = f``
    """
    names = _NAMES.get(type(distribution))
    return names is not None and vars(distribution).keys().isdisjoint(names)


def numpy_distribution(policy: ActorCriticPolicy) -> NumpyDistribution:
    """:return: the one for the policy's distribution, which must be known"""
    return _SAMPLERS[type(policy.action_dist)](policy)


def gumbel(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """:return: standard Gumbel noise: minus the logarithm of an exponentially distributed number"""
    exponential = rng.standard_exponential(shape, dtype=np.float32)
    noise: Array = -np.log(np.maximum(exponential, _TINY))
    return noise


def log_softmax_at(logits_nK: Array, indices_n: Array) -> Array:
    """:return: the logarithm of the softmax of each row, at one index of it, shape (n,)"""
    # Columns are the longer ones, and NumPy is quick along long axes
    shifted_Kn = logits_nK.T - logits_nK.max(axis=1)
    chosen_n = np.take_along_axis(shifted_Kn, indices_n[None].astype(np.intp), axis=0)[0]
    log_prob: Array = chosen_n - np.log(np.exp(shifted_Kn).sum(axis=0))
    return log_prob
