"""An exported agent that plays, in onnxruntime: it has ``predict`` as a model, but takes raw observations."""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from sb3_vpg.export.signature import ACTION, MASKS, NEXT_STATES, NOISE, OBSERVATION, STARTS, STATES, draw_noise

_LARGEST_SIZE = 10**7


class OnnxPlayer:
    """
    Plays an ONNX file that ``export`` has written.

    :param path: of the file
    :param seed: of the noise, if the file samples
    :raises FileNotFoundError: if there is no such file
    :raises ValueError: if onnxruntime is not installed, or if ``export`` has not written the file
    """

    def __init__(self, path: str | os.PathLike[str], seed: int = 0) -> None:
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise ValueError("playing an ONNX file needs onnxruntime: pip install 'sb3-vpg[export]'") from error
        with open(path, "rb") as file:
            content = file.read()
        options = onnxruntime.SessionOptions()
        # More threads are slower for small networks
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            texts = self._session.get_modelmeta().custom_metadata_map
            self.metadata: dict[str, Any] = {name: json.loads(text) for name, text in texts.items()}
            """What the file says of itself: see docs/export.md."""
            self._inputs, self._outputs = self.metadata["inputs"], list(self.metadata["outputs"])
            self._check_metadata()
        except Exception as error:  # onnxruntime's own classes
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"{path} is no ONNX file that sb3_vpg.export has written: {reason:.200}") from error
        self._rng = np.random.default_rng(seed)

    def _check_metadata(self) -> None:
        """:raises ValueError: if the metadata are not those of this file, which may be of someone else"""
        environment = self.metadata["environment"]
        env_id, kwargs = environment.get("id"), environment.get("kwargs") or {}
        if not isinstance(env_id, str | None) or not isinstance(kwargs, dict) or "id" in kwargs:
            raise ValueError("its metadata do not name an environment")
        for kind, described, found in (
            ("inputs", self._inputs, self._session.get_inputs()),
            ("outputs", self.metadata["outputs"], self._session.get_outputs()),
        ):
            named = {name: [size for size in tensor["shape"] if size != "n"] for name, tensor in described.items()}
            # onnxruntime has None or a name where the batch's size stands
            if named != {tensor.name: [size for size in tensor.shape if isinstance(size, int)] for tensor in found}:
                raise ValueError(f"its metadata name other {kind} than it has")
            if max((size for sizes in named.values() for size in sizes), default=0) > _LARGEST_SIZE:
                raise ValueError(f"one of its {kind} has more than {_LARGEST_SIZE:,} entries")
        if not self.metadata.keys() >= {"observation_space", "action_space"}:
            raise ValueError("its metadata do not name the spaces")

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs for these inputs, each by its name."""
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        As ``predict`` of a model, for a batch of n observations.

        :param observation: raw, shape (n, \\*shape), or a dict of such arrays
        :param state: that of the last call, if the agent is recurrent; None: of a new episode
        :param episode_start: True where an episode begins, shape (n,); None: nowhere
        :param deterministic: has no effect: the file says whether it samples
        :param action_masks: True for allowed actions, shape (n, M); None: all are allowed
        :return: actions, shape (n, \\*action_space.shape), and the state for the next call
        """
        parts = observation if isinstance(observation, dict) else {OBSERVATION: observation}
        given = {name: np.asarray(value) for name, value in parts.items() if name in self._inputs}
        n = len(next(iter(given.values())))
        if MASKS in self._inputs:
            given[MASKS] = np.ones((n, self._inputs[MASKS]["shape"][1])) if action_masks is None else np.asarray(action_masks)
        if STARTS in self._inputs:
            given[STARTS] = np.full(n, state is None) if episode_start is None else np.asarray(episode_start)
            for index, name in enumerate(STATES):
                n_layers, _, n_units = self._inputs[name]["shape"]
                given[name] = np.zeros((n_layers, n, n_units)) if state is None else state[index]
        if NOISE in self._inputs:
            given[NOISE] = draw_noise(self._inputs[NOISE], n, self._rng)
        outputs = self.run({name: value.astype(self._inputs[name]["dtype"], copy=False) for name, value in given.items()})
        states = tuple(outputs[name] for name in NEXT_STATES) if STARTS in self._inputs else None
        return outputs[ACTION], states
