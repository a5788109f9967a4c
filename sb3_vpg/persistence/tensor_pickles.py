"""
Read the pickles that ``torch.save`` writes for tensors and plain values, without ``torch.load`` and without ``pickle``.

Torch's own ``weights_only`` reader executes more instructions than such files need, and had security holes: it ran code
(CVE-2025-32434), wrote beyond a tensor's memory and trusted a wrong element count (CVE-2026-24747). The reader below accepts
only what ``torch.save`` writes for the state of a module or of an optimiser. It imports nothing, calls nothing that the file
names, and checks each size against the bytes in the file before it creates a tensor.
"""

import math
import pickletools
import re
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch as th

# Enough for the state of 10,000 tensors; so many instructions take less than a second and, as empty lists, 20 MB
_MOST_INSTRUCTIONS = 2**18
_MOST_DIMENSIONS = 64
_LARGEST = 2**63 - 1
# Larger integers can be chosen to have equal hashes, and a dict of such keys takes quadratic time
_LARGEST_KEY = 2**60
_DICT, _TENSOR, _PARAMETER = "collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"
DTYPES = {
    "torch DoubleStorage": th.float64,
    "torch FloatStorage": th.float32,
    "torch HalfStorage": th.float16,
    "torch BFloat16Storage": th.bfloat16,
    "torch LongStorage": th.int64,
    "torch IntStorage": th.int32,
    "torch ShortStorage": th.int16,
    "torch CharStorage": th.int8,
    "torch ByteStorage": th.uint8,
    "torch BoolStorage": th.bool,
    "torch ComplexDoubleStorage": th.complex128,
    "torch ComplexFloatStorage": th.complex64,
}
"""The types of tensors that a file may hold, by the names of their storages."""
# Any device is accepted, since all tensors are read on the CPU
_DEVICE = re.compile(r"[a-z]+(:\d+)?")


class PickleError(ValueError):
    """A pickle that ``torch.save`` does not write for tensors and plain values; the text says which part of it."""


class Name(NamedTuple):
    """A function or type that the file names and the reader knows, as ``"module name"``."""

    text: str


class Storage(NamedTuple):
    """The memory that tensors are views of: its type and its numbers."""

    kind: Name
    values: th.Tensor


def read_pickle(records: dict[str, bytes]) -> Any:
    """
    :param records: of torch's archive, by their names without the folder: ``data.pkl``, ``data/0`` and so on
    :return: the value that ``torch.load`` would return, with all tensors on the CPU and each parameter as a tensor
    :raises PickleError: for an instruction, a name or a number that ``torch.save`` does not write
    """
    reader, content, last = _Reader(records), records["data.pkl"], -1
    try:
        for count, (opcode, argument, place) in enumerate(pickletools.genops(content)):
            if count == _MOST_INSTRUCTIONS:
                raise PickleError(f"it has more than {_MOST_INSTRUCTIONS:,} instructions")
            reader.execute(opcode.name, argument)
            last = place or 0
    except PickleError:
        raise
    except ValueError as error:
        raise PickleError(f"it is damaged ({error})") from error
    if last + 1 != len(content):
        raise PickleError(f"{len(content) - last - 1:,} bytes follow its end")
    return reader.result()


