"""VPG equals SB3's A2C to the last bit where both define the same computation."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch as th
from helpers import UsersBuffer, differing, silence, weights
from stable_baselines3 import A2C
from stable_baselines3.common.env_util import make_vec_env
from torch.nn import functional as F

from sb3_vpg import VPG
from sb3_vpg.optimization.critic import TorchCriticFit
from sb3_vpg.optimization.policy_step import TorchPolicyStep

OPTIMIZERS = {
    "adam": {"optimizer_class": th.optim.Adam, "optimizer_kwargs": {"eps": 1e-5}},
    "rmsprop": {"optimizer_class": th.optim.RMSprop, "optimizer_kwargs": {"alpha": 0.99, "eps": 1e-5}},
}
SHARED = {"learning_rate": 3e-3, "n_steps": 16, "gamma": 0.98, "gae_lambda": 0.9, "seed": 3, "device": "cpu"}


@pytest.fixture(autouse=True)
def _in_the_order_of_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A2C shuffles its single batch, VPG reads it in the order of the buffer: environment by environment, here two of them. The
    order of a sum decides its last bit, so A2C is made to read in the same order. NumPy's steps of policy and critic round
    differently from torch's (see optimization/test_policy_step.py and test_critic.py), so torch takes them here.
    """
    monkeypatch.setattr("sb3_vpg.vpg.policy_step", lambda *arguments: TorchPolicyStep(*arguments[:4]))
    monkeypatch.setattr("sb3_vpg.vpg.critic_fit", lambda *arguments: TorchCriticFit(*arguments[:3]))
    monkeypatch.setattr(np.random, "permutation", lambda n: np.arange(n).reshape(2, -1).T.flatten())


def pair(env_id: str, policy_kwargs: dict[str, Any], **kwargs: Any) -> tuple[A2C, VPG]:
    """A2C and VPG with the same arguments, each with its own environments, seeded equally."""
    kwargs = {**SHARED, **kwargs}
    a2c = A2C(
        "MlpPolicy", make_vec_env(env_id, 2), vf_coef=1.0, use_rms_prop=False, policy_kwargs=dict(policy_kwargs), **kwargs
    )
    vpg = VPG("MlpPolicy", make_vec_env(env_id, 2), n_critic_updates=1, policy_kwargs=dict(policy_kwargs), **kwargs)
    return a2c, vpg


def train_on_the_same_rollouts(a2c: A2C, vpg: VPG, updates: int) -> None:
    """A2C collects; both learn from copies of its buffer."""
    _, callback = a2c._setup_learn(updates * a2c.n_steps * a2c.n_envs, None)
    silence(vpg)
    for _ in range(updates):
        assert a2c.collect_rollouts(a2c.env, callback, a2c.rollout_buffer, n_rollout_steps=a2c.n_steps)
        vpg.rollout_buffer = deepcopy(a2c.rollout_buffer)
        a2c.train()
        vpg.train()


