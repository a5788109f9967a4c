"""
From rewards to advantages, in the rollout buffer.

N environments, T rows.
"""

from collections.abc import Callable

import numpy as np
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_vpg.collection.buffers import counted_steps
from sb3_vpg.common.world import SINGLE_PROCESS, World
from sb3_vpg.estimation.estimator import Estimator
from sb3_vpg.estimation.returns import Episodes, Floats, gae
from sb3_vpg.estimation.score_function import score_products
from sb3_vpg.optimization.graph import drop_graph
from sb3_vpg.optimization.optimizers import trainable_parameters
from sb3_vpg.optimization.steps import Steps


def compute_advantages(
    estimator: Estimator,
    buffer: RolloutBuffer,
    policy: ActorCriticPolicy,
    steps: Callable[[], Steps],
    average: float = 0.0,
    world: World = SINGLE_PROCESS,
    last_values_N: Floats | None = None,
    last_dones_N: Floats | None = None,
) -> float | None:
    """
    Fill in ``buffer.advantages`` and ``buffer.returns``, shape (T, N).

    * With a critic and rollouts of fixed length: GAE, as SB3's buffer computes it.
    * With a critic and whole episodes: GAE over the episodes, which end within the rollout.
    * Without a critic: returns minus the baseline.

    :param estimator: which of these
    :param buffer: a complete rollout, with values if there is a critic
    :param policy: the one that played; only the baseline ``"optimal"`` asks it for gradients
    :param steps: function that returns the counted steps, in the order of ``full_batch``; called for ``"optimal"`` only
    :param average: mean return of earlier updates, for the baseline ``"average"``
    :param world: the processes whose episodes make one update
    :param last_values_N: values of the observations after the last row, for rollouts of fixed length with a critic
    :param last_dones_N: whether the last row ended an episode, likewise
    :return: mean return of this update, for later averages; None for rollouts of fixed length with a critic
    """
    if not estimator.has_critic:
        return _monte_carlo(estimator, buffer, average, policy, steps, world)
    if estimator.n_episodes is None:
        assert last_values_N is not None
        assert last_dones_N is not None
        _fill_gae(buffer, last_values_N, last_dones_N)
        return None
    # Every counted episode is over, so nothing follows the last row
    _fill_gae(buffer, np.zeros(buffer.n_envs), np.ones(buffer.n_envs))
    counted_TN = counted_steps(buffer)
    episodes = Episodes.of(buffer.episode_starts, counted_TN)
    weighted_EM = estimator.weights(episodes) * episodes.gather(buffer.advantages)
    buffer.advantages = episodes.scatter(weighted_EM, counted_TN.shape)
    return float(world.all_gather_rows(buffer.returns[counted_TN]).mean())


def _fill_gae(buffer: RolloutBuffer, last_values_N: Floats, last_dones_N: Floats) -> None:
    continues_TN = 1.0 - np.concatenate([buffer.episode_starts[1:], last_dones_N[None]])
    continues_TN, last_values_N = continues_TN.astype(np.float32), last_values_N.astype(np.float32)
    buffer.advantages = gae(buffer.rewards, buffer.values, continues_TN, last_values_N, buffer.gamma, buffer.gae_lambda)
    buffer.returns = buffer.advantages + buffer.values


def _monte_carlo(
    estimator: Estimator,
    buffer: RolloutBuffer,
    average: float,
    policy: ActorCriticPolicy,
    steps: Callable[[], Steps],
    world: World,
) -> float:
    """Fill in returns and advantages without a critic, and return the mean return."""
    counted_TN = counted_steps(buffer)
    episodes = Episodes.of(buffer.episode_starts, counted_TN)
    # Rewards are small: each process computes the baseline from those of all, in the order of the environments
    everyones, own_E = episodes, slice(None)
    if world.is_distributed:
        lengths = world.all_gather(episodes.lengths_E)
        everyones, first = Episodes.of_lengths(np.concatenate(lengths)), sum(map(len, lengths[: world.rank]))
        own_E = slice(first, first + len(episodes.lengths_E))

    def products(weights_M: Floats, returns_EM: Floats) -> tuple[Floats, Floats]:
        # In the same order as the episodes
        log_prob, _ = steps().evaluate(policy, estimator.has_critic)
        parameters = trainable_parameters(policy.optimizer)
        products_E, squares_E = score_products(log_prob, parameters, episodes, weights_M, returns_EM[own_E])
        drop_graph(policy)
        return world.all_gather_rows(products_E), world.all_gather_rows(squares_E)

    rewards_EM = everyones.filled(world.all_gather_rows(buffer.rewards[episodes.rows, episodes.envs]))
    advantages_EM, returns_EM, mean = estimator.monte_carlo(everyones, rewards_EM, average, products)
    buffer.advantages = episodes.scatter(advantages_EM[own_E], counted_TN.shape)
    buffer.returns = episodes.scatter(returns_EM[own_E], counted_TN.shape)
    return mean


def check_advantages(estimator: Estimator, buffer: RolloutBuffer, returns_TN: Floats) -> None:
    """
    Refuse advantages that a callback has recomputed where they are not GAE, the only ones that SB3's buffer can compute.

    :param estimator: which advantages the buffer should hold
    :param buffer: a complete rollout, after ``on_rollout_end``
    :param returns_TN: ``buffer.returns`` before ``on_rollout_end``
    :raises ValueError: if a callback has recomputed them
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
    Scale advantages to mean 0 and standard deviation 1.

    A single advantage is returned as it is, since its standard deviation is undefined. Equal advantages prefer no action and
    become exactly zero: the rounding error of their mean, divided by a tiny deviation, would look like a signal.

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
