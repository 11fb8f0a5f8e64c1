"""What is read online, and what is told apart: unknown, expired, null, not materialized, away."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from plumbline import clock
from plumbline.servers import online_store, services
from products.churn import CHURN
from serving.errors import Refused, ServingError
from serving.features import PAUSE, TIMEOUT
from tests.serving.made_up_customers import (
    AT_TTL,
    EXPIRED,
    FULL,
    FUTURE,
    KNOWN,
    NOW,
    RELEASE,
    SPARSE,
    TTL,
    UNKNOWN,
    eventually,
    mark_online,
    put_online,
)

pytestmark = pytest.mark.usefixtures("_home_settings")


@pytest.fixture(scope="module")
def features(serving_home: Path) -> Any:
    from serving.features import OnlineFeatures

    return OnlineFeatures(CHURN, "churn_v1")


def refusal(features: Any, *customers: int) -> Refused:
    with pytest.raises(Refused) as refused:
        features.read(list(customers))
    return refused.value


def test_rows_come_in_the_order_asked_with_age_and_release(features: Any) -> None:
    rows = features.read([KNOWN[3], FULL, KNOWN[3]])
    assert [row.key for row in rows] == [KNOWN[3], FULL, KNOWN[3]]
    assert {row.release_id for row in rows} == {RELEASE}
    assert rows[1].event_time == NOW - timedelta(hours=24)
    assert rows[1].age_seconds == 86400
    assert rows[1].values["avg_ticket"] == 1000.0 + FULL
    assert set(rows[1].values) == set(features.names)


def test_what_depends_on_the_request_is_computed_by_the_on_demand_view(features: Any) -> None:
    today = NOW.timestamp() // 86400
    assert features.read([FULL])[0].values["days_since_last_order"] == today - (10408 - FULL)


def test_a_null_is_an_answer(features: Any) -> None:
    values = features.read([SPARSE])[0].values
    assert [name for name, value in values.items() if value is None] == ["avg_ticket_30d", "days_between_orders"]


def test_an_unknown_customer_refuses_the_batch_and_is_named(features: Any) -> None:
    refused = refusal(features, FULL, UNKNOWN, UNKNOWN - 1)
    assert refused.status == 404
    assert set(refused.reasons) == {UNKNOWN, UNKNOWN - 1}
    assert str(UNKNOWN) in str(refused)


def test_the_views_ttl_holds_online(features: Any) -> None:
    assert features.read([AT_TTL])[0].age_seconds == TTL.total_seconds()
    refused = refusal(features, FULL, EXPIRED)
    assert (refused.status, refused.retry_after) == (503, 60)
    assert set(refused.reasons) == {EXPIRED}
    assert "1209601 s old; its ttl is 1209600 s" in refused.reasons[EXPIRED]


def test_a_row_from_the_future_is_not_scored(features: Any) -> None:
    refused = refusal(features, FUTURE)
    assert refused.status == 503
    assert refused.reasons[FUTURE].startswith("from the future")


def test_while_nothing_is_materialized_nobody_is_unknown(features: Any) -> None:
    online_store.client().delete(CHURN.online_mark)
    try:
        assert features.read([FULL])[0].release_id == RELEASE  # in mid-materialization a row names its release
        refused = refusal(features, UNKNOWN)
        assert refused.status == 503
        assert "nothing is materialized" in str(refused)
    finally:
        mark_online()


def test_an_empty_store_is_not_a_crowd_of_strangers(features: Any) -> None:
    online_store.client().flushall()
    try:
        refused = refusal(features, FULL)
        assert (refused.status, refused.retry_after) == (503, 30)
    finally:
        put_online()
    assert features.read([FULL])


def test_a_redis_that_hangs_is_waited_for_once_and_then_left_alone_for_a_while(
    features: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each wait for Redis is noted with the seconds it may last: one of them, then none until the pause is over."""
    from redis.connection import AbstractConnection

    waited: list[float | None] = []
    read_response, now = AbstractConnection.read_response, time.monotonic()

    def noted(connection: Any, *given: Any, **named: Any) -> Any:
        waited.append(connection.socket_timeout)
        return read_response(connection, *given, **named)

    features.read([FULL])  # connected
    redis = services.find("redis")
    assert redis is not None
    monkeypatch.setattr(AbstractConnection, "read_response", noted)
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    os.kill(redis.pid, signal.SIGSTOP)
    try:
        assert "does not answer (TimeoutError)" in str(refusal(features, FULL))
        assert waited == [TIMEOUT]
        assert "a moment ago" in str(refusal(features, FULL))
        assert waited == [TIMEOUT]
    finally:
        os.kill(redis.pid, signal.SIGCONT)
    assert "a moment ago" in str(refusal(features, FULL)), "whoever is back is asked after the pause"
    now += PAUSE
    assert features.read([FULL]) and len(waited) > 1


def test_a_redis_that_was_killed_and_started_elsewhere_is_found(features: Any) -> None:
    redis = services.find("redis")
    assert redis is not None
    os.kill(redis.pid, signal.SIGKILL)
    refused = refusal(features, FULL)
    assert (refused.status, refused.retry_after) == (503, 1)
    online_store.url()
    again = services.find("redis")
    assert again is not None
    assert again.token != redis.token
    assert eventually(lambda: read_or_none(features))


def test_an_unknown_feature_service_is_named(serving_home: Path) -> None:
    from serving.features import OnlineFeatures

    with pytest.raises(
        ServingError, match=r"'churn_v9' is not applied; the registry has \['churn_v1', 'churn_v2', 'churn_v3'\]"
    ):
        OnlineFeatures(CHURN, "churn_v9")


def read_or_none(features: Any) -> Any:
    try:
        return features.read([FULL])
    except Refused:
        return None


def test_a_read_asks_for_as_much_the_hundredth_time(features: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Feast's store adds the row's time to the list of features that it is given: one that is kept would grow."""
    from redis.client import Pipeline

    asked: list[int] = []
    hmget = Pipeline.hmget

    def counted(pipeline: Any, key: Any, fields: Any) -> Any:
        asked.append(len(fields))
        return hmget(pipeline, key, fields)

    monkeypatch.setattr(Pipeline, "hmget", counted)
    for _ in range(100):
        features.read([FULL])
    assert len(asked) == 100 and len(set(asked)) == 1
