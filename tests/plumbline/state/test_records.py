"""Releases, ledger, candidates, acceptances and what follows the ledger: the same in files and in a bucket."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from observability import ledger_tail
from observability.ledger_tail import LedgerTail
from plumbline import clock
from plumbline.errors import Conflict, Unreadable
from plumbline.lineage import sending
from plumbline.lineage.runs import EventFile
from plumbline.state import acceptances, candidates, ledger, objects, releases, trainings
from plumbline.state.candidates import Candidate
from plumbline.state.releases import Release, ReleaseError
from plumbline.verdict import Verdict
from products.churn import CHURN
from tests import toy_run
from tests.toy import TOY

pytestmark = pytest.mark.usefixtures("place")

DAY = date(1998, 6, 29)


def release(number: int, base: int | None, **more: Any) -> Release:
    return Release(number, "toy", DAY, base, {"features.toys": number}, {}, "code", "lock", "toy", "now", **more)


def test_releases_are_numbered_and_one_number_is_published_once() -> None:
    assert releases.in_force("toy") is None
    with pytest.raises(ReleaseError, match="no release of toy yet"):
        releases.required("toy")
    for number in range(1, 12):
        releases.publish(release(number, number - 1 or None))
    assert releases.numbers("toy") == list(range(1, 12))
    assert releases.required("toy") == release(11, 10) and releases.read("toy", 3) == release(3, 2)
    with pytest.raises(Conflict, match="toy: release 11 was published since this run pinned release 10"):
        releases.publish(release(11, 10))
    with pytest.raises(ReleaseError, match="toy has no release 12; it has "):
        releases.read("toy", 12)


def test_what_is_no_release_is_named() -> None:
    objects.create_json(releases.key("toy", 1), {"release_id": 1})
    with pytest.raises(Unreadable, match="releases/toy/000001.json: expected a release's manifest"):
        releases.in_force("toy")


def test_a_release_in_the_place_of_another_is_named_and_not_read() -> None:
    for number in (1, 2):
        releases.publish(release(number, number - 1 or None))
    first = objects.read_json(releases.key("toy", 1))
    assert first is not None
    objects.replace_json(releases.key("toy", 2), first)
    with pytest.raises(Unreadable, match=r"toy/000002.json was altered after it was published: it is release 1 of toy"):
        releases.in_force("toy")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"gates": {}}, "its digest is another"),
        ({"tables": {"features.toys": 7}}, "its digest is another"),
        ({"rejected": ["a batch"]}, "its digest is another"),
        ({"digest": None}, "it has no digest"),
    ],
    ids=["emptied gates", "a moved version", "a batch more", "the digest taken out"],
)
def test_a_release_that_was_altered_is_named_and_not_read(place: str, change: dict[str, Any], told: str) -> None:
    gates = {"toys": Verdict("toys", passed=True, expectations=1)}
    for number in (1, 2):
        releases.publish(replace(release(number, number - 1 or None), gates=gates))
    stored = objects.read_json(releases.key("toy", 2))
    assert stored is not None
    changed = {name: value for name, value in (stored | change).items() if value is not None}
    objects.replace_json(releases.key("toy", 2), changed)
    with pytest.raises(Unreadable, match=f"toy/000002.json was altered after it was published: {told}. Bring the file"):
        releases.required("toy")
    assert releases.read("toy", 1).gates == gates


def test_a_release_from_before_digests_is_read() -> None:
    objects.create_json(releases.key("toy", 1), release(1, None).as_dict())
    releases.publish(release(2, 1))
    assert [releases.read("toy", number) for number in (1, 2)] == [release(1, None), release(2, 1)]


@pytest.mark.parametrize(
    "name", ["99999x", "7", "0000007", "٠٠٠٠٠٩", "000009.bak", "-00009", "000001 (copy)", "old/000009", "notes"]
)
def test_a_foreign_file_among_the_releases_is_passed_over(name: str) -> None:
    releases.publish(release(1, None))
    objects.create_json(f"releases/toy/{name}.json", {"release_id": 9})
    assert releases.numbers("toy") == [1]
    assert releases.required("toy") == release(1, None)
    releases.publish(release(2, 1))
    assert releases.numbers("toy") == [1, 2]


def test_the_ledger_finds_events_by_their_names_and_reads_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for version in range(20):
        ledger.record("toy", {"stage": "ingest", "state": "START"})
        ledger.record("toy", {"stage": "ingest", "state": "COMPLETE", "wrote": {"features.toys": version}})
        ledger.record("toy", {"stage": "check", "state": "COMPLETE", "rows": version})
    ledger.record("toy", {"stage": "check", "state": "START"})
    assert len(list(ledger.events("toy"))) == 61
    read: list[str] = []
    reading = objects.read_json
    monkeypatch.setattr(objects, "read_json", lambda key: read.append(key) or reading(key))
    assert ledger.unended("toy", "ingest") is None
    assert (ledger.unended("toy", "check") or {})["state"] == "START"
    assert (ledger.newest("toy", "check", "COMPLETE") or {})["rows"] == 19
    assert ledger.newest("toy", "release", "COMPLETE") is None
    assert (ledger.written_by(TOY, "features.toys", 18) or {})["stage"] == "ingest"
    assert len(read) == 4, "none for an end, which its name tells; one for each answer, one on the way to version 18"


def test_an_event_that_cannot_be_read_is_named() -> None:
    ledger.record("toy", {"stage": "ingest", "state": "START"})
    objects.create("ledger/toy/20260101T000000000000-ingest-START-0000.json", "{")
    with pytest.raises(Unreadable, match="ingest-START-0000.json: expected a JSON object, found no JSON"):
        list(ledger.events("toy"))
    unreadable: list[str] = []
    assert len(list(ledger.events("toy", unreadable))) == 1 and len(unreadable) == 1


def test_a_candidate_that_another_process_wrote_is_not_overwritten() -> None:
    assert candidates.load("toy", DAY) is None
    first = Candidate("toy-1998-06-29", "toy", DAY, None)
    first.save()
    first.tables["features.toys"] = 1
    first.save()
    frozen, successor = candidates.load("toy", DAY), candidates.load("toy", DAY)
    assert frozen is not None and successor is not None and frozen == successor == first
    successor.tables["features.toys"] = 2
    successor.save()
    for late in (frozen, Candidate("toy-1998-06-29", "toy", DAY, None)):
        with pytest.raises(Conflict, match="another process goes on with the run toy-1998-06-29; this one changed not"):
            late.save()
    assert candidates.tables_named("toy") == {"1998-06-29": {"features.toys": 2}}
    assert "etag" not in (objects.read_json(candidates.key_of("toy", DAY)) or {})


def test_a_batch_is_rejected_once_with_the_first_reason() -> None:
    candidates.reject("toy", "1998-06-29..1998-06-29#2", "toy-1998-06-29", "why")
    candidates.reject("toy", "1998-06-29..1998-06-29#2", "toy-1998-06-29", "another")
    assert candidates.rejected("toy") == ["1998-06-29..1998-06-29#2"]
    told = objects.read_json(candidates.rejected_key("toy", "1998-06-29..1998-06-29#2"))
    assert told is not None and told["why"] == "why"


def test_what_was_accepted_is_accepted_once() -> None:
    gate = next(iter(CHURN.acceptable))
    acceptance = acceptances.accept(CHURN, gate, DAY, "a sale", by="the shop")
    assert acceptances.accepted("churn", gate, DAY) == acceptance
    assert acceptances.listed("churn") == [acceptance] and acceptances.listed("toy") == []
    with pytest.raises(Conflict, match="was accepted before by the shop at .*: a sale; nothing was changed"):
        acceptances.accept(CHURN, gate, DAY, "another reason")


def test_datasets_of_training_are_found() -> None:
    objects.create_json(trainings.key("toy", 1, trainings.ABOUT), {"data_version": "delta:features.toys@v=1"})
    objects.create_json(trainings.key("toy", "1-leaky", trainings.ABOUT), {"data_version": "x"})
    objects.create_bytes(trainings.key("toy", 1, trainings.ROWS), b"PAR1")
    assert sorted(trainings.datasets("toy")) == ["1", "1-leaky"]
    assert trainings.folder("toy", 1) == objects.where("training/toy/1")


def test_the_ledger_is_followed_and_each_event_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_tail, "SETTLED", -1.0)
    tail = LedgerTail("toy")
    assert tail.look() == [] and tail.told.runs == {}
    ledger.record(
        "toy", {"stage": "ingest", "state": "COMPLETE", "seconds": 1, "landed_until": clock.now().isoformat()}
    )
    assert tail.look() == [] and tail.look() == []
    late = clock.wall() - ledger_tail.MARGIN / 2
    name = f"ledger/toy/{late:%Y%m%dT%H%M%S%f}-check-COMPLETE-0000.json"
    objects.create_json(name, {"at": late.isoformat(), "stage": "check", "state": "COMPLETE", "seconds": 1})
    objects.create(f"ledger/toy/{late + timedelta(seconds=1):%Y%m%dT%H%M%S%f}-check-FAIL-0000.json", "{")
    assert tail.look() == tail.look() == [f"{late + timedelta(seconds=1):%Y%m%dT%H%M%S%f}-check-FAIL-0000.json"]
    assert tail.told.runs == {("ingest", "complete"): 1, ("check", "complete"): 1}


def test_a_bucket_is_asked_only_for_what_follows(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old = clock.wall() - timedelta(days=1)
    for at in (old, clock.wall()):
        event = {"at": at.isoformat(), "stage": "check", "state": "COMPLETE"}
        objects.create_json(f"ledger/toy/{at:%Y%m%dT%H%M%S%f}-check-COMPLETE-0000.json", event)
    tail = LedgerTail("toy")
    tail.look()
    listed: list[list[str]] = []
    keys = objects.keys

    def listing(prefix: str, after: str | None = None) -> list[str]:
        listed.append(keys(prefix, after))
        return listed[-1]

    monkeypatch.setattr(objects, "keys", listing)
    tail.look()
    assert [len(found) for found in listed] == [2 if place == "files" else 1]
    assert tail.told.runs == {("check", "complete"): 2}


def test_lineage_events_are_where_state_is(place: str) -> None:
    toy_run.perform("ingest", DAY)
    assert sorted(each["eventType"] for each in sending.events()) == ["COMPLETE", "START"]
    assert sending.path().exists() is (place == "files")
    assert [(run.job, run.state) for run in EventFile().runs()] == [("toy_daily.ingest", "COMPLETE")]
