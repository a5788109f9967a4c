"""A ``VecEnv`` may return the same arrays at each step and overwrite them: the buffer keeps what each step returned."""

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from helpers import VECTOR, differing, make_model, weights
from sb3_loop import ARRAYS, RolloutRecorder, assert_same, enlarge, environments, play
from stable_baselines3.common.vec_env import VecEnvWrapper
from torch import nn

from sb3_vpg import VPG

DICT = spaces.Dict({"vector": VECTOR, "wide": spaces.Box(-1.0, 1.0, (2, 2), np.float32)})
MODES: dict[str, dict[str, Any]] = {
    "steps": {},
    "steps_without_critic": {"baseline": "none"},
    "episodes": {"n_episodes": 3},
    "average": {"n_episodes": 3, "baseline": "average"},
    "optimal": {"n_episodes": 3, "baseline": "optimal"},
}
BODIES: dict[str, dict[str, Any]] = {"numpy": {}, "torch": {"activation_fn": nn.ELU}}


class ReusingVecEnv(VecEnvWrapper):
    """Returns the same arrays and info dicts at each step, with new contents."""

    def reset(self) -> Any:
        self.observations = self.venv.reset()
        self.infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        self.rewards, self.dones = np.zeros(self.num_envs, np.float32), np.zeros(self.num_envs, bool)
        self.last = [copied(self.observations, index) for index in range(self.num_envs)]
        return self.observations

    def step_wait(self) -> Any:
        observations, self.rewards[:], self.dones[:], infos = self.venv.step_wait()
        overwrite(self.observations, observations)
        for own_info, last, info in zip(self.infos, self.last, infos, strict=True):
            own_info.clear()
            own_info.update(info)
            if "terminal_observation" in info:
                overwrite(last, info["terminal_observation"])
                own_info["terminal_observation"] = last
        return self.observations, self.rewards, self.dones, self.infos


def copied(observations: Any, index: int) -> Any:
    if isinstance(observations, dict):
        return {key: array[index].copy() for key, array in observations.items()}
    return observations[index].copy()


def overwrite(target: Any, source: Any) -> None:
    if isinstance(target, dict):
        for key, array in target.items():
            array[...] = source[key]
    else:
        target[...] = source


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize("space", [VECTOR, DICT], ids=["box", "dict"])
@pytest.mark.parametrize("options", MODES.values(), ids=MODES.keys())
def test_rollout_is_the_same_from_reused_arrays(options: dict[str, Any], space: Any, body: dict[str, Any]) -> None:
    """Rollouts and the weights after training are equal to the last bit with and without reused arrays."""
    models: list[VPG] = []
    for wrap in (lambda env: env, ReusingVecEnv):
        env = wrap(environments(2, observation_space=space))
        policy = "MultiInputPolicy" if space is DICT else "MlpPolicy"
        model = make_model(policy, env, n_steps=15, gamma=0.9, policy_kwargs=body, **options)
        enlarge(model)
        models.append(play(model, RolloutRecorder(), rollouts=2))
    plain, reused = (model.rollout_buffer for model in models)
    assert_same(reused.observations, plain.observations, rtol=0, atol=0)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(reused, name), getattr(plain, name), err_msg=name)
    for model in models:
        model.learn(60)
    assert not differing(*map(weights, models))


@pytest.mark.parametrize("options", [{}, {"n_episodes": 3}], ids=["steps", "episodes"])
def test_network_that_returns_its_input_is_copied(options: dict[str, Any]) -> None:
    """Log-probabilities are the same if the network's output is the array of observations that the environment overwrites."""
    models = []
    for wrap in (lambda env: env, ReusingVecEnv):
        model = make_model(env=wrap(environments(2)), policy_kwargs={"net_arch": {"pi": [], "vf": [8]}}, **options)
        model.policy.action_net = nn.Identity()
        models.append(play(model, RolloutRecorder()))
    np.testing.assert_array_equal(*(model.rollout_buffer.log_probs for model in models))


def test_terminal_observations_go_through_obs_to_tensor() -> None:
    """The terminal observation of a time-out goes through the policy's own ``obs_to_tensor``, as in SB3's loop."""
    model = make_model(env=environments(1), n_episodes=2, gamma=1.0)
    with th.no_grad():
        model.policy.value_net.weight.zero_()
        model.policy.value_net.bias.zero_()
    model.policy.obs_to_tensor = lambda observation: (th.zeros(1, 3), False)
    model.policy.predict_values = lambda observations: 100.0 * th.ones(len(observations), 1)
    rewards = play(model, RolloutRecorder()).rollout_buffer.rewards
    assert (rewards > 90.0).sum() == 1


def test_gsde_bootstraps_from_reused_terminal_observations() -> None:
    """With gSDE too, the reward of a time-out is the same with and without reused arrays."""
    models = []
    for wrap in (lambda env: env, ReusingVecEnv):
        env = wrap(environments(2, action_space=spaces.Box(-1.0, 1.0, (2,), np.float32)))
        models.append(play(make_model(env=env, use_sde=True), RolloutRecorder()))
    last = [model.rollout_buffer.rewards[5] for model in models]
    np.testing.assert_allclose(*last, rtol=1e-5)
