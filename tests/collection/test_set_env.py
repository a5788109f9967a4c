"""A callback may set another environment between two rollouts, as a curriculum does; in the middle of one it may not."""

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


class Marked(RandomEnv):
    """Its first observation of an episode is known from the others."""

    def __init__(self, mark: float = 0.25) -> None:
        super().__init__(action_space=CONTINUOUS)
        self.mark = mark

    def reset(self, **kwargs: Any) -> Any:
        observation, info = super().reset(**kwargs)
        observation[0] = self.mark
        return observation, info


def environments(n_envs: int = 2, **kwargs: Any) -> DummyVecEnv:
    return DummyVecEnv([lambda: Marked(**kwargs)] * n_envs)


class Sets(BaseCallback):
    """Sets environments at one moment, one after the other."""

    def __init__(self, moment: str, envs: list[VecEnv], at: int = 1, force_reset: bool = True) -> None:
        super().__init__()
        self.moment, self.envs, self.at, self.force_reset = moment, envs, at, force_reset
        self.calls = 0

    def _now(self, moment: str) -> None:
        self.calls += moment == self.moment
        if moment == self.moment and self.calls >= self.at and self.envs:
            self.model.set_env(self.envs.pop(0), self.force_reset)

    def _on_training_start(self) -> None:
        self._now("training_start")

    def _on_rollout_start(self) -> None:
        self._now("rollout_start")

    def _on_step(self) -> bool:
        self._now("step")
        return True

    def _on_rollout_end(self) -> None:
        self._now("rollout_end")


