"""Faults of what is shared: the lake's files, and a Redis in which rows get lost or other projects keep theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from drills.drill import Drilling
from plumbline.errors import PlumblineError
from plumbline.lake import tables as lake
from plumbline.product import Product
from products.churn import CHURN

RAW = "raw.orders"
STRANGERS = "team_churn"
"""Another Feast project, whose name ends in ours."""

FOREIGN = {b"_ts:customer_features": b"theirs", b"another field": b"theirs too"}


def stray_rows(drilling: Drilling) -> None:
    """Somebody appends rows of a day of the past to `raw.orders`, with a library of their own."""
    from deltalake import DeltaTable, write_deltalake

    table = lake.opened(RAW)
    pinned, rows = table.version(), table.to_pyarrow_table().slice(0, 6)
    names = rows.schema.names
    rows = rows.set_column(names.index("batch_id"), "batch_id", [["somebody"] * len(rows)])
    write_deltalake(lake.uri(RAW), rows, mode="append")
    drilling.mend = lambda: DeltaTable(lake.uri(RAW)).restore(pinned)


def lost_data_file(drilling: Drilling) -> None:
    """A data file of `raw.orders` is gone from the disk: a clean-up that knew no Delta."""
    part = Path(max(lake.opened(RAW).file_uris()))
    kept = part.rename(drilling.folder / part.name)

    def mend() -> None:
        kept.rename(part)

    drilling.mend = mend


def strangers_in_redis(drilling: Drilling) -> None:
    """Another project keeps rows of the same entity and view in the same Redis, and a string under a like name."""
    client = _client()
    for customer in (drilling.entity, 777_777):
        client.hset(_key(customer, STRANGERS), mapping=FOREIGN)
    client.set(b"stats:churn", b"17")


def strangers_are_as_they_were(drilling: Drilling) -> list[str]:
    """What of the other project's keys is not as it was."""
    client = _client()
    wrong = [
        f"{STRANGERS}'s row of customer {customer} is {row}"
        for customer in (drilling.entity, 777_777)
        if (row := client.hgetall(_key(customer, STRANGERS))) != FOREIGN
    ]
    return wrong + ([] if client.get(b"stats:churn") == b"17" else ["the key stats:churn is gone"])


def evicted(drilling: Drilling) -> None:
    """Redis throws one row away, as `allkeys-lru` does when memory is short."""
    product = drilling.on.product
    if not _client().delete(_key(drilling.entity, product.feature_project, product)):
        raise PlumblineError(f"{product.entity} {drilling.entity} had no row in Redis: the drill cannot begin")


def half_a_row(drilling: Drilling) -> None:
    """All features of one customer's row are gone; its time and its release are there."""
    from feature_repo import feast_internals
    from feature_repo import store as feature_store

    view = feature_store.open_store(CHURN).get_feature_view(CHURN.view)
    kept = {b"_ts:customer_features", *feast_internals.row_fields(view, ["release_id"])}
    client, key = _client(), _key(drilling.entity, CHURN.name)
    client.hdel(key, *(name for name in client.hkeys(key) if name not in kept))


def written_again_then_the_day(drilling: Drilling) -> bool:
    """What Redis lost is written again, and the answer is the one from before; then the day runs."""
    brought_back = drilling.stage("materialize").returncode == 0 and drilling.answered() == drilling.before
    return brought_back and drilling.run()


def _client() -> Any:
    from plumbline.servers import online_store

    return online_store.client()


def _key(entity: Any, project: str, product: Product = CHURN) -> bytes:
    from feature_repo import feast_internals
    from feature_repo import store as feature_store

    store = feature_store.open_store(product)
    (key,) = feast_internals.entity_keys(store, product, [entity])
    return bytes(key).removesuffix(store.project.encode()) + project.encode()
