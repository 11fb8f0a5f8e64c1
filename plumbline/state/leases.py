"""Leases: one command at a time works on a product, on this machine or on any that shares the state.

A lease is the object `leases/<product>.json`. It names its holder and a *fence*, a number that every acquisition
raises by one, and it is only written over the version that the writer has read. A thread renews it every third of
`PLUMBLINE_LEASE_SECONDS`. A holder that ends marks it as free; the fence stays.

Who may take over a lease that was not freed:
- State in a bucket: everyone, once it has run out and a third of its duration has passed on top. This assumes that
  the machines' clocks agree to within that third (10 s by default). The holder itself goes by a clock that counts
  while it is stopped or suspended, and does not come back once its time is over.
- State in files: a file lock is held in addition, and the kernel frees it when the process ends. On the machine of
  the last holder the file lock alone decides: a killed holder is over at once, a stopped one keeps the lease. From
  another machine, whose file locks may not reach here, the rule for buckets holds too.

A command that meets a lease in other hands waits for its next renewal: a holder that renews it is alive, and that is
a Conflict. One that does not is over when its lease is.

Neither can stop a holder that does not know that it was replaced. It asks by `check` right before it publishes, and
what it publishes is created, never overwritten.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from plumbline import clock, files
from plumbline.errors import Conflict, PlumblineError, ServiceUnavailable, Unreadable
from plumbline.progress import say
from plumbline.settings import settings
from plumbline.state import objects

Ending = Literal["none", "released", "ran out"]


class LeaseLost(Conflict):
    """The lease ran out or another process took it: what this process was about to publish must not be."""


@dataclass(frozen=True)
class Record:
    """What the object holds. Times are real, ISO 8601, UTC; `token` tells acquisitions apart."""

    state: Literal["held", "free"]
    fence: int
    token: str
    host: str
    pid: int
    command: str
    work: str
    since: str
    seconds: int
    expires_at: str

    def holder(self) -> str:
        """Who holds it, since when, and until when."""
        return (
            f"pid {self.pid} on {self.host} for {self.work} (`{self.command}`) since {_utc(self.since)}; "
            f"without renewal it runs out at {_utc(self.expires_at)}"
        )

    @property
    def patience(self) -> float:
        """Seconds from a renewal until it is over for everyone: its duration, and a third for clocks that differ."""
        return self.seconds * 4 / 3

    def over(self, now: datetime) -> bool:
        """True when it ran out, with a third of its duration for clocks that differ."""
        return now > datetime.fromisoformat(self.expires_at) + timedelta(seconds=self.seconds / 3)


class Lease:
    """A lease that this process holds. `previous` says how the holder before it ended."""

    def __init__(self, key: str, record: Record, etag: str, deadline: float, previous: Ending) -> None:
        self.key = key
        self.previous = previous
        self._record, self._etag, self._deadline = record, etag, deadline
        self._lock = threading.Lock()
        self._ended = threading.Event()

    @property
    def fence(self) -> int:
        """The number of this acquisition, one more than that of the one before."""
        return self._record.fence

    def check(self) -> None:
        """Returns when this process holds the lease right now. Raises LeaseLost otherwise.

        Call it right before publishing. On files a holder that was stopped for long goes on if nobody took the lease.
        """
        current = _read(self.key)
        if current is None or current[0].token != self._record.token:
            raise LeaseLost(self._lost(_taken(current[0]) if current else "its object is gone"))
        if self._overdue() and not objects.on_files():
            raise LeaseLost(self._lost("it ran out before it was renewed"))

    def _lost(self, why: str) -> str:
        return (
            f"{objects.where(self.key)}: {self._record.work} lost its lease, fence {self.fence}, while it was stopped "
            f"or cut off ({why}), so nothing was published: run the same command again"
        )

    def _overdue(self) -> bool:
        return _counting() > self._deadline

    def _renew(self) -> None:
        """Writes a later end. Raises Changed when another process took the lease."""
        with self._lock:
            deadline = _counting() + self._record.seconds  # from before the request: nobody may count it longer
            record = replace(self._record, expires_at=_in(self._record.seconds))
            self._etag = objects.replace_json(self.key, asdict(record), if_match=self._etag)
            self._record, self._deadline = record, deadline

    def _keep(self) -> None:
        while not self._ended.wait(self._until_renewal()):
            if self._overdue() and not objects.on_files():
                return
            try:
                self._renew()
            except objects.Changed:
                return
            except (PlumblineError, OSError):  # not reachable now, a full disk: the next round tries again
                continue

    def _until_renewal(self) -> float:
        """Seconds: a third of the duration after the last renewal began, soon when that is over and it failed."""
        seconds = self._record.seconds
        return max(self._deadline - _counting() - seconds * 2 / 3, seconds / 10)

    def _release(self) -> None:
        self._ended.set()
        with self._lock:
            try:
                objects.replace_json(self.key, asdict(replace(self._record, state="free")), if_match=self._etag)
            except objects.Changed:
                pass  # lost: it is not ours to free
            except (PlumblineError, OSError) as error:
                say(f"the lease {self.key} was not freed, it runs out {_utc(self._record.expires_at)}: {error}")


@contextmanager
def hold(product: str, work: str, kind: str = "run", *, wait: bool = False) -> Iterator[Lease]:
    """Holds the product's lease of that kind (run, training, …) while the block runs. `work` names what for: a stage.

    Once it is held, every earlier holder is over: `Lease.previous` says whether the last one freed it. A lease that
    nobody renews is waited for, 4/3 of its duration at most. Raises Conflict, which names the holder, when another
    process holds it (with `wait`, its turn comes instead), ServiceUnavailable when the store does not answer in time.
    """
    name = product if kind == "run" else f"{product}-{kind}"
    key, busy = f"leases/{name}.json", f"another {kind} of {product} is at work"
    with ExitStack() as stack:
        if objects.on_files():
            try:
                stack.enter_context(files.locked(settings().home / "leases" / f"{name}.lock", wait=wait, held=busy))
            except Conflict as conflict:
                raise Conflict(_who(key, busy) or str(conflict)) from None
        lease = _acquire(key, work, busy, wait)
        if lease._overdue():
            raise ServiceUnavailable(
                f"{objects.where(key)}: writing it took longer than the {settings().lease_seconds} s that the lease "
                "lasts; see what slows the store, or raise PLUMBLINE_LEASE_SECONDS"
            )
        thread = threading.Thread(target=lease._keep, name=f"lease {name}", daemon=True)
        thread.start()
        try:
            yield lease
        finally:
            lease._release()
            thread.join()


def _acquire(key: str, work: str, busy: str, wait: bool) -> Lease:
    seconds = settings().lease_seconds
    seen: Record | None = None
    since = _counting()
    while True:
        current = _read(key)
        if current is not None and not _may_take(current[0]) and not (seen == current[0] and _over(seen, since)):
            if seen is None and not wait:
                say(f"{busy} (held by {current[0].holder()}); waiting for its next renewal, or its end")
            elif seen != current[0] and not wait:
                raise Conflict(f"{busy} (held by {current[0].holder()})")
            if seen != current[0]:
                seen, since = current[0], _counting()
            time.sleep(seconds / 100 if wait else seconds / 20)
            continue
        deadline = _counting() + seconds
        record = Record(
            state="held",
            fence=current[0].fence + 1 if current else 1,
            token=secrets.token_hex(8),
            host=socket.gethostname(),
            pid=os.getpid(),
            command=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:120],
            work=work,
            since=clock.wall().isoformat(),
            seconds=seconds,
            expires_at=_in(seconds),
        )
        try:
            if current is None:
                return Lease(key, record, objects.create_json(key, asdict(record)), deadline, "none")
            etag = objects.replace_json(key, asdict(record), if_match=current[1])
        except (objects.Exists, objects.Changed):
            continue  # another process was faster: look who
        return Lease(key, record, etag, deadline, "released" if current[0].state == "free" else "ran out")


def _over(record: Record, since: float) -> bool:
    """True when this process has seen no renewal since then for so long that it is over, whatever the clocks say."""
    return _counting() - since > record.patience


def _may_take(record: Record) -> bool:
    if record.state == "free" or record.over(clock.wall()):
        return True
    return objects.on_files() and record.host == socket.gethostname()  # the file lock was free


def _who(key: str, busy: str) -> str | None:
    """The message about who holds the file lock, None when the object does not say."""
    try:
        current = _read(key)
    except Unreadable:
        return None
    return f"{busy} (held by {current[0].holder()})" if current and current[0].state == "held" else None


def _read(key: str) -> tuple[Record, str] | None:
    found = objects.read(key)
    if found is None:
        return None
    value: dict[str, Any] = found.json()
    try:
        record = Record(**value)
        datetime.fromisoformat(record.expires_at)
    except (TypeError, ValueError) as error:
        raise Unreadable(f"{found.where}: expected a lease, found another object: {error}") from None
    return record, found.etag


def _counting() -> float:
    """Seconds on a clock that goes on while the process is stopped and the machine suspended, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _taken(record: Record) -> str:
    return f"pid {record.pid} on {record.host} was given fence {record.fence} for {record.work}"


def _in(seconds: float) -> str:
    return (clock.wall() + timedelta(seconds=seconds)).isoformat()


def _utc(at: str) -> str:
    return f"{at[:19].replace('T', ' ')} UTC"
