"""Embeddings through real Spark, Feast and Redis: what is online is what the release has, for each image and view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pytest
from deltalake import write_deltalake

from feature_repo import feast_internals, online_rows
from feature_repo import store as feature_store
from feature_repo.images.nearest import NearestError, nearest
from feature_repo.materialize import materialize
from plumbline import clock
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.pictures.names import UnknownImage
from plumbline.pipeline.undo import undo
from plumbline.servers import online_store
from products.images import CLEAN, EMBEDDINGS, IMAGES
from tests.feature_repo.images import made_up_images as made
from tests.feature_repo.images.made_up_images import FIRST, digits
from validation import parity

SECOND, THIRD = made.next_day(FIRST), made.next_day(made.next_day(FIRST))
V1, V2 = IMAGES.views


def check(**asked: Any) -> dict[str, Any]:
    return parity.check(
        IMAGES,
        lambda view: online_rows.OnlineRows(IMAGES, view),
        lambda rows, times: online_rows.on_demand(IMAGES, rows, times),
        parity.Asked(**asked),
    )


def online() -> dict[bytes, dict[bytes, bytes]]:
    """Every hash in Redis with the bytes of every field, but for the mark."""
    client = online_store.client()
    return {key: client.hgetall(key) for key in client.scan_iter() if key != IMAGES.online_mark.encode()}


def key_of(image: str) -> bytes:
    (key,) = feast_internals.entity_keys(feature_store.open_store(IMAGES), IMAGES, [image])
    return bytes(key)


def embedding_of(image: str, view: str) -> bytes | None:
    (_, _, values), *_ = online_rows.OnlineRows(IMAGES, view).read([image])
    return values.get("embedding")


def stored(table: str, version: int) -> dict[str, bytes]:
    rows = lake.open_table(table, version).to_pyarrow_table().to_pylist()
    ordered = sorted(rows, key=lambda row: (row["event_time"], row["created_at"]))
    return {row["image_id"]: np.array(row["embedding"], "float32").tobytes() for row in ordered}


@pytest.mark.usefixtures("with_spark")
def test_redis_follows_the_releases_bit_for_bit(home: Path) -> None:
    pictures = digits(30)
    ids = made.land(pictures, FIRST)
    first = made.embedded(FIRST)
    told = materialize(IMAGES)
    assert (told["online_rows"], told["rows"]) == (30, {IMAGES.online: 30})
    assert told["message"] == "release 1 is online: 30 images, until 1998-06-30 00:00 UTC"
    offline = stored(EMBEDDINGS["v1"], first.version(EMBEDDINGS["v1"]))
    assert {image: embedding_of(image, V1) for image in ids} == offline
    assert embedding_of(ids[0], V2) is None
    found = check()
    assert (found["images"], found["mismatches"], found["expired"]) == (30, 0, 0)
    assert materialize(IMAGES)["state"] == "unchanged"
    of_first = online()
    memory = online_store.client().memory_usage(key_of(ids[0]), samples=0)
    assert memory is not None and 5_000 < memory < 12_000, "bytes of Redis for an image and a view"

    # Release 2: new images, another cleaning of old ones (rows with an old event_time), and a second view.
    fresh = made.land(digits(4, start=30), SECOND)
    made.land([(255 - pixels, label) for pixels, label in pictures[:3]], SECOND, cleaning="c2")
    second = made.embedded(SECOND, "v1", "v2")
    assert materialize(IMAGES)["online_rows"] == 34
    assert check()["mismatches"] == 0
    of_second = online()
    for view, version in ((V1, "v1"), (V2, "v2")):
        table = EMBEDDINGS[version]
        assert {i: embedding_of(i, view) for i in [*ids, *fresh]} == stored(table, second.version(table)), view
    assert embedding_of(ids[0], V1) != offline[ids[0]], "the mended picture's"

    # What Redis loses is written again; what somebody alters is found.
    assert online_rows.counts(IMAGES) == (34, 34)
    online_store.client().delete(key_of(ids[5]))
    assert online_rows.counts(IMAGES) == (33, 34)
    assert materialize(IMAGES)["state"] == "done" and online() == of_second
    fields = feast_internals.row_fields(feature_store.open_store(IMAGES).get_feature_view(V2), ["embedding"])
    other = online_store.client().hget(key_of(ids[7]), fields[1])
    online_store.client().hset(key_of(ids[6]), fields[1], other)
    with pytest.raises(
        GateFailed, match=rf"{V2}\.embedding of 1 image, such as image {ids[6]}: online 1,280 numbers of"
    ):
        check(sample=34)
    assert materialize(IMAGES)["state"] == "done" and online() == of_second

    # Release 3 sets an image aside: its rows stay in the tables, and nobody takes them.
    rows = lake.opened(CLEAN).to_pyarrow_table()
    gone = pc.equal(rows["image_id"], ids[9])
    column = rows.schema.get_field_index("state")
    changed = rows.set_column(column, "state", pc.if_else(gone, "quarantined", rows["state"]))
    write_deltalake(lake.uri(CLEAN), changed, mode="overwrite")
    third = made.embedded(THIRD)
    assert (materialize(IMAGES)["removed_rows"], check()["mismatches"]) == (2, 0)
    assert key_of(ids[9]) not in online()
    store = feature_store.at_release(IMAGES, third)
    _joined_as_of_the_first_day(store, [*ids, *fresh], set(fresh) | {ids[9]}, first)

    # Going back: every byte is as it was.
    undo(IMAGES, why="the image was fine")
    materialize(IMAGES)
    assert online() == of_second
    undo(IMAGES, why="the second day too", to=1)
    materialize(IMAGES)
    assert online() == of_first and check()["mismatches"] == 0


def _joined_as_of_the_first_day(store: Any, images: list[str], without: set[str], first: Any) -> None:
    """Feast's historical join of the embeddings at the first day's end, by Spark."""
    asked = pd.DataFrame({"image_id": images, "event_timestamp": pd.Timestamp(clock.end_of(FIRST))})
    service = store.get_feature_service("images_v1")
    found = store.get_historical_features(asked, service).to_arrow()
    assert found.num_rows == len(images)
    joined = dict(zip(found["image_id"].to_pylist(), found["embedding"].to_pylist(), strict=True))
    release = stored(EMBEDDINGS["v1"], lake.version(EMBEDDINGS["v1"]) or 0)
    for image in images:
        given = None if joined[image] is None else np.array(joined[image], "float32").tobytes()
        assert given == (None if image in without else release[image]), image


def test_the_nearest_pictures_are_those_of_an_exact_search(home: Path) -> None:
    ids = made.land(digits(20), FIRST)
    release = made.embedded(FIRST)
    vectors = {
        i: np.frombuffer(v, "float32") for i, v in stored(EMBEDDINGS["v1"], release.version(EMBEDDINGS["v1"])).items()
    }
    mine = vectors[ids[3]].astype(float)

    def similarity(image: str) -> float:
        other = vectors[image].astype(float)
        return float(mine @ other / np.linalg.norm(mine) / np.linalg.norm(other))

    found = nearest(ids[3], 4)
    expected = sorted((i for i in ids if i != ids[3]), key=similarity, reverse=True)[:4]
    assert [item["image_id"] for item in found] == expected
    assert found[0]["similarity"] == pytest.approx(similarity(expected[0]), abs=1e-12)
    assert nearest(ids[3][:12], 4) == found
    with pytest.raises(UnknownImage, match="embeddings v1 of release 1 has no image whose id begins with 'cat'"):
        nearest("cat")
    with pytest.raises(NearestError, match="release 1 has no embeddings 'v2'; it has v1"):
        nearest(ids[0], version="v2")
