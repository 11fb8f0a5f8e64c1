"""The demo's path through Airflow on nine months of real orders, and what a second run does."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from plumbline import ledger, releases, services
from plumbline.settings import settings
from tests.conftest import use_home

PLUMB = Path(sys.prefix) / "bin" / "plumb"
LAST = date(1997, 9, 30)


def plumb(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PLUMB, *arguments], capture_output=True, text=True, timeout=580, check=False)


@pytest.mark.slow
def test_real_orders_become_live_answers_and_a_second_run_changes_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PLUMBLINE_NOW")  # the demo sets the replay's clock itself
    monkeypatch.setenv("PLUMBLINE_CODE_SHA", "the same in both runs")
    settings.cache_clear()
    done = plumb("demo", "--until", str(LAST))
    assert done.returncode == 0, done.stderr[-3000:]

    use_home(home, monkeypatch, now="1997-10-01T00:00:00Z")
    assert releases.numbers("churn") == [1, 2]
    release = releases.required("churn")
    assert (release.as_of, release.base) == (LAST, 1)
    assert {gate["verdict"] for gate in release.gates.values()} == {"passed"}
    summary = json.loads((home / "report" / "summary.json").read_text())
    assert summary["replay"] is True
    answers = {answer["who"].partition(":")[0]: answer for answer in summary["answers"]}
    assert answers["not a customer"]["status"] == 404
    gone, loyal = (answers[who]["answer"]["predictions"][0] for who in ("bought once, long ago", "loyal"))
    assert gone["churn_probability"] > 0.8 > loyal["churn_probability"] + 0.2
    assert gone["release_id"] == 2
    metrics = summary["training"]["metrics"]
    assert metrics["roc_auc"] > 0.7
    assert services.stop_all() == [], "the demo leaves no server behind"
    assert (home / "data_docs" / "index.html").exists()
    shown = (home / "report" / f"churn-{LAST}.html").read_text()
    for told in ("release 2", "xgboost", "Calibration", "population stability index", "bought once, long ago"):
        assert told in shown, told

    before = len(list(ledger.events("churn")))
    model = summary["training"].get("model_sha256")
    again = plumb("demo", "--until", str(LAST))
    assert again.returncode == 0, again.stderr[-3000:]
    assert releases.numbers("churn") == [1, 2]
    assert len(list(ledger.events("churn"))) == before
    after = json.loads((home / "report" / "summary.json").read_text())
    assert after["training"].get("model_sha256") == model
