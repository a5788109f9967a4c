"""VPG refuses invalid arguments with errors that name them, in its constructor and in load() alike."""

import inspect
import math

import numpy as np
import pytest
from helpers import RandomEnv, make_model, weights
from hypothesis import given
from hypothesis import strategies as st
from sb3_contrib import TRPO
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3

from sb3_vpg import VPG
from sb3_vpg.common.arguments import CheckedSchedule, OnPolicyKwargs
from sb3_vpg.random_search import RandomSearch

INTEGERS = ["n_steps", "batch_size", "n_critic_updates"]
SCHEDULES = ["learning_rate", "vf_learning_rate", "ent_coef"]
REALS = [*SCHEDULES, "gamma", "gae_lambda", "max_grad_norm"]


@pytest.fixture(params=["constructor", "load"])
def build(request, model_path):
    """:return: a function from arguments to a model: the constructor, or load() of a saved model"""
    if request.param == "constructor":
        return lambda **kwargs: make_model(**kwargs)
    make_model().save(model_path)
    return lambda **kwargs: VPG.load(model_path, env=RandomEnv(), device="cpu", **kwargs)


@pytest.mark.parametrize("value", [0, -1, 2.5, 64.0, "8", float("nan"), math.inf], ids=repr)
@pytest.mark.parametrize("name", INTEGERS)
def test_counts_must_be_whole_and_at_least_one(build, name, value):
    """The message names the argument and the value. A float such as 64.0 is refused too."""
    with pytest.raises(ValueError, match=rf"{name} must be .*{value}"):
        build(**{name: value})


@pytest.mark.parametrize("name", ["n_steps", "n_critic_updates"])
def test_counts_cannot_be_left_out(build, name):
    """Only ``batch_size`` may be None."""
    with pytest.raises(ValueError, match=rf"{name} must be a whole number, but is None"):
        build(**{name: None})


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_of_numpy_are_accepted(build, name):
    """Searches over hyperparameters often yield them."""
    model = build(**{name: np.int64(4)})
    assert getattr(model, name) == 4
    model.learn(32)


@pytest.mark.parametrize("value", [float("nan"), -1e-9, -math.inf, math.inf], ids=str)
@pytest.mark.parametrize("name", REALS)
def test_coefficients_must_be_finite_and_not_negative(build, name, value):
    """The message names the argument and the value. Only ``max_grad_norm`` may be infinite, which means no bound."""
    if (name, value) == ("max_grad_norm", math.inf):
        assert build(max_grad_norm=math.inf).max_grad_norm == math.inf
        return
    with pytest.raises(ValueError, match=rf"{name}.* must be .*{value}"):
        build(**{name: value})


@pytest.mark.parametrize(("name", "value"), [("gamma", 1.01), ("gae_lambda", 1.5), ("max_grad_norm", 0.0)], ids=str)
def test_coefficients_beyond_their_range_are_refused(build, name, value):
    """Discounts are at most 1, and a gradient that is clipped to 0 teaches nothing."""
    with pytest.raises(ValueError, match=f"{name} must be"):
        build(**{name: value})


@pytest.mark.parametrize(("name", "value"), [("gamma", 1), ("gamma", 0), ("gae_lambda", 0.0), ("gae_lambda", 1.0)], ids=str)
def test_the_bounds_of_a_range_are_accepted(build, name, value):
    """0 and 1 give Monte-Carlo returns and one-step advantages."""
    build(**{name: value}).learn(32)


@pytest.mark.parametrize(
    "value", ["slow", "lin", "lin_", "lin_fast", "exp_0.1", "lin_-1", "lin_nan", "lin_inf", "_0.1", ""], ids=repr
)
@pytest.mark.parametrize("name", SCHEDULES)
def test_text_that_is_not_a_schedule_is_refused(build, name, value):
    """Only 'lin_<start>' is a schedule. The message names the argument."""
    with pytest.raises(ValueError, match=name):
        build(**{name: value})


@pytest.mark.parametrize("text", ["0.001", "1e-3"])
def test_text_of_a_number_is_a_number(build, text):
    """YAML reads 1e-3, without a point, as a text."""
    assert build(learning_rate=text).lr_schedule(0.5) == 1e-3


@pytest.mark.parametrize("name", ["normalize_advantage", "reward_to_go", "discount_steps"])
@pytest.mark.parametrize("value", ["False", 1, None], ids=repr)
def test_a_flag_is_true_or_false(build, name, value):
    """Python would treat the text 'False' as true."""
    with pytest.raises(ValueError, match=f"{name} must be True or False"):
        build(**{name: value})


@pytest.mark.parametrize("value", [[0.1], {}, object()], ids=["list", "dict", "object"])
@pytest.mark.parametrize("name", REALS)
def test_value_that_is_not_a_number_is_a_value_error_that_names_the_argument(build, name, value):
    with pytest.raises(ValueError, match=f"{name}.* must be a number"):
        build(**{name: value})


