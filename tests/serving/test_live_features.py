"""A service that asks for a live view too: what the stream brought, what it did not, and what Redis lost of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from feature_repo import feast_internals, live_rows, online_keys
from feature_repo import store as feature_store
from feature_repo.churn import definitions
from plumbline.servers import live_mark, online_store
from products.churn import CHURN
from serving.errors import Refused
from serving.features import OnlineFeatures
from tests.feature_repo.live_world import VIEW, land
from tests.serving.made_up_customers import FULL, KNOWN, NOW, SPARSE, UNKNOWN

pytestmark = pytest.mark.usefixtures("_home_settings")
AT = NOW - timedelta(seconds=30)
TTL, SECOND = timedelta(days=7), timedelta(seconds=1)
AT_TTL, EXPIRED, OTHER = KNOWN[:3]
LIVE = ["orders_1h", "orders_24h", "spend_cents_1h", "spend_cents_24h", "seconds_since_last_event"]


@pytest.fixture
def features(serving_home: Path) -> Iterator[OnlineFeatures]:
    """The service churn_v3 over a stream with a micro-batch half a minute ago; afterwards the stream never ran."""
    for batch, at, orders in (
        ("q/0", NOW - TTL - SECOND, {EXPIRED: 3}),
        ("q/1", NOW - TTL, {AT_TTL: 3}),
        ("q/2", AT, {FULL: 2, OTHER: None, UNKNOWN: 1}),
    ):
        rows = land(batch, at, orders)
        if batch == "q/0":
            live_rows.write(CHURN, VIEW, land("q/0", AT, {KNOWN[9]: 1}))  # so that there is a mark
        live_rows.write(CHURN, VIEW, rows)
    yield OnlineFeatures(CHURN, "churn_v3")
    shutil.rmtree(serving_home / "lake" / "features" / "customer_activity")
    live_rows.repair(CHURN, VIEW)


def refusal(features: OnlineFeatures, *customers: int) -> Refused:
    with pytest.raises(Refused) as refused:
        features.read(list(customers))
    return refused.value


def live(features: OnlineFeatures, customer: int) -> dict[str, Any]:
    (row,) = features.read([customer])
    return {name: row.values[name] for name in LIVE}


def key(customer: int) -> Any:
    return online_keys.keys(feature_store.open_store(CHURN), CHURN, [customer])[0]


def fields() -> list[Any]:
    return feast_internals.row_fields(feature_store.open_store(CHURN).get_feature_view(VIEW))


def test_the_newest_order_is_whichever_view_has_it() -> None:
    day, none = 86_400, float("nan")
    given = {
        "last_order_day": [10, 12, 10, None, None, none, 0],
        "last_order_second": [12 * day, 10 * day, None, 12 * day + 5, None, none, 0],
        "request_time": [13 * day - 1] * 6 + [day],
    }
    computed = definitions.live_recency.feature_transformation.udf(given)
    assert computed == {"days_since_last_order": [0, 0, 2, 0, None, None, 1]}


def test_both_views_are_read_each_with_its_age(features: OnlineFeatures) -> None:
    full, sparse = features.read([FULL, SPARSE])
    assert {name: full.values[name] for name in LIVE} == {
        "orders_1h": 2,
        "orders_24h": 2,
        "spend_cents_1h": 200 + FULL,
        "spend_cents_24h": 200 + FULL,
        "seconds_since_last_event": 40,
    }
    assert full.values["avg_ticket"] == 1000.0 + FULL and full.values["orders_7d"] == 0, "the snapshot's 7 days"
    assert full.ages == {"customer_features": 86400.0, VIEW: 30.0}
    assert (full.age_seconds, full.event_time) == (86400.0, NOW - timedelta(hours=24)), "the release's own"
    assert sparse.ages == {"customer_features": 86400.0, VIEW: None} and sparse.times[VIEW] is None
    assert set(features.names) == set(full.values)


def test_no_activity_within_the_ttl_is_null_and_not_zero(features: OnlineFeatures) -> None:
    """Never in the stream; expired by a second; and, for the other side, at the ttl, and an order older than 7 days."""
    nulls = dict.fromkeys(LIVE)
    assert live(features, SPARSE) == live(features, EXPIRED) == nulls
    assert live(features, AT_TTL)["orders_1h"] == 3
    assert live(features, OTHER) == {**dict.fromkeys(LIVE, 0), "spend_cents_1h": OTHER, "spend_cents_24h": OTHER} | {
        "seconds_since_last_event": None
    }


def test_an_online_row_is_what_the_historical_join_of_the_table_gives(features: OnlineFeatures) -> None:
    from plumbline.lake import tables as lake
    from validation.point_in_time import Offline

    names = ["orders_1h", "orders_24h", "spend_cents_1h", "spend_cents_24h"]
    table = CHURN.streams[VIEW]
    version = lake.version(table)
    assert version is not None
    offline = Offline(table, version, "customer_id", TTL, names)
    asked = [FULL, SPARSE, AT_TTL, EXPIRED, OTHER]
    joined = offline.joined([(customer, NOW) for customer in asked])
    expected = [row.values if row else dict.fromkeys(names) for row in joined]
    assert [{name: row.values[name] for name in names} for row in features.read(asked)] == expected


def test_what_redis_lost_of_the_stream_is_refused(features: OnlineFeatures) -> None:
    """Gone, or older than the stream's mark says; the others are answered, and so are services of the snapshot."""
    client = online_store.client()
    client.hdel(key(FULL), *fields())
    stamp = fields()[0]
    client.hset(key(OTHER), stamp, client.hget(key(AT_TTL), stamp))  # type: ignore[arg-type]
    lost = refusal(features, FULL, OTHER, SPARSE)
    assert (lost.status, lost.code, set(lost.reasons)) == (503, "lost", {FULL, OTHER})
    assert f"the stream brought a row of {VIEW}" in lost.reasons[FULL]
    assert live(features, AT_TTL)["orders_1h"] == 3
    assert OnlineFeatures(CHURN, "churn_v2").read([FULL])[0].ages == {"customer_features": 86400.0}


