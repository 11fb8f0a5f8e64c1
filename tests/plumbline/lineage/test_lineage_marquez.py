"""The Marquez backend on events as a real Marquez gave them back: the answers are the event file's.

The server here keeps what was posted and gives it by the page, newest first, as a real one was seen to.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from plumbline.errors import ServiceUnavailable
from plumbline.lineage import graph, runs, sending
from plumbline.lineage.marquez import Marquez
from plumbline.lineage.runs import EventFile, LineageError, Port
from products.churn import CHURN

RECORDED = Path(__file__).parent / "marquez"
Events = list[dict[str, Any]]


def with_histories(text: str) -> str:
    """A recording as of today: it was made when the features were computed from the marts, not from their histories."""
    return re.sub(r"analytics\.(orders|customers)\b(?!_history)", r"analytics.\1_history", text)


def posted(folder: str) -> Events:
    """The events that were posted to the real one."""
    text = with_histories((RECORDED / folder / "posted-events.ndjson").read_text())
    return [json.loads(line) for line in text.splitlines()]


def as_given_back(event: dict[str, Any]) -> dict[str, Any]:
    """An event as Marquez gives it: a Z, no zeros at the end, and null for facets that were not posted."""
    at = datetime.fromisoformat(event["eventTime"]).astimezone(UTC).replace(tzinfo=None).isoformat()
    time = (at.rstrip("0") if "." in at else at) + "Z"
    facets = {"nominalTime": None, "parent": None, **(event["run"].get("facets") or {})}
    return {**event, "eventTime": time, "run": {**event["run"], "facets": facets}}


class Server:
    """What a Marquez holds, and what it was asked for; `status` is its answer's."""

    def __init__(self) -> None:
        self.events: Events = []
        self.requests: list[str] = []
        self.logins: list[str | None] = []
        self.url, self.status = "", 200

    def page(self, query: dict[str, list[str]]) -> dict[str, Any]:
        newest = sorted(self.events, key=lambda event: datetime.fromisoformat(event["eventTime"]), reverse=True)
        start, most = (int(query.get(name, [default])[0]) for name, default in (("offset", "0"), ("limit", "100")))
        return {"totalCount": len(newest), "events": [as_given_back(event) for event in newest[start : start + most]]}


@pytest.fixture
def server() -> Iterator[Server]:
    held = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            held.requests.append(self.path)
            held.logins.append(self.headers.get("Authorization"))
            self.send_response(held.status)
            self.end_headers()
            self.wfile.write(json.dumps(held.page(parse_qs(urlsplit(self.path).query))).encode())

        def do_POST(self) -> None:
            held.events.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(201)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    held.url = f"http://127.0.0.1:{http.server_address[1]}"
    yield held
    http.shutdown()
    http.server_close()


def into_file(events: Events) -> EventFile:
    sending.path().parent.mkdir(exist_ok=True)
    sending.path().write_text("".join(json.dumps(event) + "\n" for event in events))
    return EventFile()


def ids(events: Events) -> set[str]:
    """Everything that can be asked for: datasets, their versions, runs and what tags call them."""
    known = runs.of_events(events)
    ports = {port for run in known for port in (*run.inputs, *run.outputs)}
    names = {str(port) for port in ports} | {port.dataset for port in ports} | {run.run_id for run in known}
    return (
        names | {run.tags["run_id"] for run in known if "run_id" in run.tags} | {"champion", "challenger", "endpoint"}
    )


def answer(question: str, source: runs.Events) -> Any:
    try:
        return {**graph.of(question, source, CHURN).as_dict(), "from": ""}
    except LineageError as unknown:
        return re.sub(r"in \S+ names", "names", str(unknown))


def running(events: Events) -> Events:
    """While `features` runs: its ends have not come."""
    return [e for e in events if not (e["job"]["name"].endswith(".features") and e["eventType"] != "START")]


def aborted(events: Events) -> Events:
    return [
        {**e, "eventType": "ABORT", "inputs": [], "outputs": []}
        if e["job"]["name"].endswith(".features") and e["eventType"] == "COMPLETE"
        else e
        for e in events
    ]


def shuffled(events: Events) -> Events:
    return [*events[1::2], *reversed(events[::2])]


def twice(events: Events) -> Events:
    return [*events, *events]


def without_parents(events: Events) -> Events:
    return [{**e, "run": {"runId": e["run"]["runId"]}} for e in events]


