"""Stage 01: what lands, under which names, and what the same source gives a second time."""

from __future__ import annotations

from collections import Counter

from plumbline import files
from plumbline.settings import settings
from plumbline.state import objects
from products.images import LABELS, RAW
from tests.ingestion.images.conftest import landed, rows


def test_the_first_digits_take_turns_between_the_classes_and_each_lands_under_its_own_hash() -> None:
    result = landed("mnist:30")

    images, labels = rows(RAW), rows(LABELS)
    assert Counter(row["label_at_ingestion"] for row in images) == dict.fromkeys("0123456789", 3)
    assert [(r["image_id"], r["label"]) for r in labels] == [(r["image_id"], r["label_at_ingestion"]) for r in images]
    store = objects.store_at(settings().bucket("raw-images"))
    for row in images:
        content = store.read(f"{row['image_id'][:2]}/{row['image_id']}.png")
        assert content is not None
        assert files.sha256(content.content) == row["sha256"]
        assert row["image_id"] == row["sha256"][:32]
        assert row["minio_uri"] == content.where
    assert result.rows == {RAW: 30, LABELS: 30}
