"""benchmarks/pendulum_300k.py: its environment is gymnasium's Pendulum-v1, and all algorithms play the same evaluation."""

from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    pendulum, rltools_run, training_run, program = map(
        import_module, ("harness.pendulum", "harness.rltools_run", "harness.training_run", "pendulum_300k")
    )


def test_a_step_is_that_of_gymnasium() -> None:
    """A whole episode of each environment from the same state, also with torques and speeds beyond their bounds."""
    env = pendulum.PendulumVectorEnv(32)
    env.reset(seed=1)
    env.speeds_N *= 8.0
    singles = [gym.make("Pendulum-v1") for _ in range(env.num_envs)]
    for single, angle, speed in zip(singles, env.angles_N, env.speeds_N, strict=True):
        single.reset()
        single.unwrapped.state = np.array([angle, speed])
    rng, fastest = np.random.default_rng(0), 0.0
    for _ in range(200):
        actions = rng.uniform(-3.0, 3.0, (env.num_envs, 1)).astype(np.float32)
        observations, rewards, terminated, truncated, info = env.step(actions)
        expected = [single.step(action) for single, action in zip(singles, actions, strict=True)]
        np.testing.assert_array_equal(observations, [step[0] for step in expected])
        np.testing.assert_allclose(rewards, [step[1] for step in expected], rtol=0, atol=1e-8)
        assert terminated.tolist() == [step[2] for step in expected]
        assert truncated.tolist() == [step[3] for step in expected]
        assert info == {}
        fastest = max(fastest, np.abs(observations[:, 2]).max())
    assert truncated.all()
    assert fastest == 8.0


def test_a_reset_draws_from_the_states_of_gymnasium_and_only_for_the_mask() -> None:
    env = pendulum.PendulumVectorEnv(20_000)
    env.reset(seed=1)
    for drawn, bound in ((env.angles_N, np.pi), (env.speeds_N, 1.0)):
        deciles = np.quantile(drawn, np.linspace(0, 1, 11))
        np.testing.assert_allclose(deciles, bound * np.linspace(-1, 1, 11), atol=0.03 * bound)
    before, mask = env.step(np.zeros((env.num_envs, 1)))[0], np.arange(env.num_envs) % 2 == 0
    after, _ = env.reset(options={"reset_mask": mask})
    assert (before[~mask] == after[~mask]).all()
    assert (before[mask] != after[mask]).any(axis=1).all()
    assert env.n_steps_N.tolist() == (1 - mask).tolist()


def test_vpg_sees_time_outs_and_scaled_rewards() -> None:
    env = program.new_vpg(seed=1).env
    env.reset()
    plain = pendulum.PendulumVectorEnv(env.num_envs)
    plain.reset(seed=1)
    actions = np.ones((env.num_envs, 1), dtype=np.float32)
    for _ in range(200):
        observations, rewards, dones, infos = env.step(actions)
        last, expected, *_ = plain.step(actions)
        np.testing.assert_allclose(rewards, program.REWARD_SCALE * expected, rtol=1e-6)
    assert dones.all()
    assert all(info["TimeLimit.truncated"] for info in infos)
    np.testing.assert_array_equal([info["terminal_observation"] for info in infos], last)
    assert (observations != last).any(axis=1).all()


def test_rltools_plays_the_episodes_of_the_others() -> None:
    """The same torque at each step, which is half of the largest one; RLtools' actions are shares of it."""
    state = SimpleNamespace(action=lambda observation: np.array([0.5], dtype=np.float32))
    model = SimpleNamespace(predict=lambda observations, deterministic: (np.ones((len(observations), 1), np.float32), None))
    theirs = rltools_run.evaluate(state, n_episodes=3, seed=training_run.EVALUATION_SEED)
    assert theirs == pytest.approx(training_run.evaluate(model, make_vec_env("Pendulum-v1", 3)), abs=1e-3)


def test_the_phases_of_a_training_are_all_of_it() -> None:
    parts = program.phase_shares(program.QUICK_STEPS)
    assert sum(parts.values()) == pytest.approx(1.0)
    assert all(share > 0.0 for share in parts.values())


def test_a_figure_of_another_machine_is_marked() -> None:
    for versions in ({}, {"rltools": "2.2.1"}, {"rltools": "2.2.1", "mkl": "2026"}):
        text = " ".join(program.about_rltools(versions))
        assert "0.57 s, on another machine" in text
        assert ("not measured" in text) == (not versions)
        assert ("without MKL" in text) == ("rltools" in versions and "mkl" not in versions)


def test_environments_that_are_not_installed_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(env_id: str, n_envs: int) -> None:
        raise ImportError("pip install something")

    monkeypatch.setitem(program.ENVIRONMENTS, "EnvPool, C++", missing)
    rates = program.environment_rates(seconds=0.0)
    assert list(rates) == ["NumPy", "DummyVecEnv"]
    assert min(rates.values()) > 0.0
