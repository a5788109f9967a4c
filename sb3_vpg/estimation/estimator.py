"""Which policy gradient is estimated: the choice of options, what of it is defined, and the advantages that follow."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from sb3_vpg.common.arguments import whole_number
from sb3_vpg.estimation.baselines import leave_one_out, optimal_constant
from sb3_vpg.estimation.returns import Episodes, Floats, returns_to_go, total_returns

Baseline = Literal["value", "none", "average", "leave_one_out", "optimal"]
ScoreProducts = Callable[[Floats, Floats], tuple[Floats, Floats]]
"""From the weights ``w_M`` and the returns ``G_EM`` to ``A · S`` and ``S · S`` of each episode: see ``optimal_constant``."""
AVERAGING = 0.1
"""How far the average of the baseline ``"average"`` moves towards the mean return of an update."""


@dataclass(frozen=True)
class Estimator:
    """
    The options that decide what ``VPG`` estimates; ``VPG`` documents them.

    :raises ValueError: for a combination that is not defined, naming it and the way out
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
            raise ValueError(f"baseline={self.baseline!r} compares whole episodes: set n_episodes, per environment and update")
        elif not self.reward_to_go:
            raise ValueError("reward_to_go=False weights a step by the return of its whole episode: set n_episodes")
        elif self.discount_steps:
            raise ValueError("discount_steps=True counts steps from the start of an episode: set n_episodes")
        if self.baseline in ("leave_one_out", "optimal") and self.n_episodes == self.n_envs == 1:
            raise ValueError(
                f"baseline={self.baseline!r} compares an episode with the others of its update, but n_episodes=1 in one "
                "environment leaves no other: raise n_episodes or the number of environments"
            )
        if self.use_sde and self.baseline in ("leave_one_out", "optimal") and self.n_episodes != 1:
            raise ValueError(
                f"baseline={self.baseline!r} takes the other episodes for independent, but with use_sde=True those of one "
                "environment share their noise: set n_episodes=1 with several environments, or use_sde=False"
            )
        if not self.reward_to_go and self.baseline == "value":
            raise ValueError("reward_to_go=False has no use for the value of the present state: choose another baseline")
        if not self.reward_to_go and self.discount_steps:
            raise ValueError("reward_to_go=False discounts from the start of the episode already: leave discount_steps False")

    @property
    def has_critic(self) -> bool:
        """Whether a value function enters the advantages. If not, none is trained and none is asked."""
        return self.baseline == "value"

    @property
    def is_gae_on_fixed_length(self) -> bool:
        """Whether SB3's own collection and buffer compute the advantages: GAE over rollouts of fixed length."""
        return self.has_critic and self.n_episodes is None

    def weights(self, episodes: Episodes) -> Floats:
        """:return: the factor of each step, shape (M,): gamma^t with ``discount_steps``, else 1"""
        times_M = np.arange(episodes.lengths_E.max())
        return (self.gamma if self.discount_steps else 1.0) ** times_M

    def monte_carlo(
        self, episodes: Episodes, rewards_EM: Floats, average: float, score_products: ScoreProducts
    ) -> tuple[Floats, Floats, float]:
        """
        The advantages of a baseline that needs no critic. A time-out and the cut of a rollout are ends: there is no value
        to put in the place of what would have followed.

        :param episodes: where the steps belong
        :param rewards_EM: rewards, zero behind the end of an episode
        :param average: mean return of earlier updates, for the baseline ``"average"``
        :param score_products: asked by the baseline ``"optimal"`` alone
        :return: ``A_EM``, ``G_EM`` and the mean return of this update: over steps, or with ``reward_to_go=False`` over
            episodes
        """
        alive_EM = episodes.alive_EM
        if self.reward_to_go:
            returns_EM = returns_to_go(rewards_EM, self.gamma)
            mean, comparable_EM = float(returns_EM[alive_EM].mean()), alive_EM
        else:
            returns_EM = total_returns(rewards_EM, self.gamma)
            mean, comparable_EM = float(returns_EM[:, 0].mean()), np.ones_like(alive_EM)
        weights_M = self.weights(episodes)

        baseline: Any = 0.0
        if self.baseline == "average":
            baseline = average
        elif self.baseline == "leave_one_out":
            baseline = leave_one_out(returns_EM, comparable_EM)
        elif self.baseline == "optimal":
            baseline = optimal_constant(*score_products(weights_M, returns_EM))[:, None]
        return weights_M * (returns_EM - baseline), returns_EM, mean
