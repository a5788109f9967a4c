"""Run the programs of our commands, rl_zoo3's and our own, in this process, with our algorithms in the zoo's tables."""

import os
import runpy
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from importlib import import_module
from pathlib import Path
from shutil import which
from typing import Any

import imageio_ffmpeg

from sb3_vpg.common.atomic_files import atomic_replace
from sb3_vpg.zoo.agents.masked_play import MaskedPrograms
from sb3_vpg.zoo.agents.play_env import create_gym_vec_test_env, create_test_env
from sb3_vpg.zoo.agents.trained_agents import film_of_training, requested_model, shipped_agent_flags
from sb3_vpg.zoo.agents.videos import gifs_too, quoted_ffmpeg, without_screen, write_gif
from sb3_vpg.zoo.own_modules import command_of, import_modules_of
from sb3_vpg.zoo.patching import patched
from sb3_vpg.zoo.registration import register
from sb3_vpg.zoo.signals import CLOSED_PIPE


def run(target: str, vector_mode: str | None = None, model: Path | None = None) -> None:
    """
    Run ``"module:function"``, or ``"module"`` as a program. Its arguments are ``sys.argv``.

    :param target: the program; the zoo's video programs have no function to call
    :param vector_mode: one of ``VECTOR_MODES``, for ``enjoy``; None: SB3's ``VecEnv``
    :param model: the file whose ``VecNormalize`` statistics are used; None: the last model of the run
    """
    register()
    module, _, function = target.partition(":")
    create_for_enjoy = create_test_env if vector_mode is None else partial(create_gym_vec_test_env, vector_mode)
    masked = MaskedPrograms()
    with (
        patched("rl_zoo3.enjoy:ALGOS", masked.algorithms),
        patched("rl_zoo3.enjoy:create_test_env", masked.keeping_env(partial(create_for_enjoy, model=model))),
        # record_video, which is run as "__main__", imports both from here
        patched("rl_zoo3.utils:ALGOS", masked.algorithms),
        patched("rl_zoo3.utils:create_test_env", masked.keeping_env(partial(create_test_env, model=model))),
    ):
        if function:
            getattr(import_module(module), function)()
        else:
            with _own_video_programs():
                runpy.run_module(module, run_name="__main__")


def run_play(name: str, target: str, flags: Sequence[str], vector_mode: str | None = None, gif: bool = False) -> None:
    """
    Run a program that plays a trained agent. By default, it is the agent of the latest run, or else one that ships.

    :param name: the command
    :param target: see ``run``
    :param flags: the user's part of ``sys.argv``
    :param vector_mode: see ``run``
    :param gif: whether to write a GIF beside the video
    :raises ValueError: if there is no such agent
    """
    sys.argv.extend(shipped_agent_flags(name, flags))
    model, settings = requested_model(sys.argv[1:])
    if model is not None:
        import_modules_of(settings)
    with ExitStack() as stack:
        stack.enter_context(without_screen() if name in ("record_video", "record_training") else nullcontext())
        stack.enter_context(gifs_too() if gif else nullcontext())
        film = Path(os.path.abspath(film_of_training(sys.argv[1:]))) if name == "record_training" else None
        if film is not None:
            sys.argv.extend(["--output-folder", str(film.parent)])
            stack.enter_context(quoted_ffmpeg(film.parent))
        run(target, vector_mode, model)
        if gif and film is not None:
            print(f"Saving gif to {write_gif(film)}")


def run_plot(target: str, picture: Path) -> None:
    """
    Run one of the zoo's plot programs without a screen, and save its figures.

    :param target: see ``run``
    :param picture: the file; if there are several figures, their numbers are appended to its name
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with warnings.catch_warnings():
        # Matplotlib warns that it cannot open a window
        warnings.filterwarnings("ignore", message=".*non-interactive.*", category=UserWarning)
        run(target)
    figures = pyplot.get_fignums()
    for number in figures:
        path = picture if len(figures) == 1 else picture.with_stem(f"{picture.stem}_{number}")
        with atomic_replace(path) as part:
            # The zoo's labels reach over the edge of the figure
            pyplot.figure(number).savefig(part, dpi=150, bbox_inches="tight")
        print(f"Saved {path}")
    pyplot.close("all")


@contextmanager
def _own_video_programs() -> Iterator[None]:
    """
    Inside the block, let ``rl_zoo3.record_training`` start ``sb3-vpg record_video`` instead of
    ``python -m rl_zoo3.record_video``, which does not know our algorithms. If no ``ffmpeg`` is installed, put the one of
    ``imageio_ffmpeg`` on the path.
    """
    call = subprocess.call

    def call_own(command: list[str], *args: Any, **kwargs: Any) -> int:
        if command[:3] == ["python", "-m", "rl_zoo3.record_video"]:
            command = [*command_of("sb3_vpg"), "record_video", *command[3:]]
        code = call(command, *args, **kwargs)
        if code == CLOSED_PIPE:
            raise BrokenPipeError
        return code

    path = os.environ.get("PATH", "")
    with tempfile.TemporaryDirectory() as folder, patched("subprocess:call", call_own):
        if which("ffmpeg") is None:
            (Path(folder) / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
        os.environ["PATH"] = os.pathsep.join([path, folder])
        try:
            yield
        finally:
            os.environ["PATH"] = path
