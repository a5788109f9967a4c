"""learn() and save() warn about everything that load() will refuse, and the file is written all the same."""

import threading
import warnings
from enum import IntEnum
from typing import Any

import numpy as np
import pytest
import torch as th
from helpers import RandomEnv, make_model, weights
from holding import Holding, Opaque, assert_loaded, build, with_attribute
from resumption import CrashAt, random_envs
from stable_baselines3.common.callbacks import BaseCallback
from torch import nn

from sb3_vpg import VPG, RandomSearch
from sb3_vpg.checkpoints.callback import TrainingCheckpoint
from sb3_vpg.exceptions import RefusedFileError


class Level(IntEnum):
    LOW = 1


def local_class() -> type:
    class Local(Holding):
        pass

    return Local


def circle() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


# A model, the warning, the custom_objects with which load() works
SETTINGS: dict[str, Any] = {
    "function": (lambda: make_model(learning_rate=lambda _: 0.01), "learning_rate is of the type", {"learning_rate": 0.01}),
    "layer": (
        lambda: make_model(policy_kwargs={"activation_fn": lambda: nn.LeakyReLU(0.1)}),
        r"policy_kwargs\['activation_fn'\] is of the type",
        {"policy_kwargs": {"net_arch": [8], "activation_fn": nn.LeakyReLU}},
    ),
    "local class": (
        lambda: build(cls=local_class()),
        r"policy_kwargs\['features_extractor_class'\] .*local_class.<locals>.Local",
        {"policy_kwargs": {"net_arch": [8], "features_extractor_class": Holding}},
    ),
    "random search": (
        lambda: with_attribute(RandomSearch("LinearPolicy", RandomEnv(), seed=0), object()),
        "mine is of the type builtins.object",
        {"mine": 1},
    ),
    "object": (lambda: with_attribute(make_model(), Opaque()), "mine is of the type .*Opaque", {"mine": 1}),
}
UNPICKLED: dict[str, Any] = {
    "circle": (lambda: with_attribute(make_model(), circle()), "mine is nested more than 300 deep", {"mine": 1}),
    "lock": (
        lambda: with_attribute(make_model(), threading.Lock()),
        "mine .*cannot be pickled either.*is left out",
        {"mine": 1},
    ),
    "generator": (
        lambda: with_attribute(make_model(), (number for number in ())),
        "mine .*cannot be pickled either.*is left out",
        {"mine": 1},
    ),
}


@pytest.mark.parametrize(("make", "says", "custom"), [*SETTINGS.values(), *UNPICKLED.values()], ids=[*SETTINGS, *UNPICKLED])
def test_learn_and_save_warn_once_about_what_load_refuses(make, says, custom, model_path):
    """The warning names the attribute and the custom_objects with which the file then loads."""
    model = make()
    name = next(iter(custom))
    advice = rf"load\(path, custom_objects={{'{name}': \.\.\.}}\)"
    with pytest.warns(UserWarning, match=f"{says}.*{advice}") as said:
        model.learn(32)
    assert len(said) == 1
    assert said[0].filename == __file__
    with pytest.warns(UserWarning, match=f"{says}.*{advice}") as said:
        model.save(model_path)
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.learn(32)
        model.save(model_path)
    with pytest.raises(RefusedFileError, match=name):
        type(model).load(model_path, device="cpu")
    loaded = type(model).load(model_path, device="cpu", custom_objects=custom)
    assert all(th.equal(value, weights(loaded)[key]) for key, value in weights(model).items())


@pytest.mark.parametrize(("make", "says", "custom"), SETTINGS.values(), ids=SETTINGS)
@pytest.mark.filterwarnings(r"ignore:load\(path\) alone will not read")
def test_pickled_settings_load_with_trust(make, says, custom, model_path):
    model = make()
    model.learn(32)
    model.save(model_path)
    assert_loaded(model, type(model).load(model_path, device="cpu", trust=True))


def test_checkpoint_warns_once_about_an_attribute_that_was_set_during_learning(tmp_path):
    model = make_model(env=random_envs())

    class Set(CrashAt):
        def _on_step(self) -> bool:
            self.model.mine = threading.Lock()
            return True

    with pytest.warns(UserWarning, match=r"mine .*is left out") as said:
        model.learn(200, [TrainingCheckpoint(tmp_path, 60, verbose=0), Set(0)])
    assert len(said) == 1
    assert len(list(tmp_path.iterdir())) == 2


class Changing(BaseCallback):
    """A callback whose state is not plain after 50 steps."""

    def _on_step(self) -> bool:
        return True

    def state_dict(self) -> dict[str, Any]:
        return {"mine": 1 if self.n_calls < 50 else object()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


def test_training_goes_on_if_a_checkpoint_cannot_be_written(tmp_path):
    with pytest.warns(UserWarning, match=r"no checkpoint could be written after .* Changing\['mine'\] is of the type"):
        model = make_model(env=random_envs()).learn(200, [TrainingCheckpoint(tmp_path, 60, verbose=0), Changing()])
    assert model.num_timesteps >= 200
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_64_steps.zip"]


def test_member_of_an_int_enumeration_is_saved_as_a_number_as_by_sb3(model_path):
    with_attribute(make_model(), Level.LOW).save(model_path)
    assert VPG.load(model_path, device="cpu").mine == 1


@pytest.mark.filterwarnings(r"ignore:load\(path\) alone will not read")
def test_method_that_was_replaced_on_the_object_loads_with_trust(model_path):
    """SB3 restores it too. Without trust, a file must not replace methods."""
    model = make_model()
    model.predict = lambda *args, **kwargs: (np.array(2), None)
    model.save(model_path)
    with pytest.raises(RefusedFileError, match="'predict', which would take the place of a method"):
        VPG.load(model_path, device="cpu")
    assert VPG.load(model_path, device="cpu", trust=True).predict(np.zeros(3))[0] == 2
    assert VPG.load(model_path, device="cpu", custom_objects={"predict": len}).predict([1, 2]) == 2


class WithModule(VPG):
    """A subclass with a second network beside the policy."""

    def _setup_model(self) -> None:
        super()._setup_model()
        self.world = nn.Linear(3, 3)

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        state_dicts, variables = super()._get_torch_save_params()
        return [*state_dicts, "world"], variables


def test_subclass_with_a_further_state_dict_loads_with_trust(model_path):
    model = WithModule("MlpPolicy", RandomEnv(), n_steps=16, device="cpu")
    with pytest.warns(UserWarning, match=r"world is a state dict that VPG does not have; load\(path, trust=True\)"):
        model.learn(32)
    with pytest.warns(UserWarning, match="world is a state dict"):
        model.save(model_path)
    with pytest.raises(RefusedFileError, match=r"'world\.pth', which no model of ours has"):
        WithModule.load(model_path, device="cpu")
    loaded = WithModule.load(model_path, device="cpu", trust=True)
    assert th.equal(loaded.world.weight, model.world.weight)


class Large(Holding):
    """A policy with a large buffer that is not saved."""

    def __init__(self, space: Any) -> None:
        super().__init__(space)
        self.register_buffer("table", th.zeros(6_000_000), persistent=False)


def test_policy_that_is_larger_than_its_weights_loads_with_trust(model_path):
    """The limit on memory is for untrusted files; its error names trust=True."""
    model = build(cls=Large)
    model.save(model_path)
    with pytest.raises(RefusedFileError, match=r"larger networks than it has weights; .*trust=True"):
        VPG.load(model_path, device="cpu")
    assert_loaded(model, VPG.load(model_path, device="cpu", trust=True))
