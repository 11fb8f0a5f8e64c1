"""One clock, one zone: whatever zone the machine has."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

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