@pytest.mark.parametrize("normalize_advantage", [False, True], ids=["raw", "normalized"])
@pytest.mark.parametrize("ent_coef", [0.0, 0.02], ids=["no_entropy", "entropy"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_weights_equal_those_of_a2c_to_the_last_bit(env_id, optimizer, ent_coef, normalize_advantage):
    """Without clipping and with a single critic step, VPG is the same algorithm as A2C."""
    a2c, vpg = pair(
        env_id,
        OPTIMIZERS[optimizer],
        ent_coef=ent_coef,
        normalize_advantage=normalize_advantage,
        max_grad_norm=float("inf"),
    )
    start = weights(a2c)
    assert not differing(start, weights(vpg))
    train_on_the_same_rollouts(a2c, vpg, updates=6)
    assert differing(start, weights(vpg)) == set(start)
    assert not differing(weights(a2c), weights(vpg))


EXPLORATION = {
    "independent_noise": ({}, {}),
    "gsde": ({"use_sde": True, "sde_sample_freq": 4}, {}),
    "gsde_squashed": ({"use_sde": True}, {"squash_output": True}),
}


@pytest.mark.filterwarnings(r"ignore:load\(path\) alone will not read")
@pytest.mark.parametrize(("kwargs", "policy_kwargs"), EXPLORATION.values(), ids=EXPLORATION.keys())
def test_learning_from_a_seed_follows_a2c_to_the_last_bit(kwargs, policy_kwargs):
    """In SB3's loop, learn() has the same actions, rollouts and decaying step sizes as A2C, and ends with the same weights."""
    a2c, vpg = pair(
        "Pendulum-v1",
        {**OPTIMIZERS["adam"], **policy_kwargs},
        max_grad_norm=float("inf"),
        ent_coef=0.05,
        **{**kwargs, "learning_rate": lambda progress: 3e-3 * progress},
    )
    vpg.rollout_buffer_class = UsersBuffer
    vpg._setup_model()
    for model in (a2c, vpg):
        model.set_random_seed(3)
        model.learn(320)
    assert vpg.num_timesteps == a2c.num_timesteps == 320
    assert not differing(weights(a2c), weights(vpg))


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_clipping_differs_from_a2c(env_id):
    """With clipping the weights differ: A2C scales both gradients by a common factor, VPG each by its own."""
    a2c, vpg = pair(env_id, OPTIMIZERS["rmsprop"], max_grad_norm=0.5)
    train_on_the_same_rollouts(a2c, vpg, updates=3)
    assert differing(weights(a2c), weights(vpg))


def unclipped_gradients(model: VPG) -> tuple[dict[str, th.Tensor], dict[str, th.Tensor]]:
    """:return: gradients of the policy loss and of the value loss on the buffer, by their definitions"""
    buffer, policy = model.rollout_buffer, model.policy
    tensors = [
        th.as_tensor(buffer.swap_and_flatten(getattr(buffer, name)))
        for name in ("observations", "actions", "advantages", "returns")
    ]
    observations, actions, advantages, returns = tensors
    value, log_prob, _ = policy.evaluate_actions(observations, actions.squeeze(1))
    losses = (-(advantages.flatten() * log_prob).mean(), F.mse_loss(value.flatten(), returns.flatten()))
    named = dict(policy.named_parameters())
    both = []
    for loss in losses:
        gradients = th.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
        both.append({name: gradient for name, gradient in zip(named, gradients, strict=True) if gradient is not None})
    return both[0], both[1]


def norm(gradients: dict[str, th.Tensor]) -> float:
    return float(np.sqrt(sum(float((gradient.double() ** 2).sum()) for gradient in gradients.values())))


def clipped(gradients: dict[str, th.Tensor], total: float) -> dict[str, th.Tensor]:
    factor = min(1.0, 0.5 / total)
    return {name: factor * gradient for name, gradient in gradients.items()}


def applied_gradients(model: A2C | VPG, *optimizers: th.optim.Optimizer) -> dict[str, th.Tensor]:
    """Train, and return the gradients that the optimisers have before their only step."""
    names = {parameter: name for name, parameter in model.policy.named_parameters()}
    applied: dict[str, th.Tensor] = {}

    def note(optimizer: th.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            applied.update({names[p]: p.grad.clone() for p in group["params"]})

    hooks = [optimizer.register_step_pre_hook(note) for optimizer in optimizers]
    model.train()
    for hook in hooks:
        hook.remove()
    return applied


def test_each_gradient_norm_is_clipped_separately():
    """VPG clips the gradients of actor and critic separately, A2C clips their joint norm."""
    a2c, vpg = pair("CartPole-v1", OPTIMIZERS["adam"], max_grad_norm=0.5)
    _, callback = a2c._setup_learn(32, None)
    silence(vpg)
    a2c.collect_rollouts(a2c.env, callback, a2c.rollout_buffer, n_rollout_steps=a2c.n_steps)
    a2c.rollout_buffer.advantages *= 10.0  # so that the actor's gradient is clipped as well
    vpg.rollout_buffer = deepcopy(a2c.rollout_buffer)
    actor, critic = unclipped_gradients(vpg)
    assert min(norm(actor), norm(critic)) > 0.5

    ours = applied_gradients(vpg, vpg.policy.optimizer, vpg.critic_optimizer)
    theirs = applied_gradients(a2c, a2c.policy.optimizer)
    both = {**actor, **critic}
    th.testing.assert_close(ours, {**clipped(actor, norm(actor)), **clipped(critic, norm(critic))})
    th.testing.assert_close(theirs, clipped(both, norm(both)))
    assert norm({name: ours[name] for name in actor}) == pytest.approx(0.5, rel=1e-4)
    assert norm({name: ours[name] for name in critic}) == pytest.approx(0.5, rel=1e-4)
    assert norm(theirs) == pytest.approx(0.5, rel=1e-4)
