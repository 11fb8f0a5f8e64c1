"""The Marquez backend against a real Marquez's recorded answers: the same graph as the event file gives."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from plumbline.errors import ServiceUnavailable
from plumbline.lineage import graph, marquez, sending
from plumbline.lineage.graph import Graph
from plumbline.lineage.marquez import Marquez
from plumbline.lineage.runs import EventFile, LineageError, Port, Run
from products import ALL
from products.churn import CHURN

RECORDED = Path(__file__).parent / "marquez"
RUN = "00000000-0000-0000-0000-0000000000"


def with_histories(text: str) -> str:
    """A recording as of today: it was made when the features were computed from the marts, not from their histories."""
    return re.sub(r"analytics\.(orders|customers)\b(?!_history)", r"analytics.\1_history", text)


def recordings() -> dict[str, tuple[int, str]]:
    """Each recorded GET with its status and body."""
    found = {}
    for path in RECORDED.glob("*.json"):
        told = json.loads(with_histories(path.read_text()))
        method, _, request = told["request"].partition(" ")
        body = told["response"] if isinstance(told["response"], str) else json.dumps(told["response"])
        if method == "GET":
            found[request] = (told["status"], body)
    return found


@pytest.fixture
def asked() -> list[str]:
    """The requests that the server got."""
    return []


@pytest.fixture
def url(asked: list[str]) -> Iterator[str]:
    answers = recordings()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            status, body = answers.get(self.path, (404, '{"code":404,"message":"nothing recorded"}'))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *told: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def posted(home: Path) -> EventFile:
    """An event file of the same events."""
    home.mkdir()
    sending.path().write_text(with_histories((RECORDED / "posted-events.ndjson").read_text()))
    return EventFile()


def by_name(found: Graph) -> set[tuple[str, str]]:
    """Edges between datasets and jobs, without versions and runs' ids."""

    def name(node: str) -> str:
        return found.runs[node].job if node in found.runs else found.ports[node].dataset

    return {(name(source), name(target)) for source, target in found.edges}


def test_the_same_events_give_the_same_graph(url: str, posted: EventFile) -> None:
    theirs, ours = (graph.of("features.customers", events, CHURN) for events in (Marquez(url, ALL, page=2), posted))
    assert by_name(theirs) == by_name(ours)
    assert len(by_name(ours)) == 8, "from the shop to the model"
    assert theirs.start == ours.start == Port("features.customers", "352")
    (their_run,), (our_run,) = (found.above("features.customers@352") for found in (theirs, ours))
    assert their_run == our_run == f"{RUN}66"
    assert ("ml_training_pipeline.train", "models.churn_xgb") in by_name(theirs), "not under its parent's name"


def test_a_run_is_told_alike_by_both(url: str, posted: EventFile) -> None:
    def told(run: Run) -> tuple[Any, ...]:
        datasets = [port.dataset for port in run.inputs], run.outputs, run.rows, run.columns
        return run.job, run.state, run.began[:19], (run.ended or "")[:19], run.error, run.parent, run.asserted, datasets

    theirs, ours = (
        {run.run_id: run for run in events.runs("features.customers")} for events in (Marquez(url, ALL, 2), posted)
    )
    assert {run.job for run in theirs.values()} == {run.job for run in ours.values()}
    for run_id in (f"{RUN}66", f"{RUN}68"):
        assert told(theirs[run_id]) == told(ours[run_id])
    failed = theirs[f"{RUN}68"]
    assert (failed.state, failed.error) == ("FAIL", "gate orders: 12 rows without customer_id")
    assert failed.inputs == [Port("analytics.orders_history", "77")], (
        "which version it opened is only in the posted events"
    )


def test_a_state_is_asked_for_and_never_taken_from_the_graph(url: str, asked: list[str]) -> None:
    states = {run.job: run.state for run in Marquez(url, ALL, page=2).runs("features.customers")}
    assert states["retail_features.features"] == "COMPLETE"
    assert states["retail_features.ingest"] is None, "its runs were not recorded, and the graph's RUNNING is not true"
    assert "/api/v1/namespaces/plumbline/jobs/retail_features.features/runs" in asked


def test_every_request_is_one_that_the_openapi_has(url: str, asked: list[str]) -> None:
    """The paths and parameters of Marquez's published openapi that are used here, written down by hand."""
    Marquez(url, ALL, page=2).runs("features.customers")
    known = (
        r"/lineage\?nodeId=[^&]+&depth=\d+",
        r"/namespaces/plumbline/jobs/[\w.]+/runs",
        r"/namespaces/plumbline/datasets/[\w.]+/versions",
        r"/events/lineage\?limit=\d+(&offset=\d+)?",
    )
    assert all(any(re.fullmatch("/api/v1" + path, request) for path in known) for request in asked)
    assert "/api/v1/events/lineage?limit=2&offset=2" in asked, "there are ten events, and two came at once"


def test_a_run_is_found_by_its_id(url: str) -> None:
    run = f"{RUN}66"
    asked_for = f"/api/v1/lineage?nodeId=job:plumbline:retail_features.features&depth={marquez.DEPTH}"
    assert Marquez(url, ALL)._node(None, run) in asked_for
    with pytest.raises(LineageError, match="knows no dataset and no run"):
        Marquez(url, ALL).runs(None, "00000000-0000-0000-0000-000000000000")


def test_an_unknown_dataset_and_a_server_that_is_away_are_two_things(url: str) -> None:
    with pytest.raises(LineageError, match=r"knows no nothing.here"):
        Marquez(url, ALL).runs("nothing.here")
    with pytest.raises(ServiceUnavailable, match="Marquez at http://\\*\\*\\*@127.0.0.1:1 does not answer"):
        Marquez("http://me:secret@127.0.0.1:1", ALL).runs("features.customers")


@pytest.mark.parametrize(
    ("name", "parent", "posted"),
    [
        ("retail_features.ml_training_pipeline.train", "retail_features", "ml_training_pipeline.train"),
        ("retail_features.features", "retail_features", "retail_features.features"),
        ("someone.else", None, "someone.else"),
    ],
)
def test_a_jobs_name_as_it_was_posted(name: str, parent: str | None, posted: str) -> None:
    assert marquez.posted_name(name, parent, Marquez("", ALL).dags) == posted
