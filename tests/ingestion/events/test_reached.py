"""Whether the stream has reached a day's end: by its books, and by what a real broker holds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import pytest

from ingestion.events import produce, reached, topics
from plumbline import clock
from plumbline.errors import NotYet
from plumbline.servers import kafka, services
from plumbline.settings import ROOT, settings
from tests import made_up_stream
from tests.conftest import use_home
from tests.made_up_stream import DAY, FIRST, Stream

pytestmark = pytest.mark.usefixtures("home")


def test_a_home_without_a_stream_has_nothing_to_wait_for() -> None:
    assert reached.ask(DAY) == reached.Answer(DAY, "never", "no order stream ever ran in this home")
    assert reached.require(DAY).over


def test_a_batch_that_counts_from_the_next_day_closes_the_day() -> None:
    made_up_stream.days().write()
    answer = reached.ask(FIRST)
    assert (answer.state, answer.known_at) == ("reached", datetime(1998, 6, 30, 23, tzinfo=UTC))
    assert answer.message == "the newest batch counts from 1998-06-30 23:00:00 UTC"


def test_a_batch_at_midnight_itself_is_of_the_next_day() -> None:
    stream = made_up_stream.days((FIRST,))
    for row in stream.books[-2:]:
        row |= {"known_at": clock.end_of(FIRST), "known_date": DAY}
    Stream(books=stream.books, events=stream.events[:1]).write()
    assert reached.ask(FIRST).state == "reached"


def test_a_day_that_is_not_over_is_not_reached() -> None:
    made_up_stream.days().write()
    answer = reached.ask(DAY + timedelta(days=1))
    assert (answer.state, answer.message) == (
        "behind",
        "1998-07-01 is not over: the clock says 1998-07-01 00:00 UTC",
    )


def test_a_broker_that_does_not_answer_leaves_what_lacks_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    made_up_stream.days().write()
    monkeypatch.setenv("PLUMBLINE_KAFKA_URL", f"kafka://127.0.0.1:{services.free_port()}")
    monkeypatch.setattr(topics, "TIMEOUT", 0.5)
    settings.cache_clear()
    answer = reached.ask(DAY)
    assert answer.state == "behind"
    assert "before the end of 1998-06-30; what it lacks is not known: Kafka at 127.0.0.1" in answer.message


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kafka.Broker]:
    """A broker with 40 messages of one customer, so in one partition."""
    with pytest.MonkeyPatch.context() as patch:
        use_home(tmp_path_factory.mktemp("kafka"), patch)
        try:
            found = kafka.broker()
            topics.ensure(found)
            order = {"customer_id": 7, "order_date": date(1998, 6, 30), "units": 1, "total_cents": 100}
            events = [produce.event({"order_id": n, **order}) for n in range(40)]
            produce.produce(found, iter(events), 0, produce.Sent())
            yield found
        finally:
            services.stop_all()


@pytest.mark.servers
def test_a_quiet_night_is_over_when_all_that_the_topic_holds_has_landed(
    broker: kafka.Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLUMBLINE_KAFKA_URL", f"kafka://{broker.user}:{broker.password}@{broker.servers}")
    settings.cache_clear()
    stream = made_up_stream.days((DAY,))
    (full,) = [lag.partition for lag in reached.lagging(broker) if lag.messages == 40]
    book = dict(stream.books[-2], partition=full, from_offset=0, until_offset=33, messages=33, landed=33)
    event = dict(stream.events[-7], partition=full)
    Stream(books=[book], events=[event]).write()
    with pytest.raises(NotYet) as raised:
        reached.require(DAY)
    assert raised.value.exit_code == 6
    assert str(raised.value) == (
        "the order stream has not reached the end of 1998-06-30: the newest batch counts from 1998-06-30 23:00:00 UTC, "
        f"before the end of 1998-06-30: shop.orders partition {full}: 7 messages behind, its newest event that landed "
        f"is of {event['event_time']:%Y-%m-%d %H:%M:%S}. Look whether it runs, or land what is there by `plumb events "
        "run --once`; then run the same again"
    )
    command = [sys.executable, "-m", "plumb", "events", "reached", "--day", "1998-06-30", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 6, done.stderr
    assert json.loads(done.stdout)["lags"][0]["messages"] == 7
    rest = {"from_offset": 33, "until_offset": 40, "messages": 7, "landed": 7, "batch": "0b8f/99"}
    Stream(books=[book | rest | {"known_at": book["known_at"] + timedelta(seconds=1)}]).write()
    assert reached.ask(DAY).state == "reached"
    assert reached.ask(DAY).message.startswith("all that the topic holds has landed")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)["state"]) == (0, "reached")


@pytest.mark.servers
def test_the_marks_that_end_a_transaction_and_what_was_aborted_do_not_lag(broker: kafka.Broker) -> None:
    from confluent_kafka import Producer

    places = {lag.partition: lag for lag in reached.lagging(broker)}
    empty = next(number for number, lag in places.items() if not lag.messages)
    client = Producer({**broker.client(), "transactional.id": "a shop", "log_level": 0})
    client.init_transactions()

    def behind() -> int:
        return next(lag.messages for lag in reached.lagging(broker) if lag.partition == empty)

    client.begin_transaction()
    client.produce(topics.ORDERS, value=b"{}", partition=empty)
    client.flush()
    assert behind() == 1, "one that is open may come to something"
    client.abort_transaction()
    assert behind() == 0
    client.begin_transaction()
    client.produce(topics.ORDERS, value=b"{}", partition=empty)
    client.commit_transaction()
    assert behind() > 0
