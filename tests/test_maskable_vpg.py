"""MaskableVPG: actions that are not allowed have probability 0 in collection, update, diagnostics and prediction."""

import subprocess
import sys
import zipfile
from pathlib import Path
from threading import Lock
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from helpers import DICT, IMAGE, RandomEnv, make_model, weights
from masked_envs import ACTION_SPACES, MaskedEnv, make_maskable, masked_envs
from resumption import Crash, CrashAt, assert_same, disturb
from sb3_contrib.common.envs import InvalidActionEnvDiscrete, InvalidActionEnvMultiBinary, InvalidActionEnvMultiDiscrete
from sb3_contrib.common.maskable.callbacks import MaskableEvalCallback
from sb3_contrib.common.maskable.evaluation import evaluate_policy
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from sb3_contrib.common.maskable.utils import get_action_masks
from sb3_contrib.common.wrappers import ActionMasker
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnvWrapper, VecNormalize

from sb3_vpg import MaskableVPG
from sb3_vpg.checkpoints.callback import TrainingCheckpoint
from sb3_vpg.collection.actors import LeanActor
from sb3_vpg.collection.buffers import full_batch
from sb3_vpg.collection.stepwise_actor import StepwiseActor
from sb3_vpg.estimation.diagnostics import batch_parts
from sb3_vpg.exceptions import ActionMaskError, EnvironmentFailedError
from sb3_vpg.optimization.policy_step import NumpyPolicyStep, PolicyBatch, TorchPolicyStep, policy_step
from sb3_vpg.vec_env.action_masks import checked_masks
from sb3_vpg.vec_env.gym_vec_env import GymVecEnv
from sb3_vpg.vec_env.gym_vec_env import make_vec_env as make_gym_vec_env

EVERY_STEP: dict[str, dict[str, Any]] = {
    "steps": {},
    "episodes": {"n_episodes": 2},
    "no_baseline": {"baseline": "none"},
    "average": {"baseline": "average", "n_episodes": 1},
    "leave_one_out": {"baseline": "leave_one_out", "n_episodes": 2},
    "optimal": {"baseline": "optimal", "n_episodes": 2},
}


