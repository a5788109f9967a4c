"""Malicious files are refused by name: none of their code runs, and they do not fill the memory."""

import io
import json
import pickle
import re
import resource
import sys
import zipfile

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from helpers import CONTINUOUS, DICT, IMAGE, LinearExtractor, OddlyNamedPolicy, RandomEnv, UsersBuffer, make_model, vector_env
from hostile_pickles import name as named
from hostile_pickles import number, tensor
from malicious_files import HOSTILE, LISTS
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize
from tampering import (
    DISCRETE,
    Acting,
    Members,
    Payload,
    bytearray_pickle,
    evil_setting,
    good_model,
    importing,
    scalar,
    space,
    with_pickle,
)

from sb3_vpg import VPG, RandomSearch
from sb3_vpg.checkpoints.callback import TrainingCheckpoint
from sb3_vpg.checkpoints.files import latest, progress
from sb3_vpg.checkpoints.training_state import REQUIRED_KEYS
from sb3_vpg.exceptions import RefusedFileError
from sb3_vpg.normalization import load_vec_normalize
from sb3_vpg.persistence.archives import read_weights, write_archive
from sb3_vpg.persistence.json_codec import decode, encode


@pytest.fixture(scope="module")
def members():
    return good_model()


@pytest.fixture
def marker(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path / "executed"


def peak():
    """:return: the peak memory of this process in MB; the operating systems use different units"""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def opened(content: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def changed(path, member, change):
    """Change a member that is JSON."""
    members = opened(path.read_bytes())
    value = json.loads(members[member])
    change(value)
    path.write_bytes(write_archive({**members, member: json.dumps(value).encode()}))


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("name", HOSTILE)
def test_malicious_file_is_refused_by_name(name, members, marker, model_path):
    case = HOSTILE[name]
    model_path.write_bytes(case.build(members, marker))
    built, before = Acting.built, peak()
    with pytest.raises(RefusedFileError, match=case.says) as refusal:
        VPG.load(model_path, device="cpu")
    text = str(refusal.value)
    assert str(model_path) in text
    assert text.isprintable()
    assert len(text) < 2100
    assert not marker.exists()
    assert Acting.built == built
    assert peak() - before < 100


@pytest.mark.parametrize("name", ["pickle in weights", "NaN", "allowed call", "cut off", "references", "stowaway"])
def test_set_parameters_refuses_the_same_files(name, members, marker, model_path):
    model_path.write_bytes(HOSTILE[name].build(members, marker))
    with pytest.raises(RefusedFileError, match=HOSTILE[name].says):
        make_model().set_parameters(model_path)
    assert not marker.exists()


def test_the_model_that_was_changed_is_good(members, model_path):
    """Otherwise a refusal would prove nothing."""
    model_path.write_bytes(HOSTILE["words of its own"].build(members, model_path))
    assert VPG.load(model_path, custom_objects={"gamma": 0.5}, device="cpu").gamma == 0.5


def test_malicious_files_have_distinct_names_and_valid_advisories():
    assert len(HOSTILE) == sum(1 for part in LISTS for _ in part()) >= 150
    advisories = {case.advisory for case in HOSTILE.values() if case.advisory}
    assert {"CVE-2026-24747", "CVE-2025-32434", "CVE-2025-1944", "CVE-2025-1945", "CVE-2025-10156"} <= advisories
    pattern = r"CVE-20\d\d-\d{4,5}|GHSA(-[0-9a-z]{4}){3}|(PyTorch|CPython) (issue|pull) \d+"
    assert all(re.fullmatch(pattern, advisory) for advisory in advisories)


def test_pickle_of_the_same_parts_without_an_attack_is_read(members):
    """So a malicious pickle is refused because of its attack."""
    content = opened(with_pickle(members, b"\x80\x02}X\x01\x00\x00\x00a" + tensor() + b"s.", {"archive/data/0": bytes(96)}))
    assert read_weights(content["policy.pth"], "policy.pth", "model")["a"].shape == (8, 3)


@pytest.mark.parametrize(
    "kind", ["hidden member", "hidden bytes", "bytes before the directory", "second name", "flag of a header"]
)
def test_pythons_zip_reader_accepts_archives_that_we_refuse(kind, members, marker):
    assert set(opened(HOSTILE[kind].build(members, marker))) - {"best_model_0.zip"} == set(members)


def test_payloads_run_in_the_loaders_of_sb3_and_torch_and_with_trust(members, marker, model_path):
    """So a test above in which a payload does not run proves something."""
    load = BaseAlgorithm.load.__func__
    model_path.write_bytes(evil_setting(members, marker))
    with pytest.raises(ValueError, match="space"):
        load(VPG, model_path)
    marker.unlink()
    with pytest.raises(RefusedFileError):
        VPG.load(model_path, trust=True)
    marker.unlink()
    pickled = opened(with_pickle(members, pickle.dumps(Payload(marker), 2)))["policy.pth"]
    th.load(io.BytesIO(pickled), weights_only=False)
    marker.unlink()
    model_path.write_bytes(importing(members, marker))
    settings = {key: decode(value) for key, value in json.loads(members["data"]).items()}
    with pytest.raises(gym.error.Error):
        load(VPG, model_path, custom_objects=settings)
    marker.unlink()
    bomb = opened(with_pickle(members, bytearray_pickle(10**6)))["policy.pth"]
    assert len(th.load(io.BytesIO(bomb), weights_only=True)) == 10**6
    large = named("torch.storage", "UntypedStorage") + b"(" + number(10**6) + b"tR"
    bomb = opened(with_pickle(members, b"\x80\x02" + large + b"."))["policy.pth"]
    assert th.load(io.BytesIO(bomb), weights_only=True).nbytes() == 10**6


def test_setting_that_is_replaced_is_not_unpickled(members, marker, model_path):
    model_path.write_bytes(evil_setting(members, marker))
    assert VPG.load(model_path, custom_objects={"gamma": 0.5}, device="cpu").gamma == 0.5
    assert VPG.load(model_path, gamma=0.25, device="cpu").gamma == 0.25
    assert not marker.exists()


def test_random_search_refuses_a_file_that_would_fill_the_memory(model_path):
    """Two small numbers in the file decide the number of its weights, which is actions times features."""
    RandomSearch("LinearPolicy", RandomEnv(), seed=0).save(model_path)
    changed(model_path, "data", lambda data: data.update(action_space=space("Discrete", n=scalar(10**9), **DISCRETE)))
    before = peak()
    with pytest.raises(RefusedFileError, match="larger networks"):
        RandomSearch.load(model_path)
    assert peak() - before < 100


STATISTICS = {
    "text": ({"clip_obs": "x"}, "clip_obs must be a number"),
    "array": ({"clip_obs": encode(np.ones((1000, 1)))}, "clip_obs must be"),
    "NaN": ({"epsilon": float("nan")}, "epsilon must be"),
    "shape": ({"obs_rms": {"mean": [0.0], "var": [1.0], "count": 1}}, "observations have the shapes"),
    "variance": ({"ret_rms": {"mean": 0.0, "var": -1.0, "count": 1}}, "returns hold numbers"),
    "count": ({"ret_rms": {"mean": 0.0, "var": 1.0, "count": 0}}, "returns hold numbers"),
    "keys": ({"norm_obs_keys": 5}, "does not fit this environment"),
    "schedule": ({"gamma": {"!schedule": ["builtins:exec", {}]}}, "builtins:exec"),
}


@pytest.mark.parametrize(("change", "says"), STATISTICS.values(), ids=STATISTICS.keys())
def test_malicious_statistics_are_refused(change, says, model_path):
    make_model(env=VecNormalize(vector_env(2))).learn(32).save(model_path)
    changed(model_path, "vecnormalize.json", lambda state: state.update(change))
    with pytest.raises(RefusedFileError, match=says) as refusal:
        load_vec_normalize(model_path, vector_env(2))
    assert str(model_path) in str(refusal.value)


STATES = {
    "not a number": {"num_timesteps": "many"},
    "infinite": {"total_timesteps": float("inf")},
    "negative": {"num_timesteps": -1},
    "none": {"total_timesteps": 0},
    "best models": {"best_models": ["a", "b"]},
    "random stream": {"streams": {"training": {"!generator": ["MT19937", {"bit_generator": "MT19937", "state": 3}]}}},
    "kind": {"streams": {"!pickle": "x"}},
    "class": {"streams": {"!class": "subprocess:Popen"}},
}


@pytest.mark.parametrize("change", STATES.values(), ids=STATES.keys())
def test_malicious_checkpoints_are_refused(change, tmp_path):
    make_model().learn(32, TrainingCheckpoint(tmp_path, verbose=0))
    path = latest(tmp_path)
    changed(path, "training.json", lambda state: state.update(change))
    with pytest.raises(RefusedFileError, match=r"checkpoint_32_steps\.zip is no complete checkpoint"):
        progress(path)


@pytest.mark.parametrize("name", ["pickle in weights", "NaN", "allowed call", "cut off", "references", "stowaway"])
def test_checkpoints_refuse_what_models_refuse(name, members, marker, tmp_path):
    path = tmp_path / "checkpoint_32_steps.zip"
    parts = {**dict.fromkeys(REQUIRED_KEYS), "num_timesteps": 32, "total_timesteps": 32, "best_models": []}
    state = json.dumps(parts).encode()
    path.write_bytes(write_archive({**members, "training.json": state}))
    assert progress(path) == (32, 32)
    path.write_bytes(HOSTILE[name].build({**members, "training.json": state}, marker))
    # NaN is only refused beside a policy, whose buffers may hold it
    with pytest.raises(RefusedFileError, match=HOSTILE[name].says):
        make_model().learn(32, TrainingCheckpoint(tmp_path)) if name == "NaN" else progress(path)
    assert not marker.exists()


KINDS = {
    "mlp": lambda: make_model(),
    "cnn": lambda: make_model("CnnPolicy", RandomEnv(IMAGE)),
    "cnn_shared": lambda: make_model("CnnPolicy", RandomEnv(IMAGE), policy_kwargs={"share_features_extractor": True}),
    "multi_input": lambda: make_model("MultiInputPolicy", RandomEnv(DICT)),
    "linear": lambda: make_model("LinearPolicy", policy_kwargs={"net_arch": None}),
    "gsde": lambda: make_model(env=RandomEnv(action_space=CONTINUOUS), use_sde=True),
    "extractor": lambda: make_model(policy_kwargs={"features_extractor_class": LinearExtractor}),
    "users_policy": lambda: make_model(OddlyNamedPolicy),
    "users_buffer": lambda: make_model(rollout_buffer_class=UsersBuffer),
    "adafactor": lambda: make_model(policy_kwargs={"optimizer_class": th.optim.Adafactor}),
    "schedule": lambda: make_model(learning_rate=LinearSchedule(0.1, 0.0, 1.0)),
    "normalized": lambda: make_model(env=VecNormalize(vector_env(2))),
    "random_search": lambda: RandomSearch("LinearPolicy", RandomEnv(), seed=0),
}


def assert_predicts_as(model, loaded):
    for _ in range(5):
        observation = model.observation_space.sample()
        for one_model in (model, loaded):
            one_model.set_random_seed(3) if isinstance(one_model, VPG) else None
        actions = [each.predict(observation, deterministic=True)[0] for each in (model, loaded)]
        np.testing.assert_array_equal(*actions)


@pytest.mark.parametrize("steps", [0, 48], ids=["fresh", "trained"])
@pytest.mark.parametrize("build", KINDS.values(), ids=KINDS.keys())
def test_models_of_ours_need_no_trust(build, steps, model_path):
    """Every model without a function of the user's loads without ``trust`` and predicts the same."""
    model = build()
    if steps:
        model.learn(steps)
    model.save(model_path)
    assert_predicts_as(model, type(model).load(model_path, device="cpu"))


def test_statistics_of_vec_normalize_come_back_without_a_pickle(model_path):
    env = VecNormalize(vector_env(2))
    model = make_model(env=env).learn(64)
    model.save(model_path)
    restored = load_vec_normalize(model_path, vector_env(2))
    observations = np.ones((2, 3), dtype=np.float32)
    np.testing.assert_array_equal(restored.normalize_obs(observations), env.normalize_obs(observations))
    VPG.load(model_path, env=restored, device="cpu").learn(32)


@pytest.mark.parametrize("build", [KINDS["mlp"], KINDS["random_search"]], ids=["vpg", "random_search"])
def test_older_file_needs_trust(build, model_path):
    """SB3's own ``save`` pickles spaces and classes, and so did older versions of ours."""
    model = build()
    model.learn(48)
    BaseAlgorithm.save(model, model_path)
    with pytest.raises(RefusedFileError, match=r"pickles.*observation_space.*trust=True"):
        type(model).load(model_path, device="cpu")
    assert_predicts_as(model, type(model).load(model_path, device="cpu", trust=True))
