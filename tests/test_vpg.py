"""How VPG learns: passes over a rollout, repeatability, broken numbers, and CartPole."""

import contextlib
import math
from collections import Counter

import numpy as np
import pytest
import torch as th
from helpers import CONTINUOUS, DICT, DISCRETE, RandomEnv, differing, make_model, vector_env, weights
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import sb3_vpg
from sb3_vpg import VPG


class SpyCritic:
    """Replaces ``evaluate_actions``, on whose values the critic is then fitted, and records the observations per batch."""

    def __init__(self, model: VPG) -> None:
        self.model, self.ask = model, model.policy.evaluate_actions
        self.evaluated: list[list[tuple[float, ...]]] = []
        model.policy.evaluate_actions = self

    def __call__(self, observations, actions):
        if self.model.policy.training:
            parts = list(observations.values()) if isinstance(observations, dict) else [observations]
            rows = th.cat([part.reshape(len(part), -1).float() for part in parts], dim=1)
            self.evaluated.append([tuple(row) for row in rows.tolist()])
        return self.ask(observations, actions)

    @property
    def batches(self) -> list[list[tuple[float, ...]]]:
        """The critic's batches; the first one of an update is the policy's."""
        return self.evaluated[1:]


class Rollouts(BaseCallback):
    """Records the observations of each rollout, and the weights before the update after it."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[tuple[float, ...]]] = []
        self.before_update: dict[str, th.Tensor] = {}

    def _on_rollout_start(self) -> None:
        self.before_update = weights(self.model)

    def _on_rollout_end(self) -> None:
        stored = self.model.rollout_buffer.observations
        parts = list(stored.values()) if isinstance(stored, dict) else [stored]
        rows = np.concatenate([part.reshape(16 * self.model.n_envs, -1) for part in parts], axis=1)
        self.rows.append([tuple(row) for row in rows.astype(np.float32).tolist()])

    def _on_step(self) -> bool:
        return True


# batch_size -> the sizes of the minibatches of 32 steps
MINIBATCH_SIZES = {None: [32], 1: [1] * 32, 5: [5, 5, 5, 5, 4, 4, 4], 16: [16, 16], 31: [16, 16], 32: [32], 1000: [32]}


@pytest.mark.parametrize("policy", ["MlpPolicy", "MultiInputPolicy"])
@pytest.mark.parametrize(("batch_size", "sizes"), MINIBATCH_SIZES.items(), ids=[f"batch_{size}" for size in MINIBATCH_SIZES])
def test_a_pass_of_the_critic_visits_every_step_exactly_once(batch_size, sizes, policy):
    """The minibatches are as few as possible, no larger than ``batch_size``, and their sizes differ by one at most."""
    env = vector_env(2, observation_space=DICT) if policy == "MultiInputPolicy" else vector_env(2)
    model = make_model(policy, env, n_critic_updates=3, batch_size=batch_size)
    spy, rollouts = SpyCritic(model), Rollouts()
    model.learn(32, callback=rollouts)
    assert [len(batch) for batch in spy.batches] == 3 * sizes
    for start in range(0, 3 * len(sizes), len(sizes)):
        visited = [row for batch in spy.batches[start : start + len(sizes)] for row in batch]
        assert Counter(visited) == Counter(rollouts.rows[0])


def test_minibatches_differ_between_passes():
    """Each pass has other minibatches."""
    model = make_model(env=vector_env(2), n_critic_updates=2, batch_size=16)
    spy = SpyCritic(model)
    model.learn(32)
    assert set(spy.batches[0]) != set(spy.batches[2])


@pytest.mark.parametrize(("batch_size", "critic_steps"), [(None, 4), (32, 4), (16, 8), (15, 12)], ids=str)
def test_number_of_optimizer_steps(batch_size, critic_steps):
    """In each iteration the policy takes one step, and the critic one per minibatch and pass."""
    model = make_model(env=vector_env(2), n_critic_updates=4, batch_size=batch_size).learn(96)
    for optimizer, expected in [(model.policy.optimizer, 3), (model.critic_optimizer, 3 * critic_steps)]:
        assert {int(state["step"]) for state in optimizer.state.values()} == {expected}
    assert model._n_updates == 3


class ObservationRewardEnv(RandomEnv):
    """The reward of a step is three times the first entry of the observation before it."""

    def reset(self, **kwargs):
        self.shown, info = super().reset(**kwargs)
        return self.shown, info

    def step(self, action):
        reward = 3.0 * self.shown[0]
        self.shown, _, *ending = super().step(action)
        return self.shown, float(reward), *ending


def test_minibatches_pair_every_observation_with_its_own_return():
    """With gamma=0 the return is a function of the observation, which the critic fits also with shuffled minibatches."""
    settings = {"learning_rate": 0.0, "vf_learning_rate": 0.01, "n_critic_updates": 200, "batch_size": 8}
    model = make_model(env=ObservationRewardEnv(), n_steps=32, gamma=0.0, **settings).learn(32)
    rollout = next(iter(model.rollout_buffer.get()))
    with th.no_grad():
        fitted = model.policy.predict_values(rollout.observations).flatten()
    assert th.mean((rollout.returns - fitted) ** 2) < 0.05 * rollout.returns.var()


SETTINGS = {"plain": {}, "minibatches": {"batch_size": 5}, "gsde": {"use_sde": True, "sde_sample_freq": 4}}


@pytest.mark.parametrize("kwargs", SETTINGS.values(), ids=SETTINGS.keys())
def test_a_seed_determines_the_result(kwargs):
    """The same seed gives the same weights to the last bit, and another seed gives others."""
    first, again, other = (
        weights(make_model(env=RandomEnv(action_space=CONTINUOUS), **{"seed": seed, **kwargs}).learn(64)) for seed in (4, 4, 5)
    )
    assert not differing(first, again)
    assert differing(first, other) == set(first)


def test_set_random_seed_repeats_training():
    """After ``set_random_seed`` the environments and the exploration repeat."""
    model, rewards = make_model(learning_rate=0.0), []
    for _ in range(2):
        model.set_random_seed(9)
        model.learn(16)
        rewards.append(model.rollout_buffer.rewards.copy())
    np.testing.assert_array_equal(*rewards)


BROKEN = {"nan": float("nan"), "inf": float("inf"), "minus_inf": -float("inf")}


@pytest.mark.parametrize("normalize_advantage", [False, True], ids=["raw", "normalized"])
@pytest.mark.parametrize("action_space", [DISCRETE, CONTINUOUS], ids=["discrete", "box"])
@pytest.mark.parametrize("reward", BROKEN.values(), ids=BROKEN.keys())
def test_broken_rewards_stop_training_before_they_reach_the_weights(reward, action_space, normalize_advantage):
    """The reward of step 40 is broken, so the third update is refused and all weights are those from before it."""
    env = RandomEnv(action_space=action_space, rewards=lambda step: reward if step == 40 else 1.0)
    model, rollouts = make_model(env=env, normalize_advantage=normalize_advantage), Rollouts()
    with pytest.raises(ValueError, match=r"iteration 3 \(after 48 steps\): the reward of environment 0 is \S+ at step 8"):
        model.learn(160, callback=rollouts)
    assert not differing(rollouts.before_update, weights(model))
    assert all(th.isfinite(tensor).all() for tensor in weights(model).values())


@pytest.mark.parametrize("reward", [1e15, 1e20, 1e30, 1e37], ids=str)
def test_huge_rewards_never_break_the_weights(reward):
    """If squares of rewards overflow, training continues or raises ValueError; weights and optimiser states stay finite."""
    model = make_model(env=RandomEnv(rewards=lambda _: reward))
    with contextlib.suppress(ValueError):
        model.learn(160)
    assert all(th.isfinite(tensor).all() for tensor in weights(model).values())
    for optimizer in (model.policy.optimizer, model.critic_optimizer):
        assert all(th.isfinite(value).all() for state in optimizer.state.values() for value in state.values())


@pytest.mark.parametrize(("layer", "who"), [("action_net", "policy"), ("value_net", "critic")], ids=["policy", "critic"])
def test_broken_gradient_is_refused_before_the_step(layer, who):
    """A finite loss with an infinite gradient is refused, since clipping would make the step 0 or NaN."""
    model = make_model(vf_learning_rate=0.0 if who == "policy" else None)
    getattr(model.policy, layer).weight.register_hook(lambda gradient: gradient * float("inf"))
    before = weights(model)
    with pytest.raises(ValueError, match=f"iteration 1 .*gradient norm of the {who} is"):
        model.learn(16)
    changed = differing(before, weights(model))
    assert not [name for name in changed if who == "policy" or "value" in name]


@pytest.mark.parametrize("validate", [True, False], ids=["torch_validates", "torch_does_not"])
def test_nan_observations_are_refused(validate, monkeypatch):
    """NaN in an observation raises a ValueError that names the iteration, also if torch does not validate distributions."""
    monkeypatch.setattr(th.distributions.Distribution, "_validate_args", validate)
    env = RandomEnv()
    sample = env.observation_space.sample
    env.observation_space.sample = lambda: sample() * (np.nan if env.steps == 19 else 1)
    model = make_model(env=env)
    with pytest.raises(ValueError, match="iteration 2"):
        model.learn(160)
    assert all(th.isfinite(tensor).all() for tensor in weights(model).values())


def test_evaluate_policy_accepts_the_model():
    """SB3's ``evaluate_policy`` accepts the model; an episode has six steps of reward 2."""
    model = make_model()
    mean, deviation = evaluate_policy(model, Monitor(RandomEnv(rewards=lambda _: 2.0)), n_eval_episodes=3)
    assert (mean, deviation) == (12.0, 0.0)


