"""An undo reaches Redis, byte by byte, through real Spark, Feast and Redis."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pyarrow.compute as pc
import pytest
from deltalake import write_deltalake
from test_store import LAST, TABLE, release, write_snapshot

from feature_repo import feast_internals, live_rows, online_rows
from feature_repo import store as feature_store
from feature_repo.materialize import materialize
from plumbline import clock
from plumbline.lake import spark
from plumbline.lake import tables as lake
from plumbline.pipeline.undo import undo
from plumbline.servers import live_mark, online_store
from products.churn import CHURN
from serving.errors import Refused
from serving.features import OnlineFeatures
from tests.feature_repo.live_world import VIEW, land

DAY_BEFORE = LAST - timedelta(days=1)
NEWCOMERS = 5


def online() -> dict[bytes, dict[bytes, bytes]]:
    """Every hash in Redis with the bytes of every field, but for the note of which release is online."""
    client = online_store.client()
    keys = [key for key in client.scan_iter() if key != CHURN.online_mark.encode()]
    return {key: client.hgetall(key) for key in keys}


@pytest.fixture
def before(with_spark: None, home: Path) -> dict[bytes, dict[bytes, bytes]]:
    """Release 1 with 200 customers, as it is online."""
    write_snapshot(DAY_BEFORE, 1)
    release(DAY_BEFORE, 1)
    materialize(CHURN)
    return online()


def publish_second(day: date = LAST) -> None:
    """Release 2: every customer has other values, and some are new."""
    write_snapshot(day, 2)
    session = spark.session()
    session.sql(
        f"SELECT * FROM delta.`{lake.uri(TABLE)}` WHERE release_id = 2 AND customer_id <= {NEWCOMERS}"
    ).selectExpr("customer_id + 1000 AS customer_id", "* EXCEPT (customer_id)").write.format("delta").mode(
        "append"
    ).save(lake.uri(TABLE))
    release(day, 2)


def keep(rows: pc.Expression) -> None:
    held = lake.open_table(TABLE).to_pyarrow_table()
    write_deltalake(lake.uri(TABLE), held.filter(rows), mode="overwrite")


def test_after_an_undo_every_byte_in_redis_is_as_before_the_publish(before: dict[bytes, dict[bytes, bytes]]) -> None:
    assert len(before) == 200
    assert lake.open_table(TABLE).metadata().configuration.items() >= lake.KEEP_LOG.items()
    publish_second()
    materialize(CHURN)
    during = online()
    assert len(during) == 200 + NEWCOMERS
    assert all(during[key] != held for key, held in before.items())

    made = undo(CHURN, why="it was wrong")
    told = materialize(CHURN)
    assert (told["release_id"], told["removed_rows"]) == (made.release_id, NEWCOMERS)
    assert online() == before, "keys, values, timestamps"
    assert online_store.online(online_store.client(), CHURN) == (3, clock.end_of(DAY_BEFORE))


def test_a_day_run_again_replaces_what_was_never_taken_offline(before: dict[bytes, dict[bytes, bytes]]) -> None:
    publish_second()
    materialize(CHURN)
    undo(CHURN, why="it was wrong")  # and nobody materialized it
    write_snapshot(LAST, 4)
    keep(pc.field("release_id") != 2)  # the run would have built on release 3
    release(LAST, 4)
    told = materialize(CHURN)
    assert told["removed_rows"] == NEWCOMERS, "customers of the undone release"
    assert set(online()) == set(before)
    rewritten = online()
    assert all(rewritten[key] != held for key, held in before.items())


def test_customers_that_left_go_in_a_daily_run_too(before: dict[bytes, dict[bytes, bytes]]) -> None:
    """What the order stream brought stays as it is; of a customer who left it answers nothing."""
    publish_second()
    materialize(CHURN)
    live_rows.write(CHURN, VIEW, land("q/0", clock.now() - timedelta(minutes=1), {1: 2, 1001: 3}))
    store, client = feature_store.open_store(CHURN), online_store.client()
    fields = feast_internals.row_fields(store.get_feature_view(VIEW))
    stays, left = feast_internals.entity_keys(store, CHURN, [1, 1001])
    live = [client.hmget(key, fields) for key in (stays, left)]
    third = LAST + timedelta(days=1)
    write_snapshot(third, 3)  # without the newcomers
    keep(pc.field("customer_id") <= 200)
    release(third, 3)
    assert materialize(CHURN)["removed_rows"] == NEWCOMERS
    assert set(online()) == {*before, left, live_mark.key(CHURN, VIEW).encode()}
    assert [client.hmget(key, fields) for key in (stays, left)] == live
    assert len(client.hgetall(left)) == len(fields), "nothing of the release's"
    with pytest.raises(Refused) as refused:
        OnlineFeatures(CHURN, "churn_v3").read([1001])
    assert refused.value.status == 404


def test_rows_that_redis_lost_are_written_again(before: dict[bytes, dict[bytes, bytes]]) -> None:
    client = online_store.client()
    assert materialize(CHURN)["state"] == "unchanged"
    client.delete(*sorted(before)[:3])
    whole, written = online_rows.counts(CHURN) or (0, 0)
    assert written - whole == 3
    assert materialize(CHURN)["state"] == "done"
    assert online_rows.counts(CHURN) == (written, written)
    assert online() == before