@modes
@pytest.mark.parametrize("moment", ["training_start", "rollout_end"])
def test_training_goes_on_in_the_new_environment(moment: str, options: dict[str, Any]) -> None:
    """From a fresh reset, and nowhere else: each rollout is played in one environment."""
    old, new = environments(), [environments(mark=0.5), environments(mark=0.75)]
    model = make_model(env=old, n_steps=12, **options)
    played: list[Any] = []

    class Looks(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            buffer = self.model.rollout_buffer
            assert (buffer.episode_starts[0] == 1.0).all()
            played.append(float(buffer.observations[0, 0, 0]))

    model.learn(4 * 24, callback=[Looks(), Sets(moment, list(new))])
    expected = [0.5] if moment == "training_start" else [0.25, 0.5, 0.75]
    assert played[: len(expected)] == expected
    assert [env.envs[0].steps > 0 for env in new] == ([True, False] if moment == "training_start" else [True, True])
    assert model.get_env() is (new[0] if moment == "training_start" else new[1])


@modes
@pytest.mark.parametrize("at", [1, 5, 9], ids=["first", "middle", "last"])
@pytest.mark.parametrize("moment", ["rollout_start", "step"])
def test_in_the_middle_of_a_rollout_it_is_refused(moment: str, at: int, options: dict[str, Any]) -> None:
    """Also in the last step; afterwards, learning goes on in the new environment, from a reset."""
    new = environments(mark=0.5)
    model = make_model(env=environments(), n_steps=9, **options)
    with pytest.raises(ValueError, match=r"set_env was called in the middle of a rollout: .* in _on_rollout_end\(\)"):
        model.learn(400, callback=Sets(moment, [new], 1 if moment == "rollout_start" else at))
    model.learn(24, reset_num_timesteps=False)
    assert new.envs[0].steps >= 9


@pytest.mark.parametrize("options", [{}, {"n_episodes": 2}], ids=["steps", "episodes"])
def test_an_environment_that_needs_no_reset_is_refused_in_the_middle_as_well(options: dict[str, Any]) -> None:
    """SB3 would look at the old one's observation in the new one."""
    new = environments()
    new.reset()
    model = make_model(env=environments(), n_steps=9, **options)
    with pytest.raises(ValueError, match=r"set_env was called in the middle of a rollout"):
        model.learn(400, callback=Sets("step", [new], 9, force_reset=False))


def test_statistics_of_the_old_environment_are_its_own() -> None:
    """When an update fails after the environment was exchanged, those of the rollout are restored, not the new one's."""
    old, new = VecNormalize(environments()), VecNormalize(environments())
    model = make_model(env=old, n_steps=9)

    class Spoils(Sets):
        def _on_rollout_end(self) -> None:
            super()._on_rollout_end()
            if self.calls == 2:
                self.model.rollout_buffer.advantages[:] = np.nan

    with pytest.raises(ValueError, match="loss of the policy is nan"):
        model.learn(400, callback=Spoils("rollout_end", [new], at=2))
    assert old.obs_rms.count == pytest.approx(1e-4 + 2 + 18)
    assert new.obs_rms.count == pytest.approx(1e-4)
    model.learn(36)
    assert model.get_env() is new


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_the_first_observation_of_the_new_environment_is_looked_at() -> None:
    """And what it raises names it, as at the start of learn()."""
    new = VecNormalize(environments(mark=np.nan))
    with pytest.raises(ValueError, match=r"observation \(entry 0\) of environment 0 is nan at the start of this rollout"):
        make_model(env=environments(), n_steps=9).learn(400, callback=Sets("rollout_end", [new]))

    class Fails(Marked):
        def reset(self, **kwargs: Any) -> Any:
            raise RuntimeError("no power")

    with pytest.raises(
        EnvironmentFailedError, match="environment 0 failed in reset, after 18 timesteps: RuntimeError: no power"
    ):
        make_model(env=environments(), n_steps=9).learn(400, callback=Sets("rollout_end", [DummyVecEnv([Fails] * 2)]))


def test_checkpoints_are_written_of_the_new_environment(tmp_path: Any) -> None:
    """It has been reset before one is taken."""
    model = make_model(env=environments(), n_steps=9)
    checkpoint = TrainingCheckpoint(tmp_path, save_freq=18, verbose=0)
    model.learn(90, callback=[checkpoint, Sets("rollout_end", [environments(mark=0.5)])])
    assert latest(tmp_path) is not None


class Strict(RandomEnv):
    """Counts its resets."""

    resets = 0

    def reset(self, **kwargs: Any) -> Any:
        self.resets += 1
        return super().reset(**kwargs)


def strict(n_envs: int = 1) -> DummyVecEnv:
    return DummyVecEnv([lambda: Monitor(Strict(), allow_early_resets=False)] * n_envs)


@pytest.mark.parametrize("baseline", ["value", "none", "optimal"])
def test_one_environment_that_forbids_early_resets_plays_whole_episodes(baseline: Any) -> None:
    """Each episode from its reset to its end, and each reset once: none is thrown away."""
    env = strict()
    model = make_model(env=env, n_episodes=2, baseline=baseline)
    model.learn(36)
    model.learn(24, reset_num_timesteps=False)
    monitor = env.envs[0]
    assert monitor.get_episode_lengths() == [6] * 10
    assert monitor.unwrapped.resets == 11
    assert model._n_updates == 5
    assert model.rollout_buffer.episode_starts[:, 0].tolist() == [1.0, 0, 0, 0, 0, 0] * 2


def test_an_environment_that_allows_early_resets_is_reset_as_ever() -> None:
    """Resets draw random numbers: results of a seed stay what they were."""
    env = DummyVecEnv([lambda: Monitor(Strict())])
    make_model(env=env, n_episodes=2).learn(36)
    assert env.envs[0].unwrapped.resets == 1 + 3 * 3


def test_several_environments_that_forbid_early_resets_are_refused_at_once() -> None:
    env = strict(2)
    with pytest.raises(ValueError, match=r"allow_early_resets=False\) forbids: use .* a single environment, or n_steps"):
        make_model(env=env, n_episodes=2).learn(36)
    assert env.envs[0].unwrapped.resets == 0
    make_model(env=env).learn(36)


def test_an_episode_that_was_stopped_in_its_middle_cannot_be_reset() -> None:
    """By a callback: n_episodes has to begin with a new one."""
    model = make_model(env=strict(), n_episodes=2)
    model.learn(36, callback=lambda variables, _: variables["self"].num_timesteps < 4)
    with pytest.raises(ValueError, match=r"in the middle of one, and its Monitor\(allow_early_resets=False\)"):
        model.learn(36, reset_num_timesteps=False)


class Silent(DummyVecEnv):
    """Does not show what is inside."""

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        raise NotImplementedError


def test_a_vec_env_that_does_not_show_what_is_inside_is_taken() -> None:
    make_model(env=Silent([RandomEnv] * 2), n_episodes=2).learn(36)


def test_the_space_of_the_new_environment_is_checked_by_sb3() -> None:
    other = DummyVecEnv([lambda: RandomEnv(spaces.Box(-1.0, 1.0, (4,), np.float32), CONTINUOUS)] * 2)
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        make_model(env=environments(), n_steps=9).learn(400, callback=Sets("rollout_end", [other]))
