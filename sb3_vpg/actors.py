"""
Who acts while a rollout is collected, and when.

``LeanActor`` does per step only what the next action needs, and knows every policy that keeps SB3's own way from observation
to action: in NumPy where the networks are plain, in torch for images, dicts and extractors of a user's own, and on a GPU.
``StepwiseActor`` asks the policy at each step, as SB3's loop does: for gSDE and for policies with a way of their own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy, BaseModel
from stable_baselines3.common.utils import obs_as_tensor

from sb3_vpg.buffers import take
from sb3_vpg.eligibility import forward_hooks
from sb3_vpg.networks import N_ROWS, PlainNetwork, plain_network
from sb3_vpg.policies import is_untouched
from sb3_vpg.samplers import Sampler, sampler_of

Array = npt.NDArray[Any]
_COLLECTING = ("forward", "extract_features", "get_distribution", "predict_values", "_get_action_dist_from_latent")
_PREDICTING = ("predict", "_predict", "obs_to_tensor")
_N_NOISE = 8192
_REFUSALS = ("of distribution", "probability tensor")
"""How torch refuses a distribution, and its sampling where ``th.compile`` has switched that off for the process."""


class DistributionError(ValueError):
    """The policy's distribution over actions has NaN or infinite parameters."""


@contextmanager
def recognised() -> Iterator[None]:
    """:raises DistributionError: in the place of what torch raises for a distribution without sound parameters"""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        if not any(text in str(error) for text in _REFUSALS):
            raise
        raise DistributionError(*error.args) from error


class Actor(Protocol):
    """What collection asks of an actor. N environments, T steps."""

    def start(self, rng: np.random.Generator) -> None:
        """A rollout begins; what was remembered of the last one is forgotten."""

    def act(self, observations: Any) -> Array:
        """:return: sampled actions, shape (N, *action_space.shape)"""

    def log_probs(self, actions_TNA: Array) -> Array:
        """:return: log-probability of every action since the start, shape (T, N)"""

    def values(self, observations: Any) -> Array:
        """:return: the critic's value of each of n observations, shape (n,)"""


class LeanActor:
    """
    The fast one.

    :param policy: one that ``lean_actor`` knows
    :param sampler: of its distribution
    """

    def __init__(self, policy: ActorCriticPolicy, sampler: Sampler) -> None:
        self.policy = policy
        self.sampler = sampler
        self._action_shape: tuple[int, ...] = policy.action_space.shape or ()
        self.predicts = is_untouched(policy, _PREDICTING)
        self._networks: dict[str, PlainNetwork | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Networks read the memory of this policy, not of its copy
        return {**vars(self), "_networks": {}}

    def start(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._noise: Iterator[Array] = iter(())
        self._played: list[Array] = []
        self._networks.clear()

    def act(self, observations: Any) -> Array:
        outputs = self.outputs(observations)
        noise = next(self._noise, None)
        if noise is None or len(noise) != len(outputs):
            n_rows = max(1, _N_NOISE // max(1, outputs.size))
            self._noise = iter(self.sampler.noise(self._rng, (n_rows, *outputs.shape)))
            noise = next(self._noise)
        self._played.append(self.sampler.remembered(outputs))
        return self._shaped(self.sampler.sample(outputs, noise))

    def log_probs(self, actions_TNA: Array) -> Array:
        remembered_TNR = np.stack(self._played)
        self._played.clear()
        n_rows, n_envs, width = remembered_TNR.shape
        flat = self.sampler.log_prob(remembered_TNR.reshape(-1, width), actions_TNA.reshape(n_rows * n_envs, -1))
        return flat.reshape(n_rows, n_envs)

    def values(self, observations: Any) -> Array:
        network = self._network("value_net")
        return values_of(self.policy, observations) if network is None else network(observations)[:, 0]

    def outputs(self, observations: Any) -> Array:
        """
        :return: of the action network, shape (N, K)
        :raises DistributionError: if they are NaN or infinite
        """
        network = self._network("action_net")
        outputs = self._outputs_of_torch(observations) if network is None else network(observations)
        if self.sampler.look_sound(outputs):
            return outputs
        if not self.sampler.are_sound(outputs):
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
        if not self.predicts or type(observation) is not np.ndarray or self._network("action_net") is None:
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

    def _network(self, head: str) -> PlainNetwork | None:
        """:return: the current one that NumPy can compute; None where torch must"""
        network = self._networks.get(head)
        if network is not None and network.is_current():
            return network
        if network is not None or head not in self._networks:
            self._networks[head] = plain_network(self.policy, head)
        return self._networks[head]

    def _outputs_of_torch(self, observations: Any) -> Array:
        policy = self.policy
        with th.no_grad():
            tensors: Any = obs_as_tensor(observations, policy.device)
            features = BaseModel.extract_features(policy, tensors, policy.pi_features_extractor)
            outputs: Array = policy.action_net(policy.mlp_extractor.forward_actor(features)).cpu().numpy()
        return outputs


class StepwiseActor:
    """
    The one that fits every policy.

    :param policy: any
    :param sde_sample_freq: steps after which gSDE draws new noise; -1: once per rollout
    """

    def __init__(self, policy: ActorCriticPolicy, sde_sample_freq: int) -> None:
        self.policy = policy
        self.sde_sample_freq = sde_sample_freq

    def start(self, rng: np.random.Generator) -> None:
        self._log_probs: list[Array] = []

    def act(self, observations: Any) -> Array:
        n_steps, policy = len(self._log_probs), self.policy
        with th.no_grad(), recognised():
            tensors: Any = obs_as_tensor(observations, policy.device)
            if policy.use_sde and (n_steps == 0 or (self.sde_sample_freq > 0 and n_steps % self.sde_sample_freq == 0)):
                policy.reset_noise(n_observations(observations))
            distribution = policy.get_distribution(tensors)
            actions = distribution.get_actions()
            self._log_probs.append(distribution.log_prob(actions).cpu().numpy())
        sampled: Array = actions.reshape((-1, *policy.action_space.shape)).cpu().numpy()  # type: ignore[misc]  # never None here
        return sampled

    def log_probs(self, actions_TNA: Array) -> Array:
        return np.stack(self._log_probs)

    def values(self, observations: Any) -> Array:
        return values_of(self.policy, observations)


def lean_actor(policy: Any, current: LeanActor | None = None) -> LeanActor | None:
    """
    :param policy: any
    :param current: the one that was found before, which is kept while it fits
    :return: the fast actor; None if the policy has a way of its own from observation to action or value
    """
    if not is_untouched(policy, _COLLECTING) or any(forward_hooks([policy])):
        return None
    if current is not None and current.policy is policy and current.sampler.distribution is policy.action_dist:
        return current
    sampler = sampler_of(policy)
    return None if sampler is None else LeanActor(policy, sampler)


def random_streams(seed: int | None) -> tuple[np.random.Generator, np.random.Generator]:
    """
    :param seed: None takes one from torch's global generator
    :return: a stream for training and one for ``predict``, so that evaluating changes nothing in the course of training
    """
    entropy = int(th.randint(2**62, (1,)).item()) if seed is None else seed
    training, predictions = np.random.default_rng(entropy).spawn(2)
    return training, predictions


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


def n_observations(observations: Any) -> int:
    """:return: how many there are in an array, or in each array of a dict"""
    return len(next(iter(observations.values())) if isinstance(observations, dict) else observations)
