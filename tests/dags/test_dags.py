"""The DAGs as Airflow sees them, in Airflow's own environment."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from products.churn import CHURN
from products.images import IMAGES
from tests.plumbline.orchestration import in_airflow

WAITS = "stream_reached_midnight"
SCRIPT = """
import json
from airflow.dag_processing.dagbag import DagBag
bag = DagBag()
print("DAGS" + json.dumps({
    "errors": {str(k): str(v) for k, v in bag.import_errors.items()},
    "dags": {dag.dag_id: {
        "schedule": str(dag.timetable.__class__.__name__),
        "catchup": dag.catchup,
        "max_active_runs": dag.max_active_runs,
        "tasks": {t.task_id: {
            "kind": t.task_type, "command": getattr(t, "bash_command", ""),
            "day": getattr(t, "day", ""), "timeout": getattr(t, "timeout", 0), "rule": str(t.trigger_rule.value),
            "after": sorted(t.upstream_task_ids), "outlets": [o.uri for o in t.outlets]} for t in dag.tasks},
        "assets": [a.uri for a in getattr(dag.timetable.asset_condition, "objects", [])],
    } for dag in bag.dags.values()}}))
"""


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        from plumbline.settings import settings

        patch.setenv("PLUMBLINE_HOME", str(tmp_path_factory.mktemp("airflow")))
        settings.cache_clear()
        lines = in_airflow.said(SCRIPT)
    settings.cache_clear()
    found: dict[str, Any] = json.loads(next(line[4:] for line in lines if line.startswith("DAGS")))
    return found


def test_all_dags_import(bag: dict[str, Any]) -> None:
    assert bag["errors"] == {}
    assert sorted(bag["dags"]) == ["images", "ml_training_pipeline", "outcome_log", "retail_features"]


def test_every_task_is_one_plumb_command_of_its_name(bag: dict[str, Any]) -> None:
    for dag_id, dag in bag["dags"].items():
        before = ["images"] if dag_id == "images" else []
        for name, task in dag["tasks"].items():
            if name == WAITS:
                continue
            program, *command = task["command"].split()
            assert (task["kind"], Path(program).name) == ("BashOperator", "plumb")
            assert command[: len(before) + 1] == [*before, name]


def test_the_image_dag_has_stages_of_a_day_and_then_of_a_release(bag: dict[str, Any]) -> None:
    tasks = bag["dags"]["images"]["tasks"]
    assert tuple(tasks) == (*IMAGES.daily_stages, *IMAGES.training_stages)
    assert "--as-of" in tasks["clean"]["command"] and "--as-of" not in tasks["dataset"]["command"]
    for before, after in zip(tasks, list(tasks)[1:], strict=False):
        assert tasks[after]["after"] == [before]


def test_the_daily_run_is_the_stages_in_their_order(bag: dict[str, Any]) -> None:
    tasks = bag["dags"]["retail_features"]["tasks"]
    closes = CHURN.daily_stages.index("activity")
    order = [*CHURN.daily_stages[:closes], WAITS, *CHURN.daily_stages[closes:]]
    assert sorted(tasks) == sorted(order)
    for before, after in pairwise(order):
        assert tasks[after]["after"] == [before]
    assert bag["dags"]["retail_features"]["schedule"] == "CronDataIntervalTimetable"
    assert bag["dags"]["retail_features"]["max_active_runs"] == 1


def test_the_day_waits_an_hour_for_its_stream_right_before_the_stage_that_closes_it(bag: dict[str, Any]) -> None:
    tasks = bag["dags"]["retail_features"]["tasks"]
    assert (tasks["activity"]["after"], tasks[WAITS]["after"]) == ([WAITS], ["features"])
    assert (tasks[WAITS]["kind"], tasks[WAITS]["timeout"]) == ("StreamReached", 3600)
    assert tasks[WAITS]["day"] in tasks["activity"]["command"]


def test_the_outcome_log_is_compacted_once_a_day(bag: dict[str, Any]) -> None:
    dag = bag["dags"]["outcome_log"]
    assert (list(dag["tasks"]), dag["schedule"]) == (["compact_log"], "CronDataIntervalTimetable")
    assert (dag["catchup"], dag["max_active_runs"]) == (False, 1)


def test_nothing_runs_past_a_failed_gate(bag: dict[str, Any]) -> None:
    for dag in bag["dags"].values():
        assert {task["rule"] for task in dag["tasks"].values()} == {"all_success"}
    training = bag["dags"]["ml_training_pipeline"]["tasks"]
    assert list(training)[:4] == ["lineage_check", "dataset", "leakage_check", "train"]
    assert training["dataset"]["after"] == ["lineage_check"]
    assert training["train"]["after"] == ["leakage_check"]


def test_training_starts_on_an_asset_that_only_a_task_behind_the_gates_produces(bag: dict[str, Any]) -> None:
    asset = bag["dags"]["ml_training_pipeline"]["assets"]
    producers = [
        (dag_id, name) for dag_id, dag in bag["dags"].items() for name, task in dag["tasks"].items() if task["outlets"]
    ]
    assert producers == [("retail_features", "parity_check")]
    assert bag["dags"]["retail_features"]["tasks"]["parity_check"]["outlets"] == asset


BACKFILLS = """
import sys
from airflow.__main__ import main
def airflow(*words):
    sys.argv = ["airflow", *words]
    try:
        main()
    except BaseException as error:
        print("REFUSED", error)
