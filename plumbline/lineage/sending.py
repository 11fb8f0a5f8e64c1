"""Where events go: one line each in `<home>/lineage.ndjson`, always; to OPENLINEAGE_URL too when that is set.

When state is in a bucket, each is an object there instead, `lineage/<time>-<4 hex digits>.json`: a bucket appends to
nothing, and the next stage may run on another machine.

The server gets them from a thread behind a bounded queue. The first event that it does not take ends the sending for
this command, and a command that is over waits SECONDS for the rest at most. What was not confirmed by then is counted,
said, and in the file all the same; it may have arrived. `plumb lineage_resend` sends it again.
"""

from __future__ import annotations

import atexit
import json
import os
import queue
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline import clock
from plumbline.errors import ServiceUnavailable
from plumbline.lineage import client
from plumbline.progress import warn
from plumbline.settings import settings
from plumbline.state import objects

if TYPE_CHECKING:
    from urllib.request import Request

    from openlineage.client.event_v2 import RunEvent

URL, KEY = "OPENLINEAGE_URL", "OPENLINEAGE_API_KEY"
ENDPOINT = "api/v1/lineage"
FOLDER, READERS = "lineage", 16
SECONDS = 1.5
"""What a command waits at its end, and what one request may take."""

WAITING = 100
"""Events that may wait; a stage makes two."""


def path() -> Path:
    """The event file: one JSON object a line, appended to; a line may be torn by a crash."""
    return settings().home / "lineage.ndjson"


def failures_path() -> Path:
    """The file of failures: a line `{"at", "events", "why", "ids"}` for events that were not confirmed, and one with
    `confirmed` for those that were when they were sent again."""
    return settings().home / "lineage-failures.ndjson"


def failures() -> int:
    """How many events so far could not be written, or were not confirmed by the server at first."""
    return sum(int(line["events"]) for line in lines(failures_path()) if isinstance(line.get("events"), int))


def events() -> Iterator[dict[str, Any]]:
    """All events that were kept, in no order."""
    if objects.on_files():
        yield from lines(path())
        return
    with ThreadPoolExecutor(READERS) as readers:
        yield from filter(None, readers.map(objects.read_json, objects.keys(FOLDER)))


def send(event: RunEvent) -> None:
    """Keeps an event, and hands it to the sender when there is a server. Raises OSError or PlumblineError."""
    _, _, serde = client.load()
    line: str = serde.Serde.to_json(event)
    if objects.on_files():
        append(path(), line)
    else:
        objects.create(f"{FOLDER}/{clock.wall():%Y%m%dT%H%M%S%f}-{secrets.token_hex(2)}.json", line + "\n")
    if url := os.environ.get(URL):
        _sender(url).put(line)


def append(file: Path, line: str) -> None:
    """Adds one line in one write, behind whatever a writer that was killed left of its own. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(handle).st_size
        torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
        os.write(handle, (("\n" if torn else "") + line + "\n").encode())
    finally:
        os.close(handle)


def lines(file: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of lines; torn lines are left out, and told once with their number."""
    torn = 0
    if file.exists():
        with file.open("rb") as handle:
            for line in handle:
                try:
                    found = json.loads(line)
                except (ValueError, RecursionError):
                    found = None
                if isinstance(found, dict):
                    yield found
                elif line.strip():
                    torn += 1
    if torn:
        warn(f"{file}: {torn} torn line{'s' if torn > 1 else ''} left out (a writer was killed in the middle of one)")


def failed(events: int, why: str, ids: Iterable[str] = ()) -> None:
    """Says and counts events that the server did not confirm; `ids` are those that can be sent again. Never raises."""
    again = "; `plumb lineage_resend` sends them again" if (ids := list(ids)) else ""
    warn(f"lineage: {events} event{'s' if events > 1 else ''} not confirmed: {why[:300]}{again}")
    _note({"events": events, "why": why[:300], "ids": ids})


def unconfirmed() -> list[str]:
    """The ids of the events that the server did not confirm."""
    waiting: dict[str, None] = {}
    for line in lines(failures_path()):
        waiting |= dict.fromkeys(line.get("ids") or [])
        for event in line.get("confirmed") or []:
            waiting.pop(event, None)
    return list(waiting)


