"""
SB3's distributions over actions in NumPy. Building a ``torch.distributions`` object takes longer than a small network.

Shapes: N environments, n steps, K outputs of the action network, A entries of a flat action, R parameters of a step's
distribution.
"""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_vpg.numpy_policy.networks import Array
from sb3_vpg.numpy_policy.softmax import PolicyTerms, gumbel, log_softmax_at, softmax_terms

_LARGE = 1e8
"""Outputs whose sum of squares is smaller are valid, and in range."""


class NumpyDistribution(ABC):
    """
    Computes actions from the outputs of the action network. The noise is drawn separately, for many steps at once.

    :param policy: the policy that has the distribution
    """

    def __init__(self, policy: ActorCriticPolicy) -> None:
        self.policy = policy
        self.sb3: Any = policy.action_dist

    @property
    def parameters(self) -> list[th.Tensor]:
        """The parameters of the distribution itself."""
        return []

    def fetched(self, outputs_NK: th.Tensor) -> Array:
        """Return outputs that torch has computed as an array, which may share their memory."""
        array: Array = outputs_NK.cpu().numpy()
        return array

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Return the noise for ``sample``, one number for each output."""
        return gumbel(rng, shape)

    def surely_valid(self, outputs: Array) -> bool:
        """Return True if the outputs are certainly valid and in range. If False, ``is_valid`` decides. This test is faster."""
        # A sum of squares below the limit has no large term, and NaN is not below it
        flat = outputs.ravel()
        is_small: bool = flat.dot(flat) < _LARGE
        return is_small

    def is_valid(self, outputs: Array) -> bool:
        """Return whether the outputs define a distribution."""
        return bool(np.isfinite(outputs).all())

    def in_range(self, outputs: Array) -> Array:
        """Return outputs of the same distribution, small enough that adding noise does not round the noise away."""
        return outputs

    def sample(self, dist_params_NR: Array, noise_NK: Array) -> Array:
        """Return N actions, in the form that SB3's distribution returns."""
        return self.mode(dist_params_NR + noise_NK)

    @abstractmethod
    def mode(self, outputs_NK: Array) -> Array:
        """Return the N likeliest actions."""

    def dist_params(self, outputs_NK: Array) -> Array:
        """
        Return the parameters of the distributions, such as logits, or means and standard deviations, shape (N, R). They are
        kept for ``log_prob``, because the policy may have changed when the rollout is complete.
        """
        return outputs_NK

    @abstractmethod
    def log_prob(self, dist_params_nR: Array, actions_nA: Array) -> Array:
        """Return the log-probability of each action, shape (n,)."""

    @abstractmethod
    def terms(self, outputs_nK: Array, actions_nA: Array, weights_n: Array, entropy_weight: float) -> PolicyTerms:
        """Return the parts and the gradient of the loss that ``PolicyTerms`` defines."""


class NumpyCategorical(NumpyDistribution):
    """``Discrete`` actions: the index of the largest logit plus Gumbel noise has the softmax distribution (Gumbel 1954)."""

    def is_valid(self, outputs: Array) -> bool:
        # A logit of minus infinity rules out an action, but not all may be ruled out
        return bool(np.isfinite(outputs.max(axis=-1)).all())

    def in_range(self, outputs: Array) -> Array:
        shifted: Array = outputs - outputs.max(axis=-1, keepdims=True)
        return shifted

    def sample(self, dist_params_NR: Array, noise_NK: Array) -> Array:
        # For speed, without the call of mode
        actions: Array = (dist_params_NR + noise_NK).argmax(axis=1)
        return actions

    def mode(self, outputs_NK: Array) -> Array:
        actions: Array = outputs_NK.argmax(axis=1)
        return actions

    def log_prob(self, dist_params_nR: Array, actions_nA: Array) -> Array:
        return log_softmax_at(dist_params_nR, actions_nA[:, 0])

    def terms(self, outputs_nK: Array, actions_nA: Array, weights_n: Array, entropy_weight: float) -> PolicyTerms:
        return softmax_terms(outputs_nK, actions_nA[:, 0], weights_n, entropy_weight)


