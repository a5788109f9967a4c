"""Read a model: turn the members of an archive into settings and weights, each checked before it is used."""

import copy
import inspect
import io
import json
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch as th
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import recursive_getattr, recursive_setattr
from torch import nn

from sb3_vpg.common.libraries import is_library
from sb3_vpg.exceptions import RefusedFileError, TooLargeError, UnknownClassError
from sb3_vpg.persistence.archives import DATA, VARIABLES, WEIGHTS, read_weights, write_archive
from sb3_vpg.persistence.class_names import class_name
from sb3_vpg.persistence.json_codec import decode
from sb3_vpg.persistence.memory_limit import loads
from sb3_vpg.persistence.packing import is_pickled, left_out_reason, was_left_out
from sb3_vpg.policies import original

# SB3 compares these keywords of load with the settings in the file; all others replace them
_COMPARED = ("policy_kwargs", "observation_space", "action_space")
# What Python and torch raise when a model is built of wrong settings or weights
_FAULTS = (TypeError, LookupError, AttributeError, AssertionError, ArithmeticError, RuntimeError, MemoryError)


@contextmanager
def refusing(name: str, classes: Iterable[type] = ()) -> Iterator[None]:
    """
    Turn errors that a file's content causes into a ``RefusedFileError``, or into a plain ValueError if classes of the user's
    take part, since these may have raised the error.

    :param name: of the file
    :param classes: those of the model and its parts
    """
    try:
        yield
    except RefusedFileError:
        raise
    except TooLargeError as error:
        raise RefusedFileError(f"{name}: {error}", "if you made the file yourself, load it with trust=True") from error
    except (ValueError, *_FAULTS) as error:
        own_classes = sorted(class_name(cls) for cls in classes if not is_library(cls.__module__))
        if own_classes:
            raise ValueError(
                f"{name} was read, but its model could not be rebuilt: {type(error).__name__}: {str(error)[:400]}. If your "
                f"own code ({', '.join(own_classes)[:400]}) raised this, see the traceback of the cause"
            ) from error
        if isinstance(error, ValueError):
            raise RefusedFileError(f"{name}: {str(error)[:1000]}") from error
        raise RefusedFileError(
            f"{name} holds settings or weights from which no model can be built ({type(error).__name__}: {str(error)[:400]})"
        ) from error


def read_settings(
    cls: type[BaseAlgorithm],
    members: dict[str, bytes],
    name: str,
    excluded: list[str],
    custom: dict[str, Any],
    keywords: dict[str, Any],
    trust: bool,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """
    :param cls: the algorithm
    :param members: of the archive ``name``
    :param excluded: names of attributes that ``save`` never writes, and that are therefore refused
    :param custom: ``custom_objects`` of ``load``, which replace settings; the file's own are then not decoded
    :param keywords: the keywords of ``load``, which replace settings too, except those that SB3 compares
    :param trust: accept pickles and replaced methods
    :return: the plain settings; and, with ``trust``, those that SB3 will unpickle
    :raises RefusedFileError: for all other settings
    """
    if DATA not in members:
        raise RefusedFileError(f"{name} holds no settings (no member {DATA!r}), so it is not a model")
    given = {**{key: value for key, value in keywords.items() if key not in _COMPARED}, **custom}
    settings, pickled = {}, {}
    raw = _json(members[DATA], name)
    _check_algorithm(cls, raw, name)
    for key, value in raw.items():
        if key in given:
            settings[key] = given[key]
        elif callable(getattr(cls, key, None)) and not trust:
            raise RefusedFileError(f"{name} has a setting {key!r}, which would take the place of a method; refused")
        elif key in excluded:
            raise RefusedFileError(f"{name} has a setting {key!r}, which no model of ours saves; refused")
        elif is_pickled(value):
            pickled[key] = value
        elif was_left_out(value):
            raise RefusedFileError(f"{name} could not hold {left_out_reason(value)}; pass custom_objects={{{key!r}: ...}}")
        else:
            settings[key] = _decoded(key, value, name)
    if pickled and not trust:
        listed = ", ".join(f"{key} ({value.get(':type:', '?')})" for key, value in pickled.items())[:400]
        raise RefusedFileError(
            f"{name} holds pickles, which can run any code when they are read, and were not read: {listed}",
            advice="if you made the file yourself, load it with trust=True, or replace them with custom_objects",
        )
    return settings, pickled


def _check_algorithm(cls: type[BaseAlgorithm], raw: dict[str, Any], name: str) -> None:
    """:raises RefusedFileError: if the settings are those of another algorithm, such as A2C or PPO"""
    others = {*inspect.signature(A2C).parameters, *inspect.signature(PPO).parameters}
    own = constructor_arguments(cls, "sb3_vpg") - others
    missing = sorted(own - set(raw))
    # Files of older versions lack a few of these settings, and TRPO has one of them
    if {"policy_class", "num_timesteps"} <= set(raw) and 2 * len(missing) > len(own):
        raise RefusedFileError(
            f"{name} holds a model of another algorithm than {cls.__name__} (it has no {', '.join(missing)}): load it with "
            "the class that saved it"
        )


def constructor_arguments(cls: type[BaseAlgorithm], package: str = "") -> set[str]:
    """:return: the arguments of the constructors of a class and its parents: those in ``package``, or all but SB3's"""
    arguments: set[str] = set()
    for base in cls.__mro__:
        root = base.__module__.partition(".")[0]
        if "__init__" in vars(base) and (root == package if package else root not in ("stable_baselines3", "builtins")):
            parameters = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]  # of this very class
            arguments |= {each.name for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)}
    return arguments - {"self"}


