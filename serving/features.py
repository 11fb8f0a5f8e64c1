"""Online features of a batch of entities: one Feast call for the model's own feature service, and an honest no.

Feast answers an unknown customer with nulls and ignores the view's ttl online (feast-dev/feast#6821). Here differ: no
row of a customer whom the release does not know (404), or knows (503: Redis lost it); a row that is broken or older
than the ttl (503); a null (legitimate, `missing`). A broken row or key concerns its customer alone.

A live view, which a stream writes, has a mark of its own. Without activity within its ttl it is null; a row that the
stream brought and Redis lost is 503, as is a stream of which nothing is online.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from feature_repo import feast_internals
from plumbline import clock
from plumbline.errors import PlumblineError
from plumbline.product import Product
from plumbline.servers import online_mark, online_store
from serving.errors import Refused, ServingError, StoreAway
from serving.service_read import NotOnline, ServiceRead

RELEASE = "release_id"
TIMEOUT = 1.0
"""Seconds that Redis has to connect, and to answer one command. Feast itself sets none and would wait for ever."""

PAUSE = 0.5
"""After a failed read the store is not asked again for so many seconds: requests are refused at once, not queued up."""

SCANNED = 20_000
"""Keys that a search for some customers looks at, at most: a Redis may hold others' keys too."""

SKEW = timedelta(minutes=1)
"""How far two machines' clocks may differ before a row counts as one from the future."""


@dataclass(frozen=True)
class FeatureRow:
    """Features as read of one entity, by its `key`: `values` by name, null as None; `age_seconds` since event_time.

    Both are of what the release brought. `times` has the event_time of each view's row, the live ones' too: None for
    one without activity; `ages` is the same in seconds.
    """

    key: Any
    values: dict[str, Any]
    event_time: datetime
    age_seconds: float
    release_id: int
    times: dict[str, datetime | None]
    ages: dict[str, float | None]


