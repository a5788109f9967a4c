"""
Save and load models without pickles: the format is SB3's archive, with settings as plain JSON.

``sb3_vpg.persistence.json_codec`` encodes what SB3 would pickle (spaces, classes, arrays), and
``sb3_vpg.persistence.tensor_pickles`` reads the weights, so loading runs no code of the file's author. A setting that is not
plain data, such as a learning rate that is a function, is still pickled; only ``trust=True`` reads it.
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

from sb3_vpg.common import torchrun
from sb3_vpg.common.arguments import OnPolicyKwargs, refuse_unknown
from sb3_vpg.common.atomic_files import atomic_write
from sb3_vpg.common.caller import stacklevel_of_caller
from sb3_vpg.persistence.archives import STATISTICS, VARIABLES, WEIGHTS, name_of, read_archive, read_weights
from sb3_vpg.persistence.memory_limit import LimitedMemory
from sb3_vpg.persistence.packing import Packable, pack, warn_unloadable
from sb3_vpg.persistence.unpacking import (
    archive_for_sb3,
    check_dtypes,
    check_fit,
    check_weights,
    constructor_arguments,
    read_settings,
    refusing,
    set_variables,
    weights_of,
    with_extra_states,
)
from sb3_vpg.policies import original

PathOrFile = str | os.PathLike[str] | io.BufferedIOBase
# Settings that may name classes of the user's
_WITH_CLASSES = ("policy_class", "policy_kwargs", "rollout_buffer_class", "rollout_buffer_kwargs")


class PlainSaving(Packable):
    """Replaces SB3's ``save``, ``load`` and ``set_parameters`` by ones that need no pickle, as this module describes."""

    _warned: dict[str, set[str]] | None = None
    has_saved_statistics = False
    """Whether the file that the model was loaded from holds the statistics of a ``VecNormalize``."""

    def save(self, path: PathOrFile, exclude: Iterable[str] | None = None, include: Iterable[str] | None = None) -> None:
        """
        See ``BaseAlgorithm.save``. The file is replaced atomically. It also holds the statistics of a ``VecNormalize``, which
        ``sb3_vpg.normalization.load_vec_normalize`` reads. Warns once about each attribute that ``load`` will not read without
        further arguments.

        :raises ValueError: if ``path`` is neither a path nor a binary file
        :raises OSError: if the file cannot be written; the old file is then unchanged
        """
        if not isinstance(path, (str, os.PathLike)) and not hasattr(path, "write"):
            raise ValueError(f"path must be a path or a binary file, but is {path!r:.200} ({type(path).__name__})")
        content = pack(self, exclude, include)
        if isinstance(path, (str, os.PathLike)):
            with atomic_write(_target(Path(path))) as file:
                file.write(content)
        else:
            path.write(content)
        warn_unloadable(self, self._warned_by("save"), exclude, include, stacklevel=3)

    def warn_unloadable(self) -> None:
        """Warn about what ``load`` will refuse of this model. ``learn`` calls this before it trains; under torchrun, once."""
        if torchrun.get_rank() > 0:
            return
        warn_unloadable(self, self._warned_by("learn"), stacklevel=stacklevel_of_caller() + 1)

    def _warned_by(self, method: str) -> set[str]:
        """:return: the attributes that this method has warned about, each of which it names only once"""
        self._warned = self._warned or {}
        return self._warned.setdefault(method, set())

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_warned", "has_saved_statistics"]

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
        See ``BaseAlgorithm.load``. Nothing is unpickled unless ``trust`` is True.

        :param trust: read everything that SB3's own ``load`` reads. This unpickles parts of the file, which runs any code that
            its author put there. Meant for older files of your own, and for settings that are functions; ``custom_objects``
            may replace such settings instead. Weights that are NaN are then loaded, with a warning
        :raises RefusedFileError: (a ``ValueError``) if the file is damaged, or holds a pickle, a path, weights of other shapes
            than its settings say, or NaN weights; no code of the file has run then
        :raises ValueError: for settings that VPG refuses, an environment with other spaces, or ``policy_kwargs`` other than
            those of the file (``custom_objects`` replaces them); and if a class of yours raises an error
        :raises TypeError: for a keyword that is neither a setting in the file nor an argument of the constructor
        :raises FileNotFoundError: if there is no such file
        """
        name = name_of(path)
        members = read_archive(path, trust)
        custom = dict(custom_objects or {})
        # For example "env": gymnasium would make an environment of its id, which can import any module
        excluded = [] if trust else cls._excluded_save_params(cls.__new__(cls))
        with refusing(name):
            settings, pickles = read_settings(cls, members, name, excluded, custom, kwargs, trust)
        _check_keywords(cls, kwargs, {*settings, *pickles})
        with refusing(name):
            weights = weights_of(members, name, trust)
            variables = read_weights(members[VARIABLES], VARIABLES, name, trust) if VARIABLES in members else {}
            content = io.BytesIO(archive_for_sb3(members, settings, pickles, weights))
        # A trusted file may build networks of any size
        limit = sys.maxsize if trust else len(members[f"policy{WEIGHTS}"])
        custom = {**settings, **custom}
        used = {**custom, **kwargs}
        classes = {cls, type(getattr(env, "unwrapped", env)), *_classes_in([used.get(key) for key in _WITH_CLASSES])}
        with _explaining_policy_kwargs(name, custom, kwargs), refusing(name, classes):
            with LimitedMemory(limit):
                model = super().load(content, env, device, custom, print_system_info, force_reset, **kwargs)
            if not trust and not all(th.isfinite(parameter).all() for parameter in model.policy.parameters()):
                # By design, as in a mask, only if a newly built model has the same values
                fresh = copy.copy(model)
                with LimitedMemory(limit):
                    fresh._setup_model()
                check_weights(fresh.policy, weights, name)
            model.has_saved_statistics = STATISTICS in members
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
        :raises ValueError: for parameters of another policy, and for complex weights in the place of real ones, of which torch
            would drop the imaginary part; and if a class of yours raises an error while it reads a file
        """
        if isinstance(load_path_or_dict, dict):
            self.load_state_dicts(dict(load_path_or_dict), exact_match, device)
            return
        name = name_of(load_path_or_dict)
        members = read_archive(load_path_or_dict)
        with refusing(name):
            weights = weights_of(members, name)
        with refusing(name, {type(self), type(self.policy.optimizer), *map(type, self.policy.modules())}):
            check_weights(self.policy, weights, name)
            self.load_state_dicts(weights, exact_match, device)
            if exact_match:
                check_fit(self, weights, name)

    def load_state_dicts(self, states: dict[str, Any], exact_match: bool, device: th.device | str) -> None:
        """
        Load the state dicts of the policy and its optimisers. A subclass may override this.

        :param states: what ``get_parameters`` returns
        """
        if exact_match and isinstance(states.get("policy"), dict):
            check_dtypes(self.policy, states["policy"])
            states["policy"] = with_extra_states(self.policy, states["policy"])
        policy = self.policy
        # The file of a compiled policy has the names of the original one
        if isinstance(states.get("policy"), dict) and not any(str(key).startswith("_orig_mod.") for key in states["policy"]):
            self.policy = original(policy)
        try:
            super().set_parameters(states, exact_match, device)
        finally:
            self.policy = policy


