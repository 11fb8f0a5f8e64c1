"""Materialization: a release's feature rows go from the lake to Redis, through Feast, between explicit bounds.

What is online is written down in Redis itself, beside the values: a Redis that lost them does not claim a release.
After a materialization Redis holds the release's rows and no others: going forward only what changed is written; where
the release is not built on the one that is online (an undo, or a day run again after one), or wrote rows of before,
all rows are, and entities that the release does not have go. An answer in between names, row by row, the release that
wrote it.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from feature_repo import online_keys
from feature_repo import store as feature_store
from feature_repo.feast_internals import Entity
from plumbline import clock, observed
from plumbline.errors import PlumblineError
from plumbline.lake import live
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

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class MaterializeError(PlumblineError):
    """What arrived in Redis is not what the release holds."""


def materialize(product: Product, number: int | None = None) -> dict[str, object]:
    """Brings a release (the one in force by default) online; one whose rows are all online already changes nothing.

    That is looked up in Redis, row by row: what was evicted or damaged there is written again.
    Raises MaterializeError when Redis then does not hold a whole row of each view for every entity of the release.
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
    """Whether Redis holds the release's rows of every view, all of them whole, and no others."""
    feature_store.apply(product)
    store = feature_store.open_store(product)
    return all(
        online_keys.whole(store, product, view, client) == _times(_newest_rows(product, release, store, view))
        for view in product.views
    )


@dataclass
class _Brought:
    """What came of one view: each entity of the release with its row's event_time, how many rows Feast was given, and
    how many went that the release does not have."""

    expected: dict[Entity, int]
    newer: int = 0
    removed: int = 0


def _materialize(
    product: Product, release: Release, client: redis.Redis, mark: tuple[int, datetime] | None
) -> dict[str, object]:
    end = clock.end_of(release.as_of)
    store = feature_store.at_release(product, release)
    client.delete(product.online_mark)  # from here to the end no release is whole online
    views = {view: _bring(product, release, store, view, client, mark) for view in product.views}
    entities = list(dict.fromkeys(entity for brought in views.values() for entity in brought.expected))
    rows, removed = (sum(getattr(brought, name) for brought in views.values()) for name in ("newer", "removed"))
    observed.wrote(product.online, release.release_id, rows)
    online_mark.write(client, product, release.release_id, end, online_keys.keys(store, product, entities))
    told = f"release {release.release_id} is online: {len(entities):,} {product.entities}, until {end:%F} 00:00 UTC"
    return {
        "message": told + (f"; {removed:,} that it does not have were removed" if removed else ""),
        "state": "done",
        "release_id": release.release_id,
        "rows": {product.online: rows},
        "read": {table: release.version(table) for table in product.views.values() if table in release.tables},
        "online_rows": len(entities),
        "removed_rows": removed,
        "online_until": end.isoformat(),
    }


def _bring(
    product: Product,
    release: Release,
    store: FeatureStore,
    view: str,
    client: redis.Redis,
    mark: tuple[int, datetime] | None,
) -> _Brought:
    """Brings one view's rows online, and removes all others of it. Raises MaterializeError."""
    end, oldest = clock.end_of(release.as_of), _oldest(store, release, view)
    newest = _newest_rows(product, release, store, view)
    brought = _Brought(_times(newest))
    forward = mark is not None and oldest < mark[1] < end and _built_on(release, mark[0])
    forward = forward and mark is not None and not _written_late(newest, mark)
    stored = online_keys.rows(store, product, view, client)
    gone = [replace(row, values=row.values and []) for row in stored if row.entity not in newest or row.values is None]
    brought.removed = online_keys.remove(store, view, client, (row for row in gone if row.entity not in newest))
    online_keys.remove(store, view, client, (row for row in gone if row.values is None))
    lacking: list[Entity] = []
    for start in [mark[1], oldest] if mark and forward else [oldest]:
        brought.newer = sum(event_time > start.timestamp() for event_time in brought.expected.values())
        if brought.newer:
            bounds = f"({start:%F}, {end:%F}]"
            say(f"materializing release {release.release_id}: {brought.newer:,} rows of {view} of {bounds} to Redis")
            with contextlib.redirect_stdout(io.StringIO()):  # standard output is for the result
                store.materialize(start, end, feature_views=[view])
        whole = online_keys.whole(store, product, view, client)
        lacking = [entity for entity, event_time in brought.expected.items() if whole.get(entity) != event_time]
        if not lacking:
            break
    if lacking:
        raise MaterializeError(
            f"release {release.release_id} has {len(newest):,} {product.entities} in {view}; Redis lacks a whole row "
            f"of {len(lacking):,} of them, such as {lacking[0]}. Run `{product.command_of('materialize')}` again. If "
            "it says so again, Redis loses rows: look at its maxmemory and maxmemory-policy, or at who else writes to "
            "it."
        )
    return brought


def _oldest(store: FeatureStore, release: Release, view: str) -> datetime:
    """The moment behind which a row has not expired by the end of the release's day; a ttl of 0 is never over."""
    ttl = store.get_feature_view(view).ttl
    return clock.end_of(release.as_of) - ttl if ttl else BEGINNING


def _built_on(release: Release, online: int) -> bool:
    """Whether the release came from the one that is online by daily runs alone, so that old rows are the same."""
    while release.release_id > online and release.restores is None and release.base is not None:
        release = releases.read(release.product, release.base)
    return release.release_id == online


def _written_late(newest: Mapping[Entity, tuple[int, int]], mark: tuple[int, datetime]) -> bool:
    """Whether a release after the one that is online wrote a row with an older time: another cleaning, a new view."""
    until = mark[1].timestamp()
    return any(written > mark[0] and event_time <= until for event_time, written in newest.values())


def _times(newest: Mapping[Entity, tuple[int, int]]) -> dict[Entity, int]:
    return {entity: event_time for entity, (event_time, _) in newest.items()}


def _newest_rows(product: Product, release: Release, store: FeatureStore, view: str) -> dict[Entity, tuple[int, int]]:
    """Each entity with a row of the view that has not expired, read in the lake: the newest one's event_time (s since
    1970), and the release that wrote it. Without the view's table the release has none."""
    import pyarrow.compute as pc

    name = product.views[view]
    if name not in release.tables:
        return {}
    table = lake.open_table(name, release.version(name)).to_pyarrow_dataset()
    stamp, key = pc.field("event_time"), product.entity
    fresh = (stamp > _oldest(store, release, view)) & (stamp <= clock.end_of(release.as_of))
    given = table.to_table(columns=[key, "event_time", "created_at", "release_id"], filter=fresh)
    rows = live.keep(product, release, given).sort_by([("event_time", "ascending"), ("created_at", "ascending")])
    last = rows.group_by(key, use_threads=False).aggregate([("event_time", "last"), ("release_id", "last")]).to_pydict()
    return {
        entity: (int(event_time.timestamp()), written)
        for entity, event_time, written in zip(last[key], last["event_time_last"], last["release_id_last"], strict=True)
    }
