"""From rewards to advantages, in the buffer, where SB3's own loop does not do it."""

import numpy as np
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import obs_as_tensor

from sb3_vpg.collection.buffers import counted_steps
from sb3_vpg.common.observations import take
from sb3_vpg.estimation.estimator import Estimator
from sb3_vpg.estimation.returns import Episodes, Floats, gae
from sb3_vpg.estimation.score_function import score_products
from sb3_vpg.optimization.graph import drop_graph
from sb3_vpg.optimization.optimizers import trainable_parameters
from sb3_vpg.optimization.updates import evaluate_steps


def bootstrap(estimator: Estimator, buffer: RolloutBuffer, last_values_N: Floats, last_dones_N: Floats) -> None:
    """
    Fill in ``buffer.advantages`` and ``buffer.returns`` from the critic's values, by GAE.

    :param estimator: one with a critic
    :param buffer: a complete rollout with its values
    :param last_values_N: value of the observations after the last row
    :param last_dones_N: whether the last row ended an episode
    """
    goes_on_TN = 1.0 - np.concatenate([buffer.episode_starts[1:], last_dones_N[None]])
    goes_on_TN, last_values_N = goes_on_TN.astype(np.float32), last_values_N.astype(np.float32)
    buffer.advantages = gae(buffer.rewards, buffer.values, goes_on_TN, last_values_N, buffer.gamma, buffer.gae_lambda)
    buffer.returns = buffer.advantages + buffer.values
    if estimator.n_episodes is not None:
        counted_TN = counted_steps(buffer)
        episodes = Episodes.of(buffer.episode_starts, counted_TN)
        weighted = estimator.weights(episodes) * episodes.gather(buffer.advantages)
        buffer.advantages = episodes.scatter(weighted, counted_TN.shape)


def assign_credit(estimator: Estimator, buffer: RolloutBuffer, average: float, policy: ActorCriticPolicy) -> float:
    """
    Fill in ``buffer.advantages`` and ``buffer.returns``, shape (T, N), where what was played is all there is.

    :param estimator: which ones
    :param buffer: a complete rollout
    :param average: mean return of earlier updates
    :param policy: the one that played; the baseline ``"optimal"`` alone asks it for gradients
    :return: mean return of this update
    """
    counted_TN = counted_steps(buffer)
    if estimator.has_critic:
        # Every counted episode is over, so nothing follows the last row
        bootstrap(estimator, buffer, np.zeros(buffer.n_envs), np.ones(buffer.n_envs))
        return float(buffer.returns[counted_TN].mean())
    episodes = Episodes.of(buffer.episode_starts, counted_TN)

    def products(weights_M: Floats, returns_EM: Floats) -> tuple[Floats, Floats]:
        steps = (episodes.rows, episodes.envs)
        observations = obs_as_tensor(take(buffer.observations, steps), buffer.device)
        # In float32 as SB3's buffer hands them over
        actions = th.as_tensor(buffer.actions[steps].astype(np.float32), device=buffer.device)
        log_prob, _ = evaluate_steps(policy, observations, actions, estimator.has_critic)
        found = score_products(log_prob, trainable_parameters(policy.optimizer), episodes, weights_M, returns_EM)
        drop_graph(policy)
        return found

    rewards_EM = episodes.gather(buffer.rewards)
    advantages_EM, returns_EM, mean = estimator.monte_carlo(episodes, rewards_EM, average, products)
    buffer.advantages = episodes.scatter(advantages_EM, counted_TN.shape)
    buffer.returns = episodes.scatter(returns_EM, counted_TN.shape)
    return mean


def check_advantages(estimator: Estimator, buffer: RolloutBuffer, returns_TN: Floats) -> None:
    """
    Refuse advantages that a callback has recomputed: SB3's buffer can only compute GAE.

    :param estimator: which advantages there should be
    :param buffer: a complete rollout that callbacks have seen
    :param returns_TN: ``buffer.returns`` before they saw it
    :raises ValueError: if a callback has put other advantages there
    """
    is_gae = estimator.has_critic and not estimator.discount_steps
    if is_gae or buffer.returns is returns_TN or buffer.generator_ready:
        return
    raise ValueError(
        "a callback called compute_returns_and_advantage(), which can only compute GAE, but "
        f"baseline={estimator.baseline!r} with discount_steps={estimator.discount_steps} needs other advantages: remove the "
        "call, and change the rewards in _on_step() instead: self.locals['rewards'] += bonus"
    )


def normalize(advantages: th.Tensor) -> th.Tensor:
    """
    Advantages with mean 0 and standard deviation 1, and no surprise where there is nothing to compare.

    A single advantage is returned as it is (its deviation is undefined). Equal advantages prefer no action and become
    exactly zero: dividing the rounding error of their mean by a tiny deviation would make noise look like a signal.

    :param advantages: shape (n,)
    :return: shape (n,)
    """
    if advantages.numel() < 2:
        return advantages
    centred = advantages - advantages.mean()
    rounding = 4 * th.finfo(advantages.dtype).eps * advantages.abs().max()
    if centred.abs().max() <= rounding:
        return th.zeros_like(advantages)
    return centred / (advantages.std() + 1e-8)
