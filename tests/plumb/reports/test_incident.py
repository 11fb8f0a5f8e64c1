"""`plumb incident`: the last good release, what changed, who was answered from it, and the way back."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from observability import cluster_rules, house_rules, slo_rules
from observability.rule import alerts
from plumb.main import app
from plumb.reports.incident import IncidentError, incident
from plumbline import clock, provenance
from plumbline.pipeline import undo
from plumbline.registry import registered_models
from plumbline.registry.registered_models import Registered
from plumbline.state import ledger
from products.churn import CHURN
from products.images import IMAGES
from tests.observability import made_up_platform as platform

SUNDAY, MONDAY, TUESDAY = date(1998, 6, 28), date(1998, 6, 29), date(1998, 6, 30)


@pytest.fixture
def lived(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three days in force, answers from the last, by the code that runs."""
    monkeypatch.setattr(provenance, "code_sha", lambda: "abc")
    for day in (SUNDAY, MONDAY, TUESDAY):
        platform.whole_day(day)
    platform.answer(7, datetime(1998, 7, 1, 0, 1, tzinfo=UTC), release=3)
    platform.answer(2, datetime(1998, 6, 30, 0, 1, tzinfo=UTC), release=2)
    return home


def numbers(found: dict[str, Any]) -> tuple[int | None, int | None]:
    return tuple(found[which] and found[which]["release_id"] for which in ("in_force", "last_good"))  # type: ignore[return-value]


def test_data_in_doubt_goes_back_to_the_release_before(lived: Path) -> None:
    found = incident("DatasetIncomplete", "features.customers")
    assert numbers(found) == (3, 2)
    assert found["way_back"] == 'plumb releases undo --to 2 --why "DatasetIncomplete"'
    assert found["differs"]["tables.raw.orders"] == [1, 2]
    assert found["predictions_exposed"]["rows"] == 7
    assert found["downstream"][:1] and "endpoints.churn-predictor" in found["downstream"]
    assert found["since_release"] == []
    assert found["owner"] == "platform-data-owner" and found["channel"] == "#data-platform"


def test_the_way_back_of_an_undone_release_leads_behind_it(lived: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undo, "batches", lambda product, tables: set())
    undo.undo(CHURN, why="nulls")
    found = incident("DatasetIncomplete", "features.customers")
    assert numbers(found) == (4, 1), "4 restores 2, which is in doubt with it; 3 was undone"
    assert found["way_back"].startswith("plumb releases undo --to 1 ")


def test_a_release_that_failed_parity_is_not_good(lived: Path) -> None:
    bad = {"release_id": 2, "gates": platform.passed("parity", False), "error": "GateFailed: 3 values differ"}
    platform.event("parity_check", "GATE_FAILED", MONDAY, **bad)
    assert numbers(incident("DatasetIncomplete", "features.customers")) == (3, 1)


def test_a_line_that_stands_still_names_what_stopped_it_and_nothing_to_undo(lived: Path) -> None:
    platform.refused(date(1998, 7, 1))
    found = incident("GateFailed")
    assert numbers(found) == (3, 3)
    assert [(event["stage"], event["gates"]) for event in found["since_release"]] == [("ingest", ["record_contract"])]
    assert found["way_back"] == "plumb quarantine show 1998-07-01..1998-07-01"


@pytest.mark.parametrize(
    ("stage", "gate"), [("dbt_run", "contract:analytics.orders"), ("features", "features_history")]
)
@pytest.mark.parametrize("alert", ["GateFailed", "DatasetLate"])
def test_a_gate_on_what_the_code_wrote_leads_back_to_its_stage(alert: str, stage: str, gate: str, lived: Path) -> None:
    day, gates = date(1998, 7, 1), platform.passed(gate, False)
    platform.refused(day)  # and brought in afterwards
    platform.event(stage, "GATE_FAILED", day, gates=gates, sets_aside=False, error="GateFailed: share_30d")
    found = incident(alert)
    assert [event["gates"] for event in found["since_release"]] == [["record_contract"], [gate]]
    assert found["way_back"] == f"plumb {stage} --as-of 1998-07-01"


def test_a_gate_on_code_of_an_older_home_was_a_failed_stage(lived: Path) -> None:
    platform.event("features", "FAIL", date(1998, 7, 1), gates=platform.passed("features_history", False), error="x")
    assert incident("StageFailed")["way_back"] == "plumb features --as-of 1998-07-01"


def test_a_gate_that_set_the_batch_aside_leads_back_to_the_whole_day(lived: Path) -> None:
    gates = platform.passed("orders_volume", False)
    platform.event("distribution_check", "GATE_FAILED", date(1998, 7, 1), gates=gates, sets_aside=True, error="x")
    assert incident("GateFailed")["way_back"] == DAY


