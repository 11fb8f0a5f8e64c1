"""One command of a kind at a time for a product; and what its holder concludes of a run that left no end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from plumbline import files, observed
from plumbline.lineage import events
from plumbline.product import Product
from plumbline.progress import say
from plumbline.settings import settings
from plumbline.state import ledger


@contextmanager
def lease(product: Product, name: str, what: str = "run") -> Iterator[None]:
    """Holds the product's lease of this kind (run, training, …) for a stage; it is freed however the command ends.

    Raises Conflict when another command holds it. Whoever holds it knows that a START of the stage without an end is
    a run that was killed, and records that end.
    """
    file = f"{product.name}.lock" if what == "run" else f"{product.name}-{what}.lock"
    path = settings().home / "leases" / file
    with files.locked(path, wait=False, held=f"another {what} of {product.name} is at work"):
        if killed := ledger.unended(product.name, name):
            events.killed(product, killed)
            begun = killed.pop("at")
            ledger.record(
                product.name, {**killed, "state": "KILLED", "began": begun, "error": "it began and never ended"}
            )
            say(f"the {name} that began at {begun[:16]} was killed")
        with observed.watching(product, name):
            yield
