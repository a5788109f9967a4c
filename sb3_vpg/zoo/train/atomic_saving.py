"""The files that the zoo writes while it trains, written whole or not at all."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from os import PathLike, fspath
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from sb3_vpg.common.atomic_files import atomic_replace
from sb3_vpg.zoo.patching import exchanged
from sb3_vpg.zoo.train.callbacks import WholeEvalCallback


@contextmanager
def atomic_saving() -> Iterator[None]:
    """
    While it lasts, models, statistics and replay buffers are saved whole, and the zoo evaluates with ``WholeEvalCallback``.
    SB3 has no hook for the saving of others' algorithms, so its methods are replaced.
    """
    with ExitStack() as stack:
        for target, suffix in _SAVING.items():
            stack.enter_context(exchanged(target, _whole(resolve_name(target), suffix)))
        stack.enter_context(exchanged("rl_zoo3.exp_manager:EvalCallback", WholeEvalCallback))
        yield


_SAVING = {
    "stable_baselines3.common.base_class:BaseAlgorithm.save": ".zip",
    "stable_baselines3.common.off_policy_algorithm:OffPolicyAlgorithm.save_replay_buffer": ".pkl",
    "stable_baselines3.common.vec_env:VecNormalize.save": "",
}
"""From a method to the ending that it gives a name without one."""


def _whole(save: Callable[..., None], suffix: str) -> Callable[..., None]:
    @wraps(save)
    def save_whole(self: Any, path: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(path, (str, PathLike)):
            save(self, path, *args, **kwargs)
            return
        target = Path(fspath(path))
        # SB3 completes a name that has none
        with atomic_replace(target if target.suffix else f"{target}{suffix}") as part:
            save(self, part, *args, **kwargs)

    return save_whole
