"""Two machines, each with a home of its own, on one bucket: real processes that run the toy product's stages."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from plumbline.pipeline import retention
from plumbline.settings import ROOT, settings
from plumbline.state import candidates, ledger, objects, releases
from tests import toy_run
from tests.object_store import NO_MLFLOW
from tests.toy import TOY

DAY = date(1998, 6, 29)
SECONDS = 3
WAIT = 60
STATE = ("accepted", "evidence", "leases", "ledger", "rejected", "releases", "runs", "schema_changes")


class Machine:
    """A home of its own, whose stages are processes; `meets` is where the process in the middle is met."""

    def __init__(self, folder: Path) -> None:
        self.home, self.meets = folder / "home", folder / "meets"
        self.meets.mkdir(parents=True)
        self.process: subprocess.Popen[str] | None = None

    def start(self, stage: str, *, paused: bool = False) -> subprocess.Popen[str]:
        """Begins a stage; with `paused` it returns when the stage holds the lease and waits."""
        command = [sys.executable, "-m", "tests.toy_run", stage, str(DAY), *([str(self.meets)] if paused else [])]
        self.process = subprocess.Popen(
            command,
            env={**os.environ, "PLUMBLINE_HOME": str(self.home)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + WAIT
        while paused and not (self.meets / "ready").exists():
            assert self.process.poll() is None and time.monotonic() < deadline, self.process.communicate()
            time.sleep(0.02)
        return self.process

    def run(self, stage: str) -> tuple[int, str, str]:
        """Runs a stage to its end: exit code, what it said, its progress."""
        self.start(stage)
        return self.end()

    def go_on(self) -> tuple[int, str, str]:
        """Lets a paused stage go on to its end."""
        (self.meets / "go").touch()
        return self.end()

    def end(self) -> tuple[int, str, str]:
        assert self.process is not None
        out, err = self.process.communicate(timeout=WAIT)
        return self.process.returncode, out.strip(), err

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


@pytest.fixture
def machines(bucket_state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Machine, Machine]]:
    """Two machines with one lake and one bucket; this process sees what they leave there."""
    monkeypatch.setenv("PLUMBLINE_LAKE", str(tmp_path / "lake"))
    monkeypatch.setenv("PLUMBLINE_LEASE_SECONDS", str(SECONDS))
    settings.cache_clear()
    both = Machine(tmp_path / "one"), Machine(tmp_path / "two")
    yield both
    for machine in both:
        if machine.process is not None and machine.process.poll() is None:
            machine.process.kill()
            machine.process.communicate()


def states(stage: str) -> list[str]:
    return [event["state"] for event in ledger.events("toy") if event["stage"] == stage]


def test_stages_of_one_run_on_two_machines_make_one_release(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    assert one.run("ingest")[:2] == (0, "done: landed 1 toy")
    assert two.run("ingest")[:2] == (0, "unchanged: done before in this run: landed 1 toy")
    assert two.run("check")[:2] == (0, "done: 1 toy keeps its contract")
    assert one.run("release")[:2] == (0, "done: release 1 is in force: 1 tables as of 1998-06-29")
    assert two.run("release")[:2] == (0, "unchanged: release 1 covers 1998-06-29 already")
    release = releases.required("toy")
    assert (release.release_id, release.tables) == (1, {toy_run.TABLE: 0})
    assert retention.named(TOY) == {toy_run.TABLE: {0: ["release 1", "run 1998-06-29"]}}
    for machine in machines:
        assert not machine.home.exists(), "all of it is in the bucket and the lake"


def test_while_one_machine_is_at_work_the_other_is_turned_away(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    working = one.start("ingest", paused=True)
    code, said, progress = two.run("ingest")
    assert code == 5
    assert said.startswith(f"Conflict: another run of toy is at work (held by pid {working.pid} on ")
    assert progress.count("waiting for its next renewal, or its end") == 1
    assert one.go_on()[:2] == (0, "done: landed 1 toy")
    assert states("ingest") == ["START", "COMPLETE"]


def test_a_holder_that_is_thawed_behind_its_lease_cannot_publish(
    machines: tuple[Machine, Machine], bucket_state: str
) -> None:
    one, two = machines
    assert [one.run("ingest")[0], one.run("check")[0]] == [0, 0]
    one.start("release", paused=True)
    one.freeze()
    code, said, progress = two.run("release")
    assert (code, said) == (0, "done: release 1 is in force: 1 tables as of 1998-06-29")
    assert "waiting for its next renewal, or its end" in progress and "was killed" in progress
    one.thaw()
    code, said, _ = one.go_on()
    assert code == 5
    assert re.fullmatch(
        rf"LeaseLost: {bucket_state}/leases/toy\.json: release lost its lease, fence 3, while it was stopped or cut "
        r"off \(pid \d+ on \S+ was given fence 4 for release\), so nothing was published: run the same command again",
        said,
    )
    assert releases.numbers("toy") == [1]
    assert states("release") == ["START", "KILLED", "START", "COMPLETE"]


def test_a_holder_that_is_thawed_though_nobody_took_over_does_not_publish_either(
    machines: tuple[Machine, Machine],
) -> None:
    one, two = machines
    assert [one.run("ingest")[0], one.run("check")[0]] == [0, 0]
    one.start("release", paused=True)
    one.freeze()
    begun = time.monotonic()
    while time.monotonic() - begun < SECONDS + 0.5:
        time.sleep(0.1)
    one.thaw()
    code, said, _ = one.go_on()
    assert code == 5 and "while it was stopped or cut off (it ran out before it was renewed), so nothing" in said
    assert releases.numbers("toy") == []
    assert two.run("release")[:2] == (0, "done: release 1 is in force: 1 tables as of 1998-06-29")


def test_a_holder_that_is_thawed_does_not_overwrite_the_candidate_of_its_successor(
    machines: tuple[Machine, Machine],
) -> None:
    one, two = machines
    one.start("ingest", paused=True)
    one.freeze()
    assert two.run("ingest")[0] == 0
    assert two.run("check")[0] == 0
    one.thaw()
    code, said, _ = one.go_on()
    assert code == 5 and said.startswith("LeaseLost: ") and "ingest lost its lease, fence 1, " in said
    candidate = candidates.load("toy", DAY)
    assert candidate is not None and sorted(candidate.stages) == ["check", "ingest"]
    assert candidate.tables == {toy_run.TABLE: 0}, "what the successor wrote, not what the thawed one wrote after it"
    assert two.run("release")[0] == 0


def test_a_killed_holder_is_followed_without_a_conflict(machines: tuple[Machine, Machine]) -> None:
    one, two = machines
    one.start("ingest", paused=True).kill()
    one.end()
    code, said, progress = two.run("ingest")
    assert (code, said) == (0, "done: landed 1 toy")
    assert "waiting for its next renewal, or its end" in progress
    assert states("ingest") == ["START", "KILLED", "START", "COMPLETE"]


TIMES = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*\+00:00")
PASSING = ("seconds", "etag", "token", "pid", "expires_at", "report", "digest")


def everything() -> dict[str, Any]:
    """Key → JSON of all state, without times, and random digits left out of names."""
    found: dict[str, Any] = {}
    for folder in STATE:
        for key in objects.keys(folder):
            if key.endswith(".lock"):
                continue
            name = re.sub(r"/\d{8}T\d{12}-(.*)-[0-9a-f]{4}\.json", r"/\1", key)
            assert name not in found or folder == "ledger"
            found.setdefault(name, []).append(_lasting(objects.read_json(key)))
    return found


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _lasting(each) for name, each in value.items() if name not in PASSING}
    if isinstance(value, list):
        return [_lasting(each) for each in value]
    return TIMES.sub("<time>", value) if isinstance(value, str) else value


def whole_run() -> None:
    """The toy's three stages of a day."""
    for name in TOY.daily_stages:
        toy_run.perform(name, DAY)


def test_the_same_run_leaves_the_same_objects_in_files_and_in_a_bucket(
    home: Path, s3_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_run()
    on_files = everything()
    assert json.loads((home / "releases" / "toy" / "000001.json").read_text())["release_id"] == 1
    for name, value in {**s3_server.env, "PLUMBLINE_STATE": s3_server.fresh_url(), **NO_MLFLOW}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PLUMBLINE_HOME", str(tmp_path / "another"))
    settings.cache_clear()
    whole_run()
    assert everything() == on_files
    assert len([key for key in on_files if key.startswith("ledger/")]) == 2 * len(TOY.daily_stages)
    assert f"evidence/toy-{DAY}/toys.json" in on_files
