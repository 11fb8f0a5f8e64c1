"""Private servers of one home folder: found by their record, started under a lock, stopped without leftovers.

A record is `<home>/<name>.json`, readable by its owner only: pid, the pid's start time (so that a reused pid is not
taken for the server), port, and whatever its clients need (a token). Everything listens on loopback.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plumbline import files
from plumbline.errors import ServiceUnavailable
from plumbline.progress import say
from plumbline.settings import settings

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Service:
    """A running server: where it listens and the secret its clients must show (empty when it has none)."""

    name: str
    pid: int
    port: int
    token: str
    more: dict[str, Any]


@dataclass(frozen=True)
class Launch:
    """How to start a server. `command`, `env` and `more` get the chosen port and token."""

    name: str
    command: Callable[[int, str], list[str]]
    ready: Callable[[int, str], bool]
    env: Callable[[int, str], dict[str, str | None]] = lambda port, token: {}  # None unsets
    more: Callable[[], dict[str, Any]] = dict
    port: int | None = None
    timeout: float = 90.0


def find(name: str) -> Service | None:
    """The running server of that name, or None. A record whose process is gone is no server."""
    record = files.read_json(_record(name))
    if record is None or "started" not in record or _start_time(record["pid"]) != record["started"]:
        return None
    return Service(name, record["pid"], record["port"], record["token"], record["more"])


def ensure(launch: Launch) -> Service:
    """Finds the server or starts it, and returns when it answers. Two commands at once start one server.

    Raises ServiceUnavailable with the log's last lines when it does not come up within `launch.timeout` seconds.
    """
    with files.locked(settings().home / f"{launch.name}.lock", wait=True):
        found = find(launch.name)
        if found and launch.ready(found.port, found.token):
            return found
        if found:
            stop(launch.name)
        return _start(launch)


def ensure_configured(launch: Launch) -> Service:
    """As `ensure`; one that runs with another configuration, by what its record holds as `more`, is stopped first."""
    found = find(launch.name)
    if found is not None and found.more != launch.more():
        stop(launch.name)
    return ensure(launch)


def _start(launch: Launch) -> Service:
    say(f"starting {launch.name}")
    port = launch.port or free_port()
    token = secrets.token_urlsafe(24)
    log = log_file(launch.name)
    log.parent.mkdir(parents=True, exist_ok=True)
    scratch = settings().home / "tmp"
    scratch.mkdir(exist_ok=True)
    inherited = {**os.environ, "TMPDIR": str(scratch), **launch.env(port, token)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            launch.command(port, token),
            env={name: value for name, value in inherited.items() if value is not None},
            cwd=settings().home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    more = launch.more()
    record = {"pid": process.pid, "started": _start_time(process.pid), "port": port, "token": token}
    files.write_whole(_record(launch.name), files.dumps({**record, "more": more}), mode=0o600)
    deadline = time.monotonic() + launch.timeout
    while not launch.ready(port, token):
        if process.poll() is not None or time.monotonic() > deadline:
            why = "ended" if process.poll() is not None else f"did not answer within {launch.timeout:.0f} s"
            stop(launch.name)
            tail = "\n  ".join(log.read_text(errors="replace").splitlines()[-8:])
            raise ServiceUnavailable(f"{launch.name} {why} on {HOST}:{port}; the end of {log}:\n  {tail}")
        time.sleep(0.1)
    return Service(launch.name, process.pid, port, token, more)


@contextmanager
def noted(name: str, port: int) -> Iterator[None]:
    """This process is the server of that name meanwhile, listening there; one that `ensure` started is so already."""
    if (found := find(name)) is not None and found.pid == os.getpid():
        yield
        return
    head = {"pid": os.getpid(), "started": _start_time(os.getpid()), "port": port, "token": ""}
    files.write_whole(_record(name), files.dumps({**head, "more": {}}), mode=0o600)
    try:
        yield
    finally:
        _record(name).unlink(missing_ok=True)


def stop(name: str, grace: float = 20.0) -> bool:
    """Ends the server and everything in its session; SIGTERM first, SIGKILL after `grace` seconds. True if it ran."""
    service = find(name)
    if service is not None:
        _signal(service, signal.SIGTERM)
        deadline = time.monotonic() + grace
        while find(name) is not None and time.monotonic() < deadline:
            _reap(service.pid)
            time.sleep(0.05)
        _signal(service, signal.SIGKILL)
        _reap(service.pid)
    _record(name).unlink(missing_ok=True)
    return service is not None


def rename(name: str, to: str) -> None:
    """Gives a running server another name, and its log with it; nothing may run under that one."""
    with files.locked(settings().home / f"{to}.lock", wait=True):
        os.replace(log_file(name), log_file(to))
        os.replace(_record(name), _record(to))


def running() -> set[str]:
    """The names of this home's servers that run now."""
    return {path.stem for path in settings().home.glob("*.json") if find(path.stem) is not None}


def stop_all(keep: Collection[str] = (), grace: float = 20.0) -> list[str]:
    """Stops this home's servers but those to keep, dependents first, as `stop` does; the names of those it stopped."""
    order = ["redis", "spark"]
    names = sorted(running() - set(keep), key=lambda name: (order.index(name) if name in order else -1, name))
    return [name for name in names if stop(name, grace)]


def listening(port: int) -> bool:
    """True when something accepts connections on that loopback port."""
    try:
        with socket.create_connection((HOST, port), timeout=0.5):
            return True
    except OSError:
        return False


def answers(url: str, timeout: float) -> bool:
    """True when an HTTP server answers 200 there within `timeout` seconds."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response:  # noqa: S310
            return bool(response.status == 200)
    except OSError:
        return False


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def log_file(name: str) -> Path:
    """Where a server's output goes; the previous start's is overwritten."""
    return settings().home / "logs" / f"{name}.log"


def _record(name: str) -> Path:
    return settings().home / f"{name}.json"


def _start_time(pid: int) -> str | None:
    """What tells a process from a later one with the same pid; None when its last thread is gone."""
    if Path("/proc/self/stat").exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] == "Z" and int(fields[17]) <= 1 else fields[19]
    found = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def _signal(service: Service, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        try:
            os.killpg(service.pid, number)
        except ProcessLookupError:  # one that somebody runs in a shell may lead no group
            if find(service.name) is not None:
                os.kill(service.pid, number)


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass
