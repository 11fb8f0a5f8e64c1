"""Kills for drills and tests: a command, or a server it needs, dies by SIGKILL at a moment seen from outside."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PLUMB = Path(sys.prefix) / "bin" / "plumb"

Seen = Callable[[], bool]
Moment = Callable[[Path], Seen]
"""Given a home, before the command starts: a question that is true from that moment of the command's work on."""


class NotSeen(Exception):
    """The moment to strike did not come."""


@dataclass(frozen=True)
class Kill:
    """Who dies (`plumb`, with its whole process group, or a server by its record's name), when, and how to say when."""

    told: str
    moment: Moment
    victim: str = "plumb"


@dataclass(frozen=True)
class Struck:
    """What a kill came to: the killed or bereft command's exit code, its last words and its seconds after the kill."""

    code: int
    told: str
    seconds: float


def new_file(pattern: str) -> Moment:
    """A file below the home that was not there before."""

    def before(home: Path) -> Seen:
        known = set(home.glob(pattern))
        return lambda: any(path not in known for path in home.glob(pattern))

    return before


def data_file(table: str) -> Moment:
    """A data file of a table, which no commit names yet."""
    return new_file(f"lake/{table}/**/[!_.]*.parquet")


def commit(table: str) -> Moment:
    """A Delta commit of a table."""
    return new_file(f"lake/{table}/_delta_log/*.json")


def started(stage: str, product: str = "churn") -> Moment:
    """The ledger's START event of a stage."""
    return new_file(f"ledger/{product}/*-{stage}-START-*.json")


def files_reach(pattern: str, least: int) -> Moment:
    """So many files below the home that were not there before."""

    def before(home: Path) -> Seen:
        known = len(list(home.glob(pattern)))
        return lambda: len(list(home.glob(pattern))) >= known + least

    return before


def rewritten(name: str) -> Moment:
    """A file written anew, or for the first time."""

    def before(home: Path) -> Seen:
        stamp = _stamp(home / name)
        return lambda: _stamp(home / name) not in (stamp, None)

    return before


def then(first: Moment, second: Moment) -> Moment:
    """The second moment, looked for from the first on."""

    def before(home: Path) -> Seen:
        first_seen = first(home)
        second_seen: list[Seen] = []

        def seen() -> bool:
            if not second_seen and first_seen():
                second_seen.append(second(home))
            return bool(second_seen) and second_seen[0]()

        return seen

    return before


def redis_writes(least: int) -> Moment:
    """So many fields written to the private Redis since the command began."""

    def changes(home: Path) -> int:
        import redis

        with contextlib.suppress(OSError, ValueError, redis.RedisError):
            record = json.loads((home / "redis.json").read_text())
            with redis.Redis(port=record["port"], password=record["token"], socket_timeout=1) as client:
                return int(client.info("persistence")["rdb_changes_since_last_save"])
        return 0

    def before(home: Path) -> Seen:
        known = changes(home)
        return lambda: changes(home) >= known + least

    return before


def in_mlflow(query: str) -> Moment:
    """A count in MLflow's database that grew."""

    def count(home: Path) -> int:
        try:
            with contextlib.closing(sqlite3.connect(f"file:{home}/mlflow/mlflow.db?mode=ro", uri=True)) as database:
                return int(database.execute(query).fetchone()[0])
        except sqlite3.OperationalError:
            return 0

    def before(home: Path) -> Seen:
        known = count(home)
        return lambda: count(home) > known

    return before


def strike(home: Path, command: list[str], kill: Kill, patience: float = 400.0) -> Struck:
    """Starts the command, kills when the moment is seen, and waits for the command's end."""
    seen = kill.moment(home)
    process = subprocess.Popen(
        [PLUMB, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        deadline = time.monotonic() + patience
        while not seen():
            if process.poll() is not None:
                raise NotSeen(f"{command} ended before {kill.told}: {process.communicate()[0]}")
            if time.monotonic() > deadline:
                raise NotSeen(f"{command}: {kill.told} was not seen in {patience} s")
            time.sleep(0.001)
        if kill.victim == "plumb":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            os.killpg(json.loads((home / f"{kill.victim}.json").read_text())["pid"], signal.SIGKILL)
        begun = time.monotonic()
        told, _ = process.communicate(timeout=patience)
        return Struck(process.returncode, told, time.monotonic() - begun)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _stamp(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None
