"""Materialization: a release's feature rows go from the lake to Redis, through Feast, between explicit bounds.

What is online is written down in Redis itself, beside the values: a Redis that lost them does not claim a release.
After a materialization Redis holds the release's rows and no others: going forward only what changed is written; where
the release is not built on the one that is online (an undo, or a day run again after one) all rows are, and customers
that the release does not have go. An answer in between names, row by row, the release that wrote it.
"""

from __future__ import annotations

import contextlib
import io
from datetime import datetime
from typing import TYPE_CHECKING

from feature_repo import online_keys
from feature_repo import store as feature_store
from plumbline import clock, observed
from plumbline.errors import PlumblineError
from plumbline.lake import tables as lake
from plumbline.pipeline import leases, stage
from plumbline.product import Product
from plumbline.progress import say
from plumbline.servers import online_mark, online_store
from plumbline.servers.online_store import online
from plumbline.state import releases
from plumbline.state.releases import Release

if TYPE_CHECKING:
    import redis
    from feast import FeatureStore


class MaterializeError(PlumblineError):
    """What arrived in Redis is not what the release holds."""


def materialize(product: Product, number: int | None = None) -> dict[str, object]:
    """Brings a release (the one in force by default) online; one that is online with all its rows changes nothing.

    Raises MaterializeError when Redis does not hold a row for every customer of the release's newest snapshot.
    """
    release = releases.required(product.name, number)
    with leases.lease(product, "materialize", "materialization"):
        client = online_store.client()
        held = online(client, product)
        if held is not None and held[0] == release.release_id and not online_mark.lost(client, product):
            return {"state": "unchanged", "release_id": release.release_id, "online_until": held[1].isoformat()}
        head = {"stage": "materialize", "run_id": release.run_id, "as_of": release.as_of}
        head |= {"release_id": release.release_id}
        return stage.recorded(product, head, lambda: _materialize(product, release, client, held))


def _materialize(
    product: Product, release: Release, client: redis.Redis, held: tuple[int, datetime] | None
) -> dict[str, object]:
    end = clock.end_of(release.as_of)
    store = feature_store.at_release(product, release)
    oldest = end - store.get_feature_view(product.view).ttl
    forward = held is not None and oldest < held[1] < end and _built_on(release, held[0])
    start = held[1] if held and forward else oldest
    expected = len(_customers(product, release, start, end))
    say(
        f"materializing release {release.release_id}: {expected:,} customers' rows of ({start:%F}, {end:%F}] into Redis"
    )
    client.delete(product.online_mark)  # from here to the end no release is whole online
    with contextlib.redirect_stdout(io.StringIO()):  # standard output is for the result
        store.materialize(start, end, feature_views=[product.view])
    customers = _customers(product, release, oldest, end)
    removed = online_keys.sweep(store, product, client, customers, fields_too=not forward)
    arrived = _arrived(store, product, client, start, end)
    if arrived != expected:
        raise MaterializeError(
            f"release {release.release_id}: {expected:,} customers changed, Redis holds {arrived:,} rows. "
            "Run `plumb materialize` again."
        )
    observed.wrote(product.online, release.release_id, expected)
    online_mark.write(client, product, release.release_id, end, online_keys.keys(store, product, customers))
    return {
        "message": f"release {release.release_id} is online: {arrived:,} customers, until {end:%F} 00:00 UTC"
        + (f"; {removed:,} that it does not have were removed" if removed else ""),
        "state": "done",
        "release_id": release.release_id,
        "rows": {product.online: expected},
        "read": {product.features: release.version(product.features)},
        "online_rows": arrived,
        "removed_rows": removed,
        "online_until": end.isoformat(),
    }


def _built_on(release: Release, online: int) -> bool:
    """Whether the release came from the one that is online by daily runs alone, so that old rows are the same."""
    while release.release_id > online and release.restores is None and release.base is not None:
        release = releases.read(release.product, release.base)
    return release.release_id == online


def _customers(product: Product, release: Release, start: datetime, end: datetime) -> list[int]:
    """The customers that have a row in (start, end], read in the lake; older ones than the view's ttl are expired."""
    import pyarrow.compute as pc

    table = lake.open_table(product.features, release.version(product.features)).to_pyarrow_dataset()
    stamp = pc.field("event_time")
    found = table.to_table(columns=[product.entity], filter=(stamp > start) & (stamp <= end))
    return [int(customer) for customer in pc.unique(found[product.entity]).to_pylist()]


def _arrived(store: FeatureStore, product: Product, client: redis.Redis, start: datetime, end: datetime) -> int:
    """How many customers Redis holds with a row of (start, end], by the timestamps that Feast writes beside them."""
    from google.protobuf.timestamp_pb2 import Timestamp

    keys = online_keys.held(store.project, client)
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.hget(key, f"_ts:{product.view}")
    stamps = [Timestamp.FromString(found).seconds for found in pipeline.execute() if found]
    return sum(start.timestamp() < stamp <= end.timestamp() for stamp in stamps)