def _target(path: Path) -> Path:
    """:return: the path that SB3 would save to: ``.zip`` is added if there is no suffix, ``_2`` if it is a folder"""
    target = path if path.suffix else path.with_name(f"{path.name}.zip")
    if not target.is_dir():
        return target
    warnings.warn(f"Path '{target}' is a folder. Will save instead to {target}_2", stacklevel=3)
    return target.with_name(f"{target.name}_2")


def _check_keywords(algorithm: type[BaseAlgorithm], given: dict[str, Any], stored: set[str]) -> None:
    """:raises TypeError: for a keyword of ``load`` that replaces nothing; SB3 would silently keep it as an attribute"""
    known = {*stored, *constructor_arguments(algorithm), *OnPolicyKwargs.__annotations__}
    refuse_unknown(f"{algorithm.__name__}.load", [key for key in given if not hasattr(algorithm, key)], sorted(known))


@contextmanager
def _explaining_policy_kwargs(name: str, stored: dict[str, Any], given: dict[str, Any]) -> Iterator[None]:
    """SB3 refuses ``policy_kwargs`` that differ from the stored ones; add to its error how to replace them."""
    try:
        yield
    except ValueError as error:
        if "policy_kwargs" not in given or given["policy_kwargs"] == stored.get("policy_kwargs"):
            raise
        raise ValueError(
            f"{error}. The keyword policy_kwargs is only compared with {name}; to replace what is stored there, pass "
            "custom_objects={'policy_kwargs': ...}"
        ) from error


def _classes_in(value: Any) -> Iterator[type]:
    """:return: the classes in a setting"""
    if isinstance(value, type):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
        yield from _classes_in(item)
