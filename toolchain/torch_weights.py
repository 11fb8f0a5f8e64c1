"""Reads the weights in a file of torch's old format without torch, and without running anything that the file says.

Such a file is five pickles and then the numbers. `pickletools` names a pickle's opcodes; the few that weights need are
followed here, and any other, or any name that weights do not need, is refused. The form is that of torch 1.5
(`torch/serialization.py`, `_legacy_load`).
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from plumbline.errors import PlumblineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
TYPES = {"torch FloatStorage": "<f4", "torch LongStorage": "<i8"}
TENSOR = "torch._utils _rebuild_tensor_v2"
NAMES = {*TYPES, TENSOR, "collections OrderedDict"}
"""All that may be named in the file; none of it is imported."""

CONSTANTS: Mapping[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
LITERALS = {"BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1"}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class WeightsError(PlumblineError):
    """The file is no file of weights, or says more than weights need."""


class Tensor(NamedTuple):
    """Where a tensor's numbers are, from which on, and how. A storage: ("storage", type's name, key, …)."""

    storage: tuple[Any, ...]
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(file: BinaryIO) -> dict[str, NDArray[Any]]:
    """Every tensor by its name. Raises WeightsError."""
    import numpy as np

    magic, protocol, _, tensors, keys = (_value(file) for _ in range(5))
    if (magic, protocol) != (MAGIC, PROTOCOL):
        raise WeightsError(f"expected torch's old format, protocol {PROTOCOL}; found {magic!r}, {protocol!r}")
    types = {tensor.storage[2]: TYPES[tensor.storage[1]] for tensor in tensors.values()}
    numbers = {}
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        kind = np.dtype(types[key])
        numbers[key] = np.frombuffer(file.read(count * kind.itemsize), kind)
    return {
        name: np.lib.stride_tricks.as_strided(
            numbers[tensor.storage[2]][tensor.offset :],
            tensor.shape,
            [step * numbers[tensor.storage[2]].itemsize for step in tensor.strides],
        ).copy()
        for name, tensor in tensors.items()
    }


def _value(file: BinaryIO) -> Any:
    """What the next pickle in the file holds."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        taken = stack[start:]
        del stack[start:]
        return taken

    for opcode, given, _ in pickletools.genops(file):
        name = opcode.name
        if name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in LITERALS or name == "GLOBAL":
            if name == "GLOBAL" and given not in NAMES:
                raise WeightsError(
                    f"the file names {given}, expected {', '.join(sorted(NAMES))} alone; nothing was run"
                )
            stack.append(given)
        elif name in TUPLES:
            stack[-TUPLES[name] :] = [tuple(stack[-TUPLES[name] :])]
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            stack.append({} if name == "EMPTY_DICT" else [])
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[given] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[given])
        elif name == "APPENDS":
            items = since_mark()
            stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            pairs = since_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            stack[-1].update(zip(pairs[::2], pairs[1::2], strict=True))
        elif name == "REDUCE":  # a call: of a tensor's maker, or of an empty OrderedDict
            arguments, called = stack.pop(), stack.pop()
            stack.append(Tensor(*arguments[:4]) if called == TENSOR else {})
        elif name == "BUILD":
            stack.pop()  # versions of torch's modules
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "BINPERSID"):  # a storage's persistent id stays the tuple that it is
            raise WeightsError(f"the file has the opcode {name}, which no weights need; nothing was run")
    raise WeightsError("the file ends inside a pickle")
