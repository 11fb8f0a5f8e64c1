"""Faults of processes, disks and stores: something dies, two runs meet, a disk is full, a file is altered."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from drills import shop
from drills.drill import Drilling, last_line
from drills.striking import Moment, new_file, redis_writes, started
from plumb.demo import demo
from plumbline import clock
from plumbline.errors import PlumblineError
from plumbline.servers import services
from plumbline.settings import settings

TRIES = 0.005
"""Seconds between two looks for the moment."""


@contextmanager
def at_the_moment(moment: Moment, strike: Callable[[], None]) -> Iterator[None]:
    """Strikes once, from a thread, when the moment is seen in this home."""
    seen, over = moment(settings().home), threading.Event()

    def watch() -> None:
        while not over.is_set():
            if seen():
                strike()
                return
            time.sleep(TRIES)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def stage_killed(drilling: Drilling) -> bool:
    """The day's run, in which `plumb features` dies by SIGKILL with data files written and none committed."""
    with at_the_moment(new_file("lake-*/features/customers/**/[!_.]*.parquet"), lambda: _kill_command("features")):
        return drilling.run()


def redis_killed(drilling: Drilling) -> bool:
    """The day's run, in which Redis dies by SIGKILL in mid-materialization."""

    def strike() -> None:
        os.killpg(json.loads((drilling.home / "redis.json").read_text())["pid"], signal.SIGKILL)

    with at_the_moment(redis_writes(20_000), strike):
        return drilling.run()


def two_runs(drilling: Drilling) -> bool:
    """The day's run, and while its dbt is at work somebody starts the same stage in a shell."""

    def strike() -> None:
        done = drilling.stage("dbt_run", "--as-of", str(shop.DAY))
        drilling.saw(f"the second dbt_run: exit code {done.returncode}", last_line(done))

    with at_the_moment(started("dbt_run"), strike):
        return drilling.run()


def altered_model(drilling: Drilling) -> None:
    """One byte of the challenger's model file changes on the disk."""
    newest = max(drilling.home.glob("mlflow/artifacts/**/model.ubj"), key=lambda path: path.stat().st_mtime_ns)
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)


def deployed(drilling: Drilling) -> bool:
    """Somebody deploys the challenger; True when that was done."""
    done = drilling.stage("deploy", "--model", "challenger")
    if done.returncode:
        drilling.saw(f"deploy: exit code {done.returncode}", last_line(done))
    return done.returncode == 0


def trained_anew(drilling: Drilling) -> bool:
    """The day's run; then the altered model's release is trained and registered again. True when what came serves."""
    release = str(drilling.release)
    again = (("train", "--release", release), ("register", "--release", release), ("deploy", "--model", "challenger"))
    return drilling.run() and all(drilling.stage(*command).returncode == 0 for command in again)


def materialized_anew(drilling: Drilling) -> bool:
    """Somebody writes every row online again and compares both sides; True when they are equal."""
    return all(drilling.stage(command).returncode == 0 for command in ("materialize", "parity_check"))


def weeks_pass(drilling: Drilling) -> bool:
    """Nothing runs for two weeks and a day, then the predictor is asked."""
    drilling.day = shop.DAY + timedelta(days=15)
    demo.set_clock(clock.end_of(drilling.day))
    services.stop(drilling.on.product.server)
    with suppress(PlumblineError):
        drilling.serve()
    return asked(drilling)


def asked(drilling: Drilling) -> bool:
    """The predictor is asked; True when it answered with a score."""
    answer = drilling.answered()
    if answer["status"] != 200:
        drilling.saw(f"predictor: answers {answer['status']}", answer["told"])
    return bool(answer["status"] == 200)


def catches_up(drilling: Drilling) -> bool:
    """One run over all the days."""
    shop.day_comes(drilling.day)
    return drilling.run(day=drilling.day)


def disk_full(drilling: Drilling) -> None:
    """The lake's disk, a small tmpfs for this drill, has 64 KiB left. Raises PlumblineError if none can be mounted."""
    lake = Path(str(settings().lake))
    size = sum(path.stat().st_size for path in lake.rglob("*") if path.is_file()) * 2
    beside = lake.with_name("lake-kept")
    lake.rename(beside)
    lake.mkdir()
    _mount(lake, f"size={size}")
    drilling.closing.append(lambda: _unmount(lake))
    shutil.copytree(beside, lake, dirs_exist_ok=True)
    shutil.rmtree(beside)
    _mount(lake, f"remount,size={_used(lake) + 65_536}")
    drilling.mend = lambda: _mount(lake, f"remount,size={size}")


def _used(lake: Path) -> int:
    found = os.statvfs(lake)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def _mount(folder: Path, options: str) -> None:
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise PlumblineError(f"this drill mounts a small disk, which needs root: {done.stderr.strip()}")


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", folder], check=True)


def _kill_command(stage: str) -> None:
    """SIGKILL for the running `plumb <stage>`, as the kernel does when memory is short."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if len(words) > 2 and words[1].endswith(b"/plumb") and words[2] == stage.encode():
                os.kill(int(folder.name), signal.SIGKILL)
