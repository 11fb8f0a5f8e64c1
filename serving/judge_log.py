"""The outcome log's tail: rows of `serving.predictions` and `serving.outcomes`, each once, as they are committed."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from plumbline import lake
from serving import outcome_log, outcomes
from serving.errors import ServingError
from serving.judge import Answer, Outcome

if TYPE_CHECKING:
    import pyarrow as pa
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
            import pyarrow as pa

            files = pa.table(delta.get_add_actions(flatten=True)).to_pylist()
            reach = {file["path"] for file in files if self._reaches(file.get(f"max.{self._stamp}"))}
            return self._rows(delta, reach), {file["path"] for file in files}
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

    def _reaches(self, newest: datetime | None) -> bool:
        return newest is None or newest.replace(tzinfo=self._since.tzinfo) >= self._since

    def _rows(self, delta: DeltaTable, paths: set[str]) -> list[dict[str, Any]]:
        if not paths:
            return []
        dataset = delta.to_pyarrow_dataset()
        columns = [name for name in self._columns if name in dataset.schema.names]  # from before a column: null
        read: list[pa.Table] = [
            fragment.to_table(schema=dataset.schema, columns=columns)
            for fragment in dataset.get_fragments()
            if fragment.path in paths
        ]
        return [row for table in read for row in table.to_pylist()]


class Log:
    """Both tables."""

    def __init__(self, since: datetime) -> None:
        answered = ["request_id", "logged_at", "revision", "track", "score"]
        known = ["request_id", "recorded_at", "ordered", "called_support"]
        self._predictions = Tail(outcome_log.TABLE, answered, "logged_at", since)
        self._outcomes = Tail(outcomes.TABLE, known, "recorded_at", since)
        self._held: list[Outcome] = []

    def read(self) -> tuple[list[Answer], list[Outcome]]:
        """What is new. Outcomes are read first: each one's prediction was logged before it, and so is in what follows.

        Predictions of no rollout are left out. Raises what a Tail does; nothing is lost then.
        """
        self._held += [
            Outcome(row["request_id"], row["recorded_at"].timestamp(), (row["ordered"], row["called_support"]))
            for row in self._outcomes.read()
        ]
        answers = [
            Answer(row["request_id"], row["logged_at"].timestamp(), row["revision"], row["track"], row["score"])
            for row in self._predictions.read()
            if row.get("revision")
        ]
        known, self._held = self._held, []
        return answers, known


def _files(delta: DeltaTable) -> set[str]:
    import pyarrow as pa

    return set(pa.table(delta.get_add_actions(flatten=True))["path"].to_pylist())
