"""`plumb why`: everything behind an answer, from a real log, registry, online store and lake."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from plumb.reports import why, why_text
from plumb.reports.why import WhyError
from plumbline import clock
from plumbline.state import ledger
from plumbline.verdict import Verdict
from products.churn import CHURN
from serving.churn import log as outcome_log
from serving.deploy import deploy
from tests.serving.made_up_customers import EXPIRED, FULL, KNOWN, NOW, RELEASE, SPARSE, UNKNOWN

pytestmark = pytest.mark.usefixtures("_home_settings")

REQUEST, LATER = "the request", "12345"


def log(request_id: str, *customers: int, **other: Any) -> None:
    """Logs an answer as the predictor does."""
    from serving.churn.scorer import Scorer

    scored = Scorer("champion").score(list(customers))
    rows = [
        {
            "request_id": request_id,
            "at": scored.at,
            "logged_at": clock.wall(),
            "customer_id": found.row.key,
            "features": json.dumps(found.row.values),
            "event_time": found.row.event_time,
            "features_age_seconds": found.row.age_seconds,
            "release_id": found.row.release_id,
            "model_version": "1",
            "track": "stable",
            "score": found.probability,
            **other,
        }
        for found in scored.predictions
    ]
    outcome_log.append(rows)


@pytest.fixture(scope="module")
def _answers(serving_home: Path) -> None:
    """Two logged requests, and what a ledger tells of the release's run."""
    deploy(CHURN)
    log(REQUEST, SPARSE, FULL)
    log(LATER, FULL)
    log("of a lost release", KNOWN[0], release_id=99)
    both = {"avg_ticket": 1001.0, "orders_7d": 0, "orders_1h": 2, "seconds_since_last_event": 40}
    live_at = NOW - timedelta(seconds=30)
    log("of both views", KNOWN[1], features=json.dumps(both), activity_event_time=live_at)
    log("without activity", KNOWN[1], features=json.dumps(dict.fromkeys(both)))
    done = {"run_id": "run", "state": "COMPLETE", "as_of": "1998-06-29"}
    ledger.record("churn", {**done, "stage": "ingest", "batch_id": "a batch"})
    ledger.record("churn", {**done, "stage": "parity_check", "gates": {"parity": {"verdict": "passed"}}})
    trained = {"stage": "train", "state": "COMPLETE", "run_id": f"churn-training-{RELEASE}"}
    ledger.record("churn", {**trained, "gates": {"leakage": {"verdict": "passed"}}})


@pytest.mark.usefixtures("_answers")
def test_a_request_is_followed_back_to_orders_gates_model_and_run() -> None:
    found = why.why(REQUEST, customer=SPARSE)
    assert set(found["scores"]) == {FULL, SPARSE}
    assert (found["answer"]["customer_id"], found["answer"]["track"]) == (SPARSE, "stable")
    assert found["answer"]["score"] == found["scores"][SPARSE]
    features = {item["name"]: item for item in found["features"]}
    assert len(features) == 14
    assert features["avg_ticket_30d"]["value"] is None
    assert (features["avg_ticket"]["age_seconds"], features["avg_ticket"]["stored"]) == (86400.0, True)
    assert (features["days_since_last_order"]["age_seconds"], features["days_since_last_order"]["stored"]) == (0, False)
    assert [order["order_id"] for order in found["orders"]] == [200, 201], "newest first, none known too late"
    assert {order["landed_by"] for order in found["orders"]} == {"run"}
    assert found["orders_add_up"]["spend_cents_total"] == (2000, 2000)
    assert (found["release"]["release_id"], found["release"]["tables"]["analytics.orders"]) == (RELEASE, 0)
    assert set(found["gates"]) == {"orders_expectations", "parity"}
    model = found["model"]
    assert (model["version"], model["data_version"]) == ("1", "delta:features.customers@v=0")
    assert len(model["mlflow_run_id"]) == 32
    assert model["gates"] == {"leakage": Verdict("leakage", passed=True).as_dict()}


@pytest.mark.usefixtures("_answers")
def test_each_feature_has_the_view_and_the_age_of_its_row(capsys: pytest.CaptureFixture[str]) -> None:
    def ages(request: str) -> dict[str, tuple[str | None, float | None]]:
        return {item["name"]: (item["view"], item["age_seconds"]) for item in why.why(request)["features"]}

    snapshot, now = ("customer_features", 86400.0), (None, 0.0)
    assert ages("of both views") == {
        "avg_ticket": snapshot,
        "orders_7d": snapshot,
        "orders_1h": ("customer_activity", 30.0),
        "seconds_since_last_event": now,
    }
    assert ages("without activity")["orders_1h"] == ("customer_activity", None)
    why_text.show(why.why("of both views"))
    why_text.show(why.why("without activity"))
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip().startswith("orders_1h")]
    assert lines == [
        ["orders_1h", "2", "30", "s", "customer_activity"],
        ["orders_1h", "missing", "no", "activity", "customer_activity"],
    ]


@pytest.mark.usefixtures("_answers")
def test_a_customer_is_told_what_would_be_answered_now_and_what_was() -> None:
    found = why.why(str(FULL))
    assert found["refused"] is None
    assert (found["answer"]["request_id"], found["answer"]["at"]) == (None, NOW)
    assert found["last_answer"]["request_id"] == LATER
    assert found["answer"]["score"] == found["last_answer"]["score"]
    assert found["answer"]["event_time"] == NOW - timedelta(hours=24)


@pytest.mark.usefixtures("_answers")
def test_a_request_may_be_a_number() -> None:
    assert why.why(LATER, request=True)["answer"]["customer_id"] == FULL


@pytest.mark.usefixtures("_answers")
def test_what_is_gone_is_said() -> None:
    found = why.why("of a lost release")
    assert "churn has no release 99" in found["release"]["gone"]
    assert found["answer"]["customer_id"] == KNOWN[0]
    assert found["model"]["version"] == "1"


@pytest.mark.usefixtures("_answers")
@pytest.mark.parametrize(
    ("asked", "options", "told"),
    [
        ("nobody's", {}, r"no answer to a request \"nobody's\" in serving.predictions@v\d+ \(\d+ answers\)"),
        (REQUEST, {"customer": 3}, "was not about customer 3; it was about 1, 2"),
        (str(UNKNOWN), {}, "no order in analytics.orders of release 7, no answer in serving.predictions.*unknown"),
        (str(EXPIRED), {}, f"customer {EXPIRED}: no order.*expired: customer_features is from 1998-06-16"),
    ],
)
def test_what_is_not_there_says_where_was_looked(asked: str, options: dict[str, int], told: str) -> None:
    with pytest.raises(WhyError, match=told):
        why.why(asked, **options)  # type: ignore[arg-type]


@pytest.mark.usefixtures("_answers")
def test_it_reads_well_in_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    why_text.show(why.why(REQUEST, customer=SPARSE))
    told = capsys.readouterr().out
    for part in (
        f"request {REQUEST}: customer {SPARSE}, P(churn) 0.",
        "The request was about others too: 1 (0.",
        "avg_ticket_30d          missing                24.0 h",
        "The 2 orders that they came from",
        "They come to what the features say: orders_total",
        "Release 7, as of 1998-06-29",
        "orders_expectations passed, parity passed",
        "MLflow run ",
        "gates of its training: leakage passed",
    ):
        assert part in told, told
    why_text.show(why.why(str(FULL)))
    assert f"Last answered: customer {FULL}" in capsys.readouterr().out


@pytest.mark.usefixtures("_answers")
def test_orders_that_do_not_add_up_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    found = why.why(REQUEST, customer=SPARSE)
    found["orders_add_up"]["orders_total"] = (2, 3)
    why_text.show(found)
    assert "orders_total is 3, the orders come to 2" in capsys.readouterr().out