class OverridingPolicy(MaskableActorCriticPolicy):
    """Must be called at each step, because it overrides a method of sb3_contrib's."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return super().forward(*args, **kwargs)


class Careless(MaskableActorCriticPolicy):
    """Ignores the masks."""

    def get_distribution(self, obs: Any, action_masks: Any = None) -> Any:
        return super().get_distribution(obs)

    def forward(self, obs: Any, deterministic: bool = False, action_masks: Any = None) -> Any:
        return super().forward(obs, deterministic)


class Keep(BaseCallback):
    """Keeps the weights that played the rollout."""

    def _on_rollout_start(self) -> None:
        self.weights = weights(self.model)

    def _on_step(self) -> bool:
        return True


@pytest.mark.parametrize("space", ACTION_SPACES.values(), ids=ACTION_SPACES.keys())
@pytest.mark.parametrize("policy", ["MlpPolicy", OverridingPolicy], ids=["numpy", "torch"])
@pytest.mark.parametrize("options", EVERY_STEP.values(), ids=EVERY_STEP.keys())
def test_collection_is_that_of_contribs_masked_distribution(options: Any, policy: Any, space: spaces.Space[Any]) -> None:
    """
    Each mask in the buffer allows the action beside it, and each log-probability is that of sb3_contrib's distribution with
    this mask. ``MaskedEnv`` fails for an action that is not allowed at that moment.
    """
    model, keep = make_maskable(policy, masked_envs(action_space=space), **options), Keep()
    model.learn(40, keep)
    assert type(model._choose_actor()) is (LeanActor if policy == "MlpPolicy" else StepwiseActor)
    rollout = full_batch(model.rollout_buffer)
    steps = model._steps(model.rollout_buffer, rollout)
    masks = steps.keywords["action_masks"]
    assert masks.any(dim=0).all()
    assert not masks.all(dim=0).any()
    model.policy.load_state_dict(keep.weights)
    actions = rollout.actions.long().flatten() if isinstance(space, spaces.Discrete) else rollout.actions
    with th.no_grad():
        _, log_prob, _ = model.policy.evaluate_actions(rollout.observations, actions, action_masks=masks)
        _, unmasked, _ = model.policy.evaluate_actions(rollout.observations, actions)
    th.testing.assert_close(rollout.old_log_prob, log_prob, rtol=1e-5, atol=1e-6)
    assert (log_prob > unmasked + 0.1).any()


@pytest.mark.parametrize("space", ACTION_SPACES.values(), ids=ACTION_SPACES.keys())
def test_the_update_in_numpy_is_the_update_in_torch(space: spaces.Space[Any]) -> None:
    """Losses, entropy and gradient of the policy's step in NumPy are those with sb3_contrib's distribution in torch."""
    model = make_maskable(env=masked_envs(action_space=space)).learn(32)
    rollout = full_batch(model.rollout_buffer)
    batch = PolicyBatch(model._steps(model.rollout_buffer, rollout), rollout.advantages)
    before, ends = weights(model), []
    for kind in (NumpyPolicyStep, TorchPolicyStep):
        model.policy.load_state_dict(before)
        step: Any = policy_step(model.policy, batch, float("inf"), True)
        assert type(step) is NumpyPolicyStep
        step = step if kind is NumpyPolicyStep else TorchPolicyStep(model.policy, batch, float("inf"), True)
        # For gradient_snr; NumPy has another order of the parameters
        of_parts = th.stack(step.part_gradients(batch_parts(th.arange(len(batch.steps)), None))).sort(dim=1).values
        update = step.run(len(batch.steps), 0.3)
        gradients = {name: one.grad.clone() for name, one in model.policy.named_parameters() if one.grad is not None}
        ends.append((update.policy_gradient_loss, update.entropy_loss, update.grad_norm, gradients, of_parts))
    th.testing.assert_close(ends[0], ends[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"n_episodes": 2}, {"n_episodes": 1, "baseline": "leave_one_out"}], ids=str)
@pytest.mark.parametrize("space", [spaces.Discrete(5), spaces.MultiDiscrete([3, 2])], ids=["discrete", "multi_discrete"])
@pytest.mark.parametrize("by_torch", [False, True], ids=["numpy", "torch"])
def test_masks_that_allow_everything_change_nothing(
    space: spaces.Space[Any], options: Any, by_torch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the same rollout, log-probabilities, entropies and gradient are VPG's to 1e-6."""
    if by_torch:
        monkeypatch.setattr("sb3_vpg.vpg.policy_step", lambda *arguments: TorchPolicyStep(*arguments[:4]))
    ends = []
    options = {**options, "max_grad_norm": float("inf"), "ent_coef": 0.01, "policy_kwargs": {"optimizer_class": th.optim.SGD}}
    for make in (make_model, make_maskable):
        model = make(env=masked_envs(action_space=space, allows_all=True), **options)
        before = weights(model)
        model.learn(1)
        rollout = full_batch(model.rollout_buffer)
        gradients = {name: one - before[name] for name, one in weights(model).items() if "value" not in name}
        model.policy.load_state_dict(before)
        with th.no_grad():
            log_prob, entropy = model._steps(model.rollout_buffer, rollout).evaluate(model.policy, True)
        ends.append([rollout.actions, rollout.old_log_prob, log_prob, entropy, gradients])
    th.testing.assert_close(ends[1], ends[0], rtol=0.0, atol=1e-6)
    assert any(bool(change.abs().max() > 1e-4) for change in ends[0][-1].values())


@pytest.mark.parametrize("shift", [50.0, 1e7, 3e9, 1e15], ids=str)
def test_no_forbidden_action_however_large_its_logit(shift: float) -> None:
    """Not in collection, not by ``predict``, and the update leaves the logits of an action alone that is never allowed."""

    class NeverFirst(MaskedEnv):
        def action_masks(self) -> np.ndarray:
            self.mask = np.array([False, True, True])
            return self.mask

    model = make_maskable(env=NeverFirst(), ent_coef=0.1)
    with th.no_grad():
        model.policy.action_net.bias[0] = shift
    model.learn(64)
    assert model.policy.action_net.bias[0] == shift
    observations = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    masks = np.tile([False, True, True], (500, 1))
    sampled, _ = model.predict(observations, action_masks=masks)
    assert set(sampled.tolist()) == {1, 2}
    likeliest, _ = model.predict(observations, deterministic=True, action_masks=masks)
    assert 0 not in likeliest
    free, _ = model.predict(observations)
    assert set(free.tolist()) == {0}


