"""What a scrape of the exporter costs when the ledger has 1,000 releases: seconds, memory, bytes of the answer.

`python -m bench.exporter` makes the days (two tables that grow by a commit a day, all events of a day's stages), starts
the real exporter on them, and prints one JSON object. Some five minutes on two cores, nearly all of it making days.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import urllib.request
from datetime import date, timedelta
from typing import Any

from plumbline import clock
from plumbline.lake import tables as lake
from plumbline.progress import say
from plumbline.servers import services
from plumbline.settings import settings
from plumbline.state import ledger, objects, releases
from plumbline.state.releases import Release
from products.churn import CHURN

RELEASES, SCRAPES, PRODUCT = 1_000, 30, CHURN.name
FIRST = date(1995, 1, 1)
TABLES = ("analytics.orders", "features.customers")


def main() -> None:
    """Prints the numbers."""
    with tempfile.TemporaryDirectory(prefix="exporter") as folder:
        os.environ |= {"PLUMBLINE_HOME": folder, "PLUMBLINE_NOW": clock.end_of(_day(RELEASES)).isoformat()}
        settings.cache_clear()
        say(f"making {RELEASES:,} releases")
        for number in range(1, RELEASES + 1):
            _whole_day(number)
        try:
            print(json.dumps(_measured(), indent=1))
        finally:
            services.stop_all()


def _measured() -> dict[str, Any]:
    exporter = services.ensure(
        services.Launch(
            "exporter",
            lambda port, token: [sys.executable, "-m", "plumb", "exporter", "--port", str(port)],
            lambda port, token: services.listening(port),
        )
    )
    url = f"http://{services.HOST}:{exporter.port}/metrics"
    first, _ = _scrape(url)
    again = [_scrape(url)[0] for _ in range(SCRAPES)]
    _whole_day(RELEASES + 1)
    after, text = _scrape(url)
    memory = next(line for line in text.splitlines() if line.startswith("process_resident_memory_bytes"))
    return {
        "releases": RELEASES,
        "ledger_events": len(objects.keys(ledger.folder(PRODUCT))),
        "first_scrape_seconds": round(first, 3),
        "scrape_seconds_median": round(statistics.median(again), 4),
        "scrape_seconds_worst": round(max(again), 4),
        "scrape_seconds_after_a_new_release": round(after, 3),
        "resident_mib": round(float(memory.split()[1]) / 2**20),
        "answer_bytes": len(text),
    }


def _scrape(url: str) -> tuple[float, str]:
    begun = clock.monotonic()
    with urllib.request.urlopen(url, timeout=120) as answer:  # noqa: S310
        text = answer.read().decode()
    return clock.monotonic() - begun, text


def _day(number: int) -> date:
    return FIRST + timedelta(days=number - 1)


def _whole_day(number: int) -> None:
    """A day's commits, events and release."""
    import pyarrow as pa
    from deltalake import write_deltalake

    day = _day(number)
    for table in TABLES:
        rows = pa.table({"customer_id": pa.array(range(100)), "event_time": pa.array([clock.end_of(day)] * 100)})
        write_deltalake(lake.uri(table), rows, mode="append")
    for name in CHURN.daily_stages:
        head = {"run_id": f"{PRODUCT}-{day}", "stage": name, "as_of": day}
        ledger.record(PRODUCT, {**head, "state": "START"})
        gates = {f"{name}_gate": {"verdict": "passed"}}
        facts = {"landed": {"orders": 100}, "landed_until": clock.end_of(day).isoformat(), "release_id": number}
        ledger.record(PRODUCT, {**head, "state": "COMPLETE", "seconds": 1.0, "gates": gates, **facts})
    tables = dict.fromkeys(TABLES, number - 1)
    published = clock.end_of(day).isoformat()
    releases.publish(Release(number, PRODUCT, day, number - 1 or None, tables, {}, "", "", "", published))


if __name__ == "__main__":
    main()