@pytest.mark.parametrize("name", sb3_vpg.__all__)
def test_public_names_are_importable(name):
    """Each name in ``__all__`` can be imported, although most are loaded on first use."""
    assert getattr(sb3_vpg, name) is not None
    assert name in dir(sb3_vpg)


def test_unknown_public_name_is_an_attribute_error():
    """A misspelt name raises AttributeError, although names are loaded on first use."""
    with pytest.raises(AttributeError, match="VGP"):
        _ = sb3_vpg.VGP


def test_the_policy_learns_a_bandit():
    """In a bandit where only action 1 of 3 is rewarded, its probability is above 0.9 after 100 updates."""
    env = RandomEnv()
    play = env.step
    env.step = lambda action: (play(action)[0], float(action == 1), True, False, {})
    model = make_model(env=env, n_steps=32).learn(3200)
    with th.no_grad():
        chances = model.policy.get_distribution(th.zeros(1, 3)).distribution.probs
    assert chances[0, 1] > 0.9


@pytest.mark.expensive
def test_defaults_solve_cartpole():
    """After 100,000 steps with default arguments, the mean return of 100 greedy episodes reaches CartPole's 475."""
    model = VPG("MlpPolicy", "CartPole-v1", seed=0, device="cpu").learn(100_000)
    mean, _ = evaluate_policy(model, make_vec_env("CartPole-v1", 20, seed=1000), n_eval_episodes=100)
    assert mean >= 475


