"""Orders of the shop as messages on a real broker: each once, by customer, with just the faults that were asked for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest

from ingestion.events import order_events, produce, topics
from ingestion.events.order_events import DeadLetter, Event
from ingestion.events.produce import Faults, Message, ProduceError, Sent
from plumbline import clock
from plumbline.errors import ServiceUnavailable, SettingsError
from plumbline.servers import kafka, services
from plumbline.servers.kafka import Broker
from tests.private_broker import private_broker

DAY = date(1997, 10, 7)
ORDERS: list[dict[str, Any]] = [
    {"order_id": n, "customer_id": n % 17, "order_date": DAY, "units": 1 + n % 3, "total_cents": 100 * n}
    for n in range(1, 2_001)
]
ALL = Faults(duplicates=0.1, late=0.05, out_of_order=0.1, malformed=0.02, wrong_typed=0.03)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with private_broker(tmp_path_factory.mktemp("kafka")) as found:
        yield found


def given(faults: Faults) -> tuple[list[Message], Sent]:
    sent = Sent()
    return list(produce.messages((produce.event(order) for order in ORDERS), faults, sent)), sent


def read(message: Message) -> Event | DeadLetter:
    return order_events.read(*message, datetime(1997, 10, 8, tzinfo=UTC))


def test_an_order_is_the_same_event_each_time_at_a_second_of_its_day() -> None:
    events = [read(produce.event(order)) for order in ORDERS]
    assert all(isinstance(one, Event) for one in events)
    found = [one for one in events if isinstance(one, Event)]
    assert [(e.order_id, e.customer_id, e.units, e.total_cents) for e in found] == [
        tuple(order[name] for name in ("order_id", "customer_id", "units", "total_cents")) for order in ORDERS
    ]
    assert {e.event_time.date() for e in found} == {DAY}
    assert len({e.event_time.hour for e in found}) == 24
    assert [produce.event(order) for order in ORDERS] == [produce.event(order) for order in ORDERS]


def test_without_faults_each_order_is_sent_once_in_order() -> None:
    sent, counts = given(Faults())
    assert sent == [produce.event(order) for order in ORDERS]
    assert (counts.events, counts.messages) == (2_000, 2_000)


def test_faults_are_as_many_as_asked_for_and_lose_no_order() -> None:
    sent, counts = given(ALL)
    assert sent == given(ALL)[0] and sent != given(Faults(**{**ALL.__dict__, "seed": 8}))[0]
    assert len(sent) == counts.messages
    results = [read(one) for one in sent]
    reasons = Counter(one.reason for one in results if isinstance(one, DeadLetter))
    assert reasons == {"malformed": counts.malformed, "wrong_type": counts.wrong_typed}
    ids = Counter(one.event_id for one in results if isinstance(one, Event))
    assert set(ids) == {f"order-{order['order_id']}" for order in ORDERS}
    assert sum(ids.values()) - len(ids) == counts.duplicates
    shares = (counts.duplicates, counts.late, counts.out_of_order, counts.malformed, counts.wrong_typed)
    expected = (0.1, 0.05, 0.1, 0.02, 0.03)
    assert all(abs(n / 2_000 - share) < 0.03 for n, share in zip(shares, expected, strict=True)), shares
    places = {one.event_id: n for n, one in enumerate(results) if isinstance(one, Event)}
    moved = sum(places[f"order-{n}"] > places[f"order-{n + 150}"] for n in range(1, 1_850))
    assert counts.late * 0.8 <= moved <= counts.late


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(ProduceError, match=r"late is 1\.5, expected a share from 0 to 1"):
        Faults(late=1.5)


@pytest.mark.servers
def test_the_broker_has_what_was_sent_by_customer(broker: Broker) -> None:
    sent, counts = given(ALL)
    produce.produce(broker, iter(sent), 0, counts)
    assert sum(counts.partitions.values()) == len(sent)
    received = _all(broker, len(sent))
    assert Counter((key, value) for _, key, value in received) == Counter(sent)
    of_customer: dict[bytes, set[int]] = {}
    for partition, key, _ in received:
        of_customer.setdefault(key, set()).add(partition)
    assert {len(partitions) for partitions in of_customer.values()} == {1}
    by_customer = {key: [value for _, k, value in received if k == key] for key in of_customer}
    assert by_customer == {key: [value for k, value in sent if k == key] for key in of_customer}


@pytest.mark.servers
def test_a_rate_is_kept(broker: Broker) -> None:
    counts = produce.produce(broker, iter([produce.event(order) for order in ORDERS[:100]]), 200, Sent(events=100))
    assert counts.seconds >= 99 / 200


@pytest.mark.servers
def test_the_private_broker_lets_nobody_in_without_the_password(broker: Broker) -> None:
    with pytest.raises(ServiceUnavailable, match=f"Kafka at {broker.servers} does not answer"):
        _briefly(Broker(broker.servers, None, None, tls=False))
    with pytest.raises(SettingsError, match=f"Kafka at {broker.servers} refuses the login of plumbline"):
        _briefly(Broker(broker.servers, "plumbline", "guess", tls=False))


@pytest.mark.servers
def test_a_broker_that_is_gone_is_said_with_how_many_it_has(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(produce, "FLUSHED_WITHIN", 2.0)
    nobody = Broker(f"127.0.0.1:{services.free_port()}", None, None, tls=False)
    with pytest.raises(ProduceError, match=r"the broker has 0 of 1 messages: .* the same again sends duplicates alone"):
        produce.produce(nobody, iter([produce.event(ORDERS[0])]), 0, Sent())


@pytest.mark.servers
def test_a_message_bears_the_broker_s_time_whatever_its_producer_says(broker: Broker) -> None:
    from confluent_kafka.admin import ConfigResource, ResourceType

    topic = ConfigResource(ResourceType.TOPIC, topics.ORDERS)
    client = topics.admin(broker)
    (found,) = client.describe_configs([topic]).values()
    assert found.result(10)["message.timestamp.type"].value == "LogAppendTime"


@pytest.mark.servers
def test_a_killed_broker_comes_back_with_its_topics(broker: Broker) -> None:
    before = _ends(broker)
    services.stop(kafka.NAME, grace=0)
    assert _ends(kafka.broker()) == before and sum(before.values()) > 0


@pytest.mark.parametrize(
    ("url", "protocol", "servers"),
    [
        ("kafka://a:9092", "PLAINTEXT", "a:9092"),
        ("kafka://a:9092,b:9093/", "PLAINTEXT", "a:9092,b:9093"),
        ("kafkas://u:p%40ss@a:9092,b:9092", "SASL_SSL", "a:9092,b:9092"),
        ("kafkas://a:9092", "SSL", "a:9092"),
    ],
)
def test_a_url_says_where_the_broker_is_and_how_it_lets_us_in(url: str, protocol: str, servers: str) -> None:
    found = kafka.read(url)
    assert (found.protocol, found.servers) == (protocol, servers)
    assert (found.password == "p@ss") is ("p%40ss" in url)
    assert found.spark()["kafka.bootstrap.servers"] == found.client()["bootstrap.servers"] == servers


@pytest.mark.parametrize(
    "url", ["a:9092", "http://a:9092", "kafka://a", "kafka://u@a:9092", "kafka://a:9092/x", "kafka://"]
)
def test_a_url_that_is_none_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(SettingsError, match=r"PLUMBLINE_KAFKA_URL: expected kafka://HOST:PORT") as told:
        kafka.read(url)
    assert url == "kafka://" or url not in str(told.value)


def test_a_password_stays_whole_in_spark_s_configuration() -> None:
    login = Broker("a:1", "u", 'p"a\\s;s', tls=True).spark()["kafka.sasl.jaas.config"]
    assert login.endswith('username="u" password="p\\"a\\\\s;s";')


def _all(broker: Broker, count: int) -> list[tuple[int, bytes, bytes]]:
    from confluent_kafka import Consumer

    client = Consumer({**broker.client(), "group.id": "a test", "auto.offset.reset": "earliest", "log_level": 0})
    client.subscribe([topics.ORDERS])
    found: list[tuple[int, bytes, bytes]] = []
    deadline = clock.monotonic() + 30
    while len(found) < count and clock.monotonic() < deadline:
        for m in client.consume(1_000, 1.0):
            found.append((m.partition() or 0, m.key() or b"", m.value() or b""))
    client.close()
    return found


def _ends(broker: Broker) -> dict[int, int]:
    from confluent_kafka import Consumer, TopicPartition

    client = Consumer({**broker.client(), "group.id": "ends", "log_level": 0})
    partitions = client.list_topics(topics.ORDERS, timeout=20).topics[topics.ORDERS].partitions
    ends = {n: client.get_watermark_offsets(TopicPartition(topics.ORDERS, n), timeout=20)[1] for n in partitions}
    client.close()
    return ends


def _briefly(broker: Broker) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topics, "TIMEOUT", 3.0)
        topics.ensure(broker)


def test_messages_are_json_that_anyone_reads() -> None:
    _, value = produce.event(ORDERS[0])
    assert json.loads(value)["event_id"] == "order-1"
