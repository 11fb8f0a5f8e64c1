"""Protobuf's wire format, as much of it as OpenTofu's plugin protocol needs here, without generated code."""

from __future__ import annotations


def wrap(place: int, value: bytes) -> bytes:
    """A field of bytes, a string or a message."""
    return _varint(place << 3 | 2) + _varint(len(value)) + value


def number(place: int, value: int) -> bytes:
    """A field of a number or a truth; nothing for 0, which is what a missing one means."""
    return _varint(place << 3) + _varint(value) if value else b""


def field(message: bytes, place: int) -> bytes:
    """The last field of bytes at a place of a message, empty when there is none. Raises ValueError for other wire types
    than numbers and bytes."""
    found, at = b"", 0
    while at < len(message):
        key, at = _read(message, at)
        if key & 7 not in (0, 2):
            raise ValueError(f"field {key >> 3} has wire type {key & 7}, expected 0 or 2")
        value, at = _read(message, at)
        if key & 7 == 2:
            if key >> 3 == place:
                found = message[at : at + value]
            at += value
    return found


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    return bytes([*made, value])


def _read(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
