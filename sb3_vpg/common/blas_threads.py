"""How many threads NumPy's matrix products use while models learn."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, get_ident

import torch as th
from threadpoolctl import threadpool_limits

_lock = Lock()
_learning: list[int] = []
"""The Python threads in which somebody learns."""
_first: list[threadpool_limits] = []
"""Of the one that came first: it knows the number from before."""


@contextmanager
def blas_threads_as_torch() -> Iterator[None]:
    """
    As many as torch is set to. The number belongs to the whole process, and threadpoolctl lets one Python thread set it at a
    time: so each one that has done its learning sets what was there before any of them began.
    """
    me = get_ident()
    with _lock:
        limits = threadpool_limits(th.get_num_threads(), user_api="blas")
        if not _learning:
            _first[:] = [limits]
        _learning.append(me)
    try:
        yield
    finally:
        with _lock:
            _learning.remove(me)
            if me not in _learning:
                _first[0].restore_original_limits()
