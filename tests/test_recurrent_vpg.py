"""``RecurrentVPG`` as users know ``RecurrentPPO``: learning, files, prediction, callbacks, and what is refused."""

import pickle
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from helpers import CONTINUOUS, DICT, IMAGE, RandomEnv, differing, make_recurrent_model, vector_env, weights
from resumption import Crash, CrashAt, assert_same, disturb, random_envs
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from sb3_contrib.common.recurrent.buffers import RecurrentRolloutBuffer
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_vpg import VPG, MlpPolicy, RecurrentVPG
from sb3_vpg.checkpoints.callback import TrainingCheckpoint
from sb3_vpg.recurrent_policies import MlpLstmPolicy
from sb3_vpg.vec_env import make_vec_env

EPISODES = {"n_episodes": 2}
OPTIONS: dict[str, dict[str, Any]] = {
    "value": {},
    "value_episodes": EPISODES,
    "none": {"baseline": "none"},
    "average": {"baseline": "average", **EPISODES},
    "leave_one_out": {"baseline": "leave_one_out", "discount_steps": True, **EPISODES},
    "optimal": {"baseline": "optimal", **EPISODES},
    "total_return": {"baseline": "none", "reward_to_go": False, **EPISODES},
    "minibatches": {"batch_size": 7, "normalize_advantage": True, "ent_coef": 0.01},
}
SPACES: dict[str, tuple[str, dict[str, Any]]] = {
    "discrete": ("MlpLstmPolicy", {}),
    "box": ("MlpLstmPolicy", {"action_space": CONTINUOUS}),
    "multi_discrete": ("MlpLstmPolicy", {"action_space": spaces.MultiDiscrete([2, 3])}),
    "multi_binary": ("MlpLstmPolicy", {"action_space": spaces.MultiBinary(3)}),
    "discrete_observations": ("MlpLstmPolicy", {"observation_space": spaces.Discrete(4)}),
    "images": ("CnnLstmPolicy", {"observation_space": IMAGE}),
    "dict": ("MultiInputLstmPolicy", {"observation_space": DICT}),
}


def part(name: str) -> str:
    return ".".join(name.split(".")[: 2 if name.startswith("mlp_extractor") else 1])


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_every_baseline_learns(options: dict[str, Any]) -> None:
    """Every part of the policy changes, and the critic's parts if the baseline needs them."""
    model = make_recurrent_model(env=vector_env(2), **options)
    before = weights(model)
    model.learn(64)
    changed = {part(name) for name in differing(before, weights(model))}
    critic = {"lstm_critic", "mlp_extractor.value_net", "value_net"} if model.baseline == "value" else set()
    assert changed == {"lstm_actor", "mlp_extractor.policy_net", "action_net"} | critic


@pytest.mark.parametrize(("policy", "kinds"), SPACES.values(), ids=SPACES.keys())
def test_every_space_learns_saves_and_loads(policy: str, kinds: dict[str, Any], model_path: Any) -> None:
    model = make_recurrent_model(policy, vector_env(2, **kinds)).learn(64)
    model.save(model_path)
    loaded = RecurrentVPG.load(model_path, env=vector_env(2, **kinds), device="cpu")
    assert not differing(weights(model), weights(loaded))
    observation = model.observation_space.sample()
    np.testing.assert_array_equal(*(one.predict(observation, deterministic=True)[0] for one in (model, loaded)))
    loaded.learn(32)


STRUCTURES: dict[str, dict[str, Any]] = {
    "shared": {"shared_lstm": True, "enable_critic_lstm": False},
    "no_critic_lstm": {"enable_critic_lstm": False},
    "two_layers": {"n_lstm_layers": 2},
    "dropout": {"n_lstm_layers": 2, "lstm_kwargs": {"dropout": 0.1}},
}


@pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES.keys())
def test_contribs_structures_learn_save_and_load(structure: dict[str, Any], model_path: Any) -> None:
    model = make_recurrent_model(env=vector_env(2), policy_kwargs=structure).learn(64)
    model.save(model_path)
    assert not differing(weights(model), weights(RecurrentVPG.load(model_path, device="cpu")))


@pytest.mark.parametrize("sample_freq", [-1, 4])
def test_gsde_learns(sample_freq: int) -> None:
    env = vector_env(2, action_space=CONTINUOUS)
    model = make_recurrent_model(env=env, use_sde=True, sde_sample_freq=sample_freq)
    before = weights(model)
    assert "log_std" in differing(before, weights(model.learn(64)))


