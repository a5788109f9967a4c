"""The error names the environment that failed, in this or another process, and no worker process is left."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from helpers import RandomEnv, UsersBuffer, make_model, vector_env
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecCheckNan, VecFrameStack, VecNormalize

from sb3_vpg.exceptions import EnvironmentFailedError, VecEnvContractError
from sb3_vpg.vec_env.failures import naming_failed_env
from sb3_vpg.vec_env.gym_vec_env import GymVecEnv, make_vec_env

# gymnasium prints a worker's error as a warning; and Python warns when a process with threads, here torch's, is forked
pytestmark = pytest.mark.filterwarnings("ignore:.*ERROR:UserWarning", "ignore:.*fork:DeprecationWarning")


class Fails(RandomEnv):
    """Fails in its n-th step or n-th reset, counted from 1; episodes have six steps."""

    n_resets = 0

    def __init__(self, step: int = -1, reset: int = -1, how: Callable[[], Any] = lambda: 1 / 0) -> None:
        super().__init__()
        self.fault = (step, reset, how)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        self.n_resets += 1
        if self.n_resets == self.fault[1]:
            self.fault[2]()
        return super().reset(**kwargs)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.steps + 1 == self.fault[0]:
            self.fault[2]()
        return super().step(action)


def functions(index: int, **fault: Any) -> list[Callable[[], gym.Env]]:
    """:return: three environments, of which that with this index fails"""
    return [lambda number=number: Monitor(Fails(**(fault if number == index else {}))) for number in range(3)]


def dummy(index: int, **fault: Any) -> DummyVecEnv:
    return DummyVecEnv(functions(index, **fault))


def sync(mode: AutoresetMode) -> Callable[..., GymVecEnv]:
    return lambda index, **fault: GymVecEnv(SyncVectorEnv(functions(index, **fault), autoreset_mode=mode))


def subproc(index: int, **fault: Any) -> SubprocVecEnv:
    return SubprocVecEnv(functions(index, **fault), start_method="fork")


def asynchronous(index: int, **fault: Any) -> GymVecEnv:
    return GymVecEnv(AsyncVectorEnv(functions(index, **fault), autoreset_mode=AutoresetMode.SAME_STEP, context="fork"))


IN_THIS_PROCESS = {
    "dummy": dummy,
    "normalized": lambda index, **fault: VecNormalize(dummy(index, **fault)),
    "stacked": lambda index, **fault: VecFrameStack(VecNormalize(dummy(index, **fault)), 2),
    "sync_same_step": sync(AutoresetMode.SAME_STEP),
    "sync_disabled": sync(AutoresetMode.DISABLED),
}


@pytest.mark.parametrize("index", [0, 2])
@pytest.mark.parametrize("make", IN_THIS_PROCESS.values(), ids=IN_THIS_PROCESS)
@pytest.mark.parametrize(
    ("fault", "where"),
    [
        ({"step": 20}, "step, after 57 timesteps"),
        ({"reset": 4}, "the reset after an episode's end, after 51 timesteps"),
    ],
    ids=["step", "later_reset"],
)
def test_the_environment_that_fails_is_named(make, index, fault, where):
    """The error is the cause of the one raised, and the model can go on learning in other environments."""
    env = make(index, **fault)
    model = make_model(env=env)
    with pytest.raises(EnvironmentFailedError) as caught:
        model.learn(480)
    assert str(caught.value).startswith(f"environment {index} failed in {where}: ZeroDivisionError: division by zero. ")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    model.set_env(make(0))
    model.learn(96)
    assert model.num_timesteps == 96


@pytest.mark.parametrize("make", IN_THIS_PROCESS.values(), ids=IN_THIS_PROCESS)
def test_an_environment_that_fails_in_the_first_reset_is_named(make):
    env = make(1, reset=1)
    model = make_model()
    message = r"^environment 1 failed in reset, after 0 timesteps: ZeroDivisionError"
    with pytest.raises(EnvironmentFailedError, match=message), naming_failed_env(env, model):
        env.reset()


def test_an_environment_that_fails_in_the_reset_before_a_rollout_is_named():
    """With ``n_episodes``, each rollout begins with a reset of all environments."""
    model = make_model(env=dummy(1, reset=5), n_episodes=2, baseline="none")
    with pytest.raises(EnvironmentFailedError, match=r"^environment 1 failed in reset, after 36 timesteps"):
        model.learn(480)


def test_an_environment_in_sb3s_own_loop_is_named():
    model = make_model(env=VecNormalize(dummy(2, step=20)), rollout_buffer_class=UsersBuffer)
    with pytest.raises(EnvironmentFailedError, match=r"^environment 2 failed in step, after 57 timesteps"):
        model.learn(480)


def test_an_environment_that_returns_a_tuple_of_the_wrong_length_is_named():
    """The error is raised in our step, which unpacks the tuple."""
    env = dummy(1)
    env.envs[1].step = lambda action: (np.zeros(3, np.float32), 0.0, False)
    with pytest.raises(EnvironmentFailedError, match=r"^environment 1 failed in step, .*ValueError: not enough values"):
        make_model(env=env).learn(48)


class OwnLoop(DummyVecEnv):
    """A user's VecEnv, whose variables have other names than SB3's."""

    def step_wait(self):
        for number, environment in enumerate(self.envs):
            self._save_obs(number, environment.step(self.actions[number])[0])
        return self._obs_from_buf(), np.zeros(3, np.float32), np.zeros(3, bool), [{}, {}, {}]


@pytest.mark.parametrize("index", [0, 2])
def test_an_environment_in_a_vec_env_of_the_users_is_named(index):
    with pytest.raises(EnvironmentFailedError, match=rf"^environment {index} failed in step, after 6 timesteps: Zero"):
        make_model(env=OwnLoop(functions(index, step=3))).learn(48)


class This(RandomEnv):
    """A user's environment whose method does not call its object ``self``."""

    def step(this, action):
        raise ZeroDivisionError


