"""
examples/reinforce_notebook.py is the same system as the notebook's NumPy loop: an episode changes the weights by the same
amount, and the published weights reach the returns that the notebook claims.
"""

import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback

EXAMPLE = Path(__file__).parents[2] / "examples" / "reinforce_notebook.py"
example = SimpleNamespace(**runpy.run_path(str(EXAMPLE)))

LR = 0.000025
# The factor of a reward that comes ``time`` steps later
FACTORS = {"stands": lambda reward, time: 0.99**reward, "intended": lambda reward, time: 0.99**time}
readings = pytest.mark.parametrize("reading", FACTORS)


def score(state: np.ndarray, action: int, w: np.ndarray) -> np.ndarray:
    """:return: the gradient of an action's log-probability by ``w``, from the Jacobian of the softmax, shape (4, 2)"""
    exp = np.exp(state @ w)
    probs = exp / exp.sum()
    jacobian = np.diag(probs) - np.outer(probs, probs)
    return np.outer(state, jacobian[action] / probs[action])


def loop_gradient(w: np.ndarray, episode: list[tuple[np.ndarray, int, float]], reading: str) -> np.ndarray:
    """:return: the sum that the loop multiplies by its learning rate and adds to ``w``, in double precision, shape (4, 2)"""
    total = np.zeros_like(w)
    for start, (state, action, _) in enumerate(episode):
        rewards = [reward for _, _, reward in episode[start:]]
        total += score(state, action, w) * sum(reward * FACTORS[reading](reward, time) for time, reward in enumerate(rewards))
    return total


class Recorder(BaseCallback):
    """Records each episode, the weights that played it, and VPG's gradient; stops after ``n_episodes``."""

    def __init__(self, n_episodes: int) -> None:
        super().__init__()
        self.n_episodes = n_episodes
        self.episodes: list[list[tuple[np.ndarray, int, float]]] = []
        self.weights: list[np.ndarray] = []
        self.gradients: list[np.ndarray] = []

    def _on_rollout_start(self) -> None:
        layer = self.model.policy.action_net
        self.weights.append(layer.weight.detach().numpy().T.astype(float))
        if self.episodes:
            self.gradients.append(-layer.weight.grad.numpy().T.astype(float))  # VPG minimises
        self.episodes.append([])

    def _on_step(self) -> bool:
        state, action, reward = self.model._last_obs[0], self.locals["actions"][0], self.locals["rewards"][0]
        self.episodes[-1].append((state.astype(float), int(action), float(reward)))
        return len(self.episodes) <= self.n_episodes


def recorded(reading: str, seed: int, n_episodes: int) -> Recorder:
    record = Recorder(n_episodes)
    example.loop(reading, seed).learn(10**6, record)
    return record


@readings
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_episode_changes_the_weights_as_the_loop_does(reading, seed):
    """
    The gradient is compared by itself, because float32 weights round away much of a step of 2.5e-5 times the gradient; then
    the weights are compared.
    """
    record = recorded(reading, seed, n_episodes=5)
    rate = LR * 0.99 if reading == "stands" else LR
    for episode, w, taken, after in zip(record.episodes, record.weights, record.gradients, record.weights[1:], strict=False):
        expected = loop_gradient(w, episode, reading)
        assert len(episode) >= 8
        np.testing.assert_allclose(rate * taken, LR * expected, rtol=1e-6, atol=1e-6 * LR * np.abs(expected).max())
        np.testing.assert_allclose(after, w + LR * expected, rtol=0, atol=1e-7)


@readings
def test_the_two_readings_have_different_gradients(reading):
    """So the comparison above can fail."""
    record = recorded(reading, seed=1, n_episodes=1)
    (other,) = set(FACTORS) - {reading}
    w, episode = record.weights[0], record.episodes[0]
    gradient, other_gradient = loop_gradient(w, episode, reading), loop_gradient(w, episode, other)
    assert np.abs(gradient - other_gradient).max() > 0.01 * np.abs(gradient).max()


@readings
def test_fifty_consecutive_episodes_end_at_the_weights_of_the_loop(reading):
    """The loop is computed in double precision on the episodes that VPG played, from the notebook's initial weights."""
    record = recorded(reading, seed=1, n_episodes=50)
    w = np.random.RandomState(1).rand(4, 2)
    for episode in record.episodes[:50]:
        w += LR * loop_gradient(w, episode, reading)
    moved = np.abs(w - record.weights[0]).max()
    assert moved > 0.005
    np.testing.assert_allclose(record.weights[50], w, rtol=0, atol=1e-4 * moved)


def test_only_the_eight_weights_change():
    model = example.loop("stands", seed=1)
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    model.learn(200)
    moved = [name for name, value in model.policy.state_dict().items() if not value.equal(before[name])]
    assert moved == ["action_net.weight"]
    assert not model.policy.action_net.bias.any()


def test_the_published_weights_come_from_the_initial_weights_of_the_loop():
    """
    The gradient of a softmax sums to zero over the actions, so no step of the loop changes the sum of a row of ``w``. The
    published weights have the row sums of ``np.random.seed(1); np.random.rand(4, 2)`` in every printed digit.
    """
    start = np.random.RandomState(1).rand(4, 2)
    np.testing.assert_allclose(example.PUBLISHED.sum(axis=1), start.sum(axis=1), rtol=0, atol=2e-8)
    np.testing.assert_allclose(recorded("stands", 1, 5).weights[5].sum(axis=1), start.sum(axis=1), rtol=0, atol=1e-6)


def test_the_published_weights_play_nearly_perfectly():
    """
    The notebook says: "only 5000 iterations, it requires 20,000 to fully learn". With sampled actions, some episodes end
    before step 200; with the more probable action, none does.
    """
    sampled = example.replay(100, deterministic=False)
    assert example.interval(sampled)[0] > 190
    assert 0 < (sampled < 200).sum() <= 20
    np.testing.assert_array_equal(example.replay(100, deterministic=True), 200.0)


def test_training_stops_when_the_task_is_solved():
    """From the published weights, little more than the hundred episodes of the criterion are needed."""
    model = example.loop("stands", seed=1)
    example.set_weights(model, example.PUBLISHED)
    callback = example.UntilSolved(max_episodes=300)
    model.learn(10**6, callback)
    assert callback.solved
    assert 100 <= len(callback.returns) < 300
    assert np.mean(callback.returns[-100:]) >= 195
    # A reward of 1 per step
    assert sum(callback.returns) == model.num_timesteps


@pytest.mark.parametrize("reading", ["stands", "intended", "ours"])
def test_training_stops_after_max_episodes(reading):
    run = example.train(reading, seed=1, max_episodes=4)
    assert (run.solved, run.episodes) == (False, 4)
    assert 4 * 8 <= run.steps <= 4 * 200
    assert run.last == run.steps / 4


@pytest.mark.parametrize("arguments", [["train", "--episodes", "4"], ["replay", "--episodes", "2"]], ids=["train", "replay"])
def test_the_program_runs_without_a_warning(arguments):
    done = subprocess.run([sys.executable, "-W", "error", EXAMPLE, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert {"train": "not solved after 4 episodes", "replay": "over 2 episodes"}[arguments[0]] in done.stdout
