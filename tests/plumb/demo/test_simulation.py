"""Simulated outcomes: from the customer, the action and what really happened, and from nothing else."""

from __future__ import annotations

import inspect
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from ingestion.churn import cdnow as shop
from plumb.demo import simulation
from plumb.demo.simulated_responses import CALLS, WON_BACK, respond
from plumb.demo.simulation import SimulationError
from plumbline import clock
from plumbline.lake import tables as lake
from plumbline.settings import settings
from products.churn import CHURN
from serving.churn import log as outcome_log
from serving.churn import outcomes

LATE, EARLY = datetime(1998, 7, 1, tzinfo=UTC), datetime(1997, 10, 1, 9, 30, tzinfo=UTC)
CUSTOMERS = range(1, 301)


def log(request: str, customers: range, at: datetime, version: str = "1", track: str = "stable") -> None:
    """Predictions as the predictor logs them; a customer's score depends on the customer alone."""
    head = {"at": at, "logged_at": clock.wall(), "features": "{}", "event_time": at, "features_age_seconds": 0.0}
    head |= {"release_id": 2, "model_version": version, "track": track}
    rows = [{**head, "request_id": f"{request}-{c}", "customer_id": c, "score": c % 10 / 10} for c in customers]
    outcome_log.append(rows)


def simulated() -> dict[str, dict[str, object]]:
    rows = lake.open_table(outcomes.TABLE).to_pyarrow_table().to_pylist()
    assert len({(row["request_id"], row["customer_id"]) for row in rows}) == len(rows)
    return {row["request_id"]: row for row in rows}


def test_a_response_is_given_nothing_that_names_a_model() -> None:
    assert list(inspect.signature(respond).parameters) == ["customer_id", "action", "ordered", "seed"]


def test_contacting_wins_customers_back_and_costs_calls() -> None:
    """The assumed rates, over many customers; no single customer is lost by being contacted."""
    n = 20_000
    for ordered in (True, False):
        left = [respond(c, "none", ordered, 1) for c in range(n)]
        contacted = [respond(c, "contact", ordered, 1) for c in range(n)]
        assert all(after.ordered >= before.ordered for before, after in zip(left, contacted, strict=True))
        assert all(before.ordered is ordered for before in left)
        assert sum(r.ordered for r in contacted) / n == pytest.approx(1.0 if ordered else WON_BACK, abs=0.01)
        for action, found in (("none", left), ("contact", contacted)):
            assert sum(r.called_support for r in found) / n == pytest.approx(CALLS[action, ordered], abs=0.01)  # type: ignore[index]
            assert all((r.handle_seconds is not None) is r.called_support for r in found)
    assert respond(7, "contact", False, 1) == respond(7, "contact", False, 1)
    assert any(respond(c, "contact", False, 1) != respond(c, "contact", False, 2) for c in range(100))


def test_two_versions_with_the_same_scores_get_the_same_outcomes(home: Path) -> None:
    log("a", CUSTOMERS, LATE, version="1", track="stable")
    log("b", CUSTOMERS, LATE, version="2", track="canary")
    told = simulation.outcomes(CHURN)
    found = simulated()
    assert told["outcomes"] == len(found) == 600
    for customer in CUSTOMERS:
        one, other = ({**found[f"{who}-{customer}"], "request_id": "", "recorded_at": ""} for who in "ab")
        assert one == other
    assert {row["simulated"] for row in found.values()} == {True}
    assert {c for c in CUSTOMERS if found[f"a-{c}"]["contacted"]} == {c for c in CUSTOMERS if c % 10 >= 8}


def test_again_changes_nothing_and_new_predictions_join(home: Path) -> None:
    log("a", CUSTOMERS, LATE)
    simulation.outcomes(CHURN)
    before, version = simulated(), lake.version(outcomes.TABLE)
    assert simulation.outcomes(CHURN)["outcomes"] == 0
    assert lake.version(outcomes.TABLE) == version
    log("c", range(1, 11), LATE)
    assert simulation.outcomes(CHURN)["outcomes"] == 10
    assert {name: row for name, row in simulated().items() if name in before} == before


def test_what_stands_behind_an_outcome_is_what_the_customer_did_in_the_window_that_it_names(home: Path) -> None:
    """After the request where CDNOW reaches so far, else its last 90 days; against a loop over the file."""
    log("early", CUSTOMERS, EARLY)
    log("late", CUSTOMERS, LATE)
    simulation.outcomes(CHURN)
    ordered: dict[int, list[date]] = {}
    for order in shop.read(shop.packaged()):
        ordered.setdefault(order.customer_id, []).append(order.order_date)
    windows = {"early": (date(1997, 10, 1), date(1997, 12, 29)), "late": (date(1998, 4, 2), date(1998, 6, 30))}
    found = simulated()
    for who, (start, end) in windows.items():
        rows = [found[f"{who}-{customer}"] for customer in CUSTOMERS]
        assert {(row["window_start"], row["window_end"]) for row in rows} == {(start, end)}
        real = [any(start <= day <= end for day in ordered[customer]) for customer in CUSTOMERS]
        assert [row["really_ordered"] for row in rows] == real
        assert 0.05 < sum(real) / len(real) < 0.6


def test_nothing_is_made_up_for_a_shop_that_is_not_the_demos(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SimulationError, match="plumb simulate traffic"):
        simulation.outcomes(CHURN)
    log("a", CUSTOMERS, LATE)
    monkeypatch.setenv("PLUMBLINE_SHOP_URL", "postgresql+psycopg://shop")
    settings.cache_clear()
    with pytest.raises(SimulationError, match="recorded, not simulated"):
        simulation.outcomes(CHURN)