LEARNT = {
    "discrete": (InvalidActionEnvDiscrete, {"dim": 20, "n_invalid_actions": 10}, 99.0),
    "multi_discrete": (InvalidActionEnvMultiDiscrete, {"dims": [4, 4], "n_invalid_actions": 4}, 99.0),
    # Of 2 ** 4 actions
    "binary": (InvalidActionEnvMultiBinary, {"dims": 4, "n_invalid_actions": 2}, 90.0),
}


@pytest.mark.parametrize(("env_class", "env_kwargs", "goal"), LEARNT.values(), ids=LEARNT.keys())
def test_contribs_environments_are_solved(env_class: Any, env_kwargs: Any, goal: float) -> None:
    env = make_vec_env(env_class, n_envs=4, env_kwargs=env_kwargs, seed=0)
    model = MaskableVPG("MlpPolicy", env, gamma=0.4, n_steps=64, seed=1, device="cpu").learn(12_000)
    mean, _ = evaluate_policy(model, env, n_eval_episodes=8, warn=False)
    assert mean >= goal


class ReadsMinibatches(BaseCallback):
    """Reads the rollout with ``get``, which changes the layout of sb3_contrib's buffer."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        masks = th.cat([part.action_masks for part in self.model.rollout_buffer.get(8)])
        assert masks.shape == (32, 3)


def test_a_callback_may_read_the_buffer() -> None:
    """The masks stay beside their steps, and the update is the same to rounding: the order of the steps differs."""
    plain, read = (make_maskable(env=masked_envs()).learn(64, callback) for callback in (None, ReadsMinibatches()))
    th.testing.assert_close(weights(read), weights(plain), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"n_episodes": 2, "baseline": "leave_one_out"}], ids=["steps", "episodes"])
@pytest.mark.parametrize("wrap", [lambda env: env, VecNormalize], ids=["plain", "normalised"])
def test_resumed_training_equals_uninterrupted_training(wrap: Any, options: Any, tmp_path: Path) -> None:
    def build() -> MaskableVPG:
        return make_maskable(env=wrap(masked_envs()), tensorboard_log=str(tmp_path / "logs"), **options)

    th.manual_seed(0)
    uninterrupted = build().learn(200, TrainingCheckpoint(tmp_path / "uninterrupted", save_freq=60))
    th.manual_seed(0)
    with pytest.raises(Crash):
        build().learn(200, [TrainingCheckpoint(tmp_path / "killed", save_freq=60), CrashAt(150)])
    disturb()
    resumed = build().learn(200, TrainingCheckpoint(tmp_path / "killed", save_freq=60, verbose=0))
    assert_same(uninterrupted, resumed)
    assert any((tmp_path / "logs").glob("MaskableVPG_*/events*"))


def test_contribs_example_runs_with_one_word_changed(tmp_path: Path) -> None:
    """sb3_contrib's documented example, with its wrapper, its callback and its evaluation."""
    env = ActionMasker(gym.make("CartPole-v1"), lambda env: np.array([True, True]))
    model = MaskableVPG(MaskableActorCriticPolicy, env, gamma=0.4, seed=32, device="cpu", n_steps=64)
    eval_env = Monitor(ActionMasker(gym.make("CartPole-v1"), lambda env: np.array([True, False])))
    callback = MaskableEvalCallback(eval_env, n_eval_episodes=2, eval_freq=64, best_model_save_path=str(tmp_path), verbose=0)
    model.learn(200, callback, progress_bar=False, use_masking=True)
    # With the second action forbidden, the pole falls at once
    assert 5 < callback.last_mean_reward < 15
    assert evaluate_policy(model, eval_env, n_eval_episodes=2, warn=False)[0] < 15
    obs, _ = env.reset()
    action, _states = model.predict(obs, action_masks=get_action_masks(env))
    assert action in (0, 1)
    assert (tmp_path / "best_model.zip").is_file()


