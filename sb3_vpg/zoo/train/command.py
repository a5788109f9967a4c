"""``sb3-vpg train`` and ``optimize``: parse the flags, and choose the experiment manager."""

import argparse
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import rl_zoo3.train
from rl_zoo3.utils import StoreDict

from sb3_vpg.collection.processes import join_processes
from sb3_vpg.common.world import World
from sb3_vpg.zoo.flags import NamedValues
from sb3_vpg.zoo.own_modules import check_registered
from sb3_vpg.zoo.patching import patched
from sb3_vpg.zoo.registration import register
from sb3_vpg.zoo.signals import Signals
from sb3_vpg.zoo.train.atomic_saving import atomic_saving
from sb3_vpg.zoo.train.callbacks import MaskedTrialEvalCallback
from sb3_vpg.zoo.train.experiment_manager import VPGExperimentManager
from sb3_vpg.zoo.train.session import RunComplete, Session
from sb3_vpg.zoo.train.shared_run import SharedExperimentManager, only_main_prints, settle
from sb3_vpg.zoo.train.vector_manager import VectorExperimentManager

_NOT_GIVEN = object()


def train(flags: list[str], signals: Signals, own: dict[str, Any]) -> None:
    """
    Run ``rl_zoo3.train``. Its arguments are ``sys.argv``.

    :param flags: the user's part of ``sys.argv``
    :param signals: the signal handlers of this process
    :param own: our flags ``vec_env``, ``checkpoint_freq``, ``resume`` and ``exp_id``; None for a flag that is not given
    :raises ValueError: if there is nothing to resume, if a flag contradicts the run, or if a run has the given number
    """
    register()
    with ExitStack() as stack:
        world = join_processes()
        stack.enter_context(only_main_prints(world))
        session = Session(flags, signals, own, stack)
        parser = SimpleNamespace(ArgumentParser=partial(_Parser, session, world))
        stack.enter_context(patched("rl_zoo3.train:argparse", parser))
        stack.enter_context(patched("rl_zoo3.train:ExperimentManager", partial(_manager, session, world)))
        stack.enter_context(patched("rl_zoo3.exp_manager:TrialEvalCallback", MaskedTrialEvalCallback))
        stack.enter_context(atomic_saving())
        try:
            rl_zoo3.train.train()
        except RunComplete as complete:
            print(complete)


class _Parser(argparse.ArgumentParser):
    """Takes the place of ``ArgumentParser`` in ``rl_zoo3.train``; the session completes its result."""

    def __init__(self, session: Session, world: World, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._session, self._world = session, world

    def add_argument(self, *names: Any, **kwargs: Any) -> argparse.Action:
        """See ``argparse``."""
        if kwargs.get("action") is StoreDict:
            kwargs["action"] = NamedValues
        return super().add_argument(*names, **kwargs)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """See ``argparse``."""
        parsed = super().parse_args(args, namespace)
        # Parse once more, without defaults: which flags has the user given?
        unset = argparse.Namespace(**dict.fromkeys(vars(parsed), _NOT_GIVEN))
        given = vars(super().parse_args(self._session.flags, unset))
        given = {name: value for name, value in given.items() if value is not _NOT_GIVEN}
        settled = settle(self._session, self._world, parsed, given)
        # The zoo does this next, but its error does not say how to register an environment
        for module in settled.gym_packages:
            import_module(module)
        check_registered(settled.env)
        return settled


def _manager(session: Session, world: World, args: argparse.Namespace, *others: Any, **kwargs: Any) -> VPGExperimentManager:
    """Takes the place of the class ``ExperimentManager`` in ``rl_zoo3.train``."""
    if world.is_distributed:
        return SharedExperimentManager(args, *others, session=session, world=world, **kwargs)
    if session.vector_mode is not None:
        return VectorExperimentManager(args, *others, session=session, mode=session.vector_mode, **kwargs)
    return VPGExperimentManager(args, *others, session=session, **kwargs)
