"""Saved models come back with their predictions, both optimisers and counters, and go on learning in the same way."""

import io
import json
import warnings
import zipfile

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from helpers import (
    CONTINUOUS,
    DICT,
    IMAGE,
    RandomEnv,
    UsersBuffer,
    differing,
    make_model,
    sample_observations,
    vector_env,
    weights,
)
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize

from sb3_vpg import VPG

# What rl_zoo3's enjoy passes to every load()
ZOO = {"learning_rate": 0.0, "lr_schedule": lambda _: 0.0, "clip_range": lambda _: 0.0}
MODELS = {
    "mlp": lambda: make_model(),
    "continuous": lambda: make_model(env=RandomEnv(action_space=CONTINUOUS)),
    "gsde": lambda: make_model(env=RandomEnv(action_space=CONTINUOUS), use_sde=True),
    "cnn": lambda: make_model("CnnPolicy", RandomEnv(IMAGE)),
    "cnn_shared": lambda: make_model("CnnPolicy", RandomEnv(IMAGE), policy_kwargs={"share_features_extractor": True}),
    "multi_input": lambda: make_model("MultiInputPolicy", RandomEnv(DICT)),
    "schedules": lambda: make_model(
        learning_rate="lin_0.01", vf_learning_rate=LinearSchedule(0.1, 0.0, 1.0), ent_coef="lin_0.1", batch_size=5
    ),
}
every_model = pytest.mark.parametrize("build", MODELS.values(), ids=MODELS.keys())


def states(model):
    return [optimizer.state_dict() for optimizer in (model.policy.optimizer, model.critic_optimizer)]


def saved_data(path):
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("data"))


@every_model
def test_weights_predictions_optimisers_and_counters_come_back(build, model_path):
    model = build().learn(48)
    model.save(model_path)
    loaded = VPG.load(model_path, device="cpu")
    assert not differing(weights(model), weights(loaded))
    th.testing.assert_close(states(loaded), states(model), rtol=0, atol=0)
    assert (loaded.num_timesteps, loaded._n_updates) == (48, 3)
    observations = sample_observations(model)
    if isinstance(observations, dict):
        observations = {key: value.numpy() for key, value in observations.items()}
    else:
        observations = observations.numpy()
    np.testing.assert_array_equal(
        model.predict(observations, deterministic=True)[0], loaded.predict(observations, deterministic=True)[0]
    )


@every_model
def test_loaded_model_learns_as_the_saved_one_does(build, model_path):
    """With environments and generators seeded alike, both models are bitwise equal afterwards."""
    model = build().learn(48)
    model.save(model_path)
    model.set_env(RandomEnv(model.env.envs[0].unwrapped.observation_space, model.action_space))
    loaded = VPG.load(
        model_path, env=RandomEnv(model.env.envs[0].unwrapped.observation_space, model.action_space), device="cpu"
    )
    before = weights(model)
    for one in (model, loaded):
        one.set_random_seed(11)
        one.learn(64, reset_num_timesteps=False)
        assert one.num_timesteps == 112
    assert differing(before, weights(model))
    assert not differing(weights(model), weights(loaded))
    th.testing.assert_close(states(loaded), states(model), rtol=0, atol=0)


@every_model
def test_construction_saving_and_loading_raise_no_warning(build, model_path):
    """A warning that every user sees would teach them to ignore warnings."""
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        build().save(model_path)
        VPG.load(model_path, env=None)
    assert not raised


def test_model_loads_with_another_number_of_environments(model_path):
    """An iteration then takes n_steps times the new number of steps."""
    make_model(env=vector_env(2)).learn(32).save(model_path)
    loaded = VPG.load(model_path, env=vector_env(5), device="cpu")
    assert loaded.rollout_buffer.observations.shape == (16, 5, 3)
    loaded.learn(160)
    assert loaded._n_updates == 1 + 160 // (16 * 5)


def test_model_loads_as_the_zoo_loads_it(model_path):
    """rl_zoo3's enjoy replaces settings, some of which VPG does not have; the model predicts as before and does not learn."""
    model = make_model(learning_rate="lin_0.01", vf_learning_rate=0.0).learn(48)
    model.save(model_path)
    loaded = VPG.load(model_path, env=RandomEnv(), custom_objects=ZOO, device="cpu")
    assert not differing(weights(model), weights(loaded))
    loaded.learn(48)
    assert not differing(weights(model), weights(loaded))


def test_exclude_and_include_select_the_settings_that_are_saved(model_path):
    """An excluded attribute has the constructor's default in the loaded model."""
    model = make_model(gamma=0.5, ent_coef=0.25)
    with pytest.warns(UserWarning, match="lr_schedule.*is pickled"):
        model.save(model_path, exclude=["gamma"], include=["lr_schedule"])
    assert "gamma" not in saved_data(model_path)
    assert "lr_schedule" in saved_data(model_path)
    loaded = VPG.load(model_path, env=RandomEnv(), custom_objects=ZOO, device="cpu")
    assert (loaded.gamma, loaded.ent_coef) == (0.99, 0.25)
    loaded.learn(32)


