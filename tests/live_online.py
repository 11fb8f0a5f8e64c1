"""Whether Redis has all that the order stream brought it, for tests: by the mark that stands there."""

from __future__ import annotations

from datetime import datetime

from feature_repo import live_rows
from plumbline.product import Product
from plumbline.servers import live_mark, online_store


def whole(product: Product, view: str, known_at: datetime | None = None) -> bool:
    """Whether Redis has the stream's rows up to the micro-batch of `known_at`, the newest that wrote a row of the view;
    by default up to where this process brought them, and nothing where it brought none. If not, `repair` is due."""
    upto = live_mark.upto(online_store.client(), product, view)
    brought = live_rows._BROUGHT.get(live_rows._place(product, view))
    return (upto.known_at if upto else None) == (known_at or brought)
