"""A lineage server that is well, refuses, hangs, is slow or is away: the file has every event, the rest is counted."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from plumbline.lineage import sending
from plumbline.settings import ROOT
from tests.plumbline.lineage import made_up_day
from tests.plumbline.lineage.lineage_server import server
from tests.plumbline.lineage.made_up_day import DAY


@pytest.fixture
def use(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def used(url: str) -> None:
        monkeypatch.setenv(sending.URL, url)
        sending._sender.cache_clear()

    return used


def whole_file() -> int:
    return len(list(sending.lines(sending.path())))


def test_every_event_arrives_in_its_order(use: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sending.KEY, "k3y")
    with server(lambda: 201) as (url, got):
        use(url)
        made_up_day.run_day(DAY)
        sending._sender(url).close(30)
        sent = [(event["run"]["runId"], event["eventType"]) for event in got]
    assert sent == [(e["run"]["runId"], e["eventType"]) for e in sending.lines(sending.path())]
    assert {(event["path"], event["key"]) for event in got} == {("/api/v1/lineage", "Bearer k3y")}
    assert sending.failures() == 0


def test_a_server_that_refuses_is_asked_once_and_the_rest_is_counted(
    use: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with server(lambda: 500) as (url, got):
        use(url)
        made_up_day.run_day(DAY)
        sending._sender(url).close(30)
    assert len(got) == 1
    assert (whole_file(), sending.failures()) == (14, 14)
    assert "14 events not confirmed" in capsys.readouterr().err


def test_a_server_that_is_away_costs_a_warning(use: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    use("http://me:secret@127.0.0.1:1")
    made_up_day.run_day(DAY)
    sending._sender("http://me:secret@127.0.0.1:1").close(30)
    assert (whole_file(), sending.failures()) == (14, 14)
    told = capsys.readouterr().err + sending.failures_path().read_text()
    assert "http://***@127.0.0.1:1" in told and "secret" not in told


def test_a_command_does_not_wait_for_a_server_that_hangs(home: Path) -> None:
    """A whole command, as it ends: the sender's wait is its own, and the events of the file are all there."""
    release = threading.Event()

    def hang() -> int:
        release.wait(30)
        return 201

    run = "from tests.plumbline.lineage import made_up_day as d; d.run_day(d.DAY)"
    script = f"{run}; import time; print(time.monotonic())"
    with server(hang) as (url, got):
        environment = {**os.environ, sending.URL: url}
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
        ended = time.monotonic()
        release.set()
    assert done.returncode == 0, done.stderr
    assert ended - float(done.stdout) < 15, "it hangs for 30"
    assert (whole_file(), len(got), sending.failures()) == (14, 1, 14)
    assert "Traceback" not in done.stderr


def test_a_command_that_is_over_at_once_says_why_nothing_arrived(home: Path) -> None:
    script = (
        "from plumbline.pipeline import stage; from tests.toy import TOY; "
        "stage.recorded(TOY, {'run_id': 'a', 'stage': 'kpi'}, dict)"
    )
    environment = {**os.environ, sending.URL: "http://me:secret@127.0.0.1:1"}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, whole_file(), sending.failures()) == (0, 2, 2)
    assert "2 events not confirmed: http://***@127.0.0.1:1: URLError" in done.stderr
    assert "Traceback" not in done.stderr and "secret" not in done.stderr + sending.failures_path().read_text()


def test_a_slow_server_gets_what_there_is_time_for(use: Callable[[str], None]) -> None:
    """A real Marquez took twelve events a second: two events of a command are no matter, a backlog is cut off."""
    slow = threading.Event()

    def answer() -> int:
        slow.wait(0.2)
        return 201

    with server(answer) as (url, got):
        use(url)
        made_up_day.run_day(DAY)
        sending._sender(url).close(0.01)
        arrived = len(got)
    assert 0 < arrived < 14
    assert 14 - arrived <= sending.failures() <= 14
    assert whole_file() == 14
