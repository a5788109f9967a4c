"""Agents as programs of torch and as ONNX files: how they are made, written and run."""

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import copy
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch as th
from torch.export.passes import move_to_device_pass

from sb3_vpg.exceptions import ExportError
from sb3_vpg.export.agent import Agent, single_steps, without_validation
from sb3_vpg.export.onnx_player import OnnxPlayer

Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
"""A written file as a function, from its inputs to its outputs."""
METADATA = "metadata.json"
"""The extra file of a program of torch that holds what an ONNX file has in its metadata."""
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_TALKATIVE = ("torch.onnx", "torch.export", "torch.fx")
_OPSET = 18
_EXAMPLES = 3


def missing_packages() -> list[str]:
    """Return the packages of the extra ``export`` that are not installed."""
    return [name for name in _PACKAGES if find_spec(name) is None]


def check_extra() -> None:
    """:raises ValueError: if a package of the extra ``export`` is missing"""
    if missing := missing_packages():
        raise ValueError(f"ONNX files need {', '.join(missing)}, not installed here: pip install 'sb3-vpg[export]'")


def trace(agent: Agent) -> th.export.ExportedProgram:
    """
    Return the agent as a program of torch for batches of any size. It runs on the CPU, also if the model is on a GPU.

    :raises ExportError: if torch cannot export the policy
    """
    example = {
        name: th.as_tensor(tensor.zeros(_EXAMPLES), device=agent.policy.device) for name, tensor in agent.inputs.items()
    }
    if "noise" in example:
        example["noise"] += 0.5
    size = th.export.Dim("n", min=1)
    shapes = ({name: {tensor.batch_axis: size} for name, tensor in agent.inputs.items()},)
    policy, was_training = agent.policy, agent.policy.training
    distribution = getattr(policy, "action_dist", None)
    policy.set_training_mode(False)
    try:
        # A copy, in which the trace leaves its tensors without values
        policy.action_dist = copy(distribution)
        with without_validation(), single_steps(agent.policy), _quiet(), th.no_grad():
            program = th.export.export(agent, (example,), dynamic_shapes=shapes)
    except Exception as error:  # whatever torch raises, and the user's own layers
        raise ExportError(_reason(agent.policy, error)) from error
    finally:
        policy.action_dist = distribution
        policy.set_training_mode(was_training)
    for node in program.graph.nodes:
        # Names files of this machine
        node.meta.pop("stack_trace", None)
    return program if agent.policy.device.type == "cpu" else move_to_device_pass(program, "cpu")


def _reason(policy: Any, error: Exception) -> str:
    extractor = getattr(policy, "features_extractor", None)
    inside = "" if extractor is None else f" with {type(extractor).__name__}"
    while isinstance(error.__cause__, Exception):
        # torch's own errors say how to report them to torch; their causes say what is wrong
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = " ".join(lines[:3])[:400].rstrip(". ") or "no message"
    return (
        f"torch cannot export {type(policy).__name__}{inside}: {type(error).__name__}: {reason}. Its layers may use only "
        "operations of torch, and may not branch on the values of tensors"
    )


def write_torch(program: th.export.ExportedProgram, path: str, metadata: Mapping[str, str]) -> None:
    """Write a program with its metadata."""
    with _quiet():
        th.export.save(program, path, extra_files={METADATA: json.dumps(metadata)})


def write_onnx(program: th.export.ExportedProgram, path: str, metadata: Mapping[str, str], agent: Agent) -> None:
    """
    Write a program as an ONNX file with its metadata.

    :raises ExportError: if an operation of the policy does not exist in ONNX
    """
    shapes = ({name: {tensor.batch_axis: "n"} for name, tensor in agent.inputs.items()},)
    try:
        with _quiet():
            made = th.onnx.export(
                program,
                input_names=list(agent.inputs),
                output_names=list(agent.outputs),
                opset_version=_OPSET,
                dynamic_shapes=shapes,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # whatever torch and onnxscript raise
        raise ExportError(_reason(agent.policy, error)) from error
    assert made is not None
    graph = made.model.graph
    for part in (graph, *graph, *(value for node in graph for value in node.outputs)):
        # Names of classes and files of this machine
        part.metadata_props.clear()
    inner = [value for node in graph for value in node.outputs if not value.is_graph_output()]
    for index, value in enumerate(inner):
        # Any name may be the key of a Dict observation
        value.name = f"/{index}"
    made.model.metadata_props.clear()
    made.model.metadata_props.update(metadata)
    made.save(path, external_data=False)


def open_torch(path: str) -> Run:
    """Return a program in a file as a function."""
    module = th.export.load(path).module()

    def run(inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        with th.no_grad():
            outputs = module({name: th.as_tensor(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in outputs.items()}

    return run


def open_onnx(path: str) -> Run:
    """Return an ONNX file as a function."""
    return OnnxPlayer(path).run


@contextmanager
def _quiet() -> Iterator[None]:
    """Within the block, hide what torch says to its own developers."""
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for name in _TALKATIVE:
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL)
        yield
