"""
Who acts while a rollout is collected, and when.

``LeanActor`` does per step only what the next action needs, and knows every policy that keeps SB3's own way from observation
to action: in NumPy where the networks are plain, in torch for images, dicts and extractors of a user's own, and on a GPU.
All others have a ``StepwiseActor`` (see ``sb3_vpg.collection.stepwise_actor``), which asks the policy at each step, as SB3's
loop does.

N environments, T steps.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy, BaseModel
from stable_baselines3.common.utils import obs_as_tensor

from sb3_vpg.common.observations import n_observations, stacked, take
from sb3_vpg.exceptions import DistributionError
from sb3_vpg.numpy_policy.distributions import NumpyDistribution, is_known, numpy_distribution
from sb3_vpg.numpy_policy.eligibility import acts_as_sb3, is_untouched
from sb3_vpg.numpy_policy.networks import N_ROWS, NumpyNetwork, numpy_network

Array = npt.NDArray[Any]
_PREDICTING = ("predict", "_predict")
_N_NOISE = 8192
_REFUSALS = ("of distribution", "probability tensor")
"""How torch refuses a distribution, and its sampling where ``th.compile`` has switched that off for the process."""


@contextmanager
def invalid_distribution_errors() -> Iterator[None]:
    """:raises DistributionError: in the place of what torch raises for a distribution without sound parameters"""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        if not any(text in str(error) for text in _REFUSALS):
            raise
        raise DistributionError(*error.args) from error


class Actor(Protocol):
    """What collection asks of an actor."""

    policy: ActorCriticPolicy
    values_wait: bool
    """Whether it computes values when they are asked for, and not when it acts."""

    def start(self, rng: np.random.Generator) -> None:
        """A rollout begins; what was remembered of the last one is forgotten."""

    def fits(self) -> bool:
        """:return: whether the policy still acts in the way that this actor knows; asked when a rollout is complete"""

    def act(self, observations: Any) -> Array:
        """:return: sampled actions, shape (N, *action_space.shape)"""

    def latest(self, observations: Any) -> tuple[th.Tensor, th.Tensor]:
        """:return: value, shape (N, 1), and log-probability, shape (N,), of the step that ``act`` was called for last"""

    def log_probs(self) -> Array:
        """:return: log-probability of every action since the start, as it was sampled, shape (T, N)"""

    def rollout_values(self, observations: Any, rows: slice) -> Array:
        """:return: value of n observations, which are given once more, in these rows of N since the start, shape (n,)"""

    def values(self, observations: Any) -> Array:
        """:return: the critic's value of each of n observations, shape (n,)"""

    def terminal_values(self, observations: Sequence[Any]) -> Array:
        """:return: the critic's value of n single observations, shape (n,)"""


