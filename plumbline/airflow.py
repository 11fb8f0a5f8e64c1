"""Runs of our DAGs without a scheduler: Airflow's own `dag.test`, several runs in one process.

It is executed by the orchestration environment's Python (`python -m plumbline.airflow`); `run()` calls it from the
pipeline's. Each task still is a `plumb` command of its own. A line `<dag> <task> <state> <seconds>` goes to standard
output as each task ends.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from plumbline.errors import PlumblineError
from plumbline.lineage import sending
from plumbline.settings import ENVIRONMENTS, ROOT, settings

RESULT = "task-ended "
GRACE = 20
"""Seconds that a command under way has to write its end into the ledger."""


class AirflowError(PlumblineError):
    """A DAG run failed, or Airflow itself did."""


def environment(root: Path = ROOT) -> dict[str, str]:
    """Airflow's settings for a laptop run of the code in `root`: everything in our home, no examples, loopback."""
    home = settings().home / "airflow"
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(root / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://127.0.0.1:8080/execution/",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        **lineage(),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "PYTHONPATH": str(root),
        "NO_COLOR": "1",
    }


def lineage() -> dict[str, str]:
    """Airflow's own runs go into the event file of this home, in a namespace of their own; they name no datasets.

    Not to a server: its tasks would wait for one that hangs. Without a thread of its own each event costs a fork.
    """
    transport = {"type": "file", "log_file_path": str(sending.path()), "append": True}
    return {
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport),
        "AIRFLOW__OPENLINEAGE__NAMESPACE": "airflow",
        "AIRFLOW__OPENLINEAGE__EXECUTE_IN_THREAD": "True",
        "AIRFLOW__OPENLINEAGE__DISABLE_SOURCE_CODE": "True",
    }


def run(runs: list[tuple[str, str | None]], root: Path = ROOT) -> Iterator[tuple[str, str, str, float]]:
    """Runs DAGs one after the other, given as (dag id, as_of or None); yields (dag, task, state, seconds) as they end.

    `root` is the tree whose DAGs and rooms run, this one by default.

    Raises AirflowError with the failed task and the log to read.
    """
    home = settings().home
    python = ENVIRONMENTS / "orchestration" / "bin" / "python"
    log = home / "logs" / "airflow.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    arguments = [f"{dag}={as_of}" if as_of else dag for dag, as_of in runs]
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(python), "-m", "plumbline.airflow", *arguments],
            env={**os.environ, **environment(root)},
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
        )
        failed: list[str] = []
        try:
            for line in process.stdout or ():
                if line.startswith(RESULT):
                    dag, task, state, seconds = json.loads(line[len(RESULT) :])
                    if state not in ("success", "upstream_failed", "skipped"):
                        failed.append(f"{dag}.{task}")
                    yield dag, task, state, seconds
                else:
                    output.write(line)
                    output.flush()
        finally:
            if process.poll() is None and sys.exc_info()[0] is not None:
                _end(process)
            code = process.wait()
    if failed or code:
        told = ", ".join(failed) or f"Airflow ended with {code}"
        tail = "\n  ".join(line.strip()[:300] for line in log.read_text(errors="replace").splitlines()[-12:])
        raise AirflowError(f"{told} failed; the end of {log}:\n  {tail}")


def _end(process: subprocess.Popen[str]) -> None:
    """Ends Airflow and what it runs. Told to end, it would end the task under way and go on with the next one."""
    import psutil

    below = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for child in below:
        with suppress(psutil.NoSuchProcess):
            child.terminate()
    for left in psutil.wait_procs(below, timeout=GRACE)[1]:
        left.kill()


def main() -> None:
    """Runs each `DAG_ID[=AS_OF]` of the command line; exit code 1 when one does not succeed."""
    parser = argparse.ArgumentParser(
        description="Run DAGs without a scheduler.",
        epilog="example: python -m plumbline.airflow retail_features=1998-06-30 ml_training_pipeline",
    )
    parser.add_argument("runs", nargs="+", metavar="DAG_ID[=AS_OF]")
    sys.exit(0 if _run_all(parser.parse_args().runs) else 1)


def _run_all(runs: list[str]) -> bool:
    from airflow.dag_processing.dagbag import DagBag

    _initialize()
    bag = DagBag(str(ROOT / "dags"))
    if bag.import_errors:
        print(bag.import_errors, file=sys.stderr)
        return False
    for wanted in runs:
        dag_id, _, as_of = wanted.partition("=")
        if not _run_one(bag.dags[dag_id], as_of):
            return False
    return True


def _initialize() -> None:
    """Makes Airflow's database, or brings it to this Airflow's schema; once a version, since looking takes seconds."""
    from airflow import __version__

    home = Path(os.environ["AIRFLOW_HOME"])
    stamp = home / f"initialized-{__version__}"
    if not (stamp.exists() and (home / "airflow.db").exists()):
        from airflow.utils.db import initdb

        home.mkdir(parents=True, exist_ok=True)
        initdb()
        stamp.touch()


def _run_one(dag, as_of: str) -> bool:  # type: ignore[no-untyped-def]
    done = dag.test(run_conf={"as_of": as_of} if as_of else None)
    ended = sorted(done.get_task_instances(), key=lambda task: (task.start_date is None, task.start_date))
    for task in ended:
        print(RESULT + json.dumps([dag.dag_id, task.task_id, str(task.state), task.duration or 0.0]), flush=True)
    return str(done.state) == "success"


if __name__ == "__main__":
    main()
