"""``model.predict`` equals ``policy.predict``, but is faster and has its own random stream."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from helpers import CONTINUOUS, RandomEnv, differing, make_model, weights
from sb3_loop import ACTIONS, OBSERVATIONS, POLICIES, RolloutRecorder, model_for
from scipy import stats
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_vpg import VPG

BROKEN = "NaN or infinite|Expected parameter"


def samples(model, count):
    """:return: observations of the model's space, stacked as a VecEnv stacks them"""
    space = model.observation_space
    space.seed(3)
    drawn = [space.sample() for _ in range(count)]
    if isinstance(space, spaces.Dict):
        return {key: np.stack([sample[key] for sample in drawn]) for key in space}
    return np.stack(drawn)


def first_of(observations):
    return {key: value[0] for key, value in observations.items()} if isinstance(observations, dict) else observations[0]


def assert_predicts_as_its_policy(model, observation):
    """Deterministic actions equal the policy's; sampled ones have the type and shape of the policy's."""
    state = (np.ones(1),)
    actions, passed = model.predict(observation, state, None, True)
    expected, _ = model.policy.predict(observation, deterministic=True)
    sampled, _ = model.predict(observation)
    assert passed is state
    assert type(actions) is type(expected)
    assert (actions.dtype, actions.shape) == (expected.dtype, expected.shape)
    sampled_by_torch, _ = model.policy.predict(observation)
    assert (sampled.dtype, sampled.shape) == (sampled_by_torch.dtype, sampled_by_torch.shape)
    if isinstance(model.action_space, spaces.Box):
        np.testing.assert_allclose(actions, expected, rtol=1e-5, atol=1e-6)
        for action in (actions, sampled):
            assert (action >= model.action_space.low).all()
            assert (action <= model.action_space.high).all()
    else:
        np.testing.assert_array_equal(actions, expected)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_predicts_as_its_policy_on_every_combination_of_spaces(observation, action):
    """The model predicts as its policy for one observation, for a batch, and for a batch of one."""
    model = model_for(observation, action)
    observations = samples(model, 40)
    assert_predicts_as_its_policy(model, observations)
    assert_predicts_as_its_policy(model, first_of(observations))
    assert_predicts_as_its_policy(model, samples(model, 1))


@pytest.mark.parametrize("action", ["discrete", "box"])
@pytest.mark.parametrize("policy", POLICIES)
def test_predicts_as_its_policy_with_every_policy(policy, action):
    """The model predicts as its policy before and after training, also for more observations than a block of rows."""
    model = model_for("box", "box_float64" if policy == "float64" and action == "box" else action, policy)
    assert_predicts_as_its_policy(model, samples(model, 2000))
    model.learn(30)
    assert_predicts_as_its_policy(model, samples(model, 2000))


def test_predicts_without_an_environment(model_path):
    """A model that was loaded without an environment predicts as its policy."""
    model_for("box", "box").save(model_path)
    assert_predicts_as_its_policy(VPG.load(model_path, device="cpu"), np.ones((2, 3), np.float32))


def test_predicts_with_gsde():
    """With gSDE the model predicts as its policy."""
    model = make_model(env=RandomEnv(action_space=CONTINUOUS), use_sde=True, policy_kwargs={"squash_output": True})
    assert_predicts_as_its_policy(model, np.ones((2, 3), np.float32))


def same_error(model, observation):
    """:return: the class of the error that model and policy raise, with the same message"""
    with pytest.raises(Exception) as expected:  # noqa: PT011  # its class is compared below
        model.policy.predict(observation)
    with pytest.raises(type(expected.value)) as actual:
        model.predict(observation)
    assert str(actual.value) == str(expected.value)
    return type(expected.value)


WRONG = {
    "too_long": ("box", np.zeros(4, np.float32)),
    "too_long_each": ("box", np.zeros((2, 4), np.float32)),
    "too_deep": ("box", np.zeros((2, 2, 3), np.float32)),
    "scalar": ("box", np.zeros((), np.float32)),
    "flattened": ("box_float64", np.zeros(4)),
    "deep_discrete": ("discrete", np.zeros((2, 1), int)),
    "short_multi_discrete": ("multi_discrete", np.zeros(1, int)),
    "flat_multi_binary": ("multi_binary", np.zeros(4, np.int8)),
}


@pytest.mark.parametrize(("observation", "wrong"), WRONG.values(), ids=WRONG.keys())
def test_wrong_shapes_raise_the_error_of_sb3(observation, wrong):
    """The error is SB3's, before and after a prediction for a correct observation."""
    model = model_for(observation)
    assert same_error(model, wrong) is ValueError
    model.predict(samples(model, 2))
    assert same_error(model, wrong) is ValueError


def test_the_tuple_of_gymnasiums_reset_raises_the_error_of_sb3():
    """``model.predict(env.reset())`` raises SB3's error, which explains this common mistake."""
    assert same_error(model_for(), (np.zeros(3, np.float32), {})) is ValueError


@pytest.mark.parametrize(
    ("observation", "value"), [("discrete", -1), ("discrete", 4), ("multi_discrete", [0, -1]), ("multi_discrete", [2, 0])]
)
def test_numbers_outside_a_discrete_space_are_refused(observation, value):
    """A negative number is not taken as an index from the end, and a large one is refused."""
    model = model_for(observation)
    with pytest.raises((RuntimeError, IndexError)):
        model.policy.predict(np.array(value))
    with pytest.raises(ValueError, match=r"are outside of (Multi)?Discrete"):
        model.predict(np.array(value))


