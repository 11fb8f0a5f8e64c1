"""Materialization: a release's feature rows go from the lake to Redis, through Feast, between explicit bounds.

What is online is written down in Redis itself, beside the values: a Redis that lost them does not claim a release.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from feature_repo import store as feature_store
from plumbline import clock, lake, online_store, releases, stage
from plumbline.errors import PlumblineError
from plumbline.online_store import ONLINE, online
from plumbline.progress import say
from plumbline.releases import Release

if TYPE_CHECKING:
    import redis
    from feast import FeatureStore

TABLE = "features.customers"


class MaterializeError(PlumblineError):
    """What arrived in Redis is not what the release holds."""


def materialize(number: int | None = None) -> dict[str, object]:
    """Brings a release (the one in force by default) online; one that is online already changes nothing.

    Raises MaterializeError when Redis does not hold a row for every customer of the release's newest snapshot.
    """
    release = releases.required("churn", number)
    with stage.lease("churn", "materialize", "materialization"):
        client = online_store.client()
        held = online(client)
        if held is not None and held[0] == release.release_id:
            return {"state": "unchanged", "release_id": release.release_id, "online_until": held[1].isoformat()}
        head = {"stage": "materialize", "run_id": release.run_id, "as_of": release.as_of}
        head |= {"release_id": release.release_id}
        return stage.recorded("churn", head, lambda: _materialize(release, client, held))


def _materialize(release: Release, client: redis.Redis, held: tuple[int, datetime] | None) -> dict[str, object]:
    end = clock.end_of(release.as_of)
    store = feature_store.at_release(release)
    start = _changed_since(end, store.get_feature_view(feature_store.VIEW).ttl, held)
    expected = _customers(release, start, end)
    say(
        f"materializing release {release.release_id}: {expected:,} customers' rows of ({start:%F}, {end:%F}] into Redis"
    )
    client.delete(ONLINE)  # from here to the end no release is whole online
    with contextlib.redirect_stdout(io.StringIO()):  # standard output is for the result
        store.materialize(start, end, feature_views=[feature_store.VIEW])
    _remove_newer(store, client, end)
    arrived = _arrived(store, client, start, end)
    if arrived != expected:
        raise MaterializeError(
            f"release {release.release_id}: {expected:,} customers changed, Redis holds {arrived:,} rows. "
            "Run `plumb materialize` again."
        )
    client.hset(ONLINE, mapping={"release_id": release.release_id, "event_time": end.isoformat()})
    return {
        "message": f"release {release.release_id} is online: {arrived:,} customers, until {end:%F} 00:00 UTC",
        "state": "done",
        "release_id": release.release_id,
        "rows": {"online.customer_features": expected},
        "read": {TABLE: release.version(TABLE)},
        "online_rows": arrived,
        "online_until": end.isoformat(),
    }


def _changed_since(end: datetime, ttl: timedelta, held: tuple[int, datetime] | None) -> datetime:
    """The lower bound: what is online already, unless the release goes back behind it or nothing is online.

    Rows older than the view's ttl stay behind it: they would be expired on arrival.
    """
    oldest = end - ttl
    return max(held[1], oldest) if held is not None and held[1] < end else oldest


def _customers(release: Release, start: datetime, end: datetime) -> int:
    """How many customers have a row in (start, end], counted in the lake."""
    import pyarrow.compute as pc

    table = lake.open_table(TABLE, release.version(TABLE)).to_pyarrow_dataset()
    stamp = pc.field("event_time")
    found = table.to_table(columns=["customer_id"], filter=(stamp > start) & (stamp <= end))
    return int(pc.count_distinct(found["customer_id"]).as_py())


def _arrived(store: FeatureStore, client: redis.Redis, start: datetime, end: datetime) -> int:
    """How many customers Redis holds with a row of (start, end]."""
    return sum(start.timestamp() < stamp <= end.timestamp() for _, stamp in _stamps(store, client))


def _remove_newer(store: FeatureStore, client: redis.Redis, end: datetime) -> None:
    """Takes away rows from after the release: of customers whom only a newer one knows, when it goes back behind it."""
    pipeline = client.pipeline(transaction=False)
    for key, stamp in _stamps(store, client):
        if stamp > end.timestamp():
            pipeline.delete(key)
    pipeline.execute()


def _stamps(store: FeatureStore, client: redis.Redis) -> Iterator[tuple[bytes, int]]:
    """Every row's key and time in seconds since 1970, by the timestamps that Feast writes beside the values.

    A key of Feast's is the entity's bytes, then the project's name.
    """
    from google.protobuf.timestamp_pb2 import Timestamp

    project = store.project.encode()
    keys = [key for key in client.scan_iter(count=10_000) if key.endswith(project)]
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.hget(key, f"_ts:{feature_store.VIEW}")
    for key, found in zip(keys, pipeline.execute(), strict=True):
        if found:
            yield key, Timestamp.FromString(found).seconds