RESUMED: dict[str, Any] = {
    "n_steps": lambda: make_recurrent_model(env=random_envs(), learning_rate="lin_0.01"),
    "short_rollouts": lambda: make_recurrent_model(env=random_envs(3), n_steps=4, batch_size=7),
    "episodes": lambda: make_recurrent_model(env=random_envs(), n_episodes=2, baseline="leave_one_out"),
    "normalised": lambda: make_recurrent_model(env=VecNormalize(random_envs())),
    "no_critic": lambda: make_recurrent_model(env=random_envs(), n_steps=4, baseline="average"),
    "gsde": lambda: make_recurrent_model(env=random_envs(action_space=CONTINUOUS), use_sde=True, sde_sample_freq=4),
}


@pytest.mark.parametrize("build", RESUMED.values(), ids=RESUMED.keys())
def test_resumed_training_equals_uninterrupted_training(build: Any, tmp_path: Any) -> None:
    """Weights, optimisers, streams and the states of the LSTMs are equal to the last bit."""
    th.manual_seed(0)
    uninterrupted = build().learn(200, callback=TrainingCheckpoint(tmp_path / "uninterrupted", save_freq=60))
    th.manual_seed(0)
    with pytest.raises(Crash):
        build().learn(200, callback=[TrainingCheckpoint(tmp_path / "killed", save_freq=60), CrashAt(150)])
    disturb()
    resumed = build().learn(200, callback=TrainingCheckpoint(tmp_path / "killed", save_freq=60, verbose=0))
    assert_same(uninterrupted, resumed)
    for first, second in zip(uninterrupted._last_lstm_states, resumed._last_lstm_states, strict=True):
        np.testing.assert_array_equal(first, second)


def test_predict_takes_and_returns_the_states() -> None:
    """Step by step the actions are those of contrib's policy; without states, an episode begins."""
    model = make_recurrent_model(env=vector_env(3)).learn(64)
    observations = np.random.default_rng(0).normal(size=(9, 3, 3)).astype(np.float32)
    starts = np.zeros((9, 3), dtype=bool)
    starts[0], starts[4, 1] = True, True
    states = theirs = None
    for observation, start in zip(observations, starts, strict=True):
        actions, states = model.predict(observation, state=states, episode_start=start, deterministic=True)
        expected, theirs = model.policy.predict(observation, theirs, start, deterministic=True)
        np.testing.assert_array_equal(actions, expected)
        np.testing.assert_array_equal(states, theirs)
    fresh = model.predict(observations[8], deterministic=True)[1]
    assert not np.allclose(fresh, states)


