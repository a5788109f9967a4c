"""
Archives in which two readers find two things: at the front and at the back, in the directory and in the headers, by one name
and by another. Scanners and installers have been led astray by such files; the numbers name where.
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
from tampering import Builder, Cases, EnvAttributes, Payload, case, member, tarred

from sb3_vpg.persistence.archives import write_archive

Change = Callable[[bytes], bytes]
# Where a header and an entry of the directory hold the same
HEADER = {"flags": 6, "method": 8, "checksum": 14, "packed": 18, "size": 22, "name": 30}
ENTRY = {"flags": 8, "method": 10, "checksum": 16, "packed": 20, "size": 24, "disk": 34, "place": 42, "name": 46}


def outer(change: Change) -> Builder:
    return lambda members, marker: change(write_archive(members))


def inner(change: Change) -> Builder:
    """:return: a builder that changes torch's archive within the model's"""
    return lambda members, marker: write_archive({**members, "policy.pth": change(members["policy.pth"])})


def over(content: bytes, place: int, value: bytes) -> bytes:
    return content[:place] + value + content[place + len(value) :]


def entries(content: bytes) -> dict[str, tuple[int, int]]:
    """:return: where the header of each member is, and its entry in the directory"""
    places = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        place = archive.start_dir
        for info in archive.infolist():
            places[info.filename] = info.header_offset, place
            place += 46 + sum(struct.unpack("<3H", content[place + 28 : place + 34]))
    return places


def told(name: str, value: bytes, header: str = "", entry: str = "") -> Change:
    """:return: a change of what the header of a member says, or its entry in the directory, or both"""

    def change(content: bytes) -> bytes:
        at_header, at_entry = entries(content)[name]
        content = over(content, at_header + HEADER[header], value) if header else content
        return over(content, at_entry + ENTRY[entry], value) if entry else content

    return change


def ended(place: int, value: bytes) -> Change:
    """:return: a change of the last 22 bytes"""
    return lambda content: over(content, len(content) - 22 + place, value)


def written(act: Callable[[zipfile.ZipFile], None]) -> Builder:
    """:return: a builder that does something else to the archive when its members are in it"""

    def build(members: EnvAttributes, marker: Path) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
            act(archive)
        return file.getvalue()

    return build


def hidden(archive: zipfile.ZipFile) -> None:
    archive.writestr("evil.py", b"import os")
    archive.filelist.pop()


def filled(archive: zipfile.ZipFile) -> None:
    assert archive.fp is not None
    archive.fp.seek(archive.start_dir)
    archive.start_dir += archive.fp.write(b"import os")


def hidden_in_between(archive: zipfile.ZipFile) -> None:
    filled(archive)
    archive.writestr("best_model_0.zip", b"")


def commented(archive: zipfile.ZipFile) -> None:
    archive.comment = b"PK\x05\x06" + bytes(18)


def remarked(archive: zipfile.ZipFile) -> None:
    archive.filelist[0].comment = b"import os"


def renamed(archive: zipfile.ZipFile) -> None:
    """What Info-ZIP calls the name in Unicode, which some readers take in place of the name."""
    archive.filelist[0].extra = struct.pack("<2HBL", 0x7075, 9, 1, 0) + b"evil"


def cut(content: bytes) -> bytes:
    """A name that ends early for whoever reads it as C does; Python does so too."""
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("best_model_0.zip_.py", b"")
    return file.getvalue().replace(b"zip_.py", b"zip\x00.py")


def linked(members: EnvAttributes, marker: Path) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o120777 << 16 if name == "data" else 0
            archive.writestr(info, b"/etc/passwd" if name == "data" else content)
    return file.getvalue()


def overlapping(members: EnvAttributes, marker: Path) -> bytes:
    """The first member holds the header of the second, with a checksum that is right; nothing is counted twice but that."""
    names = list(members)
    content = write_archive(members)
    start, second = (entries(content)[name][0] for name in names[:2])
    longer = content[start + 30 + len(names[0]) : second + 30]
    told_of = struct.pack("<3L", zipfile.crc32(longer), len(longer), len(longer))
    return told(names[0], told_of, "checksum", "checksum")(content)


def twice(content: bytes) -> bytes:
    file = io.BytesIO(content)
    with warnings.catch_warnings(), zipfile.ZipFile(file, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("archive/data.pkl", archive.read("archive/data.pkl"))
    return file.getvalue()


def record(name: str, value: bytes) -> Change:
    """:return: a change of one record in torch's archive"""

    def change(content: bytes) -> bytes:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return write_archive({**{each: archive.read(each) for each in archive.namelist()}, name: value})

    return change


