"""What a request may ask of the image predictor: images by id, or pictures as bytes. All else is refused by name."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any

from products.images import IMAGES
from serving.errors import Refused
from serving.requests import Tensor, TensorRequest, kind, shown

KEY, PICTURE = IMAGES.entity, "image"
MOST, MOST_PICTURES = 200, 8
"""Images by id, and pictures, in one request: some 0.1 s and 0.5 s of work."""

LARGEST_PICTURE = 4 << 20
"""Bytes of one picture."""

LARGEST_BODY = 12 << 20
"""Bytes of a body: two of the largest pictures in base64, or more smaller ones."""

ID = re.compile(r"[0-9a-f]{32}")
OUTPUTS = {
    KEY: "BYTES",
    "label": "BYTES",
    "probability": "FP64",
    "embedding_sha256": "BYTES",
    "features_age_seconds": "FP64",
    "release_id": "INT64",
}
"""The tensors of a v2 answer, one row an image, in the order asked; of a picture, age and release are 0."""

ONE = f'{{"{KEY}": "32 hex digits"}} or {{"{PICTURE}": {{"b64": "…"}}}}'
V1_SHAPE = f'{{"instances": […]}} with {ONE} for each'
V2_SHAPE = f'one input "{KEY}" or "{PICTURE}", {{"datatype": "BYTES", "shape": [n], "data": […]}}'


@dataclass(frozen=True)
class Asked:
    """One thing that is asked about: an image by its id, or a picture's bytes."""

    image_id: str | None = None
    content: bytes | None = None

    @property
    def weight(self) -> int:
        """How much work it is beside an image by its id."""
        return 1 if self.content is None else 25


def from_v1(body: object) -> list[Asked]:
    """What a v1 body asks, in order. Raises Refused (400, 413) that says what was expected and found."""
    if not isinstance(body, dict) or set(body) != {"instances"}:
        what = f"the keys {shown(sorted(map(str, body)))}" if isinstance(body, dict) else kind(body)
        raise Refused(400, f"expected {V1_SHAPE}, found {what}")
    instances = body["instances"]
    if not isinstance(instances, list):
        raise Refused(400, f"instances: expected a list as in {V1_SHAPE}, found {kind(instances)}")
    return _counted([_of_instance(item, f"instances[{i}]") for i, item in enumerate(instances[: MOST + 1])])


def from_v2(request: TensorRequest) -> list[Asked]:
    """What a v2 request asks, JSON, binary or gRPC, in order: in JSON a picture is base64, elsewhere its own bytes.

    Raises Refused (400, 413).
    """
    if len(request.inputs) != 1:
        raise Refused(400, f"inputs: expected {V2_SHAPE}, found {len(request.inputs)} inputs")
    tensor = request.inputs[0]
    if tensor.name not in (KEY, PICTURE):
        raise Refused(400, f"inputs[0]: expected the name {KEY!r} or {PICTURE!r}, found {shown(tensor.name)}")
    if tensor.datatype != "BYTES":
        raise Refused(400, f"input {tensor.name}: expected the datatype BYTES, found {shown(tensor.datatype)}")
    values = _values(tensor)
    if list(tensor.shape) != [len(values)]:
        raise Refused(
            400, f"input {tensor.name}: expected the shape [{len(values)}], found {shown(list(tensor.shape))}"
        )
    wrong = [output.name for output in request.request_outputs or [] if output.name not in OUTPUTS]
    if wrong:
        raise Refused(400, f"outputs: expected some of {', '.join(OUTPUTS)}, found {shown(wrong)}")
    where = (f"input {tensor.name}, data[{i}]" for i in range(len(values)))
    of = _image if tensor.name == KEY else _picture
    return _counted([of(value, at) for value, at in zip(values[: MOST + 1], where, strict=False)])


def _of_instance(item: object, where: str) -> Asked:
    if isinstance(item, str):
        return _image(item, where)
    if isinstance(item, dict) and set(item) == {KEY}:
        return _image(item[KEY], where)
    picture = item[PICTURE] if isinstance(item, dict) and set(item) == {PICTURE} else None
    if isinstance(picture, dict) and set(picture) == {"b64"}:
        return _picture(picture["b64"], where)
    what = f"the keys {shown(sorted(map(str, item)))}" if isinstance(item, dict) else f"{kind(item)} {shown(item)}"
    raise Refused(400, f"{where}: expected {ONE}, found {what}")


def _image(value: object, where: str) -> Asked:
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if not isinstance(text, str) or not ID.fullmatch(text):
        raise Refused(400, f"{where}: expected an image id of 32 hex digits, found {kind(value)} {shown(value)}")
    return Asked(image_id=text)


def _picture(value: object, where: str) -> Asked:
    if isinstance(value, str):
        try:
            value = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise Refused(400, f"{where}: expected a picture in base64, found {shown(value)}") from None
    if not isinstance(value, bytes):
        raise Refused(400, f"{where}: expected a picture in base64, found {kind(value)} {shown(value)}")
    if not value:
        raise Refused(400, f"{where}: expected a picture, found no bytes")
    if len(value) > LARGEST_PICTURE:
        raise Refused(413, f"{where}: expected a picture of at most {LARGEST_PICTURE} bytes, found {len(value)}")
    return Asked(content=value)


def _counted(asked: list[Asked]) -> list[Asked]:
    pictures = sum(one.content is not None for one in asked)
    if not asked:
        raise Refused(400, f"expected 1 to {MOST} images, found none")
    if len(asked) > MOST or pictures > MOST_PICTURES:
        most = f"{MOST} images by id and {MOST_PICTURES} pictures"
        raise Refused(413, f"expected at most {most} in a request; ask in parts")
    return asked


def _values(tensor: Tensor) -> list[Any]:
    """The tensor's elements: bytes, or JSON's own values."""
    if tensor._raw_data is None:
        if not isinstance(tensor.data, list):
            raise Refused(400, f"input {tensor.name}: expected data as a list, found {kind(tensor.data)}")
        return tensor.data
    values: list[bytes] = []
    raw = memoryview(tensor._raw_data)
    while raw:
        size = int.from_bytes(raw[:4], "little")
        if len(raw) < 4 + size:
            raise Refused(400, f"input {tensor.name}: expected each element behind its length in 4 bytes")
        if len(values) > MOST:
            raise Refused(413, f"input {tensor.name}: expected at most {MOST} elements, found more; ask in parts")
        values.append(bytes(raw[4 : 4 + size]))
        raw = raw[4 + size :]
    return values
