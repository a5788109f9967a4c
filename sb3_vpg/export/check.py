"""The check of a file: it must act as ``predict`` does, on observations of the running environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from torch.distributions import Bernoulli, Categorical

from sb3_vpg.exceptions import ExportError
from sb3_vpg.export.actions import parts_of
from sb3_vpg.export.agent import Agent
from sb3_vpg.export.observations import Pipeline
from sb3_vpg.export.programs import Run
from sb3_vpg.export.signature import ACTION, MASKS, NEXT_STATES, NOISE, OBSERVATION, STARTS, STATES, Tensor, draw_noise, stack
from sb3_vpg.policies import LinearDecisionPolicy
from sb3_vpg.vec_env.action_masks import MaskReader, is_masking_supported, mask_sizes

RANGE_TOLERANCE = 1e-5
"""How much continuous actions may differ, as a part of the range of the actions."""
SCORE_TOLERANCE = 1e-6
"""Another discrete action is as good if its probability is lower by at most this."""
_BATCHES = (1, 7, 256)


@dataclass(frozen=True)
class Trace:
    """
    What the model did on N observations.

    :param inputs: those of the file, by their names
    :param outputs: what the file should return for them
    :param scores: of each choice, the larger the better, shape (N, M) as masks have it; None for a ``Box``, and if unknown
    """

    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    scores: np.ndarray | None


class Recorder:
    """
    Plays a model without the file.

    :param model: that plays
    :param agent: names the inputs and outputs
    :param pipeline: the wrappers between environment and model
    """

    def __init__(self, model: BaseAlgorithm, agent: Agent, pipeline: Pipeline) -> None:
        self._model: Any = model
        self._agent, self._pipeline = agent, pipeline
        self._env = pipeline.base
        has_masks = agent.takes_masks and is_masking_supported(self._env)
        self._masks = MaskReader(self._env) if has_masks else None
        self._rng = np.random.default_rng(0)

    def play(self, at_least: int) -> Trace:
        """Play in the environment, from its reset on, until there are ``at_least`` observations."""
        n_envs, inputs, outputs, scores = self._env.num_envs, [], [], []
        raw: Any = self._env.reset()
        carried = {name: self._agent.inputs[name].zeros(n_envs) for name in STATES if name in self._agent.inputs}
        starts = np.ones(n_envs, dtype=bool)
        for _ in range(-(-at_least // n_envs)):
            given = self._inputs(raw, carried, starts)
            expected, score = self._act(given, raw)
            inputs.append(given)
            outputs.append(expected)
            scores.append(score)
            carried = {name: expected[output] for name, output in zip(STATES, NEXT_STATES, strict=True) if name in carried}
            raw, _, starts, _ = self._env.step(expected[ACTION])
        known = [score for score in scores if score is not None]
        return Trace(
            stack(inputs, self._agent.inputs), stack(outputs, self._agent.outputs), np.concatenate(known) if known else None
        )

    def _inputs(self, raw: Any, carried: dict[str, np.ndarray], starts: np.ndarray) -> dict[str, np.ndarray]:
        tensors, n = self._agent.inputs, len(starts)
        # Environments may reuse their arrays
        parts = raw if isinstance(raw, dict) else {OBSERVATION: raw}
        given = {name: np.array(value, tensors[name].dtype) for name, value in parts.items()}
        if MASKS in tensors:
            given[MASKS] = np.ones((n, tensors[MASKS].shape[1] or 0), bool) if self._masks is None else self._masks.read()
        if STARTS in tensors:
            given |= {**carried, STARTS: starts}
        if NOISE in tensors:
            given[NOISE] = draw_noise(tensors[NOISE].describe(), n, self._rng)
        return given

    def _act(self, given: Mapping[str, np.ndarray], raw: Any) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        """Return the outputs for these inputs, and the scores of all choices."""
        observations = self._pipeline.through_wrappers(raw)
        keywords: dict[str, Any] = {MASKS: given[MASKS]} if MASKS in given else {}
        if STARTS in given:
            keywords = {"state": tuple(given[name] for name in STATES), STARTS: given[STARTS]}
        actions, states = self._model.predict(observations, deterministic=True, **keywords)
        parts = [] if isinstance(self._agent.policy, LinearDecisionPolicy) else self._distributions(observations, keywords)
        scores = _scores(parts, given.get(NOISE))
        if NOISE in given:
            actions = self._sampled(parts, given[NOISE], scores)
        space = self._env.action_space
        outputs = {ACTION: np.asarray(actions).reshape((-1, *(space.shape or ())))}
        if STARTS in given:
            outputs |= dict(zip(NEXT_STATES, states, strict=True))
        return outputs, scores if not isinstance(space, spaces.Box) else None

    def _distributions(self, observations: Any, keywords: dict[str, Any]) -> list[Any]:
        policy = self._agent.policy
        tensors = policy.obs_to_tensor(observations)[0]
        with th.no_grad():
            if self._agent.is_recurrent:
                states, starts = (th.as_tensor(part, device=policy.device) for part in keywords["state"]), keywords[STARTS]
                starts = th.as_tensor(starts, device=policy.device).float()
                return parts_of(policy.get_distribution(tensors, tuple(states), starts)[0])
            return parts_of(policy.get_distribution(tensors, *keywords.values()))

    def _sampled(self, parts: list[Any], noise: np.ndarray, scores: np.ndarray | None) -> np.ndarray:
        """Return samples, from this noise, as ``predict`` would clip them."""
        if scores is None:
            mean, std = (value.cpu().numpy() for value in (parts[0].mean, parts[0].stddev))
            space: Any = self._env.action_space
            return np.asarray(np.clip((mean + std * noise).reshape((-1, *space.shape)), space.low, space.high))
        sizes = mask_sizes(self._env.action_space)
        best = [part.argmax(axis=1) for part in np.split(scores, np.cumsum(sizes)[:-1], axis=1)]
        return np.stack(best, axis=1)


def _scores(parts: list[Any], noise: np.ndarray | None) -> np.ndarray | None:
    """
    :param parts: the distributions over N actions
    :param noise: from which actions are sampled; None: the likeliest are taken
    :return: the score of each choice, in the order of masks: its probability, or its logit with Gumbel noise
    """
    if not parts or not all(isinstance(part, (Categorical, Bernoulli)) for part in parts):
        return None
    if isinstance(parts[0], Bernoulli):
        ones_NA = parts[0].probs.cpu().numpy()
        zeros_NA = 1 - ones_NA if noise is None else noise
        return np.stack([zeros_NA, ones_NA], axis=2).reshape(len(ones_NA), -1)
    name = "probs" if noise is None else "logits"
    values = np.concatenate([getattr(part, name).cpu().numpy() for part in parts], axis=1)
    return values if noise is None else values - np.log(-np.log(noise.astype(np.float64)))


def compare(run: Run, trace: Trace, agent: Agent) -> None:
    """
    Compare a file with the model, in batches of several sizes.

    :param run: the file
    :param trace: what the model did
    :param agent: that was exported
    :raises ExportError: if it acts differently, with the observation for which the difference is largest
    """
    n, begin = len(trace.outputs[ACTION]), 0
    pieces: list[Mapping[str, np.ndarray]] = []
    while begin < n:
        end = begin + _BATCHES[min(len(pieces), len(_BATCHES) - 1)]
        rows = {name: _rows(value, agent.inputs[name], begin, end) for name, value in trace.inputs.items()}
        pieces.append(run(rows))
        begin = end
    outputs = stack(pieces, agent.outputs)
    differences = _differences(outputs[ACTION], trace, agent.policy.action_space)
    worst = int(differences.argmax())
    if differences[worst] > 1.0:
        seen = {name: _rows(trace.inputs[name], agent.inputs[name], worst, worst + 1).tolist() for name in trace.inputs}
        raise ExportError(
            f"the file does not act as the model: of {n:,} observations, number {worst + 1} differs most. The model does "
            f"{trace.outputs[ACTION][worst].tolist()}, the file {outputs[ACTION][worst].tolist()}; the inputs are "
            f"{seen!s:.400}. No file was written. predict() of the policy computes something that torch did not export: "
            "remove randomness, hooks and NumPy code from it"
        )
    for name in NEXT_STATES:
        if name in outputs and not np.allclose(outputs[name], trace.outputs[name], rtol=0, atol=RANGE_TOLERANCE):
            difference = np.abs(outputs[name] - trace.outputs[name]).max()
            raise ExportError(
                f"the file's {name} differs from the model's state by {difference:.2g}, and at most {RANGE_TOLERANCE} is "
                "allowed. No file was written. Let predict() of the policy compute the states in torch alone"
            )


def _rows(values: np.ndarray, tensor: Tensor, begin: int, end: int) -> np.ndarray:
    return values[(slice(None),) * tensor.batch_axis + (slice(begin, end),)]


def _differences(actions: np.ndarray, trace: Trace, space: Any) -> np.ndarray:
    """Return the difference of each action from the model's, shape (N,): as a multiple of what is allowed; NaN is infinite."""
    expected = trace.outputs[ACTION]
    if isinstance(space, spaces.Box):
        width = space.high.astype(np.float64) - space.low
        # Without bounds, the range is that of the action itself
        width = np.where(np.isfinite(width) & (width > 0), width, np.maximum(1.0, np.abs(expected)))
        parts = np.abs(actions.astype(np.float64) - expected) / (RANGE_TOLERANCE * width)
    elif trace.scores is None:
        parts = np.where(actions == expected, 0.0, np.inf)
    else:
        parts = _lost(actions, expected, trace.scores, space)
    return np.asarray(np.nan_to_num(parts.reshape(len(parts), -1).max(axis=1), nan=np.inf))


def _lost(actions: np.ndarray, expected: np.ndarray, scores: np.ndarray, space: Any) -> np.ndarray:
    """Return by how much the scores of the file's choices are lower, as multiples of what is allowed, shape (N, P)."""
    sizes = mask_sizes(space)
    begins = np.cumsum([0, *sizes[:-1]])
    chosen, best = (
        np.take_along_axis(scores, part.reshape(len(part), -1).astype(np.intp) + begins, 1) for part in (actions, expected)
    )
    same = (actions == expected).reshape(chosen.shape)
    allowed = SCORE_TOLERANCE * np.maximum(1.0, np.abs(best))
    return np.where(same, 0.0, np.abs(best - chosen) / allowed)
