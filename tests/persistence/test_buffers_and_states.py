"""Buffers and states of a policy and its optimisers come back, or learn() warns that they will not."""

import io
import pickle
from typing import Any

import numpy as np
import pytest
import torch as th
from helpers import RandomEnv, make_model, weights
from holding import BUFFERS, FOR_TRUST, Holding, Opaque, Remembering, assert_loaded, build, same, weights_and_more
from resumption import Crash, CrashAt, assert_same, disturb, random_envs
from stable_baselines3 import A2C
from tampering import tensors
from torch import nn

from sb3_vpg import VPG
from sb3_vpg.checkpoints.callback import TrainingCheckpoint
from sb3_vpg.exceptions import RefusedFileError
from sb3_vpg.persistence.archives import read_archive

KINDS = {name: (Holding, {"kind": name}) for name in BUFFERS}
KINDS |= {f"frozen {name}": (Holding, {"kind": name, "frozen": True}) for name in ("mask", "nan", "infinite number")}
KINDS |= {f"state: {name}": (Remembering, {"state": name}) for name in ("dict", "number")}


@pytest.mark.parametrize(("cls", "kwargs"), KINDS.values(), ids=KINDS)
def test_buffers_and_states_come_back_without_trust(cls, kwargs, model_path):
    """A2C loads a file of the same policy too. Only parameters are checked for NaN and infinite numbers."""
    a2c = build(A2C, cls, **kwargs).learn(32)
    a2c.save(model_path)
    assert_loaded(a2c, A2C.load(model_path, device="cpu"))
    model = build(VPG, cls, **kwargs).learn(32)
    model.save(model_path)
    loaded = VPG.load(model_path, env=RandomEnv(), device="cpu")
    assert_loaded(model, loaded)
    other = build(VPG, cls, **kwargs)
    other.set_parameters(model_path)
    assert_loaded(model, other)
    loaded.learn(32)


@pytest.mark.parametrize(
    "cls_kwargs", [KINDS["mask"], KINDS["frozen mask"], KINDS["complex"]], ids=["mask", "frozen", "complex"]
)
def test_killed_run_with_such_buffers_is_resumed(cls_kwargs, tmp_path):
    cls, kwargs = cls_kwargs
    whole = build(VPG, cls, random_envs(), **kwargs).learn(200)
    with pytest.raises(Crash):
        build(VPG, cls, random_envs(), **kwargs).learn(200, [TrainingCheckpoint(tmp_path, 60, verbose=0), CrashAt(150)])
    disturb()
    resumed = build(VPG, cls, random_envs(), **kwargs).learn(200, TrainingCheckpoint(tmp_path, 60, verbose=0))
    assert_same(whole, resumed)


TRUSTED = {name: (Holding, {"kind": name}) for name in FOR_TRUST}
TRUSTED |= {"state: set": (Remembering, {"state": "set"})}


@pytest.mark.parametrize(("cls", "kwargs"), TRUSTED.values(), ids=TRUSTED)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor", "ignore:.*quantiz", "ignore:TypedStorage is deprecated")
def test_learn_and_save_warn_about_tensors_that_only_load_with_trust(cls, kwargs, model_path):
    """Sparse, quantised and rare tensors need ``trust=True``."""
    model = build(VPG, cls, **kwargs)
    with pytest.warns(UserWarning, match=r"policy: .*features_extractor.*load\(path, trust=True\)"):
        model.learn(32)
    with pytest.warns(UserWarning, match=r"policy: .*features_extractor.*load\(path, trust=True\)"):
        model.save(model_path)
    with pytest.raises(RefusedFileError, match=r"policy\.pth"):
        VPG.load(model_path, device="cpu")
    assert_loaded(model, VPG.load(model_path, device="cpu", trust=True))


@pytest.mark.filterwarnings(r"ignore:load\(path\) alone will not read")
def test_killed_run_with_such_tensors_is_resumed_with_trust(tmp_path):
    def learn(folder: str, *callbacks: Any, trust: bool = True) -> VPG:
        checkpoint = TrainingCheckpoint(tmp_path / folder, 60, verbose=0, trust=trust)
        return build(VPG, Holding, random_envs(), kind="sparse").learn(200, [checkpoint, *callbacks])

    whole = learn("whole")
    with pytest.raises(Crash):
        learn("killed", CrashAt(150))
    disturb()
    with pytest.raises(RefusedFileError, match=r"no checkpoint in .* can be read"):
        learn("killed", trust=False)
    disturb()
    resumed = learn("killed")
    one, other = weights_and_more(whole), weights_and_more(resumed)
    assert all(same(one[key], other[key]) for key in one)


