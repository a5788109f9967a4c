"""
Saving and loading without pickles: the format of SB3's archives, with settings as plain JSON.

``sb3_vpg.persistence.json_codec`` writes what SB3 would pickle (spaces, classes, arrays), and
``sb3_vpg.persistence.tensor_pickles`` reads the weights, so loading runs no code of the file's author. A setting that is no
plain data, such as a learning rate that is a function, is still pickled, and is read with ``trust=True`` only.
"""

import copy
import io
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, TensorDict
from typing_extensions import Self

from sb3_vpg.common.arguments import OnPolicyKwargs, refuse_unknown
from sb3_vpg.common.atomic_files import atomic_write
from sb3_vpg.exceptions import RefusedFileError, TooLargeError
from sb3_vpg.persistence.archives import VARIABLES, WEIGHTS, name_of, read_archive, read_weights
from sb3_vpg.persistence.class_names import class_name
from sb3_vpg.persistence.memory_limit import LimitedMemory
from sb3_vpg.persistence.packing import Packable, pack, warn_unloadable
from sb3_vpg.persistence.unpacking import (
    FAULTS,
    arguments_of,
    check_fit,
    check_kinds,
    check_weights,
    fault,
    rebuilt,
    refusing,
    set_variables,
    settings_in,
    weights_of,
    with_own_states,
)
from sb3_vpg.policies import original

PathOrFile = str | os.PathLike[str] | io.BufferedIOBase
_WITH_CLASSES = ("policy_class", "policy_kwargs", "rollout_buffer_class", "rollout_buffer_kwargs")
_LIBRARIES = ("sb3_vpg", "stable_baselines3", "torch", "builtins")