def in_place(make: Callable[[Path], bytes]) -> Builder:
    """:return: a builder that puts something else in place of weights"""
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
    """The directory says one thing, the header before a member another."""
    no_zip, pth = "is not a complete zip archive.*", "archive/data.pkl"
    checksum, name, flags = "CVE-2025-10156", "CVE-2025-1944", "CVE-2025-1945"
    for place, kind, first in (("", outer, "policy.pth"), (" inside", inner, pth)):
        where = f"'policy.pth'.*{'disagree|flags' if place else ''}" if place else no_zip
        other = first[:-1] + "x"
        yield case(
            f"checksum{place}",
            "a scanner that gives up",
            kind(told(first, bytes(4), "checksum" if not place else "", "checksum")),
            "Bad CRC-32" if not place else "Bad CRC-32|disagree",
            checksum,
        )
        yield case(f"name{place}", "two names", kind(told(first, other.encode(), "name")), f"{where}.*disagree", name)
        yield case(
            f"flag{place}", "a flag that readers differ in", kind(told(first, b"\x20\x08", "flags", "flags")), "flags", flags
        )
        yield case(
            f"flag of a header{place}", "encryption, for one reader", kind(told(first, b"\x01\x00", "flags")), "flags", flags
        )
        yield case(f"method of a header{place}", "two methods", kind(told(first, b"\x08\x00", "method")), "disagree")
        yield case(f"size of a header{place}", "two sizes", kind(told(first, b"\x05\x00\x00\x00", "size")), "disagree")
    strong = told("data", b"\x41\x00", entry="flags")
    yield case("strong encryption", "a password", outer(strong), "encrypted")
    yield case("patch", "a member that is a difference", outer(told("data", b"\x20\x00", entry="flags")), "flags", flags)
    yield case(
        "other disk", "a part that is elsewhere", outer(told("data", b"\x01\x00", entry="disk")), "unknown extra fields"
    )
    yield case("far header", "to read past the end", outer(told("data", b"\xff\xff\xff\x7f", entry="place")), no_zip)
    yield case(
        "two headers in one", "one content under two names", outer(told("data", struct.pack("<L", 40), entry="place")), no_zip
    )
    yield case("member within a member", "to be read twice", overlapping, "does not begin where", "CVE-2024-0450")
    yield case("hidden member", "a file that the directory lacks", written(hidden), "bytes between", "CVE-2025-54368")
    yield case(
        "hidden bytes", "code between the members", written(hidden_in_between), "does not begin where", "CVE-2025-54368"
    )
    yield case("bytes before the directory", "code after the members", written(filled), "bytes between")
    yield case("remark", "code in a remark", written(remarked), "unknown extra fields")
    yield case("second name", "another name for some readers", written(renamed), "unknown extra fields")
    yield case("end of a name", "another name for readers in C", outer(cut), "disagree about the member 'best_model_0.zip'")
    yield case("link", "a file of the reader's", linked, "'data' is not JSON")
    yield case("line in a name", "to write lines of its own", member("data\nall is well", b""), r"'data\\nall.*no model")
    yield case("capitals", "two members on some disks", member("DATA", b"{}"), "'DATA', which no model")
    yield case("folder", "a folder in place of a file", member("policy.pth/", b""), "whose name is a path")


def _ends() -> Cases:
    """The end of the directory says another thing than the directory."""
    other, comment = "the end of its directory is wrong", "CVE-2025-54368"
    yield case("comment", "another end in the comment", written(commented), f"{other}|not a complete zip", comment)
    yield case(
        "bytes after the end",
        "code after the end",
        outer(lambda content: content + b"import os"),
        f"{other}|not a complete zip",
    )
    yield case("fewer members", "a scanner that counts", outer(ended(8, b"\x01\x00\x01\x00")), other)
    yield case("more members", "a reader that counts", outer(ended(8, b"\xff\x00\xff\x00")), other)
    yield case("several disks", "parts that are elsewhere", outer(ended(4, b"\x01\x00")), other)
    yield case("short directory", "members for one reader only", outer(ended(12, b"\x10\x00\x00\x00")), "not a complete zip")
    locator = inner(lambda content: over(content, len(content) - 34, bytes(8)))
    yield case(
        "far end",
        "another end in 64 bits, elsewhere",
        locator,
        f"'policy.pth'.*({other}|orrupt|not in torch)",
        "CVE-2025-8291",
    )
    counted = inner(lambda content: over(content, len(content) - 98 + 24, b"\x01"))
    yield case("fewer records", "another count in 64 bits", counted, f"'policy.pth'.*({other}|orrupt|not in torch)")
    yield case("zip and tar", "a zip for one reader, a tar for another", outer(in_a_tar), "two archives", "CVE-2026-3219")
    yield case(
        "zip before tar",
        "the same, the other way about",
        lambda members, marker: write_archive(members) + tarred(pickle.dumps(Payload(marker))),
        f"{other}|not a complete zip",
        "CVE-2026-3219",
    )
    yield case("zip after zip", "two models in one", outer(lambda content: content + content), "two archives")


def _records() -> Cases:
    """Records of torch's archive, and other formats in its place."""
    none = "'policy.pth' is not in torch"
    yield case("record twice", "to be checked as one and read as the other", inner(twice), "'data.pkl' twice|does not begin")
    yield case("two folders", "one for each reader", inner(record("other/data.pkl", b"\x80\x02}.")), "'data.pkl' twice")
    yield case("record elsewhere", "numbers from another folder", inner(record("other/data/99", bytes(4))), "two folders")
    yield case("order of bytes", "an order that is none", inner(record("archive/byteorder", b"middle")), "order of bytes")
    yield case("version", "a format of the future", inner(record("archive/version", b"999\n")), "version of torch")
    yield case(
        "model in a model",
        "a reader that goes ever deeper",
        lambda m, _: write_archive({**m, "policy.pth": write_archive(m)}),
        none,
    )
    yield case("objects", "code in an array of objects", in_place(objects), none, "CVE-2019-6446")
    yield case("archive of objects", "the same in an archive", in_place(lambda m: objects(m, np.savez)), none, "CVE-2019-6446")
    yield case("7z", "a format that a scanner unpacks", in_place(lambda _: b"7z\xbc\xaf\x27\x1c" + bytes(99)), none)
    yield case("gzip", "a pickle that is compressed", in_place(lambda m: gzip.compress(pickle.dumps(Payload(m)))), none)
    yield case(
        "code for data",
        "a script that is called a model",
        in_place(lambda _: b"#!/usr/bin/env python\n"),
        none,
        "CVE-2025-10155",
    )


def zips() -> Cases:
    yield from _headers()
    yield from _ends()
    yield from _records()
