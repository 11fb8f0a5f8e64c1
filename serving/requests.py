"""What the requests of every product's predictor have: an id, tensors, and values that a message may show."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Protocol

from serving.errors import Refused

LONGEST_ID = 128
"""Characters of a request's id."""


class Tensor(Protocol):
    """The part of KServe's InferInput that is read here."""

    name: str
    datatype: str
    shape: list[int]
    data: Any
    _raw_data: bytes | None


class TensorRequest(Protocol):
    """The part of KServe's InferRequest that is read here."""

    id: str | None
    inputs: list[Tensor]
    request_outputs: list[Any] | None


def request_id(of_body: object, headers: Mapping[str, str] | None) -> str:
    """The id that names this request: the v2 `id`, else the x-request-id header, else a new one.

    Raises Refused (400) for an id that could not be repeated in a header: over 128 characters or not printable ASCII.
    """
    given = of_body or (headers or {}).get("x-request-id")
    if not given:
        return str(uuid.uuid4())
    if not isinstance(given, str) or not is_plain(given):
        raise Refused(400, f"request id: expected 1 to 128 printable ASCII characters, found {shown(given)}")
    return given


def is_plain(text: str) -> bool:
    """True for 1 to 128 printable ASCII characters, the first and last of which are no spaces."""
    return 0 < len(text) <= LONGEST_ID and text.isascii() and text.isprintable() and text == text.strip()


def kind(value: object) -> str:
    """What a JSON value is, in words."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", float: "a float", bytes: "bytes"}
    return "null" if value is None else names.get(type(value), f"a value of type {type(value).__name__}")


def shown(value: object) -> str:
    """A value as it may stand in a message: printable ASCII, at most 80 characters."""
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list of thousands of levels
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 80 else f"{text[:77]}..."
