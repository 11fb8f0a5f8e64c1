"""One command of a kind at a time for a product; and what its holder concludes of a run that left no end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from plumbline import observed
from plumbline.lineage import events
from plumbline.pipeline.lake_owner import require_own_lake
from plumbline.product import Product
from plumbline.progress import say
from plumbline.state import leases, ledger
from plumbline.state.leases import Lease


@contextmanager
def lease(product: Product, name: str, what: str = "run") -> Iterator[Lease]:
    """Holds the product's lease of this kind (run, training, …) for a stage; it is freed however the command ends.

    Raises Conflict when another command holds it, SettingsError when the lake is another state's. Once it is held,
    every earlier holder is over: it freed the lease, or the lease ran out. So a START of the stage without an end is a
    run that was killed, and that end is recorded.
    """
    require_own_lake()
    with leases.hold(product.name, name, what) as held:
        if killed := ledger.unended(product.name, name):
            events.killed(product, killed)
            begun = killed.pop("at")
            ledger.record(
                product.name, {**killed, "state": "KILLED", "began": begun, "error": "it began and never ended"}
            )
            say(f"the {name} that began at {begun[:16]} was killed")
        with observed.watching(product, name):
            yield held
