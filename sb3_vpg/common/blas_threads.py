"""Set the number of threads that NumPy's matrix products use while models learn."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, get_ident

import torch as th
from threadpoolctl import threadpool_limits

_lock = Lock()
_learning: list[int] = []
"""The Python threads in which a model learns."""
_first_limits: list[threadpool_limits] = []
"""The limits of the thread that began first, which restore the original number."""


@contextmanager
def blas_threads_as_torch() -> Iterator[None]:
    """
    Use as many threads as torch (``torch.set_num_threads``). The number belongs to the process, but several Python threads may
    learn at the same time, so each of them restores the number from before the first one began.
    """
    thread = get_ident()
    with _lock:
        limits = threadpool_limits(th.get_num_threads(), user_api="blas")
        if not _learning:
            _first_limits[:] = [limits]
        _learning.append(thread)
    try:
        yield
    finally:
        with _lock:
            _learning.remove(thread)
            if thread not in _learning:
                _first_limits[0].restore_original_limits()
