"""Film agents, also on machines without a screen, and convert films to small GIFs."""

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import imageio_ffmpeg
from stable_baselines3.common.vec_env import VecVideoRecorder

from sb3_vpg.common.atomic_files import atomic_replace
from sb3_vpg.zoo.own_modules import command_of
from sb3_vpg.zoo.patching import patched

# GIFs measure time in hundredths of a second; 12.5 is one of the few rates that are exact
_FRAME_RATE, _WIDTH = 12.5, 320
_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")


@contextmanager
def without_screen() -> Iterator[None]:
    """On Linux without a screen, let pygame and MuJoCo render off-screen, unless the user's environment variables say how."""
    wanted = {"SDL_VIDEODRIVER": "dummy", "MUJOCO_GL": "egl"}
    has_screen = sys.platform != "linux" or any(os.environ.get(name) for name in _DISPLAYS)
    added = {} if has_screen else {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


@contextmanager
def gifs_too() -> Iterator[None]:
    """Within the block, let ``VecVideoRecorder`` write a GIF beside each of its films."""

    class WithGif(VecVideoRecorder):
        def _stop_recording(self) -> None:
            super()._stop_recording()
            print(f"Saving gif to {write_gif(Path(self.video_path))}")

    # The zoo's programs import it from this module
    with patched("stable_baselines3.common.vec_env:VecVideoRecorder", WithGif):
        yield


@contextmanager
def quoted_ffmpeg(folder: Path) -> Iterator[None]:
    """
    Within the block, let ``rl_zoo3.record_training`` run ffmpeg without a shell, and quote paths in its list of films.
    The zoo does not quote them, so that it fails for folders with spaces or quotes in their names.

    :param folder: absolute path of the films, as in ``--output-folder``
    :raises ValueError: if ffmpeg fails
    """

    def call(command: str) -> int:
        films = folder / "tmp.txt"
        if films.exists():
            lines = [line.removeprefix("file ").replace("'", "'\\''") for line in films.read_text().splitlines()]
            films.write_text("".join(f"file '{line}'\n" for line in lines))
        code = subprocess.run(shlex.split(command.replace(str(folder), shlex.quote(str(folder))))).returncode
        if code != 0:
            raise ValueError(f"ffmpeg could not join the films in {folder}; see its message above")
        return code

    with patched("os:system", call):
        yield


def write_gif(film: Path, width: int = _WIDTH, frame_rate: float = _FRAME_RATE) -> Path:
    """
    Convert a film to a small GIF, whose palette is computed from the film's colours.

    :param film: as ``record_video`` writes it
    :param width: largest width in pixels; a narrower film keeps its width
    :param frame_rate: largest number of frames per second; a slower film keeps its rate
    :return: path of the GIF, beside the film
    :raises ValueError: if ffmpeg cannot read the film
    """
    scaled = f"fps='min({frame_rate:g},source_fps)',scale='min({width},iw)':-2:flags=area"
    palette = "split[a][b];[a]palettegen=max_colors=64[p];[b][p]paletteuse=dither=none:diff_mode=rectangle"
    gif = film.with_suffix(".gif")
    with atomic_replace(gif) as part:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(film), "-vf", f"{scaled},{palette}", "-y", part]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise ValueError(f"{film} is not a film that ffmpeg can read: {done.stderr.strip()[-400:]}")
    return gif


def film(algo: str, env_id: str, folder: str, n_timesteps: int, flags: Sequence[str] = ()) -> Path:
    """
    Run ``sb3-vpg record_video`` in a new process, because the zoo's program has no function to call.

    :param algo: name on the command line
    :param env_id: environment id
    :param folder: log folder
    :param n_timesteps: number of environment steps
    :param flags: further flags of ``record_video``
    :return: an mp4 file, alone in a temporary folder that the caller must delete
    :raises ValueError: if the environment cannot be filmed
    """
    target = tempfile.mkdtemp(prefix="sb3-vpg-film-")
    command = [*command_of("sb3_vpg"), "record_video", "--algo", algo, "--env", env_id, "-f", folder]
    command += ["-n", str(n_timesteps), "-o", target, *flags]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    films = list(Path(target).glob("*.mp4"))
    if done.returncode or not films:
        last = done.stdout.strip().splitlines()[-1:] or ["no message"]
        raise ValueError(f"{env_id} could not be filmed ({last[0]}); push without a film: --no-render")
    return films[0]
