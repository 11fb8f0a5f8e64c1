"""The topics of the order stream: made when they are not there, left as they are when they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plumbline.errors import ServiceUnavailable
from plumbline.servers import kafka
from plumbline.servers.kafka import Broker

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

ORDERS, DEAD_LETTERS = "shop.orders", "shop.orders.dead-letters"
PARTITIONS = 4
CONFIG = {"message.timestamp.type": "LogAppendTime"}
"""Messages bear the broker's time: by default their producer says when they came, and `from_the_future` is up to it."""

TIMEOUT = 10.0
"""Seconds that a broker has to answer."""


def admin(broker: Broker) -> AdminClient:
    """A client for topics and offsets; what it has to say is said by whoever asks it."""
    from confluent_kafka.admin import AdminClient

    return AdminClient({**broker.client(), "log_level": 0, "socket.timeout.ms": int(1000 * TIMEOUT)})


def ensure(broker: Broker) -> None:
    """Makes both topics, with the broker's own number of copies. Raises ServiceUnavailable, and SettingsError for a
    login that the broker refuses."""
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.cimpl import NewTopic

    try:
        client = admin(broker)
        known = client.list_topics(timeout=TIMEOUT).topics
        lacking = [NewTopic(name, PARTITIONS, config=CONFIG) for name in (ORDERS, DEAD_LETTERS) if name not in known]
        for name, made in (client.create_topics(lacking) if lacking else {}).items():
            try:
                made.result(TIMEOUT)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another one was faster
                    raise ServiceUnavailable(f"Kafka does not make the topic {name}: {error.args[0].str()}") from None
    except KafkaException as error:
        raise kafka.failure(broker, error.args[0]) from None
