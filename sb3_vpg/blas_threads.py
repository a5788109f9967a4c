"""How many threads NumPy's matrix products use while models learn."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch as th
from threadpoolctl import threadpool_limits

_lock = Lock()
_limits: list[threadpool_limits] = []
"""One for each ``learn`` that is under way; only the first knows the number from before."""


@contextmanager
def torchs_threads() -> Iterator[None]:
    """
    As many as torch is set to. The number belongs to the whole process: models that learn at the same time, each in a thread
    of its own, share it, and the last one that ends gives back the number from before the first.
    """
    with _lock:
        _limits.append(threadpool_limits(th.get_num_threads(), user_api="blas"))
    try:
        yield
    finally:
        with _lock:
            first = _limits[0]
            # The first one stays until nobody learns any more
            _limits.pop()
            if not _limits:
                first.restore_original_limits()