airflow("dags", "reserialize")
for more in ([], ["--run-backwards"], ["--reprocess-behavior", "completed"]):
    airflow("backfill", "create", "--dag-id", "retail_features", "--from-date", "2026-01-01", "--to-date", "2026-01-12",
            *more)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("home")
def test_a_backfill_is_refused_since_one_run_covers_all_its_days() -> None:
    lines = [line for line in in_airflow.said(BACKFILLS) if line.startswith("REFUSED")]
    assert lines == ["REFUSED Dag with dag_id: 'retail_features' does not allow backfill runs"] * 3


@pytest.mark.slow
@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(("code", "tries", "state"), [(3, 1, "failed"), (4, 2, "failed")])
def test_a_gate_is_not_asked_a_second_time_and_all_else_is(tmp_path: Path, code: int, tries: int, state: str) -> None:
    tried, plumb = tmp_path / "tried", tmp_path / "plumb"
    plumb.write_text(f'#!/bin/sh\necho "$@" >> {tried}\nexit {code}\n')
    plumb.chmod(0o755)
    folder = tmp_path / "dags"
    folder.mkdir()
    (folder / "one.py").write_text("""
from datetime import timedelta
from airflow.sdk import DAG
from plumbline.orchestration.tasks import plumb_task
with DAG("one", schedule=None) as dag:
    plumb_task("features", "features", retry_delay=timedelta(seconds=0))
""")
    run = f"""
from airflow.dag_processing.dagbag import DagBag
print("STATE", DagBag({str(folder)!r}).dags["one"].test().state)
"""
    lines = in_airflow.said(run, PLUMBLINE_PLUMB=str(plumb), AIRFLOW__CORE__DAGS_FOLDER=str(folder))
    assert f"STATE {state}" in lines
    assert tried.read_text().splitlines() == ["features"] * tries


WAITING = """
from datetime import timedelta
from airflow.sdk import DAG
from plumbline.orchestration.tasks import stream_reached
with DAG("waiting", schedule=None, params={{"as_of": "1998-06-30"}}) as dag:
    stream_reached("midnight", timedelta(seconds={seconds}), between=0.1, retry_delay=timedelta(seconds=0))
"""
ASKED = """#!/bin/sh
echo "$@" >> {asked}
[ $(wc -l < {asked}) -gt {behind} ] && echo '{{"message": "all has landed"}}' && exit 0
echo '{{"message": "shop.orders partition 2: 7 messages behind"}}'
exit {code}
"""


@pytest.mark.slow
@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("behind", "code", "seconds", "state", "times"),
    [(3, 6, 60, "success", 4), (99, 6, 0, "failed", 2), (99, 1, 60, "failed", 2)],
    ids=["reached later", "too late", "a command that fails is asked a second time"],
)
def test_the_sensor_waits_without_a_worker_and_says_what_lags(
    tmp_path: Path, behind: int, code: int, seconds: int, state: str, times: int
) -> None:
    asked, plumb, folder = tmp_path / "asked", tmp_path / "plumb", tmp_path / "dags"
    plumb.write_text(ASKED.format(asked=asked, behind=behind, code=code))
    plumb.chmod(0o755)
    folder.mkdir()
    (folder / "waiting.py").write_text(WAITING.format(seconds=seconds))
    run = f"""
from airflow.dag_processing.dagbag import DagBag
print("STATE", DagBag({str(folder)!r}).dags["waiting"].test().state)
"""
    lines = in_airflow.said(run, PLUMBLINE_PLUMB=str(plumb), AIRFLOW__CORE__DAGS_FOLDER=str(folder))
    assert f"STATE {state}" in lines
    assert asked.read_text().splitlines() == ["events reached --day 1998-06-30 --json"] * times
    if code == 6 and state == "failed":
        assert any(
            "did not reach the end of 1998-06-30 within 0:00:00: shop.orders partition 2" in one for one in lines
        )


@pytest.mark.slow
@pytest.mark.usefixtures("home")
def test_where_no_stream_ever_ran_nobody_waits(tmp_path: Path) -> None:
    folder = tmp_path / "dags"
    folder.mkdir()
    (folder / "waiting.py").write_text(WAITING.format(seconds=3600))
    run = f"""
from airflow.dag_processing.dagbag import DagBag
done = DagBag({str(folder)!r}).dags["waiting"].test()
(task,) = done.get_task_instances()
print("STATE", task.state, task.trigger_id)
"""
    assert "STATE success None" in in_airflow.said(run, AIRFLOW__CORE__DAGS_FOLDER=str(folder))
