"""A broken day fires for real: exporter, Prometheus and Alertmanager run, a local sink is Slack and PagerDuty.

The expressions are the committed ones; only how often they are looked at is a second instead of five, so that the
module takes under a minute.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from observability import stack
from observability.alertmanager import Waits
from plumb.main import app
from plumbline.servers import services
from plumbline.settings import settings
from tests.observability import made_up_platform as platform
from tests.observability.sink import Sink, serve

SUNDAY, MONDAY, TUESDAY, WEDNESDAY = date(1998, 6, 28), date(1998, 6, 29), date(1998, 6, 30), date(1998, 7, 1)
KEY = "0123456789abcdef0123456789abcdef"


@dataclass
class Watched:
    home: Path
    sink: Sink
    addresses: dict[str, str]

    def alerts(self, name: str) -> list[dict[str, Any]]:
        """Alertmanager's alerts of that name."""
        url = f"{self.addresses['alertmanager']}/api/v2/alerts?filter=alertname%3D%22{name}%22"
        with urllib.request.urlopen(url) as answer:  # noqa: S310
            found: list[dict[str, Any]] = json.load(answer)
        return found


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, binary: Callable[[str], Path]) -> Iterator[Watched]:
    """A platform whose clock stands at Tuesday 00:00, with Monday in force, watched; PagerDuty is the sink."""
    for name in ("prometheus", "alertmanager"):
        binary(name)
    home, sink = tmp_path_factory.mktemp("watched") / "home", Sink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLUMBLINE_HOME", str(home))
        patch.delenv("PLUMBLINE_NOW", raising=False)
        server = serve(sink)
        secrets = home / "secrets"
        secrets.mkdir(parents=True)
        for channel in ("data-platform", "ml-serving", "shop-data"):
            (secrets / f"slack-{channel}").write_text(f"{sink.url}/slack/{channel}")
        (secrets / "pagerduty").write_text(KEY)
        (secrets / "watchdog").write_text(f"{sink.url}/watchdog")
        platform.set_clock(home, datetime(1998, 6, 30, tzinfo=UTC))
        settings.cache_clear()
        platform.whole_day(SUNDAY)
        platform.whole_day(MONDAY)
        pace = stack.Pace("1s", Waits("1s", "1s", "1s", "1h", alive="1s"), f"{sink.url}/pagerduty", said_again="1s")
        try:
            yield Watched(home, sink, stack.up(pace))
        finally:
            services.stop_all()
            server.shutdown()
    settings.cache_clear()


def says(alert: str, status: str) -> Callable[[dict[str, Any]], bool]:
    """A Slack message of an alert, firing or resolved."""
    return lambda told: told["attachments"][0]["title"].startswith(f"[{status}] {alert}:")


def pages(alert: str, action: str) -> Callable[[dict[str, Any]], bool]:
    """A PagerDuty event of an alert: trigger or resolve."""
    return lambda told: told["event_action"] == action and told["payload"]["summary"].startswith(f"{alert}:")


