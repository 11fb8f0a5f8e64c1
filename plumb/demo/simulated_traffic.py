"""A steady stream of simulated requests through one address, and soon after what came of each answer, simulated too.

Each request is a real one, about one real customer or picture, whatever the answer to the last took (an open loop: a
slow server is not asked less). What comes of an answer is the product's own (`simulated_churn`,
`simulated_images`); who answered is not read. Request ids begin with `simulated-`, outcomes say `simulated`.
"""

from __future__ import annotations

import asyncio
import pkgutil
import random
import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from plumb.demo.simulated_responses import SEED
from plumb.demo.simulation import run_id
from plumbline import clock
from plumbline.product import Product
from plumbline.progress import warn

RECORDED_EVERY = 1.5
"""Seconds between two appends to the product's outcomes."""

TIMEOUT = 10.0
HELD_UP = 0.1
"""Seconds after which what this process was too busy to send is left out: customers do not come in a burst because of
it. No answer is waited for, so a slow server cannot be the reason."""

FAILED = 0
"""The status of a request that got no answer."""


@dataclass(frozen=True)
class Answer:
    """One request: when it was sent (seconds of the steady clock), what it took, its status, which version answered."""

    at: float
    ms: float
    status: int
    version: str | None


class Callers(Protocol):
    """What of the traffic is one product's: whom it asks about, and what comes of an answer."""

    @property
    def product(self) -> Product: ...

    def begin(self) -> Sequence[Any]:
        """Whom it asks about. Reads once what outcomes are made of."""

    def instance(self, number: int, who: Any) -> dict[str, Any]:
        """The request's one instance; `number` counts requests."""

    def outcome(self, request_id: str, prediction: dict[str, Any]) -> dict[str, Any] | None:
        """The row of what came of an answer; None when nothing can be known."""

    def record(self, rows: list[dict[str, Any]]) -> None:
        """Appends outcomes of requests that have none yet."""


def callers(product: Product) -> Callers:
    """A product's simulated callers."""
    made: Callers = pkgutil.resolve_name(f"plumb.demo.simulated_{product.name}:Callers")()
    return made


@dataclass
class Traffic:
    """Simulated callers, `per_second` requests to `url` (http://host:port), for as long as it is open."""

    url: str
    per_second: float
    callers: Callers
    seed: int = SEED
    answers: list[Answer] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _answered: threading.Event = field(default_factory=threading.Event)
    _waiting: deque[tuple[str, dict[str, Any]]] = field(default_factory=deque)

    def __enter__(self) -> Traffic:
        self._known, self._run = self.callers.begin(), run_id(self.seed)
        self._path = f"/v1/models/{self.callers.product.service}:predict"
        targets = (lambda: asyncio.run(self._ask_all()), self._record)
        self._threads = [threading.Thread(target=target, daemon=True) for target in targets]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread, over in zip(self._threads, (self._over, self._answered), strict=True):
            over.set()  # outcomes of the last answers are recorded when all are there
            thread.join(timeout=2 * TIMEOUT)

    def statuses(self) -> Counter[int]:
        """Status → how many answers; 0 for none at all."""
        return Counter(answer.status for answer in self.answers)

    def between(self, begun: float, ended: float) -> Sequence[Answer]:
        """The requests that were sent in that time."""
        return [answer for answer in list(self.answers) if begun <= answer.at < ended]

    async def _ask_all(self) -> None:
        import aiohttp

        chosen = random.Random(self.seed)  # noqa: S311
        begun, number = clock.monotonic(), 0
        under_way: set[asyncio.Task[None]] = set()
        limits = aiohttp.TCPConnector(limit=0, keepalive_timeout=15)
        async with aiohttp.ClientSession(connector=limits, timeout=aiohttp.ClientTimeout(total=TIMEOUT)) as session:
            while not self._over.is_set():
                if (early := begun + number / self.per_second - clock.monotonic()) > 0:
                    await asyncio.sleep(early)
                elif early < -HELD_UP:
                    begun -= early
                instance = self.callers.instance(number, chosen.choice(self._known))
                asking = self._ask(session, f"{self._run}{number:06d}", instance)
                task = asyncio.ensure_future(asking)
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                number += 1
            await asyncio.gather(*under_way)

    async def _ask(self, session: Any, request_id: str, instance: dict[str, Any]) -> None:
        import aiohttp

        begun, status, version = clock.monotonic(), FAILED, None
        body, named = {"instances": [instance]}, {"x-request-id": request_id}
        try:
            async with session.post(self.url + self._path, json=body, headers=named) as response:
                status = response.status
                answer = await response.json(content_type=None) if status == 200 else {}
        except (aiohttp.ClientError, TimeoutError, ValueError):
            status, answer = FAILED, {}
        if status == 200:
            version = str(answer["model_version"])
            self._waiting.append((request_id, answer["predictions"][0]))
        self.answers.append(Answer(begun, 1000 * (clock.monotonic() - begun), status, version))

    def _record(self) -> None:
        """Appends the outcomes of what was answered since the last time."""
        last = False
        while not last:
            last = self._answered.wait(RECORDED_EVERY)
            rows = []
            while self._waiting:
                request_id, prediction = self._waiting.popleft()
                if (row := self.callers.outcome(request_id, prediction)) is not None:
                    rows.append(row)
            try:
                self.callers.record(rows)
            except Exception as error:  # the callers go on asking; the judge sees that outcomes stay away
                warn(f"{len(rows)} simulated outcomes were not recorded: {error}")
