"""Both buckets and the source on a real S3 server; the tables stay on files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ingestion.images.landing import BucketError
from plumbline import files
from plumbline.settings import settings
from plumbline.state import objects
from products.images import CLEAN, RAW
from tests.ingestion.images.conftest import DAY, NEXT, cleaned, folder_of, landed, png, released, rows
from tests.object_store import S3Server
from tests.plumbline.pictures.malformed import encoded, rgb


@pytest.fixture
def buckets(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PLUMBLINE_RAW_IMAGES", s3_server.fresh_url())
    monkeypatch.setenv("PLUMBLINE_CLEAN_IMAGES", s3_server.fresh_url())
    settings.cache_clear()
    return s3_server


@pytest.fixture(autouse=True)
def _own_home(home: Path, buckets: S3Server) -> None:
    """Here the buckets are elsewhere than the home."""


def test_pictures_go_from_a_bucket_through_both_buckets(buckets: S3Server, tmp_path: Path) -> None:
    source = buckets.fresh_url()
    set_store = objects.store_at(source)
    pictures = {f"in/{seed}.png": png(seed) for seed in range(12)} | {"in/copy.bmp": encoded(rgb(3), "BMP")}
    labels = "".join(f"in/{seed}.png,{'odd' if seed % 2 else 'even'}\n" for seed in range(12))
    for name, content in {**pictures, "labels.csv": f"image,label\n{labels}".encode()}.items():
        set_store.create(name, content)

    assert landed(source).rows[RAW] == 13
    released(DAY)
    raw = objects.store_at(settings().bucket("raw-images"))
    for row in rows(RAW):
        stored = raw.read(row["minio_uri"].removeprefix(settings().bucket("raw-images") + "/"))
        assert stored is not None
        assert stored.content == pictures[row["source_name"]]
        assert row["label_at_ingestion"] == {**dict.fromkeys(pictures), **_labels(labels)}[row["source_name"]]
    clean = objects.store_at(settings().bucket("clean-images"))
    for row in rows(CLEAN):
        stored = clean.read(f"c1/{row['image_id'][:2]}/{row['image_id']}.png")
        assert (stored is not None) == (row["state"] == "clean")
        if stored is not None:
            assert files.sha256(stored.content) == row["clean_sha256"]
    assert [row["reason"] for row in rows(CLEAN)].count("duplicate") == 1

    assert landed(source, NEXT).rows[RAW] == 0
    assert "13 were there already" in landed(source, NEXT).message
    cleaned(NEXT)


def _labels(text: str) -> dict[str, str]:
    return dict(line.split(",") for line in text.splitlines())  # type: ignore[misc]


def test_an_object_of_a_bucket_is_never_overwritten(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set", {"a.png": png(1)}, "")
    key = f"{files.sha256(png(1))[:2]}/{files.sha256(png(1))[:32]}.png"
    store = objects.store_at(settings().bucket("raw-images"))
    store.create(key, b"not ours")
    with pytest.raises(BucketError, match="holds other bytes"):
        landed(str(folder))
    there = store.read(key)
    assert there is not None
    assert there.content == b"not ours"
    shutil.rmtree(folder)
