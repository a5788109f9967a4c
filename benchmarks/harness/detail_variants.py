"""The variants of details.py: VPG with one detail changed. Each uses public arguments or a few lines of user code."""

from harness.hyperparameters import own_entry, read_dict, scheduled

# isort: split
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import nn
from torch.nn import functional as F

from sb3_vpg import VPG


@dataclass(frozen=True)
class Variant:
    """
    :param label: name in the report
    :param code: the change as a reader would write it, for the report
    :param options: arguments of VPG that differ from those of the reference
    :param policy_kwargs: entries of ``policy_kwargs`` that differ
    :param normalize: arguments of ``VecNormalize`` that differ; only where the reference has one
    :param wrapper: around each environment
    :param change: called with the new model
    :param callback: a class of callbacks for training
    :param reference: the variant with which this one is compared
    """

    label: str
    code: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    policy_kwargs: dict[str, Any] = field(default_factory=dict)
    normalize: dict[str, Any] = field(default_factory=dict)
    wrapper: Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]] | None = None
    change: Callable[[VPG], None] | None = None
    callback: type[BaseCallback] | None = None
    reference: str = "default"


class TimeOutsAsEnds(gym.Wrapper[Any, Any, Any, Any]):
    """Report a time limit as the end of the task, so that nothing is added for what would have followed."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated or truncated, False, info


class Torso(BaseFeaturesExtractor):
    """The two hidden layers of ``MlpPolicy``, as a features extractor that actor and critic can share."""

    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        super().__init__(observation_space, features_dim=64)
        n_inputs = spaces.flatdim(observation_space)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(n_inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())

    def forward(self, observations: th.Tensor) -> th.Tensor:
        features: th.Tensor = self.layers(observations)
        return features


class CriticFirst(BaseCallback):
    """
    Fit the critic to the rollout before the policy's step, and compute the advantages of the same rollout with it. The
    model's own fit must stand still: ``vf_learning_rate=0``.
    """

    n_passes, step_size, max_grad_norm = 16, 2e-3, 0.5

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        model, buffer = self.model, self.locals["rollout_buffer"]
        parameters = [parameter for group in model.critic_optimizer.param_groups for parameter in group["params"]]
        if not hasattr(self, "adam"):
            self.adam = th.optim.Adam(parameters, lr=self.step_size, eps=1e-5)
        observations, returns = (th.as_tensor(array).flatten(0, 1) for array in (buffer.observations, buffer.returns))
        for _ in range(self.n_passes):
            self.adam.zero_grad()
            F.mse_loss(model.policy.predict_values(observations).flatten(), returns).backward()
            th.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
            self.adam.step()
        with th.no_grad():
            buffer.values = model.policy.predict_values(observations).numpy().reshape(buffer.rewards.shape)
            last_values = model.policy.predict_values(obs_as_tensor(model._last_obs, model.device))
        buffer.compute_returns_and_advantage(last_values, self.locals["dones"])


def with_large_last_layer(model: VPG) -> None:
    """Give the last layer of the actor the gain 1 instead of SB3's 0.01."""
    with th.no_grad():
        model.policy.action_net.weight.mul_(100.0)


SHARED = {"features_extractor_class": Torso, "share_features_extractor": True, "net_arch": {"pi": [], "vf": []}}
EPISODES = {"n_episodes": 4}

