"""Where the job begins, by a real broker and made-up books: what was held, what is lost, whose topic it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from ingestion.events import offsets, topics
from ingestion.events.stream_tables import StreamError
from plumbline.errors import SettingsError
from plumbline.servers.kafka import Broker
from tests.private_broker import private_broker

pytestmark = pytest.mark.servers


@pytest.fixture
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with private_broker(tmp_path_factory.mktemp("offsets")) as found:
        yield found


def send(broker: Broker, partition: int, count: int) -> None:
    from confluent_kafka import Producer

    client = Producer({**broker.client(), "log_level": 0})
    for _ in range(count):
        client.produce(topics.ORDERS, value=b"{}", partition=partition)
    assert client.flush(20) == 0


def delete(broker: Broker, partition: int, until: int) -> None:
    from confluent_kafka import TopicPartition

    admin, place = topics.admin(broker), TopicPartition(topics.ORDERS, partition, until)
    admin.delete_records([place])[place].result(10)


def test_only_what_lies_behind_a_position_that_was_held_is_lost(
    broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    send(broker, 1, 7)
    delete(broker, 1, 7)
    first = offsets.begin(broker, {})
    assert (first.starts, first.lost) == ({0: 0, 1: 7, 2: 0, 3: 0}, {})
    assert "partition 1 of shop.orders begins at offset 7: the broker has none before it" in capsys.readouterr().err
    landed = {(topics.ORDERS, 0): 0}
    again = offsets.begin(broker, landed)
    assert (again.starts, again.lost, again.checkpoint) == (first.starts, {}, first.checkpoint)
    assert "begins at" not in capsys.readouterr().err
    send(broker, 1, 3)
    delete(broker, 1, 10)
    with pytest.raises(StreamError, match=r"partition 1 of shop\.orders: 7 to 9 \(3\)"):
        offsets.begin(broker, landed)
    accepted = offsets.begin(broker, landed, accept_loss=True)
    assert (accepted.starts[1], accepted.lost) == (10, {(topics.ORDERS, 1): (7, 10)})
    assert accepted.checkpoint != first.checkpoint


def test_a_partition_that_was_added_and_never_held_begins_where_the_broker_does(broker: Broker) -> None:
    from confluent_kafka.cimpl import NewPartitions

    first = offsets.begin(broker, {})
    admin = topics.admin(broker)
    admin.create_partitions([NewPartitions(topics.ORDERS, 5)])[topics.ORDERS].result(10)
    send(broker, 4, 5)
    delete(broker, 4, 5)
    added = offsets.begin(broker, {})
    assert (added.starts[4], added.lost) == (5, {})
    assert added.checkpoint != first.checkpoint, "Spark refuses a new partition that does not begin at 0"
    assert offsets.begin(broker, {}).checkpoint == added.checkpoint


def test_the_end_is_the_high_watermark_so_an_open_transaction_lags(broker: Broker) -> None:
    from confluent_kafka import Producer

    client = Producer({**broker.client(), "transactional.id": "a shop", "log_level": 0})
    client.init_transactions()
    client.begin_transaction()
    client.produce(topics.ORDERS, value=b"{}", partition=2)
    client.flush()
    assert offsets.partitions(broker)[2].end == 1
    client.abort_transaction()


def test_a_login_that_the_broker_refuses_is_no_broker_that_is_silent(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topics, "TIMEOUT", 2.0)
    wrong = replace(broker, password="wrong")
    for ask in (topics.ensure, offsets.partitions):
        with pytest.raises(SettingsError, match="refuses the login of plumbline: see USER:PASSWORD"):
            ask(wrong)
