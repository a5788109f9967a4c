"""What callbacks find in ``locals``: the variables of SB3's loop, of which some are computed only when they are read."""

from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EventCallback


class Locals(dict[str, Any]):
    """
    A dict with entries that are computed when somebody reads them, and kept until ``forget``. Who asks for its keys or
    copies it reads them all.

    :param known: entries that are there from the beginning
    """

    def __init__(self, known: Mapping[str, Any]) -> None:
        super().__init__(known)
        self._later: Mapping[str, Callable[[], Any]] = {}
        self.computed: dict[str, Any] = {}

    def set_lazy(self, later: Mapping[str, Callable[[], Any]]) -> None:
        """:param later: the entries to compute when they are read, in the place of present ones of these names"""
        self.forget()
        self._later = later
        self.forget()

    def forget(self) -> dict[str, Any]:
        """
        What was computed is not true any more: it is computed anew when it is read again.

        :return: what has been handed out; who got it may have written to it
        """
        for name in self._later:
            self.pop(name, None)
        handed_out, self.computed = self.computed, {}
        return handed_out

    def __missing__(self, name: str) -> Any:
        value = self[name] = self.computed[name] = self._later[name]()
        return value

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self._later

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default  # noqa: SIM401  # it is this get that is defined here

    def __iter__(self) -> Iterator[str]:
        return iter(self._whole().keys())

    def keys(self) -> KeysView[str]:  # type: ignore[override]  # the view of a copy
        return self._whole().keys()

    def values(self) -> ValuesView[Any]:  # type: ignore[override]  # likewise
        return self._whole().values()

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]  # likewise
        return self._whole().items()

    def copy(self) -> dict[str, Any]:
        return self._whole()

    def _whole(self) -> dict[str, Any]:
        for name in self._later:
            self[name]
        return dict(super().items())


def locals_of(callback: BaseCallback) -> Locals:
    """:return: what this callback and those inside of it look into; those of ``learn`` share one from the beginning"""
    shared = callback.locals
    if not isinstance(shared, Locals):
        # Somebody calls collect_rollouts() in a loop of their own
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
