"""The live half of the gate `parity`, on real Redis, Feast and Delta: each kind of difference stops it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from feature_repo import feast_internals, live_rows, online_keys
from feature_repo import store as feature_store
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.servers import live_mark, online_store, services
from plumbline.settings import settings
from products.churn import CHURN
from serving.errors import Refused
from serving.features import OnlineFeatures
from tests import live_online
from tests.conftest import use_home
from tests.feature_repo.live_world import VIEW, land
from tests.validation import parity_world as world
from tests.validation.parity_world import NOW

FIRST, SECOND = NOW - timedelta(minutes=3), NOW - timedelta(minutes=2)
LATER = NOW - timedelta(minutes=1)
TTL = timedelta(days=7)


@pytest.fixture(scope="module")
def parity_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        yield use_home(tmp_path_factory.mktemp("live_parity"), patch)
        settings.cache_clear()
        services.stop_all()
    settings.cache_clear()


@pytest.fixture(autouse=True)
def stream(parity_home: Path) -> None:
    """Release 2 online, and a stream of two micro-batches: one row expired by a second, one at the ttl."""
    settings.cache_clear()
    world.build()
    write("q/0", FIRST, {1: 1, 2: 2, 3: None})
    write("old too", NOW - TTL, {8: 1})
    write("q/1", SECOND, {2: 5})
    expired = land("old", NOW - TTL - timedelta(seconds=1), {7: 1})
    live_rows._put(feature_store.open_store(CHURN), CHURN, VIEW, expired)  # online since before it expired


def write(batch: str, at: Any, orders: dict[int, int | None]) -> None:
    live_rows.write(CHURN, VIEW, land(batch, at, orders))


def key(customer: int) -> Any:
    return online_keys.keys(feature_store.open_store(CHURN), CHURN, [customer])[0]


def put(customer: int, **values: int) -> None:
    """Other values than the stream's, as whoever else writes to this Redis leaves them."""
    from feast.protos.feast.types.Value_pb2 import Value

    view = feature_store.open_store(CHURN).get_feature_view(VIEW)
    fields = dict(zip([f.name for f in view.features], feast_internals.row_fields(view)[1:], strict=True))
    kinds = dict(zip(fields, feast_internals.value_kinds(view), strict=True))
    for name, value in values.items():
        online_store.client().hset(key(customer), fields[name], Value(**{kinds[name]: value}).SerializeToString())


def failure() -> str:
    with pytest.raises(GateFailed) as failed:
        world.check()
    return str(failed.value)


def test_a_stream_that_is_online_as_its_table_passes() -> None:
    world.answer([1, 2, 3, 4, 8], service="churn_v3")
    world.answer([1, 2], service="churn_v2")
    told = world.check()
    assert (told["mismatches"], told[f"{VIEW}_rows"], told["answers_replayed"]) == (0, 4, 7)
    assert "4 rows of customer_activity" in told["message"]


def test_a_batch_that_comes_in_between_is_no_difference() -> None:
    """Rows of a batch that is landing: in the table alone, or online before the mark."""
    rows = land("q/2", LATER, {1: 9, 5: 1})
    assert world.check()["mismatches"] == 0
    store = feature_store.open_store(CHURN)
    live_rows._put(store, CHURN, VIEW, rows.filter(pc.field("customer_id") == 5))
    told = world.check()
    assert (told["mismatches"], told[f"{VIEW}_rows"]) == (0, 5)


def test_another_value_online_is_named_and_its_customer_is_served_no_more_until_the_stream_mends_it() -> None:
    put(2, orders_1h=6)
    told = failure()
    assert "customer_activity.orders_1h of 1 customer, such as customer 2: online 6, offline 5" in told
    served = OnlineFeatures(CHURN, "churn_v3")
    with pytest.raises(Refused) as refused:
        served.read([2])
    assert (refused.value.status, refused.value.code) == (503, "lost")
    assert served.read([1])[0].values["orders_1h"] == 1
    assert online_store.online(online_store.client(), CHURN) is not None, "the release's own rows are right"
    assert not live_online.whole(CHURN, VIEW)
    assert live_rows.repair(CHURN, VIEW) == 2, "it, and one that has expired"
    assert world.check()["mismatches"] == 0


def test_a_lost_row_a_stranger_and_an_older_row_are_named() -> None:
    store, client = feature_store.open_store(CHURN), online_store.client()
    fields = feast_internals.row_fields(store.get_feature_view(VIEW))
    client.hset(key(5), mapping=dict(zip(fields, client.hmget(key(1), fields), strict=True)))
    client.hset(key(2), fields[0], client.hget(key(1), fields[0]))  # type: ignore[arg-type]
    client.hdel(key(1), *fields)
    told = failure()
    assert "customer 1: online none, offline 1998-06-30 23:57:00" in told
    assert "customer 2: online 1998-06-30 23:57:00+00:00, offline 1998-06-30 23:58:00" in told
    assert "customer 5: online 1998-06-30 23:57:00+00:00, offline none" in told


def test_a_stream_that_redis_lost_whole_is_said_once() -> None:
    live_mark.drop(online_store.client(), CHURN, VIEW)
    assert "the mark of customer_activity: online none, offline 1998-06-30 23:58:00" in failure()


def test_an_answer_that_was_made_of_another_live_row_is_named() -> None:
    world.answer([1], service="churn_v3", orders_24h=77)
    world.answer([2], service="churn_v3", seconds_since_last_event=1)
    world.answer([4], service="churn_v3", orders_1h=0)
    world.answer([3], service="churn_v2", days_since_last_order=-1)
    world.answer([8], service="churn_v3", days_since_last_order=-1)
    told = failure()
    assert "orders_24h of 1 customer, such as customer 1, request request of 1: online 77, offline 1" in told
    assert "seconds_since_last_event of 1 customer, such as customer 2, request request of 2: online 1, offline" in told
    assert "orders_1h of 1 customer, such as customer 4, request request of 4: online 0, offline none" in told
    assert "days_since_last_order of 2 customers, such as customer " in told


def test_an_answer_names_a_row_that_the_table_has() -> None:
    """A live row that nobody landed: its event_time is none of the customer's."""
    world.answer([2], service="churn_v3")
    lake.opened(CHURN.streams[VIEW]).delete("customer_id = 2")
    live_rows.repair(CHURN, VIEW)
    told = failure()
    assert "orders_1h of 1 customer, such as customer 2, request request of 2: online 5, offline none" in told
