"""Updates of ``RecurrentVPG``: without memory it is ``VPG``, and the critic's fit changes nothing that the policy reads."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from helpers import IMAGE, differing, make_recurrent_model, silence, vector_env, weights
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv

import sb3_vpg.envs  # noqa: F401  # registers TMaze-v0
from sb3_vpg import VPG, RecurrentVPG
from sb3_vpg.collection.buffers import full_batch

OPEN = 200.0
"""Bias of a gate that is open to the last bit; minus this, closed."""


def forget_everything(lstm: th.nn.LSTM) -> float:
    """Let an LSTM pass on binary features, without memory and frozen. :return: its output for 1; that for 0 is 0"""
    n_units = lstm.hidden_size
    with th.no_grad():
        for parameter in lstm.parameters():
            parameter.zero_().requires_grad_(False)
        enter, forget, _, out = lstm.bias_ih_l0.split(n_units)
        enter.fill_(OPEN)
        forget.fill_(-OPEN)
        out.fill_(OPEN)
        lstm.weight_ih_l0[2 * n_units : 3 * n_units] = th.eye(n_units)
    return float(th.tanh(th.tanh(th.tensor(1.0))))


class Scaled(gym.ObservationWrapper):
    """Multiplies observations by a number."""

    def __init__(self, env: gym.Env, factor: float) -> None:
        super().__init__(env)
        self.factor = np.float32(factor)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return observation * self.factor


CASES: dict[str, dict[str, Any]] = {
    "n_steps": {"n_steps": 40},
    "normalized": {"n_steps": 40, "normalize_advantage": True, "ent_coef": 0.01},
    "value_episodes": {"n_episodes": 2},
    "none": {"n_steps": 40, "baseline": "none"},
    "average": {"n_episodes": 2, "baseline": "average"},
    "leave_one_out": {"n_episodes": 2, "baseline": "leave_one_out", "discount_steps": True},
    "optimal": {"n_episodes": 2, "baseline": "optimal"},
    "total_return": {"n_episodes": 2, "baseline": "none", "reward_to_go": False},
}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
def test_with_an_lstm_that_passes_features_on_the_update_is_that_of_vpg(options: dict[str, Any]) -> None:
    """
    Features of the T-maze are 0 or 1. After an LSTM whose size is that of the features, they are 0 or a constant, as they are
    for VPG in a T-maze whose observations are multiplied by this constant.
    """
    settings = {"learning_rate": 0.01, "n_critic_updates": 3, "seed": 0, "device": "cpu", "gamma": 0.98, **options}
    env = make_vec_env("TMaze-v0", 3, env_kwargs={"corridor_length": 2}, seed=0)
    recurrent = RecurrentVPG("MlpLstmPolicy", env, policy_kwargs={"lstm_hidden_size": 3, "net_arch": [8]}, **settings)
    factor = forget_everything(recurrent.policy.lstm_actor)
    forget_everything(recurrent.policy.lstm_critic)
    scaled = make_vec_env("TMaze-v0", 3, wrapper_class=Scaled, wrapper_kwargs={"factor": factor})
    plain = VPG("MlpPolicy", scaled, policy_kwargs={"net_arch": [8]}, **settings)
    names = plain.policy.state_dict().keys()
    plain.policy.load_state_dict({name: recurrent.policy.state_dict()[name] for name in names})
    before = weights(plain)
    for model in (recurrent, plain):
        silence(model)
    _, callback = recurrent._setup_learn(1)
    for _ in range(3):
        recurrent.collect_rollouts(env, callback, recurrent.rollout_buffer, recurrent.n_steps)
        copy_rollout(recurrent, plain, factor)
        recurrent.train()
        plain.train()
        after = recurrent.policy.state_dict()
        for name in names:
            np.testing.assert_allclose(plain.policy.state_dict()[name], after[name], atol=1e-6, err_msg=name)
    critic = {name for name in names if "value" in name}
    assert differing(before, weights(plain)) == (set(names) if recurrent.baseline == "value" else set(names) - critic)


def copy_rollout(source: RecurrentVPG, target: VPG, factor: float) -> None:
    """Copy a rollout, with observations multiplied by a number, and compute the advantages in the copy anew."""
    names = ("actions", "rewards", "episode_starts", "values", "log_probs", "advantages", "returns")
    ours, theirs = source.rollout_buffer, target.rollout_buffer
    theirs.reset()
    for name in (*names, "counted") if source.n_episodes else names:
        setattr(theirs, name, getattr(ours, name).copy())
    theirs.observations = ours.observations * np.float32(factor)
    theirs.buffer_size, theirs.pos, theirs.full = ours.buffer_size, ours.pos, True
    if source.baseline == "optimal":
        # This baseline asks the policy for gradients
        target._compute_advantages(theirs)
        np.testing.assert_allclose(theirs.advantages, ours.advantages, atol=1e-5)


STRUCTURES: dict[str, dict[str, Any]] = {
    "separate": {},
    "shared": {"shared_lstm": True, "enable_critic_lstm": False},
    "no_critic_lstm": {"enable_critic_lstm": False},
}
CRITICS = {
    "separate": {"lstm_critic", "mlp_extractor.value_net", "value_net"},
    "shared": {"mlp_extractor.value_net", "value_net"},
    "no_critic_lstm": {"critic", "mlp_extractor.value_net", "value_net"},
}


def owner(name: str) -> str:
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "mlp_extractor" else parts[0]


@pytest.mark.parametrize("structure", STRUCTURES)
def test_each_optimizer_has_its_own_parameters(structure: str) -> None:
    """Autograd says which: an LSTM that both use belongs to the policy."""
    model = make_recurrent_model(policy_kwargs=STRUCTURES[structure])
    names = {parameter: name for name, parameter in model.policy.named_parameters()}
    held = [
        {owner(names[parameter]) for group in optimizer.param_groups for parameter in group["params"]}
        for optimizer in (model.critic_optimizer, model.policy.optimizer)
    ]
    assert held == [CRITICS[structure], {"lstm_actor", "mlp_extractor.policy_net", "action_net"}]


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("policy", ["MlpLstmPolicy", "CnnLstmPolicy"])
def test_the_critics_fit_changes_nothing_that_the_policy_reads(policy: str, structure: str) -> None:
    """With a step size of 0 for the policy, the critic's parts change, and log-probabilities stay the same to the last bit."""
    spaces = {"observation_space": IMAGE} if policy == "CnnLstmPolicy" else {}
    rates = {"learning_rate": 0.0, "vf_learning_rate": 0.01}
    model = make_recurrent_model(policy, vector_env(2, **spaces), policy_kwargs=STRUCTURES[structure], **rates)
    before = weights(model)
    model.learn(64)
    assert {owner(name) for name in differing(before, weights(model))} == CRITICS[structure]


