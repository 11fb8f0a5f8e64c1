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


class MaterializeError(PlumblineError):
    """What arrived in Redis is not what the release holds."""


def materialize(product: Product, number: int | None = None) -> dict[str, object]:
    """Brings a release (the one in force by default) online; one whose rows are all online already changes nothing.

    That is looked up in Redis, row by row: what was evicted or damaged there is written again.
    Raises MaterializeError when Redis then does not hold a whole row for every customer of the release.
    """
    release = releases.required(product.name, number)
    with leases.lease(product, "materialize", "materialization"):
        client = online_store.client()
        mark = online(client, product)
        if mark is not None and mark[0] == release.release_id and _is_whole(product, release, client):
            return {"state": "unchanged", "release_id": release.release_id, "online_until": mark[1].isoformat()}
        head = {"stage": "materialize", "run_id": release.run_id, "as_of": release.as_of}
        head |= {"release_id": release.release_id}
        return stage.recorded(product, head, lambda: _materialize(product, release, client, mark))


def _is_whole(product: Product, release: Release, client: redis.Redis) -> bool:
    """Whether Redis holds the release's rows, all of them whole, and no others."""
    feature_store.apply(product)
    store = feature_store.open_store(product)
    end = clock.end_of(release.as_of)
    expected = _newest_rows(product, release, end - store.get_feature_view(product.view).ttl, end)
    return online_keys.whole(store, product, client) == expected


def _materialize(
    product: Product, release: Release, client: redis.Redis, mark: tuple[int, datetime] | None
) -> dict[str, object]:
    end = clock.end_of(release.as_of)
    store = feature_store.at_release(product, release)
    oldest = end - store.get_feature_view(product.view).ttl
    expected = _newest_rows(product, release, oldest, end)
    forward = mark is not None and oldest < mark[1] < end and _built_on(release, mark[0])
    client.delete(product.online_mark)  # from here to the end no release is whole online
    stored = list(online_keys.rows(store, product, client))
    removed = online_keys.remove(store, product, client, (row for row in stored if row.customer not in expected))
    online_keys.remove(store, product, client, (row for row in stored if row.values is None))
    lacking: list[int] = []
    for start in [mark[1], oldest] if mark and forward else [oldest]:
        newer = sum(event_time > start.timestamp() for event_time in expected.values())
        say(f"materializing release {release.release_id}: {newer:,} customers' rows of ({start:%F}, {end:%F}] to Redis")
        with contextlib.redirect_stdout(io.StringIO()):  # standard output is for the result
            store.materialize(start, end, feature_views=[product.view])
        whole = online_keys.whole(store, product, client)
        lacking = [customer for customer, event_time in expected.items() if whole.get(customer) != event_time]
        if not lacking:
            break
    if lacking:
        raise MaterializeError(
            f"release {release.release_id} has {len(expected):,} customers; Redis lacks a whole row of "
            f"{len(lacking):,} of them, such as {lacking[0]}. Run `plumb materialize` again. If it says so again, "
            "Redis loses rows: look at its maxmemory and maxmemory-policy, or at who else writes to it."
        )
    observed.wrote(product.online, release.release_id, newer)
    keys = online_keys.keys(store, product, expected)
    online_mark.write(client, product, release.release_id, end, keys)
    return {
        "message": f"release {release.release_id} is online: {len(expected):,} customers, until {end:%F} 00:00 UTC"
        + (f"; {removed:,} that it does not have were removed" if removed else ""),
        "state": "done",
        "release_id": release.release_id,
        "rows": {product.online: newer},
        "read": {product.features: release.version(product.features)},
        "online_rows": len(expected),
        "removed_rows": removed,
        "online_until": end.isoformat(),
    }


def _built_on(release: Release, online: int) -> bool:
    """Whether the release came from the one that is online by daily runs alone, so that old rows are the same."""
    while release.release_id > online and release.restores is None and release.base is not None:
        release = releases.read(release.product, release.base)
    return release.release_id == online


def _newest_rows(product: Product, release: Release, start: datetime, end: datetime) -> dict[int, int]:
    """Each customer with a row in (start, end], read in the lake, and the newest one's event_time (s since 1970)."""
    import pyarrow.compute as pc

    table = lake.open_table(product.features, release.version(product.features)).to_pyarrow_dataset()
    stamp = pc.field("event_time")
    rows = table.to_table(columns=[product.entity, "event_time"], filter=(stamp > start) & (stamp <= end))
    newest = rows.group_by(product.entity).aggregate([("event_time", "max")]).to_pydict()
    return {
        int(customer): int(event_time.timestamp())
        for customer, event_time in zip(newest[product.entity], newest["event_time_max"], strict=True)
    }
