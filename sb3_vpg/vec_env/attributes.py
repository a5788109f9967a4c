"""
The attributes and methods of the environments inside of a vector environment, as SB3's ``get_attr`` and its kin ask for them.

* ``SyncVectorEnv`` holds its environments here: as with ``DummyVecEnv``, all of it works for any of them.
* ``AsyncVectorEnv`` holds them in other processes and reaches all of them or none: what *changes* something must be meant
  for all, and nobody can ask for their wrappers.
* A native environment has no environments inside. It answers itself: an attribute is its own attribute (which often has an
  entry per environment), the same for each index. A method is called once, its result is the same for each index. What
  might change something must be meant for all.
"""

from abc import ABC, abstractmethod
from typing import Any

from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.monitor import Monitor


class EnvAttributes(ABC):
    """:param env: the outermost vector environment"""

    def __init__(self, env: VectorEnv) -> None:
        self.env = env

    @abstractmethod
    def get(self, name: str, indices: list[int]) -> list[Any]:
        """:raises AttributeError: if there is no such attribute"""

    @abstractmethod
    def set(self, name: str, value: Any, indices: list[int]) -> None:
        """:raises ValueError: if only some environments are meant where all of them would change"""

    @abstractmethod
    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], indices: list[int]) -> list[Any]:
        """
        :raises AttributeError: if there is no such method
        :raises ValueError: if only some environments are meant where all of them would be called
        """

    def is_wrapped(self, wrapper_class: Any, indices: list[int]) -> list[bool]:
        """:raises ValueError: if nobody can tell"""
        return [issubclass(wrapper_class, Monitor)] * len(indices)

    def _refuse_some(self, what: str, indices: list[int]) -> None:
        if sorted(indices) != list(range(self.env.num_envs)):
            raise ValueError(
                f"{what} of {self.env} would reach all of its {self.env.num_envs} environments, but is meant for {indices}; "
                "leave indices out, or use a SyncVectorEnv"
            )


class SyncMembers(EnvAttributes):
    """Environments in this process."""

    def _chosen(self, indices: list[int]) -> list[Any]:
        return [self.env.unwrapped.envs[index] for index in indices]  # type: ignore[attr-defined]  # a SyncVectorEnv

    def get(self, name: str, indices: list[int]) -> list[Any]:
        return [env.get_wrapper_attr(name) for env in self._chosen(indices)]

    def set(self, name: str, value: Any, indices: list[int]) -> None:
        for env in self._chosen(indices):
            env.set_wrapper_attr(name, value)

    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], indices: list[int]) -> list[Any]:
        return [env.get_wrapper_attr(name)(*args, **kwargs) for env in self._chosen(indices)]

    def is_wrapped(self, wrapper_class: Any, indices: list[int]) -> list[bool]:
        return [issubclass(wrapper_class, Monitor) or is_wrapped(env, wrapper_class) for env in self._chosen(indices)]


class AsyncMembers(EnvAttributes):
    """Environments in other processes, where an error would end the process: we ask before we call."""

    def _call(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        answers: tuple[Any, ...] = self.env.unwrapped.call(*args, **kwargs)  # type: ignore[attr-defined]  # an AsyncVectorEnv
        return answers

    def _check(self, name: str) -> None:
        if not all(self._call("has_wrapper_attr", name)):
            raise AttributeError(f"the environments of {self.env} have no attribute {name!r}")

    def get(self, name: str, indices: list[int]) -> list[Any]:
        self._check(name)
        # gymnasium's get_attr would call a method
        values = self._call("get_wrapper_attr", name)
        return [values[index] for index in indices]

    def set(self, name: str, value: Any, indices: list[int]) -> None:
        self._refuse_some(f"setting {name!r}", indices)
        # A list of its own is one value per environment to gymnasium
        self.env.unwrapped.set_attr(name, [value] * self.env.num_envs)  # type: ignore[attr-defined]  # an AsyncVectorEnv

    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], indices: list[int]) -> list[Any]:
        self._refuse_some(f"calling {name!r}", indices)
        self._check(name)
        answers = self._call(name, *args, **kwargs)
        return [answers[index] for index in indices]

    def is_wrapped(self, wrapper_class: Any, indices: list[int]) -> list[bool]:
        if not issubclass(wrapper_class, Monitor):
            raise ValueError(f"{self.env} keeps its environments in other processes and cannot tell their wrappers")
        return [True] * len(indices)


class NativeMembers(EnvAttributes):
    """One object that is all of the environments."""

    def _owner(self, name: str) -> Any:
        """:return: the outermost of the vector wrappers and the environment that has the attribute"""
        env: Any = self.env
        while not hasattr(env, name):
            if env is env.unwrapped:
                raise AttributeError(f"{self.env} has no attribute {name!r}")
            env = env.env
        return env

    def get(self, name: str, indices: list[int]) -> list[Any]:
        return [getattr(self._owner(name), name)] * len(indices)

    def set(self, name: str, value: Any, indices: list[int]) -> None:
        self._refuse_some(f"setting {name!r}", indices)
        try:
            owner = self._owner(name)
        except AttributeError:
            owner = self.env.unwrapped
        setattr(owner, name, value)

    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], indices: list[int]) -> list[Any]:
        self._refuse_some(f"calling {name!r}", indices)
        return [getattr(self._owner(name), name)(*args, **kwargs)] * len(indices)


def members_of(env: VectorEnv) -> EnvAttributes:
    """:return: the way to what is inside of ``env``"""
    base = env.unwrapped
    if isinstance(base, SyncVectorEnv):
        return SyncMembers(env)
    return AsyncMembers(env) if isinstance(base, AsyncVectorEnv) else NativeMembers(env)
