"""Holders as processes of their own: one wins, one is frozen, one is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from plumbline import clock
from plumbline.errors import Conflict, ServiceUnavailable, Unreadable
from plumbline.settings import settings
from plumbline.state import leases, objects
from tests.object_store import HOST

KEY = "leases/churn.json"
SECONDS = 4
OVER = SECONDS * 4 / 3 + 1
SCRIPT = """
import sys
from plumbline.errors import PlumblineError
from plumbline.state import leases
try:
    with leases.hold("churn", sys.argv[1]) as lease:
        print(lease.fence, lease.previous, flush=True)
        for _ in sys.stdin:
            lease.check()
            print("held", flush=True)
except PlumblineError as error:
    print(type(error).__name__, error.exit_code, error, flush=True)
"""


class Holder:
    """A process that asks for the lease, says what it got, and checks it at each `check`."""

    def __init__(self, work: str, home: Path | None = None) -> None:
        env = {**os.environ, **({"PLUMBLINE_HOME": str(home)} if home else {})}
        command = [sys.executable, "-c", SCRIPT, work]
        self.process = subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.began = self._line()

    def check(self) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write("check\n")
        return self._line()

    def end(self) -> None:
        self.process.communicate(timeout=60)

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_LEASE_SECONDS", str(SECONDS))


@pytest.fixture
def holder() -> Iterator[Callable[..., Holder]]:
    """Starts holders; those that are left in the end are killed."""
    started: list[Holder] = []

    def start(work: str, home: Path | None = None) -> Holder:
        started.append(Holder(work, home))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()


def _record() -> dict[str, Any]:
    found = objects.read_json(KEY)
    assert found is not None
    return found


def _eventually(what: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


@contextmanager
def _taken_when_over(work: str = "release") -> Iterator[leases.Lease]:
    """The lease, as soon as it is given."""
    deadline = time.monotonic() + 30
    while True:
        try:
            with leases.hold("churn", work) as lease:
                yield lease
            return
        except leases.LeaseLost:
            raise
        except Conflict:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_one_holds_it_and_the_other_is_told_who(place: str, holder: Callable[..., Holder], tmp_path: Path) -> None:
    other_home = None if place == "files" else tmp_path / "another machine's home"
    first = holder("features", other_home)
    assert first.began == "1 none"
    with pytest.raises(Conflict) as error, leases.hold("churn", "release"):
        pass
    assert error.value.exit_code == 5
    assert str(error.value).startswith(f"another run of churn is at work (held by pid {first.process.pid} on ")
    assert "for features (`-c features`) since 20" in str(error.value) and "it runs out at 20" in str(error.value)
    assert first.check() == "held"
    first.end()
    with leases.hold("churn", "release") as lease:
        assert (lease.fence, lease.previous) == (2, "released")
        lease.check()
        with pytest.raises(Conflict, match=f"held by pid {os.getpid()} on .* for release"):
            with leases.hold("churn", "features"):
                pass
        with leases.hold("churn", "train", kind="training") as training:
            assert (training.fence, training.previous) == (1, "none"), "a lease of its own"
    assert (_record()["state"], _record()["fence"]) == ("free", 2)


@pytest.mark.usefixtures("place")
def test_a_lease_is_freed_when_the_block_raises_and_no_thread_stays() -> None:
    with pytest.raises(ValueError, match="a stage failed"), leases.hold("churn", "features"):
        raise ValueError("a stage failed")
    assert _record()["state"] == "free"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lease")]


def test_while_its_holder_lives_a_lease_is_renewed(bucket_state: str, holder: Callable[..., Holder]) -> None:
    first = holder("features")
    ends = _record()["expires_at"]
    begun = time.monotonic()
    while time.monotonic() - begun < OVER:
        with pytest.raises(Conflict), leases.hold("churn", "release"):
            pass
        time.sleep(0.2)
    assert _record()["expires_at"] > ends and _record()["fence"] == 1
    assert first.check() == "held"


def test_in_a_bucket_a_frozen_holder_is_replaced_and_does_not_publish_when_thawed(
    bucket_state: str, holder: Callable[..., Holder], tmp_path: Path
) -> None:
    first = holder("features", tmp_path / "one")
    first.process.send_signal(signal.SIGSTOP)
    with _taken_when_over() as lease:
        assert (lease.fence, lease.previous) == (2, "ran out")
        first.process.send_signal(signal.SIGCONT)
        told = first.check()
        assert told.startswith(
            f"LeaseLost 5 {bucket_state}/{KEY}: features lost its lease, fence 1, while it was stopped "
        )
        assert f"or cut off (pid {os.getpid()} on " in told and "was given fence 2 for release)" in told
        assert told.endswith("so nothing was published: run the same command again")
        first.end()
        lease.check()
    assert (_record()["state"], _record()["fence"]) == ("free", 2), "the loser freed nothing"


def test_in_a_bucket_a_holder_whose_time_is_over_does_not_come_back(
    bucket_state: str, holder: Callable[..., Holder]
) -> None:
    first = holder("features")
    first.process.send_signal(signal.SIGSTOP)
    begun = time.monotonic()
    _eventually(lambda: time.monotonic() - begun > OVER)
    first.process.send_signal(signal.SIGCONT)
    assert "features lost its lease, fence 1, while it was stopped or cut off (it ran out" in first.check()
    first.end()
    with leases.hold("churn", "features") as lease:
        assert lease.fence == 2


def test_in_a_bucket_a_killed_holder_is_over_when_its_lease_is(
    bucket_state: str, holder: Callable[..., Holder], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = holder("features", tmp_path / "one")
    first.process.kill()
    first.end()
    begun = time.monotonic()
    with leases.hold("churn", "features") as lease:  # a second try is there before that: it waits
        assert (lease.fence, lease.previous) == (2, "ran out")
    assert time.monotonic() - begun < OVER + 1
    assert f"held by pid {first.process.pid} on " in (told := "".join(capfd.readouterr()))
    assert "without renewal it runs out at " in told and told.count("; waiting for its next renewal, or its end") == 1


def test_on_files_a_killed_holder_is_over_at_once(home: Path, holder: Callable[..., Holder]) -> None:
    first = holder("features")
    first.process.kill()
    first.end()
    with leases.hold("churn", "features") as lease:
        assert (lease.fence, lease.previous) == (2, "ran out")


def test_on_files_a_frozen_holder_keeps_it_and_goes_on(home: Path, holder: Callable[..., Holder]) -> None:
    first = holder("features")
    first.process.send_signal(signal.SIGSTOP)
    _eventually(lambda: leases.Record(**_record()).over(clock.wall()))
    with pytest.raises(Conflict, match=f"held by pid {first.process.pid} on .* for features"):
        with leases.hold("churn", "release"):
            pass
    first.process.send_signal(signal.SIGCONT)
    assert first.check() == "held"


def test_on_files_a_lock_that_says_no_more_is_still_a_lock(home: Path) -> None:
    from plumbline import files

    with files.locked(home / "leases" / "churn.lock", wait=False):
        with pytest.raises(Conflict, match=rf"^another run of churn is at work \(held by pid {os.getpid()}\)$"):
            with leases.hold("churn", "features"):
                pass


def test_on_files_that_machines_share_another_machine_s_lease_must_run_out(home: Path) -> None:
    with leases.hold("churn", "features"):
        pass
    record = {**_record(), "host": "another-machine", "state": "held"}
    ends = clock.wall() + timedelta(seconds=1)
    objects.replace_json(KEY, {**record, "expires_at": ends.isoformat()})
    with leases.hold("churn", "release") as lease:
        assert lease.previous == "ran out" and clock.wall() > ends
    objects.replace_json(KEY, {**record, "expires_at": (clock.wall() - timedelta(seconds=2)).isoformat()})
    with leases.hold("churn", "release") as lease:
        assert lease.previous == "ran out"
        objects.replace_json(KEY, {**record, "token": "taken", "fence": 3})
        with pytest.raises(leases.LeaseLost, match=r"pid \d+ on another-machine was given fence 3"):
            lease.check()


def test_a_waiting_process_does_not_need_the_machines_clocks_to_agree(bucket_state: str) -> None:
    with leases.hold("churn", "features"):
        pass
    ahead = (clock.wall() + timedelta(hours=1)).isoformat()
    objects.replace_json(KEY, {**_record(), "host": "a clock of its own", "state": "held", "expires_at": ahead})
    with leases.hold("churn", "release") as lease:
        assert (lease.fence, lease.previous) == (2, "ran out")


def test_who_waits_for_its_turn_gets_it_once_the_holder_ends(place: str) -> None:
    order: list[str] = []

    def second() -> None:
        with leases.hold("churn", "second", "outcomes", wait=True):
            order.append("second")

    with leases.hold("churn", "first", "outcomes"):
        thread = threading.Thread(target=second)
        thread.start()
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_of_many_that_ask_at_once_one_gets_it(bucket_state: str) -> None:
    for number in range(1, 3):
        held, told, barrier, done = [], [], threading.Barrier(4), threading.Barrier(4)

        def ask(
            barrier: threading.Barrier = barrier, done: threading.Barrier = done, held: Any = held, told: Any = told
        ) -> None:
            barrier.wait()
            try:
                with leases.hold("churn", "features") as lease:
                    held.append(lease.fence)
                    done.wait()
            except Conflict as conflict:
                told.append(str(conflict))
                done.wait()

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (held, len(told)) == ([number], 3)


def test_without_the_server_a_holder_does_not_publish_and_says_that_the_lease_was_not_freed(
    bucket_state: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with leases.hold("churn", "features") as lease:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{HOST}:1")
        with pytest.raises(ServiceUnavailable):
            lease.check()
    assert "the lease leases/churn.json was not freed, it runs out 20" in "".join(capfd.readouterr())


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("text", ["{", "[]", "{}", json.dumps({"fence": 1, "holder": "?"})])
def test_what_is_no_lease_is_named(text: str) -> None:
    objects.create(KEY, text)
    with pytest.raises(Unreadable, match="leases/churn.json: expected a "):
        with leases.hold("churn", "features"):
            pass


def test_a_lease_of_no_length_is_a_bad_setting(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_LEASE_SECONDS", "0")
    settings.cache_clear()
    with pytest.raises(Exception, match="PLUMBLINE_LEASE_SECONDS: Input should be greater than or equal to 3"):
        settings()
