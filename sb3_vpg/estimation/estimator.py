"""The choice of the policy gradient estimator: its options, which combinations are defined, and its advantages."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from sb3_vpg.common.arguments import whole_number
from sb3_vpg.estimation.baselines import leave_one_out, optimal_constant
from sb3_vpg.estimation.returns import Episodes, Floats, check_shapes, returns_to_go, total_returns

Baseline = Literal["value", "none", "average", "leave_one_out", "optimal"]
ScoreProducts = Callable[[Floats, Floats], tuple[Floats, Floats]]
"""Takes the weights ``w_M`` and the returns ``G_EM``; returns ``A · S`` and ``S · S`` as ``optimal_constant`` takes them."""
_AVERAGING = 0.1


@dataclass(frozen=True)
class Estimator:
    """
    The options of the estimator. ``VPG`` documents them.

    :raises ValueError: for a combination that is not defined; the message names it and what to use instead
    """

    baseline: Baseline
    n_episodes: int | None
    reward_to_go: bool
    discount_steps: bool
    gamma: float
    n_envs: int
    use_sde: bool = False

    def __post_init__(self) -> None:
        if self.baseline not in get_args(Baseline):
            raise ValueError(f"baseline must be one of {', '.join(get_args(Baseline))}, but is {self.baseline!r}")
        if self.n_episodes is not None:
            whole_number("n_episodes", self.n_episodes, at_least=1)
        elif self.baseline in ("leave_one_out", "optimal"):
            raise ValueError(f"baseline={self.baseline!r} compares complete episodes: set n_episodes")
        elif not self.reward_to_go:
            raise ValueError("reward_to_go=False weights a step by the return of its complete episode: set n_episodes")
        elif self.discount_steps:
            raise ValueError("discount_steps=True counts the steps from the start of each episode: set n_episodes")
        if self.baseline in ("leave_one_out", "optimal") and self.n_episodes == self.n_envs == 1:
            raise ValueError(
                f"baseline={self.baseline!r} needs at least two episodes per update, but n_episodes=1 in one environment "
                "gives one: raise n_episodes or the number of environments"
            )
        if self.use_sde and self.baseline in ("leave_one_out", "optimal") and self.n_episodes != 1:
            raise ValueError(
                f"baseline={self.baseline!r} assumes independent episodes, but with use_sde=True those of one environment "
                "share their noise: set n_episodes=1 with several environments, or use_sde=False"
            )
        if not self.reward_to_go and self.baseline == "value":
            raise ValueError("reward_to_go=False cannot use the value of the current state: choose another baseline")
        if not self.reward_to_go and self.discount_steps:
            raise ValueError("reward_to_go=False already discounts from the start of the episode: set discount_steps=False")

    @property
    def has_critic(self) -> bool:
        """True if the advantages need a value function. If not, it is neither trained nor evaluated."""
        return self.baseline == "value"

    @property
    def is_gae_on_fixed_length(self) -> bool:
        """True for GAE over rollouts of fixed length, which SB3's own buffer can compute."""
        return self.has_critic and self.n_episodes is None

    def weights(self, episodes: Episodes) -> Floats:
        """Return the factor of each step, shape (M,): gamma^t with ``discount_steps``, else 1."""
        return (self.gamma if self.discount_steps else 1.0) ** np.arange(episodes.lengths_E.max())

    def monte_carlo(
        self, episodes: Episodes, rewards_EM: Floats, average: float, score_products: ScoreProducts
    ) -> tuple[Floats, Floats, float]:
        """
        Compute the advantages of a baseline that needs no critic. An episode that a time limit or the rollout cuts counts as
        ended, since there is no critic to estimate what would have followed.

        :param episodes: of the rollout
        :param rewards_EM: rewards, zero after the end of an episode
        :param average: mean return of earlier updates, for the baseline ``"average"``
        :param score_products: called for the baseline ``"optimal"`` only
        :return: ``A_EM``, ``G_EM`` and the mean return of this update: over steps, or with ``reward_to_go=False`` over
            episodes
        """
        alive_EM = episodes.alive_EM
        check_shapes(alive_EM=alive_EM, rewards_EM=rewards_EM)
        if self.reward_to_go:
            returns_EM = returns_to_go(rewards_EM, self.gamma)
            mean, compared_EM = float(returns_EM[alive_EM].mean()), alive_EM
        else:
            returns_EM = total_returns(rewards_EM, self.gamma)
            # Every step has the return of the whole episode, so each one is compared with all other episodes
            mean, compared_EM = float(returns_EM[:, 0].mean()), np.ones_like(alive_EM)
        weights_M = self.weights(episodes)

        baseline: Any = 0.0
        if self.baseline == "average":
            baseline = average
        elif self.baseline == "leave_one_out":
            baseline = leave_one_out(returns_EM, compared_EM)
        elif self.baseline == "optimal":
            baseline = optimal_constant(*score_products(weights_M, returns_EM))[:, None]
        return weights_M * (returns_EM - baseline), returns_EM, mean


def next_average(average: float | None, mean: float | None) -> float | None:
    """
    Return the baseline ``"average"`` of the next update: a step from the average towards the mean return of this update.

    :param average: of earlier updates; None before the first
    :param mean: of this update; None or not finite if it has none
    """
    if mean is None or not math.isfinite(mean):
        return average
    return mean if average is None else average + _AVERAGING * (mean - average)
