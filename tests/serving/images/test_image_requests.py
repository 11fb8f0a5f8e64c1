"""What the image predictor takes and refuses, before anything is decoded or read."""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace
from typing import Any

import pytest

from serving.errors import Refused
from serving.images import requests
from serving.images.requests import LARGEST_PICTURE, MOST, MOST_PICTURES, Asked

ID = "0123456789abcdef" * 2
PNG = b"\x89PNG rest"


def b64(content: bytes) -> dict[str, Any]:
    return {"image": {"b64": base64.b64encode(content).decode()}}


def tensor(name: str, data: Any, shape: Any = None, datatype: str = "BYTES", raw: bytes | None = None) -> Any:
    wanted = [len(data)] if shape is None else shape
    return SimpleNamespace(name=name, data=data, shape=wanted, datatype=datatype, _raw_data=raw)


def v2(*tensors: Any, outputs: Any = None) -> Any:
    return SimpleNamespace(id=None, inputs=list(tensors), request_outputs=outputs)


def test_ids_and_pictures_may_stand_in_one_request() -> None:
    body = {"instances": [{"image_id": ID}, ID, b64(PNG)]}
    assert requests.from_v1(body) == [Asked(image_id=ID), Asked(image_id=ID), Asked(content=PNG)]


def test_a_picture_is_its_own_bytes_in_binary_and_base64_in_json() -> None:
    raw = len(PNG).to_bytes(4, "little") + PNG
    assert requests.from_v2(v2(tensor("image", [], [1], raw=raw))) == [Asked(content=PNG)]
    assert requests.from_v2(v2(tensor("image", [PNG]))) == [Asked(content=PNG)], "gRPC's bytes_contents"
    encoded = base64.b64encode(PNG).decode()
    assert requests.from_v2(v2(tensor("image", [encoded]))) == [Asked(content=PNG)]
    assert requests.from_v2(v2(tensor("image_id", [ID, ID.encode()]))) == [Asked(image_id=ID)] * 2


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ([], 400, "found a list"),
        ({"instances": {}}, 400, "expected a list"),
        ({"instances": []}, 400, "found none"),
        ({"instances": [7]}, 400, r"instances\[0\].*found a value of type int 7"),
        ({"instances": [ID.upper()]}, 400, "32 hex digits"),
        ({"instances": [{"image_id": ID, "image": {}}]}, 400, "found the keys"),
        ({"instances": [{"image": {"b64": "!"}}]}, 400, "in base64"),
        ({"instances": [{"image": {"b64": ""}}]}, 400, "no bytes"),
        ({"instances": [{"image": {"url": "file:///etc/passwd"}}]}, 400, "found the keys"),
        ({"instances": [{"image": {"b64": 1}}]}, 400, "base64"),
        ({"instances": [ID] * (MOST + 1)}, 413, "ask in parts"),
        ({"instances": [b64(PNG)] * (MOST_PICTURES + 1)}, 413, "ask in parts"),
        ({"instances": [b64(b"x" * (LARGEST_PICTURE + 1))]}, 413, f"at most {LARGEST_PICTURE} bytes"),
    ],
)
def test_a_v1_body_that_is_wrong_is_refused_by_name(body: Any, status: int, told: str) -> None:
    with pytest.raises(Refused, match=told) as refused:
        requests.from_v1(json.loads(json.dumps(body)))
    assert refused.value.status == status


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (v2(), "found 0 inputs"),
        (v2(tensor("image", []), tensor("image_id", [])), "found 2 inputs"),
        (v2(tensor("picture", [])), "'image_id' or 'image'"),
        (v2(tensor("image", [ID], datatype="INT64")), "BYTES"),
        (v2(tensor("image_id", [ID], [2])), r"expected the shape \[1\]"),
        (v2(tensor("image", [], [1], raw=b"\xff\xff\xff\xff")), "length in 4 bytes"),
        (v2(tensor("image", "abc", [3])), "data as a list"),
        (v2(tensor("image_id", [ID]), outputs=[SimpleNamespace(name="churn")]), "outputs: expected some of"),
    ],
)
def test_a_v2_request_that_is_wrong_is_refused_by_name(request_: Any, told: str) -> None:
    with pytest.raises(Refused, match=told) as refused:
        requests.from_v2(request_)
    assert refused.value.status == 400
