"""Runs as lineage knows them, whoever tells: the event file or a Marquez."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from plumbline import clock
from plumbline.errors import PlumblineError
from plumbline.lineage import sending
from plumbline.product import NAMESPACE
from plumbline.progress import warn
from plumbline.state import objects


class LineageError(PlumblineError):
    """Lineage does not know what was asked for, or cannot be asked."""


ENDS = ("COMPLETE", "FAIL", "ABORT")
"""The types of an event that ends a run."""


@dataclass(frozen=True)
class Port:
    """A dataset at a version; None where it has none, or none is known."""

    dataset: str
    version: str | None = None

    def __str__(self) -> str:
        return self.dataset if self.version is None else f"{self.dataset}@{self.version}"

    @property
    def rank(self) -> tuple[int, str]:
        """Versions in their order: numbers by their value, none first."""
        number = self.version or ""
        return (int(number), "") if number.isdecimal() else (-1, number)


@dataclass
class Run:
    """One run of a job. `state` is START, COMPLETE, FAIL or ABORT; None where nobody says.

    `failed` holds the assertions that did not hold, `columns` of each output the columns that each is computed from.
    """

    run_id: str
    job: str
    state: str | None = None
    began: str = ""
    ended: str | None = None
    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    error: str | None = None
    parent: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    asserted: int = 0
    failed: list[str] = field(default_factory=list)
    columns: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    @property
    def stage(self) -> str:
        """The job's last part."""
        return self.job.rpartition(".")[2]


class Events(Protocol):
    """Whoever tells of runs."""

    @property
    def where(self) -> str:
        """What was asked, for a message."""

    def runs(self) -> list[Run]:
        """All runs that are known, oldest first."""


class EventFile:
    """The runs in the event file of this home, or in the events in the state's bucket."""

    @property
    def where(self) -> str:
        return str(sending.path()) if objects.on_files() else objects.where(sending.FOLDER)

    def runs(self) -> list[Run]:
        """All runs that the file knows, oldest first."""
        return of_events(sending.events())


def of_events(events: Iterable[dict[str, Any]]) -> list[Run]:
    """Runs from OpenLineage events in any order, also twice; oldest first, times in UTC as ISO 8601.

    Left out are Airflow's own, which move no data, and events without a run or a time. One whose parts are not what
    OpenLineage says is left out whole, with a warning.
    """
    told: list[tuple[datetime, Run]] = []
    strange = 0
    for event in events:
        try:
            if _is_ours(event) and (moment := _moment(event)) is not None:
                told.append((moment, _told(event, moment)))
        except (KeyError, TypeError, ValueError, AttributeError):
            strange += 1
    if strange:
        warn(f"lineage: {strange} event{'s' if strange > 1 else ''} left out that are not as OpenLineage has them")
    known: dict[str, Run] = {}
    for moment, said in sorted(told, key=lambda pair: (pair[0], pair[1].state != "START")):
        run = known.setdefault(said.run_id, Run(said.run_id, said.job, began=said.began))
        if said.state in ENDS:
            run.ended, run.state = moment.isoformat(), said.state
        else:
            run.state = run.state or "START"
        run.parent, run.error = said.parent or run.parent, said.error or run.error
        run.tags |= said.tags
        if said.inputs:  # the last event that names any says which; a START may name none yet
            run.inputs, run.asserted, run.failed = said.inputs, said.asserted, said.failed
        run.outputs = said.outputs or run.outputs
        run.rows |= said.rows
        run.columns |= said.columns
    return sorted(known.values(), key=lambda run: run.began)


def _is_ours(event: dict[str, Any]) -> bool:
    job, run = event.get("job") or {}, event.get("run") or {}
    kind = (job.get("facets") or {}).get("jobType") or {}
    return job.get("namespace") == NAMESPACE and kind.get("integration") != "AIRFLOW" and "runId" in run


def _moment(event: dict[str, Any]) -> datetime | None:
    """When it happened. As text it cannot be compared: Marquez writes the same time with fewer digits, and a Z."""
    try:
        moment = datetime.fromisoformat(str(event.get("eventTime")))
    except ValueError:
        return None
    return clock.in_utc(moment)


def _told(event: dict[str, Any], moment: datetime) -> Run:
    """What one event says of its run. Raises KeyError, TypeError, ValueError or AttributeError for what is none."""
    of_run = event["run"]
    facets = of_run.get("facets") or {}
    run = Run(str(of_run["runId"]), str(event["job"]["name"]), str(event["eventType"]), moment.isoformat())
    if parent := facets.get("parent"):  # Marquez gives null for an event without one
        run.parent = "{}/{}".format(parent["job"]["name"], parent["run"]["runId"])
    run.error = (facets.get("errorMessage") or {}).get("message")
    run.tags = {tag["key"]: tag["value"] for tag in (facets.get("tags") or {}).get("tags") or []}
    inputs = [item for item in event.get("inputs") or [] if item.get("namespace") == NAMESPACE]
    outputs = [item for item in event.get("outputs") or [] if item.get("namespace") == NAMESPACE]
    run.inputs, run.outputs = [_port(item) for item in inputs], [_port(item) for item in outputs]
    verdicts = [
        (item["name"], verdict)
        for item in inputs
        for verdict in ((item.get("inputFacets") or {}).get("dataQualityAssertions") or {}).get("assertions") or []
    ]
    run.asserted = len(verdicts)
    run.failed = [in_words(name, verdict) for name, verdict in verdicts if not verdict["success"]]
    for item in outputs:
        statistics = (item.get("outputFacets") or {}).get("outputStatistics") or {}
        if statistics.get("rowCount") is not None:
            run.rows[item["name"]] = int(statistics["rowCount"])
        if lineage := (item.get("facets") or {}).get("columnLineage"):
            run.columns[item["name"]] = columns_of(lineage)
    return run


def in_words(dataset: str, verdict: dict[str, Any]) -> str:
    """An assertion in words, as in `not_null of analytics.orders.customer_id`."""
    return f"{verdict['assertion']} of {dataset}" + (f".{verdict['column']}" if verdict.get("column") else "")


def columns_of(facet: dict[str, Any]) -> dict[str, list[str]]:
    """A column lineage facet: each column with the `table.column` that it is computed from."""
    return {
        column: [f"{given['name']}.{given['field']}" for given in of["inputFields"]]
        for column, of in facet["fields"].items()
    }


def _port(item: dict[str, Any]) -> Port:
    version = ((item.get("facets") or {}).get("version") or {}).get("datasetVersion")
    return Port(item["name"], None if version is None else str(version))
