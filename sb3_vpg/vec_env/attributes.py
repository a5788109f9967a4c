"""
``get_attr``, ``set_attr``, ``env_method`` and ``env_is_wrapped`` of SB3's ``VecEnv`` for gymnasium's vector environments.

* ``SyncVectorEnv`` holds its environments in this process: everything works for any of them, as with ``DummyVecEnv``.
* ``AsyncVectorEnv`` holds them in other processes and reaches all of them at once: ``set_attr`` and ``env_method`` must be
  called for all environments, and ``env_is_wrapped`` is known for ``Monitor`` only.
* A native environment contains no single environments. ``get_attr`` returns its own attribute (which often has an entry per
  environment) for each index. ``set_attr`` and ``env_method`` must be called for all environments; a method is called once,
  and its result is returned for each index.
* EnvPool's environments are no Python objects. ``get_attr`` and ``env_method`` reach ``EnvPoolVectorEnv`` as if it were a
  native environment; ``set_attr`` is refused, because no environment would change.
"""

from abc import ABC, abstractmethod
from typing import Any

from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.monitor import Monitor

from sb3_vpg.vec_env.envpool_vector_env import EnvPoolVectorEnv


class EnvAttributes(ABC):
    """The attributes and methods of the environments inside of ``env``, the outermost vector environment."""

    def __init__(self, env: VectorEnv) -> None:
        self.env = env

    @abstractmethod
    def get(self, name: str, indices: list[int]) -> list[Any]:
        """:raises AttributeError: if there is no such attribute"""

    def has(self, name: str) -> bool:
        """:return: whether all environments have this attribute"""
        try:
            self.get(name, list(range(self.env.num_envs)))
        except AttributeError:
            return False
        return True

    @abstractmethod
    def set(self, name: str, value: Any, indices: list[int]) -> None:
        """
        :raises ValueError: if ``indices`` leaves out environments that would change as well
        """

    @abstractmethod
    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], indices: list[int]) -> list[Any]:
        """
        :raises AttributeError: if there is no such method
        :raises ValueError: if ``indices`` leaves out environments whose method would be called as well
        """

    def is_wrapped(self, wrapper_class: Any, indices: list[int]) -> list[bool]:
        """:raises ValueError: if the wrappers of the environments are not known"""
        # GymVecEnv does what Monitor does
        return [issubclass(wrapper_class, Monitor)] * len(indices)

    def _check_all(self, what: str, indices: list[int]) -> None:
        if sorted(indices) != list(range(self.env.num_envs)):
            raise ValueError(
                f"{what} of {self.env} would reach all of its {self.env.num_envs} environments, not only {indices}; "
                "leave indices out, or use a SyncVectorEnv"
            )


class SyncEnvAttributes(EnvAttributes):
    """Environments in this process."""

    def _envs(self, indices: list[int]) -> list[Any]:
        return [self.env.unwrapped.envs[index] for index in indices]  # type: ignore[attr-defined]  # a SyncVectorEnv

    def get(self, name: str, indices: list[int]) -> list[Any]:
        return [env.get_wrapper_attr(name) for env in self._envs(indices)]

    def set(self, name: str, value: Any, indices: list[int]) -> None:
        for env in self._envs(indices):
            env.set_wrapper_attr(name, value)

    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], indices: list[int]) -> list[Any]:
        return [env.get_wrapper_attr(name)(*args, **kwargs) for env in self._envs(indices)]

    def is_wrapped(self, wrapper_class: Any, indices: list[int]) -> list[bool]:
        return [issubclass(wrapper_class, Monitor) or is_wrapped(env, wrapper_class) for env in self._envs(indices)]


class AsyncEnvAttributes(EnvAttributes):
    """Environments in other processes. An error would end its process, so names are checked beforehand."""

    def _call(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        answers: tuple[Any, ...] = self.env.unwrapped.call(*args, **kwargs)  # type: ignore[attr-defined]  # an AsyncVectorEnv
        return answers

    def has(self, name: str) -> bool:
        # The value stays in its process: with a method, the whole environment would be pickled
        return all(self._call("has_wrapper_attr", name))

    def _check(self, name: str) -> None:
        if not self.has(name):
            raise AttributeError(f"the environments of {self.env} have no attribute {name!r}")

    def get(self, name: str, indices: list[int]) -> list[Any]:
        self._check(name)
        # gymnasium's get_attr would call a method
        values = self._call("get_wrapper_attr", name)
        return [values[index] for index in indices]

    def set(self, name: str, value: Any, indices: list[int]) -> None:
        self._check_all(f"setting {name!r}", indices)
        # gymnasium takes a list as one value per environment
        self.env.unwrapped.set_attr(name, [value] * self.env.num_envs)  # type: ignore[attr-defined]  # an AsyncVectorEnv

    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], indices: list[int]) -> list[Any]:
        self._check_all(f"calling {name!r}", indices)
        self._check(name)
        answers = self._call(name, *args, **kwargs)
        return [answers[index] for index in indices]

    def is_wrapped(self, wrapper_class: Any, indices: list[int]) -> list[bool]:
        if not issubclass(wrapper_class, Monitor):
            raise ValueError(f"{self.env} keeps its environments in other processes, so their wrappers are not known")
        return [True] * len(indices)


class NativeEnvAttributes(EnvAttributes):
    """One object that computes all environments."""

    def _owner(self, name: str) -> Any:
        """:return: the outermost layer, vector wrapper or environment, that has the attribute"""
        env: Any = self.env
        while not hasattr(env, name):
            if env is env.unwrapped:
                raise AttributeError(f"{self.env} has no attribute {name!r}")
            env = env.env
        return env

    def get(self, name: str, indices: list[int]) -> list[Any]:
        return [getattr(self._owner(name), name)] * len(indices)

    def set(self, name: str, value: Any, indices: list[int]) -> None:
        self._check_all(f"setting {name!r}", indices)
        try:
            owner = self._owner(name)
        except AttributeError:
            owner = self.env.unwrapped
        setattr(owner, name, value)

    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], indices: list[int]) -> list[Any]:
        self._check_all(f"calling {name!r}", indices)
        answer = getattr(self._owner(name), name)(*args, **kwargs)
        # sb3_contrib asks each environment for its mask
        return list(answer) if name == "action_masks" else [answer] * len(indices)


class EnvPoolAttributes(NativeEnvAttributes):
    """The attributes of ``EnvPoolVectorEnv``."""

    def set(self, name: str, value: Any, indices: list[int]) -> None:
        """:raises AttributeError: always"""
        raise AttributeError(
            f"EnvPool's environments are no Python objects, so {name!r} cannot be set; pass env_kwargs instead"
        )


def env_attributes(env: VectorEnv) -> EnvAttributes:
    """:return: access to the attributes of the environments in ``env``"""
    base = env.unwrapped
    if isinstance(base, SyncVectorEnv):
        return SyncEnvAttributes(env)
    if isinstance(base, EnvPoolVectorEnv):
        return EnvPoolAttributes(env)
    return AsyncEnvAttributes(env) if isinstance(base, AsyncVectorEnv) else NativeEnvAttributes(env)