def test_a_foreign_verdict_is_named_and_the_other_events_are_told(lived: Path) -> None:
    platform.event("ge_check", "GATE_FAILED", date(1998, 7, 1), gates={"orders_expectations": "bad"}, error="x")
    platform.refused(date(1998, 7, 1))
    found = incident("GateFailed")
    assert [event["stage"] for event in found["since_release"]] == ["ingest"]
    assert any("gate orders_expectations: expected an object with a verdict" in told for told in found["unknown"])


def test_a_late_day_exposes_those_who_asked_after_its_deadline(lived: Path) -> None:
    found = incident("DatasetLate", "features.customers")
    assert found["predictions_exposed"] == {
        "rows": 0,
        "of": "answers from release 3 since 1998-07-02 00:05 UTC, the platform's clock",
    }
    platform.answer(4, datetime(1998, 7, 2, 0, 6, tzinfo=UTC), release=3)
    assert incident("DatasetLate", "features.customers")["predictions_exposed"]["rows"] == 4


BOOK = "nothing to undo: read docs/runbooks/{}.md"
DAY, UP, MODEL = "plumb replay --days 1", "plumb up", "plumb deploy --model previous"
WAYS = {
    "ApplicationDegraded": BOOK,
    "ApplicationOutOfSync": BOOK,
    "ConsumerLag": BOOK,
    "ControllerSilent": BOOK,
    "DatasetIncomplete": 'plumb releases undo --to 2 --why "DatasetIncomplete"',
    "DatasetLate": DAY,
    "DatasetUnknown": BOOK,
    "DeadLetters": BOOK,
    "ExporterBlind": BOOK,
    "ExporterDown": UP,
    "GateFailed": DAY,
    "LateDaysSpent": BOOK,
    "LineageNotSent": "plumb lineage_resend",
    "MeshRootEnding": BOOK,
    "ModelRefused": MODEL,
    "NodeUnderPressure": BOOK,
    "NotOnline": "plumb materialize",
    "OnlineRowsMissing": "plumb materialize && plumb parity_check",
    "OutcomesLost": BOOK,
    "ParityBroken": "plumb materialize && plumb parity_check",
    "PredictorDown": UP,
    "PredictorFailing": MODEL,
    "PredictorSlow": MODEL,
    "ProxyCertificateNotRenewed": BOOK,
    "RolloutAborted": BOOK,
    "RolloutPodsMissing": BOOK,
    "RolloutStuck": BOOK,
    "StageFailed": DAY,
    "StageStuck": DAY,
    "StreamDown": "plumb events run",
    "StreamSlow": BOOK,
    "StreamStalled": BOOK,
    "SyncFailed": BOOK,
    "Watchdog": UP,
}
OLD_MODELS = [Registered("churn_xgb", "1", ["previous"], "", ""), Registered("churn_xgb", "2", ["champion"], "", "")]


def test_the_ways_back_are_of_all_alerts() -> None:
    groups = [*slo_rules.groups(), *house_rules.groups(), *cluster_rules.groups()]
    assert set(WAYS) == {alert.name for alert in alerts(groups)}


@pytest.mark.parametrize("alert", WAYS)
def test_every_alert_has_a_way_back(alert: str, lived: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registered_models, "versions", lambda product: OLD_MODELS)
    assert incident(alert)["way_back"] == WAYS[alert].format(alert)
    monkeypatch.setattr(registered_models, "versions", lambda product: OLD_MODELS[1:])
    assert incident(alert)["way_back"] == (BOOK if WAYS[alert] == MODEL else WAYS[alert]).format(alert)


@pytest.mark.parametrize(("replay", "way"), [(True, "plumb demo"), (False, "plumb ingest")])
@pytest.mark.parametrize("alert", ["DatasetLate", "DatasetUnknown", "StageFailed"])
def test_the_way_to_a_first_release(
    alert: str, replay: bool, way: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "is_replay", lambda: replay)
    assert incident(alert)["way_back"] == way


def test_no_day_is_run_again_for_a_stage_of_training(lived: Path) -> None:
    platform.event("train", "FAIL", TUESDAY, error="MemoryError: no room")
    assert incident("StageFailed")["way_back"] == BOOK.format("StageFailed")
    assert incident("DatasetLate")["way_back"] == DAY


