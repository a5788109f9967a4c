"""A reader of a file finds the old content or the new, never a part, whatever happens to the writer."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sb3_vpg.common.atomic_files import atomic_replace, atomic_write, remove_partial_files


def write(path, content, error=None):
    with atomic_write(path) as file:
        file.write(content)
        if error is not None:
            raise error


def replace(path, content, error=None):
    with atomic_replace(path) as name:
        Path(name).write_bytes(content)
        if error is not None:
            raise error


both = pytest.mark.parametrize("put", [write, replace])


@both
def test_content_is_replaced_and_no_temporary_file_is_left(put, tmp_path):
    put(tmp_path / "a.bin", b"first")
    put(str(tmp_path / "a.bin"), b"second")
    assert (tmp_path / "a.bin").read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["a.bin"]


@both
def test_folder_is_created(put, tmp_path):
    put(tmp_path / "new/folder/a.bin", b"x")
    assert (tmp_path / "new/folder/a.bin").read_bytes() == b"x"


def test_readers_find_the_old_content_until_the_block_ends(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new" * 10_000)
        file.flush()
        assert path.read_bytes() == b"old"
    with atomic_replace(path) as name:
        assert Path(name).suffix == ".zip"
        Path(name).write_bytes(b"newer")
        assert path.read_bytes() == b"new" * 10_000
    assert path.read_bytes() == b"newer"


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt], ids=lambda error: error.__name__)
@pytest.mark.parametrize("existing", [True, False], ids=["existing", "new"])
@both
def test_error_leaves_the_old_file(put, existing, error, tmp_path):
    """After a full disk, a bug or Ctrl-C, the writer's own error is raised and no temporary file is left."""
    path = tmp_path / "a.bin"
    if existing:
        path.write_bytes(b"old")
    with pytest.raises(error, match="midway"):
        put(path, b"half", error("midway"))
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == ([("a.bin", b"old")] if existing else [])


def test_block_that_writes_nothing_is_an_error(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"old")
    with pytest.raises(FileNotFoundError), atomic_replace(tmp_path / "a.bin"):
        pass
    assert (tmp_path / "a.bin").read_bytes() == b"old"


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664], ids=oct)
@both
def test_permissions_are_kept(put, mode, tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    path.chmod(mode)
    put(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
@both
def test_new_file_has_the_permissions_of_any_new_file(put, tmp_path):
    """A temporary file would be readable for its owner only."""
    (tmp_path / "usual").touch()
    put(tmp_path / "a.bin", b"x")
    assert (tmp_path / "a.bin").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("long", [True, False], ids=["long", "short"])
def test_writing_to_the_path_of_a_folder_is_an_error_that_leaves_the_folder(long, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/inside").touch()
    with pytest.raises(OSError, match="a"):
        write(tmp_path / "a", b"x" * (10**6 if long else 1))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_file_in_the_place_of_a_folder_is_an_error(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(OSError, match="a"):
        write(tmp_path / "a/b.bin", b"x")


KILLED = """
import os, signal, sys
from sb3_vpg.common.atomic_files import atomic_replace, atomic_write
with atomic_write(sys.argv[1]) as file, atomic_replace(sys.argv[2]) as name:
    file.write(b"new" * 100_000)
    file.flush()
    with open(name, "wb") as other:
        other.write(b"new" * 100_000)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_killed_writer_leaves_the_old_file_and_removable_temporary_files(tmp_path):
    paths = [tmp_path / "a.zip", tmp_path / "b.npz"]
    for path in paths:
        path.write_bytes(b"old")
    run = subprocess.run([sys.executable, "-c", KILLED, *map(str, paths)], env={**os.environ}, check=False)
    assert run.returncode == -signal.SIGKILL
    assert [path.read_bytes() for path in paths] == [b"old", b"old"]
    assert len(list(tmp_path.iterdir())) == 4
    remove_partial_files(tmp_path)
    assert sorted(tmp_path.iterdir()) == paths


def test_remove_partial_files_leaves_all_other_files(tmp_path):
    for name in ("a.part", ".hidden", "b.zip"):
        (tmp_path / name).touch()
    remove_partial_files(tmp_path)
    remove_partial_files(tmp_path / "nowhere")
    assert len(list(tmp_path.iterdir())) == 3