CARTPOLE = {
    "default": Variant("the defaults"),
    "one_pass": Variant("one pass of the critic", "n_critic_updates=1", {"n_critic_updates": 1}),
    "critic_first": Variant(
        "critic fitted before the policy's step",
        "a callback",
        {"n_critic_updates": 1, "vf_learning_rate": 0.0},
        callback=CriticFirst,
    ),
    "average": Variant("moving average as baseline", 'baseline="average"', {"baseline": "average"}),
    "none": Variant("no baseline", 'baseline="none"', {"baseline": "none"}),
    "shared": Variant("one network for actor and critic", "share_features_extractor=True", policy_kwargs=SHARED),
    "torch_init": Variant("torch's initialisation", "ortho_init=False", policy_kwargs={"ortho_init": False}),
    "large_last_layer": Variant("last layer with gain 1", "action_net.weight.mul_(100)", change=with_large_last_layer),
    "relu": Variant("rectified units", "activation_fn=nn.ReLU", policy_kwargs={"activation_fn": nn.ReLU}),
    "rmsprop": Variant(
        "RMSprop",
        "optimizer_class=RMSprop",
        policy_kwargs={"optimizer_class": th.optim.RMSprop, "optimizer_kwargs": {"alpha": 0.99, "eps": 1e-5}},
    ),
    "decay": Variant("linear decay, same mean step size", 'learning_rate="lin_0.004"', {"learning_rate": "lin_0.004"}),
    "no_clipping": Variant("no gradient clipping", 'max_grad_norm=float("inf")', {"max_grad_norm": float("inf")}),
    "lambda_1": Variant("lambda 1", "gae_lambda=1.0", {"gae_lambda": 1.0}),
    "lambda_0": Variant("lambda 0", "gae_lambda=0.0", {"gae_lambda": 0.0}),
    "time_outs_end": Variant("time-outs as ends", "a wrapper", wrapper=TimeOutsAsEnds),
    "short_rollouts": Variant("rollouts of 64 steps", "n_steps=64", {"n_steps": 64}),
    "long_rollouts": Variant("rollouts of 1,024 steps", "n_steps=1024", {"n_steps": 1024}),
    "normalized": Variant("advantages normalised", "normalize_advantage=True", {"normalize_advantage": True}),
    "entropy": Variant("entropy bonus 0.01", "ent_coef=0.01", {"ent_coef": 0.01}),
    "episodes": Variant("4 whole episodes per update", "n_episodes=4", EPISODES),
    "discounted_steps": Variant(
        "the same with the factor gamma^t",
        "n_episodes=4, discount_steps=True",
        {**EPISODES, "discount_steps": True},
        reference="episodes",
    ),
}
"""The reference has the defaults of the class."""

PENDULUM = {
    "default": Variant("the file's settings"),
    "raw_observations": Variant("observations not normalised", "norm_obs=False", normalize={"norm_obs": False}),
    "raw_rewards": Variant("rewards not normalised", "norm_reward=False", normalize={"norm_reward": False}),
    "tanh": Variant("tanh units", "activation_fn=nn.Tanh", policy_kwargs={"activation_fn": nn.Tanh}),
    "wide_noise": Variant("standard deviation 1 at first", "log_std_init=0.0", policy_kwargs={"log_std_init": 0.0}),
    "raw_advantages": Variant("advantages not normalised", "normalize_advantage=False", {"normalize_advantage": False}),
    "one_pass": Variant("one pass of the critic", "n_critic_updates=1", {"n_critic_updates": 1}),
}
"""The reference has the settings of hyperparams/vpg.yml."""


@dataclass(frozen=True)
class Task:
    """
    :param env_id: also the entry of hyperparams/vpg.yml, if ``from_file``
    :param steps: environment steps of a run
    :param n_seeds: runs of each variant
    :param variants: by name
    :param from_file: whether the reference has the settings of hyperparams/vpg.yml; else the defaults of the class
    """

    env_id: str
    steps: int
    n_seeds: int
    variants: dict[str, Variant]
    from_file: bool

    def build(self, variant: Variant, seed: int) -> tuple[VPG, VecEnv]:
        """:return: a new model and its environments"""
        options = own_entry(self.env_id) if self.from_file else {}
        n_envs, normalize = options.pop("n_envs", 1), options.pop("normalize", False)
        policy_kwargs = {**read_dict(options.pop("policy_kwargs", "dict()")), **variant.policy_kwargs}
        options = scheduled({**options, **variant.options})
        env: VecEnv = make_vec_env(self.env_id, n_envs, seed=seed, wrapper_class=variant.wrapper)
        if normalize:
            env = VecNormalize(env, gamma=options["gamma"], **variant.normalize)
        model = VPG("MlpPolicy", env, seed=seed, device="cpu", policy_kwargs=policy_kwargs, **options)
        if variant.change is not None:
            variant.change(model)
        return model, env


TASKS = {
    "CartPole-v1": Task("CartPole-v1", 50_000, 10, CARTPOLE, from_file=False),
    "Pendulum-v1": Task("Pendulum-v1", 50_000, 5, PENDULUM, from_file=True),
}
