"""
Malicious pickles in torch's format, written instruction by instruction, against torch's ``weights_only`` reader, ``pickle``
and scanners that examine a pickle without reading it. The numbers name the advisories of PyTorch and of the scanners
picklescan and fickling that have published many of them.
"""

import pickle
import struct
from pathlib import Path

from tampering import Builder, Cases, Members, Payload, case, with_pickle

PTH = "'policy.pth' carries a pickle"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<L", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    encoded = pickle.encode_long(value)
    return b"\x8a" + bytes([len(encoded)]) + encoded


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def several(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def numbers(values: tuple[int, ...]) -> bytes:
    return several(*map(number, values))


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + several(*arguments) + b"R"


def storage(kind: str = "FloatStorage", key: str = "0", device: str = "cpu", count: int = 24) -> bytes:
    return several(text("storage"), name("torch", kind), text(key), text(device), number(count)) + b"Q"


ORDERED = name("collections", "OrderedDict")
NO_HOOKS = call(ORDERED)
FALSE = b"\x89"


def tensor(
    numbers_of: bytes | None = None,
    *more: bytes,
    offset: int = 0,
    size: bytes = numbers((8, 3)),
    stride: bytes = numbers((3, 1)),
    hooks: bytes = NO_HOOKS,
) -> bytes:
    whole = storage() if numbers_of is None else numbers_of
    return call(name("torch._utils", "_rebuild_tensor_v2"), whole, number(offset), size, stride, FALSE, hooks, *more)


def weights(pickled: bytes, record: bytes = bytes(96), start: bytes = b"\x80\x02", end: bytes = b".") -> Builder:
    """:return: a builder of a file whose weights are this pickle, with one record of 24 numbers"""
    return lambda members, marker: with_pickle(members, start + pickled + end, {"archive/data/0": record})


def _memory() -> Cases:
    """:return: attacks on the memory of the reader"""
    cve = "CVE-2026-24747"
    for title, tries, pickled, says, advisory in (
        ("item of a tensor", "to write beyond a tensor", tensor() + number(99) + number(1) + b"s", "SETITEMS on Tensor", cve),
        (
            "items of a storage",
            "to write beyond a storage",
            storage() + b"(" + number(99) + number(1) + b"u",
            "SETITEMS on Storage",
            cve,
        ),
        ("long storage", "to read memory after the storage", tensor(storage(count=10**6)), "1,000,000 numbers.*96 bytes", cve),
        ("short storage", "contradicting sizes", tensor(storage(count=2)), "2 numbers.*96 bytes", cve),
        ("negative storage", "a negative size", tensor(storage(count=-24)), "-24 numbers", cve),
        ("endless storage", "an integer overflow", tensor(storage(count=2**1000)), "numbers of the type torch.float32", ""),
        ("missing storage", "numbers that are not in the file", tensor(storage(key="7")), "'7', which has no record", ""),
        (
            "path to a storage",
            "to read the pickle as numbers",
            tensor(storage(key="../data.pkl")),
            "pkl', which has no record",
            "",
        ),
        (
            "storage of two types",
            "to read numbers as another type",
            b"]" + tensor() + b"a" + tensor(storage("IntStorage")) + b"a",
            "two types",
            "",
        ),
        ("device", "a device of the author's choice", tensor(storage(device="/dev/sda")), "on '/dev/sda'", ""),
        ("tensor as it was", "to change the memory of a tensor", tensor() + several(storage()) + b"b", "BUILD on Tensor", ""),
        ("offset", "to read memory after the storage", tensor(offset=24), "up to number 48 of 24", ""),
        (
            "wide stride",
            "to read memory far from the storage",
            tensor(stride=numbers((2**40, 1))),
            "up to number 7,696",
            "PyTorch issue 184652",
        ),
        ("negative stride", "to read memory before the storage", tensor(stride=numbers((-3, 1))), "not counts", ""),
        ("negative size", "an integer overflow", tensor(size=numbers((-8, 3))), "not counts", ""),
        ("negative offset", "to read memory before the storage", tensor(offset=-1), "not counts", ""),
        ("size of a truth value", "a bool in place of a size", tensor(size=several(b"\x88", number(3))), "not counts", ""),
        ("sizes without strides", "to read past a list", tensor(stride=numbers((3,))), "2 sizes and 1 strides", ""),
        ("size as a list", "a list that changes later", tensor(size=b"]"), "not a view of a storage", ""),
        (
            "overflowing sizes",
            "a number of elements beyond 64 bits",
            tensor(size=numbers((2**40, 2**40)), stride=numbers((0, 0))),
            r"size \(1099511627776",
            "",
        ),
        (
            "many dimensions",
            "more dimensions than torch supports",
            tensor(size=numbers((1,) * 10**5), stride=numbers((1,) * 10**5)),
            "100,000 sizes",
            "",
        ),
        (
            "hooks",
            "to have hooks called with each gradient",
            tensor(hooks=NO_HOOKS + text("a") + text("b") + b"s"),
            "with hooks",
            "",
        ),
        ("seventh argument", "to set bits of a tensor", tensor(None, b"}" + text("conj") + b"\x88s"), "other arguments", ""),
        ("tensor of a text", "to crash the reader", tensor(text("x")), "not a view of a storage", ""),
        (
            "parameter of a text",
            "to crash the reader",
            call(name("torch._utils", "_rebuild_parameter"), text("x"), FALSE, NO_HOOKS),
            "other arguments",
            "",
        ),
        (
            "storage that is called",
            "to allocate a terabyte",
            call(name("torch", "FloatStorage"), number(10**12)),
            "torch FloatStorage",
            "",
        ),
        ("outer number", "an object of an older format", number(5) + b"Q", "not a storage of tensors", ""),
        ("outer text", "an object of another program", text("storage") + b"Q", "not a storage of tensors", ""),
        (
            "outer module",
            "the source code of a module",
            several(text("module"), name("torch", "FloatStorage"), text("a.py"), text("import os"), number(1)) + b"Q",
            "not a storage of tensors",
            "",
        ),
        ("outer line", "an object that is named in a line of text", b"P0\n", "PERSID", ""),
        (
            "part of a storage",
            "to read past a tuple",
            several(text("storage"), text("0")) + b"Q",
            "not a storage of tensors",
            "",
        ),
    ):
        yield case(title, tries, weights(pickled), f"{PTH}.*{says}", advisory)
    yield case(
        "truth values",
        "a bool that is neither true nor false, which C++ does not expect",
        weights(tensor(storage("BoolStorage")), b"\xff" * 24),
        f"{PTH}.*neither true nor false",
    )


def _instructions() -> Cases:
    """:return: pickles with instructions that ``torch.save`` never writes"""
    shell = text("os") + text("system") + b"\x93"
    for title, tries, pickled, says, advisory in (
        ("new object", "to create an object without its constructor", name("torch", "device") + b")\x81", "torch device", ""),
        ("new parameter", "to create an object without its constructor", ORDERED + b")\x81", "NEWOBJ", ""),
        ("new object with names", "to create an object without its constructor", ORDERED + b")}\x92", "NEWOBJ_EX", ""),
        ("old instance", "to run code by an instruction of protocol 0", b"(" + text("true") + b"ios\nsystem\n", "INST", ""),
        (
            "hidden call",
            "to run code and drop the result",
            b"(" + ORDERED + b"o0}",
            "the instruction OBJ",
            "GHSA-mxhj-88fx-4pcv",
        ),
        ("name from the stack", "a function whose name is on the stack", shell, "STACK_GLOBAL", ""),
        (
            "names from the notes",
            "a function whose name is in the memo",
            text("os") + b"q\x01" + text("system") + b"q\x02h\x01h\x02\x93",
            "STACK_GLOBAL",
            "",
        ),
        ("extension code", "a function named by a number", b"\x82\x01", "EXT1", ""),
        ("long extension code", "a function named by a number", b"\x84\xff\xff\xff\x7f", "EXT4", ""),
        ("dup bomb", "to double the stack with each instruction", b"](" + b"2" * 1000 + b"t", "the instruction DUP", ""),
        ("unused import", "to import a module and drop it", name("antigravity", "fly") + b"0}", "antigravity fly", ""),
        ("byte array", "to allocate an exabyte", b"\x96" + struct.pack("<Q", 2**60), "BYTEARRAY8|damaged", ""),
        ("long bytes", "to allocate an exabyte", b"\x8e" + struct.pack("<Q", 2**62), "BINBYTES8|damaged", ""),
        ("long text", "to allocate 4 GB", b"X\xff\xff\xff\xff", "damaged", ""),
        ("buffer from outside", "a buffer of the caller", b"\x97", "NEXT_BUFFER", ""),
        (
            "frames",
            "instructions that look like bytes",
            b"\x95" + struct.pack("<Q", 2) + b"B\x07\x01\x00\x00" + name("os", "system").ljust(263, b"N"),
            "FRAME",
            "CPython issue 154848",
        ),
        ("bytes of protocol 0", "a text whose encoding the reader chooses", b"S'a'\n", "STRING", ""),
        (
            "endless number in a pickle",
            "to take quadratic time for a long number",
            b"L" + b"9" * 10**5 + b"L\n",
            "LONG|damaged",
            "CVE-2020-10735",
        ),
        ("text that is none", "to crash the reader", b"X\x02\x00\x00\x00\xff\xfe", "damaged", ""),
        ("name that is none", "to crash the reader", b"c\xff\n\xfe\n", "damaged", ""),
        (
            "code before the damage",
            "to run code, and to stop a scanner after it",
            name("os", "system") + b"\xff\xff",
            "os system",
            "",
        ),
        ("note that is not there", "to stop a scanner", b"h\x07", "memo entry 7", ""),
        ("note of nothing", "to put a missing value into the memo", b"q\x01}", "puts a missing value into the memo", ""),
        ("missing mark", "to crash the reader", b"t", "missing mark", ""),
        ("mark that stays", "two stacks", b"}(", "one value", ""),
        ("no value", "to crash the reader", b"", "one value", ""),
        ("two values", "two results, for two readers", b"}}", "one value", ""),
        ("missing value", "to crash the reader", b"\x87", "missing value", ""),
        ("key without a value", "to crash the reader", b"}(" + text("a") + b"u", "key without a value", ""),
        ("list as a key", "to crash the reader", b"}]" + number(1) + b"s", "key that is a list", ""),
        ("tensor as a key", "a key that compares as a tensor", b"}" + tensor() + number(1) + b"s", "key that is a Tensor", ""),
        ("deep key", "to overflow the C stack", b"})" + b"\x85" * 10**5 + number(1) + b"s", "key that is a tuple", ""),
        (
            "keys of one hash",
            "to take quadratic time for equal hashes",
            b"}(" + b"".join(number(k * (2**61 - 1)) + b"N" for k in range(1, 40_000)) + b"u",
            "not a text or small number",
            "CVE-2012-1150",
        ),
        ("append to a dict", "to call a method of another type", b"}" + number(1) + b"a", "APPENDS on dict", ""),
        (
            "append to a tensor",
            "to call a method of another type",
            tensor() + b"(" + number(1) + b"e",
            "APPENDS on Tensor",
            "",
        ),
        ("attributes", "to replace methods of a dict", NO_HOOKS + b"}" + text("items") + b"Nsb", "other attributes", ""),
        ("slots", "to set attributes as slots", NO_HOOKS + b"N}" + text("a") + b"Ns\x86b", "other attributes", ""),
        ("state of a dict", "to set attributes of a dict", b"}}b", "BUILD on dict", ""),
        ("call of a text", "to crash the reader", text("a") + b")R", "not a function", ""),
        ("list of arguments", "to crash the reader", ORDERED + b"]R", "not a function", ""),
        ("dict with arguments", "a class with arguments", call(ORDERED, b"]"), "collections OrderedDict with other", ""),
        ("million of lists", "a gigabyte of lists in a few megabytes", b"(" + b"]" * 2**21 + b"t", "instructions", ""),
    ):
        yield case(title, tries, weights(pickled), f"{PTH}.*{says}", advisory)
    for title, value, says in (
        ("name as a value", name("torch", "FloatStorage"), "is a Name, neither a tensor"),
        ("storage as a value", storage(), "is a Storage, neither a tensor"),
    ):
        yield case(title, "a value that is not a tensor", weights(b"}" + text("a") + value + b"s"), says)
    yield case("circle", "a list that holds itself", weights(b"]q\x01h\x01a"), "room for|RecursionError")
    yield case("deep list", "to overflow the stack", weights(b"]" * 10**5 + b"a" * (10**5 - 1)), "room for|RecursionError")
    yield case("protocol", "an unknown protocol", weights(b"}", start=b"\x80\xff"), f"{PTH}.*protocol 255")
    yield case("protocol 5", "instructions of a later protocol", weights(b"}", start=b"\x80\x05"), f"{PTH}.*protocol 5")
    yield case("no end", "a pickle without an end", weights(b"}", end=b""), f"{PTH}.*damaged")

    def second(members: Members, marker: Path) -> bytes:
        return with_pickle(members, b"\x80\x02}." + pickle.dumps(Payload(marker), 2))

    yield case("second pickle", "code in a second pickle after the end", second, f"{PTH}.*bytes follow its end")


def _names() -> Cases:
    """:return: calls of functions that published files used; scanners' lists of forbidden functions lacked each of them"""
    for title, module, attribute, tries, advisory in (
        ("pip", "pip", "main", "to install a package", "CVE-2025-1716"),
        ("shell of torch", "torch.utils.collect_env", "run", "a shell started by torch", "GHSA-f745-w6jp-hpxx"),
        (
            "compiler of torch",
            "torch._inductor.codecache",
            "compile_file",
            "a program compiled by torch",
            "GHSA-655q-fx9r-782v",
        ),
        ("exec of torch", "torch.jit.unsupported_tensor_ops", "execWrapper", "exec called by torch", "GHSA-vr7h-p6mm-wpmh"),
        ("guards of torch", "torch._dynamo.guards", "GuardBuilder.get", "eval called by torch", "GHSA-86cj-95qr-2p4f"),
        ("decoder of torch", "torch.utils.data.datapipes.utils.decoder", "basichandlers", "a pickle", "GHSA-h3qp-7fh3-f8h4"),
        ("settings of torch", "torch.utils._config_module", "ConfigModule.load_config", "a pickle", "GHSA-vv6j-3g6g-2pvj"),
        ("torch.load", "torch", "load", "to load another file without checks", ""),
        ("type of a tensor", "torch._tensor", "_rebuild_from_type_v2", "a call of any function", "PyTorch pull 169570"),
        ("subclass of a tensor", "torch._utils", "_rebuild_wrapper_subclass", "a class of torch", ""),
        ("state of a parameter", "torch._utils", "_rebuild_parameter_with_state", "to set attributes", ""),
        ("quantized tensor", "torch._utils", "_rebuild_qtensor", "unchecked strides", "PyTorch issue 184652"),
        ("nested tensor", "torch._utils", "_rebuild_nested_tensor", "unchecked sizes", ""),
        ("array as a tensor", "torch._utils", "_rebuild_device_tensor_from_numpy", "an array of objects", ""),
        ("raw storage", "torch.storage", "UntypedStorage", "to allocate a terabyte", ""),
        ("codec", "_codecs", "encode", "any codec", ""),
        ("counter", "collections", "Counter", "a dict that counts", ""),
        ("array of objects", "numpy._core.multiarray", "_reconstruct", "objects in an array", "CVE-2019-6446"),
        ("compiler of numpy", "numpy.f2py.crackfortran", "getlincoef", "eval called by NumPy", "GHSA-r8g5-cgf2-4m4m"),
        ("part of a module", "asyncio.unix_events", "_UnixSubprocessTransport._start", "a shell", "CVE-2025-10157"),
        ("dotted name", "pathlib", "os.system", "a module reached through another", "GHSA-5j3x-jp52-966f"),
        ("dotted name of torch", "torch._utils", "_rebuild_tensor_v2.__globals__", "attributes of an allowed name", ""),
        ("name with a space", "torch", "FloatStorage system", "a name that looks like two", ""),
        ("finder", "pkgutil", "resolve_name", "any function by its name", "GHSA-vvpj-8cmc-gx39"),
        ("locator", "pydoc", "locate", "any function by its name", "CVE-2026-22608"),
        ("getter", "builtins", "getattr", "any function by its name", "GHSA-h4rm-mm56-xf63"),
        ("caller", "operator", "methodcaller", "any method", "GHSA-955r-x9j8-7rhh"),
        ("partial call", "functools", "partial", "a call in disguise", ""),
        ("pickle in a pickle", "pickle", "loads", "a pickle that scanners do not see", ""),
        ("byte code", "marshal", "loads", "byte code", "GHSA-565g-hwwr-4pp3"),
        ("library", "ctypes", "CDLL", "a library of C", "GHSA-4675-36f9-wf6r"),
        ("other interpreter", "_interpreters", "create", "code in another interpreter", "GHSA-6ggj-6f2q-f7mx"),
        ("profiler", "cProfile", "runctx", "exec called by a profiler", "GHSA-9w88-8rmg-7g2p"),
        ("terminal", "pty", "spawn", "a shell", "GHSA-r7v6-mfhq-g3m2"),
        ("identity", "uuid", "_get_command_stdout", "a shell", "CVE-2026-56315"),
        ("file", "distutils.file_util", "write_file", "to write a file", "GHSA-m273-6v24-x4m4"),
        ("log", "logging", "FileHandler", "to write a file", ""),
        ("certificate", "ssl", "get_server_certificate", "to send data to a server", "CVE-2025-46417"),
        ("scanner", "fickling.hook", "remove_hook", "to switch a scanner off", ""),
        ("modules", "sys", "modules", "to replace a module", ""),
    ):
        yield case(title, tries, weights(call(name(module, attribute))), f"{PTH}.*{module} {attribute}", advisory)


def pickles() -> Cases:
    yield from _memory()
    yield from _instructions()
    yield from _names()
