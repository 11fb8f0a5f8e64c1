"""OpenLineage events of stages: START, then COMPLETE or FAIL; ABORT for one that was killed.

Built from the client's classes, which are generated from the published schema. Names are logical, the lake's place is
the data source, the Delta version is in the version facet. Nothing that goes wrong in here stops a stage: it costs a
warning, and a line in the file of failures that the exporter counts.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline import __version__, clock, verdict
from plumbline.lake import tables as lake
from plumbline.lineage import client, column_lineage, sending
from plumbline.observed import Assertion, Watch
from plumbline.product import NAMESPACE, PARENT, Product
from plumbline.settings import settings
from plumbline.verdict import Verdict

if TYPE_CHECKING:
    from openlineage.client.event_v2 import InputDataset, OutputDataset

PRODUCER = f"urn:plumbline:{__version__}"
STREAM_JOB = "order_stream"
STATES = {"COMPLETE": "COMPLETE", "FAIL": "FAIL", "GATE_FAILED": "FAIL", "KILLED": "ABORT"}
"""What the ledger calls a stage's end, and OpenLineage."""

TAGS = ("run_id", "release_id", "base", "code_sha")
"""Of a ledger's entry, what tags a run."""


KINDS = {"runs": "JOB_OUTPUT", "models": "MODEL", "endpoints": "ENDPOINT", "releases": "MANIFEST", "training": "FILE"}
"""What a dataset is, by the first part of its name; all others are tables."""


@dataclass(frozen=True)
class About:
    """What a dataset's contract says of it, for whoever reads lineage."""

    owner: str
    description: str


@dataclass
class Run:
    """One run of a stage, as its events name it: the product, the ledger's head, and when it began.

    `about` gives what is known of a dataset by its contract.
    """

    product: Product
    head: dict[str, Any]
    began: str
    about: Callable[[str], About | None] = lambda dataset: None

    @property
    def run_id(self) -> str:
        return run_id(self.product.name, self.head, self.began)


def run_id(product: str, head: dict[str, Any], began: str) -> str:
    """The UUID of a stage's run: the same for the same entry of the ledger, whoever computes it, and when."""
    name = f"{NAMESPACE}/{product}/{head.get('run_id')}/{head['stage']}/{began}"
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def started(
    product: Product,
    head: dict[str, Any],
    began: str,
    watch: Watch | None = None,
    about: Callable[[str], About | None] = lambda dataset: None,
) -> Run:
    """Sends a START, with what was seen so far of one that goes on; gives the run that `ended` is told about."""
    run = Run(product, head, began, about)
    _guarded(lambda: _send(run, "START", began, watch, {}))
    return run


def ended(run: Run, state: str, at: str, watch: Watch | None, entry: dict[str, Any]) -> None:
    """Sends the end of a run: what it opened and wrote, what was found of it, and the error of one that failed.

    `state` and `entry` are the ledger's.
    """
    _guarded(lambda: _send(run, STATES[state], at, watch, entry))


def killed(product: Product, event: dict[str, Any]) -> None:
    """Sends the end of a run that began and never ended; `event` is its START in the ledger."""
    head = {name: value for name, value in event.items() if name not in ("at", "state")}
    run, at = Run(product, head, event["at"]), clock.wall().isoformat()
    _guarded(lambda: _send(run, "ABORT", at, None, {"error": "it began and never ended"}))


def streamed(
    product: Product,
    source: str,
    read: Mapping[tuple[str, int], tuple[int, int]],
    tables: Iterable[str],
    rows: Mapping[str, int],
) -> None:
    """Sends what a stretch of a product's stream came to: a whole run of its own.

    `source` is the broker's namespace, `read` gives for each topic and partition the first offset and the one behind
    the last; `tables` are what it writes, told at their newest version if they are there, `rows` what came to them.
    """
    _guarded(lambda: _send_stretch(product, source, read, tables, rows))


