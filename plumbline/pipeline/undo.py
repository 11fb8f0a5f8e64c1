"""Going back: an older release's tables are put in force once more, under the next number.

Nothing is deleted and no old release changes. Raw batches that the undone releases landed are rejected from then on (in
the new release's list), so that their days can be run again and land anew; going forward again (`--to` an undone
release) takes them back in. What is online follows by materializing the new release.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from plumbline import clock, observed
from plumbline.lake import tables as lake
from plumbline.pipeline import leases, stage
from plumbline.product import Product
from plumbline.state import candidates, releases
from plumbline.state.leases import Lease
from plumbline.state.releases import Release, ReleaseError


def undo(product: Product, to: int | None = None, *, why: str) -> Release:
    """Publishes an older release (default: the one before what is in force now) again; gives the new release.

    Its `as_of`, gates, code and lock are the older one's, since its tables are. Raises ReleaseError when there is
    nothing to go back to, LakeError when one of its tables cannot be read, Conflict while a run is at work.
    """
    if not why.strip():
        raise ReleaseError("say why (--why): the new release will name the reason")
    with leases.lease(product, "undo") as lease:
        current = releases.required(product.name)
        target = _target(current, to)
        made = replace(
            target,
            release_id=current.release_id + 1,
            base=current.release_id,
            run_id=f"{product.name}-undo-{current.release_id + 1}",
            published_at=clock.now().isoformat(),
            rejected=_left_out(product, target),
            undoes=[number for number in releases.numbers(product.name) if number > target.release_id],
            restores=target.release_id,
            why=why.strip(),
        )
        head = {"run_id": made.run_id, "stage": "undo", "as_of": made.as_of, "base": made.base}
        stage.recorded(product, head, lambda: _publish(product, made, lease))
        return made


def _target(current: Release, to: int | None) -> Release:
    """The release to go back to. Raises ReleaseError when what is in force holds its tables already."""
    product = current.product
    meant = current
    while meant.restores is not None:
        meant = releases.read(product, meant.restores)
    if to is None and meant.base is None:
        raise ReleaseError(
            f"release {current.release_id} of {product} holds the tables of release {meant.release_id}, the first: "
            f"there is nothing before it. `plumb releases list` shows what there is; go to any by --to"
        )
    target = releases.read(product, meant.base if to is None else to)  # type: ignore[arg-type]
    if target.tables == current.tables:
        raise ReleaseError(
            f"release {current.release_id} of {product}, which is in force, holds the tables of release "
            f"{target.release_id} already: nothing was changed"
        )
    return target


def _left_out(product: Product, target: Release) -> list[str]:
    """The raw batches that nothing may be built from on top of a release: all that it was not built from itself."""
    built_from = batches(product, target.tables) - set(target.rejected)
    landed = batches(product, {table: version for table in product.raw if (version := lake.version(table)) is not None})
    return sorted((landed | set(candidates.rejected(product.name))) - built_from)


def batches(product: Product, tables: dict[str, int]) -> set[str]:
    """The ids of the batches in raw tables at these versions; other tables are passed over."""
    import pyarrow.compute as pc

    found: set[str] = set()
    for table in product.raw:
        if table in tables:
            column = lake.open_table(table, tables[table]).to_pyarrow_table(columns=["batch_id"])["batch_id"]
            found.update(str(batch) for batch in pc.unique(column).to_pylist())
    return found


def _publish(product: Product, made: Release, lease: Lease) -> dict[str, Any]:
    for table, version in made.tables.items():
        lake.open_table(table, version)
    releases.publish(made, lease)
    observed.wrote(product.releases, made.release_id)
    undone = ", ".join(map(str, made.undoes))
    return {
        "message": f"release {made.release_id} is in force: the tables of release {made.restores}, as of {made.as_of}; "
        f"undone: {undone} ({made.why})",
        "release_id": made.release_id,
    }
