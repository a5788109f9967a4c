"""benchmarks/real_tasks.py trains with the settings that its report names, and computes shares and goals correctly."""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_normalize

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    real_tasks, report, settings = map(import_module, ("real_tasks", "harness.task_report", "harness.task_settings"))

pytestmark = pytest.mark.filterwarnings("ignore:.*is out of date:DeprecationWarning", "ignore:builtin type:DeprecationWarning")
TRAININGS = [
    pytest.param(env_id, algorithm, entry, id=f"{env_id}-{name}".replace(" ", ""))
    for env_id in settings.VPG_ENTRIES
    for name, (algorithm, entry) in settings.entries(env_id).items()
]


@pytest.mark.parametrize(("env_id", "algorithm", "entry"), TRAININGS)
def test_a_model_has_the_settings_of_its_entry(env_id: str, algorithm: str, entry: dict[str, Any]) -> None:
    model = settings.new_model(env_id, algorithm, entry)
    normalizer = unwrap_vec_normalize(model.env)
    assert type(model).__name__ == algorithm
    assert model.n_envs == entry["n_envs"]
    assert model.env.env_is_wrapped(Monitor) == [True] * model.n_envs
    assert model.env.get_attr("render_mode") == [None] * model.n_envs
    assert (normalizer is not None) == bool(entry.get("normalize"))
    if normalizer is not None:
        assert normalizer.norm_obs == (entry["normalize"] is True)
        assert normalizer.norm_reward
        assert normalizer.gamma == model.gamma
    # PPO makes a function of clip_range
    numbers = {
        key: entry[key] for key in entry.keys() & vars(model).keys() - {"clip_range"} if not isinstance(entry[key], str)
    }
    assert {key: getattr(model, key) for key in numbers} == numbers
    if isinstance(entry.get("learning_rate"), str):
        assert model.lr_schedule(0.5) == pytest.approx(0.5 * float(entry["learning_rate"].removeprefix("lin_")))
    assert set(model.policy_kwargs) >= {key for key in ("log_std_init", "ortho_init") if key in entry.get("policy_kwargs", "")}


def test_the_bare_environments_start_a_new_episode_after_each_end(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    make = settings.gym.make

    def recorded(env_id: str) -> Any:
        made.append(settings.gym.wrappers.RecordEpisodeStatistics(make(env_id)))
        return made[-1]

    monkeypatch.setattr(settings.gym, "make", recorded)
    assert settings.bare_environments("CartPole-v1", 200)() == 200 * settings.N_ENVS
    # With random actions, an episode lasts about 22 steps
    assert all(5 <= env.episode_count <= 20 for env in made)
    assert len(made) == settings.N_ENVS


def test_environments_that_are_not_available_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    closed: list[VecEnv] = []
    monkeypatch.setattr(VecNormalize, "close", lambda env: closed.append(env))

    def missing(env_id: str, n_envs: int) -> VecEnv:
        raise ImportError("it is not installed")

    monkeypatch.setattr(real_tasks, "PARALLEL", {"other": (2, missing), "dummy": (2, settings.dummy)})
    rates = real_tasks.parallel("CartPole-v1", 0.0, 3)
    assert list(rates) == ["dummy"]
    assert len(rates["dummy"]) == 3
    assert "CartPole-v1: left out other: it is not installed" in capsys.readouterr().err
    assert len(closed) == 1


@pytest.fixture
def raw() -> dict[str, Any]:
    """Two rounds; the machine is twice as fast in the second."""
    rounds = np.array([1.0, 2.0])

    def rates(**numbers: float) -> dict[str, list[float]]:
        return {name: list(number * rounds) for name, number in numbers.items()}

    collection = rates(bare=1000, dummy=800, normalized=750, vpg=600, a2c=100, a2c_long=200)
    names = (report.BARE, report.DUMMY, report.NORMALIZED, report.VPG_NAME, report.A2C_DEFAULT, report.A2C_LONG)
    training = rates(bare=1000, VPG=300, A2C=60, PPO=30)
    return {
        "seconds": 0.5,
        "repetitions": 2,
        "collection": {"CartPole-v1": dict(zip(names, collection.values(), strict=True))},
        "training": {"CartPole-v1": {report.BARE: training.pop("bare"), **training}},
        "steps": {"CartPole-v1": {"VPG": 3, "A2C": 2, "PPO": 1}},
        "shares": {
            "CartPole-v1": {"collection": 0.5, "step of the policy": 0.1, "fit of the critic": 0.25, report.REST: 0.15}
        },
        "parallel": {"CartPole-v1": {"one": [5.0, 7.0]}, "Pendulum-v1": {"two": [8.0, 9.0]}},
        "settings": {"CartPole-v1": {"VPG": "n_envs 8"}},
    }


def test_ratios_shares_and_goals(raw: dict[str, Any]) -> None:
    lines = report.report(raw)
    assert "| CartPole-v1 | 1.5k | 900 | 150 | 450 | 90 | 45 |" in lines
    assert "| CartPole-v1 | 1,500 | 900 | 150 | 300 | 6.00 | 3.00 | 60% | 10% |" in lines
    assert "| CartPole-v1 | PPO | 1 | 45 | 3% | 10.0 |" in lines
    # In units of 1/6000 s, a step takes 6 of the environment, 7.5 with DummyVecEnv, 8 with VecNormalize, 10 with VPG
    assert "| CartPole-v1 | 60% | 15% | 5% | 20% |" in lines
    assert "| CartPole-v1 | 50% | 10% | 25% | 15% |" in lines
    assert "| one | 6 |  |" in lines
    assert "| two |  | 8 |" in lines
    goals = {goal.what: (goal.value, goal.met) for goal in report.goals(raw)}
    assert goals == {
        "CartPole-v1, collection, VPG / (A2C, n_steps=5)": (pytest.approx(6.0), True),
        "CartPole-v1, collection, VPG / bare environment": (pytest.approx(0.6), True),
    }
