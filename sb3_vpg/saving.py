"""
Saving and loading without pickles: the format of SB3's archives, with settings as plain JSON.

What SB3 would pickle (spaces, classes, arrays) is written as ``sb3_vpg.plain`` writes it, and weights are read with torch's
``weights_only``. So loading runs no code of the file's author. What no plain data can hold, such as a learning rate that is a
function, is still pickled, and is only read by who says ``trust=True``.
"""

import io
import json
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import recursive_getattr, recursive_setattr, save_to_zip_file
from stable_baselines3.common.type_aliases import GymEnv, TensorDict
from typing_extensions import Self

from sb3_vpg.archives import DATA, STATISTICS, VARIABLES, WEIGHTS, RefusedFileError, read_archive, read_weights, write_archive
from sb3_vpg.files import written_whole
from sb3_vpg.limits import LimitedMemory
from sb3_vpg.normalization import describe
from sb3_vpg.plain import NotPlainError, decode, encode

_PICKLED = ":serialized:"
_LEFT_OUT = "!left_out"


class PlainSaving(BaseAlgorithm):
    """Differs from its parent in ``save``, ``load`` and ``set_parameters``, which are SB3's with what this module says."""

    def save(
        self,
        path: str | Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """
        See ``BaseAlgorithm.save``. The file is written whole or not at all, and holds the statistics of a ``VecNormalize``
        as well, which ``sb3_vpg.normalization.load_vec_normalize`` reads.

        :raises OSError: if it cannot be written; what was there before is then still there
        """
        content = pack(self, exclude, include)
        if isinstance(path, (str, Path)):
            with written_whole(_target(Path(path))) as file:
                file.write(content)
        else:
            path.write(content)

    @classmethod
    def load(
        cls,
        path: str | Path | io.BufferedIOBase,
        env: GymEnv | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        trust: bool = False,
        **kwargs: Any,
    ) -> Self:
        """
        See ``BaseAlgorithm.load``. Nothing is unpickled unless you say so.

        :param trust: unpickle what the file holds as pickles, which runs whatever code its author put there: for older files
            of your own, and for settings that are functions. ``custom_objects`` may replace such settings instead
        :raises RefusedFileError: (a ``ValueError``) for a file that is damaged, that holds a pickle, a path, weights of other
            shapes than its settings say, or NaN weights; nothing of it has been run then
        :raises ValueError: for settings that VPG cannot have, and for an environment with other spaces
        :raises FileNotFoundError: if there is no such file
        """
        name = str(path) if isinstance(path, (str, Path)) else "the file"
        members = read_archive(path)
        custom = dict(custom_objects or {})
        with _refusing(name):
            settings, pickles = _settings(cls, members, name, {**custom, **kwargs}, trust)
            weights = weights_of(members, name)
            variables = read_weights(members[VARIABLES], VARIABLES, name) if VARIABLES in members else {}
            content = io.BytesIO(_rebuilt(members, settings, pickles, weights))
            with LimitedMemory(len(members[f"policy{WEIGHTS}"])):
                model = super().load(content, env, device, {**settings, **custom}, print_system_info, force_reset, **kwargs)
            _set_variables(model, variables, name)
            _check_fit(model, weights, name)
        return model

    def set_parameters(
        self,
        load_path_or_dict: str | Path | io.BufferedIOBase | TensorDict | dict[str, Any],
        exact_match: bool = True,
        device: th.device | str = "auto",
    ) -> None:
        """
        See ``BaseAlgorithm.set_parameters``.

        :raises RefusedFileError: as ``load``
        """
        if isinstance(load_path_or_dict, dict):
            super().set_parameters(load_path_or_dict, exact_match, device)
            return
        name = str(load_path_or_dict) if isinstance(load_path_or_dict, (str, Path)) else "the file"
        members = read_archive(load_path_or_dict)
        with _refusing(name):
            weights = weights_of(members, name)
            super().set_parameters(weights, exact_match, device)
            if exact_match:
                _check_fit(self, weights, name)


def pack(
    model: BaseAlgorithm,
    exclude: Iterable[str] | None = None,
    include: Iterable[str] | None = None,
    more: dict[str, bytes] | None = None,
    pickles: bool = True,
) -> bytes:
    """
    :param model: to save
    :param exclude: as in ``save``
    :param include: as in ``save``
    :param more: further members
    :param pickles: pickle what is not plain; False: leave it out, with a note of what it was
    :return: the archive
    """
    state_dicts, variables = model._get_torch_save_params()
    hidden = {*(exclude or ()), *model._excluded_save_params()} - set(include or ())
    hidden |= {name.split(".")[0] for name in [*state_dicts, *variables]}
    data = {name: _written(name, value, pickles) for name, value in vars(model).items() if name not in hidden}
    file = io.BytesIO()
    save_to_zip_file(file, data, model.get_parameters(), {name: getattr(model, name) for name in variables})
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        more = {STATISTICS: json.dumps(encode(describe(normalizer))).encode(), **(more or {})}
    with zipfile.ZipFile(file, "a") as archive:
        for name, content in (more or {}).items():
            archive.writestr(name, content)
    return file.getvalue()


def _written(name: str, value: Any, pickles: bool) -> Any:
    try:
        return encode(value, name)
    except NotPlainError as error:
        return value if pickles else {_LEFT_OUT: str(error)}


def was_left_out(value: Any) -> bool:
    """:return: whether this is what ``pack`` puts in the place of a setting that is not plain"""
    return isinstance(value, dict) and _LEFT_OUT in value


def _target(path: Path) -> Path:
    """:return: where SB3 would save: with ``.zip`` unless there is a suffix, and not in the place of a folder"""
    target = path if path.suffix else path.with_name(f"{path.name}.zip")
    if not target.is_dir():
        return target
    warnings.warn(f"Path '{target}' is a folder. Will save instead to {target}_2", stacklevel=3)
    return target.with_name(f"{target.name}_2")


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    """Whatever goes wrong while a model is built from a file is the file's fault, and named as such."""
    try:
        yield
    except RefusedFileError:
        raise
    except ValueError as error:
        raise RefusedFileError(f"{name}: {str(error)[:1000]}") from error
    except (TypeError, LookupError, AttributeError, AssertionError, ArithmeticError, RuntimeError, MemoryError) as error:
        text = f"{type(error).__name__}: {str(error)[:400]}"
        raise RefusedFileError(f"{name} holds settings or weights that make no model ({text})") from error


def _settings(
    cls: type[BaseAlgorithm], members: dict[str, bytes], name: str, given: dict[str, Any], trust: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """
    :param cls: whose settings they are
    :param given: what the caller has for them, which is not looked at in the file
    :return: the settings that are plain; and, with ``trust``, those that SB3 is to unpickle
    """
    if DATA not in members:
        raise RefusedFileError(f"{name} holds no settings (no member {DATA!r}), so it is no model")
    raw = _json(members[DATA], name)
    # The constructor would look an environment's name up, which can import any module
    hidden = [] if trust else cls._excluded_save_params(cls.__new__(cls))
    settings, pickled = {}, {}
    for key, value in raw.items():
        if callable(getattr(cls, key, None)):
            raise RefusedFileError(f"{name} has a setting {key!r}, which would take the place of a method; refused")
        if key in given:
            settings[key] = given[key]
        elif key in hidden:
            raise RefusedFileError(f"{name} has a setting {key!r}, which no model of ours saves; refused")
        elif isinstance(value, dict) and _PICKLED in value:
            pickled[key] = value
        elif was_left_out(value):
            raise RefusedFileError(f"{name} could not hold {value[_LEFT_OUT]}; pass custom_objects={{{key!r}: ...}}")
        else:
            settings[key] = _decoded(key, value, name)
    if pickled and not trust:
        listed = ", ".join(f"{key} ({value.get(':type:', '?')})" for key, value in pickled.items())[:400]
        raise RefusedFileError(
            f"{name} holds pickles, which can run any code when they are read, and were not read: {listed}. "
            "If you made the file yourself, load it with trust=True, or replace them with custom_objects"
        )
    return settings, pickled


def _rebuilt(members: dict[str, bytes], settings: dict[str, Any], pickles: dict[str, Any], weights: dict[str, Any]) -> bytes:
    """:return: an archive for SB3 to read, with nothing in it that has not been looked at; SB3 is told the settings anyway"""
    more = {DATA: json.dumps({**dict.fromkeys(settings), **pickles}).encode()}
    for what, state in weights.items():
        file = io.BytesIO()
        th.save(state, file)
        more[f"{what}{WEIGHTS}"] = file.getvalue()
    about = {member: content for member, content in members.items() if member.endswith(".txt")}
    return write_archive({**about, **more})


def _set_variables(model: BaseAlgorithm, variables: dict[str, Any], name: str) -> None:
    """SB3 would let the file choose what is replaced."""
    own = model._get_torch_save_params()[1]
    if not isinstance(variables, dict) or set(variables) != set(own):
        raise RefusedFileError(f"{name}: {VARIABLES!r} should hold {own}, but holds {variables!s:.200}; refused")
    for what, value in variables.items():
        if value.shape != recursive_getattr(model, what).shape:
            raise RefusedFileError(f"{name}: {what} has the shape {tuple(value.shape)}; refused")
        recursive_setattr(model, f"{what}.data", value.to(model.device))


def _json(content: bytes, name: str) -> dict[str, Any]:
    try:
        raw = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RefusedFileError(f"{name}: {DATA!r} is no JSON: {error}") from error
    if not isinstance(raw, dict):
        raise RefusedFileError(f"{name}: {DATA!r} must hold an object, but holds a {type(raw).__name__}")
    return raw


def _decoded(key: str, value: Any, name: str) -> Any:
    try:
        return decode(value)
    except (ValueError, RecursionError) as error:
        raise RefusedFileError(f"{name}: {key}: {error}; refused") from error


def weights_of(members: dict[str, bytes], name: str) -> dict[str, Any]:
    """
    :param members: of the archive ``name``
    :return: the state dicts by the name of what they belong to
    :raises RefusedFileError: for weights that are missing, damaged, NaN or infinite, and for pickles
    """
    weights = {
        member[: -len(WEIGHTS)]: read_weights(content, member, name)
        for member, content in members.items()
        if member.endswith(WEIGHTS) and member != VARIABLES
    }
    if not isinstance(weights.get("policy"), dict):
        raise RefusedFileError(f"{name} holds no weights (no member 'policy{WEIGHTS}'), so it is no model")
    return weights


def _check_fit(model: BaseAlgorithm, weights: dict[str, Any], name: str) -> None:
    """SB3 forgives missing weights, and torch moments of another shape than their weights, and what overflows a float32."""
    own = model.policy.state_dict()
    if set(own) != set(weights["policy"]):
        odd = sorted(map(str, set(own) ^ set(weights["policy"])))
        raise RefusedFileError(f"{name}: the weights {odd} are missing or too many; refused")
    tensors = [("policy", key, value) for key, value in own.items() if value.dim()]
    for what in model._get_torch_save_params()[0]:
        optimizer = recursive_getattr(model, what)
        if isinstance(optimizer, th.optim.Optimizer):
            for parameter, state in optimizer.state.items():
                moments = [(what, key, value) for key, value in state.items() if isinstance(value, th.Tensor)]
                tensors += moments
                for _, key, value in moments:
                    if value.numel() != 1 and not _fits(value, parameter):
                        raise RefusedFileError(f"{name}: {key!r} in {what} has the shape {tuple(value.shape)}; refused")
    for what, key, value in tensors:
        if not th.isfinite(value).all():
            raise RefusedFileError(f"{name}: {key!r} in {what} is NaN or infinite; refused")


def _fits(value: th.Tensor, parameter: th.Tensor) -> bool:
    """:return: whether it has the shape of its weights, or of their rows or columns, as in Adafactor"""
    pairs = zip(value.shape, parameter.shape, strict=False)
    return value.dim() == parameter.dim() and all(one in (1, size) for one, size in pairs)
