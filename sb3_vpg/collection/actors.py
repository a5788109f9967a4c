"""
Actors choose the actions of a rollout.

``LeanActor`` computes per step only what the next action needs. It supports every policy that does not override SB3's way
from observation to action: with NumPy for plain networks, with torch for images, dicts, custom features extractors and on a
GPU. ``StepwiseActor`` (see ``sb3_vpg.collection.stepwise_actor``) calls any other policy at each step, as SB3's loop does.

N environments, T steps, K outputs of the action network.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy, BaseModel
from stable_baselines3.common.utils import obs_as_tensor

from sb3_vpg.collection.agreement import computed_as_one
from sb3_vpg.common.observations import n_observations, stacked, take
from sb3_vpg.common.world import SINGLE_PROCESS, World
from sb3_vpg.exceptions import DistributionError
from sb3_vpg.numpy_policy.distributions import NumpyDistribution, is_supported, numpy_distribution
from sb3_vpg.numpy_policy.eligibility import acts_as_sb3, is_untouched
from sb3_vpg.numpy_policy.networks import N_ROWS, Array, NumpyNetwork, numpy_network
from sb3_vpg.numpy_policy.softmax import masked

_PREDICTING = ("predict", "_predict")
_N_NOISE = 8192
"""Random numbers drawn at once, for several steps."""
NO_KEYWORDS: Mapping[str, Array] = {}
_TORCH_MESSAGES = ("of distribution", "probability tensor")
"""In torch's errors for invalid parameters: from the distribution, and from sampling if ``th.compile`` disabled validation."""


@contextmanager
def invalid_distribution_errors() -> Iterator[None]:
    """:raises DistributionError: instead of torch's general error for a distribution with NaN or infinite parameters"""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        if not any(text in str(error) for text in _TORCH_MESSAGES):
            raise
        raise DistributionError(*error.args) from error


class Actor(Protocol):
    """What collection needs from an actor."""

    policy: ActorCriticPolicy
    defers_values: bool
    """Whether values are computed after the rollout, and not by ``act``."""

    def start(self, rng: np.random.Generator, world: World = SINGLE_PROCESS) -> None:
        """Begin a rollout of these processes, with this generator for the actions of all of them."""

    def fits(self) -> bool:
        """Return whether this actor still supports the policy; called when a rollout is complete."""

    def act(self, observations: Any, keywords: Mapping[str, Array] = NO_KEYWORDS) -> Array:
        """
        Return sampled actions, shape (N, *action_space.shape). Raises DistributionError for an invalid distribution.
        ``keywords``: more inputs of the policy, each with N rows.
        """

    def latest(self, observations: Any) -> tuple[th.Tensor, th.Tensor]:
        """Return values, shape (N, 1), and log-probabilities, shape (N,), of the last call of ``act``."""

    def log_probs(self) -> Array:
        """Return the log-probability of every action since ``start``, as it was sampled, shape (T, N). Call it once."""

    def rollout_values(self, observations: Any, rows: slice) -> Array:
        """Return the values of n observations that ``act`` has seen in these rows of the rollout, shape (n,)."""

    def values(self, observations: Any) -> Array:
        """Return the critic's value of each of n observations, shape (n,)."""

    def terminal_values(self, observations: Sequence[Any], envs: Sequence[int]) -> Array:
        """Return the critic's value of each of n single observations of these environments, shape (n,)."""


