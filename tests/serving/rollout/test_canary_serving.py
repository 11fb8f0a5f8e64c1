"""A canary with everything real but the customers: model servers, Envoy, Prometheus, judge, registry, outcome log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
import yaml

from plumb.demo.simulated_churn import Callers
from plumb.demo.simulated_traffic import Traffic
from plumbline.lake import tables as lake
from plumbline.registry import registered_models
from plumbline.servers import online_store, services
from plumbline.settings import settings
from plumbline.state import ledger
from products.churn import CHURN
from serving import launch
from serving import loaded_model as registry
from serving.churn import log as outcome_log
from serving.churn import outcomes
from serving.rollout import driver, manifests
from serving.rollout.driver import Driver, paced
from serving.rollout.laptop import Laptop
from tests.conftest import use_home
from tests.serving.made_up_customers import (
    KNOWN,
    NOW,
    apply_definitions,
    publish_release,
    put_online,
    register,
    register_model,
)

PER_SECOND = 60.0


@pytest.fixture
def canary_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home with features online and the same small model of two runs, the first as champion."""
    use_home(tmp_path, monkeypatch, now=NOW.isoformat())
    online_store.url()
    apply_definitions()
    put_online()
    publish_release()
    register_model()
    client = registered_models.client()
    experiment = mlflow.get_experiment_by_name("churn_xgb")
    assert experiment is not None
    again = mlflow.xgboost.load_model(client.get_model_version("churn_xgb", "1").source)
    assert register(again, experiment.experiment_id, "churn_v1") == "2"
    client.set_registered_model_alias("churn_xgb", "champion", "1")
    yield tmp_path
    services.stop_all()
    settings.cache_clear()


@pytest.fixture
def one_step(tmp_path: Path) -> manifests.Rollout:
    """The shipped Rollout, of its steps only the last weight and the last analysis."""
    made = manifests.read(manifests.rollout_file(CHURN), "Rollout")
    made["spec"]["strategy"]["canary"]["steps"] = made["spec"]["strategy"]["canary"]["steps"][-2:]
    path = tmp_path / "rollout.yaml"
    path.write_text(yaml.safe_dump(made))
    return manifests.rollout(path)


@pytest.mark.slow
def test_a_model_as_good_as_the_champion_is_promoted_by_the_shipped_guardrails(
    canary_home: Path, one_step: manifests.Rollout
) -> None:
    laptop = Laptop(CHURN, one_step, manifests.templates(CHURN))
    where = laptop.up()["churn-model"]
    args = {**paced(PER_SECOND, first=50), "count": "2", "latency-slack": "1000"}  # other tests keep the machine busy
    with Traffic(where, PER_SECOND, Callers(KNOWN)) as traffic:
        status = Driver(laptop, args).run("2")
    assert status.phase == "Healthy", status.message
    assert set(traffic.statuses()) == {200}
    assert {answer.version for answer in traffic.answers} == {"1", "2"}
    champion, previous = (registry.find(CHURN, alias) for alias in (registry.CHAMPION, registry.PREVIOUS))
    assert champion and previous and (str(champion.version), str(previous.version)) == ("2", "1")
    deployed = [event for event in ledger.events("churn") if event["stage"] == "deploy"]
    assert deployed[-1]["state"] == "COMPLETE" and deployed[-1]["champion"] == "2"
    stable = services.find(CHURN.server)
    assert stable and stable.more["model"] == "2" and services.find(launch.canary_name(CHURN)) is None
    services.stop(CHURN.server)  # it writes the last of its log
    logged = lake.open_table(outcome_log.TABLE).to_pyarrow_table(columns=["model_version", "track", "revision"])
    sides = Counter((row["model_version"], row["track"], row["revision"]) for row in logged.to_pylist())
    assert set(sides) >= {
        ("1", "stable", launch.revision(CHURN, "1")),
        ("2", "canary", launch.revision(CHURN, "2")),
    }
    simulated = lake.open_table(outcomes.TABLE).to_pyarrow_table(columns=["simulated"])["simulated"].to_pylist()
    assert len(simulated) == traffic.statuses()[200] and all(simulated)
    measured = {item["metric"] for item in status.measurements}
    assert {"conversion-rate", "call-center-load", "score-shift", "missing-features", "latency-p99"} <= measured
    assert {"conversion_rate", "call_center_load", "score"} <= set(status.samples[-1]["kpis"])
    assert driver.recover(CHURN) == status