def resend(url: str, everything: bool = False) -> int:
    """Sends what was not confirmed once more, oldest first, or all events there are; how many the server took.

    A server that has one of them already takes it as the same. Raises ServiceUnavailable when it does not take all.
    """
    unsent, post, confirmed = set(unconfirmed()), _poster(url), list[str]()
    waiting = [event for event in events() if everything or event_id(event) in unsent]
    try:
        for event in sorted(waiting, key=lambda event: str(event.get("eventTime"))):
            post(json.dumps(event))
            confirmed.append(event_id(event))
    except (OSError, ValueError) as error:
        rest = len(waiting) - len(confirmed)
        raise ServiceUnavailable(
            f"{shown(url)} confirmed {len(confirmed)} events, {rest} wait: {type(error).__name__}: {error}"
        ) from None
    finally:
        if confirmed:
            _note({"events": 0, "why": "sent again", "confirmed": confirmed})
    return len(confirmed)


def event_id(event: dict[str, Any]) -> str:
    """What an event is called by: its run and what it says of it."""
    return f"{(event.get('run') or {}).get('runId')}/{event.get('eventType')}"


def _note(line: dict[str, Any]) -> None:
    try:
        append(failures_path(), json.dumps({"at": clock.wall().isoformat(), **line}))
    except OSError as error:
        warn(f"lineage: and {failures_path()} could not take that down: {error}")


@cache
def _sender(url: str) -> _Sender:
    made = _Sender(url)
    atexit.register(made.close)
    return made


class _Sender:
    """A thread that posts events to a lineage server, in their order, until one is not taken."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._waiting: queue.Queue[str | None] = queue.Queue(WAITING)
        self._unconfirmed: dict[str, None] = {}
        self._why, self._closed = "", False
        self._request = _poster(url)
        self._thread = threading.Thread(target=self._post, name="lineage", daemon=True)
        self._thread.start()

    def put(self, event: str) -> None:
        """Hands over an event; never waits."""
        self._unconfirmed[event_id(json.loads(event))] = None
        if not self._why:
            with suppress(queue.Full):
                self._waiting.put_nowait(event)

    def close(self, seconds: float = SECONDS) -> None:
        """Waits for what is under way, and counts what did not arrive. Once: nothing is sent any more after it."""
        if self._closed:
            return
        self._closed = True
        if not self._why:
            with suppress(queue.Full):
                self._waiting.put_nowait(None)
            self._thread.join(seconds)
        if waiting := list(self._unconfirmed):
            why = self._why or f"it took longer than {seconds} s"
            failed(len(waiting), f"{shown(self.url)}: {why}", waiting)

    def _post(self) -> None:
        while (event := self._waiting.get()) is not None:
            try:
                self._request(event)
            except Exception as error:
                self._why = f"{type(error).__name__}: {str(error)[:200]}"
                return
            self._unconfirmed.pop(event_id(json.loads(event)), None)


def _poster(url: str) -> Callable[[str], None]:
    """What posts one event; imported here, in the main thread: a command may be over before another gets to it."""
    from urllib.request import urlopen

    request(url, ENDPOINT)

    def post(event: str) -> None:
        with urlopen(request(url, ENDPOINT, event.encode()), timeout=SECONDS):  # noqa: S310 (as the operator gave it)
            pass

    return post


def request(url: str, path: str, body: bytes | None = None) -> Request:
    """A request to a lineage server: the login that the URL holds, or OPENLINEAGE_API_KEY, is in its headers."""
    import base64
    from urllib.parse import unquote, urlsplit
    from urllib.request import Request

    parts = urlsplit(url)
    login, _, place = parts.netloc.rpartition("@")
    headers = {"Content-Type": "application/json"} if body is not None else {}
    if login:
        headers["Authorization"] = "Basic " + base64.b64encode(unquote(login).encode()).decode()
    if key := os.environ.get(KEY):
        headers["Authorization"] = f"Bearer {key}"
    target = f"{parts.scheme}://{place}{parts.path.rstrip('/')}/{path.lstrip('/')}"
    return Request(target, body, headers)  # noqa: S310 (as the operator gave it)


def shown(url: str) -> str:
    """The URL without the login that it may hold."""
    head, _, rest = url.rpartition("@")
    return f"{head.partition('://')[0]}://***@{rest}" if head else url