@pytest.mark.parametrize("state", ["object", "lock"])
def test_state_that_torch_cannot_read_is_left_out(state, model_path):
    """With it, A2C's file cannot be written or read. VPG saves the weights without it, and learn() warns."""
    stream, a2c = io.BytesIO(), build(A2C, Remembering, state=state)
    with pytest.raises((pickle.UnpicklingError, TypeError), match=r"Weights only|cannot pickle"):  # noqa: PT012  # either
        a2c.save(stream)
        A2C.load(stream)
    model = build(VPG, Remembering, state=state)
    with pytest.warns(UserWarning, match=r"_extra_state is a \w+, .*so it is left out"):
        model.learn(32)
    with pytest.warns(UserWarning, match="so it is left out"):
        model.save(model_path)
    with pytest.warns(UserWarning, match="_extra_state'.* are not among the weights"):
        assert_loaded(model, VPG.load(model_path, device="cpu"))
    other = build(VPG, Remembering, state=state)
    with pytest.warns(UserWarning, match="_extra_state'.* are not among the weights"):
        other.set_parameters(model_path)
    assert_loaded(model, other)


def test_weights_of_nan_load_with_trust_and_a_warning(model_path):
    """Without trust they are refused. SB3 loads them without a warning."""
    model = build()
    with th.no_grad():
        model.policy.value_net.bias.fill_(float("nan"))
    model.save(model_path)
    with pytest.raises(RefusedFileError, match=r"value_net\.bias has 1 numbers that are NaN or infinite"):
        VPG.load(model_path, device="cpu")
    other = build()
    before = weights(other)
    with pytest.raises(RefusedFileError, match=r"value_net\.bias has 1 numbers that are NaN or infinite"):
        other.set_parameters(model_path)
    assert all(th.equal(value, before[key]) for key, value in weights(other).items())
    with pytest.warns(UserWarning, match=r"has NaN weights: value_net\.bias"):
        assert_loaded(model, VPG.load(model_path, device="cpu", trust=True))


class Masked(Holding):
    """A policy with a mask of infinite numbers that is a parameter."""

    def __init__(self, space: Any) -> None:
        super().__init__(space)
        self.mask = nn.Parameter(nn.Transformer.generate_square_subsequent_mask(3))


def test_parameter_that_is_infinite_by_design_loads(model_path):
    """It may be infinite where that of a newly built policy is; one more infinite number is refused."""
    model = build(cls=Masked)
    model.save(model_path)
    assert_loaded(model, VPG.load(model_path, device="cpu"))
    other = build(cls=Masked)
    other.set_parameters(model_path)
    with th.no_grad():
        model.policy.features_extractor.mask[2, 0] = float("inf")
    model.save(model_path)
    for load in (lambda: VPG.load(model_path, device="cpu"), lambda: other.set_parameters(model_path)):
        with pytest.raises(RefusedFileError, match=r"features_extractor\.mask has 1 numbers that are NaN or infinite"):
            load()


def test_complex_weights_in_the_place_of_real_ones_are_refused():
    """Torch would drop the imaginary part and only warn."""
    model = make_model()
    parameters = model.get_parameters()
    parameters["policy"]["value_net.bias"] = parameters["policy"]["value_net.bias"].to(th.complex64)
    with pytest.raises(ValueError, match=r"value_net\.bias must be a tensor of real numbers"):
        model.set_parameters(parameters)


class Factored(th.optim.SGD):
    """An optimiser whose state has other shapes than its weights, as Shampoo's."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["preconditioner"] = th.eye(parameter.shape[0])
        return super().step(closure)


def test_state_of_an_optimiser_of_the_users_may_have_any_shape(model_path):
    model = make_model(policy_kwargs={"optimizer_class": Factored}).learn(32)
    model.save(model_path)
    loaded = VPG.load(model_path, env=RandomEnv(), device="cpu")
    th.testing.assert_close(loaded.critic_optimizer.state_dict(), model.critic_optimizer.state_dict(), rtol=0, atol=0)
    loaded.learn(32)


def test_numbers_of_numpy_among_the_optimisers_arguments_are_saved_as_pythons(model_path):
    """A search over ``np.logspace`` yields such numbers, which torch only reads with a pickle."""
    optimizer_kwargs = {"eps": np.float64(1e-5), "betas": (np.float64(0.5), np.float64(0.75)), "weight_decay": np.int64(0)}
    model = make_model(policy_kwargs={"optimizer_kwargs": optimizer_kwargs}).learn(32)
    model.save(model_path)
    loaded = VPG.load(model_path, env=RandomEnv(), device="cpu")
    assert {type(value) for value in loaded.policy.optimizer.param_groups[0]["betas"]} == {float}
    assert loaded.policy.optimizer.param_groups[0]["eps"] == 1e-5
    assert_loaded(model, loaded)


class Noting(th.optim.SGD):
    """An optimiser whose state holds an object."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["note"] = Opaque()
        return super().step(closure)


