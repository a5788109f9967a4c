"""Archives are read in every way that Python, SB3 and torch write them if they hold only their members."""

import io
import zipfile

import pytest
from tampering import good_model

from sb3_vpg import VPG
from sb3_vpg.persistence.zip_layout import LayoutError, check_layout


class Stream(io.RawIOBase):
    """A stream that cannot seek, such as a socket: sizes and checksums then follow the members."""

    def __init__(self):
        self.content = b""

    def writable(self):
        return True

    def write(self, content):
        self.content += bytes(content)
        return len(content)


@pytest.fixture(scope="module")
def members():
    return good_model()


def written(members, stream, large=False):
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            with archive.open(name, "w", force_zip64=large) as member:
                member.write(content)
    return stream.content if isinstance(stream, Stream) else stream.getvalue()


@pytest.mark.parametrize("stream", [io.BytesIO, Stream])
@pytest.mark.parametrize("large", [False, True])
def test_archive_is_read_however_python_writes_it(members, stream, large):
    assert VPG.load(io.BytesIO(written(members, stream(), large)), device="cpu").num_timesteps == 32


def test_empty_archive_has_a_valid_layout():
    file = io.BytesIO()
    zipfile.ZipFile(file, "w").close()
    check_layout(file, zipfile.ZipFile(file))


def read(content):
    file = io.BytesIO(content)
    with zipfile.ZipFile(file) as archive:
        check_layout(file, archive)
        assert archive.testzip() is None


@pytest.mark.parametrize("percent", range(0, 101, 7))
def test_archive_with_an_inserted_byte_is_refused(members, percent):
    """Python's zipfile or ``check_layout`` refuses it."""
    content = written(members, io.BytesIO())
    read(content)
    place = percent * len(content) // 100
    with pytest.raises((zipfile.BadZipFile, LayoutError)):
        read(content[:place] + b"\x00" + content[place:])
