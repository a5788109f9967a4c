"""
Check that a zip archive holds its members and nothing else.

Two readers can find different archives in one file: one follows the directory at the end, another the header before each
member. Files with that property have deceived scanners of models (CVE-2025-1944, CVE-2025-1945, CVE-2025-10156). An archive is
read only if its headers and its directory agree, and if every byte belongs to a member or to the directory.
"""

import io
import struct
import zipfile
from typing import Any, BinaryIO

_LOCAL = struct.Struct("<4s5H3L2H")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_HAS_DATA_DESCRIPTOR, _NAME_IS_UTF8 = 8, 0x800
# Extra fields: sizes beyond 4 GB, and torch's padding to the next multiple of 64 bytes
_ZIP64, _PADDING = 1, int.from_bytes(b"FB", "little")


class LayoutError(ValueError):
    """An archive with bytes outside of its members, or with headers that contradict its directory; the text says where."""


def check_layout(file: BinaryIO, archive: zipfile.ZipFile) -> None:
    """
    :param file: that holds the archive
    :param archive: opened from ``file``
    :raises LayoutError: if a byte belongs neither to a member nor to the directory, or if headers and directory disagree
    """
    offset = 0
    for member in sorted(archive.infolist(), key=lambda member: member.header_offset):
        if member.header_offset != offset:
            raise LayoutError(f"its member {member.filename!r} does not begin where the one before it ends")
        offset = _end_of(file, member)
    if offset != archive.start_dir:
        raise LayoutError("there are bytes between its last member and its directory")
    _check_end(file, archive)


def _end_of(file: BinaryIO, member: zipfile.ZipInfo) -> int:
    """:return: the offset at which the next member begins"""
    file.seek(member.header_offset)
    _, _, flags, method, _, _, checksum, packed, size, n_name, n_extra = _unpack(_LOCAL, file)
    name = file.read(n_name).decode("utf-8" if flags & _NAME_IS_UTF8 else "cp437")
    extra = _fields(file.read(n_extra))
    if name != member.filename or name != member.orig_filename or method != member.compress_type:
        raise LayoutError(f"its directory and its headers disagree about the member {member.filename!r} or its method")
    if flags != member.flag_bits or flags & ~(_HAS_DATA_DESCRIPTOR | _NAME_IS_UTF8):
        raise LayoutError(f"its member {member.filename!r} has the flags {member.flag_bits:#x} and {flags:#x}")
    if member.comment or member.volume or extra.keys() - {_ZIP64, _PADDING} or _fields(member.extra).keys() - {_ZIP64}:
        raise LayoutError(f"its member {member.filename!r} has a comment or unknown extra fields")
    if _ZIP64 in extra and (size, packed) == (0xFFFFFFFF, 0xFFFFFFFF) and len(extra[_ZIP64]) == 16:
        size, packed = struct.unpack("<2Q", extra[_ZIP64])
    facts = member.CRC, member.compress_size, member.file_size
    if (checksum, packed, size) != facts and not (flags & _HAS_DATA_DESCRIPTOR and (checksum, packed, size) == (0, 0, 0)):
        raise LayoutError(f"its directory and its headers disagree about the size or the checksum of {member.filename!r}")
    end = file.tell() + member.compress_size
    return end + (_length_of_data_descriptor(file, end, facts) if flags & _HAS_DATA_DESCRIPTOR else 0)


def _length_of_data_descriptor(file: BinaryIO, offset: int, facts: tuple[int, int, int]) -> int:
    """The descriptor follows the member and repeats its checksum and sizes. :return: its length in bytes"""
    file.seek(offset)
    following = file.read(24)
    for layout in ("<4sL2Q", "<4sL2L"):
        length = struct.calcsize(layout)
        if following[:length] == struct.pack(layout, b"PK\x07\x08", *facts):
            return length
    raise LayoutError("its directory and what follows a member disagree about its size or its checksum")


def _fields(extra: bytes) -> dict[int, bytes]:
    """:return: the extra fields of a member by number"""
    fields = {}
    while extra:
        kind, length = struct.unpack("<2H", extra[:4])
        fields[kind], extra = extra[4 : 4 + length], extra[4 + length :]
    return fields


def _check_end(file: BinaryIO, archive: zipfile.ZipFile) -> None:
    """Check the records at the end, of 32 and 64 bits: number of members, size and offset of the directory."""
    last = file.seek(0, io.SEEK_END) - _END.size
    file.seek(max(last - _LOCATOR.size, 0))
    locator = _unpack(_LOCATOR, file)
    end = last - _LOCATOR.size - _END64.size if locator[0] == b"PK\x06\x07" else last
    count, facts = len(archive.infolist()), (end - archive.start_dir, archive.start_dir)
    if end != last:
        file.seek(max(end, 0))
        end64 = _unpack(_END64, file)
        agrees = end64[:2] == (b"PK\x06\x06", _END64.size - 12) and end64[4:] == (0, 0, count, count, *facts)
        if not agrees or locator[1:] != (0, end, 1):
            raise LayoutError("the end of its directory is wrong")
    file.seek(last)
    short = [min(value, largest) for value, largest in zip((count, *facts), (0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF), strict=True)]
    if _unpack(_END, file) != (b"PK\x05\x06", 0, 0, short[0], *short, 0):
        raise LayoutError("the end of its directory is wrong, or bytes follow it")


def _unpack(layout: struct.Struct, file: BinaryIO) -> tuple[Any, ...]:
    return layout.unpack(file.read(layout.size))