class NumpyMultiCategorical(NumpyDistribution):
    """``MultiDiscrete`` actions: one ``Discrete`` action for each dimension, each with its own part of the outputs."""

    def __init__(self, policy: ActorCriticPolicy) -> None:
        super().__init__(policy)
        self.ends = np.cumsum(self.sb3.action_dims)[:-1]

    def is_valid(self, outputs: Array) -> bool:
        return all(np.isfinite(part.max(axis=-1)).all() for part in self._split(outputs))

    def in_range(self, outputs: Array) -> Array:
        return np.concatenate([part - part.max(axis=-1, keepdims=True) for part in self._split(outputs)], axis=-1)

    def mode(self, outputs_NK: Array) -> Array:
        return np.stack([part.argmax(axis=1) for part in self._split(outputs_NK)], axis=1)

    def log_prob(self, dist_params_nR: Array, actions_nA: Array) -> Array:
        parts = zip(self._split(dist_params_nR), actions_nA.T, strict=True)
        log_prob: Array = np.sum([log_softmax_at(part, actions) for part, actions in parts], axis=0)
        return log_prob

    def terms(self, outputs_nK: Array, actions_nA: Array, weights_n: Array, entropy_weight: float) -> PolicyTerms:
        pairs = zip(self._split(outputs_nK), actions_nA.T, strict=True)
        parts = [softmax_terms(outputs, actions, weights_n, entropy_weight) for outputs, actions in pairs]
        log_probs, entropies, gradients, _ = zip(*parts, strict=True)
        return PolicyTerms(np.sum(log_probs, axis=0), np.sum(entropies, axis=0), np.concatenate(gradients, axis=1), [])

    def _split(self, outputs: Array) -> list[Array]:
        return np.split(outputs, self.ends, axis=-1)


class NumpyBernoulli(NumpyDistribution):
    """``MultiBinary`` actions: 1 where logit plus logistic noise is positive. The noise is a difference of Gumbel noises."""

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        noise: Array = gumbel(rng, shape) - gumbel(rng, shape)
        return noise

    def mode(self, outputs_NK: Array) -> Array:
        # Floats, as SB3's distribution returns them
        return (outputs_NK > 0).astype(np.float32)

    def log_prob(self, dist_params_nR: Array, actions_nA: Array) -> Array:
        log_prob: Array = -np.logaddexp(0.0, np.where(actions_nA > 0, -dist_params_nR, dist_params_nR)).sum(axis=1)
        return log_prob

    def terms(self, outputs_nK: Array, actions_nA: Array, weights_n: Array, entropy_weight: float) -> PolicyTerms:
        positive_nK = 0.5 + 0.5 * np.tanh(0.5 * outputs_nK)
        entropy_n = (np.logaddexp(0.0, outputs_nK) - outputs_nK * positive_nK).sum(axis=1)
        gradient_nK = weights_n[:, None] * (positive_nK - actions_nA)
        gradient_nK += entropy_weight * outputs_nK * positive_nK * (1.0 - positive_nK)
        return PolicyTerms(self.log_prob(outputs_nK, actions_nA), entropy_n, gradient_nK, [])


