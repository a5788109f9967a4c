"""
Attributes of other libraries that our commands patch while they run. ``PATCHES`` lists all of them, and the tests check that
the installed library has each attribute and looks it up in the module that we name.

This module imports nothing heavy: the command line imports it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pkgutil import resolve_name
from typing import Any, NamedTuple


class Patch(NamedTuple):
    """
    :param used_in: module that looks the attribute up when it runs
    :param why: what we need there
    :param since: first supported release that has it
    """

    used_in: str
    why: str
    since: str


PATCHES = {
    "rl_zoo3.train:argparse": Patch("rl_zoo3.train", "train() has no argument for its flags", "rl_zoo3 2.9.2"),
    "rl_zoo3.train:ExperimentManager": Patch("rl_zoo3.train", "train() has no argument for another manager", "rl_zoo3 2.9.2"),
    "rl_zoo3.exp_manager:make_vec_env": Patch(
        "rl_zoo3.exp_manager", "create_envs() has no hook for GymVecEnv and resumed Monitor files", "rl_zoo3 2.9.2"
    ),
    "rl_zoo3.exp_manager:EvalCallback": Patch(
        "rl_zoo3.exp_manager", "create_callbacks() has no hook for a callback that writes its file atomically", "rl_zoo3 2.9.2"
    ),
    "rl_zoo3.exp_manager:TrialEvalCallback": Patch(
        "rl_zoo3.exp_manager", "objective() has no hook for a callback that passes action masks", "rl_zoo3 2.9.2"
    ),
    "stable_baselines3.common.base_class:BaseAlgorithm.save": Patch(
        "rl_zoo3.exp_manager", "SB3 has no hook to write a model atomically", "stable_baselines3 2.9.2"
    ),
    "stable_baselines3.common.off_policy_algorithm:OffPolicyAlgorithm.save_replay_buffer": Patch(
        "rl_zoo3.exp_manager", "SB3 has no hook to write a replay buffer atomically", "stable_baselines3 2.9.2"
    ),
    "stable_baselines3.common.vec_env:VecNormalize.save": Patch(
        "rl_zoo3.exp_manager", "SB3 has no hook to write statistics atomically", "stable_baselines3 2.9.2"
    ),
    "optuna:create_study": Patch("rl_zoo3.exp_manager", "the zoo does not return the study that it creates", "optuna 5.0"),
    "rl_zoo3.enjoy:ALGOS": Patch("rl_zoo3.enjoy", "enjoy() passes no action masks to the model", "rl_zoo3 2.9.2"),
    "rl_zoo3.utils:ALGOS": Patch("rl_zoo3.record_video", "the program passes no action masks to the model", "rl_zoo3 2.9.2"),
    "rl_zoo3.enjoy:create_test_env": Patch(
        "rl_zoo3.enjoy", "enjoy() has no hook for GymVecEnv and a model's own statistics", "rl_zoo3 2.9.2"
    ),
    "rl_zoo3.utils:create_test_env": Patch(
        "rl_zoo3.record_video", "the program has no hook for a model's own statistics", "rl_zoo3 2.9.2"
    ),
    "rl_zoo3.utils:make_vec_env": Patch("rl_zoo3.utils", "create_test_env() has no hook for GymVecEnv", "rl_zoo3 2.9.2"),
    "stable_baselines3.common.vec_env:VecVideoRecorder": Patch(
        "rl_zoo3.record_video", "the program has no hook to write a GIF beside the film", "stable_baselines3 2.9.2"
    ),
    "subprocess:call": Patch(
        "rl_zoo3.record_training", "it starts a program of the zoo that does not know our algorithms", "Python 3.10"
    ),
    "os:system": Patch("rl_zoo3.record_training", "it passes file names to a shell without quoting them", "Python 3.10"),
    "sys:argv": Patch("argparse", "the zoo's programs take their flags from sys.argv only", "Python 3.10"),
    "warnings:formatwarning": Patch("warnings", "a user needs the message, not the line of our source", "Python 3.10"),
}
"""From ``"module:attribute"`` to where and why it is patched."""


@contextmanager
def patched(target: str, value: Any) -> Iterator[Any]:
    """
    Replace an attribute of another library inside a ``with`` block.

    :param target: a key of ``PATCHES``
    :param value: the value inside the block
    :return: the value before, which is restored at the end
    """
    assert target in PATCHES, f"{target} is not listed in PATCHES"
    module, _, path = target.partition(":")
    owner, _, name = path.rpartition(".")
    with replaced(resolve_name(f"{module}:{owner}"), name, value) as before:
        yield before


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[Any]:
    """
    Replace an attribute of an object of our own inside a ``with`` block.

    :param owner: the object
    :param name: its attribute
    :param value: the value inside the block
    :return: the value before, which is restored at the end
    """
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield before
    finally:
        setattr(owner, name, before)
