"""A past for the stream: as if it had been there, in books that add up, and only before its first batch."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

import pytest

from feature_repo.churn.jobs import activity
from ingestion.churn import cdnow
from ingestion.events import backfill, produce, stream_tables
from ingestion.events.stream_tables import StreamError
from plumb.demo import stream_proof
from plumbline.servers import services
from products.churn import CHURN
from tests.conftest import use_home

pytestmark = [pytest.mark.slow, pytest.mark.servers]

FIRST, LAST = date(1997, 1, 1), date(1997, 1, 20)


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    with pytest.MonkeyPatch.context() as patch:
        use_home(tmp_path_factory.mktemp("past") / "home", patch, now="1997-01-21T00:00:00Z")
        try:
            cdnow.load(until=LAST, one_in=40)
            yield backfill.backfill(activity.rows, activity.TABLE, FIRST, LAST)
        finally:
            services.stop_all()


def test_each_order_is_an_event_that_was_known_two_seconds_later(counts: dict[str, int]) -> None:
    orders = {f"order-{order['order_id']}": order for order in produce.orders(FIRST, LAST)}
    events = stream_proof.rows(stream_tables.EVENTS)
    assert counts["events"] == len(events) == len(orders) > 50
    for event in events:
        order = orders[event["event_id"]]
        assert event["known_at"] - event["event_time"] == timedelta(seconds=2)
        assert event["event_time"].date() == order["order_date"]
        assert (event["customer_id"], event["total_cents"]) == (order["customer_id"], order["total_cents"])


def test_books_and_features_are_what_plain_python_makes_of_it(counts: dict[str, int]) -> None:
    events, features = stream_proof.rows(stream_tables.EVENTS), stream_proof.rows(CHURN.streams["customer_activity"])
    assert counts["rows"] == len(features)
    assert stream_proof.of_books(events, [], stream_proof.rows(stream_tables.BOOKS)) == []
    assert stream_proof.of_features(events, features) == []
    assert stream_tables.positions() == {}, "no partition of Kafka was read"


def test_a_past_is_given_once_and_not_behind_what_was_served(counts: dict[str, int]) -> None:
    with pytest.raises(StreamError, match="a past is given to it before its first batch"):
        backfill.backfill(activity.rows, activity.TABLE, FIRST, LAST)
