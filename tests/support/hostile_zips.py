"""
Archives in which two readers find different content, since the directory at the end contradicts the headers, or a name is
ambiguous. Such files have deceived scanners and installers; the numbers name the advisories.
"""

import gzip
import io
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tampering import Builder, Cases, Members, Payload, case, member, tarred

from sb3_vpg.persistence.archives import write_archive

Change = Callable[[bytes], bytes]
# The offsets of the same fields in a header and in an entry of the directory
HEADER = {"flags": 6, "method": 8, "checksum": 14, "packed": 18, "size": 22, "name": 30}
ENTRY = {"flags": 8, "method": 10, "checksum": 16, "packed": 20, "size": 24, "disk": 34, "place": 42, "name": 46}


def outer(change: Change) -> Builder:
    return lambda members, marker: change(write_archive(members))


def inner(change: Change) -> Builder:
    """:return: a builder that changes torch's archive within the model's"""
    return lambda members, marker: write_archive({**members, "policy.pth": change(members["policy.pth"])})


def overwritten(content: bytes, place: int, value: bytes) -> bytes:
    return content[:place] + value + content[place + len(value) :]


def entries(content: bytes) -> dict[str, tuple[int, int]]:
    """:return: the offsets of each member's header and of its entry in the directory"""
    places = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        place = archive.start_dir
        for info in archive.infolist():
            places[info.filename] = info.header_offset, place
            place += 46 + sum(struct.unpack("<3H", content[place + 28 : place + 34]))
    return places


def with_field(name: str, value: bytes, header: str = "", entry: str = "") -> Change:
    """:return: a change of a field in a member's header, in its entry in the directory, or in both"""

    def change(content: bytes) -> bytes:
        at_header, at_entry = entries(content)[name]
        content = overwritten(content, at_header + HEADER[header], value) if header else content
        return overwritten(content, at_entry + ENTRY[entry], value) if entry else content

    return change


def with_end(place: int, value: bytes) -> Change:
    """:return: a change of the last 22 bytes"""
    return lambda content: overwritten(content, len(content) - 22 + place, value)


def written(act: Callable[[zipfile.ZipFile], None]) -> Builder:
    """:return: a builder that calls ``act`` after it has written the members"""

    def build(members: Members, marker: Path) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
            act(archive)
        return file.getvalue()

    return build


def with_hidden_member(archive: zipfile.ZipFile) -> None:
    archive.writestr("evil.py", b"import os")
    archive.filelist.pop()


def with_bytes_before_directory(archive: zipfile.ZipFile) -> None:
    assert archive.fp is not None
    archive.fp.seek(archive.start_dir)
    archive.start_dir += archive.fp.write(b"import os")


def with_bytes_between_members(archive: zipfile.ZipFile) -> None:
    with_bytes_before_directory(archive)
    archive.writestr("best_model_0.zip", b"")


def with_archive_comment(archive: zipfile.ZipFile) -> None:
    archive.comment = b"PK\x05\x06" + bytes(18)


def with_member_comment(archive: zipfile.ZipFile) -> None:
    archive.filelist[0].comment = b"import os"


def with_unicode_name(archive: zipfile.ZipFile) -> None:
    """Add Info-ZIP's extra field with a Unicode name, which some readers use instead of the name."""
    archive.filelist[0].extra = struct.pack("<2HBL", 0x7075, 9, 1, 0) + b"evil"


def with_zero_byte_in_name(content: bytes) -> bytes:
    """Add a name with a zero byte, at which readers in C, and Python's, end the name."""
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("best_model_0.zip_.py", b"")
    return file.getvalue().replace(b"zip_.py", b"zip\x00.py")


def linked(members: Members, marker: Path) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o120777 << 16 if name == "data" else 0
            archive.writestr(info, b"/etc/passwd" if name == "data" else content)
    return file.getvalue()


def overlapping(members: Members, marker: Path) -> bytes:
    """Extend the first member over the header of the second, with the right checksum and sizes."""
    names = list(members)
    content = write_archive(members)
    start, second = (entries(content)[name][0] for name in names[:2])
    longer = content[start + 30 + len(names[0]) : second + 30]
    facts = struct.pack("<3L", zipfile.crc32(longer), len(longer), len(longer))
    return with_field(names[0], facts, "checksum", "checksum")(content)


