"""Models that learn in several threads of one process at the same time."""

from threading import Barrier, Thread
from typing import Any

import torch as th
from helpers import differing, make_model, weights
from stable_baselines3.common.callbacks import BaseCallback
from threadpoolctl import threadpool_info, threadpool_limits


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


class Meets(BaseCallback):
    """Waits for the others at its first step, and lets those that come first end first."""

    def __init__(self, meeting: Barrier, n_steps: int, seen: list[set[int]]) -> None:
        super().__init__()
        self.meeting, self.n_steps, self.seen = meeting, n_steps, seen

    def _on_step(self) -> bool:
        if self.n_calls == 1:
            self.meeting.wait(60)
        self.seen.append(blas_threads())
        return self.n_calls < self.n_steps


def learn(callback: BaseCallback) -> None:
    # The setting is one of each thread
    th.set_num_threads(1)
    make_model().learn(400, callback=callback)


def test_the_threads_of_numpy_are_given_back_when_the_last_one_is_done() -> None:
    """Whichever began first or ends last; while one of them learns they are torch's."""
    with threadpool_limits(2, user_api="blas"):
        before, seen, meeting = blas_threads(), [], Barrier(3)
        calls: list[Any] = [Meets(meeting, n_steps, seen) for n_steps in (3, 40, 80)]
        threads = [Thread(target=learn, args=(one,)) for one in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert blas_threads() == before
        assert len(seen) == 123
        assert all(one == {1} for one in seen)


def test_a_model_that_learns_within_another_ones_learning_gives_them_back() -> None:
    """As a callback that trains an opponent does; and what is learned is what is learned alone."""
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        inner = make_model(seed=1)

        def train_another(variables: Any, _: Any) -> bool:
            if variables["self"].num_timesteps == 5:
                inner.learn(32)
                assert blas_threads() == {th.get_num_threads()}
            return True

        make_model().learn(16, callback=train_another)
        assert blas_threads() == before
    assert not differing(weights(inner), weights(make_model(seed=1).learn(32)))
