"""One customer's rows go out of Redis, and the mark there says the release that an erasure published."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from feature_repo import online_keys
from feature_repo import store as feature_store
from feature_repo.online_keys import StoredRow
from plumbline import clock, observed
from plumbline.errors import ServiceUnavailable
from plumbline.pipeline import stage
from plumbline.pipeline.erase import RUN
from plumbline.product import Product
from plumbline.servers import live_mark, online_store, services
from plumbline.settings import settings
from plumbline.state import releases
from plumbline.state.releases import Release

if TYPE_CHECKING:
    import redis
    from feast import FeatureStore


def count(product: Product, customer: int) -> int:
    """How many rows of the customer are online, of all views. A private Redis that never ran is not started."""
    if settings().redis_url is None and not (settings().home / "redis" / "appendonly.aof").exists():
        return 0
    client, store = online_store.client(), feature_store.open_here(product)
    return sum(len(_rows(store, product, view, client, customer)) for view in product.view_tables)


def _rows(store: FeatureStore, product: Product, view: str, client: redis.Redis, customer: int) -> list[StoredRow]:
    """The customer's row of a view, if there is one."""
    return [row for row in online_keys.rows(store, product, view, client) if row.entity == customer]


def forget(product: Product, customer: int, release: Release) -> int:
    """Takes the rows away; how many there were. A mark of a release that differs from this one by erasures alone is
    moved to it: all other rows are the same. From then on the predictor does not know the customer (404).

    A private Redis also writes its file anew, which held all that was ever written.
    """
    rows = count(product, customer)
    if settings().redis_url is None and services.find("redis") is None:
        return rows
    client: Any = online_store.client()
    store = feature_store.open_here(product)
    row_key = online_keys.keys(store, product, [customer])
    for view in product.view_tables:
        online_keys.remove(store, view, client, _rows(store, product, view, client, customer))
    for view in product.streams:
        live_mark.drop(client, product, view, row_key)
    online = online_store.online(client, product)
    if online is not None:
        if client.hdel(product.online_mark, *row_key):
            client.hincrby(product.online_mark, "rows", -1)
        if online[0] != release.release_id and _same_but_erased(release, online[0]):
            head = {"stage": "materialize", "run_id": release.run_id, "as_of": release.as_of}
            stage.recorded(product, {**head, "release_id": release.release_id}, lambda: _move(product, client, release))
    if settings().redis_url is None:
        _rewrite(client)
    return rows


def _move(product: Product, client: Any, release: Release) -> dict[str, Any]:
    client.hset(product.online_mark, "release_id", release.release_id)
    observed.wrote(product.online, release.release_id, 0)
    return {"message": f"release {release.release_id} is online: the same rows without a customer who was erased"}


def _same_but_erased(release: Release, online: int) -> bool:
    while release.release_id > online and RUN in release.run_id and release.base is not None:
        release = releases.read(release.product, release.base)
    return release.release_id == online


def _rewrite(client: Any) -> None:
    """Raises ServiceUnavailable when Redis does not write its file anew."""
    import redis

    try:
        client.bgrewriteaof()
    except redis.ResponseError:
        pass  # one is under way already
    until = clock.monotonic() + 60
    while (about := client.info("persistence"))["aof_rewrite_in_progress"] or about["aof_rewrite_scheduled"]:
        if clock.monotonic() > until:
            raise ServiceUnavailable("Redis did not write its file anew within 60 s: run the same command again")
        time.sleep(0.05)