def _send_stretch(
    product: Product,
    source: str,
    read: Mapping[tuple[str, int], tuple[int, int]],
    tables: Iterable[str],
    rows: Mapping[str, int],
) -> None:
    ol, facets, _ = client.load()
    facets.set_producer(PRODUCER)
    datasets, kind = _Datasets(lambda dataset: None), client.offsets_facet()
    wrote = {name: version for name in tables if (version := lake.version(name)) is not None}
    statistics = facets.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet
    inputs = []
    for topic in sorted({topic for topic, _ in read}):
        ranges = {str(n): {"from": a, "until": b} for (of, n), (a, b) in sorted(read.items()) if of == topic}
        place = facets.datasource_dataset.DatasourceDatasetFacet(name=source, uri=source)
        facet = {"plumbline_offsets": kind(partitions=ranges)}
        inputs.append(ol.InputDataset(namespace=source, name=topic, facets={"dataSource": place}, inputFacets=facet))
    outputs = [
        ol.OutputDataset(
            namespace=NAMESPACE,
            name=name,
            facets=datasets._facets(name, str(version)),
            outputFacets={"outputStatistics": statistics(rowCount=rows[name])} if name in rows else {},
        )
        for name, version in sorted(wrote.items())
    ]
    streaming = facets.job_type_job.JobTypeJobFacet(
        processingType="STREAMING", integration="PLUMBLINE", jobType="STREAM"
    )
    sending.send(
        ol.RunEvent(
            eventTime=clock.wall().isoformat(),
            eventType=ol.RunState.COMPLETE,
            run=ol.Run(runId=str(uuid.uuid4()), facets={"tags": _tags(product.name, {})}),
            job=ol.Job(namespace=NAMESPACE, name=STREAM_JOB, facets={"jobType": streaming}),
            inputs=inputs,
            outputs=outputs,
            producer=PRODUCER,
        )
    )


def _guarded(send: Callable[[], None]) -> None:
    try:
        send()
    except Exception as error:  # whatever it is: lineage tells of a stage, it does not run it
        sending.failed(1, f"an event could not be made: {type(error).__name__}: {error}")


def _send(run: Run, kind: str, at: str, watch: Watch | None, entry: dict[str, Any]) -> None:
    ol, facets, _ = client.load()
    facets.set_producer(PRODUCER)
    head = run.head
    told: dict[str, Any] = {"tags": _tags(run.product.name, {**head, **entry})}
    if (day := head.get("as_of")) is not None:
        end = clock.end_of(day if isinstance(day, date) else date.fromisoformat(str(day)))
        told["nominalTime"] = facets.nominal_time_run.NominalTimeRunFacet(
            nominalStartTime=str(day)[:10] + "T00:00:00Z", nominalEndTime=f"{end:%Y-%m-%dT%H:%M:%SZ}"
        )
    if parent := _parent():
        told["parent"] = parent
    if "error" in entry:
        told["errorMessage"] = facets.error_message_run.ErrorMessageRunFacet(str(entry["error"]), "PYTHON")
    serving = head["stage"] == "serve"
    kind_of_job = facets.job_type_job.JobTypeJobFacet(
        processingType="STREAMING" if serving else "BATCH", integration="PLUMBLINE", jobType="STAGE"
    )
    datasets = _Datasets(run.about)
    inputs, outputs = datasets.of(watch, entry) if watch else ([], [])
    event = ol.RunEvent(
        eventTime=_utc(at),
        eventType=ol.RunState[kind],
        run=ol.Run(runId=run.run_id, facets=told),
        job=ol.Job(namespace=NAMESPACE, name=run.product.job(head["stage"]), facets={"jobType": kind_of_job}),
        inputs=inputs,
        outputs=outputs,
        producer=PRODUCER,
    )
    sending.send(event)


