"""The rows of a live view in a real Redis: written by the micro-batch, mended from the table. No Spark."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from feature_repo import feast_internals, live_rows, online_keys
from feature_repo import store as feature_store
from feature_repo.churn.jobs import activity
from feature_repo.online_rows import OnlineRows
from plumbline.contracts import contract as contracts
from plumbline.contracts import diff, quality
from plumbline.errors import ServiceUnavailable
from plumbline.lake import tables as lake
from plumbline.servers import live_mark, online_store, services
from plumbline.settings import settings
from products.churn import CHURN
from tests import live_online
from tests.feature_repo.live_world import NOW, VIEW, land, row

pytestmark = pytest.mark.usefixtures("home")
FIRST, SECOND, THIRD = (NOW - timedelta(minutes=minutes) for minutes in (3, 2, 1))
TTL = timedelta(days=7)


def online() -> dict[Any, tuple[datetime, Any, Any]]:
    """By customer the row's event_time, its orders of an hour and its newest order's second."""
    rows = OnlineRows(CHURN, VIEW)
    read = rows.read(sorted(rows.entities()))
    return {entity: (at, found.get("orders_1h"), found.get("last_order_second")) for entity, at, found in read if at}


def expected(customer: int, at: datetime, orders: int | None) -> tuple[datetime, int, int | None]:
    made = row(customer, at, orders, "")
    return at, made["orders_1h"], made["last_order_second"]


def marked() -> dict[bytes, bytes]:
    return online_store.client().hgetall(live_mark.key(CHURN, VIEW))  # type: ignore[return-value]


def key(customer: int) -> bytes:
    return bytes(online_keys.keys(feature_store.open_store(CHURN), CHURN, [customer])[0])


def write(batch: str, at: datetime, orders: dict[int, int | None]) -> int:
    return live_rows.write(CHURN, VIEW, land(batch, at, orders))


def test_a_micro_batch_is_online_and_the_mark_says_so() -> None:
    assert live_online.whole(CHURN, VIEW), "nothing of a stream that never ran is lacking"
    assert write("q/0", FIRST, {1: 1, 2: 2}) == 2
    assert write("q/1", SECOND, {2: 5, 3: None}) == 2
    assert online() == {
        1: expected(1, FIRST, 1),
        2: expected(2, SECOND, 5),
        3: expected(3, SECOND, None),
    }
    seconds = {1: FIRST, 2: SECOND, 3: SECOND}
    assert marked() == {
        b"known_at": SECOND.isoformat().encode(),
        b"batch": b"q/1",
        b"rows": b"3",
        **{key(customer): str(int(at.timestamp())).encode() for customer, at in seconds.items()},
    }
    assert live_online.whole(CHURN, VIEW, SECOND) and live_online.whole(CHURN, VIEW)
    assert not live_online.whole(CHURN, VIEW, FIRST)
    assert live_rows.repair(CHURN, VIEW) == 0, "nothing to mend"


def test_a_batch_that_is_written_again_changes_nothing() -> None:
    rows = land("q/0", FIRST, {1: 1, 2: None})
    live_rows.write(CHURN, VIEW, rows)
    before = {k: online_store.client().dump(k) for k in (key(1), key(2))}, marked()
    live_rows.write(CHURN, VIEW, rows)
    assert ({k: online_store.client().dump(k) for k in (key(1), key(2))}, marked()) == before
    assert live_rows.write(CHURN, VIEW, rows.slice(0, 0)) == 0


def test_an_older_batch_that_is_written_again_sets_no_row_back() -> None:
    first = land("q/0", FIRST, {1: 1, 2: 2})
    live_rows.write(CHURN, VIEW, first)
    write("q/1", SECOND, {2: 5})
    live_rows.write(CHURN, VIEW, first)
    assert online() == {1: expected(1, FIRST, 1), 2: expected(2, SECOND, 5)}
    assert live_online.whole(CHURN, VIEW, SECOND)


def test_whatever_lies_in_redis_a_repair_ends_at_the_table() -> None:
    """A lost row, half a row, one that is older, one that is newer, one that nobody landed, a key that is no hash."""
    write("q/0", FIRST, dict.fromkeys(range(1, 7), 1))
    write("q/1", SECOND, {6: 4})
    due = {**{customer: expected(customer, FIRST, 1) for customer in range(1, 6)}, 6: expected(6, SECOND, 4)}
    assert online() == due
    client, store = online_store.client(), feature_store.open_store(CHURN)
    stamp, *features = feast_internals.row_fields(store.get_feature_view(VIEW))
    old, new = client.hget(key(1), stamp), client.hget(key(6), stamp)
    client.hdel(key(1), stamp, *features)
    client.hdel(key(2), features[0])
    client.hset(key(6), stamp, old)  # type: ignore[arg-type]
    client.hset(key(3), stamp, new)  # type: ignore[arg-type]
    client.hset(key(99), mapping=client.hgetall(key(4)))  # type: ignore[arg-type]
    client.delete(key(5))
    client.set(key(5), "a text")
    assert live_rows.repair(CHURN, VIEW) == 6
    assert online() == due
    assert (marked()[b"rows"], set(marked()) & {key(99)}) == (b"6", set())
    assert live_rows.repair(CHURN, VIEW) == 0


def test_a_redis_that_lost_all_gets_all_with_the_next_batch_and_never_a_part() -> None:
    write("q/0", FIRST, {1: 1, 2: 2})
    online_store.client().flushall()
    assert not live_online.whole(CHURN, VIEW, FIRST)
    write("q/1", SECOND, {2: 3})
    assert online() == {1: expected(1, FIRST, 1), 2: expected(2, SECOND, 3)}
    assert live_online.whole(CHURN, VIEW, SECOND) and marked()[b"rows"] == b"2"


def test_what_is_killed_between_rows_and_mark_is_finished_by_the_same_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    write("q/0", FIRST, {1: 1})
    rows = land("q/1", SECOND, {1: 2})

    def killed(*_: Any) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(live_mark, "advance", killed)
        with pytest.raises(KeyboardInterrupt):
            live_rows.write(CHURN, VIEW, rows)
    assert online() == {1: expected(1, SECOND, 2)} and live_online.whole(CHURN, VIEW, FIRST)
    live_rows.write(CHURN, VIEW, rows)
    assert live_online.whole(CHURN, VIEW, SECOND) and live_rows.repair(CHURN, VIEW) == 0


def test_an_expired_row_goes_and_is_brought_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """At its last second within the ttl a row is online, a second later it is not; the mark knows the newest batch."""
    write("q/0", NOW - TTL - timedelta(seconds=1), {1: 1})
    write("q/1", NOW - TTL, {2: 1})
    assert live_rows.repair(CHURN, VIEW) == 0
    assert online() == {2: expected(2, NOW - TTL, 1)} and marked()[b"rows"] == b"1"
    monkeypatch.setenv("PLUMBLINE_NOW", (NOW + timedelta(seconds=1)).isoformat())
    settings.cache_clear()
    assert live_rows.repair(CHURN, VIEW) == 1
    assert online() == {} and marked()[b"rows"] == b"0" and live_online.whole(CHURN, VIEW, NOW - TTL)


def test_a_stream_whose_table_is_gone_has_nothing_online(home: Path) -> None:
    import shutil

    write("q/0", FIRST, {1: 1})
    shutil.rmtree(home / "lake" / "features" / "customer_activity")
    assert live_rows.repair(CHURN, VIEW) == 1
    assert online() == {} and marked() == {} and live_online.whole(CHURN, VIEW)


def test_other_views_fields_stay() -> None:
    write("q/0", FIRST, {1: 1})
    client = online_store.client()
    client.hset(key(1), mapping={"_ts:customer_features": b"t", b"\x01\x02\x03\x04": b"v"})
    client.hset(key(7), mapping={"_ts:customer_features": b"t"})
    client.hdel(key(1), "_ts:customer_activity")
    assert live_rows.repair(CHURN, VIEW) == 1
    assert client.hmget(key(1), ["_ts:customer_features", b"\x01\x02\x03\x04"]) == [b"t", b"v"]
    assert client.hgetall(key(7)) == {b"_ts:customer_features": b"t"}


def test_a_redis_that_is_away_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    write("q/0", FIRST, {1: 1})
    rows = land("q/1", SECOND, {1: 2})
    put = live_rows._put

    def and_then_it_dies(*given: Any) -> None:
        put(*given)
        services.stop("redis")

    with monkeypatch.context() as patch:
        patch.setattr(live_rows, "_put", and_then_it_dies)
        with pytest.raises(ServiceUnavailable, match="the online store does not answer .*: the rows are in the lake"):
            live_rows.write(CHURN, VIEW, rows)
    live_rows.write(CHURN, VIEW, rows)
    assert online() == {1: expected(1, SECOND, 2)} and live_online.whole(CHURN, VIEW, SECOND)


def test_a_mark_that_is_lost_under_a_write_is_no_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis loses all between the look at the mark and its move: the batch's own rows alone must not stand there."""
    write("q/0", FIRST, {1: 1, 2: 1})
    upto, client = live_mark.upto, online_store.client()

    def and_then_all_is_lost(*given: Any) -> Any:
        found = upto(*given)
        client.flushall()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(live_mark, "upto", and_then_all_is_lost)
        write("q/1", SECOND, {2: 2})
    assert online() == {1: expected(1, FIRST, 1), 2: expected(2, SECOND, 2)}
    assert live_online.whole(CHURN, VIEW, SECOND) and marked()[b"rows"] == b"2"


