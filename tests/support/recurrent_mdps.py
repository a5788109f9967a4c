"""
A small task with an aliased state, and the exact gradient of a policy with an LSTM, by enumeration of all histories.

The oracle is NumPy in float64: its own LSTM, the probability of every episode, and central differences of the expected return.
It uses neither torch nor the package. Parameters are one flat vector in the order of ``NAMES``.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch as th
from mdps import MDP, Episode, Recorder, TabularEnv, episodes
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_vpg import RecurrentVPG

NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "action_weight", "action_bias")
OBSERVATIONS = (0, 1, 2, 3, 3)
"""The observation in each state. The last two states look the same, but ask for different actions."""
ALIASED = MDP(
    [
        [[(0.5, 0.2, 1), (0.5, -0.1, 2)], [(0.6, 0.0, 1), (0.4, 1.0, None)]],
        [[(1.0, 0.0, 3)], [(1.0, 0.5, None)]],
        [[(1.0, 0.3, 4)], [(1.0, -0.2, None)]],
        [[(1.0, 4.0, None)], [(1.0, -1.0, None)]],
        [[(1.0, -1.0, None)], [(1.0, 4.0, None)]],
    ],
    gamma=0.9,
)


class AliasedEnv(TabularEnv):
    """``ALIASED`` as an environment."""

    def __init__(self) -> None:
        super().__init__(ALIASED)
        self.observation_space = type(self.observation_space)(len(set(OBSERVATIONS)))

    def reset(self, **kwargs: Any) -> tuple[int, dict[str, Any]]:
        state, info = super().reset(**kwargs)
        return OBSERVATIONS[state], info

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        state, *others = super().step(action)
        return (OBSERVATIONS[state], *others)  # type: ignore[return-value]


def seen_episodes() -> list[Episode]:
    """:return: every possible episode, with observations in the place of states"""
    return [replace(one, states=tuple(OBSERVATIONS[state] for state in one.states)) for one in episodes(ALIASED)]


def make_recurrent(n_envs: int = 1, policy_kwargs: dict[str, Any] | None = None, **options: Any) -> RecurrentVPG:
    """:return: a model with random weights whose policy step equals the estimated gradient and whose critic never changes"""
    structure = {"lstm_hidden_size": 3, "net_arch": [], "optimizer_class": th.optim.SGD, **(policy_kwargs or {})}
    arguments: dict[str, Any] = {"learning_rate": 1.0, "max_grad_norm": float("inf"), "seed": 0, "device": "cpu"}
    arguments |= {"vf_learning_rate": 0.0, "n_critic_updates": 1, "policy_kwargs": structure, "gamma": ALIASED.gamma}
    model = RecurrentVPG("MlpLstmPolicy", DummyVecEnv([AliasedEnv] * n_envs), **{**arguments, **options})
    rng = np.random.default_rng(1)
    with th.no_grad():
        for parameter in tensors(model):
            parameter.copy_(th.as_tensor(rng.normal(scale=1.3, size=parameter.shape)))
    model.set_logger(Logger(folder=None, output_formats=[Recorder()]))
    return model


def tensors(model: RecurrentVPG) -> list[th.Tensor]:
    """:return: the parameters of the actor in the order of ``NAMES``"""
    return [*model.policy.lstm_actor.parameters(), *model.policy.action_net.parameters()]


def theta_of(model: RecurrentVPG) -> np.ndarray:
    return np.concatenate([one.detach().numpy().flatten() for one in tensors(model)]).astype(float)


def recurrent_step(model: RecurrentVPG) -> np.ndarray:
    """:return: the change of the actor's parameters by ``train()``, which is undone"""
    before = [one.detach().clone() for one in tensors(model)]
    model.train()
    step = np.concatenate([(one.detach() - old).numpy().flatten() for one, old in zip(tensors(model), before, strict=True)])
    with th.no_grad():
        for one, old in zip(tensors(model), before, strict=True):
            one.copy_(old)
    return step.astype(float)


def probability(theta: np.ndarray, episode: Episode, n_units: int = 3) -> float:
    """:return: of an episode whose ``states`` are observations, for a policy that remembers them"""
    n_observations, n_actions = len(set(OBSERVATIONS)), ALIASED.shape[1]
    shapes = [(4 * n_units, n_observations), (4 * n_units, n_units), (4 * n_units,), (4 * n_units,)]
    shapes += [(n_actions, n_units), (n_actions,)]
    ends = np.cumsum([np.prod(shape) for shape in shapes])
    parts = [part.reshape(shape) for part, shape in zip(np.split(theta, ends[:-1]), shapes, strict=True)]
    w = dict(zip(NAMES, parts, strict=True))
    hidden, cell, product = np.zeros(n_units), np.zeros(n_units), episode.chance
    for observation, action in zip(episode.states, episode.actions, strict=True):
        gates = w["weight_ih"][:, observation] + w["bias_ih"] + w["weight_hh"] @ hidden + w["bias_hh"]
        enter, forget, new, out = np.split(gates, 4)
        cell = _sigmoid(forget) * cell + _sigmoid(enter) * np.tanh(new)
        hidden = _sigmoid(out) * np.tanh(cell)
        logits = w["action_weight"] @ hidden + w["action_bias"]
        weights = np.exp(logits - logits.max())
        product *= float(weights[action] / weights.sum())
    return product


def exact_history_gradient(theta: np.ndarray, h: float = 1e-5) -> np.ndarray:
    """Central differences of the expected discounted return of an episode; the error is about h^2."""

    def objective(at: np.ndarray) -> float:
        return sum(probability(at, one) * one.returns(ALIASED.gamma)[0] for one in seen_episodes())

    return np.array([objective(theta + e) - objective(theta - e) for e in h * np.eye(len(theta))]) / (2 * h)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))
