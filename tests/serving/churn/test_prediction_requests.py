"""A request holds customer ids and nothing else, or is refused by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.churn import requests
from serving.errors import Refused
from serving.requests import request_id


@dataclass
class Tensor:
    data: Any
    shape: list[int]
    name: str = "customer_id"
    datatype: str = "INT64"
    _raw_data: bytes | None = None


@dataclass
class Request:
    inputs: list[Any]
    id: str | None = None
    request_outputs: list[Any] = field(default_factory=list)


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [{"customer_id": 7}, {"customer_id": 0}]},
        {"instances": [7, 0]},
        {"instances": [{"customer_id": 7}, 0]},
    ],
)
def test_v1_takes_ids_bare_or_named(body: object) -> None:
    assert requests.from_v1(body) == [7, 0]


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (None, 400, "found null"),
        ([1], 400, "found a list"),
        (b"\xff", 400, "found bytes"),
        ({}, 400, "found the keys []"),
        ({"inputs": [1]}, 400, "found the keys ['inputs']"),
        ({"instances": [1], "more": 1}, 400, "found the keys ['instances', 'more']"),
        ({"instances": 1}, 400, "expected a list"),
        ({"instances": []}, 400, "found none"),
        ({"instances": [1] * 1001}, 413, "at most 1000 customer ids in a request, found 1001"),
        ({"instances": [1, True]}, 400, "instances[1]: expected a customer id (an integer), found a boolean True"),
        ({"instances": [1.0]}, 400, "found a float 1.0"),
        ({"instances": ["1"]}, 400, "found a string '1'"),
        ({"instances": [None]}, 400, "found null"),
        ({"instances": [[1]]}, 400, "found a list [1]"),
        ({"instances": [-1]}, 400, "from 0 to 9223372036854775807, found -1"),
        ({"instances": [2**63]}, 400, "found 9223372036854775808"),
        ({"instances": [10**5000]}, 400, "found <int>"),
        ({"instances": [{"customer": 1}]}, 400, "found the keys ['customer']"),
        ({"instances": [{"customer_id": 1, "orders_7d": 3}]}, 400, "features come from the online store"),
    ],
)
def test_v1_says_what_was_expected_and_found(body: object, status: int, told: str) -> None:
    with pytest.raises(Refused) as refused:
        requests.from_v1(body)
    assert refused.value.status == status
    assert told in str(refused.value)


@pytest.mark.parametrize(
    "tensor",
    [
        Tensor([7, 0], [2]),
        Tensor([7, 0], [2, 1]),
        Tensor([[7], [0]], [2, 1]),
        Tensor(None, [2], _raw_data=(7).to_bytes(8, "little") + bytes(8)),
    ],
)
def test_v2_takes_a_column_of_ids(tensor: Tensor) -> None:
    assert requests.from_v2(Request([tensor])) == [7, 0]


@pytest.mark.parametrize(
    ("inputs", "status", "told"),
    [
        ([], 400, "found 0 inputs"),
        ([Tensor([1], [1])] * 2, 400, "found 2 inputs"),
        ([Tensor([1], [1], name="id")], 400, "expected the name 'customer_id', found 'id'"),
        ([Tensor([1], [1], datatype="FP64")], 400, "expected the datatype INT64, found 'FP64'"),
        ([Tensor([1], [])], 400, "expected the shape [n] or [n, 1], found []"),
        ([Tensor([1, 2], [1, 2])], 400, "expected the shape [n] or [n, 1], found [1, 2]"),
        ([Tensor([1, 2], [3])], 400, "the shape [3] expects 3 ids, found 2"),
        ([Tensor([1, 2], [-1])], 400, "the shape [-1] expects -1 ids, found 2"),
        ([Tensor([], [0])], 400, "found none"),
        ([Tensor([[1]], [1])], 400, "found a list [1]"),
        ([Tensor([True], [1])], 400, "found a boolean True"),
        ([Tensor([1] * 1001, [1001])], 413, "found 1001"),
        ([Tensor(None, [1])], 400, "expected data as a list, found null"),
        ([Tensor(None, [1], _raw_data=b"1234567")], 400, "expected 8 bytes an id, found 7 bytes"),
        ([Tensor(None, [1], _raw_data=b"\xff" * 8)], 400, "found -1"),
    ],
)
def test_v2_says_what_was_expected_and_found(inputs: list[Any], status: int, told: str) -> None:
    with pytest.raises(Refused) as refused:
        requests.from_v2(Request(inputs))
    assert refused.value.status == status
    assert told in str(refused.value)


def test_an_output_that_does_not_exist_is_refused_before_scoring() -> None:
    with pytest.raises(Refused, match=r"found \['probability'\]"):
        requests.from_v2(Request([Tensor([1], [1])], request_outputs=[type("Output", (), {"name": "probability"})]))


def test_a_request_is_named_by_its_body_then_its_header_then_anew() -> None:
    assert request_id("a", {"x-request-id": "b"}) == "a"
    assert request_id(None, {"x-request-id": "b"}) == "b"
    assert len(request_id(None, {})) == 36
    for bad in ("a\r\nset-cookie: x", "é", "x" * 129, 7):
        with pytest.raises(Refused, match="128 printable ASCII"):
            request_id(bad, {})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["instances", "customer_id", "inputs", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_is_ids_or_a_refusal(body: Any) -> None:
    for given_body in (body, {"instances": body}, {"instances": [{"customer_id": body}]}):
        ids = ids_or_status(requests.from_v1, given_body)
        assert ids in (400, 413) or (ids and all(type(i) is int and 0 <= i < 2**63 for i in ids))


@given(JSON, st.lists(st.integers(), max_size=3), st.text(max_size=5) | st.just("INT64"))
def test_any_tensor_is_ids_or_a_refusal(data: Any, shape: list[int], datatype: str) -> None:
    ids = ids_or_status(requests.from_v2, Request([Tensor(data, shape, datatype=datatype)]))
    assert ids in (400, 413) or len(ids) == shape[0]


def ids_or_status(read: Any, request: Any) -> Any:
    try:
        return read(request)
    except Refused as refused:
        return refused.status