def test_what_cannot_be_read_is_named_and_the_rest_is_told(lived: Path) -> None:
    release, event = lived / "releases" / "churn" / "000002.json", lived / "ledger" / "churn" / "1-bad.json"
    release.unlink()
    release.write_text('{"release_id": 2')
    event.write_text("no event")
    beside = event.with_name("2-bad.json")
    beside.write_text('{"at": "now"}')
    found = incident("ExporterBlind")
    assert numbers(found) == (3, 3)
    assert numbers(incident("DatasetIncomplete", "features.customers")) == (3, 1)
    told = [line for line in found["unknown"] if line.startswith("cannot be read: ")]
    assert [str(path) in line for path, line in zip((release, event, beside), told, strict=True)] == [True] * 3
    listed = CliRunner().invoke(app, ["releases", "list"])
    assert listed.exit_code == 1
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["1", "2:", "3"]
    assert f"   2: cannot be read: {release}: expected a JSON object, found no JSON" in listed.stdout
    as_json = json.loads(CliRunner().invoke(app, ["releases", "list", "--json"]).stdout)
    assert [("unreadable" in item, item["release_id"]) for item in as_json] == [(False, 1), (True, 2), (False, 3)]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", ": expected "),
        ("[]", ": expected "),
        ('{"release_id": 3}', " was altered after it was published: it has no digest"),
        ('{"as_of": "June"}', " was altered after it was published: it has no digest"),
    ],
)
def test_a_release_in_force_that_cannot_be_read_is_not_replaced_by_an_older_one(
    content: str, why: str, lived: Path
) -> None:
    release = lived / "releases" / "churn" / "000003.json"
    release.unlink()
    release.write_text(content)
    found = incident("DatasetUnknown")
    assert numbers(found) == (None, None)
    assert found["way_back"] == BOOK.format("DatasetUnknown")
    assert found["predictions_exposed"]["rows"] is None
    assert found["unknown"][0].startswith(f"cannot be read: {release}{why}")
    assert found["unknown"][-1] == "what changed: the release in force cannot be read"


def test_code_that_changed_since_the_release_is_told(lived: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "code_sha", lambda: "def")
    assert incident("StageFailed")["since_release"][-1]["error"] == "abc → def"


def test_an_empty_home_is_told_as_one(home: Path) -> None:
    found = incident("DatasetLate")
    assert numbers(found) == (None, None)
    assert found["predictions_exposed"]["rows"] == 0
    assert found["unknown"] == [
        "whether it fires: no Alertmanager of this home runs (`plumb up`)",
        "what changed: nothing was ever released",
    ]


def test_a_broken_outcome_log_is_not_nobody(lived: Path) -> None:
    for file in (lived / "lake" / "serving" / "predictions").glob("*.parquet"):
        file.write_bytes(b"")
    exposed = incident("DatasetIncomplete", "features.customers")["predictions_exposed"]
    assert exposed["rows"] is None and "serving.predictions cannot be read" in exposed["of"]


def test_what_there_is_no_alert_of_is_refused_with_what_there_is(home: Path) -> None:
    with pytest.raises(IncidentError, match=r"no alert 'Late'; there are ApplicationDegraded, ApplicationOutOfSync"):
        incident("Late")
    with pytest.raises(IncidentError, match=r"DatasetLate is not of 'features.shops'; it is of analytics.customers"):
        incident("DatasetLate", "features.shops")


def test_in_a_terminal_the_way_back_comes_first(lived: Path) -> None:
    told = CliRunner().invoke(app, ["incident", "DatasetIncomplete", "--dataset", "features.customers"]).stdout
    first, second, *rest = told.splitlines()
    assert first == "DatasetIncomplete of features.customers (page or ticket)"
    assert second.split(maxsplit=2)[2] == 'plumb releases undo --to 2 --why "DatasetIncomplete"'
    assert any(line.split() == ["changed", "raw.orders", "v1", "→", "v2"] for line in rest)
    as_json = CliRunner().invoke(app, ["incident", "DatasetIncomplete", "--dataset", "features.customers", "--json"])
    assert json.loads(as_json.stdout)["last_good"]["release_id"] == 2


def test_an_alert_of_images_is_about_their_ledger_and_leads_back_by_their_commands(lived: Path) -> None:
    head = {"run_id": "images-1998-06-30", "stage": "clean", "as_of": TUESDAY, "state": "GATE_FAILED"}
    ledger.record(IMAGES.name, {**head, "gates": platform.passed("cleaning", False), "sets_aside": False, "error": "x"})
    found = incident("GateFailed", product="images")
    assert (found["product"], numbers(found)) == ("images", (None, None)), "churn's releases are not theirs"
    assert found["way_back"] == "plumb images ingest" and "endpoints.image-predictor" in found["downstream"]
    assert incident("NotOnline", product="images")["way_back"] == "plumb images materialize"
    assert incident("GateFailed")["product"] == "churn", "nothing fires: the first that has such an alert"
    with pytest.raises(IncidentError, match="GateFailed is not of 'shoes'; it is of churn, images"):
        incident("GateFailed", product="shoes")
