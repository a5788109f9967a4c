"""
VPG on a GPU learns what it learns on the CPU, and the CPU waits for it as rarely as it can.

The tests run on the CUDA device of the machine, if it has one, and everywhere on a pretended one (see ``pretended_gpu``).
"""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from helpers import (
    CONTINUOUS,
    DICT,
    IMAGE,
    RandomEnv,
    make_model,
    make_recurrent_model,
    sample_observations,
    silence,
    vector_env,
    weights,
)
from pretended_gpu import PretendedGpu
from resumption import Crash, CrashAt, disturb
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_vpg import VPG, RandomSearch
from sb3_vpg.checkpoints import TrainingCheckpoint

pytestmark = pytest.mark.filterwarnings("ignore:You are trying to run VPG on the GPU:UserWarning")
HAS_CUDA = th.cuda.is_available()
CUDA = pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not HAS_CUDA, reason="there is no CUDA device")])


@pytest.fixture(params=[CUDA, "pretended"])
def _gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """``device="cuda"`` is a GPU, with products in full single precision."""
    if request.param == "pretended":
        with PretendedGpu():
            yield
        return
    monkeypatch.setattr(th.backends.cudnn, "allow_tf32", False)
    yield


class OwnForward(ActorCriticPolicy):
    """Overrides ``forward``, so that it is called at each step."""

    def forward(self, obs: Any, deterministic: bool = False) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        return super().forward(obs, deterministic)


class FixedLength(RandomEnv):
    """All episodes have the same number of steps."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, *_, info = super().step(action)
        return observation, reward, self.age == self.length, False, info


def uneven() -> DummyVecEnv:
    """Environments whose episodes have different lengths, so that steps are masked while the others finish theirs."""
    return DummyVecEnv([lambda: FixedLength(2), lambda: FixedLength(5)])


def box() -> VecEnv:
    return vector_env(2, action_space=CONTINUOUS)


MODELS: dict[str, Any] = {
    "mlp": lambda **kw: make_model(env=vector_env(2), **kw),
    "mlp_box": lambda **kw: make_model(env=box(), ent_coef=0.01, normalize_advantage=True, **kw),
    "multi_binary": lambda **kw: make_model(env=vector_env(2, action_space=spaces.MultiBinary(3)), **kw),
    "cnn": lambda **kw: make_model("CnnPolicy", vector_env(2, observation_space=IMAGE), **kw),
    "multi_input": lambda **kw: make_model("MultiInputPolicy", vector_env(2, observation_space=DICT), **kw),
    "minibatches": lambda **kw: make_model(env=box(), batch_size=5, **kw),
    "episodes": lambda **kw: make_model(env=uneven(), **{"n_episodes": 2, **kw}),
    "episodes_average": lambda **kw: make_model(env=uneven(), n_episodes=2, baseline="average", **kw),
    "episodes_optimal": lambda **kw: make_model(env=uneven(), **{"n_episodes": 2, "baseline": "optimal", **kw}),
}
# They draw their noise from the device's own random stream, so actions on two devices differ
WITH_OWN_NOISE: dict[str, Any] = {
    "gsde": lambda **kw: make_model(env=box(), use_sde=True, sde_sample_freq=4, **kw),
    "gsde_episodes": lambda **kw: make_model(env=box(), use_sde=True, n_episodes=1, **kw),
    "own_forward": lambda **kw: make_model(OwnForward, box(), **kw),
    "own_forward_episodes": lambda **kw: make_model(OwnForward, box(), n_episodes=1, **kw),
}


def _as_dict(observations: Any) -> dict[str, th.Tensor]:
    return observations if isinstance(observations, dict) else {"": observations}


class Kept(BaseCallback):
    """Keeps the last rollout with the weights that played it, and the devices of the tensors in ``locals``."""

    def _on_step(self) -> bool:
        tensors = [*_as_dict(self.locals["obs_tensor"]).values(), self.locals["values"], self.locals["log_probs"]]
        self.devices = {one.device.type for one in tensors}
        return True

    def _on_rollout_end(self) -> None:
        self.buffer, self.parameters = deepcopy((self.model.rollout_buffer, self.model.get_parameters()))


def assert_close(first: VPG, second: VPG) -> None:
    """The weights are equal to the rounding of single precision, which Adam can enlarge."""
    on_cpu = [{name: value.cpu() for name, value in weights(model).items()} for model in (first, second)]
    th.testing.assert_close(*on_cpu, rtol=1e-3, atol=1e-4)


def assert_on(model: VPG, device: str) -> None:
    """Weights and moments are on this device. Adam keeps its count of steps on the CPU."""
    optimizers = [each for each in (model.policy.optimizer, model.critic_optimizer) if each is not None]
    moments = [
        state for each in optimizers for moment in each.state.values() for name, state in moment.items() if name != "step"
    ]
    tensors = [*model.policy.parameters(), *model.policy.buffers(), *moments]
    assert {one.device.type for one in tensors} == {device} == {model.device.type, model.rollout_buffer.device.type}


@pytest.mark.usefixtures("_gpu")
@pytest.mark.parametrize("name", MODELS)
def test_the_gpu_learns_the_weights_of_the_cpu(name: str) -> None:
    models = [MODELS[name](device=device).learn(96, log_interval=1) for device in ("cpu", "cuda")]
    for model, device in zip(models, ("cpu", "cuda"), strict=True):
        assert_on(model, device)
    assert_close(*models)


@pytest.mark.usefixtures("_gpu")
@pytest.mark.parametrize("name", WITH_OWN_NOISE)
def test_from_the_same_rollout_both_learn_the_same(name: str) -> None:
    model, cpu, kept = WITH_OWN_NOISE[name](device="cuda"), WITH_OWN_NOISE[name](device="cpu"), Kept()
    model.learn(64, kept)
    assert_on(model, "cuda")
    cpu.set_parameters(kept.parameters)
    cpu.rollout_buffer, cpu.rollout_buffer.device = kept.buffer, th.device("cpu")
    silence(cpu)
    # The schedules' progress, and the order of minibatches
    cpu._current_progress_remaining, cpu._rng = model._current_progress_remaining, deepcopy(model._rng)
    cpu.train()
    assert_close(model, cpu)


@pytest.mark.usefixtures("_gpu")
@pytest.mark.parametrize("name", ["mlp", "episodes", "gsde_episodes", "multi_input"])
def test_callbacks_see_tensors_of_the_gpu(name: str) -> None:
    """As with SB3's loop."""
    kept = Kept()
    {**MODELS, **WITH_OWN_NOISE}[name](device="cuda").learn(32, kept)
    assert kept.devices == {"cuda"}


