"""A callback may set another environment between two rollouts, as a curriculum does, but not within a rollout."""

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from helpers import CONTINUOUS, RandomEnv, make_model
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from sb3_vpg.checkpoints.callback import TrainingCheckpoint
from sb3_vpg.checkpoints.files import latest
from sb3_vpg.exceptions import EnvironmentFailedError

MODES: dict[str, dict[str, Any]] = {
    "steps": {},
    "gsde": {"use_sde": True},
    "episodes": {"n_episodes": 2},
    "average": {"n_episodes": 2, "baseline": "average"},
}
modes = pytest.mark.parametrize("options", MODES.values(), ids=MODES.keys())


class MarkedEnv(RandomEnv):
    """The first observation of each episode starts with the mark."""

    def __init__(self, mark: float = 0.25) -> None:
        super().__init__(action_space=CONTINUOUS)
        self.mark = mark

    def reset(self, **kwargs: Any) -> Any:
        observation, info = super().reset(**kwargs)
        observation[0] = self.mark
        return observation, info


def environments(n_envs: int = 2, **kwargs: Any) -> DummyVecEnv:
    return DummyVecEnv([lambda: MarkedEnv(**kwargs)] * n_envs)


class SetEnv(BaseCallback):
    """
    Sets one environment after the other.

    :param moment: the hook in which it does so, without ``_on_``
    :param envs: the environments
    :param at: the first call of this hook at which it sets one
    :param force_reset: see ``set_env``
    """

    def __init__(self, moment: str, envs: list[VecEnv], at: int = 1, force_reset: bool = True) -> None:
        super().__init__()
        self.moment, self.envs, self.at, self.force_reset = moment, envs, at, force_reset
        self.calls = 0

    def _set_at(self, moment: str) -> None:
        self.calls += moment == self.moment
        if moment == self.moment and self.calls >= self.at and self.envs:
            self.model.set_env(self.envs.pop(0), self.force_reset)

    def _on_training_start(self) -> None:
        self._set_at("training_start")

    def _on_rollout_start(self) -> None:
        self._set_at("rollout_start")

    def _on_step(self) -> bool:
        self._set_at("step")
        return True

    def _on_rollout_end(self) -> None:
        self._set_at("rollout_end")


