"""Runs of our DAGs without a scheduler: Airflow's own `dag.test`, several runs in one process.

The orchestration environment's Python executes it (`python -m plumbline.orchestration.airflow`), started by `run()`.
Each task still is a `plumb` command of its own. What each task came to goes to standard output in a line
of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self
from unittest.mock import patch

from plumbline.errors import PlumblineError
from plumbline.lineage import sending
from plumbline.settings import ENVIRONMENTS, ROOT, settings

RESULT, OVER = "task-ended ", "runs-over "
LOOK = 0.1
"""Seconds between two looks for a task that can start."""

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

    They go to the lineage server too, tried once: it hears of a DAG run by its stages, and only Airflow says that it is
    over. Its client adds a transport `default_http` for the URL, which retries for long, unless there is one already.
    Without a thread of its own each event costs a fork.
    """
    transport: dict[str, object] = {"type": "file", "log_file_path": str(sending.path()), "append": True}
    if url := os.environ.get(sending.URL):
        server = {"type": "http", "url": url, "timeout": sending.SECONDS, "retry": {"total": 0}}
        if key := os.environ.get(sending.KEY):
            server["auth"] = {"type": "api_key", "apiKey": key}
        transport = {"type": "composite", "transports": {"file": transport, "default_http": server}}
    return {
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport),
        "AIRFLOW__OPENLINEAGE__NAMESPACE": "airflow",
        "AIRFLOW__OPENLINEAGE__EXECUTE_IN_THREAD": "True",
        "AIRFLOW__OPENLINEAGE__DISABLE_SOURCE_CODE": "True",
    }


def run(runs: list[tuple[str, str | None]], root: Path = ROOT) -> Iterator[tuple[str, str, str, float]]:
    """Runs DAGs in an Airflow of their own; see Airflow.run. `root` is the tree whose DAGs and rooms run."""
    with Airflow(root) as airflow:
        yield from airflow.run(runs)


class Airflow:
    """An Airflow process for runs of the DAGs in `root`, with this process's settings as they are when it is made.

    Its start takes seconds and goes on beside whoever made it. Left by an error, it ends with what it runs.
    """

    def __init__(self, root: Path = ROOT) -> None:
        self.log = settings().home / "logs" / "airflow.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_text("")
        with self.log.open("a") as output:
            self._process = subprocess.Popen(
                [str(ENVIRONMENTS / "orchestration" / "bin" / "python"), "-m", "plumbline.orchestration.airflow"],
                env={**os.environ, **environment(root)},
                cwd=root,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not issubclass(kind, AirflowError) and self._process.poll() is None:
            _end(self._process)
        self._process.communicate()

    def run(self, runs: list[tuple[str, str | None]]) -> Iterator[tuple[str, str, str, float]]:
        """Runs DAGs one after the other, given as (dag id, as_of or None), up to one that fails.

        Yields (dag, task, state, seconds) as they end. Raises AirflowError with the failed task and the log to read.
        """
        with suppress(BrokenPipeError):  # it ended: what it said is in its log
            print(json.dumps(runs), file=self._process.stdin, flush=True)
        failed: list[str] = []
        with self.log.open("a") as output:
            for line in self._process.stdout or ():
                if line.startswith(RESULT):
                    dag, task, state, seconds = json.loads(line[len(RESULT) :])
                    if state not in ("success", "upstream_failed", "skipped"):
                        failed.append(f"{dag}.{task}")
                    yield dag, task, state, seconds
                elif line.startswith(OVER):
                    if json.loads(line[len(OVER) :]) and not failed:
                        return
                    break
                else:
                    output.write(line)
                    output.flush()
        told = ", ".join(failed) or "Airflow"
        tail = "\n  ".join(line.strip()[:300] for line in self.log.read_text(errors="replace").splitlines()[-12:])
        raise AirflowError(f"{told} failed; the end of {self.log}:\n  {tail}")


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
    """Runs what each line of standard input asks for, as JSON: a list of (dag id, as_of or None)."""
    from airflow.dag_processing.dagbag import DagBag
    from airflow.sdk.execution_time import supervisor, task_runner  # noqa: F401 the first task would import it

    lines = os.fdopen(os.dup(sys.stdin.fileno()))
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())  # a task reads nothing of it
    _initialize()
    bag = DagBag(str(ROOT / "dags"))
    if bag.import_errors:
        sys.exit(str(bag.import_errors))
    _ = supervisor.in_process_api_server().transport  # the first task would wait for it to be built
    for line in lines:
        with _looking_often():
            succeeded = all(_run_one(bag.dags[dag], as_of) for dag, as_of in json.loads(line))
        print(OVER + json.dumps(succeeded), flush=True)


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


@contextmanager
def _looking_often() -> Iterator[None]:
    """dag.test sleeps a second at each look that finds nothing to start: one for every task behind a failed one."""
    with patch("time.sleep", lambda seconds, sleep=time.sleep: sleep(min(seconds, LOOK))):
        yield


def _run_one(dag, as_of: str | None) -> bool:  # type: ignore[no-untyped-def]
    done = dag.test(run_conf={"as_of": as_of} if as_of else None)
    ended = sorted(done.get_task_instances(), key=lambda task: (task.start_date is None, task.start_date))
    for task in ended:
        print(RESULT + json.dumps([dag.dag_id, task.task_id, str(task.state), task.duration or 0.0]), flush=True)
    return str(done.state) == "success"


if __name__ == "__main__":
    main()