def test_an_environment_is_found_whatever_its_methods_call_it():
    """The object is the first argument of the method; SB3's loop in ``VecNormalize`` gives no other hint."""
    with pytest.raises(EnvironmentFailedError, match=r"^environment 1 failed in step, after 0 timesteps: ZeroDivisionError"):
        make_model(env=VecNormalize(DummyVecEnv([RandomEnv, This]))).learn(48)


def test_an_environment_whose_step_has_a_decorator_is_named():
    """The first frame of the call then belongs to the decorator."""
    env = dummy(2)
    env.envs[2].step = (lambda step: lambda *args: step(*args))(env.envs[2].step)
    env.envs[2].unwrapped.fault = (20, -1, lambda: 1 / 0)
    with pytest.raises(EnvironmentFailedError, match=r"^environment 2 failed in step, after 57 timesteps: Zero"):
        make_model(env=VecNormalize(env)).learn(480)


class MyNormalize(VecNormalize):
    """A subclass, which steps itself and what it wraps."""


@pytest.mark.parametrize(
    ("wrap", "who"),
    [(VecNormalize, "environment 1"), (MyNormalize, "an environment of DummyVecEnv")],
    ids=["ours", "sb3s"],
)
def test_infos_that_cannot_be_copied_are_not_attributed_to_the_last_environment(wrap, who):
    """Our step copies the infos of each environment separately. SB3 copies all after its loop: the environment is unknown."""
    env = dummy(0)
    step = env.envs[1].step
    env.envs[1].step = lambda action: (*step(action)[:4], {"lock": threading.Lock()})
    with pytest.raises(EnvironmentFailedError, match=rf"^{who} failed in step, after 0 timesteps: TypeError: cannot pickle"):
        make_model(env=wrap(env)).learn(48)


def test_observations_of_another_shape_in_a_sync_vector_env_are_not_attributed_to_the_last_environment():
    """gymnasium stacks the observations after its loop: the environment is unknown."""
    env = GymVecEnv(SyncVectorEnv(functions(0), autoreset_mode=AutoresetMode.SAME_STEP))
    env.env.envs[0].step = lambda action: (np.zeros(5, np.float32), 0.0, False, False, {})
    with pytest.raises(EnvironmentFailedError, match=r"^SyncVectorEnv \(it is not known which of its 3 environments\)"):
        make_model(env=env).learn(48)