@modes
@pytest.mark.parametrize("moment", ["training_start", "rollout_end"])
def test_training_continues_in_the_new_environment(moment: str, options: dict[str, Any]) -> None:
    """The next rollout starts with a reset of the new environment, and each rollout is played in one environment."""
    old, new = environments(), [environments(mark=0.5), environments(mark=0.75)]
    model = make_model(env=old, n_steps=12, **options)
    marks: list[Any] = []

    class KeepMark(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            buffer = self.model.rollout_buffer
            assert (buffer.episode_starts[0] == 1.0).all()
            marks.append(float(buffer.observations[0, 0, 0]))

    model.learn(4 * 24, callback=[KeepMark(), SetEnv(moment, list(new))])
    expected = [0.5] if moment == "training_start" else [0.25, 0.5, 0.75]
    assert marks[: len(expected)] == expected
    assert [env.envs[0].steps > 0 for env in new] == ([True, False] if moment == "training_start" else [True, True])
    assert model.get_env() is (new[0] if moment == "training_start" else new[1])


@modes
@pytest.mark.parametrize("at", [1, 5, 9], ids=["first", "middle", "last"])
@pytest.mark.parametrize("moment", ["rollout_start", "step"])
def test_set_env_within_a_rollout_is_refused(moment: str, at: int, options: dict[str, Any]) -> None:
    """``set_env`` is refused at any step of a rollout; the next ``learn()`` trains in the new environment."""
    new = environments(mark=0.5)
    model = make_model(env=environments(), n_steps=9, **options)
    with pytest.raises(ValueError, match=r"set_env was called in the middle of a rollout: .* in _on_rollout_end\(\)"):
        model.learn(400, callback=SetEnv(moment, [new], 1 if moment == "rollout_start" else at))
    model.learn(24, reset_num_timesteps=False)
    assert new.envs[0].steps >= 9


@pytest.mark.parametrize("options", [{}, {"n_episodes": 2}], ids=["steps", "episodes"])
def test_set_env_without_reset_within_a_rollout_is_refused(options: dict[str, Any]) -> None:
    """``set_env`` with ``force_reset=False`` is refused too: SB3 would use the old environment's observation."""
    new = environments()
    new.reset()
    model = make_model(env=environments(), n_steps=9, **options)
    with pytest.raises(ValueError, match=r"set_env was called in the middle of a rollout"):
        model.learn(400, callback=SetEnv("step", [new], 9, force_reset=False))


def test_failed_update_restores_the_statistics_of_the_old_environment() -> None:
    """If an update fails after ``set_env``, the old environment's statistics are restored and the new one's unchanged."""
    old, new = VecNormalize(environments()), VecNormalize(environments())
    model = make_model(env=old, n_steps=9)

    class SetEnvAndNan(SetEnv):
        def _on_rollout_end(self) -> None:
            super()._on_rollout_end()
            if self.calls == 2:
                self.model.rollout_buffer.advantages[:] = np.nan

    with pytest.raises(ValueError, match="loss of the policy is nan"):
        model.learn(400, callback=SetEnvAndNan("rollout_end", [new], at=2))
    assert old.obs_rms.count == pytest.approx(1e-4 + 2 + 18)
    assert new.obs_rms.count == pytest.approx(1e-4)
    model.learn(36)
    assert model.get_env() is new


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_reset_of_the_new_environment_is_checked() -> None:
    """If the new environment's reset returns NaN or raises, the error names the environment, as at the start of learn()."""
    new = VecNormalize(environments(mark=np.nan))
    with pytest.raises(ValueError, match=r"observation \(entry 0\) of environment 0 is nan at the start of this rollout"):
        make_model(env=environments(), n_steps=9).learn(400, callback=SetEnv("rollout_end", [new]))

    class FailingEnv(MarkedEnv):
        def reset(self, **kwargs: Any) -> Any:
            raise RuntimeError("no power")

    with pytest.raises(
        EnvironmentFailedError, match="environment 0 failed in reset, after 18 timesteps: RuntimeError: no power"
    ):
        make_model(env=environments(), n_steps=9).learn(400, callback=SetEnv("rollout_end", [DummyVecEnv([FailingEnv] * 2)]))


def test_checkpoint_can_be_written_after_set_env(tmp_path: Any) -> None:
    """A checkpoint can be written after a callback set the environment: it is reset before the checkpoint."""
    model = make_model(env=environments(), n_steps=9)
    checkpoint = TrainingCheckpoint(tmp_path, save_freq=18, verbose=0)
    model.learn(90, callback=[checkpoint, SetEnv("rollout_end", [environments(mark=0.5)])])
    assert latest(tmp_path) is not None


class CountingEnv(RandomEnv):
    """Counts its resets."""

    resets = 0

    def reset(self, **kwargs: Any) -> Any:
        self.resets += 1
        return super().reset(**kwargs)


def strict_vec_env(n_envs: int = 1) -> DummyVecEnv:
    """:return: environments that forbid a reset within an episode"""
    return DummyVecEnv([lambda: Monitor(CountingEnv(), allow_early_resets=False)] * n_envs)


@pytest.mark.parametrize("baseline", ["value", "none", "optimal"])
def test_single_environment_that_forbids_early_resets_plays_complete_episodes(baseline: Any) -> None:
    """With ``n_episodes``, a single environment that forbids early resets is reset once per episode; none is cut."""
    env = strict_vec_env()
    model = make_model(env=env, n_episodes=2, baseline=baseline)
    model.learn(36)
    model.learn(24, reset_num_timesteps=False)
    monitor = env.envs[0]
    assert monitor.get_episode_lengths() == [6] * 10
    assert monitor.unwrapped.resets == 11
    assert model._n_updates == 5
    assert model.rollout_buffer.episode_starts[:, 0].tolist() == [1.0, 0, 0, 0, 0, 0] * 2


def test_environment_that_allows_early_resets_is_reset_before_each_rollout() -> None:
    """The number of resets stays the same as in earlier versions: resets draw random numbers, so results depend on it."""
    env = DummyVecEnv([lambda: Monitor(CountingEnv())])
    make_model(env=env, n_episodes=2).learn(36)
    assert env.envs[0].unwrapped.resets == 1 + 3 * 3


def test_several_environments_that_forbid_early_resets_are_refused() -> None:
    """Several environments that forbid early resets are refused with ``n_episodes`` before the first reset."""
    env = strict_vec_env(2)
    with pytest.raises(ValueError, match=r"allow_early_resets=False\) forbids: use .* a single environment, or n_steps"):
        make_model(env=env, n_episodes=2).learn(36)
    assert env.envs[0].unwrapped.resets == 0
    make_model(env=env).learn(36)


def test_unfinished_episode_of_an_environment_that_forbids_early_resets_is_refused() -> None:
    """If a callback stopped training within an episode, the next ``learn()`` is refused: it would need an early reset."""
    model = make_model(env=strict_vec_env(), n_episodes=2)
    model.learn(36, callback=lambda variables, _: variables["self"].num_timesteps < 4)
    with pytest.raises(ValueError, match=r"in the middle of one, and its Monitor\(allow_early_resets=False\)"):
        model.learn(36, reset_num_timesteps=False)


class OpaqueVecEnv(DummyVecEnv):
    """Does not implement ``env_is_wrapped``."""

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        raise NotImplementedError


def test_vec_env_without_env_is_wrapped_is_accepted() -> None:
    """With ``n_episodes``, an environment whose ``env_is_wrapped`` raises NotImplementedError is accepted."""
    make_model(env=OpaqueVecEnv([RandomEnv] * 2), n_episodes=2).learn(36)


def test_set_env_with_another_observation_space_is_refused() -> None:
    """``set_env`` in a callback raises SB3's error if the observation spaces differ."""
    other = DummyVecEnv([lambda: RandomEnv(spaces.Box(-1.0, 1.0, (4,), np.float32), CONTINUOUS)] * 2)
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        make_model(env=environments(), n_steps=9).learn(400, callback=SetEnv("rollout_end", [other]))