class LeanActor:
    """
    Computes per step only the action; log-probabilities and values follow for the whole rollout.

    :param policy: a policy that ``lean_actor`` supports
    :param distribution: its distribution over actions
    """

    defers_values = True

    def __init__(self, policy: ActorCriticPolicy, distribution: NumpyDistribution) -> None:
        self.policy = policy
        self.distribution = distribution
        self._action_shape: tuple[int, ...] = policy.action_space.shape or ()
        self._predicts = is_untouched(policy, _PREDICTING)
        self._networks: dict[str, NumpyNetwork | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        # The networks read the parameters of this policy, not those of its copy
        return {**vars(self), "_networks": {}}

    def start(self, rng: np.random.Generator, world: World = SINGLE_PROCESS) -> None:
        self._rng, self._world = rng, world
        self._noise: Iterator[Array] = iter(())
        self._dist_params: list[Array] = []
        self._sampled: list[Array] = []
        # Building a network takes as long as ten steps
        self._networks = {head: one for head, one in self._networks.items() if one is not None and one.can_be_kept()}

    def fits(self) -> bool:
        if not _is_lean(self.policy) or self.policy.action_dist is not self.distribution.sb3:
            return False
        return not any(network.is_bypassed() for network in self._networks.values() if network is not None)

    def act(self, observations: Any, keywords: Mapping[str, Array] = NO_KEYWORDS) -> Array:
        outputs = self.outputs(observations, keywords.get("action_masks"), self._world)
        noise = next(self._noise, None)
        if noise is None or len(noise) != len(outputs):
            self._noise = self._drawn(*outputs.shape)
            noise = next(self._noise)
        dist_params = self.distribution.dist_params(outputs)
        self._dist_params.append(dist_params)
        actions = self.distribution.sample(dist_params, noise)
        # A copy, because a callback may write to the actions, whose log-probabilities are those before
        self._sampled.append(actions.copy())
        return self._shaped(actions)

    def _drawn(self, n_envs: int, n_outputs: int) -> Iterator[Array]:
        """Return the noise of several steps, each with shape (N, K): the part of this process in that of all environments."""
        n_all, first = n_envs * self._world.size, n_envs * self._world.rank
        n_rows = max(1, _N_NOISE // max(1, n_all * n_outputs))
        noise = self.distribution.noise(self._rng, (n_rows, n_all, n_outputs))
        return iter(noise[:, first : first + n_envs])

    def latest(self, observations: Any) -> tuple[th.Tensor, th.Tensor]:
        dist_params, actions, device = self._dist_params[-1], self._sampled[-1], self.policy.device
        log_probs_N = self.distribution.log_prob(dist_params, actions.reshape(len(actions), -1))
        values_N1 = th.as_tensor(self.values(observations)[:, None], device=device)
        return values_N1, th.as_tensor(log_probs_N.astype(dist_params.dtype, copy=False), device=device)

    def log_probs(self) -> Array:
        dist_params_nR, actions = np.concatenate(self._dist_params), np.concatenate(self._sampled)
        n_rows = len(self._dist_params)
        self._dist_params.clear()
        self._sampled.clear()
        return self.distribution.log_prob(dist_params_nR, actions.reshape(len(actions), -1)).reshape(n_rows, -1)

    def rollout_values(self, observations: Any, rows: slice) -> Array:
        network = self._network("value_net")
        if network is None:
            return values_of(self.policy, observations)
        return computed_as_one(network, observations, self._world, rows.stop - rows.start)[:, 0]

    def values(self, observations: Any) -> Array:
        return self.rollout_values(observations, slice(0, 1))

    def terminal_values(self, observations: Sequence[Any], envs: Sequence[int]) -> Array:
        network = self._network("value_net")
        together = stacked(observations)
        return values_of(self.policy, together) if network is None else network(together)[:, 0]

    def gathers(self, has_critic: bool) -> bool:
        """
        Return whether each process of torchrun makes the whole update, from the steps of all. If torch computes the networks,
        which may be large, it makes its part, from its own steps.
        """
        heads = ("action_net", "value_net") if has_critic else ("action_net",)
        return self._world.is_distributed and all(self._network(head) is not None for head in heads)

    def outputs(self, observations: Any, masks: Array | None = None, world: World = SINGLE_PROCESS) -> Array:
        """
        :param observations: shape (N, *observation_space.shape)
        :param masks: False for outputs that become minus infinity, so that their actions are impossible, shape (N, K)
        :param world: the processes of whose environments these N are this one's
        :return: outputs of the action network, shape (N, K)
        :raises DistributionError: if they are NaN or infinite
        """
        network = self._network("action_net")
        outputs = self._outputs_of_torch(observations) if network is None else computed_as_one(network, observations, world)
        surely_valid = self.distribution.surely_valid(outputs)
        is_number = surely_valid or not np.isnan(outputs).any()
        outputs = outputs if masks is None else masked(outputs, masks)
        if surely_valid:
            return outputs
        if not is_number or not self.distribution.is_valid(outputs):
            raise DistributionError(
                "the distribution over actions is NaN or infinite: look at the weights and the observation"
            )
        return self.distribution.in_range(outputs)

    def predict(
        self, observation: Any, deterministic: bool, rng: np.random.Generator, masks: Array | None = None
    ) -> Array | None:
        """
        Predict actions with NumPy.

        :param observation: one observation, or several with shape (n, *observation_space.shape)
        :param deterministic: take the likeliest action instead of sampling
        :param rng: generator for sampling
        :param masks: see ``outputs``
        :return: actions within their bounds, as ``policy.predict`` returns them; None if NumPy cannot compute them
        """
        space = self.policy.observation_space
        network = self._networks.get("action_net")
        if network is None or network.is_bypassed():
            # A hook may have been added or removed since
            self._networks.pop("action_net", None)
        predicts = self._predicts and vars(self.policy).keys().isdisjoint(_PREDICTING)
        if not predicts or type(observation) is not np.ndarray or self._network("action_net") is None:
            return None
        single = observation.shape == space.shape
        if not single and observation.shape[1:] != space.shape:
            return None
        outputs = self.outputs(observation[None] if single else observation, masks)
        if deterministic:
            actions = self.distribution.mode(outputs)
        else:
            noise = self.distribution.noise(rng, outputs.shape)
            actions = self.distribution.sample(self.distribution.dist_params(outputs), noise)
        actions = executable(self.policy, self._shaped(actions))
        return actions.reshape(actions.shape[1:]) if single else actions

    def _shaped(self, actions: Array) -> Array:
        shape = self._action_shape
        return actions if actions.shape[1:] == shape else actions.reshape(len(actions), *shape)

    def _network(self, head: str) -> NumpyNetwork | None:
        """Return the network that ends in this layer; None if torch must compute it."""
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
            outputs = self.distribution.fetched(policy.action_net(policy.mlp_extractor.forward_actor(features)))
        # A copy, because a user's action_net may return memory that is overwritten, such as that of the observation
        return np.array(outputs)


def lean_actor(policy: Any, current: LeanActor | None = None) -> LeanActor | None:
    """
    :param policy: any policy
    :param current: the actor that an earlier call returned; it is kept if it still fits
    :return: an actor for the policy; None if the policy overrides SB3's way from observation to action or value
    """
    if not _is_lean(policy):
        return None
    if current is not None and current.policy is policy and current.distribution.sb3 is policy.action_dist:
        return current
    return LeanActor(policy, numpy_distribution(policy))


def kept_network(actor: LeanActor | None, policy: Any, head: str) -> NumpyNetwork | None:
    """Return the network of the last rollout that ends in this layer of the policy; None if it has to be built again."""
    network = actor._networks.get(head) if actor is not None and actor.policy is policy else None
    return network if network is not None and network.can_be_kept() else None


def _is_lean(policy: Any) -> bool:
    return acts_as_sb3(policy, values=True) and is_supported(policy.action_dist)


def executable(policy: ActorCriticPolicy, actions: Array) -> Array:
    """Return the actions for the environment: continuous ones are scaled or clipped to its bounds, as in SB3's loop."""
    space = policy.action_space
    if not isinstance(space, spaces.Box):
        return actions
    if policy.squash_output:
        return policy.unscale_action(actions)
    clipped: Array = np.minimum(np.maximum(actions, space.low), space.high)
    return clipped


def values_of(policy: ActorCriticPolicy, observations: Any) -> Array:
    """Return values that torch computes, ``N_ROWS`` at a time, shape (n,)."""
    parts = []
    with th.no_grad():
        for start in range(0, n_observations(observations), N_ROWS):
            part = take(observations, slice(start, start + N_ROWS))
            parts.append(policy.predict_values(obs_as_tensor(part, policy.device)).flatten())
        values: Array = th.cat(parts).cpu().numpy()
    return values
