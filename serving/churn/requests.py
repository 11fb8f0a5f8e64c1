"""What a prediction request may hold: customer ids, nothing else. Anything else is refused by name, before any work."""

from __future__ import annotations

from products.churn import CHURN
from serving.errors import Refused
from serving.requests import Tensor, TensorRequest, kind, shown

KEY = CHURN.entity
MOST = 1000
"""Customers in one request: some 0.1 s of work. More belong in a batch job over the lake."""

LARGEST = 2**63 - 1
OUTPUTS = {
    "churn_probability": "FP64",
    "features_age_seconds": "FP64",
    "release_id": "INT64",
    "missing": "BYTES",
    "view_age_seconds": "BYTES",
}
"""The tensors of a v2 answer, one row a customer, in the order asked; `missing` is a comma-separated list of names,
`view_age_seconds` a JSON object: the age of each view's row, null for a live view without activity."""

V1_SHAPE = f'{{"instances": [{{"{KEY}": 123}}, …]}} or {{"instances": [123, …]}}'
V2_SHAPE = f'one input {{"name": "{KEY}", "datatype": "INT64", "shape": [n] or [n, 1], "data": […]}}'


def from_v1(body: object) -> list[int]:
    """The customer ids of a v1 body, in order. Raises Refused (400, 413) that says what was expected and found."""
    if not isinstance(body, dict):
        raise Refused(400, f"expected {V1_SHAPE}, found {kind(body)}")
    if set(body) != {"instances"}:
        raise Refused(400, f"expected {V1_SHAPE}, found the keys {shown(sorted(map(str, body)))}")
    instances = body["instances"]
    if not isinstance(instances, list):
        raise Refused(400, f"instances: expected a list as in {V1_SHAPE}, found {kind(instances)}")
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
        raise Refused(400, f"input {KEY}: expected data as a list, found {kind(data)}")
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
        raise Refused(400, f"{where}: expected a customer id (an integer), found {kind(value)} {shown(value)}")
    if not 0 <= value <= LARGEST:
        raise Refused(400, f"{where}: expected a customer id from 0 to {LARGEST}, found {shown(value)}")
    return value
