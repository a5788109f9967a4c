"""Conversion of films to small GIFs, and off-screen rendering."""

import os
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image, ImageSequence

from sb3_vpg.zoo.agents.videos import without_screen, write_gif

WIDTH, HEIGHT, FRAMES, RATE = 640, 320, 50, 25


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A red square that moves from left to right on blue, two seconds long."""
    path = tmp_path / "film.mp4"
    writer = imageio_ffmpeg.write_frames(path, (WIDTH, HEIGHT), fps=RATE)
    writer.send(None)
    for index in range(FRAMES):
        frame = np.full((HEIGHT, WIDTH, 3), (0, 0, 200), np.uint8)
        frame[128:192, 10 * index : 10 * index + 64] = (200, 0, 0)
        writer.send(frame)
    writer.close()
    return path


def test_a_gif_shows_what_the_film_shows_but_smaller(film: Path) -> None:
    gif = write_gif(film)
    assert gif == film.with_suffix(".gif")
    with Image.open(gif) as image:
        frames = [np.asarray(frame.convert("RGB"), np.int64) for frame in ImageSequence.Iterator(image)]
        assert (image.size, image.info["duration"], len(frames)) == ((320, 160), 80, 25)
    # The red square moves, and both colours are those of the film up to compression
    left, right = (np.flatnonzero(frame[80, :, 0] > 120) for frame in (frames[0], frames[-1]))
    assert left.max() < 40 < 230 < right.min()
    assert np.abs(frames[0][80, 10] - (200, 0, 0)).max() < 25
    assert np.abs(frames[0][10, 10] - (0, 0, 200)).max() < 25
    assert gif.stat().st_size < 20_000


def test_slow_and_small_films_keep_their_size_and_rate(film: Path) -> None:
    with Image.open(write_gif(film, width=1000, frame_rate=100)) as image:
        assert (image.size, image.info["duration"], image.n_frames) == ((WIDTH, HEIGHT), 1000 // RATE, FRAMES)


@pytest.mark.parametrize("content", [None, b"", b"no film"], ids=["missing", "empty", "text"])
def test_an_unreadable_film_is_an_error_with_its_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "film.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"film\.mp4 is not a film"):
        write_gif(path)


def test_rendering_is_off_screen_only_without_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    with without_screen():
        assert (os.environ["SDL_VIDEODRIVER"], os.environ["MUJOCO_GL"]) == ("dummy", "osmesa")
    assert "SDL_VIDEODRIVER" not in os.environ
    monkeypatch.setenv("DISPLAY", ":0")
    with without_screen():
        assert "SDL_VIDEODRIVER" not in os.environ