def archive_for_sb3(
    members: dict[str, bytes], settings: dict[str, Any], pickles: dict[str, Any], weights: dict[str, Any]
) -> bytes:
    """:return: an archive of checked content for SB3's ``load``, which gets the settings as ``custom_objects``"""
    checked = {DATA: json.dumps({**dict.fromkeys(settings), **pickles}).encode()}
    for what, state in weights.items():
        file = io.BytesIO()
        th.save(state, file)
        checked[f"{what}{WEIGHTS}"] = file.getvalue()
    about = {member: content for member, content in members.items() if member.endswith(".txt")}
    return write_archive({**about, **checked})


def set_variables(model: BaseAlgorithm, variables: dict[str, Any], name: str) -> None:
    """:raises RefusedFileError: if the file has other tensors than those that SB3 calls variables, or in other shapes"""
    own = model._get_torch_save_params()[1]
    if not isinstance(variables, dict) or set(variables) != set(own):
        raise RefusedFileError(f"{name}: {VARIABLES!r} should hold {own}, but holds {variables!s:.200}; refused")
    for what, value in variables.items():
        if not isinstance(value, th.Tensor) or value.shape != recursive_getattr(model, what).shape:
            raise RefusedFileError(f"{name}: {what} has the shape {tuple(getattr(value, 'shape', ()))}; refused")
        recursive_setattr(model, f"{what}.data", value.to(model.device))