def test_an_update_that_makes_weights_nan_is_undone():
    """An update with finite loss and gradient but NaN weights is undone; Adam with eps=0 divides 0 by 0 for dead units."""
    kwargs = {"activation_fn": th.nn.ReLU, "optimizer_kwargs": {"eps": 0.0}}
    model = VPG("MlpPolicy", "CartPole-v1", n_steps=32, seed=0, policy_kwargs=kwargs)
    before = weights(model)
    assert all(th.isfinite(tensor).all() for tensor in before.values())
    with pytest.raises(ValueError, match="diverged in iteration 1"):
        model.learn(300)
    assert not differing(before, weights(model))


def test_statistics_of_the_observations_survive_a_broken_one():
    """The statistics of VecNormalize stay finite, although a NaN reward would make all later ones NaN."""
    env = VecNormalize(DummyVecEnv([lambda: Monitor(RandomEnv(rewards=lambda n: math.nan if n > 50 else 1.0))]))
    model = VPG("MlpPolicy", env, n_steps=16, seed=0)
    with pytest.raises(ValueError, match="iteration 4"):
        model.learn(160)
    assert np.isfinite(env.ret_rms.var)
    assert np.isfinite(env.obs_rms.mean).all()
    # Three finite rollouts of 16 steps, and SB3's small initial count
    assert env.ret_rms.count == pytest.approx(48, abs=1)


class NanObservationEnv(RandomEnv):
    """Its 32nd observation after a step is NaN."""

    def step(self, action):
        observation, *rest = super().step(action)
        return (observation * math.nan if self.steps == 32 else observation, *rest)


def test_a_nan_observation_that_is_not_evaluated_does_not_reach_the_statistics():
    """Without a critic the last observation of a rollout is not evaluated, but NaN in it does not reach the statistics."""
    env = VecNormalize(DummyVecEnv([lambda: Monitor(NanObservationEnv())]))
    model = VPG("MlpPolicy", env, n_steps=16, seed=0, baseline="none")
    with pytest.raises(ValueError, match=r"iteration 2 .*observation \(entry 0\) of environment 0"):
        model.learn(64)
    assert np.isfinite(env.obs_rms.mean).all()


class RaiseInRollout(BaseCallback):
    """Raises a user's error in the middle of a rollout."""

    def _on_step(self) -> bool:
        raise ValueError("a wrong choice of distribution for my task")


def test_a_users_error_is_not_reported_as_a_divergence():
    """A user's ValueError is raised unchanged, although its text resembles torch's."""
    with pytest.raises(ValueError, match=r"^a wrong choice of distribution for my task$"):
        make_model().learn(64, RaiseInRollout())


class ReplacePolicy(BaseCallback):
    """Gives the model another policy in the middle of a rollout."""

    def _on_step(self) -> bool:
        self.model.policy = make_model().policy
        return True


def test_replacing_the_policy_in_a_rollout_is_refused():
    """Replacing the policy within a rollout is refused, since VPG would learn as if one policy had played."""
    with pytest.raises(ValueError, match="replaced in the middle of a rollout: do that before"):
        make_model().learn(64, ReplacePolicy())