def test_a_policy_that_ignores_the_masks_is_refused() -> None:
    """It always takes the second action, which the third step forbids in the second environment."""
    model = MaskableVPG(Careless, with_masks(LateMask([True, False])), device="cpu")
    with th.no_grad():
        model.policy.action_net.bias[1] = 1e6
    said = r"Careless chose 1 in environment 1, which .* not allow, at step 3 of this rollout \(timestep 4\).*get_distribution"
    with pytest.raises(ActionMaskError, match=said):
        model.learn(64)


def test_use_masking_false_allows_everything() -> None:
    """The environment then needs no masks, and the rollout is VPG's."""
    space = spaces.Discrete(5)

    class Ignored(MaskedEnv):
        def action_masks(self) -> np.ndarray:
            raise AssertionError

    ours = make_maskable(env=Ignored(action_space=space, allows_all=True)).learn(32, use_masking=False)
    theirs = make_model(env=MaskedEnv(action_space=space, allows_all=True)).learn(32)
    th.testing.assert_close(weights(ours), weights(theirs), rtol=0.0, atol=1e-6)
    with pytest.raises(ValueError, match="use_masking must be True or False"):
        ours.learn(32, use_masking="False")


@pytest.mark.parametrize(("policy", "space"), [("CnnPolicy", IMAGE), ("MultiInputPolicy", DICT)], ids=["images", "dict"])
@pytest.mark.parametrize("options", [{}, {"n_episodes": 1, "baseline": "none"}], ids=["steps", "episodes"])
def test_images_and_dicts_with_masks(policy: str, space: spaces.Space[Any], options: Any) -> None:
    """The networks run in torch; ``MaskedEnv`` checks the actions. The critic's steps do not change the actor."""
    model = make_maskable(policy, masked_envs(observation_space=space), policy_kwargs={"net_arch": []}, **options)
    model.learn(32)
    assert not model.policy.share_features_extractor
    observations = {key: one[None] for key, one in space.sample().items()} if policy == "MultiInputPolicy" else space.sample()
    assert model.predict(observations, action_masks=np.array([[False, True, False]]))[0].item() == 1


class OfAllAtOnce(VecEnvWrapper):
    """Has one method for the masks of all environments."""

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        return self.venv.step_wait()

    def action_masks(self) -> np.ndarray:
        return np.stack(self.venv.env_method("action_masks"))


class NativeEnv(gym.vector.VectorEnv[Any, Any, Any]):
    """One object that computes two environments; the first action is never allowed."""

    metadata = {"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP}  # noqa: RUF012  # as gymnasium's environments have it

    def __init__(self) -> None:
        self.num_envs = 2
        self.single_observation_space, self.single_action_space = spaces.Box(-1, 1, (3,)), spaces.Discrete(3)
        self.observation_space = gym.vector.utils.batch_space(self.single_observation_space, 2)
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, 2)

    def reset(self, **_: Any) -> Any:
        return np.zeros((2, 3), np.float32), {}

    def step(self, actions: Any) -> Any:
        assert (actions > 0).all()
        return np.zeros((2, 3), np.float32), np.ones(2), np.zeros(2, bool), np.zeros(2, bool), {}

    def action_masks(self) -> np.ndarray:
        return np.array([[False, True, True], [False, False, True]])


