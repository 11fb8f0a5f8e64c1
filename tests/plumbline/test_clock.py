"""One clock, one zone: whatever zone the machine has."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta

import pytest

from plumbline import clock
from plumbline.settings import settings

ZONES = """
import subprocess, sys, time
from plumbline import clock
print(time.strftime("%Z", time.localtime(0)), time.localtime(0).tm_hour)
child = [sys.executable, "-c", "import time; print(time.localtime(0).tm_hour)"]
print(subprocess.run(child, capture_output=True, text=True).stdout.strip())
print(clock.end_of(clock.date(1998, 3, 25)))
"""


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kathmandu", "Pacific/Kiritimati", "UTC"])
def test_a_process_and_what_it_starts_run_in_utc(zone: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ZONES], env={**os.environ, "TZ": zone}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["UTC 0", "0", "1998-03-26 00:00:00+00:00"]


def test_a_clock_that_is_put_back_goes_on_and_is_a_replay_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLUMBLINE_NOW", raising=False)
    monkeypatch.setenv("PLUMBLINE_CLOCK_SHIFT_DAYS", "-10000")
    settings.cache_clear()
    first, real = clock.now(), clock.wall()
    assert real - first < timedelta(days=10_000, seconds=5)
    assert clock.now() > first
    assert clock.is_replay()
    monkeypatch.undo()
    settings.cache_clear()
