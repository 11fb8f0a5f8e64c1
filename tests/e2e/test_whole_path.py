"""The demo's path through Airflow on nine months of real orders, and what a second run does.

One flow, in the order of this file; a test for each claim about it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

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

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

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
    from training.churn import snapshots

    service, version = feature_store.service_name(CHURN), release.version("features.customers")
    asked = snapshots.entity_df(version, [release.as_of])
    offline = point_in_time.historical(
        feature_store.at_release(CHURN, release), service, "features.customers", version, asked
    )
    offline = offline.set_index("customer_id").sort_index()
    online_store.url()  # starts Redis, which kept what it held
    features = OnlineFeatures(CHURN, service)
    names = [name for name in features.names if name in offline.columns]
    assert {"avg_ticket", "days_since_last_order"} <= set(names)

    def same(customers: list[int]) -> None:
        rows = features.read(customers)
        assert [row.key for row in rows] == customers
        served = np.array([[np.nan if row.values[n] is None else row.values[n] for n in names] for row in rows])
        np.testing.assert_array_equal(served, offline.loc[customers, names].to_numpy(dtype=np.float64))

    everyone = offline.index.tolist()
    assert len(everyone) > 20_000
    for start in range(0, len(everyone), 1000):
        same(everyone[start : start + 1000])
    for customer in everyone[::500]:
        same([customer])
    same(everyone[70:0:-10])


@dataclass(frozen=True)
class Demo:
    """A demo's home after its run, its release, its summary, and how many events of more than a look there were."""

    home: Path
    release: Release
    summary: dict[str, Any]
    servers_left: list[str]
    changes: int


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The whole path once: nine months of real orders, two daily runs, a trained model, answers."""
    home = tmp_path_factory.mktemp("whole") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SPARK_REMOTE", raising=False)
        patch.setenv("PLUMBLINE_CODE_SHA", "the same in both runs")
        use_home(home, patch)
        patch.delenv("PLUMBLINE_NOW")  # the demo sets the replay's clock itself
        settings.cache_clear()
        done = plumb("demo", "--until", str(LAST))
        assert done.returncode == 0, done.stderr[-3000:]
        use_home(home, patch, now="1997-10-01T00:00:00Z")
        left = services.stop_all()
        yield Demo(home, releases.required(CHURN.name), read_summary(home), left, changes())
        use_home(home, patch)
        services.stop_all()
    settings.cache_clear()


@pytest.fixture(scope="module")
def again(demo: Demo) -> Demo:
    """The same home after the same command a second time."""
    done = plumb("demo", "--until", str(LAST))
    assert done.returncode == 0, done.stderr[-3000:]
    return Demo(demo.home, releases.required(CHURN.name), read_summary(demo.home), [], changes())


def read_summary(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((home / "report" / "churn" / "summary.json").read_text())
    return found


def changes() -> int:
    """How many events tell of more than another look: what is online is compared each time."""
    return sum(event["stage"] != "parity_check" for event in ledger.events(CHURN.name))


def test_two_days_are_released_and_every_gate_passed(demo: Demo) -> None:
    assert releases.numbers(CHURN.name) == [1, 2]
    assert (demo.release.as_of, demo.release.base) == (LAST, 1)
    assert {gate.verdict for gate in demo.release.gates.values()} == {"passed"}


def test_the_answers_tell_who_left_from_who_is_loyal_and_know_no_stranger(demo: Demo) -> None:
    assert demo.summary["replay"] is True
    answers = {answer["who"].partition(":")[0]: answer for answer in demo.summary["answers"]}
    assert answers["not a customer"]["status"] == 404
    gone, loyal = (answers[who]["answer"]["predictions"][0] for who in ("bought once, long ago", "loyal"))
    assert gone["churn_probability"] > 0.8 > loyal["churn_probability"] + 0.2
    assert gone["release_id"] == 2


def test_the_model_is_better_than_chance(demo: Demo) -> None:
    assert demo.summary["training"]["metrics"]["roc_auc"] > 0.7


def test_no_server_is_left_behind(demo: Demo) -> None:
    assert demo.servers_left == []


def test_the_pages_tell_of_the_run(demo: Demo) -> None:
    assert (demo.home / "data_docs" / "index.html").exists()
    shown = (demo.home / "report" / "churn" / f"churn-{LAST}.html").read_text()
    for told in ("release 2", "xgboost", "Calibration", "population stability index", "bought once, long ago"):
        assert told in shown, told


def test_the_readmes_picture_is_this_flow(demo: Demo) -> None:
    assert flow.mermaid(CHURN) in (ROOT / "README.md").read_text(), "the README's picture is not this: `make docs`"


def test_online_is_offline(demo: Demo, spark_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARK_REMOTE", spark_address)
    assert_online_is_offline(demo.release)


def test_lineage_is_whole(demo: Demo) -> None:
    """From the champion back to raw orders at the released versions, through runs that Airflow's DAG runs started."""
    found = graph.of("champion", EventFile(), CHURN)
    ports, jobs = {str(port) for port in found.ports.values()}, {run.job: run for run in found.runs.values()}
    # The features are made of the histories, and the labels of the orders: nothing of a model is made of these two.
    made_of = demo.release.tables.keys() - {"analytics.customers", "analytics.returns"}
    tables = {f"{table}@{demo.release.tables[table]}" for table in made_of}
    assert tables | {"shop.orders", "shop.customers", "models.churn_xgb@1"} <= ports
    assert {port.partition("@")[0] for port in ports} <= {
        name for e in expected.edges(CHURN) for name in (e.source, e.target)
    }
    above = [run for run in found.runs.values() if run.job != "serving.serve"]
    assert {run.state for run in above} == {"COMPLETE"}
    assert {str(run.parent).partition("/")[0] for run in above} == {"retail_features", "ml_training_pipeline"}
    columns = jobs["retail_features.features"].columns["features.customers"]
    assert "analytics.orders_history.total_cents" in columns["avg_ticket"]
    assert jobs["retail_features.dbt_run"].columns["analytics.orders"]["total_cents"] == ["raw.orders.total_cents"]
    looked = {run.stage: run.asserted for run in graph.of("analytics.orders", EventFile(), CHURN).runs.values()}
    assert looked["ge_check"] > 10 and looked["dbt_run"] > 5
    events = list(sending.lines(sending.path()))
    ours = [event for event in events if event["producer"].startswith("urn:plumbline")]
    assert [told for event in ours for told in openlineage_rules.broken(event)] == []
    of_airflow = {event["job"]["name"] for event in events if event["job"]["namespace"] == "airflow"}
    assert {"retail_features.ingest", "ml_training_pipeline.deploy"} <= of_airflow
    assert sending.failures() == 0
    manifest = json.loads((demo.home / "dbt" / "target" / "manifest.json").read_text())
    assert expected.marts(CHURN).items() <= expected.of_manifest(manifest).items(), "the SQL was read as dbt reads it"


def test_a_second_run_changes_nothing(demo: Demo, again: Demo) -> None:
    assert releases.numbers(CHURN.name) == [1, 2]
    assert again.changes == demo.changes
    assert again.summary["training"].get("model_sha256") == demo.summary["training"].get("model_sha256")


def test_every_panel_answers_and_tells_a_broken_day(
    again: Demo, spark_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PLUMBLINE_NOW")  # the home's own clock, which the exporter follows
    monkeypatch.setenv("SPARK_REMOTE", spark_address)
    settings.cache_clear()
    assert_every_panel_answers_and_tells_a_broken_day()


def test_an_undo_is_answered(again: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    """The predictor's answers follow an undo, and its being taken back, within one materialization."""
    from serving import launch

    monkeypatch.delenv("PLUMBLINE_NOW")  # the home's own clock
    settings.cache_clear()

    orders = lake.open_table("analytics.orders", again.release.version("analytics.orders")).to_pyarrow_table()
    todays = orders.filter(pc.field("order_date") == LAST)["customer_id"].unique().to_pylist()[:20]
    launch.ensure(CHURN)

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
