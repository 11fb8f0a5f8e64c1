"""Protobuf's wire format: what is written can be read, by protobuf's own library too."""

from __future__ import annotations

import pytest
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from toolchain.protobuf import field, number, wrap


@given(st.integers(1, 2000), st.binary(max_size=400), st.integers(0, 2**40))
def test_a_field_is_found_among_others(place: int, value: bytes, other: int) -> None:
    message = number(place + 1, other) + wrap(place, value) + wrap(place + 2, b"more")
    assert field(message, place) == value
    assert field(message, place + 3) == b""


@given(st.integers(0, 2**33), st.integers(0, 999_999_999), st.text(max_size=200))
def test_protobuf_reads_what_is_written(seconds: int, nanos: int, text: str) -> None:
    assert Timestamp.FromString(number(1, seconds) + number(2, nanos)) == Timestamp(seconds=seconds, nanos=nanos)
    assert Value.FromString(wrap(3, text.encode())) == Value(string_value=text)
    assert field(Value(string_value=text).SerializeToString(), 3) == text.encode()


def test_a_field_that_is_neither_number_nor_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="field 2 has wire type 1, expected 0 or 2"):
        field(Value(number_value=1.5).SerializeToString(), 3)
