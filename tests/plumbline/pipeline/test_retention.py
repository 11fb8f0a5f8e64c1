"""A vacuum takes what nobody names, and nothing else: real Delta tables, real MLflow registry."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plumbline import files
from plumbline.errors import Conflict
from plumbline.lake import tables as lake
from plumbline.pipeline import leases, retention
from plumbline.pipeline.retention import RetentionError, vacuum
from plumbline.registry import registered_models
from plumbline.settings import settings as house
from plumbline.state import candidates, ledger, releases
from plumbline.state.releases import Release
from products.churn import CHURN

TABLE = "features.customers"


def write(value: int, table: str = TABLE) -> int:
    """A new version in which every row holds `value`."""
    rows = pa.table({"customer_id": [1, 2], "snapshot_date": [date(1998, 6, 30)] * 2, "value": [value] * 2})
    write_deltalake(lake.uri(table), rows, mode="overwrite", partition_by=["snapshot_date"])
    return lake.version(table) or 0


def publish(number: int, version: int, table: str = TABLE) -> None:
    made = Release(number, "churn", date(1998, 6, 1), number - 1 or None, {table: version}, {}, "c", "l", "t", "now")
    releases.publish(made)


def held(version: int) -> list[int] | None:
    """The values at a version, None when its files are gone."""
    try:
        found: list[int] = lake.open_table(TABLE, version).to_pyarrow_table()["value"].to_pylist()
    except (OSError, FileNotFoundError):
        return None
    return found


def register(version: int) -> None:
    """A registered model that names a version of the features."""
    client = registered_models.client()
    client.create_registered_model(CHURN.model)
    tags = {"data_version": f"delta:{TABLE}@v={version}", "orders_version": "delta:analytics.orders@v=0"}
    client.create_model_version(CHURN.model, (house().home / "model").as_uri(), tags=tags)


def test_what_a_release_a_run_a_dataset_or_a_model_names_still_reads_and_the_rest_is_gone(home: Path) -> None:
    for value in range(8):
        write(value)
    write(0, "analytics.orders")
    publish(1, 1)
    candidates.Candidate("churn-1998-06-30", "churn", date(1998, 6, 30), 1, {TABLE: 2}).save()
    files.write_whole(
        home / "training" / "churn" / "1" / "dataset.json", files.dumps({"data_version": f"delta:{TABLE}@v=3"})
    )
    (home / "mlflow").mkdir()
    register(4)
    DeltaTable(lake.uri(TABLE)).restore(0)  # head: version 8, the files of version 0
    assert retention.named(CHURN)[TABLE] == {
        1: ["release 1"],
        2: ["run 1998-06-30"],
        3: ["dataset of release 1"],
        4: ["model version 1"],
    }
    promised = vacuum(CHURN, 0, dry_run=True)
    assert [held(version) for version in range(8)] == [[value] * 2 for value in range(8)]
    done = vacuum(CHURN, 0)
    assert done == promised
    assert {item.table: item.files for item in done} == {"analytics.orders": 0, TABLE: 3}
    assert [held(version) for version in range(9)] == [
        *([value] * 2 for value in range(5)),
        None,
        None,
        None,
        [0, 0],
    ]
    event = list(ledger.events("churn"))[-1]
    assert (event["stage"], event["went"][TABLE]["files"]) == ("vacuum", 3)
    assert lake.version(TABLE) == 8, "a vacuum is no version"
    assert [item.files for item in vacuum(CHURN, 0)] == [0, 0]


def test_files_in_use_within_the_days_stay_and_so_do_checksums_of_what_is_kept(home: Path) -> None:
    write(0)
    first = {Path(path) for path in lake.open_table(TABLE).file_uris()}
    for path in first:
        path.with_name(f".{path.name}.crc").touch()
        os.utime(path.with_name(f".{path.name}.crc"), (0, 0))
    write(1)
    write(2)
    publish(1, 0)
    assert [item.files for item in vacuum(CHURN, 1)] == [0]
    orphan = Path(lake.uri(TABLE)) / "snapshot_date=1998-06-30" / "part-of-a-killed-run.parquet"
    for path in (orphan, orphan.with_name(f".{orphan.name}.crc")):
        path.write_bytes(b"half")
        os.utime(path, (0, 0))
    assert [(item.files, item.bytes) for item in vacuum(CHURN, 1)] == [(1, 4)]
    assert not orphan.exists() and not orphan.with_name(f".{orphan.name}.crc").exists()
    assert all(path.with_name(f".{path.name}.crc").exists() for path in first)
    assert held(1) == [1, 1]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sampled_from(["write", "restore"]), min_size=2, max_size=7), data=st.data())
def test_whatever_was_written_and_restored_each_named_version_reads_as_before(
    home: Path, steps: list[str], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLUMBLINE_HOME", str(tmp_path_factory.mktemp("home")))
        house.cache_clear()
        head = write(0)
        for value, step in enumerate(steps, start=1):
            if step == "write" or head == 0:
                head = write(value)
            else:
                DeltaTable(lake.uri(TABLE)).restore(data.draw(st.integers(0, head - 1)))
                head = lake.version(TABLE) or 0
        named = data.draw(st.sets(st.integers(0, head), min_size=1))
        for number, version in enumerate(sorted(named), start=1):
            publish(number, version)
        before = {version: held(version) for version in {*named, head}}
        vacuum(CHURN, 0)
        assert {version: held(version) for version in before} == before
        kept = {path for version in before for path in lake.open_table(TABLE, version).file_uris()}
        assert {str(path) for path in Path(lake.uri(TABLE)).glob("*/*.parquet")} == kept
    house.cache_clear()


def test_a_vacuum_that_would_take_what_is_named_deletes_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(0)
    write(1)
    publish(1, 0)
    everything = [path.rpartition("customers/")[2] for path in lake.open_table(TABLE, 0).file_uris()]
    monkeypatch.setattr(retention, "_unused", lambda table, versions, days: everything)
    with pytest.raises(RetentionError, match=r"would delete 1 files of version 0, which is named, such as part-"):
        vacuum(CHURN, 0)
    assert held(0) == [0, 0]


def test_while_a_run_is_at_work_nothing_is_vacuumed(home: Path) -> None:
    write(0)
    publish(1, 0)
    with leases.lease(CHURN, "features"), pytest.raises(Conflict, match="another run of churn is at work"):
        vacuum(CHURN, 0)


def test_what_another_tools_vacuum_notes_in_the_log_is_no_new_content(home: Path) -> None:
    for value in range(3):
        write(value)
    assert lake.content_version(TABLE) == 2
    for restored in (False, True):
        table = DeltaTable(lake.uri(TABLE))
        if restored:
            table.restore(1)
        table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False, keep_versions=[1])
        assert (lake.version(TABLE) or 0) > 2
        assert lake.content_version(TABLE) == (1 if restored else 2)
