"""The pooled statistics of ``VecNormalize``, against a computation from the rewards and observations of the rollout."""

import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_vpg.common.world import SINGLE_PROCESS
from sb3_vpg.distributed.statistics import PooledStatistics, moments_over_time
from sb3_vpg.vec_env.fast_step import fast_step

N_ENVS, N_STEPS, GAMMA = 3, 60, 0.9


@pytest.mark.parametrize("fast", [False, True])
def test_statistics_are_those_of_the_rollout(fast: bool) -> None:
    """Also of the last steps of episodes, whose sums of rewards the step sets to 0."""
    env = VecNormalize(make_vec_env("CartPole-v1", N_ENVS, seed=1), gamma=GAMMA)
    env.reset()
    before, rng = env.ret_rms.count, np.random.default_rng(0)
    returns_N, returns, observations = np.zeros(N_ENVS), [], []
    pooled = PooledStatistics(env)
    with pooled:
        assert not env.training, "a reset in the block does not count"
        step = pooled.recording(fast_step(env) if fast else env.step)
        for _ in range(N_STEPS):
            count, mean = env.ret_rms.count, env.obs_rms.mean.copy()
            _, _, dones, _ = step(rng.integers(2, size=N_ENVS))
            assert env.training, "a callback may save the wrapper now"
            assert (env.ret_rms.count, *env.obs_rms.mean) == (count, *mean)
            returns_N = GAMMA * returns_N + env.get_original_reward()
            returns.append(returns_N.copy())
            observations.append(env.get_original_obs())
            returns_N[dones] = 0.0
    reference = VecNormalize(env.venv, gamma=GAMMA)
    reference.obs_rms.mean, reference.obs_rms.var, reference.obs_rms.count = (
        env.obs_rms.mean,
        env.obs_rms.var,
        env.obs_rms.count,
    )
    pooled.pool(SINGLE_PROCESS)
    assert sum(map(len, returns)) == N_STEPS * N_ENVS == pytest.approx(env.ret_rms.count - before)
    reference.ret_rms.update(np.concatenate(returns))
    reference.obs_rms.update(np.concatenate(observations).astype(float))
    for ours, exact in ((env.ret_rms, reference.ret_rms), (env.obs_rms, reference.obs_rms)):
        np.testing.assert_allclose(ours.mean, exact.mean, rtol=1e-9)
        np.testing.assert_allclose(ours.var, exact.var, rtol=1e-9)
    np.testing.assert_allclose(env.returns, returns_N)


@pytest.mark.parametrize("shape", [(), (1,), (3,)], ids=str)
def test_moments_of_an_environment_do_not_depend_on_the_others(shape: tuple[int, ...]) -> None:
    """To the last bit, however many environments are in the same process."""
    array = np.random.default_rng(0).normal(size=(200, 8, *shape)).astype(np.float32)
    expected = moments_over_time(array)
    for n_envs in (1, 2, 4):
        parts = [moments_over_time(array[:, first : first + n_envs]) for first in range(0, 8, n_envs)]
        for kind in (0, 1):
            np.testing.assert_array_equal(np.concatenate([part[kind] for part in parts]), expected[kind])
