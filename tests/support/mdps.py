"""
Small tasks whose episodes can be enumerated, so that the exact policy gradient is a finite sum; and one update of ``VPG`` on
given episodes.

The oracle is NumPy in float64 and does not use the package. Shapes: states S, actions A, ``logits_SA``; the parameters
are one flat vector, the weights (A, S) and then the biases (A,) of a linear policy on one-hot observations.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_vpg import VPG, MaskableVPG
from sb3_vpg.collection.buffers import EpisodeBuffer

Outcomes = list[tuple[float, float, int | None]]
"""Outcomes of an action: probability, reward and next state; None for the end of the episode."""


@dataclass(frozen=True)
class MDP:
    """
    Episodes start in state 0.

    :param outcomes_SA: outcomes of each action in each state
    :param gamma: discount factor of the objective
    :param time_limit: steps after which an episode is truncated; None: no limit
    :param masks_SA: which actions are allowed in each state; None: all
    """

    outcomes_SA: list[list[Outcomes]]
    gamma: float
    time_limit: int | None = None
    masks_SA: list[list[bool]] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.outcomes_SA), len(self.outcomes_SA[0])


BANDIT = MDP([[[(1.0, 1.0, None)], [(0.3, 4.0, None), (0.7, -1.0, None)], [(1.0, 0.5, None)]]], gamma=0.9)
# Episodes of one to three steps, depending on action and chance; short ones have high first rewards but low returns
_CHAIN = [
    [[(0.7, 1.0, 1), (0.3, 0.5, None)], [(1.0, 2.0, None)]],
    [[(0.5, -1.0, 2), (0.5, 0.0, None)], [(1.0, 0.3, 2)]],
    [[(1.0, 5.0, None)], [(1.0, 1.0, None)]],
]
CHAIN = MDP(_CHAIN, gamma=0.6)
UNDISCOUNTED = MDP(_CHAIN, gamma=1.0)
# Two states that lead to each other; in one of them the episode may end
_LOOP = [[[(1.0, 1.0, 0)], [(1.0, 0.0, 1)]], [[(0.5, 2.0, None), (0.5, -1.0, 0)], [(1.0, 0.5, 1)]]]
TIMED = MDP(_LOOP, gamma=0.7, time_limit=3)
# Every episode takes three steps
FIXED = MDP([[[(1.0, 1.0, 0)], [(1.0, 0.0, 1)]], [[(1.0, 3.0, 0)], [(1.0, -0.5, 1)]]], gamma=1.0, time_limit=3)


# In each state another action is not allowed; its reward would show in the mean update
MASKED = MDP(
    [[*choices[:place], [(1.0, 50.0, None)], *choices[place:]] for place, choices in enumerate(_CHAIN)],
    gamma=0.6,
    masks_SA=[[action != place for action in range(3)] for place in range(3)],
)


class TabularEnv(gym.Env[int, int]):
    """An ``MDP`` as an environment; observations are the states."""

    def __init__(self, mdp: MDP) -> None:
        self.mdp = mdp
        self.observation_space, self.action_space = map(spaces.Discrete, mdp.shape)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.state = self.age = 0
        return 0, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        outcomes = self.mdp.outcomes_SA[self.state][action]
        _, reward, following = outcomes[self.np_random.choice(len(outcomes), p=[chance for chance, _, _ in outcomes])]
        self.age += 1
        self.state = self.state if following is None else following
        return self.state, reward, following is None, following is not None and self.age == self.mdp.time_limit, {}

    def action_masks(self) -> list[bool]:
        return [True] * self.mdp.shape[1] if self.mdp.masks_SA is None else self.mdp.masks_SA[self.state]


class ScriptedEnv(gym.Env[np.ndarray, Any]):
    """
    Plays given episodes; actions change nothing. An observation is the number of the episode and the step in it, so that no
    two in a script are equal. ``reset`` before the first step of an episode does not skip it.

    :param script: for each episode its rewards, and True if a time limit ends it; it is repeated
    """

    def __init__(self, script: Sequence[tuple[Sequence[float], bool]], action_space: spaces.Space[Any] | None = None) -> None:
        self.script = script
        self.observation_space = spaces.Box(0.0, 1000.0, (2,), np.float32)
        self.action_space = action_space or spaces.Discrete(2)
        self.number = self.age = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.number += self.age > 0
        self.age = 0
        return self.observation, {}

    @property
    def observation(self) -> np.ndarray:
        return np.array([self.number, self.age], dtype=np.float32)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        rewards, timed_out = self.script[self.number % len(self.script)]
        reward = rewards[self.age]
        self.age += 1
        over = self.age == len(rewards)
        return self.observation, reward, over and not timed_out, over and timed_out, {}


@dataclass(frozen=True)
class Episode:
    """:param chance: product of the environment's probabilities, without the policy's"""

    states: tuple[int, ...] = ()
    actions: tuple[int, ...] = ()
    rewards: tuple[float, ...] = ()
    chance: float = 1.0

    def __len__(self) -> int:
        return len(self.states)

    def returns(self, gamma: float) -> list[float]:
        """:return: ``G_t`` of each step: the discounted sum of the rewards from there on"""
        return [sum(gamma**k * reward for k, reward in enumerate(self.rewards[t:])) for t in range(len(self))]

    def probability(self, logits_SA: np.ndarray) -> float:
        policy_SA = softmax(logits_SA)
        return self.chance * float(np.prod([policy_SA[s, a] for s, a in zip(self.states, self.actions, strict=True)]))


def episodes(mdp: MDP, n_steps: int | None = None, begun: Episode | None = None, state: int = 0) -> Iterator[Episode]:
    """:return: every possible episode; with ``n_steps``, at most its first ``n_steps`` steps"""
    begun = begun or Episode()
    for action in range(mdp.shape[1]):
        for chance, reward, following in mdp.outcomes_SA[state][action]:
            grown = Episode((*begun.states, state), (*begun.actions, action), (*begun.rewards, reward), begun.chance * chance)
            if following is None or len(grown) in (mdp.time_limit, n_steps):
                yield grown
            else:
                yield from episodes(mdp, n_steps, grown, following)


def softmax(logits_SA: np.ndarray) -> np.ndarray:
    weights_SA = np.exp(logits_SA - logits_SA.max(axis=1, keepdims=True))
    return weights_SA / weights_SA.sum(axis=1, keepdims=True)


def logits(mdp: MDP, theta: np.ndarray) -> np.ndarray:
    n_states, n_actions = mdp.shape
    weight_AS = theta[: n_states * n_actions].reshape(n_actions, n_states)
    logits_SA = weight_AS.T + theta[n_states * n_actions :]
    return logits_SA if mdp.masks_SA is None else np.where(mdp.masks_SA, logits_SA, -np.inf)


def objective(mdp: MDP, theta: np.ndarray) -> float:
    """``J``: the expected discounted return of an episode."""
    logits_SA = logits(mdp, theta)
    return sum(episode.probability(logits_SA) * episode.returns(mdp.gamma)[0] for episode in episodes(mdp))


def exact_gradient(mdp: MDP, theta: np.ndarray, h: float = 1e-5) -> np.ndarray:
    """Central differences of ``J``, without a score function or the policy gradient theorem; the error is about h^2."""
    return np.array([objective(mdp, theta + e) - objective(mdp, theta - e) for e in h * np.eye(len(theta))]) / (2 * h)


def score(mdp: MDP, theta: np.ndarray, state: int, action: int) -> np.ndarray:
    """``grad log pi(action | state)``: features of the action minus their mean under the policy."""
    phi = np.zeros((mdp.shape[1], mdp.shape[0]))
    phi[:, state] = np.eye(mdp.shape[1])[action] - softmax(logits(mdp, theta))[state]
    return np.concatenate([phi.flatten(), phi.sum(axis=1)])


def scores(mdp: MDP, theta: np.ndarray, episode: Episode) -> np.ndarray:
    """:return: the score of each step of an episode, one per row"""
    return np.array([score(mdp, theta, *step) for step in zip(episode.states, episode.actions, strict=True)])


def make_model(mdp: MDP, n_envs: int = 1, **options: Any) -> VPG:
    """:return: a ``VPG`` with random weights whose policy step equals the estimated gradient and whose critic never changes"""
    arguments: dict[str, Any] = {"learning_rate": 1.0, "max_grad_norm": float("inf"), "seed": 0, "device": "cpu"}
    arguments |= {"vf_learning_rate": 0.0, "n_critic_updates": 1, "policy_kwargs": {"optimizer_class": th.optim.SGD}}
    env = DummyVecEnv([lambda: TabularEnv(mdp)] * n_envs)
    if mdp.masks_SA is None:
        model = VPG("LinearPolicy", env, gamma=mdp.gamma, **{**arguments, **options})
    else:
        arguments["policy_kwargs"] = {**arguments["policy_kwargs"], "net_arch": {"pi": [], "vf": [8]}}
        model = MaskableVPG("MlpPolicy", env, gamma=mdp.gamma, **{**arguments, **options})
    set_parameters(model, np.random.default_rng(7).normal(scale=0.7, size=len(parameters(model))))
    model.set_logger(Logger(folder=None, output_formats=[Recorder()]))
    return model


class Recorder(KVWriter):
    """Keeps what a logger writes, one dict per dump."""

    def __init__(self) -> None:
        self.dumps: list[dict[str, Any]] = []

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        self.dumps.append(dict(key_values))


def play(model: VPG) -> None:
    """Collect one rollout, as ``learn()`` does."""
    _, callback = model._setup_learn(1, reset_num_timesteps=False)
    assert model.collect_rollouts(model.get_env(), callback, model.rollout_buffer, model.n_steps)


def parameters(model: VPG) -> np.ndarray:
    layer = model.policy.action_net
    return np.concatenate([layer.weight.detach().numpy().flatten(), layer.bias.detach().numpy()]).astype(float)


def set_parameters(model: VPG, theta: np.ndarray) -> None:
    layer = model.policy.action_net
    with th.no_grad():
        layer.weight.copy_(th.as_tensor(theta[: layer.weight.numel()]).reshape(layer.weight.shape))
        layer.bias.copy_(th.as_tensor(theta[layer.weight.numel() :]))


def policy_step(model: VPG) -> np.ndarray:
    """:return: the change of the parameters by ``train()``, which is undone"""
    before = parameters(model)
    model.train()
    step = parameters(model) - before
    set_parameters(model, before)
    return step


def fill(model: VPG, plays: Sequence[Sequence[Episode]], values_S: np.ndarray) -> None:
    """
    Put episodes into the model's buffer, row by row as collection does.

    :param plays: the episodes of each environment, in order. An environment that is done before the others goes on with steps
        that must not count; their high rewards would change the result
    :param values_S: the critic's value of each state
    """
    buffer = model.rollout_buffer
    buffer.reset()
    columns = [[(e.states[t], e.actions[t], e.rewards[t], t == 0) for e in play for t in range(len(e))] for play in plays]
    for row in range(max(map(len, columns))):
        steps = [column[row] if row < len(column) else (0, 0, 1e3, row == len(column)) for column in columns]
        states, actions, rewards, starts = map(np.array, zip(*steps, strict=True))
        if isinstance(buffer, EpisodeBuffer):
            buffer.mark_counted(np.array([row < len(column) for column in columns]))
        masks: Any = {}
        if isinstance(model, MaskableVPG):
            masks["action_masks"] = np.array(model.env.envs[0].unwrapped.mdp.masks_SA)[states]
        buffer.add(states, actions, rewards, starts, th.as_tensor(values_S[states]), th.zeros(len(plays)), **masks)
    if isinstance(buffer, EpisodeBuffer):
        buffer.truncate()


def expectation(
    mdp: MDP, theta: np.ndarray, n_episodes: int, estimate: Callable[[tuple[Episode, ...]], np.ndarray]
) -> np.ndarray:
    """:return: the expected value of an estimate from ``n_episodes`` episodes"""
    logits_SA, total, mass = logits(mdp, theta), np.zeros_like(theta), 0.0
    for together in itertools.product(episodes(mdp), repeat=n_episodes):
        probability = float(np.prod([episode.probability(logits_SA) for episode in together]))
        if probability == 0.0:
            # With an action that is not allowed
            continue
        total += probability * estimate(together)
        mass += probability
    assert abs(mass - 1.0) < 1e-12
    return total
