"""Stage 03 with its bucket and the lake on a real S3 server: the same bits as on files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from feature_repo.images import embed as stage
from feature_repo.images import pictures
from feature_repo.images.parts import Parts
from plumbline.lake import tables as lake
from plumbline.pictures import preprocess
from plumbline.pictures.network import Network
from plumbline.settings import settings
from plumbline.state import objects
from products.images import EMBEDDINGS
from tests.feature_repo.images import made_up_images as made
from tests.feature_repo.images.made_up_images import FIRST, digits
from tests.object_store import S3Server


def test_pictures_parts_and_rows_lie_in_a_bucket(
    home: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PLUMBLINE_CLEAN_IMAGES", s3_server.fresh_url())
    monkeypatch.setenv("PLUMBLINE_LAKE", s3_server.fresh_url())
    settings.cache_clear()
    shown = digits(9)
    ids = made.land(shown, FIRST)

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage, "PART", 4)
        patch.setattr(stage, "_rows", dies)
        with pytest.raises(KeyboardInterrupt):
            stage.embed(made.run_of(FIRST))
    store = objects.store_at(settings().bucket("clean-images"))
    assert len(store.keys("embeddings", None)) == 3, "nine pictures, four in a part"
    with monkeypatch.context() as patch:
        real = pictures.embeddings
        patch.setattr(pictures, "embeddings", lambda rows, *more: real(rows, *more) if len(rows) == 1 else dies())
        release = made.embedded(FIRST)  # all of it from the parts
    table = EMBEDDINGS["v1"]
    found = lake.open_table(table, release.version(table)).to_pyarrow_table().to_pylist()
    assert {row["image_id"] for row in found} == set(ids)
    loaded = Network()
    of_picture = dict(zip(ids, shown, strict=True))
    for row in found:
        due = loaded.embed(preprocess.preprocess(of_picture[row["image_id"]][0], "v1")[None])
        assert np.array(row["embedding"], "float32").tobytes() == due.tobytes()
    made.embedded(made.next_day(FIRST))
    assert store.keys("embeddings", None) == [] and len(Parts("v1")._part_of) == 0