def test_minibatches_of_the_critic_are_whole_sequences() -> None:
    """Each step is in one minibatch of a pass. No sequence is cut. A minibatch of several has up to batch_size steps."""
    model = make_recurrent_model(env=vector_env(3), n_episodes=3)
    silence(model)
    _, callback = model._setup_learn(1)
    model.collect_rollouts(model.get_env(), callback, model.rollout_buffer, model.n_steps)
    steps = model._steps(model.rollout_buffer)
    values = steps.values(model.policy)
    for size in (1, 6, 13, 1000):
        parts = list(steps.minibatch_indices(size, np.random.default_rng(0)))
        assert sorted(th.cat(parts).tolist()) == list(range(len(steps)))
        for part in parts:
            sequences = steps.sequences[part].unique()
            assert len(part) == th.isin(steps.sequences, sequences).sum()
            assert len(part) <= size or len(sequences) == 1
            # The values in a minibatch are those in the whole batch
            th.testing.assert_close(steps.take(part).values(model.policy), values[part])


def test_a_small_batch_size_takes_more_steps_of_the_critic() -> None:
    model = make_recurrent_model(env=vector_env(3), n_episodes=3, batch_size=6, n_critic_updates=2)
    model.learn(1)
    n_sequences = 9
    state = model.critic_optimizer.state[model.critic_optimizer.param_groups[0]["params"][0]]
    assert state["step"] == 2 * n_sequences


class ReadBuffer(BaseCallback):
    """Calls ``get()``, which reorders SB3's buffer, as some callbacks do."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        next(self.model.rollout_buffer.get())


@pytest.mark.parametrize("options", [{"n_steps": 10}, {"n_episodes": 2}], ids=["n_steps", "n_episodes"])
def test_a_callback_may_read_the_buffer(options: dict[str, int]) -> None:
    """The update is the same after ``get()``."""
    models = [make_recurrent_model(env=vector_env(3), **options) for _ in range(2)]
    for model, callback in zip(models, (None, ReadBuffer()), strict=True):
        th.manual_seed(0)
        model.learn(100, callback=callback)
    first, second = map(weights, models)
    for name, value in first.items():
        th.testing.assert_close(second[name], value, atol=1e-5, rtol=0)


class OwnEvaluateActions(RecurrentActorCriticPolicy):
    """A user's policy that computes its log-probabilities in another way."""

    def evaluate_actions(self, obs: Any, actions: Any, lstm_states: Any, episode_starts: Any) -> Any:
        values, log_prob, entropy = super().evaluate_actions(obs, actions, lstm_states, episode_starts)
        return values + 1.0, 2.0 * log_prob, entropy


def test_a_users_methods_are_used() -> None:
    """The update asks ``evaluate_actions``, as RecurrentPPO does, if a class overrides it."""
    model = make_recurrent_model(OwnEvaluateActions, vector_env(2))
    model.learn(32)
    steps = model._steps(model.rollout_buffer)
    log_prob, _ = steps.evaluate(model.policy, has_critic=False)
    values, own_log_prob, _ = steps.evaluate_actions(model.policy)
    th.testing.assert_close(log_prob, own_log_prob.flatten())
    th.testing.assert_close(steps.values(model.policy), values.flatten())


def test_more_rollouts_of_the_same_env_continue_their_sequences() -> None:
    """With n_steps shorter than an episode, later sequences begin with states that are not zero."""
    model = make_recurrent_model(env=DummyVecEnv([lambda: gym.make("CartPole-v1")]), n_steps=4)
    model.learn(12)
    assert not model.rollout_buffer.episode_starts[0, 0]
    states = model._steps(model.rollout_buffer, full_batch(model.rollout_buffer)).states
    assert all(part[:, 0].abs().max() > 0 for pair in states for part in pair)
