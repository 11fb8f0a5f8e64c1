"""Stage 03 on real digits: each clean picture is embedded once at each version, whatever is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feature_repo.images import embed as stage
from feature_repo.images import pictures as pictures_of
from feature_repo.images.embed import EmbedError
from feature_repo.images.parts import Parts
from feature_repo.images.pictures import PictureError
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.pictures import network, preprocess
from plumbline.pictures.network import Network
from plumbline.settings import ROOT
from products.images import EMBEDDINGS
from tests.feature_repo.images import made_up_images as made
from tests.feature_repo.images.made_up_images import FIRST, digits

V1 = EMBEDDINGS["v1"]


def rows(version: int, table: str = V1) -> dict[str, dict[str, Any]]:
    return {row["image_id"]: row for row in lake.open_table(table, version).to_pyarrow_table().to_pylist()}


def test_a_picture_of_a_request_gets_the_bits_that_the_stage_wrote(home: Path) -> None:
    pictures = digits(20)
    ids = made.land(pictures, FIRST)
    release = made.embedded(FIRST)
    found = rows(release.version(V1))
    assert found.keys() == set(ids) and len(found) == 20
    loaded = Network()
    for image, (pixels, label) in zip(ids, pictures, strict=True):
        row = found[image]
        alone = loaded.embed(preprocess.preprocess(pixels, "v1")[None])[0]
        assert np.array(row["embedding"], "float32").tobytes() == alone.tobytes()
        assert (row["label"], row["release_id"], row["preprocessing_version"]) == (label, 1, "v1")
        assert row["extraction_model"] == f"efficientnet-lite0@sha256:{network.SHA256[:12]}"


def test_only_pictures_without_an_embedding_are_computed(home: Path) -> None:
    made.land(digits(12), FIRST)
    first = made.embedded(FIRST)
    day = made.next_day(FIRST)
    fresh = made.land(digits(5, start=12), day)
    run = made.run_of(day)
    stage.embed(run)
    assert run.rows[V1] == 5
    before, after = rows(first.version(V1)), rows(run.wrote[V1])
    assert {image: after[image] for image in before} == before, "old rows stay as they are"
    assert after.keys() - before.keys() == set(fresh)
    made.released(run)
    again = made.run_of(made.next_day(day))
    stage.embed(again)
    assert (again.rows[V1], again.wrote[V1]) == (0, run.wrote[V1]), "nothing new: no new version"


def test_another_cleaning_of_a_picture_is_a_new_row_beside_the_old_one(home: Path) -> None:
    pictures = digits(4)
    made.land(pictures, FIRST)
    first = made.embedded(FIRST)
    changed = [(255 - pixels, label) for pixels, label in pictures[:2]]
    ids = made.land(changed, made.next_day(FIRST), cleaning="c2")
    second = made.embedded(made.next_day(FIRST))
    table = lake.open_table(V1, second.version(V1)).to_pyarrow_table().to_pylist()
    assert len(table) == 6 and len(rows(first.version(V1))) == 4
    assert sorted(row["image_id"] for row in table if row["cleaning_version"] == "c2") == sorted(ids)


def test_another_version_is_a_table_of_its_own_and_the_old_one_stays(home: Path) -> None:
    made.land(digits(6), FIRST)
    first = made.embedded(FIRST)
    before = rows(first.version(V1))
    second = made.embedded(made.next_day(FIRST), "v2")
    assert rows(second.version(V1)) == before and second.version(V1) == first.version(V1)
    other = rows(second.version(EMBEDDINGS["v2"]), EMBEDDINGS["v2"])
    assert other.keys() == before.keys()
    assert all(row["preprocessing_version"] == "v2" for row in other.values())
    assert all(other[image]["embedding"] != before[image]["embedding"] for image in before)
    made.land(digits(1, start=6), made.next_day(made.next_day(FIRST)))
    third = made.embedded(made.next_day(made.next_day(FIRST)))
    assert len(rows(third.version(EMBEDDINGS["v2"]), EMBEDDINGS["v2"])) == 7, "a version in use is carried on"


def test_what_a_killed_run_embedded_is_not_embedded_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made.land(digits(12), FIRST)
    monkeypatch.setattr(stage, "PART", 4)
    real, calls = pictures_of.embeddings, [0]

    def dies(given: Any, version: str, loaded: Network) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return real(given, version, loaded)

    monkeypatch.setattr(pictures_of, "embeddings", dies)
    with pytest.raises(KeyboardInterrupt):
        stage.embed(made.run_of(FIRST))
    assert lake.rows(V1) == 0, "nothing half done is in the table"
    embedded: list[str] = []

    def counts(given: Any, version: str, loaded: Network) -> Any:
        embedded.extend(row["image_id"] for row in given if len(given) > 1)  # the gate's are alone
        return real(given, version, loaded)

    monkeypatch.setattr(pictures_of, "embeddings", counts)
    run = made.run_of(FIRST)
    stage.embed(run)
    found = rows(run.wrote[V1])
    assert (len(embedded), len(found)) == (4, 12), "the last part of three"
    loaded = Network()
    for image, row in found.items():
        due = real([{**row, "clean_uri": row["uri"]}], "v1", loaded)[0]
        assert np.array(row["embedding"], "float32").tobytes() == due.tobytes(), image
    made.released(run)
    made.embedded(made.next_day(FIRST))
    assert not Parts("v1")._part_of, "what is released needs no part"


def test_a_clean_object_that_is_not_what_its_row_says_is_refused(home: Path) -> None:
    made.land(digits(3), FIRST)
    place = next((home / "buckets" / "clean-images" / "c1").rglob("*.png"))
    place.chmod(0o644)
    place.write_bytes(made.png(digits(1, start=9)[0][0]))
    with pytest.raises(PictureError, match=f"{place}: expected the clean picture of sha256 .*, found .*clean again"):
        stage.embed(made.run_of(FIRST))
    with pytest.raises(EmbedError, match="no version v9 of embeddings: there are v1, v2"):
        stage.embed(made.run_of(FIRST), ["v9"])


def test_the_gate_finds_what_is_lost_altered_or_not_a_number(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = sorted(made.land(digits(6), FIRST))
    real = Parts.take

    def altered(change: Any) -> None:
        def take(self: Parts, digests: Any) -> Any:
            taken = real(self, digests)
            change(taken)
            return taken

        monkeypatch.setattr(Parts, "take", take)

    def one_bit(taken: Any) -> None:
        taken[2, 7] = np.nextafter(taken[2, 7], np.float32(9))

    for change, told in (
        (one_bit, f"1 of 6 pictures give other bits when each is embedded alone, such as image {ids[2]}"),
        (lambda taken: taken[3].fill(np.nan), f"1 rows are not 1,280 finite numbers.*such as that of image {ids[3]}"),
        (lambda taken: taken[4].fill(0), f"1 rows are not 1,280 finite numbers, not all 0.* image {ids[4]}"),
    ):
        altered(change)
        with pytest.raises(GateFailed, match=f"(?s){told}.*Nothing is published"):
            stage.embed(made.run_of(FIRST))
    monkeypatch.setattr(Parts, "take", real)
    first = made.embedded(FIRST)
    fresh = made.land(digits(2, start=6), made.next_day(FIRST))
    without = stage.without_embedding
    monkeypatch.setattr(stage, "without_embedding", lambda *given: without(*given).slice(1))
    with pytest.raises(GateFailed, match=f"1 pictures of clean.images have no embedding.* {min(fresh)}"):
        stage.embed(made.run_of(made.next_day(FIRST)))
    assert lake.rows(V1, first.version(V1)) == 6


def test_the_manifest_names_the_tables_files_and_the_rows_digest(home: Path) -> None:
    made.land(digits(5), FIRST)
    run = made.run_of(FIRST)
    stage.embed(run)
    manifest = json.loads(Path(run.facts["manifests"]["v1"]["where"]).read_text())
    assert (manifest["rows_added"], manifest["clean_images"], manifest["version"]) == (5, 5, run.wrote[V1])
    assert all(Path(file).exists() for file in manifest["files"])
    assert manifest["content_sha256"] == run.gates["embeddings:v1"].extra["content_sha256"]
    assert run.gates[f"contract:{V1}"].passed
    again = made.run_of(FIRST)
    stage.embed(again)
    assert again.facts["manifests"]["v1"]["content_sha256"] == manifest["content_sha256"], "the same rows"


KILLS = [
    ("feature_repo.images.parts:Parts.put", "2"),
    ("deltalake:write_deltalake", "-3"),  # eight of v1's twelve rows are there; before it two tables were made, empty
]
MORE_KILLS = [
    ("feature_repo.images.parts:Parts.put", "-4"),
    ("deltalake:write_deltalake", "2"),
    ("feature_repo.images.embeddings_gate:hold", "-1"),
    ("plumbline.pipeline.contract_gate:audit", "-2"),
]


@pytest.mark.parametrize(
    ("function", "n"), [*KILLS, *(pytest.param(*point, marks=pytest.mark.slow) for point in MORE_KILLS)]
)
def test_killed_anywhere_it_comes_to_the_same_rows(function: str, n: str, home: Path, tmp_path: Path) -> None:
    made.land(digits(12), FIRST)
    shutil.copytree(home, tmp_path / "copy")
    stage.embed(made.run_of(FIRST), ["v1", "v2"])
    expected = {table: rows(lake.version(table) or 0, table) for table in EMBEDDINGS.values()}
    shutil.rmtree(home)
    (tmp_path / "copy").rename(home)

    command = [sys.executable, "-m", "tests.feature_repo.images.killed_embed", function, n]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr

    run = made.run_of(FIRST)
    stage.embed(run, ["v1", "v2"])
    for table, due in expected.items():
        assert run.rows[table] == 12 and rows(run.wrote[table], table) == due, table
