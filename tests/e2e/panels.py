"""The boards over a home that a demo ran in: a real Prometheus scrapes the real exporter and predictor, every panel is
asked, on a good day and on a broken one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from observability import stack
from observability.grafana import generate
from observability.grafana.answers import Window, answers, panels
from observability.grafana.churn.stream import stream
from plumb.demo import demo, simulation
from plumbline import clock
from plumbline.lake import tables as lake
from plumbline.product import Product
from plumbline.servers import services
from plumbline.state import ledger
from products.churn import CHURN, LOG
from serving import launch
from transform import business_kpis as business

EMPTY_WHEN_WELL = {"Firing now", *(panel.build().title for panel in stream()[1])}
"""What is wrong, and the order stream, which the demo does not run."""

AGE = "Features' age, at most 24.1 h"
TELL = {"Alerts firing", AGE, "Gates failed", "Firing now", "Age of each table", "Failed gates"}
"""Panels that show another thing on a broken day than on a good one."""

Shown = dict[str, list[list[dict[str, Any]]]]


def assert_every_panel_answers_and_tells_a_broken_day() -> None:
    """Leaves the home's clock a day later, and a failed gate in its ledger."""
    launch.ensure(CHURN)
    stack.up(stack.Pace(interval="1s"))
    asked = simulation.traffic(60, seconds=6)
    assert asked["answers"] == {"200": 60}
    today = clock.now().date()
    simulated = simulation.outcomes(CHURN)
    assert simulated["outcomes"] == lake.rows(LOG) > 60, "the demo's own answers have outcomes too"
    window = f"{today}..{today + timedelta(days=89)}"
    assert simulated["real orders of"] == [window], "what customers really did after the demo's end"
    (kpis,) = business.kpis()
    assert kpis["predictions"] == kpis["known_outcomes"] == simulated["outcomes"]
    assert kpis["is_simulated"] is True

    with simulation.callers():  # each rate needs some in its window, however long the questions take
        good = until(CHURN, lambda shown: not (empty(shown) - EMPTY_WHEN_WELL) and not _firing(shown))
    assert values(good, "Conversion rate (simulated)") == [kpis["conversion_rate"]]
    assert values(good, AGE) == [0.0]

    demo.set_clock(clock.now() + timedelta(hours=25))
    head = {"run_id": "churn-broken", "stage": "ge_check", "as_of": clock.now().date()}
    failed = {
        "state": "GATE_FAILED",
        "seconds": 1.0,
        "error": "made up",
        "gates": {"orders_expectations": {"verdict": "failed"}},
    }
    ledger.record("churn", {**head, "state": "START"})
    ledger.record("churn", {**head, **failed})
    broken = until(CHURN, lambda shown: {"DatasetLate", "GateFailed"} <= _firing(shown))
    assert values(broken, AGE) == [25.0]
    assert values(broken, "Gates failed") == [1.0]
    assert {title for title in TELL if values(good, title) == values(broken, title)} == set()


def until(product: Product, seen: Callable[[Shown], bool], seconds: float = 120.0) -> Shown:
    """What every panel of a product's boards shows, as soon as it is as expected."""
    service = services.find(stack.PROMETHEUS)
    assert service is not None
    begun = clock.monotonic()
    while True:
        shown = _shown(f"http://{services.HOST}:{service.port}", product)
        if seen(shown):
            return shown
        assert clock.monotonic() - begun < seconds, f"without data: {empty(shown)}; firing: {_firing(shown)}"
        time.sleep(0.5)


def _shown(prometheus: str, product: Product) -> Shown:
    found: Shown = {}
    now = clock.wall().timestamp()
    for name in (name for name in generate.BOARDS if name.startswith(f"{product.name}/")):
        board = json.loads((generate.FOLDER / name).read_text())
        assert not {panel["title"] for panel in panels(board)} & set(found), "a title names one panel"
        given = answers(prometheus, board, Window(now - 120, now, 1.0))
        found |= {panel["title"]: given[panel["id"]] for panel in panels(board)}
    return found


def empty(shown: Shown) -> set[str]:
    """Panels with a target that gave nothing, or nothing that is a number."""
    return {title for title, targets in shown.items() if not all(map(numbers, targets))}


def numbers(series: list[dict[str, Any]]) -> list[float]:
    newest = [float((one.get("values") or [one["value"]])[-1][1]) for one in series]
    return [value for value in newest if value == value]


def values(shown: Shown, title: str) -> list[float]:
    return [value for target in shown[title] for value in numbers(target)]


def _firing(shown: Shown) -> set[str]:
    return {one["metric"]["alertname"] for target in shown["Firing now"] for one in target}