@pytest.mark.filterwarnings(r"ignore:load\(path\) alone will not read")
@pytest.mark.parametrize("bad", [float("nan"), -0.5, math.inf], ids=str)
@pytest.mark.parametrize("late", [False, True], ids=["at_once", "half_way"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_that_returns_an_invalid_value_is_refused(build, name, late, bad):
    """The constructor refuses an invalid first value; ``learn`` refuses a later one before it changes a weight."""

    def schedule(progress):
        return bad if progress <= 0.5 or not late else 0.01

    if not late:
        with pytest.raises(ValueError, match=rf"{name}.*progress 1.*{bad}|{name}.*{bad}.*progress 1"):
            build(**{name: schedule})
        return
    model = build(**{name: schedule})
    with pytest.raises(ValueError, match=rf"{name}.*progress 0.5.*{bad}|{name}.*{bad}.*progress 0.5"):
        model.learn(64)
    assert all(tensor.isfinite().all() for tensor in weights(model).values())


@pytest.mark.filterwarnings(r"ignore:load\(path\) alone will not read")
@pytest.mark.parametrize("name", SCHEDULES)
def test_linear_schedule_stays_at_zero_after_the_end_of_training(name):
    """``learn(20)`` takes 32 steps: SB3's remaining progress is -0.6 then, but the schedule gets 0."""
    progresses = []
    model = make_model(**{name: lambda progress: progresses.append(progress) or 0.01 * progress})
    model.learn(20)
    assert model._current_progress_remaining == pytest.approx(-0.6)
    assert min(progresses) == 0.0


@given(start=st.floats(0.0, 10.0), progress=st.floats(-5.0, 1.0))
def test_linear_text_is_a_straight_line_that_is_never_negative(start, progress):
    """'lin_x' goes from x at the start to 0 at the end, and stays there."""
    assert CheckedSchedule("learning_rate", f"lin_{start!r}")(progress) == pytest.approx(start * max(progress, 0.0), abs=1e-12)


@pytest.mark.filterwarnings(r"ignore:load\(path\) alone will not read")
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_form_of_a_schedule_trains(build, name):
    """A schedule may be a number, a text or a function."""
    for value in (0.01, "lin_0.01", lambda progress: 0.01 * progress, np.float32(0.01), 0):
        build(**{name: value}).learn(32)


def test_critic_has_the_step_size_of_the_policy_by_default():
    model = make_model(learning_rate="lin_0.4")
    assert [model.vf_lr_schedule(progress) for progress in (1.0, 0.5, -0.1)] == pytest.approx([0.4, 0.2, 0.0])


MISSPELT = {
    "learning_rat": "learning_rate",
    "nsteps": "n_steps",
    "n_critic_update": "n_critic_updates",
    "vf_learnig_rate": "vf_learning_rate",
    "entcoef": "ent_coef",
    "normalise_advantage": "normalize_advantage",
    "polcy_kwargs": "policy_kwargs",
    "sed": "seed",
}


@pytest.mark.parametrize(("wrong", "right"), MISSPELT.items(), ids=str)
def test_misspelt_argument_is_refused_with_the_most_similar_name(wrong, right):
    """The suggestion may be an argument of VPG or of SB3."""
    with pytest.raises(TypeError, match=rf"{wrong}.*did you mean '{right}'"):
        make_model(**{wrong: 1})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [("n_envs", r"make_vec_env\(env_id, n_envs="), ("lr", "step size of the policy is 'learning_rate'")],
)
def test_argument_that_belongs_elsewhere_is_refused_with_its_place(wrong, message):
    with pytest.raises(TypeError, match=f"{wrong}.*{message}") as refusal:
        make_model(**{wrong: 1})
    assert "did you mean" not in str(refusal.value)


def test_argument_that_resembles_no_other_is_refused_without_a_suggestion():
    with pytest.raises(TypeError, match="'xyzzy'") as refusal:
        make_model(xyzzy=1)
    assert "did you mean" not in str(refusal.value)


COUNTERPARTS = {
    "vf_coef": r"vf_learning_rate.*n_critic_updates",
    "n_epochs": "the policy takes one step per rollout; the critic's number of passes is 'n_critic_updates'",
    "clip_range": "nothing to bound; lower 'learning_rate'",
    "clip_range_vf": "nothing to bound",
    "target_kl": "nothing to bound",
    "use_rms_prop": "optimizer_class.*RMSprop",
    "rms_prop_eps": r"optimizer_kwargs': \{'eps'",
    "cg_max_steps": "without a line search",
    "line_search_max_iter": "without a line search",
    "sub_sampling_factor": "all steps of a rollout",
    "net_arch": r"policy_kwargs=\{'net_arch': ...\}",
    "optimizer_class": "policy_kwargs",
    "buffer_size": "replay buffer.*'n_steps'",
    "exploration_fraction": "replay buffer",
    "target_entropy": "replay buffer",
}


@pytest.mark.parametrize(("name", "message"), COUNTERPARTS.items(), ids=COUNTERPARTS)
def test_argument_of_another_algorithm_is_refused_with_its_counterpart(name, message):
    """The message does not suggest the most similar name."""
    with pytest.raises(TypeError, match=rf"got an unexpected keyword argument '{name}': .*{message}"):
        make_model(**{name: 1})


@pytest.mark.parametrize("algorithm", [A2C, PPO, TRPO, DQN, SAC, TD3])
def test_no_argument_of_another_algorithm_is_treated_as_misspelt(algorithm):
    """VPG either takes an argument of SB3's and sb3_contrib's algorithms, or says why it does not."""
    ours = {*inspect.signature(VPG).parameters, *OnPolicyKwargs.__annotations__}
    for name in set(inspect.signature(algorithm).parameters) - ours:
        with pytest.raises(TypeError, match=f"'{name}': "):
            make_model(**{name: 1})


@pytest.mark.parametrize("name", ["vf_coef", "n_epochs", "learning_rate", "net_arch", "buffer_size"])
def test_random_search_does_not_give_the_advice_of_vpg(name):
    """It has no critic and no step size."""
    with pytest.raises(TypeError, match=rf"^RandomSearch\(\) got an unexpected keyword argument '{name}'$"):
        RandomSearch("LinearPolicy", RandomEnv(), **{name: 1})


def test_random_search_suggests_the_name_of_a_misspelt_argument():
    with pytest.raises(TypeError, match="did you mean 'reward_threshold'"):
        RandomSearch("LinearPolicy", RandomEnv(), reward_treshold=1.0)
