"""Write the zoo's files atomically while it trains: a file is complete, or it does not exist."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from os import PathLike, fspath
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from sb3_vpg.common.atomic_files import atomic_replace
from sb3_vpg.zoo.patching import patched
from sb3_vpg.zoo.train.callbacks import WholeEvalCallback


@contextmanager
def atomic_saving() -> Iterator[None]:
    """
    Inside the block, models, statistics and replay buffers are saved atomically, and the zoo evaluates with
    ``WholeEvalCallback``. SB3 has no hook for saving, so the ``save`` methods of its classes are patched.
    """
    with ExitStack() as stack:
        for target, suffix in _SAVING.items():
            stack.enter_context(patched(target, _atomic(resolve_name(target), suffix)))
        stack.enter_context(patched("rl_zoo3.exp_manager:EvalCallback", WholeEvalCallback))
        yield


_SAVING = {
    "stable_baselines3.common.base_class:BaseAlgorithm.save": ".zip",
    "stable_baselines3.common.off_policy_algorithm:OffPolicyAlgorithm.save_replay_buffer": ".pkl",
    "stable_baselines3.common.vec_env:VecNormalize.save": "",
}
"""From a method to the suffix that it adds to a name without one."""


def _atomic(save: Callable[..., None], suffix: str) -> Callable[..., None]:
    """:return: ``save``, but it writes to a temporary file, which takes the place of the target at the end"""

    @wraps(save)
    def save_atomically(self: Any, path: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(path, (str, PathLike)):
            save(self, path, *args, **kwargs)
            return
        target = Path(fspath(path))
        with atomic_replace(target if target.suffix else f"{target}{suffix}") as part:
            save(self, part, *args, **kwargs)

    return save_atomically
