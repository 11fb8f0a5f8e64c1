from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from plumb.reports import report_page
from plumbline import clock, files
from plumbline.state import ledger, releases
from plumbline.state.releases import Release
from products.churn import CHURN


def _event(run_id: str, stage: str, state: str = "COMPLETE", **more: object) -> None:
    ledger.record("churn", {"run_id": run_id, "stage": stage, "state": state, "as_of": run_id[6:], **more})


def _published(number: int, run_id: str) -> None:
    releases.publish(
        Release(
            release_id=number,
            product="churn",
            as_of=date.fromisoformat(run_id[6:]),
            base=number - 1 or None,
            tables={"analytics.orders": number},
            gates={},
            code_sha="c0de" * 10,
            lock_hash="10cc",
            run_id=run_id,
            published_at=clock.now().isoformat(),
        )
    )


@pytest.fixture
def two_runs(home: Path) -> Path:
    """A run that published release 1, and one that its gate stopped."""
    good, bad = "churn-1998-06-29", "churn-1998-06-30"
    _event(good, "ingest", "START")
    _event(
        good, "ingest", seconds=1.5, rows={"raw.orders": 1234}, wrote={"raw.orders": 0}, message="landed 1,234 orders"
    )
    gate = {"verdict": "passed", "expectations": 22, "failed": [], "report": str(home / "evidence" / "a.json")}
    _event(good, "ge_check", seconds=2.0, gates={"orders_expectations": gate})
    sale = {
        **gate,
        "accepted": {"gate": "orders_volume", "as_of": "1998-06-29", "why": "a sale", "by": "ana", "at": "now"},
    }
    _event(good, "distribution_check", seconds=2.0, gates={"orders_volume": sale})
    _published(1, good)
    _event(good, "release", seconds=0.1, release_id=1, rows={"analytics.orders": 1234})
    ledger.record("churn", {"run_id": "churn-training-1", "stage": "dataset", "state": "COMPLETE", "release_id": 1})
    _event(bad, "ingest", seconds=1.0)
    _event(bad, "ge_check", "START")
    _event(bad, "ge_check", "GATE_FAILED", seconds=2.0, error="total_cents <0 in order 17 & more")
    return home


def test_each_run_has_a_page_and_the_index_names_them_newest_first(two_runs: Path) -> None:
    index = report_page.write(CHURN).read_text()
    assert index.index("churn-1998-06-30") < index.index("churn-1998-06-29")
    assert "release 1" in index and "ge_check gate failed" in index and "1,234" in index

    good = (two_runs / "report" / "churn" / "churn-1998-06-29.html").read_text()
    assert "published as <b>release 1</b>" in good and "landed 1,234 orders" in good
    assert 'href="../../evidence/a.json"' in good and "dataset" in good
    assert "passed, accepted by ana: a sale" in good

    bad = (two_runs / "report" / "churn" / "churn-1998-06-30.html").read_text()
    assert "was stopped by its gate; nothing after it ran, nothing was published" in bad
    assert "total_cents &lt;0 in order 17 &amp; more" in bad


def test_a_leaky_twin_stands_beside_the_honest_dataset_and_is_no_part_of_the_run(two_runs: Path) -> None:
    scores = {"roc_auc": 0.8393, "pr_auc": 0.96, "log_loss": 0.2994, "brier": 0.0889}
    gate = {"verdict": "failed", "expectations": 28, "failed": ["orders_90d alone ranks churn"], "report": None}
    folder = two_runs / "training" / "churn" / "1-leaky"
    twin = {"scores": {"point_in_time": scores, "leaky_twin": {**scores, "roc_auc": 0.9986}}}
    files.write_whole(folder / "dataset.json", files.dumps(twin))
    files.write_whole(folder / "leakage.json", files.dumps({"gates": {"target_leakage": gate}}))
    failed = {"run_id": "churn-training-1-leaky", "stage": "leakage_check", "state": "GATE_FAILED", "twin_of": 1}
    ledger.record("churn", failed)
    report_page.write(CHURN)
    good = (two_runs / "report" / "churn" / "churn-1998-06-29.html").read_text()
    assert "0.8393" in good and "0.9986" in good and "orders_90d alone ranks churn" in good
    assert "was stopped by its gate" not in good


def test_a_stage_shows_its_last_attempt(two_runs: Path) -> None:
    _event("churn-1998-06-30", "ge_check", seconds=3.0, message="all hold")
    run = report_page.runs(CHURN)[-1]
    assert run.stopped is None and run.stages["ge_check"]["message"] == "all hold"
    assert run.seconds == 4.0


def test_pages_of_past_runs_are_kept_as_they_are(two_runs: Path) -> None:
    report_page.write(CHURN)
    past = two_runs / "report" / "churn" / "churn-1998-06-29.html"
    past.write_text("as it was")
    report_page.write(CHURN)
    assert past.read_text() == "as it was"
    ledger.record("churn", {"run_id": "churn-training-1", "stage": "train", "state": "COMPLETE", "release_id": 1})
    report_page.write(CHURN)
    assert "<b>train" in past.read_text(), "a release that was trained on later shows it"


def test_without_any_run_the_index_is_empty_but_there(home: Path) -> None:
    assert "Runs of churn" in report_page.write(CHURN).read_text()