def test_a_broken_live_row_concerns_its_customer_alone(features: OnlineFeatures) -> None:
    online_store.client().hdel(key(FULL), fields()[1])
    broken = refusal(features, FULL, AT_TTL)
    assert (broken.status, set(broken.reasons)) == (503, {FULL})
    assert "customer_activity lacks orders_1h" in broken.reasons[FULL]
    online_store.client().hdel(key(EXPIRED), fields()[1])
    assert live(features, EXPIRED) == dict.fromkeys(LIVE), "what has expired is not looked at"


def test_a_row_that_is_newer_than_the_mark_is_served(features: OnlineFeatures) -> None:
    """Rows are written before the mark moves: a customer's first one among them."""
    client, mark = online_store.client(), live_mark.key(CHURN, VIEW)
    client.hdel(mark, key(FULL))
    client.hset(mark, key(OTHER), str(int((AT - SECOND).timestamp())))
    assert live(features, FULL)["orders_1h"] == 2 and live(features, OTHER)["orders_1h"] == 0


def test_a_live_row_of_a_customer_whom_the_release_does_not_know_answers_nothing(features: OnlineFeatures) -> None:
    assert online_store.client().exists(key(UNKNOWN))
    refused = refusal(features, UNKNOWN)
    assert (refused.status, set(refused.reasons)) == (404, {UNKNOWN})


@pytest.mark.parametrize("left", ["nothing", "something else"])
def test_without_a_mark_nothing_of_the_stream_is_online(features: OnlineFeatures, left: str) -> None:
    client, mark = online_store.client(), live_mark.key(CHURN, VIEW)
    client.delete(mark)
    if left != "nothing":
        client.set(mark, "a text")
    refused = refusal(features, FULL, SPARSE)
    assert (refused.status, refused.code, set(refused.reasons)) == (503, "nothing_online", {FULL, SPARSE})
    assert "nothing of customer_activity is online" in str(refused)
    assert OnlineFeatures(CHURN, "churn_v1").read([FULL])[0].release_id == 7
    client.delete(mark)


def test_a_live_row_from_the_future_is_refused(features: OnlineFeatures) -> None:
    live_rows.write(CHURN, VIEW, land("q/9", NOW + timedelta(hours=1), {SPARSE: 1}))
    assert "from the future: customer_activity" in refusal(features, SPARSE).reasons[SPARSE]
