"""Events: what a stage was seen to do goes into one line each; what it did not declare, it may not open."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from plumbline import observed
from plumbline.contracts import contract
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.lineage import events, sending
from plumbline.observed import UndeclaredRead
from plumbline.pipeline import stage
from plumbline.pipeline.stage import StageRun
from plumbline.product import PARENT
from plumbline.settings import settings
from plumbline.state import ledger
from products import churn
from products.churn import CHURN
from tests.plumbline.lineage import made_up_day, openlineage_rules
from tests.plumbline.lineage.made_up_day import DAY, NEXT


def emitted(job: str, kind: str | None = None) -> list[dict[str, Any]]:
    return [
        event
        for event in sending.lines(sending.path())
        if event["job"]["name"].endswith(f".{job}") and kind in (None, event["eventType"])
    ]


def ports(items: list[dict[str, Any]]) -> list[tuple[str, str | None]]:
    return [(item["name"], item["facets"].get("version", {}).get("datasetVersion")) for item in items]


class TestADay:
    @pytest.fixture(autouse=True)
    def _two_days(self, home: Path) -> None:
        made_up_day.run_day(DAY)
        made_up_day.run_day(NEXT)

    def test_each_stage_begins_and_ends_once(self) -> None:
        told = [(event["job"]["name"], event["eventType"]) for event in sending.lines(sending.path())]
        daily = [name for name in CHURN.daily_stages if name not in ("materialize", "parity_check")]
        jobs = [f"retail_features.{name}" for name in daily]
        assert told == [(job, kind) for job in jobs for kind in ("START", "COMPLETE")] * 2
        assert sending.failures() == 0

    def test_inputs_and_outputs_are_what_was_opened_and_written_at_their_versions(self) -> None:
        ended = emitted("features", "COMPLETE")[1]
        assert ports(ended["inputs"]) == [
            ("analytics.customers_history", "1"),
            ("analytics.orders_history", "1"),
            ("analytics.returns_history", "1"),
            ("features.customers", "0"),
        ]
        assert ports(ended["outputs"]) == [("features.customers", "1")], "what it read back of its own is no input"
        (output,) = ended["outputs"]
        assert output["outputFacets"]["outputStatistics"]["rowCount"] == 2
        fields = [(field["name"], field["type"]) for field in output["facets"]["schema"]["fields"]]
        assert fields == [("customer_id", "long"), ("spend", "long")]
        assert output["facets"]["dataSource"]["uri"] == f"file://{settings().lake_uri}"
        assert "symlinks" not in output["facets"], "Marquez makes a second dataset of a symlink"
        assert ports(emitted("ingest", "COMPLETE")[0]["inputs"]) == [
            ("shop.customers", None),
            ("shop.orders", None),
            ("shop.returns", None),
        ]
        assert ("raw.orders", "0") in ports(emitted("dbt_run", "COMPLETE")[1]["inputs"]), "the base that it builds on"
        assert ports(emitted("release", "COMPLETE")[1]["outputs"]) == [("releases.churn", "2")]

    def test_datasets_say_what_they_are_and_whose_by_their_contracts(self) -> None:
        (features,) = emitted("features", "COMPLETE")[0]["outputs"]
        assert features["facets"]["ownership"]["owners"] == [{"name": "platform-data-owner", "type": "OWNER"}]
        assert features["facets"]["documentation"]["description"] == contract.load("features.customers").purpose
        landed = {item["name"]: item["facets"] for item in emitted("ingest", "COMPLETE")[0]["outputs"]}
        assert landed["raw.orders"]["documentation"]["description"] == contract.load("shop.orders").purpose
        (release,) = emitted("release", "COMPLETE")[0]["outputs"]
        assert release["facets"]["datasetType"]["datasetType"] == "MANIFEST"
        assert features["facets"]["datasetType"]["datasetType"] == "TABLE" and "ownership" not in release["facets"]

    def test_columns_are_traced_through_the_sql(self) -> None:
        (output,) = emitted("features", "COMPLETE")[0]["outputs"]
        inputs = output["facets"]["columnLineage"]["fields"]["spend"]["inputFields"]
        assert [(given["name"], given["field"]) for given in inputs] == [
            ("analytics.orders_history", "total_cents"),
            ("analytics.returns_history", "cents"),
        ]
        marts = {item["name"]: item for item in emitted("dbt_run", "COMPLETE")[0]["outputs"]}
        given = marts["analytics.orders"]["facets"]["columnLineage"]["fields"]["total_cents"]["inputFields"][0]
        assert (given["name"], given["field"]) == ("raw.orders", "total_cents"), "through the staging view"

    def test_verdicts_are_on_the_dataset_that_was_judged(self) -> None:
        (item,) = [item for item in emitted("ge_check", "COMPLETE")[0]["inputs"] if item["name"] == "analytics.orders"]
        (verdict,) = item["inputFacets"]["dataQualityAssertions"]["assertions"]
        assert (verdict["assertion"], verdict["column"], verdict["success"]) == (
            "expect_column_values_to_be_unique",
            "order_id",
            True,
        )
        (item,) = emitted("distribution_check", "COMPLETE")[0]["inputs"]
        assert item["inputFacets"]["dataQualityAssertions"]["assertions"][0]["assertion"] == "features_shift"
        tested = [
            i["name"]
            for i in emitted("dbt_run", "COMPLETE")[0]["inputs"]
            if "dataQualityAssertions" in i["inputFacets"]
        ]
        marts = ("customers", "customers_history", "orders", "orders_history", "returns", "returns_history")
        assert tested == [f"analytics.{name}" for name in marts]

    def test_a_run_is_named_by_its_entry_in_the_ledger(self) -> None:
        entry = next(event for event in ledger.events("churn") if event["stage"] == "features")
        head = {"run_id": entry["run_id"], "stage": "features"}
        began, ended = emitted("features")[:2]
        assert events.run_id("churn", head, entry["at"]) == began["run"]["runId"] == ended["run"]["runId"]
        assert began["eventTime"] == entry["at"]
        assert began["run"]["facets"]["nominalTime"]["nominalEndTime"] == "1998-06-29T00:00:00Z"
        tags = {tag["key"]: tag["value"] for tag in ended["run"]["facets"]["tags"]["tags"]}
        assert tags["run_id"] == "churn-1998-06-28"

    def test_every_event_is_one_by_the_classes_made_from_the_published_schema(self) -> None:
        for event in sending.lines(sending.path()):
            assert openlineage_rules.broken(event) == []
        assert openlineage_rules.broken({**event, "eventTyp": "x"}) == ["RunEvent has no eventTyp"]
        facet = json.loads(json.dumps(event))
        facet["run"]["facets"]["tags"]["tags"][0]["key"] = 1
        assert openlineage_rules.broken(facet) == ["TagsRunFacetFields.key is 1, expected str"]

    if openlineage_rules.SPEC:  # a copy of the published schema, which no package carries

        def test_every_event_is_one_by_the_published_json_schema(self) -> None:
            check = openlineage_rules.published()
            for event in sending.lines(sending.path()):
                assert check(event) == []
            assert check({**event, "eventTime": 5}) != []
            assert check(
                {**event, "run": {**event["run"], "facets": {"tags": {**event["run"]["facets"]["tags"], "tags": 5}}}}
            )


@pytest.mark.usefixtures("home")
def test_a_read_that_is_not_declared_fails_the_stage_and_is_told() -> None:
    def looks_elsewhere(run: StageRun) -> str:
        lake.open_table("raw.customers", 0)
        return made_up_day.features(run)

    with pytest.raises(UndeclaredRead, match=r"features opened raw.customers@v0, which it does not declare"):
        made_up_day.run_day(DAY, features=looks_elsewhere)
    (failed,) = emitted("features", "FAIL")
    assert "raw.customers@v0" in failed["run"]["facets"]["errorMessage"]["message"]
    assert ("raw.customers", "0") in ports(failed["inputs"]), "observed is what was opened, declared or not"

    def swallows_it(run: StageRun) -> str:
        try:
            lake.at("raw.customers", 0)
        except UndeclaredRead:
            pass
        return made_up_day.features(run)

    with pytest.raises(UndeclaredRead):
        stage.perform(CHURN, "features", DAY, swallows_it)


@pytest.mark.usefixtures("home")
def test_a_failed_gate_is_a_fail_with_its_message_and_verdicts() -> None:
    def finds(run: StageRun) -> str:
        lake.open_table(churn.ORDERS, run.pin(churn.ORDERS))
        observed.asserted(churn.ORDERS, observed.Assertion("not_null", False, "customer_id", actual="12"))
        raise GateFailed("12 rows without customer_id")

    with pytest.raises(GateFailed):
        made_up_day.run_day(DAY, ge_check=finds)
    (failed,) = emitted("ge_check", "FAIL")
    assert failed["run"]["facets"]["errorMessage"]["message"] == "GateFailed: 12 rows without customer_id"
    assert failed["inputs"][0]["inputFacets"]["dataQualityAssertions"]["assertions"][0]["actual"] == "12"
    assert openlineage_rules.broken(failed) == []


@pytest.mark.usefixtures("home")
def test_a_killed_run_is_aborted_by_whoever_comes_next() -> None:
    began = ledger.record("churn", {"run_id": "churn-1998-06-28", "stage": "ingest", "as_of": DAY, "state": "START"})
    made_up_day.run_day(DAY)
    aborted = emitted("ingest")[0]
    assert aborted["eventType"] == "ABORT"
    assert aborted["run"]["runId"] == events.run_id("churn", {"run_id": "churn-1998-06-28", "stage": "ingest"}, began)


@pytest.mark.usefixtures("home")
def test_who_runs_the_command_is_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    run = "0190a3b4-0000-7000-8000-000000000001"
    monkeypatch.setenv(PARENT, f"plumbline/retail_features/{run}")
    made_up_day.run_day(DAY)
    parent = emitted("ingest")[0]["run"]["facets"]["parent"]
    assert (parent["run"]["runId"], parent["job"]["name"]) == (run, "retail_features")


def test_a_torn_line_is_left_out_and_told_and_harms_no_other(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = home / "lineage.ndjson"
    sending.append(file, '{"a": 1}')
    with file.open("ab") as handle:
        handle.write(b'{"a": 2, "torn')
    sending.append(file, '{"a": 3}')
    assert [line["a"] for line in sending.lines(file)] == [1, 3]
    assert "1 torn line left out" in capsys.readouterr().err


def test_an_event_that_cannot_be_made_or_written_costs_a_warning(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "lineage.ndjson").mkdir(parents=True)
    made_up_day.run_day(DAY)
    assert sending.failures() == 14
    assert "1 event not confirmed" in capsys.readouterr().err
    (home / "lineage-failures.ndjson").chmod(0o600)
    monkeypatch.setattr(events, "_Datasets", lambda: 1 / 0)
    made_up_day.run_day(NEXT)
    assert sending.failures() == 28
    assert {event["state"] for event in ledger.events("churn")} == {"START", "COMPLETE"}


def test_the_clients_classes_come_without_its_transports_and_leave_the_client_whole() -> None:
    script = """
import sys
from plumbline.lineage import client
event, _, _ = client.load()
assert not {"requests", "httpx2"} & set(sys.modules), "what makes an event needs no transport"
from openlineage.client import OpenLineageClient
from openlineage.client.event_v2 import RunEvent
assert RunEvent is event.RunEvent
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("home")
def test_every_dataset_names_its_source() -> None:
    """Also those that are no table of the lake: a Marquez answers 500 to a question for its sources otherwise."""
    made_up_day.run_day(DAY)
    datasets = [item for event in sending.lines(sending.path()) for item in (*event["inputs"], *event["outputs"])]
    assert [item["name"] for item in datasets if "dataSource" not in item.get("facets", {})] == []
    sources = {item["name"]: item["facets"]["dataSource"] for item in datasets}
    assert {source["name"] for source in sources.values()} > {"lake"}
    assert all(source["uri"] for source in sources.values())
