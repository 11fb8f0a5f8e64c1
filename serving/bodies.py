"""The body of a prediction request: strict JSON, or v2's JSON with tensors as bytes behind it. What is wrong is 400.

KServe's own decoder takes what it should not (a key twice, bytes that nobody asked for, `"1"` for a shape of 1) and
raises five kinds of exceptions at the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from kserve.protocol.infer_type import InferRequest  # noqa: TID253 (imported by the server alone)
from kserve.protocol.rest.v2_datamodels import InferenceRequest  # noqa: TID253
from pydantic import ValidationError

from serving import requests
from serving.errors import Refused

HEAD_LENGTH = "inference-header-content-length"
SIZE = "binary_data_size"


class Expected(Protocol):
    """What a predictor expects, in words: its requests' `shape`, and the `datatypes` of their inputs."""

    @property
    def shape(self) -> str: ...
    @property
    def datatypes(self) -> str: ...


def document(body: bytes) -> Any:
    """A JSON document. Raises Refused (400) that says where it is broken, or which key it has twice."""
    try:
        return json.loads(body, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body cannot be decoded: {str(error)[:300]}") from None


def infer_request(body: bytes, headers: Mapping[str, str], model: str | None, expected: Expected) -> InferRequest:
    """A v2 body as KServe's InferRequest; a binary tensor's bytes are in its `_raw_data`. Raises Refused (400)."""
    head, tail = _split(body, headers.get(HEAD_LENGTH))
    message = document(head)
    raw: list[bytes | None] = []
    inputs = message.get("inputs") if isinstance(message, dict) else None
    for tensor in inputs if isinstance(inputs, list) else []:
        size = _binary_size(tensor)
        if size is None:
            raw.append(None)
            continue
        if size > len(tail):
            raise Refused(400, f"inputs: {SIZE} says {size} bytes, found {len(tail)} behind the JSON")
        raw.append(tail[:size])
        tail, tensor["data"] = tail[size:], []
    if tail:
        raise Refused(400, f"expected no bytes behind the JSON and its tensors, found {len(tail)}")
    try:
        checked = InferenceRequest.model_validate(message, strict=True)
    except ValidationError as error:
        raise Refused(400, f"expected {expected.shape}; {problems(error.errors())}") from None
    flags = [("binary_data_output", checked.parameters)]
    flags += [("binary_data", output.parameters) for output in checked.outputs or []]
    for name, parameters in flags:
        if not isinstance((parameters or {}).get(name, False), bool):
            raise Refused(400, f"parameters: expected {name} to be true or false")
    check_datatypes([tensor.datatype for tensor in checked.inputs], expected)
    request = InferRequest.from_inference_request(checked, model)
    for tensor, bytes_ in zip(request.inputs, raw, strict=True):
        tensor._raw_data = bytes_
    return request


def check_datatypes(datatypes: Sequence[str], expected: Expected) -> None:
    """Raises Refused (400) for a datatype in small letters: KServe's InferInput would write it in capitals."""
    for datatype in datatypes:
        if datatype != datatype.upper():
            raise Refused(400, f"inputs: expected {expected.datatypes}, found {requests.shown(datatype)}")


def problems(errors: Any) -> str:
    """The first three of pydantic's problems, in one line."""
    lines = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in errors]
    return "; ".join(lines[:3]).lstrip(": ")[:300]


def _split(body: bytes, declared: str | None) -> tuple[bytes, bytes]:
    if declared is None:
        return body, b""
    if not (declared.isascii() and declared.isdigit() and len(declared) < 10) or int(declared) > len(body):
        raise Refused(
            400, f"{HEAD_LENGTH}: expected 0 to {len(body)}, the body's bytes, found {requests.shown(declared)}"
        )
    return body[: int(declared)], body[int(declared) :]


def _binary_size(tensor: Any) -> int | None:
    parameters = tensor.get("parameters") if isinstance(tensor, dict) else None
    if not isinstance(parameters, dict) or SIZE not in parameters or "data" in tensor:
        return None
    size = parameters[SIZE]
    if type(size) is not int or size < 0:
        raise Refused(400, f"inputs: expected {SIZE} to be a number of bytes, found {requests.shown(size)}")
    return size


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise ValueError(f"the key {requests.shown(name)} stands there twice")
        members[name] = value
    return members