class Echo(gym.Env[np.ndarray, int]):
    """Shows a bit in the first step, and asks for it in the third: only a policy with states has the return 1."""

    observation_space, action_space = spaces.Box(-1.0, 1.0, (1,), np.float32), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.bit, self.age = int(self.np_random.integers(2)), 0
        return np.array([2.0 * self.bit - 1.0], np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.age += 1
        over = self.age == 3
        return np.zeros(1, np.float32), float(over and action == self.bit), over, False, {}


@pytest.mark.parametrize(
    "options",
    [{"n_episodes": 4, "baseline": "leave_one_out"}, {"n_steps": 10, "gae_lambda": 1.0, "n_critic_updates": 4}],
    ids=["n_episodes", "n_steps"],
)
def test_it_learns_what_needs_memory(options: dict[str, Any]) -> None:
    """After 4,000 steps, SB3's evaluate_policy, which passes the states on, finds a policy that never errs."""
    env = DummyVecEnv([lambda: Monitor(Echo())] * 8)
    policy_kwargs = {"lstm_hidden_size": 8, "net_arch": []}
    settings = {"learning_rate": 0.01, "normalize_advantage": True, "seed": 1, "device": "cpu"}
    model = RecurrentVPG("MlpLstmPolicy", env, policy_kwargs=policy_kwargs, **settings, **options).learn(4000)
    assert evaluate_policy(model, env, n_eval_episodes=100)[0] == 1.0


def test_callbacks_tensorboard_and_normalised_observations(tmp_path: Any) -> None:
    env, eval_env = (VecNormalize(DummyVecEnv([lambda: Monitor(Echo())] * 2)) for _ in range(2))
    callback = EvalCallback(eval_env, eval_freq=8, log_path=str(tmp_path), best_model_save_path=str(tmp_path), verbose=0)
    model = make_recurrent_model(env=env, tensorboard_log=str(tmp_path))
    model.learn(64, callback=callback, log_interval=1)
    assert np.load(tmp_path / "evaluations.npz")["results"].size
    assert RecurrentVPG.load(tmp_path / "best_model.zip").num_timesteps > 0
    assert list(tmp_path.glob("RecurrentVPG_1/events*"))


def test_gymnasiums_vector_environments() -> None:
    model = make_recurrent_model(env=make_vec_env("CartPole-v1", 3, seed=0)).learn(96)
    mean, _ = evaluate_policy(model, make_vec_env("CartPole-v1", 3, seed=0), n_eval_episodes=3)
    assert mean > 0


def test_set_env_and_more_learning() -> None:
    """A new environment begins new episodes, whatever states the last one left."""
    model = make_recurrent_model(env=vector_env(2), n_steps=4).learn(8)
    assert all(np.abs(part).max() > 0 for pair in model._last_lstm_states for part in pair)
    # The same environment goes on with its states
    model.learn(8, reset_num_timesteps=False)
    assert model._first_states.pi[0].abs().max() > 0
    model.set_env(vector_env(2))
    model.learn(8, reset_num_timesteps=False)
    assert all(part.abs().max() == 0 for pair in model._first_states for part in pair)
    assert model.num_timesteps == 24


def test_a_model_loads_with_another_number_of_environments(model_path: Any) -> None:
    make_recurrent_model(env=vector_env(2), n_steps=4).learn(16).save(model_path)
    RecurrentVPG.load(model_path, env=vector_env(3), device="cpu").learn(24)


def test_a_model_can_be_pickled_and_copied() -> None:
    """Also in the middle of a rollout, as callbacks do."""

    class Copies(BaseCallback):
        def _on_step(self) -> bool:
            assert not differing(weights(self.model), weights(deepcopy(self.model)))
            return True

    model = make_recurrent_model(n_steps=4).learn(8, callback=Copies())
    assert not differing(weights(model), weights(pickle.loads(pickle.dumps(model))))


def test_a_compiled_policy_learns() -> None:
    model = make_recurrent_model(env=vector_env(2), n_steps=4)
    model.policy = th.compile(model.policy, backend="eager")
    before = weights(model)
    assert differing(before, weights(model.learn(16)))


def test_contribs_example_runs_with_one_word_changed(tmp_path: Any) -> None:
    """The example of contrib's documentation of RecurrentPPO, with fewer steps."""
    model = RecurrentVPG("MlpLstmPolicy", "CartPole-v1", verbose=0)
    model.learn(300)
    vec_env = model.get_env()
    mean_reward, _ = evaluate_policy(model, vec_env, n_eval_episodes=2, warn=False)
    assert mean_reward > 0
    model.save(tmp_path / "ppo_recurrent")
    del model
    model = RecurrentVPG.load(tmp_path / "ppo_recurrent")
    obs = vec_env.reset()
    lstm_states = None
    num_envs = 1
    episode_starts = np.ones((num_envs,), dtype=bool)
    for _ in range(10):
        action, lstm_states = model.predict(obs, state=lstm_states, episode_start=episode_starts, deterministic=True)
        obs, _, dones, _ = vec_env.step(action)
        episode_starts = dones
    assert np.shape(lstm_states) == (2, 1, 1, 256)


@pytest.mark.parametrize(
    ("argument", "advice"),
    [
        ({"n_epochs": 4}, "n_critic_updates"),
        ({"clip_range": 0.2}, "learning_rate"),
        ({"vf_coef": 0.5}, "vf_learning_rate"),
        ({"target_kl": 0.1}, "learning_rate"),
        ({"lstm_hidden_size": 8}, "policy_kwargs={'lstm_hidden_size': ...}"),
        ({"n_stepps": 4}, "did you mean 'n_steps'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_arguments_of_recurrent_ppo_alone_are_refused_with_their_counterpart(argument: dict, advice: str) -> None:
    with pytest.raises(TypeError, match=r"RecurrentVPG\(\) got an unexpected keyword") as refusal:
        RecurrentVPG("MlpLstmPolicy", "CartPole-v1", **argument)
    assert advice in str(refusal.value)


@pytest.mark.parametrize(
    ("policy", "options", "said"),
    [
        ("MlpPolicy", {}, "RecurrentVPG knows no policy 'MlpPolicy', only MlpLstmPolicy, CnnLstmPolicy"),
        (MlpPolicy, {}, "RecurrentVPG needs .* but got MlpPolicy. Use VPG"),
        (5, {}, "RecurrentVPG needs .* but got 5"),
        ("MlpLstmPolicy", {"rollout_buffer_class": RecurrentRolloutBuffer}, "rollout_buffer_class=RecurrentRolloutBuffer"),
        ("MultiInputLstmPolicy", {}, "cannot read observations .* use 'MlpLstmPolicy'"),
        ("MlpLstmPolicy", {"n_steps": 0}, "n_steps must be at least 1"),
    ],
    ids=["name", "class", "number", "buffer", "space", "n_steps"],
)
def test_what_it_cannot_train_is_refused(policy: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RecurrentVPG(policy, RandomEnv(), **options)


def test_vpg_names_the_class_for_other_policies() -> None:
    for policy in ("MlpLstmPolicy", RecurrentActorCriticPolicy):
        with pytest.raises(ValueError, match="RecurrentVPG"):
            VPG(policy, "CartPole-v1")
    with pytest.raises(ValueError, match="Use MaskableVPG"):
        VPG(MaskableActorCriticPolicy, "CartPole-v1")


def test_the_file_of_another_algorithm_is_refused(model_path: Any) -> None:
    make_recurrent_model().save(model_path)
    with pytest.raises(ValueError, match="RecurrentVPG"):
        VPG.load(model_path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_invalid_observation_is_named(value: float) -> None:
    class Broken(RandomEnv):
        def step(self, action: Any) -> Any:
            observation, *others = super().step(action)
            return (np.full_like(observation, value) if self.steps == 9 else observation, *others)

    env = DummyVecEnv([RandomEnv, Broken])
    with pytest.raises(ValueError, match=r"observation.*environment 1"):
        make_recurrent_model(env=env).learn(64)


@pytest.mark.parametrize("algorithm", [RecurrentVPG, RecurrentPPO])
def test_the_bias_of_forget_gates_lets_an_lstm_remember(algorithm: Any) -> None:
    """With 100, a cell that nothing enters keeps its memory; all other weights are those without the argument."""
    models = [
        algorithm(MlpLstmPolicy, RandomEnv(), policy_kwargs={"forget_gate_bias": bias}, seed=0, device="cpu")
        for bias in (None, 100.0)
    ]
    usual, remembering = map(weights, models)
    changed = {f"lstm_{who}.bias_{which}h_l0" for who in ("actor", "critic") for which in ("i", "h")}
    assert differing(usual, remembering) == changed
    lstm = models[1].policy.lstm_actor
    with th.no_grad():
        # Nothing enters
        lstm.bias_ih_l0[: lstm.hidden_size] = -100.0
        memory = th.randn(1, 1, lstm.hidden_size)
        _, (_, kept) = lstm(th.randn(50, 1, 3), (th.zeros_like(memory), memory))
    th.testing.assert_close(kept, memory)


@pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES.keys())
def test_the_policy_alone_can_be_saved(structure: dict[str, Any], tmp_path: Any) -> None:
    model = make_recurrent_model(policy_kwargs={"forget_gate_bias": 1.5, **structure})
    model.policy.save(tmp_path / "policy")
    loaded = MlpLstmPolicy.load(tmp_path / "policy")
    assert loaded.forget_gate_bias == 1.5
    observation = np.ones(3, np.float32)
    np.testing.assert_array_equal(*(one.predict(observation)[1] for one in (model.policy, loaded)))


@pytest.mark.parametrize("bias", [np.nan, "much"])
def test_a_forget_gate_bias_that_is_no_number_is_refused(bias: Any) -> None:
    with pytest.raises(ValueError, match="forget_gate_bias must be"):
        make_recurrent_model(policy_kwargs={"forget_gate_bias": bias})


def test_a_forget_gate_bias_of_lstms_without_biases_is_refused() -> None:
    without_biases = {"lstm_kwargs": {"bias": False}}
    make_recurrent_model(policy_kwargs=without_biases)
    with pytest.raises(ValueError, match=r"forget_gate_bias=0.0 needs biases, but lstm_kwargs has bias=False"):
        make_recurrent_model(policy_kwargs={**without_biases, "forget_gate_bias": 0})


def test_the_arguments_shared_with_recurrent_ppo_mean_the_same() -> None:
    """policy_kwargs of contrib's users build the same policy."""
    kwargs = {"lstm_hidden_size": 7, "n_lstm_layers": 2, "enable_critic_lstm": False, "net_arch": [5]}
    models = [cls("MlpLstmPolicy", RandomEnv(), policy_kwargs=kwargs, device="cpu") for cls in (RecurrentVPG, RecurrentPPO)]
    ours, theirs = ({name: value.shape for name, value in model.policy.state_dict().items()} for model in models)
    assert ours == theirs