def incident(*arguments: str) -> dict[str, Any]:
    """What `plumb incident` says."""
    done = CliRunner().invoke(app, ["incident", *arguments, "--json"], catch_exceptions=False)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_late_day_pages_its_source_alone_and_recovery_resolves_it(watched: Watched) -> None:
    begun, seen = time.monotonic(), len(watched.sink.got)
    platform.set_clock(watched.home, datetime(1998, 7, 1, 0, 6, tzinfo=UTC))
    fired, event = watched.sink.first("/pagerduty", pages("DatasetLate", "trigger"), seen)
    _, slack = watched.sink.first("/slack/shop-data", says("DatasetLate", "FIRING"), seen)
    print(f"late day: at PagerDuty after {fired - begun:.1f} s")
    assert event["routing_key"] == KEY
    assert event["payload"]["severity"] == "critical"
    assert "endpoints.churn-predictor" in event["payload"]["custom_details"]["affected"]
    assert event["payload"]["custom_details"]["runbook"] == "docs/runbooks/DatasetLate.md"
    text = slack["attachments"][0]["text"]
    assert "raw.orders: yesterday is not there, it was due at 00:05 UTC" in text
    assert "plumb incident DatasetLate" in text
    states = {alert["labels"]["dataset"]: alert["status"]["state"] for alert in watched.alerts("DatasetLate")}
    assert states == {
        "raw.orders": "active",
        "raw.customers": "active",
        "raw.returns": "active",
        "analytics.orders": "suppressed",
        "analytics.customers": "suppressed",
        "analytics.returns": "suppressed",
        "features.customers": "suppressed",
    }
    found = incident("DatasetLate")
    assert found["in_force"]["as_of"] == "1998-06-29" and len(found["firing"]) == 7
    assert found["dataset"].startswith("raw."), "the cause, not what it silences"

    begun = time.monotonic()
    platform.whole_day(TUESDAY)
    resolved, _ = watched.sink.first("/pagerduty", pages("DatasetLate", "resolve"), seen)
    watched.sink.first("/slack/shop-data", says("DatasetLate", "RESOLVED"), seen)
    print(f"late day: resolved {resolved - begun:.1f} s after the day was in force")
    late = [
        told
        for path, _, told in watched.sink.got[seen:]
        if path == "/slack/data-platform" and says("DatasetLate", "FIRING")(told)
    ]
    assert late == [], "what a late source explains was told as well"


def test_a_failed_gate_is_a_ticket_and_no_page(watched: Watched) -> None:
    begun, seen = time.monotonic(), len(watched.sink.got)
    platform.refused(WEDNESDAY)
    at, slack = watched.sink.first("/slack/data-platform", says("GateFailed", "FIRING"), seen)
    print(f"failed gate: at Slack after {at - begun:.1f} s")
    assert (
        "record_contract stopped the line; the release in force stays and is served" in slack["attachments"][0]["text"]
    )
    told = incident("GateFailed")
    assert told["way_back"] == f"plumb quarantine show {WEDNESDAY}..{WEDNESDAY}"
    assert told["last_good"]["as_of"] == "1998-06-30"
    platform.event(
        "ingest", "COMPLETE", WEDNESDAY, gates=platform.passed("record_contract"), landed_until="1998-07-02T00:00:00Z"
    )
    watched.sink.first("/slack/data-platform", says("GateFailed", "RESOLVED"), seen)
    assert not [
        told
        for path, _, told in watched.sink.got[seen:]
        if path == "/pagerduty" and "GateFailed" in told["payload"]["summary"]
    ]


def test_a_release_full_of_nulls_pages_and_undo_is_the_way_back(watched: Watched) -> None:
    begun, seen = time.monotonic(), len(watched.sink.got)
    platform.set_clock(watched.home, datetime(1998, 7, 2, tzinfo=UTC))
    platform.land(WEDNESDAY)
    platform.publish(WEDNESDAY, 10, nulls=4)
    at, event = watched.sink.first("/pagerduty", pages("DatasetIncomplete", "trigger"), seen)
    print(f"null burst: at PagerDuty after {at - begun:.1f} s")
    assert "lacks" in event["payload"]["summary"]
    told = incident("DatasetIncomplete", "--dataset", "features.customers")
    assert told["way_back"] == 'plumb releases undo --to 3 --why "DatasetIncomplete"'
    assert told["differs"]["tables.features.customers"] == [2, 3]
    assert {table["table"] for table in told["changed"]["tables"]} == set(platform.TABLES)


def test_signs_of_life_go_to_the_switch_until_nobody_watches(watched: Watched) -> None:
    def alive() -> int:
        return sum(path == "/watchdog" for path, _, _ in watched.sink.got)

    heard = alive()
    watched.sink.first("/watchdog", lambda told: True, len(watched.sink.got))
    assert alive() > heard > 1, "once is no sign of life"
    assert not [path for path, _, told in watched.sink.got if path != "/watchdog" and "Watchdog" in str(told)]
    services.stop("alertmanager")
    heard = alive()
    time.sleep(3)
    assert alive() == heard
