"""How runs of DAGs end: told to, nothing of them goes on; failed, the same Airflow runs again."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from plumbline.lineage import sending
from plumbline.orchestration import airflow
from plumbline.settings import ROOT
from tests.plumbline.lineage.lineage_server import server

DAG = """
from datetime import timedelta
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG("sleeper", default_args={"retries": 1, "retry_delay": timedelta(seconds=1)}):
    first, second = (BashOperator(task_id=name, bash_command="sleep 6543") for name in ("first", "second"))
    first >> second
"""
RUN = (
    "from pathlib import Path; from plumbline.orchestration import airflow; "
    "list(airflow.run([('sleeper', None)], Path('.')))"
)


def sleeping() -> list[psutil.Process]:
    return [process for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"] == ["sleep", "6543"]]


def tree(folder: Path, dag: str) -> Path:
    shutil.copytree(ROOT / "plumbline", folder / "plumbline", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "dags").mkdir()
    (folder / "dags" / "sleeper.py").write_text(dag)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_ended_in_mid_task_nothing_goes_on(how: signal.Signals, home: Path, tmp_path: Path) -> None:
    tree(tmp_path, DAG)
    ends = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); "
    ends += "signal.signal(signal.SIGINT, signal.default_int_handler); "  # a shell's background job ignores it
    running = subprocess.Popen([sys.executable, "-c", ends + RUN], cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not sleeping():
            assert running.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        below = psutil.Process(running.pid).children(recursive=True)
        running.send_signal(how)
        assert running.wait(60) != 0
        assert [process for process in below if process.is_running() and process.status() != "zombie"] == []
        time.sleep(2)
        assert sleeping() == [], "the next task began"
    finally:
        running.kill()
        for process in sleeping():
            process.kill()


@pytest.mark.slow
def test_one_airflow_runs_again_after_a_run_that_failed(home: Path, tmp_path: Path) -> None:
    dag = DAG.replace("sleep 6543", f"cat {tmp_path}/mended").replace('"retries": 1', '"retries": 0')
    with airflow.Airflow(tree(tmp_path, dag)) as ready:
        with pytest.raises(airflow.AirflowError, match=r"sleeper\.first failed"):
            list(ready.run([("sleeper", None)]))
        (tmp_path / "mended").touch()
        ended = [(task, state) for _, task, state, _ in ready.run([("sleeper", None)])]
    assert ended == [("first", "success"), ("second", "success")]


@pytest.mark.slow
def test_a_lineage_server_hears_that_a_dag_run_is_over(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server(lambda: 201) as (url, got):
        monkeypatch.setenv(sending.URL, url)
        monkeypatch.setenv(sending.KEY, "k3y")
        list(airflow.run([("sleeper", None)], tree(tmp_path, DAG.replace("sleep 6543", "true"))))
    whole = [(event["job"]["name"], event["eventType"]) for event in got if event["job"]["name"] == "sleeper"]
    assert whole[-1] == ("sleeper", "COMPLETE")
    assert {event["key"] for event in got} == {"Bearer k3y"}
    kept = [(event["run"]["runId"], event["eventType"]) for event in sending.lines(sending.path())]
    assert sorted(kept) == sorted((event["run"]["runId"], event["eventType"]) for event in got)


@pytest.mark.slow
def test_a_broken_dag_file_is_named(home: Path, tmp_path: Path) -> None:
    with pytest.raises(airflow.AirflowError, match=r"(?s)Airflow failed.*sleeper\.py.*SyntaxError"):
        list(airflow.run([("sleeper", None)], tree(tmp_path, "from airflow.sdk import DAG\nwith DAG(")))