def test_a_native_environment_is_named_by_its_class():
    env = make_vec_env("CartPole-v1", 8)
    model = make_model(env=env).learn(128)
    env.env.state = None
    with pytest.raises(EnvironmentFailedError, match=r"^CartPoleVectorEnv \(it is not known which of its 8 env"):
        model.learn(256, reset_num_timesteps=False)


class Does(BaseCallback):
    """Calls a function at a step, counted from 1."""

    def __init__(self, step: int, what: Callable[[BaseCallback], Any]) -> None:
        super().__init__()
        self.step, self.what = step, what

    def _on_step(self) -> bool:
        if self.n_calls == self.step:
            self.what(self)
        return True


def interrupt(callback: BaseCallback) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("what", "error"),
    [(lambda _: 1 / 0, ZeroDivisionError), (interrupt, KeyboardInterrupt), (lambda _: [].pop(), IndexError)],
    ids=["error", "interrupt", "lookup"],
)
def test_errors_of_callbacks_pass_unchanged(what, error):
    with pytest.raises(error) as caught:
        make_model(env=dummy(0)).learn(96, Does(3, what))
    assert caught.type is error


def test_an_error_of_an_evaluation_environment_passes_unchanged():
    """It is an error of the callback, not of the environment that the model learns from."""
    callback = EvalCallback(dummy(1, step=3), eval_freq=5, verbose=0, warn=False)
    with pytest.raises(ZeroDivisionError):
        make_model().learn(96, callback)


def test_errors_of_the_policy_pass_unchanged():
    model = make_model(env=dummy(0))
    model.policy.action_net.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.learn(48)


def test_an_error_of_vec_check_nan_passes_unchanged():
    """Its ValueError names the cause, and a tuner takes a ValueError for a bad trial and not for a bug."""
    env = dummy(0)
    env.envs[0].step = lambda action: (np.full(3, np.nan, np.float32), 0.0, False, False, {})
    with pytest.raises(ValueError, match=r"found nan in observations"):
        make_model(env=VecCheckNan(env, raise_exception=True)).learn(48)


def test_a_contract_error_passes_unchanged():
    """Its message already names the vector environment and what is missing."""
    env = SyncVectorEnv(functions(0), autoreset_mode=AutoresetMode.SAME_STEP)
    with pytest.raises(VecEnvContractError, match=r"^info_keywords names \['score'\]"):
        make_model(env=GymVecEnv(env, info_keywords=("score",))).learn(48)
    step = env.step
    env.step = lambda actions: (*step(actions)[:4], {})
    with pytest.raises(VecEnvContractError, match="without 'final_obs'"):
        make_model(env=GymVecEnv(env)).learn(48)


def test_a_vector_environment_that_returns_ragged_observations_has_failed():
    """NumPy's ValueError is raised in our code and does not name the environment."""
    env = SyncVectorEnv(functions(0), autoreset_mode=AutoresetMode.SAME_STEP)
    env.step = lambda actions: ([[1.0, 2.0], [3.0]], [0.0] * 3, np.zeros(3, bool), np.zeros(3, bool), {})
    with pytest.raises(EnvironmentFailedError, match=r"^SyncVectorEnv \(it is not known .* failed in step, .*ValueError"):
        make_model(env=GymVecEnv(env)).learn(48)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


WORKERS = {"subproc": subproc, "async": asynchronous}


def processes_of(env: Any) -> list[Any]:
    base = env.unwrapped
    return list(base.processes if isinstance(base, SubprocVecEnv) else base.env.unwrapped.processes)


def assert_gone(env: Any, pids: list[int]) -> None:
    """No process of the environment exists, not even as a zombie, and it can be closed again."""
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not {process.pid for process in multiprocessing.active_children()} & set(pids)
    env.close()
    env.close()