class _Datasets:
    """The datasets of one event; each table's columns are read once."""

    def __init__(self, about: Callable[[str], About | None]) -> None:
        self._about = about
        self._schemas: dict[tuple[str, str | None], dict[str, str]] = {}

    def of(self, watch: Watch, entry: dict[str, Any]) -> tuple[list[InputDataset], list[OutputDataset]]:
        ol, facets, _ = client.load()
        written = {**watch.writes, **{name: str(version) for name, version in (entry.get("wrote") or {}).items()}}
        watch.writes = written
        counted = {**{k: v for k, v in (entry.get("rows") or {}).items() if isinstance(v, int)}, **watch.rows}
        found = {**watch.assertions}
        if (judged := watch.declared.judged) and entry.get("gates") and not found:
            found = {judged: _of_gates(verdict.read(entry["gates"], "gates"))}
        inputs = []
        read = watch.inputs()
        for name in sorted(found.keys() - {name for name, _ in read}):  # what the stage wrote, and then looked at
            read.append((name, written.get(name)))
        for name, version in read:
            about = found.pop(name, [])
            verdicts = facets.data_quality_assertions_dataset
            asserted = verdicts.DataQualityAssertionsDatasetFacet([_assertion(one) for one in about]) if about else None
            inputs.append(
                ol.InputDataset(
                    namespace=NAMESPACE,
                    name=name,
                    facets=self._facets(name, version),
                    inputFacets={"dataQualityAssertions": asserted} if asserted else {},
                )
            )
        outputs = []
        for name, version in sorted(written.items()):
            statistics = facets.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet
            outputs.append(
                ol.OutputDataset(
                    namespace=NAMESPACE,
                    name=name,
                    facets={**self._facets(name, version), **self._columns(watch, name, read)},
                    outputFacets={"outputStatistics": statistics(rowCount=counted[name])} if name in counted else {},
                )
            )
        return inputs, outputs

    def _facets(self, name: str, version: str | None) -> dict[str, Any]:
        _, facets, _ = client.load()
        made: dict[str, Any] = {}
        if version is not None:
            made["version"] = facets.dataset_version_dataset.DatasetVersionDatasetFacet(version)
        kind = KINDS.get(name.partition(".")[0], "TABLE")
        made["datasetType"] = facets.dataset_type_dataset.DatasetTypeDatasetFacet(datasetType=kind)
        if about := self._about(name):
            owned = facets.ownership_dataset
            made["ownership"] = owned.OwnershipDatasetFacet([owned.Owner(about.owner, "OWNER")])
            made["documentation"] = facets.documentation_dataset.DocumentationDatasetFacet(about.description)
        if not lake.holds(name):  # Marquez cannot list its sources when a dataset came without one
            store = name.partition(".")[0]
            made["dataSource"] = facets.datasource_dataset.DatasourceDatasetFacet(
                name=store, uri=f"plumbline://{store}"
            )
            return made
        root = settings().lake_uri
        uri = root if "://" in root else Path(root).as_uri()
        made["dataSource"] = facets.datasource_dataset.DatasourceDatasetFacet(name="lake", uri=uri)
        if schema := self._schema(name, version):
            fields = [facets.schema_dataset.SchemaDatasetFacetFields(name=n, type=t) for n, t in schema.items()]
            made["schema"] = facets.schema_dataset.SchemaDatasetFacet(fields=fields)
        return made

    def _schema(self, name: str, version: str | None) -> dict[str, str]:
        """Columns and types of a table at a version; none when it cannot be opened (any more)."""
        key = (name, version)
        if key not in self._schemas:
            self._schemas[key] = {}
            with suppress(lake.LakeError, ValueError):
                table = lake.opened(name, int(version) if version is not None else None)
                fields = table.schema().fields
                self._schemas[key] = {field.name: str(getattr(field.type, "type", field.type)) for field in fields}
        return self._schemas[key]

    def _columns(self, watch: Watch, name: str, read: list[tuple[str, str | None]]) -> dict[str, Any]:
        """Column lineage of an output whose SQL is known, to the columns of the inputs."""
        _, facets, _ = client.load()
        if name not in watch.made_by:
            return {}
        kind = facets.column_lineage_dataset
        tables = {table: list(self._schema(table, version)) for table, version in read}
        sql, views = watch.made_by[name]
        found = column_lineage.traced(sql, views, {table: names for table, names in tables.items() if names})
        fields = {
            column: kind.Fields(
                inputFields=[
                    kind.InputField(
                        namespace=NAMESPACE, name=table, field=field, transformations=[kind.Transformation("DIRECT")]
                    )
                    for table, field in inputs
                ]
            )
            for column, inputs in found.items()
            if inputs
        }
        return {"columnLineage": kind.ColumnLineageDatasetFacet(fields=fields)} if fields else {}


def _tags(product: str, told: dict[str, Any]) -> Any:
    _, facets, _ = client.load()
    kind = facets.tags_run
    values = {"product": product, **{name: told[name] for name in TAGS if told.get(name) is not None}}
    return kind.TagsRunFacet([kind.TagsRunFacetFields(name, str(value), "PLUMBLINE") for name, value in values.items()])


def _parent() -> Any:
    _, facets, _ = client.load()
    namespace, _, rest = os.environ.get(PARENT, "").partition("/")
    name, _, run = rest.rpartition("/")
    if not (namespace and name and run):
        return None
    kind = facets.parent_run
    return kind.ParentRunFacet(run=kind.Run(runId=run), job=kind.Job(namespace=namespace, name=name))


def _of_gates(gates: dict[str, Verdict]) -> list[Assertion]:
    """Each gate's verdict, where the stage told none of its own."""
    return [Assertion(name, gate.passed, actual="; ".join(gate.failed)[:500] or None) for name, gate in gates.items()]


def _assertion(one: Assertion) -> Any:
    _, facets, _ = client.load()
    return facets.data_quality_assertions_dataset.Assertion(
        assertion=one.name, success=one.success, column=one.column, expected=one.expected, actual=one.actual
    )


def _utc(at: str) -> str:
    return datetime.fromisoformat(at).isoformat()
