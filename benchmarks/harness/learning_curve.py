"""The learning curve of a run: the returns of its training episodes, in bins of equal numbers of steps."""

import time
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

N_BINS = 50


class Curve(BaseCallback):
    """Record the environment step at which each episode ends, and its return."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[int] = []
        self.returns: list[float] = []

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self.ends.append(self.num_timesteps)
                self.returns.append(info["episode"]["r"])
        return True

    def state_dict(self) -> dict[str, Any]:
        """:return: the episodes so far, for a checkpoint"""
        return {"ends": self.ends, "returns": self.returns}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.ends, self.returns = list(state["ends"]), list(state["returns"])

    def binned(self, steps: int) -> list[float]:
        """:return: mean return of the episodes that end in each of ``N_BINS`` equal parts of the run; see ``bin_returns``"""
        return bin_returns(np.array(self.ends), np.array(self.returns), steps)


class TimedCurve(Curve):
    """Count the CPU seconds of training, too. Those between the last checkpoint and a kill do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.since = 0.0, time.process_time()

    @property
    def seconds(self) -> float:
        return self.before + time.process_time() - self.since

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.before, self.since = state["seconds"], time.process_time()


def bin_returns(ends: np.ndarray, returns: np.ndarray, steps: int) -> list[float]:
    """:return: mean return in each bin; a bin in which no episode ends has the number before it, the first ones the first"""
    bins = np.minimum((ends - 1) * N_BINS // steps, N_BINS - 1)
    means: list[float | None] = [
        float(returns[bins == index].mean()) if (bins == index).any() else None for index in range(N_BINS)
    ]
    last = next((mean for mean in means if mean is not None), float("nan"))
    result = []
    for mean in means:
        last = last if mean is None else mean
        result.append(last)
    return result
