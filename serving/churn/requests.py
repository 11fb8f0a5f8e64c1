"""What a prediction request may hold: customer ids, nothing else. Anything else is refused by name, before any work."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Protocol

from serving.errors import Refused

KEY = "customer_id"
MOST = 1000
"""Customers in one request: some 0.1 s of work. More belong in a batch job over the lake."""

LARGEST = 2**63 - 1
LONGEST_ID = 128
"""Characters of a request's id."""

OUTPUTS = {"churn_probability": "FP64", "features_age_seconds": "FP64", "release_id": "INT64", "missing": "BYTES"}
"""The tensors of a v2 answer, one row a customer, in the order asked; `missing` is a comma-separated list of names."""

V1_SHAPE = f'{{"instances": [{{"{KEY}": 123}}, …]}} or {{"instances": [123, …]}}'
V2_SHAPE = f'one input {{"name": "{KEY}", "datatype": "INT64", "shape": [n] or [n, 1], "data": […]}}'


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


def from_v1(body: object) -> list[int]:
    """The customer ids of a v1 body, in order. Raises Refused (400, 413) that says what was expected and found."""
    if not isinstance(body, dict):
        raise Refused(400, f"expected {V1_SHAPE}, found {_kind(body)}")
    if set(body) != {"instances"}:
        raise Refused(400, f"expected {V1_SHAPE}, found the keys {shown(sorted(map(str, body)))}")
    instances = body["instances"]
    if not isinstance(instances, list):
        raise Refused(400, f"instances: expected a list as in {V1_SHAPE}, found {_kind(instances)}")
    _check_count(len(instances), "instances")
    return [_customer(_of_instance(item, i), f"instances[{i}]") for i, item in enumerate(instances)]


def from_v2(request: TensorRequest) -> list[int]:
    """The customer ids of a v2 request, JSON, binary or gRPC, in order. Raises Refused (400, 413)."""
    if len(request.inputs) != 1:
        raise Refused(400, f"inputs: expected {V2_SHAPE}, found {len(request.inputs)} inputs")
    tensor = request.inputs[0]
    if tensor.name != KEY:
        raise Refused(400, f"inputs[0]: expected the name {KEY!r}, found {shown(tensor.name)}")
    if tensor.datatype != "INT64":
        raise Refused(400, f"input {KEY}: expected the datatype INT64, found {shown(tensor.datatype)}")
    shape = list(tensor.shape)
    if not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)):
        raise Refused(400, f"input {KEY}: expected the shape [n] or [n, 1], found {shown(shape)}")
    values = _values(tensor, column=len(shape) == 2)
    if shape[0] != len(values):
        raise Refused(400, f"input {KEY}: the shape {shape} expects {shape[0]} ids, found {len(values)}")
    _check_count(len(values), f"input {KEY}")
    wrong = [o.name for o in request.request_outputs or [] if o.name not in OUTPUTS]
    if wrong:
        raise Refused(400, f"outputs: expected some of {', '.join(OUTPUTS)}, found {shown(wrong)}")
    return [_customer(value, f"input {KEY}, data[{i}]") for i, value in enumerate(values)]


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


def _of_instance(item: object, index: int) -> object:
    if not isinstance(item, dict):
        return item
    if set(item) != {KEY}:
        raise Refused(
            400,
            f'instances[{index}]: expected {{"{KEY}": 123}} alone, found the keys {shown(sorted(map(str, item)))}; '
            "features come from the online store, never from the request",
        )
    return item[KEY]


def _values(tensor: Tensor, *, column: bool) -> list[object]:
    """The tensor's elements, flat, as they came: their types are still to be judged."""
    if tensor._raw_data is not None:
        if len(tensor._raw_data) % 8:
            raise Refused(400, f"input {KEY}: expected 8 bytes an id, found {len(tensor._raw_data)} bytes")
        return list(memoryview(tensor._raw_data).cast("q"))
    data = tensor.data
    if not isinstance(data, list):
        raise Refused(400, f"input {KEY}: expected data as a list, found {_kind(data)}")
    if column and data and all(isinstance(row, list) and len(row) == 1 for row in data):
        return [row[0] for row in data]
    return data


def _check_count(count: int, where: str) -> None:
    if count == 0:
        raise Refused(400, f"{where}: expected 1 to {MOST} customer ids, found none")
    if count > MOST:
        raise Refused(413, f"{where}: expected at most {MOST} customer ids in a request, found {count}; ask in parts")


def _customer(value: object, where: str) -> int:
    if type(value) is not int:
        raise Refused(400, f"{where}: expected a customer id (an integer), found {_kind(value)} {shown(value)}")
    if not 0 <= value <= LARGEST:
        raise Refused(400, f"{where}: expected a customer id from 0 to {LARGEST}, found {shown(value)}")
    return value


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", float: "a float", bytes: "bytes"}
    return "null" if value is None else names.get(type(value), f"a value of type {type(value).__name__}")


def shown(value: object) -> str:
    """A value as it may stand in a message: printable ASCII, at most 80 characters."""
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list of thousands of levels
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 80 else f"{text[:77]}..."
