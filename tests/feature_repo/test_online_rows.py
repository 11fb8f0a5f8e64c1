"""Rows in a real Redis, without Spark: whose they are, what they hold, and what is left of others in the same Redis."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from feature_repo import feast_internals, online_keys, online_rows
from feature_repo import store as feature_store
from plumbline import clock
from plumbline.servers import online_mark, online_store
from plumbline.settings import settings
from products.churn import CHURN
from tests.validation import parity_world as world
from tests.validation.parity_world import DAYS, NULLS, N


@pytest.fixture
def rows(home: Path) -> online_rows.OnlineRows:
    """Release 2 of the made-up world, online, and a newcomer whom release 1 does not know."""
    tables = world.build()
    world.write(world.changed(tables[2], 1, customer_id=5_000))
    return online_rows.OnlineRows(CHURN, CHURN.view)


def test_a_row_is_read_as_it_was_written(rows: online_rows.OnlineRows) -> None:
    assert len(rows.entities()) == N
    nobody, row = rows.read([77_777, NULLS])
    assert nobody == (77_777, None, {})
    customer, stamp, values = row
    assert (customer, stamp, values["release_id"]) == (NULLS, clock.end_of(DAYS[2]), 2)
    assert values["avg_ticket"] is None
    assert set(values) == set(rows.names)


def test_who_is_removed_is_gone_and_the_mark_stays(rows: online_rows.OnlineRows) -> None:
    assert rows.remove({1, 2, 77_777}) == 2
    assert len(rows.entities()) == N - 2
    assert online_store.online(online_store.client(), CHURN) == (2, clock.end_of(DAYS[2]))


def feast_key(project: str, names: list[str], **value: Any) -> bytes:
    """A key as Feast writes it."""
    from feast.infra.online_stores.helpers import _redis_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    return _redis_key(project, EntityKey(join_keys=names, entity_values=[Value(**value) for _ in names]), 3)


def our_key(customer: int) -> bytes:
    return feast_key("churn", ["customer_id"], int64_val=customer)


def strangers() -> set[bytes]:
    """Puts keys of others into Redis, most of which end in our project's name, and gives them."""
    client = online_store.client()
    fields = dict.fromkeys(
        feast_internals.row_fields(feature_store.open_store(CHURN).get_feature_view(CHURN.view)), b"x"
    )
    hashes = [
        feast_key("team_churn", ["customer_id"], int64_val=1),
        feast_key("team_churn", ["customer_id"], int64_val=777_777),
        feast_key("churn", ["order_id"], int64_val=1),
        feast_key("churn", ["customer_id"], int32_val=1),
        feast_key("churn", ["customer_id"], string_val="1"),
        feast_key("churn", ["customer_id", "shop_id"], int64_val=1),
        our_key(1).replace(b"churn", b"CHURN"),
        b"\x00" + our_key(1),
        our_key(1)[1:],
        our_key(1).removesuffix(b"churn") + b"\x00churn",
        b"\xff\xff\xff\xffchurn",
        b"churn",
    ]
    for key in hashes:
        client.hset(key, mapping=fields)
    client.set("stats:churn", 17)
    client.rpush("jobs:churn", 1, 2)
    client.sadd("seen:churn", "a")
    client.zadd("rank:churn", {"a": 1})
    client.xadd("log:churn", {"a": "1"})
    return {*hashes, b"stats:churn", b"jobs:churn", b"seen:churn", b"rank:churn", b"log:churn"}


def test_keys_of_another_project_entity_or_kind_are_neither_read_nor_touched(rows: online_rows.OnlineRows) -> None:
    """Another team's project whose name ends in ours, counters, queues: a shared Redis holds them all."""
    client, ours = online_store.client(), rows.entities()
    foreign = strangers()
    dumps = {key: client.dump(key) for key in foreign}
    assert rows.entities() == ours and 777_777 not in ours
    assert [stamp is not None for _, stamp, _ in rows.read([1, 2, 777_777])] == [True, True, False]
    assert rows.remove(ours | {777_777}) == len(ours)
    assert {key: client.dump(key) for key in foreign} == dumps
    assert set(client.keys()) - foreign == {CHURN.online_mark.encode()}


def test_a_sweep_takes_our_views_fields_and_leaves_another_views(rows: online_rows.OnlineRows) -> None:
    client = online_store.client()
    client.hset(our_key(1), mapping={"_ts:other_view": b"t", b"\x01\x02\x03\x04": b"v"})
    client.hset(our_key(66_666), mapping={"_ts:other_view": b"t"})
    assert 66_666 not in rows.entities(), "another view's row is none of ours"
    assert rows.remove({1, 2, 66_666}) == 2
    assert client.hgetall(our_key(1)) == {b"_ts:other_view": b"t", b"\x01\x02\x03\x04": b"v"}
    assert client.exists(our_key(2)) == 0, "nothing was left in it"
    assert client.hgetall(our_key(66_666)) == {b"_ts:other_view": b"t"}


def test_a_row_is_whole_when_every_feature_is_there_and_is_of_its_type(rows: online_rows.OnlineRows) -> None:
    """Half a row, bytes that do not decode, a value of another type, no time, a key that is no hash."""
    from feast.protos.feast.types.Value_pb2 import Value

    store, client = feature_store.open_store(CHURN), online_store.client()
    stamp, tenure, *_ = feast_internals.row_fields(store.get_feature_view(CHURN.view))
    sound = online_keys.whole(store, CHURN, CHURN.view, client)
    assert None not in sound.values() and len(sound) == N
    client.hdel(our_key(1), tenure)
    client.hset(our_key(2), tenure, b"\xff\xff\xff\xff")
    client.hset(our_key(3), tenure, Value(string_val="seven").SerializeToString())
    client.hdel(our_key(4), stamp)
    client.hset(our_key(5), stamp, b"\xff\xff\xff")
    client.delete(our_key(6))
    client.set(our_key(6), b"x")
    client.delete(our_key(7))
    damaged = online_keys.whole(store, CHURN, CHURN.view, client)
    assert {customer for customer, event_time in damaged.items() if event_time is None} == {1, 2, 3, 4, 5, 6}
    assert damaged.keys() == sound.keys() - {7}
    assert all(time is None for _, time, _ in rows.read([1, 2, 3, 4, 5, 6, 7])), "a gate that reads names them all"
    assert rows.remove({1, 2, 3, 4, 5, 6, 7}) == 6


def test_whole_rows_are_counted_beside_those_that_were_written(rows: online_rows.OnlineRows) -> None:
    client = online_store.client()
    assert online_rows.counts(CHURN) is None, "a mark without a number of rows is from before it had one"
    online_mark.write(client, CHURN, 2, clock.end_of(DAYS[2]), [our_key(customer) for customer in range(1, N + 1)])
    assert online_rows.counts(CHURN) == (N, N)
    client.delete(our_key(1))
    client.hdel(our_key(2), "_ts:customer_features")
    assert online_rows.counts(CHURN) == (N - 2, N)
    shutil.rmtree(settings().home / "feast")
    assert online_rows.counts(CHURN) == (N - 2, N), "an exporter in a container has Redis and no registry"
    client.delete(CHURN.online_mark)
    assert online_rows.counts(CHURN) is None
