"""Airflow's real scheduler: a triggered `retail_features` brings features online, and that asset starts training.

What comes online while a training works is trained on afterwards.
"""

from __future__ import annotations

import itertools
import json
import time
import urllib.request
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from ingestion.churn import cdnow as shop
from observability import stack
from plumbline.orchestration import scheduler
from plumbline.servers import services
from plumbline.settings import settings
from plumbline.state import releases
from tests.conftest import use_home

LAST = date(1997, 9, 30)
"""The first day on which a model can be trained: 90 days of warm-up and two label windows of 90 (split.py)."""


class Airflow:
    """Its REST interface, logged in."""

    def __init__(self) -> None:
        told = scheduler.start()
        self.url = told["airflow"]
        password = json.loads(scheduler.passwords().read_text())[told["user"]]
        self.token = ""
        self.token = self.ask("/auth/token", "POST", {"username": told["user"], "password": password})["access_token"]

    def ask(self, path: str, method: str = "GET", body: dict[str, Any] | None = None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, data, headers, method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return dict(json.load(answer))

    def runs(self, dag: str) -> list[dict[str, Any]]:
        return list(self.ask(f"/api/v2/dags/{dag}/dagRuns")["dag_runs"])

    def ended(self, dag: str, runs: int = 1) -> list[dict[str, Any]]:
        """The runs of a DAG, oldest first, once there are so many and all have ended."""
        found = sorted(self.runs(dag), key=lambda run: str(run["queued_at"]))
        assert len(found) <= runs, found
        return found if len(found) == runs and all(run["state"] in ("success", "failed") for run in found) else []


def eventually(ask: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"still {answer!r} after {seconds} s"
        time.sleep(0.5)
    return answer


def _all_dags(airflow: Airflow) -> list[dict[str, Any]]:
    """The DAGs, once each file was parsed: Airflow shows one as soon as it has it. None before."""
    found: list[dict[str, Any]] = airflow.ask("/api/v2/dags")["dags"]
    return found if len(found) == 4 else []


def some_orders(folder: Path, until: date) -> Path:
    """The orders of every twentieth customer up to a day, in CDNOW's own format; of these, each day has some."""
    header, *lines = shop.packaged().read_text().splitlines()
    kept = [line for line in lines if int(line.split()[0]) % 20 == 19 and line.split()[1] <= f"{until:%Y%m%d}"]
    path = folder / "orders.txt"
    path.write_text("\n".join([header, *kept]) + "\n")
    return path


PLUMB = """#!/bin/sh
while [ "$1" = dataset ] && [ -e {0}/hold ]; do sleep 0.2; done
case "$*" in *--as-of*|materialize|parity_check) [ -e {0}/covered ] && exit 0;; esac
exec {1} "$@"
"""
"""`plumb`, but its dataset waits while there is a file `hold`, and the daily stages say that their day is covered (as
they would, some seconds later) once there is a file `covered`."""


def steered_plumb(folder: Path) -> Path:
    plumb = folder / "plumb"
    plumb.write_text(PLUMB.format(folder, settings().plumb_command))
    plumb.chmod(0o755)
    return plumb


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_asset_starts_training(
    with_spark: None, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_home(home, monkeypatch, now="1997-10-01T00:00:00Z", code_sha="the same in all tasks")
    shop.load(some_orders(tmp_path, LAST))
    use_home(home, monkeypatch, now="1997-10-01T00:00:00Z", plumb=str(steered_plumb(tmp_path)))
    (tmp_path / "hold").touch()
    exporter = services.ensure(stack.exporter_server())
    airflow = Airflow()
    known = eventually(lambda: _all_dags(airflow), 120)
    assert {dag["dag_id"]: dag["is_paused"] for dag in known} == {
        "retail_features": True,
        "ml_training_pipeline": True,
        "outcome_log": True,
        "images": True,
    }
    for dag in ("ml_training_pipeline", "retail_features"):
        airflow.ask(f"/api/v2/dags/{dag}", "PATCH", {"is_paused": False})
    asked = {"logical_date": None, "conf": {"as_of": str(LAST)}}
    airflow.ask("/api/v2/dags/retail_features/dagRuns", "POST", asked)

    (features,) = eventually(lambda: airflow.ended("retail_features"), 500)
    assert (features["state"], features["run_type"]) == ("success", "manual"), logs(home)
    eventually(lambda: airflow.runs("ml_training_pipeline"), 60)
    (tmp_path / "covered").touch()
    for _ in range(3):
        airflow.ask("/api/v2/dags/retail_features/dagRuns", "POST", asked)
    daily = eventually(lambda: airflow.ended("retail_features", 4), 200)
    assert {run["state"] for run in daily} == {"success"}, logs(home)
    assert all(one["end_date"] <= next_one["start_date"] for one, next_one in itertools.pairwise(daily)), daily
    assert len(airflow.runs("ml_training_pipeline")) == 1, "one training at a time"
    (tmp_path / "hold").unlink()

    training, after = eventually(lambda: airflow.ended("ml_training_pipeline", 2), 500)
    assert {(run["state"], run["run_type"]) for run in (training, after)} == {("success", "asset_triggered")}, logs(
        home
    )
    assert after["start_date"] >= training["end_date"], "what came meanwhile is trained on once, afterwards"
    events = airflow.ask(f"/api/v2/dags/ml_training_pipeline/dagRuns/{training['dag_run_id']}/upstreamAssetEvents")
    (event,) = events["asset_events"]
    assert (event["source_dag_id"], event["source_task_id"]) == ("retail_features", "parity_check")
    assert len(airflow.runs("retail_features")) == 4, "in a replay the scheduler asks for no day by itself"
    assert releases.required("churn").as_of == LAST
    assert (home / "training" / "churn" / "1" / "run.json").exists()

    metrics = eventually(lambda: sent(exporter.port, "ml_training_pipeline"), 30)
    assert 'airflow_dag_runs_total{dag="retail_features",state="success"} 4.0' in metrics
    assert 'airflow_task_ends_total{dag="retail_features",state="success",task="parity_check"} 4.0' in metrics
    assert "airflow_scheduler_heartbeats_total" in metrics and "airflow_dag_import_errors 0.0" in metrics

    parts = {"airflow-api", "airflow-scheduler", "airflow-dag-processor"}
    groups = {services.find(part).pid for part in parts}  # type: ignore[union-attr]
    assert parts <= set(services.stop_all())
    assert of_groups(groups) == [], "no stray process"
    assert "password" not in (settings().home / "logs" / "airflow-api.log").read_text().lower()


def sent(port: int, dag: str) -> str:
    """What the exporter tells once the scheduler has sent it the end of a DAG's run; empty until then."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = str(answer.read().decode())
    return text if f'airflow_dag_runs_total{{dag="{dag}"' in text else ""


def of_groups(groups: set[int]) -> list[str]:
    """The command lines of the processes in these process groups that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(group) in groups and state != "Z":
                found.append((stat.parent / "cmdline").read_text())
        except OSError:
            continue
    return found


def logs(home: Path) -> str:
    """The end of every task's log."""
    found = sorted((home / "airflow" / "logs").rglob("*.log"))
    return "\n".join(f"{path}:\n{path.read_text()[-1500:]}" for path in found)
