"""The outcome log stays few files, however often predictors append to it; old versions and the judge's tail live on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from plumbline.errors import Conflict
from plumbline.lake import tables as lake
from plumbline.settings import settings
from plumbline.state import leases
from products.churn import CHURN
from serving.churn.log import TABLE, append, schema
from serving.compaction import Compacted, compact
from serving.judge.log import Tail
from serving.outcome_log import RETENTION

AT = datetime(1998, 7, 1, tzinfo=UTC)


@pytest.fixture
def _log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PLUMBLINE_HOME", str(tmp_path))
    settings.cache_clear()
    yield
    monkeypatch.undo()
    settings.cache_clear()


def write(commits: range) -> None:
    for number in commits:
        append([{"request_id": str(number), "customer_id": number, "logged_at": AT, "score": 0.5, "track": "stable"}])


def ids(version: int | None = None) -> list[int]:
    return sorted(lake.opened(TABLE, version).to_pyarrow_table(columns=["customer_id"])["customer_id"].to_pylist())


@pytest.mark.usefixtures("_log")
def test_many_appends_become_one_file_with_the_same_rows_and_old_versions_stay() -> None:
    for done in range(0, 240, 60):
        write(range(done, done + 60))
        before = lake.version(TABLE)
        compacted = compact(CHURN)
        assert compacted.after == 1 and compacted.before <= 61 and compacted.removed == 0
        assert ids() == list(range(done + 60))
        assert ids(before) == ids(), "the version before is still read"
    assert ids(30) == list(range(31))
    assert compact(CHURN).before == 1


@pytest.mark.usefixtures("_log")
def test_the_table_says_how_long_files_are_kept_also_when_it_is_from_before() -> None:
    import pyarrow as pa
    from deltalake import write_deltalake

    write_deltalake(lake.uri(TABLE), pa.Table.from_pylist([{"request_id": "old"}], schema=schema()))
    compact(CHURN)
    assert RETENTION.items() <= lake.opened(TABLE).metadata().configuration.items()


@pytest.mark.usefixtures("_log")
def test_a_new_table_says_how_long_files_are_kept() -> None:
    write(range(1))
    assert RETENTION.items() <= lake.opened(TABLE).metadata().configuration.items()


@pytest.mark.usefixtures("_log")
def test_whoever_follows_the_log_reads_each_row_once() -> None:
    tail = Tail(TABLE, ["customer_id"], "logged_at", AT - timedelta(hours=1))
    read: list[dict[str, Any]] = []
    for done in range(0, 30, 10):
        write(range(done, done + 5))
        read += tail.read()
        write(range(done + 5, done + 9))
        compact(CHURN)
        write(range(done + 9, done + 10))
        read += tail.read()
    assert sorted(row["customer_id"] for row in read) == list(range(30))


@pytest.mark.usefixtures("_log")
def test_without_a_log_there_is_nothing_to_do_and_two_compactions_do_not_meet() -> None:
    assert compact(CHURN) == Compacted(0, 0, 0)
    write(range(2))
    with leases.hold(CHURN.name, "compact_log", "compaction"), pytest.raises(Conflict):
        compact(CHURN)
