"""A private Kafka for a test, with both topics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingestion.events import topics
from plumbline.servers import kafka, services
from plumbline.servers.kafka import Broker
from tests.conftest import use_home


@contextmanager
def private_broker(home: Path) -> Iterator[Broker]:
    """A broker of that home, stopped at the end."""
    with pytest.MonkeyPatch.context() as patch:
        use_home(home, patch)
        try:
            found = kafka.broker()
            topics.ensure(found)
            yield found
        finally:
            services.stop_all()