@pytest.mark.parametrize("kind", ["list", "int", "float64", "integers", "not_contiguous", "reversed", "read_only"])
def test_accepts_the_observations_that_sb3_accepts(kind):
    """Lists, other number types and views of arrays are accepted; read-only arrays too, so nothing is written."""
    model = model_for("discrete" if kind == "int" else "box", "box")
    base = np.linspace(-1, 1, 12).reshape(4, 3)
    frozen = base.astype(np.float32)
    frozen.setflags(write=False)
    observation = {
        "list": [0.1, 0.2, 0.3],
        "int": 2,
        "float64": base,
        "integers": np.ones((2, 3), np.int64),
        "not_contiguous": np.asfortranarray(base.astype(np.float32))[::2],
        "reversed": base.astype(np.float32)[::-1],
        "read_only": frozen,
    }[kind]
    assert_predicts_as_its_policy(model, observation)


def test_predicted_actions_share_no_memory():
    """Writing into a predicted action changes neither the weights nor the bounds of the action space."""
    model = model_for("box", "box", "no_layers")
    observation = np.ones((2, 3), np.float32)
    before, (first, _) = weights(model), model.predict(observation, deterministic=True)
    kept = first.copy()
    first[:] = 77.0
    np.testing.assert_array_equal(model.predict(observation, deterministic=True)[0], kept)
    assert not differing(before, weights(model))
    assert model.action_space.high.max() == 1.0


@pytest.mark.parametrize("policy", ["tanh", "relu", "extractor"])
def test_sampled_actions_have_the_frequencies_of_the_policy(policy):
    """A chi-square test accepts torch's probabilities, for single observations and for a batch."""
    model = model_for("box", "discrete", policy)
    observation = np.array([0.5, -0.2, 0.9], np.float32)
    distribution = model.policy.get_distribution(th.as_tensor(observation[None])).distribution
    exact = distribution.probs[0].detach().double().numpy()
    for actions in (
        [int(model.predict(observation)[0]) for _ in range(2000)],
        model.predict(np.tile(observation, (20_000, 1)))[0],
    ):
        counts = np.bincount(actions, minlength=3)
        assert stats.chisquare(counts, exact / exact.sum() * counts.sum()).pvalue > 1e-3


def test_sampled_box_actions_have_the_distribution_of_the_policy():
    """A Kolmogorov-Smirnov test accepts the policy's normal distribution; hardly an action is clipped."""
    model = model_for("box", "box", "small_deviation")
    with th.no_grad():
        model.policy.action_net.bias.zero_()
        model.policy.action_net.weight.mul_(0.1)
    observation = np.array([0.5, -0.2, 0.9], np.float32)
    mean, _ = model.predict(observation, deterministic=True)
    actions, _ = model.predict(np.tile(observation, (20_000, 1)))
    for entry, middle in zip(actions.T, mean, strict=True):
        inside = np.abs(entry) < 0.5
        assert inside.mean() > 0.99
        assert stats.kstest(entry, stats.norm(middle, np.exp(-2.0)).cdf).pvalue > 1e-3


@pytest.mark.parametrize("action", ["discrete", "box", "multi_binary"])
def test_sampled_predictions_do_not_change_training(action):
    """Training with and without predictions in a callback ends with the same weights, to the last bit."""

    def evaluate(callback):
        for _ in range(callback.n_calls % 3):
            callback.model.predict(np.ones((4, 3), np.float32))
            callback.model.predict(np.ones(3, np.float32), deterministic=True)

    alone, evaluated = (model_for("box", action, "tanh", seed=2) for _ in range(2))
    alone.learn(90)
    evaluated.predict(np.ones(3, np.float32))
    evaluated.learn(90, callback=RolloutRecorder(evaluate))
    assert differing(weights(model_for("box", action, "tanh", seed=2)), weights(alone))
    assert not differing(weights(alone), weights(evaluated))


@pytest.mark.parametrize("action", ["discrete", "box"])
def test_a_seed_repeats_predictions_and_training(action):
    """The argument ``seed`` and ``set_random_seed`` repeat predictions and training; another seed gives others."""

    def run(seed, again):
        model = model_for("box", action, "tanh", seed=seed)
        if again:
            model.predict(np.ones((5, 3), np.float32))
            model.set_random_seed(seed)
        predicted = model.predict(np.ones((50, 3), np.float32))[0].tolist()
        model.learn(30)
        return predicted, model.rollout_buffer.actions.tolist()

    first, second, third, other = run(1, True), run(1, True), run(1, False), run(2, False)
    assert first == second
    assert third == run(1, False)
    assert third[0] == first[0]
    assert third[0] != other[0]
    assert third[1] != other[1]


@pytest.mark.parametrize("deterministic", [False, True], ids=["sampled", "likeliest"])
@pytest.mark.parametrize("broken", ["weight", "observation"])
@pytest.mark.parametrize("policy", ["tanh", "relu", "no_layers", "extractor"])
@pytest.mark.parametrize("action", ["discrete", "box"])
def test_nan_is_refused(action, policy, broken, deterministic):
    """NaN in a weight or in an observation raises ValueError."""
    model = model_for("box", action, policy)
    observations = np.ones((3, 3), np.float32)
    model.predict(observations)
    if broken == "weight":
        with th.no_grad():
            model.policy.action_net.weight[0, 0] = np.nan
    else:
        observations[1, 1] = np.nan
    with pytest.raises(ValueError, match=BROKEN):
        model.predict(observations, deterministic=deterministic)


def test_predict_sets_eval_mode():
    """``predict`` sets eval mode, as ``policy.predict`` does; in training mode a policy would use dropout."""
    model = make_model(env=DummyVecEnv([RandomEnv]))
    model.policy.set_training_mode(True)
    model.predict(np.ones(3, np.float32))
    assert not model.policy.training
    assert not any(module.training for module in model.policy.modules())
