"""Policies with buffers and extra state, and the comparison of a loaded model with the saved one."""

import threading
from typing import Any

import numpy as np
import torch as th
from helpers import RandomEnv, sample_observations
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_vpg import VPG


def quantised() -> th.Tensor:
    return th.quantize_per_tensor(th.arange(3.0), 0.1, 0, th.quint8)


BUFFERS = {
    "mask": lambda: nn.Transformer.generate_square_subsequent_mask(4),
    "nan": lambda: th.full((2, 3), float("nan")),
    "infinite number": lambda: th.tensor(float("inf")),
    "complex": lambda: th.tensor([1 + 2j, 3j]),
    "bool": lambda: th.tensor([True, False]),
    "integers": lambda: th.arange(3),
    "half": lambda: th.tensor([float("-inf")], dtype=th.float16),
    "brain": lambda: th.tensor([1.5], dtype=th.bfloat16),
    "empty": lambda: th.zeros(0, 3),
}
FOR_TRUST = {
    "sparse": lambda: th.eye(3).to_sparse(),
    "rows": lambda: th.eye(3).to_sparse_csr(),
    "quantised": quantised,
    "short": lambda: th.tensor([1, 65535], dtype=th.uint16),
    "eight bits": lambda: th.tensor([1.0, 2.0]).to(th.float8_e5m2),
}


class Holding(BaseFeaturesExtractor):
    """A layer, and a buffer or a frozen parameter."""

    def __init__(self, space: Any, kind: str = "mask", frozen: bool = False) -> None:
        super().__init__(space, 3)
        self.layer = nn.Linear(3, 3)
        value = {**BUFFERS, **FOR_TRUST}[kind]()
        if frozen:
            self.held = nn.Parameter(value, requires_grad=False)
        else:
            self.register_buffer("held", value)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return th.tanh(self.layer(observations))


class Remembering(Holding):
    """It also has an extra state, which is no tensor."""

    def __init__(self, space: Any, state: str) -> None:
        super().__init__(space)
        self.state = STATES[state]()

    def get_extra_state(self) -> Any:
        return self.state

    def set_extra_state(self, state: Any) -> None:
        self.state = state


class Opaque:
    """An object that torch can only pickle."""


STATES: dict[str, Any] = {
    "dict": lambda: {"seen": 3, "names": ["a", None], "scale": float("nan")},
    "number": lambda: 7,
    "set": lambda: {1, 2},
    "object": Opaque,
    "lock": threading.Lock,
}


def build(algorithm: Any = VPG, cls: type = Holding, envs: Any = None, **kwargs: Any) -> Any:
    policy_kwargs = {"net_arch": [8], "features_extractor_class": cls, "features_extractor_kwargs": kwargs}
    return algorithm("MlpPolicy", envs or RandomEnv(), n_steps=16, seed=0, device="cpu", policy_kwargs=policy_kwargs)


def same(first: th.Tensor, second: th.Tensor) -> bool:
    """:return: True if equal to the last bit, also NaN, sparse, quantised tensors and types that NumPy does not support"""
    return first.dtype == second.dtype and np.array_equal(_array(first), _array(second), equal_nan=True)


def _array(value: th.Tensor) -> np.ndarray:
    value = value.detach().dequantize() if value.is_quantized else value.detach().to_dense()
    value = value.view(th.uint8) if value.dtype in (th.uint16, th.float8_e5m2) else value
    return value.numpy() if value.is_complex() else value.float().numpy()


def assert_loaded(model: Any, loaded: Any) -> None:
    one, other = weights_and_more(model), weights_and_more(loaded)
    assert one.keys() == other.keys()
    assert all(same(one[key], other[key]) for key in one)
    observations = sample_observations(model).numpy()
    actions = [each.predict(observations, deterministic=True)[0] for each in (model, loaded)]
    np.testing.assert_array_equal(*actions)


def weights_and_more(model: Any) -> dict[str, th.Tensor]:
    return {key: value for key, value in model.policy.state_dict().items() if isinstance(value, th.Tensor)}


def with_attribute(model: Any, value: Any) -> Any:
    model.mine = value
    return model