class Unpicklable(MaskedEnv):
    """Holds what cannot be sent to another process."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = Lock()


SAME_STEP = gym.vector.AutoresetMode.SAME_STEP
VEC_ENVS = {
    "subproc": lambda: SubprocVecEnv([MaskedEnv] * 2, start_method="fork"),
    "method_of_vec_env": lambda: OfAllAtOnce(masked_envs()),
    "normalised": lambda: VecNormalize(masked_envs()),
    "gymnasium_sync": lambda: make_gym_vec_env("Masked-v0", 2),
    "gymnasium_async": lambda: GymVecEnv(gym.vector.AsyncVectorEnv([Unpicklable] * 2, autoreset_mode=SAME_STEP)),
    "gymnasium_native": lambda: GymVecEnv(NativeEnv()),
}


@pytest.mark.parametrize("build", VEC_ENVS.values(), ids=VEC_ENVS.keys())
def test_masks_of_vectorised_environments(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In learning and in sb3_contrib's evaluation."""
    spec = gym.envs.registration.EnvSpec("Masked-v0", entry_point=MaskedEnv, max_episode_steps=10)
    monkeypatch.setitem(gym.registry, "Masked-v0", spec)
    env = build()
    model = make_maskable(env=env).learn(64)
    masks = model.rollout_buffer.action_masks
    assert masks.shape[-1] == 3
    assert not masks.all()
    if not isinstance(getattr(env, "env", None), NativeEnv):
        evaluate_policy(model, env, n_eval_episodes=2, warn=False)
    assert np.shape(get_action_masks(env)) == (2, 3)
    env.close()


def with_masks(function: Any, n_envs: int = 2) -> Any:
    return make_vec_env(lambda: ActionMasker(gym.make("CartPole-v1"), function), n_envs=n_envs)


class LateMask:
    """Allows everything, but returns the mask from the sixth call on: of the second of two environments, in the third step."""

    def __init__(self, mask: Any) -> None:
        self.mask, self.n_calls = mask, 0

    def __call__(self, env: Any) -> Any:
        self.n_calls += 1
        return self.mask if self.n_calls >= 6 else [True, True]


REFUSED = {
    "nothing_allowed": ([False, False], r"mask of environment 1 allows no action.*at step 3 of this rollout \(timestep 4\)"),
    "wrong_shape": ([True] * 3, r"mask of environment 1 has the shape \(3,\), but needs \(2,\), at step 3"),
    "nan": ([1.0, float("nan")], r"entry 1 of the mask of environment 1 is nan, but must be True.*at step 3"),
    "texts": (["True", "False"], r"entry 0 of the mask of environment 1 is the text 'True', but must be True"),
    "parts": ([[True], [True, False]], r"mask of environment 1 is \[\[True\], .* parts of different lengths.*at step 3"),
    "no_array": (True, r"mask of environment 1 is True, but needs the shape \(2,\), at step 3"),
    "additive": ([0.0, -1e8], r"entry 1 of the mask of environment 1 is -100000000.0, but must be True"),
}