def test_state_of_an_optimiser_that_cannot_be_written_is_left_out(model_path):
    """``save`` warns; the weights come back, and the optimiser starts with an empty state."""
    model = make_model(policy_kwargs={"optimizer_class": Noting}).learn(32)
    with pytest.warns(UserWarning, match=r"policy\.optimizer: state.* is a Opaque, .*so it is left out"):
        model.save(model_path)
    loaded = VPG.load(model_path, env=RandomEnv(), device="cpu")
    assert_loaded(model, loaded)
    loaded.learn(32)


def first_group(state):
    return state["param_groups"][0]


BROKEN: dict[str, Any] = {
    "no_eps": (th.optim.Adam, {}, lambda state: first_group(state).pop("eps"), "has no eps"),
    "tensor_as_flag": (th.optim.Adam, {}, lambda state: first_group(state).update(maximize=th.zeros(3)), "ambiguous"),
    "list_as_weight_decay": (th.optim.Adam, {}, lambda state: first_group(state).update(weight_decay=[1]), "not list"),
    "number_as_betas": (th.optim.Adam, {}, lambda state: first_group(state).update(betas=0.5), "unpack"),
    "no_moment": (th.optim.Adam, {}, lambda state: state["state"][0].pop("exp_avg"), "'exp_avg'"),
    "list_as_moment": (th.optim.Adam, {}, lambda state: state["state"][0].update(exp_avg=[1.0]), "'list'"),
    "number_as_moment": (th.optim.Adam, {}, lambda state: state["state"][0].update(exp_avg_sq=th.zeros(())), "shape"),
    "moment_of_amsgrad": (th.optim.Adam, {}, lambda state: first_group(state).update(amsgrad=True), "'max_exp_avg_sq'"),
    "no_dampening": (th.optim.SGD, {"momentum": 0.9}, lambda state: first_group(state).pop("dampening"), "dampening"),
    "list_as_momentum": (th.optim.SGD, {}, lambda state: first_group(state).update(momentum=[0.9]), "list"),
}


@pytest.mark.parametrize("what", ["policy.optimizer", "critic_optimizer"])
@pytest.mark.parametrize(("cls", "kwargs", "change", "text"), BROKEN.values(), ids=BROKEN)
def test_state_with_which_an_optimiser_cannot_take_a_step_is_refused(cls, kwargs, change, text, what, model_path):
    """load() raises the error, not the first update of ``learn``."""
    model = make_model(policy_kwargs={"optimizer_class": cls, "optimizer_kwargs": kwargs}).learn(32)
    model.save(model_path)
    members = read_archive(model_path)
    hostile = tensors(what, change)(members, model_path)
    with pytest.raises(RefusedFileError, match=f"{what}.*{text}"):
        VPG.load(io.BytesIO(hostile))
    with pytest.raises(RefusedFileError, match=f"{what}.*{text}"):
        make_model(policy_kwargs={"optimizer_class": cls}).set_parameters(io.BytesIO(hostile))


def test_a_model_with_a_capturable_optimiser_loads_without_a_gpu(model_path):
    """With ``capturable=True``, Adam can only take a step on a GPU; loading takes none."""
    model = make_model(policy_kwargs={"optimizer_kwargs": {"amsgrad": True}}).learn(32)
    for group in model.policy.optimizer.param_groups:
        group["capturable"] = True
    model.save(model_path)
    loaded = VPG.load(model_path)
    assert loaded.policy.optimizer.param_groups[0]["capturable"] is True
    assert_loaded(model, loaded)


OF_TORCH = ("Adam", "AdamW", "Adamax", "NAdam", "RAdam", "Adagrad", "Adadelta", "Adafactor", "ASGD", "Rprop")


@pytest.mark.parametrize("cls", OF_TORCH)
def test_every_optimiser_of_torch_comes_back(cls, model_path):
    model = make_model(policy_kwargs={"optimizer_class": getattr(th.optim, cls)}).learn(32)
    model.save(model_path)
    loaded = VPG.load(model_path, env=RandomEnv())
    for what in ("policy.optimizer", "critic_optimizer"):
        states = [one.get_parameters()[what]["state"] for one in (loaded, model)]
        assert states[0]
        th.testing.assert_close(*states, rtol=0, atol=0)
    loaded.learn(16)
