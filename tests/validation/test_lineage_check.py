"""The gate before training: a whole lineage passes, and each event that is taken away is missed by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plumbline import files
from plumbline.errors import GateFailed
from plumbline.lineage import sending
from plumbline.pipeline import undo
from plumbline.settings import settings
from plumbline.state import ledger, releases
from products.churn import CHURN
from tests.plumbline.lineage import made_up_day
from tests.plumbline.lineage.made_up_day import DAY, NEXT
from training import audit
from validation import lineage_check


@pytest.fixture(autouse=True)
def _two_days(home: Path) -> None:
    made_up_day.run_day(DAY)
    made_up_day.run_day(NEXT)


def without(stage: str, kind: str, which: int) -> None:
    """Takes one event out of the file: the which-th of that stage and kind."""
    events = list(sending.lines(sending.path()))
    named = [e for e in events if e["job"]["name"] == f"retail_features.{stage}" and e["eventType"] == kind]
    events.remove(named[which])
    sending.path().write_text("".join(json.dumps(event) + "\n" for event in events))


def test_a_whole_lineage_passes_and_is_not_judged_into_the_ledger_twice() -> None:
    found = lineage_check.check(CHURN)
    assert (found["state"], found["verdict"], len(found["steps"])) == ("done", "passed", 10)
    again = lineage_check.check(CHURN)
    assert again["state"] == "unchanged"
    told = [event["state"] for event in ledger.events("churn") if event["stage"] == "lineage_check"]
    assert told == ["START", "COMPLETE"]


@pytest.mark.parametrize(
    ("stage", "told"),
    [
        (
            "ingest",
            "shop.orders → retail_features.ingest → raw.orders: no event of retail_features.ingest says that it wrote",
        ),
        (
            "dbt_run",
            "raw.orders → retail_features.dbt_run → analytics.orders_history: no event of retail_features.dbt_run says",
        ),
        (
            "features",
            "analytics.orders_history → retail_features.features → features.customers: no event of retail_features.f",
        ),
    ],
)
def test_one_event_less_and_training_is_blocked_by_name(stage: str, told: str) -> None:
    lineage_check.check(CHURN)
    audit.refuse_holes(CHURN, 2)
    without(stage, "COMPLETE", 1)
    with pytest.raises(GateFailed) as refused:
        lineage_check.check(CHURN)
    assert told in str(refused.value)
    assert "plumb releases undo" in str(refused.value)
    (failed,) = [event for event in ledger.events("churn") if event["state"] == "GATE_FAILED"]
    assert failed["gates"]["lineage_completeness"]["verdict"] == "failed"
    verdict = files.read_json(settings().home / "training" / "churn" / "2" / "lineage.json") or {}
    assert verdict["holes"]
    with pytest.raises(GateFailed, match="the lineage of release 2 is not whole, nothing is trained on it: `plumb li"):
        audit.refuse_holes(CHURN, 2)


def test_a_gates_event_is_no_step_of_the_data() -> None:
    without("ge_check", "COMPLETE", 1)
    assert lineage_check.check(CHURN)["verdict"] == "passed"


def test_a_run_that_did_not_end_is_a_hole() -> None:
    events = list(sending.lines(sending.path()))
    ended = [event for event in events if event["job"]["name"] == "retail_features.features"][-1]
    ended["eventType"] = "FAIL"
    sending.path().write_text("".join(json.dumps(event) + "\n" for event in events))
    with pytest.raises(GateFailed, match=r"features.customers@1 was written by a run that is not complete.* is FAIL"):
        lineage_check.check(CHURN)


def test_another_version_than_the_release_names_is_a_hole() -> None:
    """The features were made from the orders of the day before: every event is there, and they do not fit."""
    events = list(sending.lines(sending.path()))
    ended = [event for event in events if event["job"]["name"] == "retail_features.features"][-1]
    (orders,) = [item for item in ended["inputs"] if item["name"] == "analytics.orders_history"]
    orders["facets"]["version"]["datasetVersion"] = "0"
    sending.path().write_text("".join(json.dumps(event) + "\n" for event in events))
    with pytest.raises(
        GateFailed, match="which opened analytics.orders_history@0, not analytics.orders_history@1 as the release names"
    ):
        lineage_check.check(CHURN)


def test_an_undone_release_is_judged_by_its_versions() -> None:
    restored = undo.undo(CHURN, why="a drill")
    assert (restored.release_id, restored.restores) == (3, 1)
    assert lineage_check.check(CHURN)["release_id"] == 3
    without("features", "COMPLETE", 0)
    with pytest.raises(GateFailed, match=r"features.customers@0"):
        lineage_check.check(CHURN)
    assert lineage_check.check(CHURN, 2)["verdict"] == "passed", "the undone release's own events are all there"


def test_a_home_from_before_lineage_is_told_what_to_do() -> None:
    sending.path().unlink()
    with pytest.raises(GateFailed, match=r"has 10 holes(.|\n)*before lineage was kept needs the same"):
        lineage_check.check(CHURN, releases.required("churn").release_id)
