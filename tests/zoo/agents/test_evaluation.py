"""The score of an agent: its interval, and the circumstances that are kept with it."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from sb3_vpg.zoo.agents.evaluation import Evaluation, evaluate_run
from sb3_vpg.zoo.package_data import shipped_folder


def evaluation(returns: Sequence[float]) -> Evaluation:
    array = np.array(returns, dtype=float)
    return Evaluation(Path(), Path(), array, np.ones(len(array)), 1, 0, 1, True, "2026-11-30T10:00:00")


def test_the_interval_is_students() -> None:
    """The quantile for three degrees of freedom is 3.182 in printed tables; the standard error is 1 / sqrt(3)."""
    score = evaluation([1, 1, 3, 3])
    assert (score.mean, score.std) == (2, 1)
    assert score.interval == pytest.approx((2 - 3.1824 / np.sqrt(3), 2 + 3.1824 / np.sqrt(3)), abs=1e-4)


def test_one_episode_says_nothing_of_the_mean() -> None:
    assert evaluation([5]).interval == (-np.inf, np.inf)


def test_equal_returns_have_an_interval_of_width_zero() -> None:
    assert evaluation([500, 500, 500]).interval == (500, 500)


@pytest.mark.parametrize(("n_episodes", "n_envs"), [(3, 3), (12, 10)])
def test_a_score_knows_how_it_was_measured(n_episodes: int, n_envs: int) -> None:
    score = evaluate_run(str(shipped_folder()), "vpg", "CartPole-v1", 1, n_episodes, seed=5, deterministic=False)
    assert (score.seed, score.n_envs, score.deterministic, len(score.returns)) == (5, n_envs, False, n_episodes)
    assert score.how == f"{n_episodes} episodes with sampled actions, in {n_envs} environments seeded from 5 on"


def test_an_entry_may_leave_its_env_kwargs_empty(tmp_path: Path) -> None:
    """As in training: ``env_kwargs:`` without a value is None."""
    run = tmp_path / "vpg" / "CartPole-v1_1"
    shutil.copytree(shipped_folder() / "vpg" / "CartPole-v1_1", run)
    with (run / "CartPole-v1" / "config.yml").open("a") as file:
        file.write("\nenv_kwargs:\n")
    assert len(evaluate_run(str(tmp_path), "vpg", "CartPole-v1", n_episodes=1).returns) == 1


def test_a_run_that_is_not_there_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    """The tuner and the command line expect ValueError; the zoo raises AssertionError."""
    with pytest.raises(ValueError, match=r"folder was not found.*sb3-vpg train --env CartPole-v1"):
        evaluate_run(str(tmp_path), "vpg", "CartPole-v1", 3)