@pytest.mark.usefixtures("_gpu")
def test_the_same_steps_are_masked() -> None:
    kept = {device: Kept() for device in ("cpu", "cuda")}
    for device, callback in kept.items():
        MODELS["episodes"](device=device).learn(20, callback)
    counted = [callback.buffer.counted for callback in kept.values()]
    assert counted[0].sum(axis=0).tolist() == [4, 10]
    np.testing.assert_array_equal(*counted)


@pytest.mark.usefixtures("_gpu")
@pytest.mark.parametrize("name", ["mlp_box", "cnn", "multi_input", "gsde"])
@pytest.mark.parametrize(("saved_on", "loaded_on"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_model_of_one_device_loads_on_the_other(name: str, saved_on: str, loaded_on: str, model_path: Path) -> None:
    """It predicts the same, and has the optimisers' state."""
    make = {**MODELS, **WITH_OWN_NOISE}[name]
    model = make(device=saved_on).learn(32)
    model.save(model_path)
    loaded = VPG.load(model_path, env=make().env, device=loaded_on)
    assert_on(loaded, loaded_on)
    assert_close(model, loaded)
    observations = {key: value.cpu().numpy() for key, value in _as_dict(sample_observations(model)).items()}
    batch = observations if name == "multi_input" else observations[""]
    actions = [each.predict(batch, deterministic=True)[0] for each in (model, loaded)]
    np.testing.assert_allclose(*actions, rtol=1e-3, atol=1e-5)
    loaded.learn(32)
    assert_on(loaded, loaded_on)


@pytest.mark.usefixtures("_gpu")
@pytest.mark.parametrize(("name", "resumed_on"), [("mlp_box", "cuda"), ("episodes", "cuda"), ("mlp_box", "cpu")])
def test_a_run_on_the_gpu_resumes(name: str, resumed_on: str, tmp_path: Path) -> None:
    """On the same device it ends as without the interruption; on the other one a warning names the device."""
    whole = MODELS[name](device="cuda").learn(128)
    with pytest.raises(Crash):
        MODELS[name](device="cuda").learn(128, [TrainingCheckpoint(tmp_path, save_freq=32), CrashAt(100)])
    disturb()
    resumed = MODELS[name](device=resumed_on)
    if resumed_on == "cuda":
        resumed.learn(128, TrainingCheckpoint(tmp_path))
    else:
        with pytest.warns(UserWarning, match="device cuda is cpu now"):
            resumed.learn(128, TrainingCheckpoint(tmp_path))
    assert_on(resumed, resumed_on)
    assert_close(whole, resumed)


@pytest.mark.usefixtures("_gpu")
def test_random_search_finds_the_same_on_the_gpu() -> None:
    found = [RandomSearch("LinearPolicy", box(), seed=0, device=device).learn(60) for device in ("cpu", "cuda")]
    assert found[1].policy.weights.device.type == "cuda"
    th.testing.assert_close(*(each.policy.weights.cpu() for each in found))
    assert found[0].best_return == pytest.approx(found[1].best_return)


def waits(name: str, n_rollouts: int = 2, **options: Any) -> int:
    """:return: how often the CPU waits for the pretended GPU in these rollouts and their updates"""
    with PretendedGpu() as gpu:
        model = MODELS[name](device="cuda", **options)
        n_steps = n_rollouts * model.n_steps * model.n_envs
        before = gpu.n_waits
        model.learn(n_steps, log_interval=100)
        return gpu.n_waits - before


@pytest.mark.parametrize("name", ["mlp_box", "cnn"])
def test_the_cpu_waits_once_for_each_step(name: str) -> None:
    """It needs the action, and nothing else; standard deviations come with it."""
    assert waits(name, n_steps=40) - waits(name, n_steps=24) == 2 * 16


@pytest.mark.filterwarnings("ignore:PyTorch was compiled without cuDNN:UserWarning")
def test_policies_with_memory_copy_only_the_action_at_each_step() -> None:
    """Log-probabilities and values of a rollout are copied at once. The other waits are those of sb3_contrib and of torch."""
    copies = []
    for n_steps in (24, 40):
        with PretendedGpu() as gpu:
            model = make_recurrent_model(env=uneven(), device="cuda", n_steps=n_steps)
            before = gpu.counts["from the GPU"]
            model.learn(2 * n_steps)
            copies.append(gpu.counts["from the GPU"] - before)
            assert_on(model, "cuda")
    assert copies[1] - copies[0] == 16


def test_the_cpu_does_not_wait_for_passes_of_the_critic() -> None:
    few, many = ({"n_critic_updates": number, "batch_size": 7} for number in (1, 5))
    assert waits("mlp", **few) == waits("mlp", **many)


def test_the_cpu_waits_once_for_the_products_of_all_episodes() -> None:
    """The baseline ``"optimal"`` needs two numbers of each episode."""

    def beyond_the_steps(n_episodes: int) -> int:
        # The longer episodes have five steps
        return waits("episodes_optimal", 1, n_episodes=n_episodes, n_steps=1) - 5 * n_episodes

    assert beyond_the_steps(2) == beyond_the_steps(6)


def test_the_pretended_gpu_refuses_what_a_gpu_refuses() -> None:
    with PretendedGpu() as gpu:
        tensor = th.ones(3, device="cuda", requires_grad=True)
        moved = th.nn.Linear(3, 2).to("cuda")
        for wrong in (lambda: tensor.detach().numpy(), lambda: tensor * th.ones(3), lambda: moved(th.ones(1, 3))):
            with pytest.raises((TypeError, RuntimeError), match=r"cuda:0"):
                wrong()
        moved(tensor[None]).sum().backward()
        assert tensor.grad.device.type == moved.weight.grad.device.type == "cuda"
        assert gpu.n_waits == 0
        assert float(tensor.detach().sum()) == 3.0
        assert tensor.cpu().device.type == "cpu"
        assert gpu.n_waits == 2