class PlainSaving(Packable):
    """Differs from its parent in ``save``, ``load`` and ``set_parameters``, which are SB3's with what this module says."""

    _told: dict[str, set[str]] | None = None

    def save(self, path: PathOrFile, exclude: Iterable[str] | None = None, include: Iterable[str] | None = None) -> None:
        """
        See ``BaseAlgorithm.save``. The file is written whole or not at all, and holds the statistics of a ``VecNormalize``
        as well, which ``sb3_vpg.normalization.load_vec_normalize`` reads. A warning says, once for each attribute, what
        ``load`` will not read without further arguments.

        :raises ValueError: if ``path`` is neither a path nor a binary file
        :raises OSError: if it cannot be written; what was there before is then still there
        """
        if not isinstance(path, (str, os.PathLike)) and not hasattr(path, "write"):
            raise ValueError(f"path must be a path or a binary file, but is {path!r:.200} ({type(path).__name__})")
        content = pack(self, exclude, include)
        if isinstance(path, (str, os.PathLike)):
            with atomic_write(_target(Path(path))) as file:
                file.write(content)
        else:
            path.write(content)
        warn_unloadable(self, self._told_at("save"), exclude, include, stacklevel=3)

    def warn_unloadable(self, stacklevel: int) -> None:
        """
        Warn about what ``load`` will refuse of this model. ``learn`` calls it first, and not after hours of training.

        :param stacklevel: of the warning, counted from here
        """
        warn_unloadable(self, self._told_at("learn"), stacklevel=stacklevel + 1)

    def _told_at(self, occasion: str) -> set[str]:
        """:return: attributes of which this has been said, so that it is not said a hundred times"""
        self._told = self._told or {}
        return self._told.setdefault(occasion, set())

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_told"]

    @classmethod
    def load(
        cls,
        path: PathOrFile,
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

        :param trust: read all that SB3's own ``load`` reads. It unpickles what the file holds as pickles, which runs whatever
            code its author put there: for older files of your own, and for settings that are functions. ``custom_objects``
            may replace such settings instead. Weights that are NaN are loaded, with a warning
        :raises RefusedFileError: (a ``ValueError``) for a file that is damaged, that holds a pickle, a path, weights of other
            shapes than its settings say, or NaN weights; nothing of it has been run then
        :raises ValueError: for settings that VPG cannot have; for an environment with other spaces, and for ``policy_kwargs``
            other than those of the file (``custom_objects`` replaces them); and if a class of yours raises an error
        :raises TypeError: for a keyword that is neither a setting in the file nor an argument of the constructor
        :raises FileNotFoundError: if there is no such file
        """
        name = name_of(path)
        members = read_archive(path, trust)
        custom = dict(custom_objects or {})
        # The constructor would look an environment's name up, which can import any module
        hidden = [] if trust else cls._excluded_save_params(cls.__new__(cls))
        with refusing(name):
            settings, pickles = settings_in(cls, members, name, hidden, custom, kwargs, trust)
        _check_keywords(cls, kwargs, {*settings, *pickles})
        with refusing(name):
            weights = weights_of(members, name, trust)
            variables = read_weights(members[VARIABLES], VARIABLES, name, trust) if VARIABLES in members else {}
            content = io.BytesIO(rebuilt(members, settings, pickles, weights))
        # Who trusts a file lets it build networks of any size
        limit = sys.maxsize if trust else len(members[f"policy{WEIGHTS}"])
        with (
            _policy_kwargs_compared(name, {**settings, **custom}, kwargs),
            _building(cls, name, {**settings, **custom, **kwargs}),
        ):
            with LimitedMemory(limit):
                model = super().load(content, env, device, {**settings, **custom}, print_system_info, force_reset, **kwargs)
            if not trust and not all(th.isfinite(parameter).all() for parameter in model.policy.parameters()):
                # Perhaps by design, as in a mask; then a model that was just built has them too
                fresh = copy.copy(model)
                with LimitedMemory(limit):
                    fresh._setup_model()
                check_weights(fresh.policy, weights, name)
        with refusing(name):
            set_variables(model, variables, name)
            check_fit(model, weights, name, trust)
        return model

    def set_parameters(
        self,
        load_path_or_dict: PathOrFile | TensorDict | dict[str, Any],
        exact_match: bool = True,
        device: th.device | str = "auto",
    ) -> None:
        """
        See ``BaseAlgorithm.set_parameters``.

        :raises RefusedFileError: as ``load``
        :raises ValueError: for complex weights in the place of real ones, of which torch would drop a part
        """
        if isinstance(load_path_or_dict, dict):
            given: dict[str, Any] = dict(load_path_or_dict)
            if exact_match and isinstance(given.get("policy"), dict):
                check_kinds(self.policy, given["policy"])
                given["policy"] = with_own_states(self.policy, given["policy"])
            policy = self.policy
            # The file of a compiled policy has the names of the original one
            if isinstance(given.get("policy"), dict) and not any(str(key).startswith("_orig_mod.") for key in given["policy"]):
                self.policy = original(policy)
            try:
                super().set_parameters(given, exact_match, device)
            finally:
                self.policy = policy
            return
        name = name_of(load_path_or_dict)
        members = read_archive(load_path_or_dict)
        with refusing(name):
            weights = weights_of(members, name)
            check_weights(self.policy, weights, name)
            self.set_parameters(weights, exact_match, device)
            if exact_match:
                check_fit(self, weights, name)


def _target(path: Path) -> Path:
    """:return: where SB3 would save: with ``.zip`` unless there is a suffix, and not in the place of a folder"""
    target = path if path.suffix else path.with_name(f"{path.name}.zip")
    if not target.is_dir():
        return target
    warnings.warn(f"Path '{target}' is a folder. Will save instead to {target}_2", stacklevel=3)
    return target.with_name(f"{target.name}_2")


def _check_keywords(algorithm: type[BaseAlgorithm], given: dict[str, Any], stored: set[str]) -> None:
    """:raises TypeError: for a keyword of ``load`` that replaces nothing, which SB3 would keep without a word"""
    known = {*stored, *arguments_of(algorithm), *OnPolicyKwargs.__annotations__}
    refuse_unknown(f"{algorithm.__name__}.load", [key for key in given if not hasattr(algorithm, key)], sorted(known))


@contextmanager
def _policy_kwargs_compared(name: str, stored: dict[str, Any], given: dict[str, Any]) -> Iterator[None]:
    """SB3 refuses other ``policy_kwargs`` than the stored ones; the error also names what replaces them."""
    try:
        yield
    except ValueError as error:
        if "policy_kwargs" not in given or given["policy_kwargs"] == stored.get("policy_kwargs"):
            raise
        raise ValueError(
            f"{error}. The keyword policy_kwargs is only compared with {name}; to replace what is stored there, pass "
            "custom_objects={'policy_kwargs': ...}"
        ) from error


@contextmanager
def _building(algorithm: type, name: str, settings: dict[str, Any]) -> Iterator[None]:
    """
    As above while the model is built. Where classes of the user's take part, the fault may be theirs, and not the file's.

    :param algorithm: that is built
    :param settings: of which it is built
    """
    try:
        yield
    except RefusedFileError:
        raise
    except TooLargeError as error:
        raise RefusedFileError(f"{name}: {error}", "if you made the file yourself, load it with trust=True") from error
    except (ValueError, *FAULTS) as error:
        found = {algorithm, *_classes(list(map(settings.get, _WITH_CLASSES)))}
        yours = sorted(class_name(cls) for cls in found if cls.__module__.split(".")[0] not in _LIBRARIES)
        if not yours:
            raise RefusedFileError(fault(name, error)) from error
        raise ValueError(
            f"{name} was read, but its model could not be rebuilt: {type(error).__name__}: {str(error)[:400]}. If your own "
            f"code ({', '.join(yours)[:400]}) raised this, see the traceback of the cause"
        ) from error


def _classes(value: Any) -> Iterator[type]:
    """:return: the classes in a setting"""
    if isinstance(value, type):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
        yield from _classes(item)
