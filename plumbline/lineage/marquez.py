"""The runs that a Marquez knows, by its API: the same answers as the event file's for the same events.

Four things about it are not in its openapi. A job comes back under its parent's name unless its own begins so. The
run in its lineage graph is the parent's, and says RUNNING whatever became of it, so runs are asked for job by job. It
names versions by ids of its own; the Delta version of an output is in the version facet of the dataset's versions,
beside the run that made it. Which version a run opened is nowhere but in the events as they were posted.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Container, Iterable
from typing import Any
from urllib.parse import quote

from plumbline.errors import ServiceUnavailable
from plumbline.lineage import runs
from plumbline.lineage.runs import LineageError, Port, Run
from plumbline.product import NAMESPACE, Product

API = "/api/v1"
DEPTH = 20
"""Edges that the graph goes from where it begins: the whole way is 16, runs counted."""

PAGE, PAGES = 100, 30
"""Events asked for at once, and how often at most: what is older has no versions for what was opened."""

STATES = {"COMPLETED": "COMPLETE", "FAILED": "FAIL", "ABORTED": "ABORT", "RUNNING": "START", "NEW": "START"}


class Marquez:
    """Asks a Marquez; `products` are those whose jobs it knows, `page` is how many events it is asked for at once."""

    def __init__(self, url: str, products: Iterable[Product], page: int = PAGE) -> None:
        self.url, self.page = url.rstrip("/"), page
        self.dags = {stage.dag for product in products for stage in product.stages}

    @property
    def where(self) -> str:
        return re.sub(r"://[^@/]*@", "://***@", self.url)

    def runs(self, dataset: str | None, run_id: str | None = None) -> list[Run]:
        """The runs of the jobs around a dataset, or around a run's job; the newest hundred of each job.

        Raises LineageError when Marquez does not know it, ServiceUnavailable when it does not answer.
        """
        graph = self._get(f"/lineage?nodeId={self._node(dataset, run_id)}&depth={DEPTH}")
        if graph is None:
            raise LineageError(f"{self.where} knows no {dataset or run_id}")
        nodes = [node for node in graph["graph"] if node["data"]["namespace"] == NAMESPACE]
        found: dict[str, Run] = {}
        for node in nodes:
            if node["type"] == "JOB" and (node["inEdges"] or node["outEdges"]):
                found |= {run.run_id: run for run in self._of_job(node["data"])}
        for name in sorted(node["data"]["name"] for node in nodes if node["type"] == "DATASET"):
            self._versions(name, found)
        self._opened(found)
        return sorted(found.values(), key=lambda run: run.began)

    def _node(self, dataset: str | None, run_id: str | None) -> str:
        if dataset is not None:
            return f"dataset:{NAMESPACE}:{quote(dataset)}"
        run = self._get(f"/jobs/runs/{quote(str(run_id))}")
        if run is None or not run.get("jobVersion"):
            raise LineageError(f"{self.where} knows no dataset and no run {run_id!r}")
        return f"job:{NAMESPACE}:{quote(run['jobVersion']['name'])}"

    def _of_job(self, job: dict[str, Any]) -> list[Run]:
        """The job's runs; where Marquez tells none, one whose state nobody knows, from the graph's edges."""
        name = posted_name(job["name"], job.get("parentJobName"), self.dags)
        told = self._get(f"/namespaces/{NAMESPACE}/jobs/{quote(job['name'])}/runs")
        if told is None:
            inputs, outputs = ([Port(one["name"]) for one in _ours(job[side])] for side in ("inputs", "outputs"))
            return [Run(name, name, inputs=inputs, outputs=outputs)]  # its latestRun may be the parent's
        return [_run(name, one) for one in told["runs"]]

    def _versions(self, dataset: str, found: dict[str, Run]) -> None:
        """Puts the Delta versions of a dataset, and how its columns were computed, where its runs wrote it."""
        told = self._get(f"/namespaces/{NAMESPACE}/datasets/{quote(dataset)}/versions")
        for version in (told or {"versions": []})["versions"]:
            run = found.get((version.get("createdByRun") or {}).get("id", ""))
            delta = (version["facets"].get("version") or {}).get("datasetVersion")
            if run is not None and delta is not None:
                run.outputs = [port for port in run.outputs if port.dataset != dataset] + [Port(dataset, str(delta))]
                if lineage := version["facets"].get("columnLineage"):
                    run.columns[dataset] = runs.columns_of(lineage)

    def _opened(self, found: dict[str, Run]) -> None:
        """Puts the versions that each run opened, and the rest that only the posted events tell."""
        events: list[dict[str, Any]] = []
        for page in range(PAGES):
            offset = f"&offset={page * self.page}" if page else ""
            told = self._get(f"/events/lineage?limit={self.page}{offset}")
            events += told["events"] if told else []
            if told is None or len(events) >= told["totalCount"]:
                break
        for posted in runs.of_events(events):
            run = found.get(posted.run_id)
            if run is not None and posted.state != "START":
                run.inputs, run.outputs = posted.inputs, posted.outputs or run.outputs
                run.tags, run.rows = posted.tags or run.tags, posted.rows or run.rows
                run.asserted, run.failed = posted.asserted, posted.failed

    def _get(self, path: str) -> dict[str, Any] | None:
        """An answer, None where there is no such thing. Raises ServiceUnavailable."""
        try:
            with urllib.request.urlopen(f"{self.url}{API}{path}", timeout=10) as answer:  # noqa: S310 (as given)
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise ServiceUnavailable(f"Marquez at {self.where} answers {error.code} to {path}") from None
        except (OSError, ValueError) as error:
            raise ServiceUnavailable(f"Marquez at {self.where} does not answer {path}: {error}") from None


def posted_name(name: str, parent: str | None, dags: Container[str]) -> str:
    """A job's name as it was posted: without its parent's in front, where that was put there."""
    rest = name.removeprefix(f"{parent}.") if parent else name
    return rest if rest.partition(".")[0] in dags else name


def _run(job: str, told: dict[str, Any]) -> Run:
    facets = told.get("facets") or {}
    parent = facets.get("parent")
    verdicts = [
        (item["datasetVersionId"]["name"], verdict)
        for item in _of_versions(told["inputDatasetVersions"])
        for verdict in ((item.get("facets") or {}).get("dataQualityAssertions") or {}).get("assertions", [])
    ]
    rows = {
        item["datasetVersionId"]["name"]: int(item["facets"]["outputStatistics"]["rowCount"])
        for item in _of_versions(told["outputDatasetVersions"])
        if "outputStatistics" in (item.get("facets") or {})
    }
    return Run(
        told["id"],
        job,
        STATES.get(told["state"]),
        told["startedAt"] or "",
        told["endedAt"],
        inputs=[Port(item["datasetVersionId"]["name"]) for item in _of_versions(told["inputDatasetVersions"])],
        outputs=[Port(item["datasetVersionId"]["name"]) for item in _of_versions(told["outputDatasetVersions"])],
        rows=rows,
        error=(facets.get("errorMessage") or {}).get("message"),
        parent=f"{parent['job']['name']}/{parent['run']['runId']}" if parent else None,
        tags={tag["key"]: tag["value"] for tag in (facets.get("tags") or {}).get("tags", [])},
        asserted=len(verdicts),
        failed=[runs.told_of(name, verdict) for name, verdict in verdicts if not verdict["success"]],
    )


def _of_versions(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [item for item in items if item["datasetVersionId"]["namespace"] == NAMESPACE]


def _ours(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [item for item in items if item["namespace"] == NAMESPACE]
