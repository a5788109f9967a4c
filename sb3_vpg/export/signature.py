"""The names, types and shapes of what an exported agent takes and returns."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_vpg.vec_env.action_masks import mask_sizes

OBSERVATION = "observation"
"""The input of an observation that is no ``Dict``; the keys of a ``Dict`` are inputs of their own."""
MASKS, STARTS, NOISE = "action_masks", "episode_start", "noise"
STATES = ("state_h", "state_c")
ACTION = "action"
NEXT_STATES = ("state_h_out", "state_c_out")
"""In an ONNX file, an output cannot have the name of an input."""
RESERVED = {MASKS, STARTS, NOISE, *STATES, ACTION, *NEXT_STATES}


@dataclass(frozen=True)
class Tensor:
    """
    An input or output of an exported agent.

    :param dtype: of its entries
    :param shape: with None in the place of the batch's size n
    :param meaning: in words
    """

    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]
    meaning: str

    @property
    def batch_axis(self) -> int:
        """The axis along which a batch is stacked."""
        return self.shape.index(None)

    def zeros(self, n: int) -> np.ndarray:
        """Return a batch of n zeros."""
        return np.zeros([n if size is None else size for size in self.shape], self.dtype)

    def describe(self) -> dict[str, Any]:
        """Return what the metadata of a file say of it."""
        return {"dtype": str(self.dtype), "shape": ["n" if size is None else size for size in self.shape], "is": self.meaning}


def observation_tensors(space: spaces.Space[Any]) -> dict[str, Tensor]:
    """
    :param space: of the environment's raw observations
    :return: its inputs, in the order of the space
    :raises ValueError: if a key of a ``Dict`` is the name of another input or output
    """
    parts: Mapping[str, spaces.Space[Any]] = space.spaces if isinstance(space, spaces.Dict) else {OBSERVATION: space}
    taken = sorted(RESERVED & parts.keys())
    if taken:
        raise ValueError(
            f"the observation has the key {taken[0]!r}, which is the name of another input or output of an exported agent; "
            "give the key another name, with a wrapper of the environment"
        )
    meaning = "raw observations of n environments"
    return {name: Tensor(np.dtype(part.dtype), (None, *(part.shape or ())), meaning) for name, part in parts.items()}


def action_dtype(space: spaces.Space[Any]) -> np.dtype[Any]:
    """Return the type of actions for the environment: of a ``Box``, NumPy's after clipping float32 to its bounds."""
    return np.result_type(np.float32, space.dtype) if isinstance(space, spaces.Box) else np.dtype(space.dtype)


def noise_tensor(space: spaces.Space[Any], has_masks: bool) -> Tensor:
    """Return the input from which actions of this space are sampled. ``has_masks``: by one of sb3_contrib's policies."""
    if isinstance(space, spaces.Box):
        return Tensor(np.dtype(np.float32), (None, int(np.prod(space.shape))), "independent, standard normal")
    # The policies with masks have two logits for each bit
    is_bits = isinstance(space, spaces.MultiBinary) and not has_masks
    size = int(np.prod(space.shape or ())) if is_bits else sum(mask_sizes(space))
    return Tensor(np.dtype(np.float32), (None, size), "independent, uniform in (0, 1)")


def draw_noise(tensor: Mapping[str, Any], n: int, rng: np.random.Generator) -> np.ndarray:
    """
    :param tensor: the input ``noise`` as ``Tensor.describe`` describes it
    :return: noise for n environments, shape (n, size)
    """
    shape = (n, tensor["shape"][1])
    draw = rng.standard_normal(shape) if "normal" in tensor["is"] else rng.uniform(1e-7, 1 - 1e-7, shape)
    return draw.astype(np.float32)


def describe(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return inputs or outputs as the metadata have them."""
    return {name: tensor.describe() for name, tensor in tensors.items()}


def stack(batches: Iterable[Mapping[str, np.ndarray]], tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Join batches of all these tensors, each along its own axis."""
    batches = list(batches)
    return {
        name: np.concatenate([batch[name] for batch in batches], axis=tensor.batch_axis) for name, tensor in tensors.items()
    }
