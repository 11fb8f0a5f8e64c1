"""What every benchmark shares: its home, its clock, percentiles, and the machine it ran on."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from plumbline import clock
from plumbline.servers import services
from plumbline.settings import ROOT, settings

HOME = ROOT / ".plumbline" / "bench"
"""The benchmarks' own home: nothing of yours is read or written."""

PLUMB = Path(sys.prefix) / "bin" / "plumb"


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds, and how many were measured."""
    import numpy as np

    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    return {"p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3), "n": len(seconds)}


def took(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def use(home: Path, now: date) -> None:
    """Makes `home` this process's home and its commands', its clock at the end of the day `now`."""
    os.environ["PLUMBLINE_HOME"] = str(home)
    os.environ["PLUMBLINE_CACHE"] = os.environ.get("PLUMBLINE_CACHE", str(ROOT / ".plumbline" / "cache"))
    os.environ["PLUMBLINE_NOW"] = f"{clock.end_of(now):%Y-%m-%dT%H:%M:%SZ}"
    os.environ.pop("SPARK_REMOTE", None)
    settings.cache_clear()


@contextmanager
def home(name: str, now: date) -> Any:
    """A home below the benchmarks'; its servers are stopped at the end, its files stay for the next run to replace."""
    path = HOME / name
    use(path, now)
    try:
        yield path
    finally:
        use(path, now)
        services.stop_all()


def plumb(*arguments: str) -> tuple[dict[str, Any], float]:
    """Runs a `plumb` command with --json: what it printed, and its wall seconds. Raises RuntimeError with its error."""
    begun = time.perf_counter()
    done = subprocess.run([PLUMB, *arguments, "--json"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"plumb {' '.join(arguments)}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1]), time.perf_counter() - begun


def worker(module: str, *arguments: object) -> Any:
    """What `python -m bench.<module> …` prints as JSON: a process of its own, so that no path warms another's up."""
    command = [sys.executable, "-m", f"bench.{module}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def machine() -> dict[str, Any]:
    """Where the numbers come from: cores, processor, load before, Python."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        )
        if Path("/proc/cpuinfo").exists()
        else iter(()),
        platform.processor(),
    )
    return {
        "cores": os.cpu_count(),
        "processor": model,
        "load_before": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "measured_on": f"{clock.wall():%Y-%m-%d}",
    }
