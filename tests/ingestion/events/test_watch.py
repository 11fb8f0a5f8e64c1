"""What the stream tells of itself, of made-up batches: what is fresh and what is late, where it is scraped, lineage."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from ingestion.events import stream_tables, watch
from ingestion.events.landing import Counts, Landed
from observability.server import targets
from plumbline import clock
from plumbline.lineage import sending
from plumbline.servers import services
from plumbline.servers.kafka import Broker
from plumbline.settings import settings
from tests.plumbline.lineage import openlineage_rules

NOBODY = Broker("127.0.0.1:1", None, None, False)
TOPIC = "shop.orders"


def batch(low: int, ages: list[tuple[float, float]], dead: int = 0) -> Landed:
    """Of one partition; `ages` of each event: seconds from the order to the broker, and to now."""
    now, appended = clock.now().timestamp(), clock.wall().timestamp()
    landed = Landed("q/1", clock.now())
    count = len(ages) + dead
    landed.partitions[TOPIC, 0] = Counts(low, low + count - 1, count, len(ages), 0, dead)
    landed.reasons = {"malformed": dead} if dead else {}
    landed.event_times = np.array([(now - old) * 1e6 for _, old in ages], dtype="int64")
    landed.appended = np.array([(appended - old + sent) * 1e6 for sent, old in ages], dtype="int64")
    return landed


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, {"product": "churn", **labels}) or 0.0


def counted() -> dict[str, float]:
    freshness = "events_freshness_seconds"
    return {
        "late": sample("events_late_total"),
        "all": sample(f"{freshness}_count"),
        "in 5 s": sample(f"{freshness}_bucket", le="5.0"),
        "in 10 s": sample(f"{freshness}_bucket", le="10.0"),
    }


@pytest.mark.parametrize("shift", [0, -10_000])
def test_an_event_that_its_sender_held_back_is_late_and_not_stale(
    shift: int, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker's clock is the real one whatever the platform's is."""
    monkeypatch.setenv("PLUMBLINE_CLOCK_SHIFT_DAYS", str(shift))
    settings.cache_clear()
    told, before = watch.Watch(NOBODY, "features.customer_activity"), counted()
    told.batch(batch(0, [(0.1, 3), (0.1, 8), (59, 62), (61, 63), (86_400, 86_401)]), clock.now(), 1.0, {})
    now = counted()
    assert {name: now[name] - before[name] for name in now} == {"late": 2, "all": 3, "in 5 s": 1, "in 10 s": 2}


def test_a_stretch_is_told_once_by_its_offsets_and_what_came_of_it(home: Path) -> None:
    told = watch.Watch(NOBODY, "features.customer_activity")
    told.batch(batch(10, [(0, 1)] * 3, dead=2), clock.now(), 1.0, {})
    told.batch(batch(15, [(0, 1)] * 4), clock.now(), 1.0, {})
    from deltalake import write_deltalake

    from plumbline.lake import tables as lake

    for _ in range(2):
        write_deltalake(lake.uri(stream_tables.EVENTS), _rows(), mode="append")
    told.tell()
    told.tell()
    (event,) = sending.lines(sending.path())
    assert (event["eventType"], event["job"]["name"]) == ("COMPLETE", "order_stream")
    (read,), (wrote,) = event["inputs"], event["outputs"]
    assert (read["namespace"], read["name"]) == ("kafka://127.0.0.1:1", TOPIC)
    assert read["inputFacets"].pop("plumbline_offsets")["partitions"] == {"0": {"from": 10, "until": 19}}
    assert (wrote["name"], wrote["facets"]["version"]["datasetVersion"]) == (stream_tables.EVENTS, "1")
    assert wrote["outputFacets"]["outputStatistics"]["rowCount"] == 7
    assert openlineage_rules.broken(event) == []
    assert sending.failures() == 0


def test_the_home_knows_where_a_stream_is_scraped_while_it_runs(home: Path) -> None:
    with watch.served(services.HOST, 0, noted=True):
        watch.Watch(NOBODY, "features.customer_activity")
        (target,) = targets()
        assert target["labels"] == {"job": "order-stream"}
        with urllib.request.urlopen(f"http://{target['targets'][0]}/metrics") as answer:
            text = answer.read().decode()
        assert 'events_dead_letters_total{product="churn",reason="changed"} 0.0' in text
    assert targets() == []


def test_a_run_that_drains_and_ends_is_not_watched(home: Path) -> None:
    with watch.served(services.HOST, 0, noted=False):
        assert services.find("events") is None


def _rows() -> Any:
    import pyarrow as pa

    return pa.table({"event_id": ["a"], "known_at": [clock.now()]})
