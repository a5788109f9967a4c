"""The ``locals`` of callbacks: the variables of SB3's loop, some of which are computed only when a callback reads them."""

from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EventCallback


class Locals(dict[str, Any]):
    """
    A dict with lazy entries: they are computed when they are read, and kept until ``forget``. Iterating over the dict or
    copying it computes all of them.

    :param known: the other entries
    """

    def __init__(self, known: Mapping[str, Any]) -> None:
        super().__init__(known)
        self._later: Mapping[str, Callable[[], Any]] = {}
        self.computed: dict[str, Any] = {}

    def set_lazy(self, later: Mapping[str, Callable[[], Any]]) -> None:
        """:param later: the lazy entries, a function each; they replace entries of the same names"""
        self.forget()
        self._later = later
        # Entries of the same names
        self.forget()

    def forget(self) -> dict[str, Any]:
        """
        Drop the computed values of the lazy entries, since a new step begins.

        :return: these values; a callback may have written to them
        """
        for name in self._later:
            self.pop(name, None)
        computed, self.computed = self.computed, {}
        return computed

    def __missing__(self, name: str) -> Any:
        value = self[name] = self.computed[name] = self._later[name]()
        return value

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self._later

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default  # noqa: SIM401  # this defines get

    def __iter__(self) -> Iterator[str]:
        return iter(self._complete().keys())

    def keys(self) -> KeysView[str]:  # type: ignore[override]  # the view of a copy
        return self._complete().keys()

    def values(self) -> ValuesView[Any]:  # type: ignore[override]  # likewise
        return self._complete().values()

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]  # likewise
        return self._complete().items()

    def copy(self) -> dict[str, Any]:
        return self._complete()

    def _complete(self) -> dict[str, Any]:
        for name in self._later:
            self[name]
        return dict(super().items())


def locals_of(callback: BaseCallback) -> Locals:
    """Return the ``locals`` that this callback shares with the callbacks inside it; ``learn`` has set them already."""
    shared = callback.locals
    if not isinstance(shared, Locals):
        # collect_rollouts() was called without learn()
        shared = Locals(shared)
        _share(callback, shared)
    return shared


def _share(callback: BaseCallback, shared: Locals) -> None:
    callback.locals = shared
    inner = list(callback.callbacks) if isinstance(callback, CallbackList) else []
    inner += [callback.callback] if isinstance(callback, EventCallback) and callback.callback is not None else []
    inner += [one] if (one := getattr(callback, "callback_on_new_best", None)) is not None else []
    for one in inner:
        _share(one, shared)
