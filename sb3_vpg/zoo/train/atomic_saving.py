"""The files that the zoo writes while it trains, written whole or not at all."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import rl_zoo3.exp_manager
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecNormalize

from sb3_vpg.common.atomic_files import replaced_whole
from sb3_vpg.zoo.patching import replaced
from sb3_vpg.zoo.train.callbacks import WholeEvalCallback


@contextmanager
def whole_files() -> Iterator[None]:
    """
    While it lasts, models, statistics and replay buffers are saved whole, and the zoo evaluates with ``WholeEvalCallback``.
    SB3 has no hook for the saving of others' algorithms, so its methods are replaced.
    """
    with ExitStack() as stack:
        for owner, name, suffix in _SAVING:
            stack.enter_context(replaced(owner, name, _whole(getattr(owner, name), suffix)))
        stack.enter_context(replaced(rl_zoo3.exp_manager, "EvalCallback", WholeEvalCallback))
        yield


_SAVING = ((BaseAlgorithm, "save", ".zip"), (OffPolicyAlgorithm, "save_replay_buffer", ".pkl"), (VecNormalize, "save", ""))


def _whole(save: Callable[..., None], suffix: str) -> Callable[..., None]:
    @wraps(save)
    def save_whole(self: Any, path: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(path, (str, PathLike)):
            save(self, path, *args, **kwargs)
            return
        target = Path(fspath(path))
        # SB3 completes a name that has none
        with replaced_whole(target if target.suffix else f"{target}{suffix}") as part:
            save(self, part, *args, **kwargs)

    return save_whole
