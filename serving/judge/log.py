"""The tail of a product's outcome log: rows of what was answered and what came of it, each once, as committed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from plumbline import clock
from plumbline.lake import tables as lake
from plumbline.product import Product
from serving.errors import ServingError
from serving.judge.verdicts import WINDOW, Answer, Outcome
from serving.track import STABLE

if TYPE_CHECKING:
    from deltalake import DeltaTable

APPENDS = {"WRITE", "STREAMING UPDATE"}
"""Delta's names for commits that add rows. Others, a compaction above all, write rows anew that were read before."""


class Rewound(ServingError):
    """The table was made anew: what was read of it is of another log."""


class Tail:
    """An append-only Delta table's rows, each once. The first read begins with the files that reach `since`."""

    def __init__(self, table: str, columns: list[str], stamp: str, since: datetime) -> None:
        self._table, self._columns, self._stamp, self._since = table, columns, stamp, since
        self._delta: DeltaTable | None = None
        self._version, self._seen = -1, set[str]()

    def read(self) -> list[dict[str, Any]]:
        """The rows that are new since the last read; none while there is no table. What fails is read again next time.

        Raises LakeError or pyarrow's and delta-rs' errors for what cannot be read, Rewound for another table.
        """
        if self._delta is None:
            if lake.version(self._table) is None:
                return []
            self._delta = lake.opened(self._table)
        elif (head := lake.version(self._table)) is None or head < self._version:
            raise Rewound(f"{self._table} is at version {head}, it was at {self._version}")
        self._delta.update_incremental()
        head = int(self._delta.version())
        if head == self._version:
            return []
        found, seen = self._since_version(self._delta, head)
        self._version, self._seen = head, seen
        return found

    def _since_version(self, delta: DeltaTable, head: int) -> tuple[list[dict[str, Any]], set[str]]:
        if self._version < 0:
            added = _added(delta)
            reach = {file["path"] for file in added if _utc(file.get(f"max.{self._stamp}"), self._since) >= self._since}
            return self._rows(delta, reach), {file["path"] for file in added}
        commits = {int(commit["version"]): commit["operation"] for commit in delta.history(head - self._version)}
        if all(commits.get(version) in APPENDS for version in range(self._version + 1, head + 1)):
            files = _files(delta)
            return self._rows(delta, files - self._seen), files
        found, seen = [], self._seen
        for version in range(self._version + 1, head + 1):
            then = lake.opened(self._table, version)
            files = _files(then)
            if commits.get(version) in APPENDS:
                found += self._rows(then, files - seen)
            seen = files
        return found, seen

    def _rows(self, delta: DeltaTable, paths: set[str]) -> list[dict[str, Any]]:
        if not paths:
            return []
        from pyarrow.dataset import FileSystemDataset

        whole = delta.to_pyarrow_dataset()
        files = [fragment for fragment in whole.get_fragments() if fragment.path in paths]
        columns = [name for name in self._columns if name in whole.schema.names]  # a table from before a column
        read = FileSystemDataset(files, whole.schema, files[0].format, files[0].filesystem).to_table(columns=columns)
        rows: list[dict[str, Any]] = read.to_pylist()
        return rows


class Log:
    """A product's `log` and `outcomes`, from `since` on, or from the first canary since then: without one there is
    nothing to compare."""

    def __init__(self, product: Product, since: datetime) -> None:
        self._product, self._since = product, since
        self._events = [kpi.event for kpi in product.kpis]
        self._tails: tuple[Tail, Tail] | None = None
        self._held: list[Outcome] = []

    def read(self) -> tuple[list[Answer], list[Outcome]]:
        """What is new. Outcomes are read first: each one's prediction was logged before it, and so is in what follows.

        Predictions of no rollout are left out. Raises what a Tail does; nothing is lost then.
        """
        if self._tails is None:
            self._tails = self._begun()
        predictions, known = self._tails
        self._held += [
            Outcome(row["request_id"], row["recorded_at"].timestamp(), tuple(row[event] for event in self._events))
            for row in known.read()
        ]
        answers = [
            Answer(row["request_id"], row["logged_at"].timestamp(), row["revision"], row["track"], row["score"])
            for row in predictions.read()
            if row.get("revision")
        ]
        outcomes, self._held = self._held, []
        return answers, outcomes

    def _begun(self) -> tuple[Tail, Tail]:
        """The tails, from the first file since `since` whose statistics do not say that all of it is stable's."""
        begin = clock.wall()
        if lake.version(self._product.log) is not None:
            for file in _added(lake.opened(self._product.log)):
                first, last = (_utc(file.get(f"{end}.logged_at"), self._since) for end in ("min", "max"))
                if last >= self._since and file.get("min.track") != STABLE:
                    begin = min(begin, max(first, self._since))
        begin -= timedelta(seconds=WINDOW)
        answered = ["request_id", "logged_at", "revision", "track", "score"]
        known = ["request_id", "recorded_at", *self._events]
        return (
            Tail(self._product.log, answered, "logged_at", begin),
            Tail(self._product.outcomes, known, "recorded_at", begin),
        )


def _added(delta: DeltaTable) -> list[dict[str, Any]]:
    """The table's files, with their statistics."""
    import pyarrow as pa

    files: list[dict[str, Any]] = pa.table(delta.get_add_actions(flatten=True)).to_pylist()
    return files


def _files(delta: DeltaTable) -> set[str]:
    return {file["path"] for file in _added(delta)}


def _utc(stamp: datetime | None, unknown: datetime) -> datetime:
    return unknown if stamp is None else stamp.replace(tzinfo=UTC)
