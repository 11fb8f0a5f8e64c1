"""The job is told to stop: the batch at work is done, and none that comes meanwhile is waited for. Told while its first
imports run, it ends without a word."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

from ingestion.events import offsets
from ingestion.events import stream as stream_job
from plumbline.servers.kafka import Broker
from plumbline.settings import ROOT
from tests.conftest import inherited

IMPORTING = """
import os, signal, sys
from plumb.main import main

class Freed:
    def __del__(self):  # as importlib's locks are freed: what is raised here is a traceback and goes nowhere
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1_000):
            pass

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "feature_repo.live_rows":
            Freed()

sys.meta_path.insert(0, Finder())
sys.argv = ["plumb", "events", "run", "--once"]
main()
"""


def test_a_signal_while_the_first_imports_run_ends_the_job_without_a_word(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING], cwd=ROOT, env=inherited(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")


def test_a_batch_that_comes_while_the_query_is_stopped_does_not_hold_it_up() -> None:
    plan = stream_job.Plan(lambda *_: None, "", lambda _: None, lambda: None)  # type: ignore[arg-type, return-value]
    begin = offsets.Begin("", "shop.orders", {}, {})
    stopping = threading.Event()
    job = stream_job._Job(plan, Broker("a:1", None, None, tls=False), None, {}, begin, lambda: None, stopping)  # type: ignore[arg-type]
    raised = list[BaseException]()

    def batch() -> None:
        try:
            job._batch(None, 1)  # type: ignore[arg-type]
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=batch, daemon=True)
    with job._at_work:
        thread.start()
        stopping.set()
        thread.join(10)
        assert [type(error).__name__ for error in raised] == ["_Stopped"]