@pytest.mark.parametrize("change", [list, running, aborted, shuffled, twice, without_parents])
@pytest.mark.parametrize("folder", [".", "second"])
def test_every_question_has_the_same_answer_from_file_and_server(
    home: Path, server: Server, folder: str, change: Callable[[Events], Events]
) -> None:
    """In any order of arrival, while a stage runs, after it was aborted, and for runs without a parent."""
    server.events = change(posted(folder))
    file, marquez = into_file(server.events), Marquez(server.url, page=7)
    questions = sorted(ids(server.events))
    assert len(questions) > 15
    for question in questions[:: max(1, len(questions) // 20)]:
        assert answer(question, marquez) == answer(question, file), question


def test_events_without_a_parent_are_read_as_marquez_gives_them() -> None:
    """Servers and commands outside Airflow have no parent: Marquez then says null."""
    events = json.loads((RECORDED / "second" / "events-without-parent.json").read_text())["answer"]["events"]
    assert all(event["run"]["facets"]["parent"] is None for event in events)
    assert {run.job for run in runs.of_events(events)} == {event["job"]["name"] for event in events}


def test_events_that_are_no_runs_or_have_no_time_are_left_out() -> None:
    dataset = {"eventTime": "2026-11-26T20:00:00Z", "dataset": {"namespace": "plumbline", "name": "a.b"}}
    timeless = {**posted(".")[0], "eventTime": None}
    odd = {**posted(".")[0], "eventType": "OTHER", "inputs": None, "outputs": None}
    (run,) = runs.of_events([dataset, timeless, odd])
    assert (run.state, run.ended) == ("START", None), "what is no end ends nothing"


def test_after_a_hundred_days_the_whole_graph_is_there(home: Path, server: Server) -> None:
    day = posted(".")
    for number in range(105):
        for event in day:
            later = datetime.fromisoformat(event["eventTime"]) + timedelta(days=number)
            again = json.loads(json.dumps(event).replace('"datasetVersion": "', f'"datasetVersion": "{number}00'))
            again["run"]["runId"] = f"{number}-{event['run']['runId']}"
            server.events.append({**again, "eventTime": later.isoformat()})
    file, marquez = into_file(server.events), Marquez(server.url)
    assert len(file.runs()) == 105 * len({event["run"]["runId"] for event in day})
    for question in ("features.customers", "features.customers@352", "features.customers@50352"):
        assert answer(question, marquez) == answer(question, file), question


def test_more_events_than_the_bound_are_said_aloud(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.events = posted("second")
    assert len(Marquez(server.url, page=30, most=50).runs()) < len(Marquez(server.url).runs())
    assert "has 101 events: the newest 50 were read. What is older is missing" in capsys.readouterr().err
    assert [path.partition("?")[2] for path in server.requests[:2]] == ["limit=30&offset=0", "limit=20&offset=30"]


def test_one_that_is_away_refuses_or_is_no_marquez_is_named_without_its_password(server: Server) -> None:
    with pytest.raises(ServiceUnavailable, match="Marquez at http://\\*\\*\\*@127.0.0.1:1 does not answer"):
        Marquez("http://me:secret@127.0.0.1:1").runs()
    Marquez(server.url.replace("://", "://me:secret@")).runs()
    assert server.logins[-1] == "Basic bWU6c2VjcmV0"
    server.status = 500
    with pytest.raises(ServiceUnavailable, match="answers 500"):
        Marquez(server.url).runs()
    server.status = 200
    server.page = lambda query: []  # type: ignore[assignment, method-assign, return-value]
    with pytest.raises(ServiceUnavailable, match="is no Marquez: .* gives no events and totalCount"):
        Marquez(server.url).runs()


def test_what_was_not_confirmed_is_sent_again_and_then_no_more(home: Path, server: Server) -> None:
    events = posted(".")
    into_file(events)
    lost = [sending.event_id(event) for event in events[3:6]]
    sending.failed(3, "it froze", lost)
    with pytest.raises(ServiceUnavailable, match="confirmed 0 events, 3 wait"):
        sending.resend("http://127.0.0.1:1")
    assert sending.resend(server.url) == 3
    assert {sending.event_id(event) for event in server.events} == set(lost)
    assert sending.resend(server.url) == 0
    assert sending.failures() == 3, "a counter does not go back"
    assert sending.resend(server.url, everything=True) == len(events)
    assert Marquez(server.url).runs() == EventFile().runs()
    assert Port("features.customers", "352") in {port for run in EventFile().runs() for port in run.outputs}