@pytest.mark.parametrize(("mask", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_wrong_masks_are_refused_with_environment_and_step(mask: Any, message: str) -> None:
    model = MaskableVPG("MlpPolicy", with_masks(LateMask(mask)), device="cpu")
    before = weights(model)
    with pytest.raises(ActionMaskError, match=message):
        model.learn(100)
    th.testing.assert_close(weights(model), before, rtol=0, atol=0)


def test_an_error_in_action_masks_names_the_environment() -> None:
    with pytest.raises(EnvironmentFailedError, match="environment 0 failed in action_masks, after 0 timesteps: ZeroDivision"):
        MaskableVPG("MlpPolicy", with_masks(lambda env: 1 / 0), device="cpu").learn(10)


SECOND_WITHOUT_MASKS = {
    "dummy": (lambda build: DummyVecEnv(build), r"environment 1 \(<.*RandomEnv"),
    "subproc": (lambda build: SubprocVecEnv(build, start_method="fork"), "environment 1"),
    "gymnasium_sync": (lambda build: GymVecEnv(gym.vector.SyncVectorEnv(build, autoreset_mode=SAME_STEP)), "environment 1"),
    "gymnasium_async": (lambda build: GymVecEnv(gym.vector.AsyncVectorEnv(build, autoreset_mode=SAME_STEP)), "environment 1"),
    "gymnasium_native": (lambda _: make_gym_vec_env("CartPole-v1", 2), "CartPole"),
}


@pytest.mark.parametrize(("make", "name"), SECOND_WITHOUT_MASKS.values(), ids=SECOND_WITHOUT_MASKS.keys())
def test_the_environment_without_masks_is_named(make: Any, name: str) -> None:
    env = make([MaskedEnv, RandomEnv])
    with pytest.raises(ValueError, match=f"^{name}.* has no action masks"):
        make_maskable(env=env).learn(16)
    env.close()


class ArrayEnv(RandomEnv):
    action_masks = np.array([True, False, True])


class PropertyEnv(RandomEnv):
    @property
    def action_masks(self) -> np.ndarray:
        return np.array([True, False, True])


@pytest.mark.parametrize("env_class", [ArrayEnv, PropertyEnv])
@pytest.mark.parametrize("make", ["dummy", "gymnasium_sync"])
def test_masks_that_are_no_method_are_refused(env_class: Any, make: str) -> None:
    env = SECOND_WITHOUT_MASKS[make][0]([MaskedEnv, env_class])
    with pytest.raises(ValueError, match=r"action_masks of environment 1 is array.* must be a method"):
        make_maskable(env=env).learn(16)


def test_what_cannot_be_masked_is_refused() -> None:
    with pytest.raises(ValueError, match=r"CartPole.* has no action masks: .*ActionMasker.*use_masking=False"):
        MaskableVPG("MlpPolicy", "CartPole-v1").learn(10)
    with pytest.raises(ValueError, match=r"MaskableVPG needs one of MlpPolicy, .* but got 'MlpLstmPolicy'"):
        MaskableVPG("MlpLstmPolicy", MaskedEnv())
    with pytest.raises(ValueError, match=r"MaskableVPG needs one of MlpPolicy, .*ActorCriticPolicy"):
        MaskableVPG(ActorCriticPolicy, MaskedEnv())
    with pytest.raises(AssertionError, match=r"Box\(-2.0, 2.0"):
        MaskableVPG("MlpPolicy", "Pendulum-v1")
    for name, counterpart in {
        "n_epochs": "n_critic_updates",
        "clip_range": "learning_rate",
        "vf_coef": "vf_learning_rate",
    }.items():
        with pytest.raises(TypeError, match=rf"MaskableVPG\(\) got an unexpected keyword argument '{name}': .*{counterpart}"):
            MaskableVPG("MlpPolicy", MaskedEnv(), **{name: 1})


@pytest.mark.parametrize("masks", [[True], [[True] * 3] * 2, [[False] * 3], "all"], ids=str)
def test_predict_refuses_wrong_masks(masks: Any) -> None:
    with pytest.raises(ActionMaskError):
        make_maskable().predict(np.zeros(3, np.float32), action_masks=masks)


@pytest.mark.parametrize(
    "masks",
    [None, [[[False, True, False]]], th.tensor([False, True, False]), [th.tensor([0, 1, 0])]],
    ids=["none", "another_shape", "tensor", "list_of_tensors"],
)
def test_predict_accepts_no_mask_tensors_and_more_dimensions(masks: Any) -> None:
    action, _ = make_maskable().predict(np.zeros(3, np.float32), action_masks=masks)
    assert action in ((0, 1, 2) if masks is None else (1,))


def test_masks_of_two_environments_are_not_mixed() -> None:
    """Four actions in two environments: a mask with rows and columns exchanged has the right number of entries."""
    with pytest.raises(ActionMaskError, match=r"must have the shape \(2, 4\)"):
        checked_masks(np.ones((4, 2)), 2, spaces.Discrete(4))


def test_saved_models_hold_no_pickle_and_act_the_same(tmp_path: Path) -> None:
    model = make_maskable().learn(64)
    model.save(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        assert b":serialized:" not in archive.read("data")
    loaded = MaskableVPG.load(tmp_path / "model", masked_envs(), device="cpu")
    th.testing.assert_close(weights(loaded), weights(model), rtol=0, atol=0)
    observations, masks = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32), np.tile([True, False, True], (9, 1))
    for one in (model, loaded):
        one.set_random_seed(3)
    np.testing.assert_array_equal(*(one.predict(observations, action_masks=masks)[0] for one in (model, loaded)))
    loaded.learn(32)


def test_importing_vpg_does_not_import_contrib() -> None:
    program = "import sys, sb3_vpg; sb3_vpg.VPG; assert not any('maskable' in name for name in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