def test_arguments_of_load_override_what_was_saved(model_path):
    """The buffer's size, the schedules and the step sizes of the optimisers follow the new arguments."""
    make_model().save(model_path)
    loaded = VPG.load(
        model_path,
        env=RandomEnv(),
        device="cpu",
        n_steps=4,
        gamma=0.5,
        vf_learning_rate="lin_0.5",
        learning_rate=0.25,
        verbose=0,
    )
    assert (loaded.n_steps, loaded.rollout_buffer.buffer_size, loaded.rollout_buffer.gamma) == (4, 4, 0.5)
    assert loaded.vf_lr_schedule(0.5) == pytest.approx(0.25)
    loaded.learn(8)
    assert loaded.policy.optimizer.param_groups[0]["lr"] == 0.25
    assert loaded._n_updates == 2


def test_parameters_round_trip_under_their_documented_names():
    """``get_parameters`` names the policy and both optimisers; ``set_parameters`` makes another model equal."""
    model, other = make_model().learn(48), make_model(seed=1).learn(16)
    parameters = model.get_parameters()
    assert set(parameters) == {"policy", "policy.optimizer", "critic_optimizer"}
    other.set_parameters(parameters)
    assert not differing(weights(model), weights(other))
    th.testing.assert_close(states(other), states(model), rtol=0, atol=0)
    with pytest.raises(ValueError, match="critic_optimizer"):
        other.set_parameters({name: parameters[name] for name in ("policy", "policy.optimizer")})


@every_model
def test_saved_settings_hold_no_pickle(build, model_path):
    build().learn(32).save(model_path)
    assert not [key for key, value in saved_data(model_path).items() if ":serialized:" in str(value)]
    with zipfile.ZipFile(model_path) as archive:
        assert {"policy.pth", "policy.optimizer.pth", "critic_optimizer.pth"} <= set(archive.namelist())


def test_model_saves_to_and_loads_from_a_stream():
    model = make_model().learn(16)
    stream = io.BytesIO()
    model.save(stream)
    stream.seek(0)
    assert not differing(weights(model), weights(VPG.load(stream, device="cpu")))


def test_loaded_model_goes_on_with_the_statistics_of_its_vec_normalize(model_path, tmp_path):
    env = VecNormalize(vector_env(2))
    make_model(env=env).learn(64).save(model_path)
    env.save(str(tmp_path / "normalise.pkl"))
    restored = VecNormalize.load(str(tmp_path / "normalise.pkl"), vector_env(2))
    loaded = VPG.load(model_path, env=restored, device="cpu").learn(32)
    assert loaded.get_vec_normalize_env() is restored
    assert restored.obs_rms.count > env.obs_rms.count


def test_missing_file_is_a_file_not_found_error_that_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        VPG.load(tmp_path / "nowhere.zip")


def test_file_that_is_not_a_zip_archive_is_refused(model_path):
    model_path.write_bytes(b"PK\x03\x04 this is no archive")
    with pytest.raises(ValueError, match="zip"):
        VPG.load(model_path)


@pytest.mark.parametrize(
    "env",
    [RandomEnv(spaces.Box(-1.0, 1.0, (4,), np.float32)), RandomEnv(action_space=spaces.Discrete(5))],
    ids=["observations", "actions"],
)
def test_environment_with_other_spaces_is_refused(env, model_path):
    """load() and set_env() refuse it before a network gets a wrong shape."""
    model = make_model()
    model.save(model_path)
    with pytest.raises(ValueError, match="spaces do not match"):
        VPG.load(model_path, env=env)
    with pytest.raises(ValueError, match="spaces do not match"):
        model.set_env(env)


def test_an_attribute_that_holds_itself_is_left_out(model_path):
    """Neither JSON nor SB3's pickles can hold it; the rest is saved, and custom_objects must replace it in load()."""
    model = make_model()
    model.history = []
    model.history.append({"before": model.history})
    with pytest.warns(UserWarning, match="history is nested more than 300 deep.*is left out"):
        model.save(model_path)
    with pytest.raises(ValueError, match=r"could not hold history.*custom_objects={'history'"):
        VPG.load(model_path, device="cpu")
    assert VPG.load(model_path, device="cpu", custom_objects={"history": []}).history == []


def test_compiled_policy_saves_and_loads(model_path):
    """``th.compile(model.policy)`` changes neither the learned weights nor their names in the file."""
    # RMSprop, because NumPy fits a plain critic with Adam, and rounds differently
    kwargs = {"policy_kwargs": {"optimizer_class": th.optim.RMSprop}}
    plain, compiled = (make_model(rollout_buffer_class=UsersBuffer, **kwargs) for _ in range(2))
    compiled.policy = th.compile(compiled.policy, backend="eager")
    for model in (plain, compiled):
        model.set_random_seed(0)
        model.learn(32)
    compiled.save(model_path)
    loaded = VPG.load(model_path, env=RandomEnv(), device="cpu")
    assert not differing(weights(plain), weights(loaded))
    loaded.learn(16)


def test_learning_without_an_environment_is_refused(model_path):
    make_model().save(model_path)
    with pytest.raises(ValueError, match="there is no environment to learn from"):
        VPG.load(model_path).learn(1)