def _json(content: bytes, name: str) -> dict[str, Any]:
    try:
        raw = loads(content)
    except ValueError as error:
        raise RefusedFileError(f"{name}: {DATA!r} is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise RefusedFileError(f"{name}: {DATA!r} must hold an object, but holds a {type(raw).__name__}")
    return raw


def _decoded(key: str, value: Any, name: str) -> Any:
    try:
        return decode(value)
    except UnknownClassError as error:
        raise RefusedFileError(f"{name}: {key}: {error}, or pass custom_objects={{{key!r}: ...}}; refused") from error
    except (ValueError, RecursionError) as error:
        raise RefusedFileError(f"{name}: {key}: {error}; refused") from error


def weights_of(members: dict[str, bytes], name: str, trust: bool = False) -> dict[str, Any]:
    """
    :param members: of the archive ``name``
    :param trust: read everything that torch's ``weights_only`` reads
    :return: the state dicts by name, such as ``"policy.optimizer"``
    :raises RefusedFileError: if weights are missing or damaged, or hold a pickle, or if moments are NaN or infinite
    """
    weights = {
        member[: -len(WEIGHTS)]: read_weights(content, member, name, trust)
        for member, content in members.items()
        if member.endswith(WEIGHTS) and member != VARIABLES
    }
    if not isinstance(weights.get("policy"), dict):
        raise RefusedFileError(f"{name} holds no weights (no member 'policy{WEIGHTS}'), so it is not a model")
    return weights


def check_weights(policy: nn.Module, weights: dict[str, Any], name: str) -> None:
    """
    Check that parameters are finite, except where those of ``policy`` are not. Buffers may hold any value.

    :param policy: an untrained one, or the one that will get the weights
    :param weights: state dicts of a file
    :param name: of the file, for errors
    :raises RefusedFileError: for a parameter that is NaN or infinite where the policy's is finite
    :raises ValueError: as ``check_dtypes``
    """
    check_dtypes(policy, weights["policy"])
    for key, parameter in original(policy).named_parameters():
        value, own = weights["policy"].get(key), parameter.detach().cpu()
        if isinstance(value, th.Tensor) and value.shape == own.shape and value.layout is own.layout is th.strided:
            bad = ~th.isfinite(value.to(own.dtype)) & th.isfinite(own)
            if bad.any():
                count = int(bad.sum())
                raise RefusedFileError(f"{name}: 'policy.pth', {key} has {count} numbers that are NaN or infinite; refused")


def check_dtypes(policy: nn.Module, weights: Any) -> None:
    """:raises ValueError: for a complex tensor in the place of a real one"""
    for key, own in original(policy).state_dict().items():
        value = weights.get(key) if isinstance(weights, dict) else None
        if isinstance(value, th.Tensor) and isinstance(own, th.Tensor) and value.is_complex() and not own.is_complex():
            raise ValueError(f"{key} must be a tensor of real numbers, as the policy's is, but is {value.dtype}")


def with_extra_states(policy: nn.Module, weights: dict[str, Any]) -> dict[str, Any]:
    """
    :param weights: the state dict for ``policy``
    :return: the same, with the policy's present ``get_extra_state()`` where it has none, since some cannot be saved
    """
    own = original(policy).state_dict()
    missing = {key: value for key, value in own.items() if _is_extra(key) and key not in weights}
    if not missing:
        return weights
    warnings.warn(f"{sorted(missing)} are not among the weights; the policy keeps its own", stacklevel=3)
    filled = OrderedDict({**weights, **missing})
    filled._metadata = getattr(weights, "_metadata", OrderedDict())  # type: ignore[attr-defined]  # torch's versions of modules
    return filled


def _is_extra(key: str) -> bool:
    return key.rpartition(".")[2] == "_extra_state"


def check_fit(model: BaseAlgorithm, weights: dict[str, Any], name: str, trust: bool = False) -> None:
    """:raises RefusedFileError: if weights are missing; without ``trust`` also if moments do not fit them or are NaN"""
    own = {key for key in original(model.policy).state_dict() if not _is_extra(key) or key in weights["policy"]}
    if own != set(weights["policy"]):
        odd = sorted(map(str, own ^ set(weights["policy"])))
        raise RefusedFileError(f"{name}: the weights {odd} are missing or unexpected; refused")
    broken = [key for key, value in original(model.policy).named_parameters() if th.isnan(value).any()]
    for what in model._get_torch_save_params()[0]:
        optimizer = recursive_getattr(model, what)
        if not isinstance(optimizer, th.optim.Optimizer):
            continue
        # The state of an optimiser of the user's may have any shape
        of_torch = type(optimizer).__module__.startswith("torch.optim.")
        for parameter, key, value in _moments(optimizer):
            if of_torch and not trust and value.numel() != 1 and not _fits(value, parameter):
                raise RefusedFileError(f"{name}: {key!r} in {what} has the shape {tuple(value.shape)}; refused")
            if not trust and not th.isfinite(value).all():
                raise RefusedFileError(f"{name}: {key!r} in {what} is NaN or infinite; refused")
            broken += [f"{key} in {what}"] if th.isnan(value).any() else []
        if of_torch and not trust:
            _check_step(optimizer, f"{name}: {what}")
    if broken and trust:
        warnings.warn(f"{name} was loaded with trust=True, but has NaN weights: {', '.join(broken)[:400]}", stacklevel=3)


def _check_step(optimizer: th.optim.Optimizer, where: str) -> None:
    """:raises RefusedFileError: if options or moments are missing or of the wrong type, so that ``learn`` would fail"""
    trial = copy.deepcopy(optimizer)
    for group in trial.param_groups:
        # The model may have been trained on a GPU; this option only concerns CUDA graphs, and torch refuses it on the CPU
        if group.get("capturable") is True:
            group["capturable"] = False
        for parameter in group["params"]:
            parameter.grad = th.zeros_like(parameter) if parameter.requires_grad else None
    try:
        # Some options of SGD's momentum are only read in the second step
        trial.step()
        trial.step()
    except Exception as error:  # only torch's code runs here, and it raises errors of many types
        raise RefusedFileError(
            f"{where} cannot take a step, since its options or moments are of the wrong type "
            f"({type(error).__name__}: {str(error)[:200]}); refused"
        ) from error


def _moments(optimizer: th.optim.Optimizer) -> Iterator[tuple[th.Tensor, str, th.Tensor]]:
    """:return: parameter, name and value of each tensor in the optimiser's state"""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, th.Tensor):
                yield parameter, key, value


def _fits(value: th.Tensor, parameter: th.Tensor) -> bool:
    """:return: True if a moment has the shape of its parameter, or of its rows or columns, as in Adafactor"""
    pairs = zip(value.shape, parameter.shape, strict=False)
    return value.dim() == parameter.dim() and all(moment_size in (1, size) for moment_size, size in pairs)