class _Reader:
    """
    The stack, the marks and the memo of a pickle.

    :param records: see ``read_pickle``
    """

    def __init__(self, records: dict[str, bytes]) -> None:
        self.records = records
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def execute(self, name: str, argument: Any) -> None:
        """Execute the instruction ``name``."""
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _NEW:
            self.stack.append(_NEW[name]())
        elif name in _INSTRUCTIONS:
            _INSTRUCTIONS[name](self, argument)
        else:
            raise PickleError(f"the instruction {name}")

    def result(self) -> Any:
        if self.marked or len(self.stack) != 1:
            raise PickleError("it does not end with one value")
        return self.stack[0]

    def pop(self, count: int) -> list[Any]:
        """:return: the last ``count`` values, the oldest first"""
        if len(self.stack) < count:
            raise PickleError("it takes a missing value")
        items, self.stack[-count:] = self.stack[-count:], []
        return items

    def pop_marked(self) -> list[Any]:
        if not self.marked:
            raise PickleError("it takes a missing mark")
        items, self.stack = self.stack, self.marked.pop()
        return items

    def top(self, what: str, *types: type) -> Any:
        """:return: the value that the instruction ``what`` will change, which must be of one of these types"""
        if not self.stack or type(self.stack[-1]) not in types:
            found = type(self.stack[-1]).__name__ if self.stack else "nothing"
            raise PickleError(f"{what} on {found}")
        return self.stack[-1]

    def protocol(self, argument: int) -> None:
        if argument != 2:
            raise PickleError(f"the protocol {argument}")

    def mark(self, _: None) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def put(self, argument: int) -> None:
        if not self.stack:
            raise PickleError("it puts a missing value into the memo")
        self.memo[argument] = self.stack[-1]

    def get(self, argument: int) -> None:
        if argument not in self.memo:
            raise PickleError(f"it gets the memo entry {argument}, which is missing")
        self.stack.append(self.memo[argument])

    def tuple_of(self, items: list[Any]) -> None:
        self.stack.append(tuple(items))

    def extend(self, items: list[Any]) -> None:
        self.top("APPENDS", list).extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.top("SETITEMS", dict, OrderedDict)
        if len(items) % 2:
            raise PickleError("a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not (type(key) in (str, float, bool, type(None)) or (type(key) is int and abs(key) <= _LARGEST_KEY)):
                raise PickleError(f"a dict with a key that is a {type(key).__name__}, not a text or small number")
            target[key] = value

    def build(self, _: None) -> None:
        """Set the attribute ``_metadata`` of a module's state dict: the versions of its layers."""
        (state,) = self.pop(1)
        target = self.top("BUILD", OrderedDict)
        if type(state) is not dict or state.keys() - {"_metadata"}:
            raise PickleError("BUILD with other attributes than _metadata")
        target.__dict__.update(state)

    def name(self, argument: str) -> None:
        if argument not in (_DICT, _TENSOR, _PARAMETER, *DTYPES):
            raise PickleError(argument[:200])
        self.stack.append(Name(argument))

    def call(self, _: None) -> None:
        name, arguments = self.pop(2)
        if type(name) is not Name or type(arguments) is not tuple:
            raise PickleError("a call of something that is not a function")
        if name.text == _DICT and len(arguments) == 0:
            self.stack.append(OrderedDict())
        elif name.text == _TENSOR and len(arguments) == 6:
            self.stack.append(_tensor(*arguments))
        elif name.text == _PARAMETER and len(arguments) == 3 and type(arguments[0]) is th.Tensor:
            self.stack.append(arguments[0])
        else:
            raise PickleError(f"a call of {name.text} with other arguments than torch's")

    def storage(self, _: None) -> None:
        """Push the storage that a persistent id names."""
        (named,) = self.pop(1)
        if type(named) is not tuple or [type(part) for part in named] != [str, Name, str, str, int] or named[0] != "storage":
            raise PickleError("a persistent id that is not a storage of tensors")
        _, kind, key, device, count = named
        if kind.text not in DTYPES or not _DEVICE.fullmatch(device):
            raise PickleError(f"a storage of {kind.text[:80]} on {device[:80]!r}")
        storage = self.storages.get(key)
        if storage is None:
            storage = self.storages[key] = Storage(kind, self._values(DTYPES[kind.text], key, count))
        if storage.kind != kind or len(storage.values) != count:
            raise PickleError(f"the storage {key} with two types or sizes")
        self.stack.append(storage)

    def _values(self, dtype: th.dtype, key: str, count: int) -> th.Tensor:
        record = self.records.get(f"data/{key}")
        if record is None or count < 0 or count * dtype.itemsize != len(record):
            held = "no record" if record is None else f"a record of {len(record):,} bytes"
            raise PickleError(f"{count:,} numbers of the type {dtype} in the storage {key[:80]!r}, which has {held}")
        if dtype is th.bool and record.translate(None, b"\x00\x01"):
            raise PickleError(f"bools in the storage {key} that are neither true nor false")
        if not record:
            return th.empty(0, dtype=dtype, device="cpu")
        values = th.frombuffer(bytearray(record), dtype=dtype).clone()  # so that torch aligns the memory
        if self.records.get("byteorder", b"little") != sys.byteorder.encode():
            values.untyped_storage().byteswap(dtype)  # type: ignore[no-untyped-call]  # torch's has no types
        return values


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any) -> th.Tensor:
    """See ``torch._utils._rebuild_tensor_v2``. ``requires_grad`` is ignored, since weights are copied into a model."""
    if type(storage) is not Storage or type(size) is not tuple or type(stride) is not tuple:
        raise PickleError("a tensor that is not a view of a storage")
    if type(requires_grad) is not bool or type(hooks) is not OrderedDict or hooks:
        raise PickleError("a tensor with hooks")
    if len(size) != len(stride) or len(size) > _MOST_DIMENSIONS:
        raise PickleError(f"a tensor with {len(size):,} sizes and {len(stride):,} strides")
    if any(type(number) is not int or not 0 <= number <= _LARGEST for number in (offset, *size, *stride)):
        raise PickleError("a tensor whose sizes, strides or offset are not counts")
    # One after the last number of the view
    end = offset + (1 + sum((number - 1) * step for number, step in zip(size, stride, strict=True)) if 0 not in size else 0)
    if end > len(storage.values) or math.prod(size) > _LARGEST:
        raise PickleError(f"a tensor of the size {size[:9]}, up to number {end:,} of {len(storage.values):,}")
    return storage.values.as_strided(size, stride, offset)


_VALUES = frozenset(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"))
_NEW: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_INSTRUCTIONS: dict[str, Callable[[_Reader, Any], None]] = {
    "PROTO": _Reader.protocol,
    "STOP": lambda reader, _: None,
    "MARK": _Reader.mark,
    "BINPUT": _Reader.put,
    "LONG_BINPUT": _Reader.put,
    "BINGET": _Reader.get,
    "LONG_BINGET": _Reader.get,
    "TUPLE": lambda reader, _: reader.tuple_of(reader.pop_marked()),
    "TUPLE1": lambda reader, _: reader.tuple_of(reader.pop(1)),
    "TUPLE2": lambda reader, _: reader.tuple_of(reader.pop(2)),
    "TUPLE3": lambda reader, _: reader.tuple_of(reader.pop(3)),
    "APPEND": lambda reader, _: reader.extend(reader.pop(1)),
    "APPENDS": lambda reader, _: reader.extend(reader.pop_marked()),
    "SETITEM": lambda reader, _: reader.set_items(reader.pop(2)),
    "SETITEMS": lambda reader, _: reader.set_items(reader.pop_marked()),
    "BUILD": _Reader.build,
    "GLOBAL": _Reader.name,
    "REDUCE": _Reader.call,
    "BINPERSID": _Reader.storage,
}
