"""A steady stream of simulated requests through one address, and at once what came of each answer, simulated too.

Each request is a real one, for one real customer, whatever the answer to the last took (an open loop: a slow server is
not asked less). The campaign acts on the score in the answer, and the customer responds to that action and to what
they really did (`simulated_responses`): who answered is not read. Request ids begin with `simulated-`, outcomes say
`simulated`.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from plumb.demo.simulated_responses import SEED
from plumb.demo.simulation import known_customers, outcome, really_ordered, run_id
from plumbline import clock
from plumbline.progress import warn
from serving.churn import outcomes

PATH = "/v1/models/churn-predictor:predict"
RECORDED_EVERY = 1.5
"""Seconds between two appends to `serving.outcomes`."""

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


@dataclass
class Traffic:
    """Simulated callers, `per_second` requests to `url` (http://host:port), for as long as it is open.

    They ask for `customers`, by default those of the release in force.
    """

    url: str
    per_second: float
    outcomes: bool = True
    seed: int = SEED
    customers: Sequence[int] = ()
    answers: list[Answer] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _answered: threading.Event = field(default_factory=threading.Event)
    _waiting: deque[dict[str, Any]] = field(default_factory=deque)

    def __enter__(self) -> Traffic:
        self._customers = list(self.customers) or known_customers()
        day = outcomes.day(clock.now())
        asked = [{"customer_id": customer, "day": day} for customer in self._customers]
        self._really = dict(zip(self._customers, really_ordered(asked), strict=True)) if self.outcomes else {}
        self._run = run_id(self.seed)
        self._threads = [threading.Thread(target=lambda: asyncio.run(self._ask_all()), daemon=True)]
        if self.outcomes:
            self._threads.append(threading.Thread(target=self._record, daemon=True))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread, over in zip(self._threads, (self._over, self._answered), strict=False):
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
                asking = self._ask(session, f"{self._run}{number:06d}", chosen.choice(self._customers))
                task = asyncio.ensure_future(asking)
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                number += 1
            await asyncio.gather(*under_way)

    async def _ask(self, session: Any, request_id: str, customer: int) -> None:
        import aiohttp

        begun, status, version = clock.monotonic(), FAILED, None
        body, named = {"instances": [{"customer_id": customer}]}, {"x-request-id": request_id}
        try:
            async with session.post(self.url + PATH, json=body, headers=named) as response:
                status = response.status
                answer = await response.json(content_type=None) if status == 200 else {}
        except (aiohttp.ClientError, TimeoutError, ValueError):
            status, answer = FAILED, {}
        if status == 200:
            version = str(answer["model_version"])
            score = answer["predictions"][0]["churn_probability"]
            self._waiting.append({"request_id": request_id, "customer_id": customer, "score": score})
        self.answers.append(Answer(begun, 1000 * (clock.monotonic() - begun), status, version))

    def _record(self) -> None:
        """Appends the outcomes of what was answered since the last time."""
        last = False
        while not last:
            last = self._answered.wait(RECORDED_EVERY)
            rows = []
            while self._waiting:
                asked = self._waiting.popleft()
                customer, action = asked["customer_id"], outcomes.action(asked["score"])
                rows.append(outcome(asked["request_id"], customer, action, self._really[customer], self.seed))
            try:
                outcomes.append(rows, new=True)
            except Exception as error:  # the callers go on asking; the judge sees that outcomes stay away
                warn(f"{len(rows)} simulated outcomes were not recorded: {error}")
