"""The agent as one module of torch: raw observations in, actions out, as ``predict`` computes them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import nn

from sb3_vpg.export.actions import as_environment_takes, check_sampling, sample
from sb3_vpg.export.observations import Pipeline
from sb3_vpg.export.signature import (
    ACTION,
    MASKS,
    NEXT_STATES,
    NOISE,
    OBSERVATION,
    STARTS,
    STATES,
    Tensor,
    action_dtype,
    noise_tensor,
    observation_tensors,
)
from sb3_vpg.policies import LinearDecisionPolicy, original
from sb3_vpg.vec_env.action_masks import mask_sizes


class Agent(nn.Module):
    """
    A model's policy, with everything between the environment's observations and actions.

    :param model: one of sb3-vpg
    :param pipeline: the wrappers between environment and model
    :param stochastic: sample from noise that is an input, instead of taking the likeliest action
    :raises ValueError: if the policy's sampling is refused
    """

    def __init__(self, model: BaseAlgorithm, pipeline: Pipeline, stochastic: bool = False) -> None:
        super().__init__()
        self.policy: Any = original(model.policy)
        self.stochastic = stochastic
        self.takes_masks = isinstance(self.policy, MaskableActorCriticPolicy)
        self.is_recurrent = isinstance(self.policy, RecurrentActorCriticPolicy)
        self.observations = pipeline.module.to(self.policy.device)
        self._keys = list(observation_tensors(pipeline.base.observation_space))
        self._reads_dict = isinstance(self.policy.observation_space, spaces.Dict)
        if stochastic:
            self._check_stochastic()
        self.inputs: dict[str, Tensor] = self._inputs(pipeline.base.observation_space)
        """From the name of each input to its type, in their order."""
        self.outputs: dict[str, Tensor] = self._outputs()
        """The same for outputs."""

    def forward(self, inputs: dict[str, th.Tensor]) -> dict[str, th.Tensor]:
        """See ``inputs`` and ``outputs``."""
        observations: Any = self.observations({key: inputs[key] for key in self._keys})
        if not self._reads_dict:
            observations = observations[OBSERVATION]
        keywords: dict[str, Any] = {MASKS: inputs[MASKS]} if self.takes_masks else {}
        if not self.is_recurrent:
            return {ACTION: as_environment_takes(self._choose(observations, keywords, inputs.get(NOISE)), self.policy)}
        # The states are set to zero here; with starts of 0, the policy does not branch on them
        begins = inputs[STARTS].float()
        states = tuple(inputs[name] * (1.0 - begins).reshape(1, -1, 1) for name in STATES)
        keywords = {"lstm_states": states, "episode_starts": th.zeros_like(begins)}
        actions, (hidden, cell) = self._choose(observations, keywords, inputs.get(NOISE))
        return {ACTION: as_environment_takes(actions, self.policy), NEXT_STATES[0]: hidden, NEXT_STATES[1]: cell}

    def _choose(self, observations: Any, keywords: dict[str, Any], noise: th.Tensor | None) -> Any:
        """Return actions; of a recurrent policy also its states."""
        if isinstance(self.policy, LinearDecisionPolicy):
            return self.policy.choose(self.policy.products(observations, self.policy.weights))
        if noise is None:
            return self.policy._predict(observations, deterministic=True, **keywords)
        distribution = self.policy.get_distribution(observations, **keywords)
        if self.is_recurrent:
            distribution, states = distribution
            return sample(distribution, noise), states
        return sample(distribution, noise)

    def _check_stochastic(self) -> None:
        name = type(self.policy).__name__
        if isinstance(self.policy, LinearDecisionPolicy):
            raise ValueError(f"{name} does not sample actions: export it without stochastic")
        if getattr(self.policy, "use_sde", False):
            raise ValueError(
                "the policy explores with gSDE, whose noise is drawn once for many steps and not for each action: export its "
                "likeliest actions, without stochastic"
            )
        check_sampling(self.policy.action_dist)

    def _inputs(self, raw: spaces.Space[Any]) -> dict[str, Tensor]:
        inputs = observation_tensors(raw)
        space = self.policy.action_space
        if self.takes_masks:
            size = sum(mask_sizes(space))
            inputs[MASKS] = Tensor(
                np.dtype(bool), (None, size), "True for allowed actions, as the environment's action_masks()"
            )
        if self.is_recurrent:
            for name, output in zip(STATES, NEXT_STATES, strict=True):
                inputs[name] = self._state(f"the last {output}; of a new episode anything, such as zeros")
            inputs[STARTS] = Tensor(np.dtype(bool), (None,), "True for the first observation of an episode")
        if self.stochastic:
            inputs[NOISE] = noise_tensor(space, self.takes_masks)
        return inputs

    def _outputs(self) -> dict[str, Tensor]:
        space = self.policy.action_space
        how = "sampled from noise" if self.stochastic else "the likeliest"
        outputs = {ACTION: Tensor(action_dtype(space), (None, *space.shape), f"actions for env.step, {how}")}
        if self.is_recurrent:
            outputs |= {output: self._state(f"the next {name}") for name, output in zip(STATES, NEXT_STATES, strict=True)}
        return outputs

    def _state(self, meaning: str) -> Tensor:
        n_layers, _, n_units = self.policy.lstm_hidden_state_shape
        return Tensor(np.dtype(np.float32), (n_layers, None, n_units), meaning)


@contextmanager
def without_validation() -> Iterator[None]:
    """Within the block, let torch's distributions not check their parameters: the checks branch on values."""
    before = th.distributions.Distribution._validate_args
    th.distributions.Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        th.distributions.Distribution.set_default_validate_args(before)


@contextmanager
def single_steps(policy: Any) -> Iterator[None]:
    """Within the block, let a recurrent policy of sb3_contrib compute single steps without a branch on ``episode_starts``."""
    if not isinstance(policy, RecurrentActorCriticPolicy):
        yield
        return

    def step(features: th.Tensor, lstm_states: Any, episode_starts: th.Tensor, lstm: nn.LSTM) -> tuple[th.Tensor, Any]:
        output, lstm_states = lstm(features.unsqueeze(0), lstm_states)
        return output.squeeze(0), lstm_states

    policy._process_sequence = step  # type: ignore[method-assign]  # hides the class's function for a while
    try:
        yield
    finally:
        del policy._process_sequence
