"""The outcome log: bounded, never in an answer's way, and nothing lost that the lake would have taken."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from plumbline.contracts import contract as contracts
from plumbline.lake import tables as lake
from plumbline.settings import settings
from products.churn import CHURN
from serving.churn.log import TABLE, append, schema
from serving.outcome_log import OutcomeLog
from tests.serving.made_up_customers import eventually

Rows = list[dict[str, Any]]


def rows(count: int, first: int = 0) -> Rows:
    return [{"customer_id": first + i} for i in range(count)]


def dropped(reason: str) -> float:
    return REGISTRY.get_sample_value("outcome_log_dropped_total", {"product": "churn", "reason": reason}) or 0.0


def test_a_full_batch_is_written_without_waiting() -> None:
    written: list[Rows] = []
    log = OutcomeLog(CHURN, written.append, batch=3, seconds=3600)
    log.add(rows(2))
    log.add(rows(1, first=2))
    eventually(lambda: written)
    assert written == [rows(3)]
    log.close()


def test_a_few_rows_are_written_when_the_first_has_waited_long_enough() -> None:
    written: list[Rows] = []
    log = OutcomeLog(CHURN, written.append, batch=1000, seconds=0.05)
    log.add(rows(2))
    assert eventually(lambda: written) == [rows(2)]
    log.close()


def test_closing_writes_what_waits_and_takes_no_more() -> None:
    written: list[Rows] = []
    log = OutcomeLog(CHURN, written.append, seconds=3600)
    log.add(rows(2))
    log.close()
    assert written == [rows(2)]
    before = dropped("full")
    log.add(rows(1))
    assert dropped("full") == before + 1


def test_a_slow_lake_costs_rows_and_no_time() -> None:
    writing, go_on, over, written = threading.Event(), threading.Event(), threading.Event(), []

    def write(batch: Rows) -> None:
        writing.set()
        go_on.wait(10)
        over.set()
        written.append(batch)

    before = dropped("full")
    log = OutcomeLog(CHURN, write, capacity=10, batch=1, seconds=3600)
    log.add(rows(1))
    assert writing.wait(10)
    log.add(rows(25, first=1))
    assert not over.is_set(), "the rows were taken while the lake was still at the first"
    assert dropped("full") == before + 15
    go_on.set()
    log.close()
    assert written == [rows(1), rows(10, first=1)]


def test_a_lake_that_refuses_is_asked_again_and_gets_all_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    written: list[Rows] = []
    failures = iter([True, True])

    def write(batch: Rows) -> None:
        if next(failures, False):
            raise OSError("disk is full")
        written.append(batch)

    log = OutcomeLog(CHURN, write, batch=2, seconds=0.05)
    log.add(rows(2))
    eventually(lambda: written)
    log.close()
    assert [row for batch in written for row in batch] == rows(2)
    assert "2 rows not written to serving.predictions" in capsys.readouterr().err


def test_a_lake_that_fails_with_a_stack_is_told_of_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def write(batch: Rows) -> None:
        raise OSError("No space left on device\nstack backtrace:\n   0: rust_begin_unwind")

    log = OutcomeLog(CHURN, write, seconds=3600)
    log.add(rows(1))
    log.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert "No space left on device" in line


def test_a_lake_that_goes_on_refusing_is_asked_less_and_less_often() -> None:
    tries: list[float] = []

    def write(batch: Rows) -> None:
        tries.append(time.monotonic())
        raise OSError("disk is full")

    log = OutcomeLog(CHURN, write, seconds=0.1)
    log.add(rows(1))
    eventually(lambda: len(tries) >= 4)
    log.close()
    assert tries[3] - tries[2] > 0.35, "four times the first wait"


def test_rows_that_a_closing_log_cannot_write_are_counted() -> None:
    def write(batch: Rows) -> None:
        raise OSError("disk is full")

    before = dropped("closed")
    log = OutcomeLog(CHURN, write, seconds=3600)
    log.add(rows(4))
    log.close()
    assert dropped("closed") == before + 4


def test_the_table_is_made_by_its_first_rows_and_read_back_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLUMBLINE_LAKE", str(tmp_path))
    settings.cache_clear()
    at = datetime(1998, 7, 1, tzinfo=UTC)
    row = {
        "request_id": "a",
        "at": at,
        "logged_at": at,
        "customer_id": 2**63 - 1,
        "features": json.dumps({"avg_ticket_30d": None}),
        "event_time": at,
        "features_age_seconds": 86400.0,
        "release_id": 7,
        "model_version": "1",
        "track": "stable",
        "score": 0.25,
        "revision": "6d5f8c9b7",
        "activity_event_time": at,
    }
    append([row])
    append([row])
    assert lake.open_table(TABLE).to_pyarrow_table().to_pylist() == [row, row]
    assert lake.version(TABLE) == 1
    monkeypatch.undo()
    settings.cache_clear()


def test_a_table_from_before_revisions_takes_rows_with_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa
    from deltalake import write_deltalake

    monkeypatch.setenv("PLUMBLINE_LAKE", str(tmp_path))
    settings.cache_clear()
    before = pa.schema([field for field in schema() if field.name != "revision"])
    write_deltalake(lake.uri(TABLE), pa.Table.from_pylist([{"request_id": "old"}], schema=before))
    append([{"request_id": "new", "revision": "6d5f8c9b7"}])
    append([{"request_id": "outside a rollout"}])
    read = lake.open_table(TABLE).to_pyarrow_table(columns=["request_id", "revision"]).to_pylist()
    assert {row["request_id"]: row["revision"] for row in read} == {
        "old": None,
        "new": "6d5f8c9b7",
        "outside a rollout": None,
    }
    monkeypatch.undo()
    settings.cache_clear()


def test_the_contract_has_the_columns_that_are_written() -> None:
    written = {field.name: str(field.type) for field in schema()}
    types = {"bigint": "int64", "double": "double", "string": "string", "timestamp": "timestamp[us, tz=UTC]"}
    promised = contracts.load(TABLE).columns
    assert {name: types[column.type] for name, column in promised.items()} == written