def with_record_twice(content: bytes) -> bytes:
    file = io.BytesIO(content)
    with warnings.catch_warnings(), zipfile.ZipFile(file, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("archive/data.pkl", archive.read("archive/data.pkl"))
    return file.getvalue()


def with_record(name: str, value: bytes) -> Change:
    """:return: a change of one record in torch's archive"""

    def change(content: bytes) -> bytes:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return write_archive({**{each: archive.read(each) for each in archive.namelist()}, name: value})

    return change


def instead_of_weights(make: Callable[[Path], bytes]) -> Builder:
    """:return: a builder that replaces the weights by other content"""
    return lambda members, marker: write_archive({**members, "policy.pth": make(marker)})


def objects(marker: Path, save: Callable[..., None] = np.save) -> bytes:
    file = io.BytesIO()
    save(file, np.array([Payload(marker)], dtype=object), allow_pickle=True)
    return file.getvalue()


def in_a_tar(content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo("model.zip")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return file.getvalue()[: 512 + len(content)]


def _headers() -> Cases:
    """:return: archives in which the directory contradicts a member's header"""
    no_zip, pth = "is not a complete zip archive.*", "archive/data.pkl"
    checksum, name, flags = "CVE-2025-10156", "CVE-2025-1944", "CVE-2025-1945"
    for place, kind, first in (("", outer, "policy.pth"), (" inside", inner, pth)):
        where = f"'policy.pth'.*{'disagree|flags' if place else ''}" if place else no_zip
        other = first[:-1] + "x"
        yield case(
            f"checksum{place}",
            "to stop a scanner",
            kind(with_field(first, bytes(4), "checksum" if not place else "", "checksum")),
            "Bad CRC-32" if not place else "Bad CRC-32|disagree",
            checksum,
        )
        yield case(f"name{place}", "two names", kind(with_field(first, other.encode(), "name")), f"{where}.*disagree", name)
        yield case(
            f"flag{place}",
            "a flag that readers interpret differently",
            kind(with_field(first, b"\x20\x08", "flags", "flags")),
            "flags",
            flags,
        )
        yield case(
            f"flag of a header{place}",
            "encryption for one reader",
            kind(with_field(first, b"\x01\x00", "flags")),
            "flags",
            flags,
        )
        yield case(f"method of a header{place}", "two methods", kind(with_field(first, b"\x08\x00", "method")), "disagree")
        yield case(f"size of a header{place}", "two sizes", kind(with_field(first, b"\x05\x00\x00\x00", "size")), "disagree")
    strong = with_field("data", b"\x41\x00", entry="flags")
    yield case("strong encryption", "a password", outer(strong), "encrypted")
    yield case("patch", "a member that is a patch", outer(with_field("data", b"\x20\x00", entry="flags")), "flags", flags)
    yield case(
        "other disk", "a part on another disk", outer(with_field("data", b"\x01\x00", entry="disk")), "unknown extra fields"
    )
    yield case("far header", "to read past the end", outer(with_field("data", b"\xff\xff\xff\x7f", entry="place")), no_zip)
    yield case(
        "two headers in one",
        "one content under two names",
        outer(with_field("data", struct.pack("<L", 40), entry="place")),
        no_zip,
    )
    yield case("member within a member", "to be read twice", overlapping, "does not begin where", "CVE-2024-0450")
    yield case(
        "hidden member",
        "a file that is missing in the directory",
        written(with_hidden_member),
        "bytes between",
        "CVE-2025-54368",
    )
    yield case(
        "hidden bytes",
        "code between the members",
        written(with_bytes_between_members),
        "does not begin where",
        "CVE-2025-54368",
    )
    yield case("bytes before the directory", "code after the members", written(with_bytes_before_directory), "bytes between")
    yield case("remark", "code in the comment of a member", written(with_member_comment), "unknown extra fields")
    yield case("second name", "another name for some readers", written(with_unicode_name), "unknown extra fields")
    yield case(
        "end of a name",
        "another name for readers in C",
        outer(with_zero_byte_in_name),
        "disagree about the member 'best_model_0.zip'",
    )
    yield case("link", "a link to a file of the user", linked, "'data' is not JSON")
    yield case("line in a name", "to write lines to the terminal", member("data\nall is well", b""), r"'data\\nall.*no model")
    yield case("capitals", "two members with one name on some file systems", member("DATA", b"{}"), "'DATA', which no model")
    yield case("folder", "a folder in place of a file", member("policy.pth/", b""), "whose name is a path")


def _ends() -> Cases:
    """:return: archives in which the end of the directory contradicts the directory"""
    other, comment = "the end of its directory is wrong", "CVE-2025-54368"
    yield case(
        "comment",
        "a second end of the directory in the comment",
        written(with_archive_comment),
        f"{other}|not a complete zip",
        comment,
    )
    yield case(
        "bytes after the end",
        "code after the end",
        outer(lambda content: content + b"import os"),
        f"{other}|not a complete zip",
    )
    yield case("fewer members", "a wrong number of members", outer(with_end(8, b"\x01\x00\x01\x00")), other)
    yield case("more members", "a wrong number of members", outer(with_end(8, b"\xff\x00\xff\x00")), other)
    yield case("several disks", "parts on other disks", outer(with_end(4, b"\x01\x00")), other)
    yield case(
        "short directory", "members that only one reader finds", outer(with_end(12, b"\x10\x00\x00\x00")), "not a complete zip"
    )
    locator = inner(lambda content: overwritten(content, len(content) - 34, bytes(8)))
    yield case(
        "far end",
        "a 64-bit end of the directory at another place",
        locator,
        f"'policy.pth'.*({other}|orrupt|not in torch)",
        "CVE-2025-8291",
    )
    counted = inner(lambda content: overwritten(content, len(content) - 98 + 24, b"\x01"))
    yield case("fewer records", "a wrong 64-bit number of records", counted, f"'policy.pth'.*({other}|orrupt|not in torch)")
    yield case("zip and tar", "a zip for one reader, a tar for another", outer(in_a_tar), "two archives", "CVE-2026-3219")
    yield case(
        "zip before tar",
        "a zip for one reader, a tar for another",
        lambda members, marker: write_archive(members) + tarred(pickle.dumps(Payload(marker))),
        f"{other}|not a complete zip",
        "CVE-2026-3219",
    )
    yield case("zip after zip", "two models in one", outer(lambda content: content + content), "two archives")


def _records() -> Cases:
    """:return: wrong records in torch's archive, and other formats in its place"""
    none = "'policy.pth' is not in torch"
    yield case(
        "record twice",
        "two records, one to be checked and one to be read",
        inner(with_record_twice),
        "'data.pkl' twice|does not begin",
    )
    yield case("two folders", "one for each reader", inner(with_record("other/data.pkl", b"\x80\x02}.")), "'data.pkl' twice")
    yield case("record elsewhere", "numbers from another folder", inner(with_record("other/data/99", bytes(4))), "two folders")
    yield case("order of bytes", "an unknown byte order", inner(with_record("archive/byteorder", b"middle")), "order of bytes")
    yield case("version", "a format of the future", inner(with_record("archive/version", b"999\n")), "version of torch")
    yield case(
        "model in a model",
        "endless recursion",
        lambda m, _: write_archive({**m, "policy.pth": write_archive(m)}),
        none,
    )
    yield case("objects", "code in an array of objects", instead_of_weights(objects), none, "CVE-2019-6446")
    yield case(
        "archive of objects",
        "code in an archive of arrays",
        instead_of_weights(lambda m: objects(m, np.savez)),
        none,
        "CVE-2019-6446",
    )
    yield case("7z", "a format that a scanner unpacks", instead_of_weights(lambda _: b"7z\xbc\xaf\x27\x1c" + bytes(99)), none)
    yield case(
        "gzip", "a pickle that is compressed", instead_of_weights(lambda m: gzip.compress(pickle.dumps(Payload(m)))), none
    )
    yield case(
        "code for data",
        "a script in place of weights",
        instead_of_weights(lambda _: b"#!/usr/bin/env python\n"),
        none,
        "CVE-2025-10155",
    )


def zips() -> Cases:
    yield from _headers()
    yield from _ends()
    yield from _records()