class OnlineFeatures:
    """The features of one feature service, from Redis. Definitions are read once, so a request asks Redis alone.

    Safe to use from several threads.
    """

    def __init__(self, product: Product, service: str) -> None:
        """Raises ServingError when the registry has no such service, ServiceUnavailable without an online store."""
        self.product, self.service = product, service
        self._lock = threading.Lock()
        self._down_until = 0.0
        self._connect()

    def read(self, customers: list[Any], now: datetime | None = None) -> list[FeatureRow]:
        """A row for each customer, in their order, as of the platform's now.

        Raises Refused: 404 naming customers that nobody knows; 503 for rows that are expired, broken or lost, and for a
        Redis that holds no release. Raises StoreAway, a Refused too, when Redis does not answer. One such customer
        refuses the whole batch.
        """
        if clock.monotonic() < self._down_until:
            raise StoreAway("the online store did not answer a moment ago")
        try:
            try:
                return self._read(customers, now or clock.now())
            except self.errors:
                if not self._moved():
                    raise
                return self._read(customers, now or clock.now())
        except self.errors as error:
            self._down_until = clock.monotonic() + PAUSE
            raise StoreAway(f"the online store does not answer ({type(error).__name__}): ask again") from None

    def some_entities(self, most: int) -> list[Any]:
        """Entities that have a key, as far as the first keys that Redis names are theirs. Raises one of `errors`."""
        keys = islice(self._redis.scan_iter(count=1_000), SCANNED)
        entities = (feast_internals.entity_of(self._store, self.product, key) for key in keys)
        return list(islice((entity for entity in entities if entity is not None), most))

    def _read(self, customers: list[Any], now: datetime) -> list[FeatureRow]:
        try:
            stored = dict(zip(customers, self._service.stored(customers, now), strict=True))
        except NotOnline as view:
            reasons = dict.fromkeys(customers, f"nothing of {view} is online")
            told = f"nothing of {view} is online: the stream never ran here, or the online store lost it"
            raise Refused(503, f"{told}; its next micro-batch brings it", reasons, 30, "nothing_online") from None
        self._refuse_absent([customer for customer, row in stored.items() if row.absent and row.fault is None])
        lost = {
            customer: f"lost: the stream brought a row of {row.lost}, the online store has none or an older one"
            for customer, row in stored.items()
            if row.lost and row.fault is None
        }
        if lost:
            raise Refused(503, _summary("the online store lost rows", lost), lost, 60, "lost")
        refused = {
            customer: why
            for customer, row in stored.items()
            if (
                why := row.fault
                or ("its row lacks release_id" if row.values[RELEASE] is None else None)
                or self._unfit(row.stamps, now)
            )
        }
        if refused:
            raise Refused(503, _summary("features are not fit to be scored", refused), refused, 60, "unfit")
        columns = {
            name: [stored[customer].values[name] for customer in customers] for name in stored[customers[0]].values
        }
        columns = self._service.with_on_demand(columns, int(now.timestamp()))
        rows = []
        for i, customer in enumerate(customers):
            times = {view: stored[customer].stamps.get(view) for view in self.views}
            ages = {view: None if time is None else (now - time).total_seconds() for view, time in times.items()}
            oldest = min(time for view, time in times.items() if time is not None and view not in self._service.live)
            values = {name: columns[name][i] for name in self.names}
            age, release = (now - oldest).total_seconds(), int(columns[RELEASE][i])
            rows.append(FeatureRow(customer, values, oldest, age, release, times, ages))
        return rows

    def _refuse_absent(self, absent: list[Any]) -> None:
        """Raises Refused when a customer has no row: 404 when the release online does not know them, else 503."""
        if not absent:
            return
        known = online_mark.knows(self._redis, self.product, self._service.row_keys(absent))
        if known is None:
            reasons = dict.fromkeys(absent, "no row; nothing is materialized now")
            raise Refused(
                503,
                "nothing is materialized: no release is whole in the online store "
                f"(`{self.product.command_of('materialize')}` brings one in)",
                reasons,
                retry_after=30,
                code="nothing_online",
            )
        if unknown := [customer for customer, brought in zip(absent, known, strict=True) if not brought]:
            reasons = dict.fromkeys(
                unknown, f"unknown: the release that is online has no row of this {self.product.entities[:-1]}"
            )
            raise Refused(404, _summary(f"unknown {self.product.entities}", reasons), reasons)
        reasons = dict.fromkeys(
            absent, f"lost: the release brought a row of this {self.product.entities[:-1]}, the online store has none"
        )
        raise Refused(503, _summary("the online store lost rows", reasons), reasons, 60, "lost")

    def _unfit(self, stamps: dict[str, datetime], now: datetime) -> str | None:
        """Why a customer's rows may not be scored now, None when they may."""
        for view, stamp in stamps.items():
            ttl = self._service.ttl[view]
            if ttl and now - stamp > ttl:
                return (
                    f"expired: {view} is from {stamp:%Y-%m-%dT%H:%M:%SZ}, {(now - stamp).total_seconds():.0f} s old; "
                    f"its ttl is {ttl.total_seconds():.0f} s; the next materialization refreshes it"
                )
            if stamp - now > SKEW:
                return f"from the future: {view} is from {stamp:%Y-%m-%dT%H:%M:%SZ}, now is {now:%Y-%m-%dT%H:%M:%SZ}"
        return None

    def _moved(self) -> bool:
        """After a failed read: True when the online store is elsewhere now, and connected to. A private Redis that was
        started again has another port and password."""
        with self._lock:
            try:
                if online_store.connection_string(start=False) == self._address:
                    return False
                self._connect()
            except PlumblineError as error:
                self._down_until = clock.monotonic() + PAUSE
                raise StoreAway(f"the online store does not answer: {error}") from None
        return True

    def _connect(self) -> None:
        from feature_repo import store as feature_store

        feature_store.settle()
        from feast.errors import FeastObjectNotFoundException
        from redis import RedisError
        from redis.backoff import NoBackoff
        from redis.exceptions import ConnectionError as LostConnection
        from redis.retry import Retry

        address = online_store.connection_string(start=False)
        store = feature_store.open_here(self.product)
        try:
            service = ServiceRead(store, self.product, self.service, also=RELEASE)
        except FeastObjectNotFoundException:
            known = sorted(service.name for service in store.list_feature_services())
            raise ServingError(
                f"feature service {self.service!r} is not applied; the registry has {known or 'none'}. "
                f"Run `{self.product.command_of('materialize')}`, which applies the definitions."
            ) from None
        store.config.online_store.connection_string += f",socket_timeout={TIMEOUT},socket_connect_timeout={TIMEOUT}"
        self._redis = feast_internals.redis_client(store)
        # One more try for a pooled connection that was cut; none after a timeout, which has cost its second already.
        self._redis.set_retry(Retry(NoBackoff(), 1, supported_errors=(LostConnection,)))
        self.errors: tuple[type[Exception], ...] = (RedisError, OSError)
        self._service, self._address, self.names = service, address, service.names
        self.views = list(service.ttl)
        self._store = store


def _summary(what: str, reasons: dict[Any, str]) -> str:
    """One sentence that names up to five; the body lists all."""
    first, *_ = reasons.values()
    named = ", ".join(map(str, list(reasons)[:5])) + (f" and {len(reasons) - 5} more" if len(reasons) > 5 else "")
    return f"{what}: {named} ({first}); nothing was scored"
