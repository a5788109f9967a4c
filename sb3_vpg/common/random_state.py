"""Random number generators: the global ones that training draws from, those of a model, and those that files may name."""

import random
from typing import Any

import numpy as np
import torch as th

BIT_GENERATORS = {
    cls.__name__: cls for cls in (np.random.MT19937, np.random.PCG64, np.random.PCG64DXSM, np.random.Philox, np.random.SFC64)
}
"""NumPy's bit generators by name. Models and checkpoints save and restore these and no others."""


def copy_streams() -> dict[str, Any]:
    """:return: the states of Python's, NumPy's and torch's global generators, as plain values"""
    streams = {"python": random.getstate(), "numpy": np.random.get_state(), "torch": th.get_rng_state().numpy().copy()}
    # Asking an unused GPU would allocate memory on it, and make forks impossible
    if th.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch leaves it untyped
        streams["cuda"] = [state.numpy().copy() for state in th.cuda.get_rng_state_all()]
    return streams


def restore_streams(streams: dict[str, Any]) -> None:
    """Restore what ``copy_streams`` returned; of GPUs only the states of those that this machine has."""
    random.setstate(streams["python"])
    np.random.set_state(streams["numpy"])
    th.set_rng_state(th.from_numpy(streams["torch"]))
    if "cuda" in streams and th.cuda.is_available():
        th.cuda.set_rng_state_all([th.from_numpy(state) for state in streams["cuda"][: th.cuda.device_count()]])


def random_streams(seed: int | None) -> tuple[np.random.Generator, np.random.Generator]:
    """
    :param seed: None draws one from torch's global generator
    :return: a generator for training and one for ``predict``, so that evaluation does not change training
    """
    entropy = int(th.randint(2**62, (1,)).item()) if seed is None else seed
    training, predictions = np.random.default_rng(entropy).spawn(2)
    return training, predictions
