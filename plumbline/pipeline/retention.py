"""Retention: what no release, run or model names may go from the lake; what any of them names stays readable.

A Delta table keeps the files of every version until they are vacuumed. Versions that somebody names are kept by name,
however old; of the others, files go once they have not been in use for a number of days. Delta's log itself is never
cut (`delta.enableExpiredLogCleanup` is false for every table of ours), or old versions could not be opened any more.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from plumbline.errors import PlumblineError
from plumbline.lake import tables as lake
from plumbline.pipeline import leases
from plumbline.product import Product
from plumbline.progress import say
from plumbline.registry import registered_models
from plumbline.state import candidates, erasures, ledger, releases, trainings

if TYPE_CHECKING:
    from deltalake import DeltaTable

KEEP_DAYS = 7
"""As long as Delta's own default: longer than any run that may still read what a newer version replaced."""


class RetentionError(PlumblineError):
    """What a vacuum would delete is still named by somebody; nothing was deleted."""


@dataclass(frozen=True)
class Vacuumed:
    """What went, or would go, from a table: files and bytes; and what is kept."""

    table: str
    files: int
    bytes: int
    kept: dict[int, list[str]] = field(default_factory=dict)
    """Version → who names it."""


def named(product: Product) -> dict[str, dict[int, list[str]]]:
    """Table → version → who names it: releases, runs under way, datasets, registered models.

    Versions that an erasure made unreadable are left out: nothing can be kept of them.
    Raises ServiceUnavailable when the model registry does not answer: what it names must be known.
    """
    found: dict[str, dict[int, list[str]]] = {}

    def add(table: str, version: int, who: str) -> None:
        found.setdefault(table, {}).setdefault(version, []).append(who)

    for number in releases.numbers(product.name):
        for table, version in releases.read(product.name, number).tables.items():
            add(table, version, f"release {number}")
    for day, tables in candidates.tables_named(product.name).items():
        for table, version in tables.items():
            add(table, version, f"run {day}")
    for release, about in trainings.datasets(product.name).items():
        _add_named_in(about, f"dataset of release {release}", add)
    for model in registered_models.versions(product.model) if product.model else []:
        _add_named_in(model.tags, f"model version {model.version}", add)
    for table, versions in found.items():
        for version in erasures.unreadable(table):
            versions.pop(version, None)
    return found


def vacuum(product: Product, keep_days: int = KEEP_DAYS, *, dry_run: bool = False) -> list[Vacuumed]:
    """Deletes the files that only versions nobody names hold, out of use for `keep_days`; a line for each table.

    Raises Conflict while a run is at work, and for less than a day while a stream is, which has files that no version
    names yet; RetentionError when a file that is named would go (then nothing does).
    """
    with ExitStack() as stack:
        for kind in ("run", "events") if keep_days < 1 else ("run",):
            stack.enter_context(leases.lease(product, "vacuum", kind))
        kept, done = named(product), []
        for table in sorted(kept):
            head = lake.open_table(table)
            versions = sorted(kept[table])
            paths = _unused(head, versions, keep_days)
            _refuse_named(table, paths, versions)
            size = _size(head, paths)
            if paths and not dry_run:
                say(f"{table}: deleting {len(paths):,} files")
                _delete(head, paths)
            done.append(Vacuumed(table, len(paths), size, kept[table]))
        if not dry_run:
            told = {item.table: {"files": item.files, "bytes": item.bytes} for item in done}
            head = {"run_id": f"{product.name}-vacuum", "stage": "vacuum", "state": "COMPLETE"}
            ledger.record(product.name, {**head, "went": told})
        return done


def _unused(table: DeltaTable, versions: list[int], keep_days: int) -> list[str]:
    """The data files that Delta would vacuum, relative to the table. A dry run of its own: it would take the checksums
    (`.….crc`) that Spark lays beside files in partitions too, those of kept files as well."""
    found: list[str] = table.vacuum(
        retention_hours=24 * keep_days,
        dry_run=True,
        enforce_retention_duration=False,
        full=True,  # with what killed runs wrote and never committed
        keep_versions=versions,
    )
    wanted = [path for path in found if not _name(path).startswith(".")]
    if not wanted:
        return []
    about = table.to_pyarrow_dataset().filesystem.get_file_info(wanted)
    return [path for path, info in zip(wanted, about, strict=True) if info.is_file]  # the log knows those long gone too


def _delete(table: DeltaTable, paths: list[str]) -> None:
    """Deletes data files and the checksums beside them."""
    store = table.to_pyarrow_dataset().filesystem
    for path in paths:
        folder, slash, name = path.rpartition("/")
        for beside in (path, f"{folder}{slash}.{name}.crc"):
            if store.get_file_info(beside).is_file:
                store.delete_file(beside)


def _refuse_named(table: str, paths: list[str], versions: list[int]) -> None:
    """Holds Delta's list against the files of every version that is named: deleting cannot be taken back."""
    going = {_name(path) for path in paths}
    for version in versions:
        if lost := going & {_name(path) for path in lake.open_table(table, version).file_uris()}:
            raise RetentionError(
                f"{table}: the vacuum would delete {len(lost)} files of version {version}, which is named, such as "
                f"{sorted(lost)[0]}; nothing was deleted"
            )


def _name(path: str) -> str:
    """A data file's own name, which is unique in a table: paths come relative or whole, encoded or not."""
    return path.rpartition("/")[2]


def _size(table: DeltaTable, paths: list[str]) -> int:
    if not paths:
        return 0
    about = table.to_pyarrow_dataset().filesystem.get_file_info(paths)
    return sum(info.size for info in about if info.is_file)


def _add_named_in(told: dict[str, Any], who: str, add: Any) -> None:
    for value in told.values():  # `data_version` and its like
        if match := re.fullmatch(r"delta:(.+)@v=(\d+)", str(value)):
            add(match[1], int(match[2]), who)
