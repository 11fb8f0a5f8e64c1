"""What the stage at work opened and wrote, told from where tables, models and stores are opened.

One stage works in a process at a time. Its watch is the process's and not a thread's, so that nothing escapes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from plumbline.errors import PlumblineError
from plumbline.product import Product, Stage


class UndeclaredRead(PlumblineError):
    """A stage opened what its declaration does not name, so lineage would not have known of it."""


@dataclass(frozen=True)
class Assertion:
    """A verdict on a dataset: what was asserted, of which column, and what was found instead."""

    name: str
    success: bool
    column: str | None = None
    expected: str | None = None
    actual: str | None = None


@dataclass
class Watch:
    """What a stage was seen to do: (dataset, version) opened, and of each dataset written its version and rows.

    `made_by` holds the SQL that wrote a dataset, tables by their logical names, and the views that it selects from.
    """

    product: Product
    stage: str
    strict: bool = False
    reads: dict[tuple[str, str | None], None] = field(default_factory=dict)
    writes: dict[str, str | None] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    assertions: dict[str, list[Assertion]] = field(default_factory=dict)
    made_by: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict)

    @property
    def declared(self) -> Stage:
        """The stage's declaration; a stage without one may open nothing."""
        return self.product.stage(self.stage)

    def hold(self) -> None:
        """From here on an undeclared read is refused. Raises UndeclaredRead for what was opened before."""
        self.strict = True
        for dataset, version in self.reads:
            self.require(dataset, version)

    def require(self, dataset: str, version: str | None) -> None:
        """Raises UndeclaredRead unless the stage may open this."""
        if self.strict and dataset not in self.declared.reads:
            at = f"@v{version}" if version is not None else ""
            may = ", ".join(sorted(self.declared.reads)) or "nothing"
            raise UndeclaredRead(
                f"{self.stage} opened {dataset}{at}, which it does not declare (it may open {may}): "
                f"name it in products/{self.product.name}.py, or do not read it"
            )

    def inputs(self) -> list[tuple[str, str | None]]:
        """What was opened, without what the stage read back of its own writing, by name and version."""
        of = {(name, version) for name, version in self.reads if not self._own(name, version)}
        return sorted(of, key=lambda read: (read[0], _number(read[1])))

    def _own(self, name: str, version: str | None) -> bool:
        wrote = self.writes.get(name)
        return name in self.writes and (version is None or wrote is None or _number(version) >= _number(wrote))


_watch: Watch | None = None


@contextmanager
def watching(product: Product, stage: str) -> Iterator[Watch]:
    """Collects what is told from here on; a stage's own watch goes on when it is asked for again within."""
    global _watch
    before = _watch
    if before is not None and (before.product.name, before.stage) == (product.name, stage):
        yield before
        return
    _watch = Watch(product, stage)
    try:
        yield _watch
    finally:
        _watch = before


def read(dataset: str, version: Any = None) -> None:
    """Tells that a dataset was opened, at a version if it has any.

    Raises UndeclaredRead when the stage at work does not declare it.
    """
    if _watch is not None:
        told = None if version is None else str(version)
        _watch.reads[dataset, told] = None
        _watch.require(dataset, told)


def wrote(dataset: str, version: Any, rows: int | None = None) -> None:
    """Tells that a version of a dataset was written; `rows` are those written, not the total."""
    if _watch is not None:
        _watch.writes[dataset] = None if version is None else str(version)
        if rows is not None:
            _watch.rows[dataset] = rows


def asserted(dataset: str, assertion: Assertion) -> None:
    """Tells what was found of a dataset that was looked at."""
    if _watch is not None:
        _watch.assertions.setdefault(dataset, []).append(assertion)


def made_by(dataset: str, sql: str, views: dict[str, str] | None = None, names: dict[str, str] | None = None) -> None:
    """Tells the SQL that a dataset is written by, its tables under their logical names, and that of its views.

    `names` says what the SQL's `{placeholders}` stand for.
    """
    if _watch is not None:
        text = re.sub(r"\{(\w+)\}", lambda found: (names or {}).get(found[1], found[1]), sql)
        _watch.made_by[dataset] = (text, views or {})


def _number(version: str | None) -> tuple[int, str]:
    """Versions in their order: numbers by their value, none first."""
    return (int(version), "") if version is not None and version.isdecimal() else (-1, version or "")
