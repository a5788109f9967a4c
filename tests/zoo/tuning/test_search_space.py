"""The search space of ``sb3-vpg optimize`` is conditional, VPG accepts all its points, and an entry can be one of them."""

import inspect
from typing import Any

import numpy as np
import optuna
import pytest
import yaml
from gymnasium import spaces
from helpers import CONTINUOUS, vector_env
from torch import nn

from sb3_vpg import VPG
from sb3_vpg.zoo.hyperparams import hyperparams_file
from sb3_vpg.zoo.tuning.search_space import ENTRY_UNCHANGED, convert_vpg_params, params_of, sample_vpg_params, suggest_n_envs

CRITIC = {"n_steps", "vf_learning_rate", "n_critic_updates", "critic_batch", "one_minus_gae_lambda", "use_sde"}
# Options that some baselines refuse
CONTRADICTING = {"n_episodes": 4, "reward_to_go": False, "discount_steps": True, "use_sde": True}
DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(VPG).parameters.items()} | {"policy_kwargs": None}
IDS = {"box": CONTINUOUS, "discrete": spaces.Discrete(2)}


def trials(n_actions: int, n_envs: int, count: int = 80) -> list[tuple[optuna.Trial, dict[str, Any]]]:
    sampler = optuna.samplers.TPESampler(multivariate=True, seed=n_envs, n_startup_trials=count // 2)
    study, drawn = optuna.create_study(sampler=sampler), []
    for _ in range(count):
        trial = study.ask()
        drawn.append((trial, sample_vpg_params(trial, n_actions, n_envs, {})))
        study.tell(trial, trial.params["learning_rate"])
    return drawn


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("space", IDS.values(), ids=list(IDS))
def test_no_draw_is_refused_by_vpg(space: spaces.Space[Any], n_envs: int) -> None:
    """Half of the draws are random, half are TPE's; each builds a model, although the entry has options that contradict it."""
    env = vector_env(n_envs, action_space=space)
    n_actions = 2 if isinstance(space, spaces.Box) else 0
    for _, drawn in trials(n_actions, n_envs):
        VPG("MlpPolicy", env, **{**CONTRADICTING, **drawn})


def test_hyperparameters_that_the_baseline_does_not_use_are_not_drawn() -> None:
    drawn = [trial.params for trial, _ in trials(2, 4)]
    assert {params["baseline"] for params in drawn} == {"value", "average", "leave_one_out", "none"}
    for params in drawn:
        critic = params["baseline"] == "value"
        assert CRITIC & params.keys() == (CRITIC if critic else set())
        assert ("n_episodes" in params) != critic
    assert not any("use_sde" in trial.params for trial, _ in trials(0, 4)), "gSDE is for continuous actions"


def test_both_schedules_and_an_entropy_bonus_of_exactly_zero_are_drawn() -> None:
    drawn = [hyperparams for _, hyperparams in trials(0, 4)]
    assert {isinstance(hyperparams["learning_rate"], str) for hyperparams in drawn} == {True, False}
    assert any(hyperparams["ent_coef"] == 0.0 for hyperparams in drawn)
    assert any(hyperparams["ent_coef"] > 0.0 for hyperparams in drawn)


def test_a_trial_survives_storage_and_conversion() -> None:
    """The stored parameters of a trial convert to its hyperparameters: ``--trial-id`` relies on it."""
    for trial, drawn in trials(2, 4):
        assert convert_vpg_params(trial.params) == drawn


def test_the_hyperparameters_of_a_trial_are_exact_in_yaml() -> None:
    """Drawn numbers have 17 digits, but a trial trains with the three digits that a readable file has."""
    for _, drawn in trials(2, 4):
        numbers = {name: value for name, value in drawn.items() if name != "policy_kwargs"}
        assert yaml.safe_load(yaml.safe_dump(numbers)) == numbers
        assert all(len(f"{value!r}") <= 9 for value in numbers.values() if isinstance(value, float)), numbers


def test_another_policy_keeps_its_networks() -> None:
    study = optuna.create_study()
    study.set_user_attr("policy", "LinearPolicy")
    trial = study.ask()
    drawn = sample_vpg_params(trial, 0, 4, {})
    assert {"net_arch", "policy_kwargs"}.isdisjoint({*trial.params, *drawn})
    VPG("LinearPolicy", vector_env(4), **drawn)


def entry(**changes: Any) -> dict[str, Any]:
    return {**DEFAULTS, "policy": "MlpPolicy", **changes}


CARTPOLE = {k: v for k, v in yaml.safe_load(hyperparams_file("vpg").read_text())["CartPole-v1"].items() if k in DEFAULTS}


@pytest.mark.parametrize(
    "hyperparams",
    [
        entry(),
        entry(**CARTPOLE),
        entry(policy="LinearPolicy"),
        entry(n_episodes=8, baseline="leave_one_out", learning_rate="1e-3"),
        entry(policy_kwargs={"net_arch": {"pi": [64, 64], "vf": [64, 64]}, "activation_fn": nn.Tanh}),
    ],
    ids=["defaults", "cartpole", "linear", "leave_one_out", "written_out"],
)
def test_entries_are_points_of_the_space(hyperparams: dict[str, Any]) -> None:
    """Drawing that point gives the same models, so a search can begin with the entry and learn from it."""
    params = params_of(hyperparams, n_envs=6, n_actions=0)
    assert params is not None
    study = optuna.create_study()
    study.set_user_attr("policy", hyperparams["policy"])
    study.enqueue_trial(params)
    trial = study.ask()
    assert suggest_n_envs(trial, 6) == 6
    drawn = sample_vpg_params(trial, 0, 6, {})
    given = {name: value for name, value in hyperparams.items() if name in {*drawn, "vf_learning_rate"} | {"n_steps"}}
    models = [VPG(hyperparams["policy"], vector_env(6), seed=1, **kwargs) for kwargs in (given, drawn)]
    for name in ("baseline", "n_episodes", "n_critic_updates", "gamma", "batch_size", "max_grad_norm", "ent_coef"):
        assert getattr(models[0], name) == getattr(models[1], name), name
    for schedule in ("lr_schedule", "vf_lr_schedule") if models[0].baseline == "value" else ("lr_schedule",):
        assert getattr(models[0], schedule)(0.3) == getattr(models[1], schedule)(0.3)
    for name, value in models[0].policy.state_dict().items():
        np.testing.assert_array_equal(value, models[1].policy.state_dict()[name], name)


@pytest.mark.parametrize(
    "changes",
    [
        {"gamma": 1.0},
        {"baseline": "optimal", "n_episodes": 4},
        {"n_episodes": 4},
        {"learning_rate": 1.0},
        {"reward_to_go": False, "baseline": "none", "n_episodes": 2},
        {"policy": "CnnPolicy"},
        {"vf_learning_rate": "lin_0.001"},
        {"policy_kwargs": {"net_arch": [8]}},
        {"learning_rate": lambda progress: 0.001},
    ],
    ids=["gamma", "optimal", "episodes_of_a_critic", "rate", "total_return", "images", "schedules", "network", "function"],
)
def test_hyperparameters_outside_the_space_have_no_point(changes: dict[str, Any]) -> None:
    assert params_of(entry(**changes), n_envs=4, n_actions=0) is None


def test_a_trial_of_the_unchanged_entry_draws_nothing() -> None:
    study = optuna.create_study()
    study.enqueue_trial({}, user_attrs={ENTRY_UNCHANGED: True})
    trial = study.ask()
    assert suggest_n_envs(trial, 5) == 5
    assert sample_vpg_params(trial, 0, 5, {}) == convert_vpg_params(trial.params) == {}
