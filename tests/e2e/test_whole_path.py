"""The demo's path through Airflow on nine months of real orders, and what a second run does."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from plumb.reports import flow
from plumbline.lake import tables as lake
from plumbline.lineage import expected, graph, sending
from plumbline.lineage.runs import EventFile
from plumbline.servers import online_store, services
from plumbline.settings import ROOT, settings
from plumbline.state import ledger, releases
from plumbline.state.releases import Release
from products.churn import CHURN
from serving import client
from tests.conftest import use_home
from tests.e2e.panels import assert_every_panel_answers_and_tells_a_broken_day
from tests.plumbline.lineage import openlineage_rules

PLUMB = Path(sys.prefix) / "bin" / "plumb"
LAST = date(1997, 9, 30)


def plumb(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PLUMB, *arguments], capture_output=True, text=True, timeout=1200, check=False)


def assert_online_is_offline(release: Release) -> None:
    """Every customer's features as the predictor reads them from Redis, the on-demand one included, are bit for bit
    what the point-in-time join gives for the release; alone, a few together or a thousand at once."""
    from feature_repo import store as feature_store
    from serving.features import OnlineFeatures
    from training import point_in_time

    service, version = feature_store.service_name(CHURN), release.version("features.customers")
    asked = point_in_time.entity_df(version, [release.as_of])
    offline = point_in_time.historical(feature_store.at_release(CHURN, release), service, version, asked)
    offline = offline.set_index("customer_id").sort_index()
    online_store.url()  # starts Redis, which kept what it held
    features = OnlineFeatures(service)
    names = [name for name in features.names if name in offline.columns]
    assert {"avg_ticket", "days_since_last_order"} <= set(names)

    def same(customers: list[int]) -> None:
        rows = features.read(customers)
        assert [row.customer_id for row in rows] == customers
        served = np.array([[np.nan if row.values[n] is None else row.values[n] for n in names] for row in rows])
        np.testing.assert_array_equal(served, offline.loc[customers, names].to_numpy(dtype=np.float64))

    everyone = offline.index.tolist()
    assert len(everyone) > 20_000
    for start in range(0, len(everyone), 1000):
        same(everyone[start : start + 1000])
    for customer in everyone[::500]:
        same([customer])
    same(everyone[70:0:-10])


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_real_orders_become_live_answers_and_a_second_run_changes_nothing(
    spark_address: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PLUMBLINE_NOW")  # the demo sets the replay's clock itself
    monkeypatch.setenv("PLUMBLINE_CODE_SHA", "the same in both runs")
    settings.cache_clear()
    done = plumb("demo", "--until", str(LAST))
    assert done.returncode == 0, done.stderr[-3000:]

    use_home(home, monkeypatch, now="1997-10-01T00:00:00Z")
    assert releases.numbers(CHURN.name) == [1, 2]
    release = releases.required(CHURN.name)
    assert (release.as_of, release.base) == (LAST, 1)
    assert {gate.verdict for gate in release.gates.values()} == {"passed"}
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

    assert flow.mermaid(CHURN) in (ROOT / "README.md").read_text(), "the README's picture is not this: `make docs`"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARK_REMOTE", spark_address)
        assert_online_is_offline(release)

    assert_lineage_is_whole(home, release)
    before = changes()
    model = summary["training"].get("model_sha256")
    again = plumb("demo", "--until", str(LAST))
    assert again.returncode == 0, again.stderr[-3000:]
    assert releases.numbers(CHURN.name) == [1, 2]
    assert changes() == before
    after = json.loads((home / "report" / "churn" / "summary.json").read_text())
    assert after["training"].get("model_sha256") == model
    monkeypatch.delenv("PLUMBLINE_NOW")  # the home's own clock, which the exporter follows
    settings.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARK_REMOTE", spark_address)
        assert_every_panel_answers_and_tells_a_broken_day()
    assert_an_undo_is_answered(release)


def assert_an_undo_is_answered(release: Release) -> None:
    """The predictor's answers follow an undo, and its being taken back, within one materialization."""
    from serving import launch

    orders = lake.open_table("analytics.orders", release.version("analytics.orders")).to_pyarrow_table()
    todays = orders.filter(pc.field("order_date") == LAST)["customer_id"].unique().to_pylist()[:20]
    launch.ensure()

    def answered() -> list[tuple[int, float]]:
        found = [client.ask(customer) for customer in todays]
        assert {status for status, _ in found} == {200}
        shown = [answer["predictions"][0] for _, answer in found]
        return [(one["release_id"], one["churn_probability"]) for one in shown]

    def now_in_force(*undo: str) -> list[tuple[int, float]]:
        for command in (("releases", "undo", "--why", "a drill", *undo), ("materialize",)):
            done = plumb(*command)
            assert done.returncode == 0, done.stderr[-2000:]
        return answered()

    second = answered()
    first = now_in_force()
    assert {number for number, _ in first} == {1}, "rows name the release that wrote them"
    assert np.mean([score for _, score in first]) > np.mean([score for _, score in second]), "they ordered that day"
    assert now_in_force("--to", "2") == second
    assert now_in_force("--to", "1") == first


def assert_lineage_is_whole(home: Path, release: Release) -> None:
    """From the champion back to raw orders at the released versions, through runs that Airflow's DAG runs started."""
    found = graph.of("champion", EventFile())
    ports, jobs = {str(port) for port in found.ports.values()}, {run.job: run for run in found.runs.values()}
    tables = {f"{table}@{version}" for table, version in release.tables.items()}
    assert tables | {"shop.orders", "shop.customers", "models.churn_xgb@1"} <= ports
    assert {port.partition("@")[0] for port in ports} <= {
        name for e in expected.edges(CHURN) for name in (e.source, e.target)
    }
    above = [run for run in found.runs.values() if run.job != "serving.serve"]
    assert {run.state for run in above} == {"COMPLETE"}
    assert {str(run.parent).partition("/")[0] for run in above} == {"retail_features", "ml_training_pipeline"}
    columns = jobs["retail_features.features"].columns["features.customers"]
    assert "analytics.orders.total_cents" in columns["avg_ticket"]
    assert jobs["retail_features.dbt_run"].columns["analytics.orders"]["total_cents"] == ["raw.orders.total_cents"]
    looked = {run.stage: run.asserted for run in graph.of("analytics.orders", EventFile()).runs.values()}
    assert looked["ge_check"] > 10 and looked["dbt_run"] > 5
    events = list(sending.lines(sending.path()))
    ours = [event for event in events if event["producer"].startswith("urn:plumbline")]
    assert [told for event in ours for told in openlineage_rules.broken(event)] == []
    of_airflow = {event["job"]["name"] for event in events if event["job"]["namespace"] == "airflow"}
    assert {"retail_features.ingest", "ml_training_pipeline.deploy"} <= of_airflow
    assert sending.failures() == 0
    manifest = json.loads((home / "dbt" / "target" / "manifest.json").read_text())
    assert expected.marts(CHURN).items() <= expected.of_manifest(manifest).items(), "the SQL was read as dbt reads it"


def changes() -> int:
    """How many events tell of more than another look: what is online is compared each time."""
    return sum(event["stage"] != "parity_check" for event in ledger.events(CHURN.name))