def test_the_table_is_what_its_contract_promises_and_a_wrong_row_is_not() -> None:
    contract = contracts.load(activity.TABLE)

    def broken() -> list[str]:
        table = lake.open_table(activity.TABLE)
        return [rule.name for rule, _, told in quality.run(contract.rules, table) if told]

    land("q/0", FIRST, {1: 1, 2: None})
    assert diff.of_table(activity.TABLE, 0, contract) == [] and broken() == []
    land("q/1", FIRST, {1: -1, 2: None})
    assert broken() == ["one_row_each", "windows_within_each_other", "spend_within_each_other", "an_order_has_a_time"]


def test_a_redis_that_went_back_to_an_older_state_is_not_whole() -> None:
    """As one does that lost its last second: what was online a batch ago is online again, mark and all."""
    write("q/0", FIRST, {1: 1})
    client = online_store.client()
    before = {k: client.dump(k) for k in client.scan_iter()}
    write("q/1", SECOND, {1: 2})
    for k, dump in before.items():
        client.restore(k, 0, dump, replace=True)
    assert online() == {1: expected(1, FIRST, 1)} and not live_online.whole(CHURN, VIEW)
    write("q/2", THIRD, {2: 3})
    assert online() == {1: expected(1, SECOND, 2), 2: expected(2, THIRD, 3)} and live_online.whole(CHURN, VIEW, THIRD)
    live_mark.doubt(online_store.client(), CHURN, VIEW)
    assert not live_online.whole(CHURN, VIEW) and marked()[key(1)] == str(int(SECOND.timestamp())).encode()
    client.hdel(key(1), "_ts:customer_activity")
    write("q/3", THIRD + timedelta(seconds=1), {2: 4})
    assert online()[1] == expected(1, SECOND, 2), "what was in doubt is mended with the next batch"