class NumpyDiagGaussian(NumpyDistribution):
    """``Box`` actions: the outputs plus independent normal noise, whose standard deviations are in ``policy.log_std``."""

    def __init__(self, policy: ActorCriticPolicy) -> None:
        super().__init__(policy)
        self._note_log_std(policy.log_std.detach().cpu().numpy())

    def __getstate__(self) -> dict[str, Any]:
        # A copy reads the memory of its own policy
        return {**vars(self), "_pointer": None}

    def fetched(self, outputs_NK: th.Tensor) -> Array:
        if outputs_NK.device.type == "cpu":
            return super().fetched(outputs_NK)
        # In one copy, since each copy from a GPU waits for it
        log_std = self.policy.log_std
        flat: Array = th.cat([outputs_NK.flatten(), log_std.detach().flatten()]).cpu().numpy()
        self._note_log_std(flat[outputs_NK.numel() :])
        return flat[: outputs_NK.numel()].reshape(outputs_NK.shape)

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        return rng.standard_normal(shape, dtype=np.float32)

    @property
    def parameters(self) -> list[th.Tensor]:
        return [self.policy.log_std]

    def surely_valid(self, outputs: Array) -> bool:
        log_std = self._log_std()
        # exp of numbers up to 80 is finite and positive in float32, and NaN is not below the limit
        return super().surely_valid(outputs) and bool(np.vdot(log_std, log_std) < 80**2)

    def is_valid(self, outputs: Array) -> bool:
        with np.errstate(over="ignore"):
            scale = self._scale()
        return super().is_valid(outputs) and super().is_valid(scale) and bool((scale > 0).all())

    def sample(self, dist_params_NR: Array, noise_NK: Array) -> Array:
        n_outputs = noise_NK.shape[1]
        actions: Array = dist_params_NR[:, n_outputs:] * noise_NK
        actions += dist_params_NR[:, :n_outputs]
        return actions

    def dist_params(self, outputs_NK: Array) -> Array:
        n_steps, n_outputs = outputs_NK.shape
        dist_params_NR = np.empty((n_steps, 2 * n_outputs), outputs_NK.dtype)
        dist_params_NR[:, :n_outputs] = outputs_NK
        dist_params_NR[:, n_outputs:] = self._scale()
        return dist_params_NR

    def mode(self, outputs_NK: Array) -> Array:
        return outputs_NK

    def log_prob(self, dist_params_nR: Array, actions_nA: Array) -> Array:
        mean_nA, scale_nA = np.split(dist_params_nR, 2, axis=1)
        log_prob_nA = -0.5 * np.square((actions_nA - mean_nA) / scale_nA) - np.log(scale_nA) - 0.5 * np.log(2 * np.pi)
        log_prob: Array = log_prob_nA.sum(axis=1)
        return log_prob

    def terms(self, outputs_nK: Array, actions_nA: Array, weights_n: Array, entropy_weight: float) -> PolicyTerms:
        scale_A = self._scale()
        deviation_nA = (actions_nA - outputs_nK) / scale_A
        log_scale = np.log(scale_A).sum() + 0.5 * len(scale_A) * np.log(2 * np.pi)
        squares_nA = np.square(deviation_nA)
        log_prob_n = -0.5 * squares_nA.sum(axis=1) - log_scale
        entropy_n = np.full_like(log_prob_n, log_scale + 0.5 * len(scale_A))
        # d log_prob / d log_std = deviation^2 - 1, and d entropy / d log_std = 1
        own = weights_n.sum() - weights_n.dot(squares_nA) - entropy_weight * len(outputs_nK)
        return PolicyTerms(log_prob_n, entropy_n, -weights_n[:, None] * deviation_nA / scale_A, [own])

    def _scale(self) -> Array:
        scale: Array = np.exp(self._log_std())
        return scale

    def _log_std(self) -> Array:
        # On the CPU, the array shares the parameter's memory, and follows each update. That of a GPU came with the outputs
        log_std = self.policy.log_std
        if not (self._tensor.is_set_to(log_std) and log_std.data_ptr() == self._pointer):
            self._note_log_std(log_std.detach().cpu().numpy())
        return self._array

    def _note_log_std(self, array: Array) -> None:
        self._tensor = self.policy.log_std.detach()
        # share_memory() moves the memory of both tensors
        self._pointer: int | None = self._tensor.data_ptr()
        self._array = array


_NUMPY: dict[type, type[NumpyDistribution]] = {
    CategoricalDistribution: NumpyCategorical,
    MultiCategoricalDistribution: NumpyMultiCategorical,
    BernoulliDistribution: NumpyBernoulli,
    DiagGaussianDistribution: NumpyDiagGaussian,
}

_CLASS_ATTRIBUTES: dict[type, frozenset[str]] = {sb3s: frozenset(dir(sb3s)) for sb3s in _NUMPY}
"""An object that has one of these names in its ``__dict__`` overrides an attribute of its class."""


def support(distribution_class: type, numpy_class: type[NumpyDistribution]) -> None:
    """Let ``numpy_class`` compute a distribution of another library, whose attributes are those of SB3's."""
    _NUMPY[distribution_class] = numpy_class
    _CLASS_ATTRIBUTES[distribution_class] = frozenset(dir(distribution_class))


def is_supported(distribution: Any) -> bool:
    """
    :param distribution: ``policy.action_dist``
    :return: whether ``numpy_distribution`` supports it. Not supported: gSDE, and an object with a method that was replaced, as
        by ``policy.action_dist.sample = f``
    """
    names = _CLASS_ATTRIBUTES.get(type(distribution))
    return names is not None and vars(distribution).keys().isdisjoint(names)


def numpy_distribution(policy: ActorCriticPolicy) -> NumpyDistribution:
    """Return the NumPy version of the policy's distribution, which must be one that ``is_supported``."""
    return _NUMPY[type(policy.action_dist)](policy)
