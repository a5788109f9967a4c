"""
The private names of Stable-Baselines3, gymnasium, rl_zoo3, multiprocessing and torch that the package relies on. Each check
states what we take one name for, so that an upgrade that changes it fails with a sentence and not with a puzzle.

Names on which only a fast path depends are in ``numpy_policy/test_private_torch_names.py``: without them torch does the work.
"""

import ast
import io
import re
import tempfile
import zipfile
from argparse import Namespace
from collections.abc import Callable
from importlib.metadata import version
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.vector.async_vector_env import AsyncState
from helpers import VECTOR, RandomEnv, silence
from rl_zoo3.exp_manager import ExperimentManager
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3 import A2C
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, StopTrainingOnMaxEpisodes
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy, BaseModel, BasePolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecCheckNan, VecMonitor, VecNormalize, VecVideoRecorder
from torch import nn

import sb3_vpg
from sb3_vpg.checkpoints.env_attributes import _NOT_STATE, present_attributes
from sb3_vpg.vec_env.gym_vec_env import make_vec_env

PACKAGE = Path(sb3_vpg.__file__).parent
SOURCES = {path.relative_to(PACKAGE.parent).as_posix(): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
DOCUMENTED = {"_on_step", "_exit", "_replace"}
"""Names of BaseCallback, ``os`` and named tuples: a library that documents them keeps them."""
CHECKS: dict[str, Callable[[], None]] = {}
"""From ``"Class._name"`` to a function that fails if the name is missing or does not mean what we take it for."""


def takes(*names: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register a check of these names."""

    def register(check: Callable[[], None]) -> Callable[[], None]:
        CHECKS.update(dict.fromkeys(names, check))
        return check

    return register


def calls(caller: Any, name: str) -> bool:
    """:return: True if this function of a library uses ``self._name``: a method that we override is then reached"""
    return name in caller.__code__.co_names


def vec_env() -> DummyVecEnv:
    return DummyVecEnv([RandomEnv] * 2)


def model(env: Any = None, **kwargs: Any) -> A2C:
    return A2C("MlpPolicy", vec_env() if env is None else env, n_steps=4, device="cpu", **kwargs)


def begun(env: Any = None) -> A2C:
    """:return: a model at the start of ``learn(8)``"""
    learner = model(env)
    learner._setup_learn(8, None)
    return learner


@takes("BaseAlgorithm._setup_learn", "OnPolicyAlgorithm._last_obs", "OnPolicyAlgorithm._last_episode_starts")
def first_observations() -> None:
    learner = model()
    total, callback = learner._setup_learn(8, None, True, "run", False)
    assert total == 8
    assert isinstance(callback, BaseCallback)
    assert learner._last_obs.shape == (2, 3)
    assert learner._last_episode_starts.tolist() == [True, True]


@takes("BaseAlgorithm._init_callback")
def callbacks_of_learn() -> None:
    assert calls(BaseAlgorithm._setup_learn, "_init_callback")
    learner = model()
    callback = learner._init_callback([StopTrainingOnMaxEpisodes(1)], False)
    assert callback.model is learner


@takes("BaseAlgorithm._last_original_obs", "BaseAlgorithm._vec_normalize_env")
def normalized() -> None:
    env = VecNormalize(vec_env())
    learner = begun(env)
    assert learner._vec_normalize_env is env
    np.testing.assert_array_equal(learner._last_original_obs, env.get_original_obs())
    assert not np.array_equal(learner._last_original_obs, learner._last_obs)


@takes("BaseAlgorithm._total_timesteps", "BaseAlgorithm._num_timesteps_at_start", "BaseAlgorithm._n_updates")
def counters() -> None:
    learner = model().learn(16)
    assert learner._n_updates == 2
    learner._setup_learn(8, None, reset_num_timesteps=False)
    assert (learner._num_timesteps_at_start, learner._total_timesteps) == (16, 24)


@takes("BaseAlgorithm._episode_num")
def number_of_episodes() -> None:
    learner = model()
    learner._episode_num = 3
    learner._setup_learn(8, None)
    assert learner._episode_num == 0


@takes(
    "BaseAlgorithm._current_progress_remaining",
    "BaseAlgorithm._update_current_progress_remaining",
    "BaseAlgorithm._update_learning_rate",
    "BaseAlgorithm._setup_lr_schedule",
)
def schedules() -> None:
    learner = model()
    silence(learner)
    learner.learning_rate = lambda progress: 8 * progress
    learner._setup_lr_schedule()
    assert calls(OnPolicyAlgorithm._setup_model, "_setup_lr_schedule")
    learner._update_current_progress_remaining(6, 8)
    assert learner._current_progress_remaining == 0.25
    learner._update_learning_rate(learner.policy.optimizer)
    assert learner.policy.optimizer.param_groups[0]["lr"] == 2.0


@takes("BaseAlgorithm._update_info_buffer")
def finished_episodes() -> None:
    learner, episode = begun(), {"r": 1.0, "l": 3, "t": 0.5}
    learner._update_info_buffer([{"episode": episode}, {}], np.array([True, False]))
    assert list(learner.ep_info_buffer) == [episode]


@takes("BaseAlgorithm._excluded_save_params", "BaseAlgorithm._get_torch_save_params")
def parts_of_a_model() -> None:
    assert {"policy", "env", "rollout_buffer", "_vec_normalize_env"} <= set(model()._excluded_save_params())
    assert model()._get_torch_save_params() == (["policy", "policy.optimizer"], [])


@takes("BaseAlgorithm._custom_logger")
def own_logger() -> None:
    learner = begun()
    assert learner._custom_logger is False
    silence(learner)
    assert learner._custom_logger is True


@takes("BaseAlgorithm._wrap_env")
def wrapping() -> None:
    monitored, bare = (OnPolicyAlgorithm._wrap_env(RandomEnv(), 0, monitor) for monitor in (True, False))
    assert (monitored.env_is_wrapped(Monitor), bare.env_is_wrapped(Monitor)) == ([True], [False])


@takes("OnPolicyAlgorithm._setup_model", "OnPolicyAlgorithm._init_setup_model", "OnPolicyAlgorithm._maybe_recommend_cpu")
def building() -> None:
    unbuilt = model(_init_setup_model=False)
    assert getattr(unbuilt, "policy", None) is None
    unbuilt._setup_model()
    assert isinstance(unbuilt.policy, ActorCriticPolicy)
    assert calls(OnPolicyAlgorithm._setup_model, "_maybe_recommend_cpu")


@takes("BaseAlgorithm._get_policy_from_name")
def policy_names() -> None:
    assert model()._get_policy_from_name("MlpPolicy") is ActorCriticPolicy
    assert calls(BaseAlgorithm.__init__, "_get_policy_from_name")


@takes("RolloutBuffer._get_samples")
def samples() -> None:
    buffer = model().learn(8).rollout_buffer
    next(buffer.get(batch_size=3))
    batch = buffer._get_samples(np.arange(8))
    np.testing.assert_array_equal(batch.observations, buffer.observations.reshape(8, 3))
    np.testing.assert_array_equal(batch.returns, buffer.returns.flatten())


@takes("BasePolicy._predict")
def predictions() -> None:
    actions = model().policy._predict(th.zeros(5, 3), deterministic=True)
    assert actions.shape == (5,)
    assert calls(BasePolicy.predict, "_predict")


@takes("ActorCriticPolicy._get_constructor_parameters")
def constructor_parameters() -> None:
    parameters = model().policy._get_constructor_parameters()
    assert isinstance(ActorCriticPolicy(**parameters), ActorCriticPolicy)
    assert calls(BaseModel.save, "_get_constructor_parameters")


@takes("ActorCriticPolicy._get_action_dist_from_latent")
def distributions() -> None:
    for method in ("forward", "evaluate_actions", "get_distribution"):
        assert calls(getattr(ActorCriticPolicy, method), "_get_action_dist_from_latent")


@takes("archive._stable_baselines3_version")
def model_files() -> None:
    file = io.BytesIO()
    model().save(file)
    assert "_stable_baselines3_version" in zipfile.ZipFile(file).namelist()


@takes("VecVideoRecorder._stop_recording")
def films() -> None:
    for method in (VecVideoRecorder.step_wait, VecVideoRecorder.close):
        assert calls(method, "_stop_recording")
    assert calls(VecVideoRecorder._stop_recording, "video_path")


@takes("VecEnv._get_indices")
def indices() -> None:
    env = vec_env()
    assert [list(env._get_indices(which)) for which in (None, 1, [0])] == [[0, 1], [1], [0]]


@takes("VecEnv._seeds", "VecEnv._options", "VecEnv._reset_seeds", "VecEnv._reset_options")
def seeds_and_options() -> None:
    env = vec_env()
    env.seed(5)
    env.set_options({"low": 1})
    assert (env._seeds, env._options) == ([5, 6], [{"low": 1}] * 2)
    env._reset_seeds()
    env._reset_options()
    assert (env._seeds, env._options) == ([None] * 2, [{}] * 2)


@takes("DummyVecEnv._save_obs", "DummyVecEnv._obs_from_buf")
def buffered_observations() -> None:
    env = vec_env()
    env.reset()
    env._save_obs(1, np.ones(3))
    assert env._obs_from_buf()[1].tolist() == [1, 1, 1]
    assert env._obs_from_buf() is not env.buf_obs[None]
    for name in ("_save_obs", "_obs_from_buf"):
        assert calls(DummyVecEnv.step_wait, name)


@takes("VecCheckNan._check_val", "VecCheckNan._actions", "VecCheckNan._observations")
def checked_numbers() -> None:
    """It is called before and after a step, with these arguments, and the messages name these attributes."""
    env = VecCheckNan(vec_env(), raise_exception=True)
    first = env.reset()
    assert env._observations is first
    actions = np.zeros(2, int)
    env.step(actions)
    assert env._actions is actions
    with pytest.raises(ValueError, match="environment, Last given value"):
        env._check_val(event="step_wait", observations=first, rewards=np.array([np.nan]), dones=np.zeros(1, bool))
    for method in (VecCheckNan.step_async, VecCheckNan.step_wait):
        assert calls(method, "_check_val")


@takes("Env._np_random", "Env._np_random_seed")
def streams_of_environments() -> None:
    env = RandomEnv()
    env.reset(seed=3)
    assert env._np_random is env.np_random
    assert env._np_random_seed == 3


@takes("Wrapper._observation_space", "Wrapper._action_space", "Wrapper._metadata")
def own_spaces_of_wrappers() -> None:
    wrapper: Any = gym.Wrapper(RandomEnv())
    for name, value in {"observation_space": VECTOR, "action_space": VECTOR, "metadata": {}}.items():
        setattr(wrapper, name, value)
        assert vars(wrapper)[f"_{name}"] is value


@takes("Wrapper._cached_spec", "RecordConstructorArgs._saved_kwargs")
def how_a_wrapper_was_built() -> None:
    wrapper = gym.make("CartPole-v1")
    assert wrapper.spec is wrapper._cached_spec
    assert gym.wrappers.StickyAction(RandomEnv(), 0.5)._saved_kwargs["repeat_action_probability"] == 0.5


@takes("Space._np_random")
def streams_of_spaces() -> None:
    space, stream = spaces.Discrete(3), np.random.default_rng(0)
    assert space.np_random is space._np_random
    space._np_random = stream
    assert space.np_random is stream


@takes("AsyncVectorEnv._state")
def asynchronous_state() -> None:
    env = AsyncVectorEnv([RandomEnv])
    env.reset()
    assert env._state is AsyncState.DEFAULT
    env.step_async([0])
    assert env._state is AsyncState.WAITING_STEP
    for process in env.processes:
        process.kill()
        process.join()
    env._state = AsyncState.DEFAULT
    env.close(terminate=True)
    assert env.closed


@takes("infos._final_obs", "infos._final_info")
def final_observations() -> None:
    env = SyncVectorEnv([RandomEnv] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    env.reset(seed=0)
    for _ in range(6):
        info = env.step(np.zeros(2, int))[-1]
    assert info.keys() >= {"final_obs", "final_info"}
    assert info["_final_obs"].tolist() == info["_final_info"].tolist() == [True, True]


@takes("Process._start_method")
def start_methods() -> None:
    for name in get_all_start_methods():
        process: Any = get_context(name).Process
        assert process._start_method == name


def manager(**kwargs: Any) -> Any:
    return ExperimentManager(Namespace(flag=1), "a2c", "CartPole-v1", "logs", verbose=0, **kwargs)


@takes("ExperimentManager._eval_env_kwargs_args")
def kwargs_of_evaluation() -> None:
    assert manager()._eval_env_kwargs_args is None
    assert manager(eval_env_kwargs={"size": 1})._eval_env_kwargs_args == {"size": 1}


@takes("ExperimentManager._hyperparams")
def prepared_hyperparams() -> None:
    assert manager()._hyperparams == {}
    for method in (ExperimentManager.setup_experiment, ExperimentManager.objective):
        assert calls(method, "_hyperparams")


@takes("ExperimentManager._preprocess_hyperparams", "ExperimentManager._preprocess_schedules")
def preparation() -> None:
    given = {"n_timesteps": 10, "policy": "MlpPolicy", "learning_rate": "lin_0.5"}
    prepared, env_wrapper, callbacks, vec_env_wrapper = manager()._preprocess_hyperparams(given)
    assert prepared.keys() == {"policy", "learning_rate"}
    assert prepared["learning_rate"](0.5) == 0.25
    assert (env_wrapper, callbacks, vec_env_wrapper) == (None, [], None)
    assert calls(ExperimentManager.setup_experiment, "_preprocess_hyperparams")
    assert calls(ExperimentManager._preprocess_hyperparams, "_preprocess_schedules")


@takes("ExperimentManager._save_config")
def files_of_a_run() -> None:
    assert calls(ExperimentManager.setup_experiment, "_save_config")
    zoo = manager()
    with tempfile.TemporaryDirectory() as folder:
        zoo.params_path = folder
        zoo._save_config({"policy": "MlpPolicy"})
        assert {path.name for path in Path(folder).iterdir()} == {"config.yml", "args.yml", "command.txt"}


@takes("ExperimentManager._maybe_normalize")
def normalization_of_the_zoo() -> None:
    zoo, env = manager(), vec_env()
    assert zoo._maybe_normalize(env, eval_env=True) is env
    zoo.normalize = True
    assert isinstance(zoo._maybe_normalize(env, eval_env=True), VecNormalize)
    assert calls(ExperimentManager.create_envs, "_maybe_normalize")


@takes("ExperimentManager._load_pretrained_agent")
def pretrained_agents() -> None:
    assert calls(ExperimentManager.setup_experiment, "_load_pretrained_agent")
    with tempfile.TemporaryDirectory() as folder:
        model().save(f"{folder}/a2c.zip")
        zoo = manager(trained_agent=f"{folder}/a2c.zip")
        assert isinstance(zoo._load_pretrained_agent({"policy": "MlpPolicy"}, vec_env()), A2C)


@takes("Module._metadata", "Module._buffers")
def state_of_modules() -> None:
    assert nn.BatchNorm1d(2).state_dict()._metadata[""]["version"] == 2
    assert "running_mean" in vars(nn.BatchNorm1d(2))["_buffers"]


@takes("Module._extra_state")
def extra_state() -> None:
    class Layer(nn.Module):
        def get_extra_state(self) -> int:
            return 7

    assert nn.Sequential(Layer()).state_dict() == {"0._extra_state": 7}


@takes("torch.nn.modules.batchnorm._BatchNorm")
def batch_norms() -> None:
    assert issubclass(nn.BatchNorm2d, nn.modules.batchnorm._BatchNorm)
    assert nn.BatchNorm2d(1, track_running_stats=False).running_mean is None


@takes("RecurrentActorCriticPolicy._process_sequence")
def sequences_of_recurrent_policies() -> None:
    for caller in ("forward", "evaluate_actions", "get_distribution", "predict_values"):
        assert calls(getattr(RecurrentActorCriticPolicy, caller), "_process_sequence")


@takes("Distribution._validate_args")
def validation_of_distributions() -> None:
    """The default of all distributions, which ``set_default_validate_args`` sets and which can be read to restore it."""
    before = th.distributions.Distribution._validate_args
    th.distributions.Distribution.set_default_validate_args(not before)
    assert th.distributions.Normal(0.0, 1.0)._validate_args is not before
    assert th.distributions.Distribution._validate_args is not before
    th.distributions.Distribution.set_default_validate_args(before)


@takes("OptimizedModule._orig_mod")
def compiled_modules() -> None:
    layer = nn.Linear(1, 1)
    compiled = th.compile(layer, backend="eager")
    assert compiled._orig_mod is layer
    assert "_orig_mod.weight" in compiled.state_dict()


def files_with(name: str) -> list[str]:
    """:return: the files of the package that use a name"""
    return sorted(path for path, text in SOURCES.items() if re.search(rf"\b{name}\b", text))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("name", CHECKS)
def test_a_private_name_means_what_we_take_it_for(name: str) -> None:
    """The message of a failure names the library and the files of ours that rely on the name."""
    files = ", ".join(files_with(name.rpartition(".")[2]))
    assert files, f"no file of the package uses {name}: remove its check"
    try:
        CHECKS[name]()
    except Exception as error:
        libraries = ", ".join(f"{each} {version(each)}" for each in ("stable_baselines3", "gymnasium", "rl_zoo3", "torch"))
        pytest.fail(f"{name} is not what {files} relies on, with {libraries}: {error!r}")


@pytest.fixture(scope="module")
def layers() -> list[Any]:
    """:return: environments and wrappers of all classes in ``_NOT_STATE``, after a step"""
    cart_pole, native = gym.make("CartPole-v1"), make_vec_env("CartPole-v1", 2)
    vec_envs = [vec_env(), VecNormalize(vec_env()), VecMonitor(vec_env()), native]
    for env in vec_envs:
        env.reset()
        env.step(np.zeros(2, int))
    sticky, sync = gym.wrappers.StickyAction(RandomEnv(), 0.5), SyncVectorEnv([RandomEnv])
    return [*vec_envs, cart_pole, cart_pole.unwrapped, Monitor(RandomEnv()), sticky, sync]


@pytest.mark.parametrize(("owner", "name"), [(owner, name) for owner, names in _NOT_STATE.items() for name in names])
def test_attributes_that_checkpoints_leave_out_exist(owner: type, name: str, layers: list[Any]) -> None:
    """If an attribute is renamed, it is taken for state of the environment, which has to be plain."""
    assert any(name in present_attributes(layer) for layer in layers if isinstance(layer, owner)), (
        f"{owner.__qualname__} has no attribute {name!r}, on which _NOT_STATE of sb3_vpg/checkpoints/env_attributes.py relies"
    )


def test_every_private_name_of_others_has_a_check() -> None:
    """These are private attributes and imports that the package does not define itself, and methods called by ``super()``."""
    nodes = [node for text in SOURCES.values() for node in ast.walk(ast.parse(text))]
    own = {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    own |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    own |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    used = {node.attr for node in nodes if isinstance(node, ast.Attribute) and node.attr not in own}
    used |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "super()"}
    used |= {name.name for node in nodes if isinstance(node, ast.ImportFrom) for name in node.names if name.name not in own}
    private = {name for name in used if name.startswith("_") and not name.startswith("__")}
    checked = {name.rpartition(".")[2] for name in CHECKS} | DOCUMENTED
    assert len(private) > 20
    assert not private - checked, "these names have no check here"