@pytest.mark.parametrize("index", [0, 2])
@pytest.mark.parametrize("how", ["error", "killed", "killed_from_outside", "reset"])
@pytest.mark.parametrize("kind", WORKERS)
def test_a_worker_that_fails_is_named_and_none_is_left(kind, how, index):
    """It fails in a step, in the reset at an episode's end, or between two steps, all inside of ``VecNormalize``."""
    faults = {"error": {"step": 20}, "killed": {"step": 20, "how": die}, "reset": {"reset": 4}}
    env = VecNormalize(WORKERS[kind](index, **faults.get(how, {})))
    model, processes = make_model(env=env), processes_of(env)
    pids = [process.pid for process in processes]
    kills = Does(19, lambda _: os.kill(pids[index], signal.SIGKILL))
    with pytest.raises(EnvironmentFailedError) as caught:
        model.learn(480, kills if how == "killed_from_outside" else None)
    text = str(caught.value)
    n_steps = 51 if how == "reset" else 57
    assert text.startswith(f"environment {index} failed in step, after {n_steps} timesteps: ")
    killed, printed = "was killed by signal 9 (Killed)", "ended with exit code 1, and its own traceback is printed above"
    cause = "ZeroDivisionError: division by zero" if kind == "async" else f"the process of environment {index} {printed}"
    assert (f"the process of environment {index} {killed}" if "killed" in how else cause) in text
    assert_gone(env, pids)
    model.set_env(VecNormalize(vector_env(3)))
    model.learn(96)
    assert model.num_timesteps == 96


def test_a_worker_that_dies_after_the_last_step_of_a_rollout_is_named():
    """No call needs an answer from it before the next rollout."""
    env = subproc(0)
    pids = [process.pid for process in env.processes]

    def kill(_: BaseCallback) -> None:
        os.kill(pids[1], signal.SIGKILL)
        wait([process.sentinel for process in env.processes])

    with pytest.raises(EnvironmentFailedError, match=r"^environment 1 failed in step, after 48 timesteps: the process of"):
        make_model(env=env).learn(96, Does(16, kill))
    assert_gone(env, pids)


def test_an_interrupt_passes_unchanged_if_the_workers_have_ended():
    """Ctrl-C also ends the workers. Closing the environment afterwards neither waits for them nor fails."""
    env = subproc(0)
    pids = [process.pid for process in env.processes]

    def press(callback: BaseCallback) -> None:
        for process in env.processes:
            os.kill(process.pid, signal.SIGINT)
        for process in env.processes:
            process.join()
        interrupt(callback)

    with pytest.raises(KeyboardInterrupt):
        make_model(env=env).learn(96, Does(3, press))
    assert_gone(env, pids)


@pytest.mark.parametrize("kind", WORKERS)
def test_workers_that_fail_in_the_first_reset_are_named(kind):
    env = WORKERS[kind](1, reset=1)
    pids = [process.pid for process in processes_of(env)]
    model, message = make_model(), r"^environment 1 failed in reset, after 0 timesteps"
    with pytest.raises(EnvironmentFailedError, match=message), naming_failed_env(env, model):
        env.reset()
    assert_gone(env, pids)


@pytest.mark.expensive
def test_a_worker_of_the_forkserver_is_named():
    """``SubprocVecEnv`` starts its workers with the forkserver by default."""
    env = SubprocVecEnv([RandomEnv, RandomEnv])
    pids = [process.pid for process in env.processes]
    kills = Does(5, lambda _: os.kill(pids[1], signal.SIGKILL))
    with pytest.raises(EnvironmentFailedError, match=r"^environment 1 failed in step, .*killed by signal 9"):
        make_model(env=env).learn(64, kills)
    env.close()
    assert not any(process.is_alive() for process in env.processes)


def test_workers_are_kept_after_an_error_of_a_callback():
    """The model can go on learning with them."""
    env = subproc(0)
    try:
        model = make_model(env=env)
        with pytest.raises(ZeroDivisionError):
            model.learn(96, Does(3, lambda _: 1 / 0))
        model.learn(96)
        assert all(process.is_alive() for process in env.processes)
    finally:
        env.close()