class LeanActor:
    """
    The fast one.

    :param policy: one that ``lean_actor`` knows
    :param sampler: of its distribution
    """

    values_wait = True

    def __init__(self, policy: ActorCriticPolicy, sampler: NumpyDistribution) -> None:
        self.policy = policy
        self.sampler = sampler
        self._action_shape: tuple[int, ...] = policy.action_space.shape or ()
        self._predicts = is_untouched(policy, _PREDICTING)
        self._networks: dict[str, NumpyNetwork | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Networks read the memory of this policy, not of its copy
        return {**vars(self), "_networks": {}}

    def start(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._noise: Iterator[Array] = iter(())
        self._played: list[Array] = []
        self._sampled: list[Array] = []
        self._networks.clear()

    def fits(self) -> bool:
        if not _is_lean(self.policy) or self.policy.action_dist is not self.sampler.distribution:
            return False
        return not any(network.is_bypassed() for network in self._networks.values() if network is not None)

    def act(self, observations: Any) -> Array:
        outputs = self.outputs(observations)
        noise = next(self._noise, None)
        if noise is None or len(noise) != len(outputs):
            n_rows = max(1, _N_NOISE // max(1, outputs.size))
            self._noise = iter(self.sampler.noise(self._rng, (n_rows, *outputs.shape)))
            noise = next(self._noise)
        self._played.append(self.sampler.remembered(outputs))
        actions = self.sampler.sample(outputs, noise)
        # A callback may write to the actions: SB3 has computed their log-probability before
        self._sampled.append(actions.copy())
        return self._shaped(actions)

    def latest(self, observations: Any) -> tuple[th.Tensor, th.Tensor]:
        remembered, actions = self._played[-1], self._sampled[-1]
        log_probs = self.sampler.log_prob(remembered, actions.reshape(len(actions), -1)).astype(remembered.dtype, copy=False)
        numbers = (self.values(observations)[:, None], log_probs)
        values, log_probs_N = (th.as_tensor(one, device=self.policy.device) for one in numbers)
        return values, log_probs_N

    def log_probs(self) -> Array:
        remembered_nR, actions = np.concatenate(self._played), np.concatenate(self._sampled)
        n_rows = len(self._played)
        self._played.clear()
        self._sampled.clear()
        return self.sampler.log_prob(remembered_nR, actions.reshape(len(actions), -1)).reshape(n_rows, -1)

    def rollout_values(self, observations: Any, rows: slice) -> Array:
        return self.values(observations)

    def values(self, observations: Any) -> Array:
        network = self._network("value_net")
        return values_of(self.policy, observations) if network is None else network(observations)[:, 0]

    def terminal_values(self, observations: Sequence[Any]) -> Array:
        return self.values(stacked(observations))

    def outputs(self, observations: Any) -> Array:
        """
        :return: of the action network, shape (N, K)
        :raises DistributionError: if they are NaN or infinite
        """
        network = self._network("action_net")
        outputs = self._outputs_of_torch(observations) if network is None else network(observations)
        if self.sampler.surely_finite(outputs):
            return outputs
        if not self.sampler.is_valid(outputs):
            raise DistributionError(
                "the distribution over actions is NaN or infinite: look at the weights and the observation"
            )
        return self.sampler.in_range(outputs)

    def predict(self, observation: Any, deterministic: bool, rng: np.random.Generator) -> Array | None:
        """
        What ``policy.predict`` returns, where it can be had faster.

        :param observation: one, or several of shape (n, *observation_space.shape)
        :param deterministic: the likeliest action instead of a sampled one
        :param rng: for the samples
        :return: actions within their bounds; None if the policy must be asked
        """
        space = self.policy.observation_space
        network = self._networks.get("action_net")
        if network is None or network.is_bypassed():
            # It may have become plain since, or a hook may have been added
            self._networks.pop("action_net", None)
        predicts = self._predicts and vars(self.policy).keys().isdisjoint(_PREDICTING)
        if not predicts or type(observation) is not np.ndarray or self._network("action_net") is None:
            return None
        single = observation.shape == space.shape
        if not single and observation.shape[1:] != space.shape:
            return None
        outputs = self.outputs(observation[None] if single else observation)
        sample = self.sampler.sample
        actions = self.sampler.mode(outputs) if deterministic else sample(outputs, self.sampler.noise(rng, outputs.shape))
        actions = executable(self.policy, self._shaped(actions))
        return actions.reshape(actions.shape[1:]) if single else actions

    def _shaped(self, actions: Array) -> Array:
        shape = self._action_shape
        return actions if actions.shape[1:] == shape else actions.reshape(len(actions), *shape)

    def _network(self, head: str) -> NumpyNetwork | None:
        """:return: the current one that NumPy can compute; None where torch must"""
        network = self._networks.get(head)
        if network is not None and network.is_current():
            return network
        if network is not None or head not in self._networks:
            self._networks[head] = numpy_network(self.policy, head)
        return self._networks[head]

    def _outputs_of_torch(self, observations: Any) -> Array:
        policy = self.policy
        with th.no_grad():
            tensors: Any = obs_as_tensor(observations, policy.device)
            features = BaseModel.extract_features(policy, tensors, policy.pi_features_extractor)
            outputs = policy.action_net(policy.mlp_extractor.forward_actor(features)).cpu().numpy()
        # An action_net of the user's may return memory that is written to again, such as the observation's
        return np.array(outputs)


def lean_actor(policy: Any, current: LeanActor | None = None) -> LeanActor | None:
    """
    :param policy: any
    :param current: the one that was found before, which is kept while it fits
    :return: the fast actor; None if the policy has a way of its own from observation to action or value
    """
    if not _is_lean(policy):
        return None
    if current is not None and current.policy is policy and current.sampler.distribution is policy.action_dist:
        return current
    return LeanActor(policy, numpy_distribution(policy))


def _is_lean(policy: Any) -> bool:
    return acts_as_sb3(policy, values=True) and is_known(policy.action_dist)


def executable(policy: ActorCriticPolicy, actions: Array) -> Array:
    """:return: what the environment gets: continuous actions scaled or clipped into its bounds, as in SB3's loop"""
    space = policy.action_space
    if not isinstance(space, spaces.Box):
        return actions
    if policy.squash_output:
        return policy.unscale_action(actions)
    clipped: Array = np.minimum(np.maximum(actions, space.low), space.high)
    return clipped


def values_of(policy: ActorCriticPolicy, observations: Any) -> Array:
    """:return: the values that torch computes, a limited number at a time, shape (n,)"""
    parts = []
    with th.no_grad():
        for start in range(0, n_observations(observations), N_ROWS):
            part = take(observations, slice(start, start + N_ROWS))
            parts.append(policy.predict_values(obs_as_tensor(part, policy.device)).flatten().cpu().numpy())
    return np.concatenate(parts)
