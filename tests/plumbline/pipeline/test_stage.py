"""Stages, candidates and releases, with stages that write nothing but versions."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
from datetime import date, timedelta

import pytest

from plumbline import clock, provenance
from plumbline.causes import DiskTrouble
from plumbline.errors import Conflict, GateFailed, Unreadable
from plumbline.pipeline import stage
from plumbline.pipeline.stage import StageError, StageRun
from plumbline.settings import ROOT, settings
from plumbline.state import candidates, ledger, objects, releases
from plumbline.state.releases import Release, ReleaseError
from plumbline.verdict import Verdict
from tests.toy import TOY

DAY = date(1998, 6, 29)
NEXT = date(1998, 6, 30)
FEATURES = "features.customers"
PASSED, FAILED = (Verdict("orders", passed) for passed in (True, False))


pytestmark = pytest.mark.usefixtures("home")


def ingest(run: StageRun) -> str:
    run.write("raw.orders", 7, 100)
    return "landed"


def check(run: StageRun) -> str:
    run.pin("raw.orders")
    run.gates["orders"] = PASSED
    return "passed"


def publish(run: StageRun) -> str:
    releases.publish(release_of(run))
    return "published"


def release_of(run: StageRun) -> Release:
    base = run.candidate.base
    return Release(
        (base or 0) + 1, "toy", run.as_of, base, run.candidate.tables, run.candidate.gates, "code", "lock", "toy", "now"
    )


def whole_run(day: date) -> None:
    stage.perform(TOY, "ingest", day, ingest)
    stage.perform(TOY, "check", day, check)
    stage.perform(TOY, "release", day, publish)


def test_a_run_becomes_a_release_that_names_versions_and_gates() -> None:
    whole_run(DAY)
    release = releases.required("toy")
    assert (release.release_id, release.base, release.tables) == (1, None, {"raw.orders": 7})
    assert release.gates == {"orders": PASSED}
    whole_run(NEXT)
    assert releases.required("toy").base == 1


def test_the_same_day_again_changes_nothing() -> None:
    stage.perform(TOY, "ingest", DAY, ingest)
    again = stage.perform(TOY, "ingest", DAY, lambda run: pytest.fail("it ran again"))
    assert again.state == "unchanged"
    whole_run(DAY)
    before = list(ledger.events("toy"))
    for name in TOY.daily_stages:
        result = stage.perform(TOY, name, DAY, lambda run: pytest.fail("it ran again"))
        assert result.state == "unchanged"
        assert "release 1 covers" in result.message
    assert list(ledger.events("toy")) == before
    assert releases.numbers("toy") == [1]


def test_other_code_runs_the_stage_again_and_forgets_what_was_built_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stage.perform(TOY, "ingest", DAY, ingest)
    stage.perform(TOY, "check", DAY, check)
    monkeypatch.setattr(provenance, "code_sha", lambda: "other code")
    assert stage.perform(TOY, "ingest", DAY, ingest).state == "done"
    with pytest.raises(StageError, match="check comes first: `plumb check --as-of 1998-06-29`"):
        stage.perform(TOY, "release", DAY, publish)


def test_a_failed_gate_publishes_nothing_and_is_in_the_ledger() -> None:
    def fails(run: StageRun) -> str:
        run.gates["orders"] = FAILED
        raise GateFailed("3 orders without a customer")

    stage.perform(TOY, "ingest", DAY, ingest)
    with pytest.raises(GateFailed):
        stage.perform(TOY, "check", DAY, fails)
    event = list(ledger.events("toy"))[-1]
    assert (event["state"], event["gates"]) == ("GATE_FAILED", {"orders": FAILED.as_dict()})
    with pytest.raises(StageError, match="ingest comes first"):
        stage.perform(TOY, "release", DAY, publish)
    assert releases.in_force("toy") is None


def test_what_a_gate_failed_on_is_set_aside_and_the_run_starts_over() -> None:
    seen: list[list[str]] = []

    def lands(run: StageRun) -> str:
        seen.append(run.candidate.rejected)
        run.facts["batch_id"] = f"batch {len(seen)}"
        return ingest(run)

    def fails(run: StageRun) -> str:
        raise GateFailed("an amount of 200,000 dollars")

    for _ in range(2):
        stage.perform(TOY, "ingest", DAY, lands)
        with pytest.raises(GateFailed):
            stage.perform(TOY, "check", DAY, fails)
    stage.perform(TOY, "ingest", NEXT, lands)  # also when the bad day is skipped
    assert seen == [[], ["batch 1"], ["batch 1", "batch 2"]]
    told = json.loads((settings().home / "rejected" / "toy" / "batch 1.json").read_text())
    assert told["why"] == "an amount of 200,000 dollars"


def test_where_the_code_is_at_fault_nothing_is_set_aside_and_the_stage_runs_again() -> None:
    def lands(run: StageRun) -> str:
        run.facts["batch_id"] = "batch 1"
        return ingest(run)

    def fails(run: StageRun) -> str:
        run.gates["orders"] = FAILED
        raise GateFailed("the SQL lacks a column", sets_aside=False)

    stage.perform(TOY, "ingest", DAY, lands)
    with pytest.raises(GateFailed):
        stage.perform(TOY, "check", DAY, fails)
    event = list(ledger.events("toy"))[-1]
    assert (event["state"], event["sets_aside"], event["gates"]) == ("GATE_FAILED", False, {"orders": FAILED.as_dict()})
    assert candidates.rejected("toy") == []
    assert stage.perform(TOY, "check", DAY, check).state == "done", "ingest need not run again"
    assert stage.perform(TOY, "release", DAY, publish).state == "done"


def test_a_run_is_read_back_as_it_was_saved_and_a_foreign_file_is_named() -> None:
    stage.perform(TOY, "ingest", DAY, ingest)
    stage.perform(TOY, "check", DAY, check)
    found = candidates.load("toy", DAY)
    assert found is not None and found.gates == {"orders": PASSED}
    key = candidates.key_of("toy", DAY)
    objects.replace_json(key, {**(objects.read_json(key) or {}), "gates": {"orders": "fine"}})
    with pytest.raises(Unreadable, match=rf"{DAY}.json: gate orders: expected an object with .* found 'fine'"):
        stage.perform(TOY, "release", DAY, publish)


def test_a_kill_while_a_batch_is_set_aside_does_not_stop_the_next_try(monkeypatch: pytest.MonkeyPatch) -> None:
    def lands(run: StageRun) -> str:
        run.facts["batch_id"] = "batch 1"
        return ingest(run)

    def fails(run: StageRun) -> str:
        raise GateFailed("an amount of 200,000 dollars")

    def killed(self: candidates.Candidate) -> None:
        raise KeyboardInterrupt

    stage.perform(TOY, "ingest", DAY, lands)
    with monkeypatch.context() as patch:
        patch.setattr(
            stage, "_reset", lambda product, candidate, name: patch.setattr(candidates.Candidate, "save", killed)
        )
        with pytest.raises(KeyboardInterrupt):
            stage.perform(TOY, "check", DAY, fails)
    assert candidates.rejected("toy") == ["batch 1"]
    with pytest.raises(GateFailed):
        stage.perform(TOY, "check", DAY, fails)
    with pytest.raises(StageError, match="ingest comes first"):
        stage.perform(TOY, "check", DAY, check)


def test_of_two_runs_on_one_base_the_second_is_told() -> None:
    stage.perform(TOY, "ingest", DAY, ingest)
    stage.perform(TOY, "check", DAY, check)

    def late(run: StageRun) -> str:
        releases.publish(release_of(run))  # another run's release comes in between
        releases.publish(release_of(run))
        return "never"

    with pytest.raises(Conflict, match="release 1 was published since this run pinned release None"):
        stage.perform(TOY, "release", DAY, late)
    assert releases.numbers("toy") == [1]


def test_a_run_whose_base_was_superseded_starts_over_with_its_first_stage() -> None:
    stage.perform(TOY, "ingest", NEXT, ingest)
    whole_run(DAY)
    with pytest.raises(StageError, match="start with `plumb ingest --as-of 1998-06-30`"):
        stage.perform(TOY, "check", NEXT, check)
    whole_run(NEXT)
    assert releases.required("toy").base == 1


def test_a_day_that_is_not_over_is_refused() -> None:
    with pytest.raises(StageError, match=r"1998-07-01: that day is not over, the clock says 1998-07-01 00:00 UTC"):
        stage.perform(TOY, "ingest", date(1998, 7, 1), ingest)


def test_while_a_stage_runs_another_is_turned_away() -> None:
    def meanwhile(run: StageRun) -> str:
        with pytest.raises(Conflict, match="another run of toy is at work"):
            stage.perform(TOY, "ingest", DAY, ingest)
        return "alone"

    assert stage.perform(TOY, "ingest", DAY, meanwhile).message == "alone"


def test_a_table_that_nobody_names_cannot_be_read() -> None:
    with pytest.raises(StageError, match="names features.customers"):
        stage.perform(TOY, "ingest", DAY, lambda run: str(run.pin(FEATURES)))


def test_a_killed_stage_left_no_entry_and_is_run_again() -> None:
    def killed(run: StageRun) -> str:
        run.write("raw.orders", 3, 1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage.perform(TOY, "ingest", DAY, killed)
    assert stage.perform(TOY, "ingest", DAY, ingest).state == "done"


def test_a_stage_that_was_killed_for_good_has_an_end_once_it_is_run_again() -> None:
    script = (
        "import os, signal; from datetime import date; from plumbline.pipeline import stage; "
        "from tests.toy import TOY; "
        "stage.perform(TOY, 'ingest', date(1998, 6, 29), lambda run: os.kill(os.getpid(), signal.SIGKILL))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, cwd=ROOT).returncode == -signal.SIGKILL
    assert [event["state"] for event in ledger.events("toy")] == ["START"]
    assert stage.perform(TOY, "ingest", DAY, ingest).state == "done"
    assert stage.perform(TOY, "ingest", DAY, ingest).state == "unchanged"
    events = list(ledger.events("toy"))
    assert [event["state"] for event in events] == ["START", "KILLED", "START", "COMPLETE"]
    assert events[1]["began"] == events[0]["at"]


def test_a_start_of_the_future_is_killed_once_and_not_at_every_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock was set back: the START stays the newest event. A later one that is killed is noticed all the same."""
    now = clock.wall()
    with monkeypatch.context() as ahead:
        ahead.setattr(clock, "wall", lambda: now + timedelta(days=400))
        ledger.record("toy", {"run_id": "toy", "stage": "ingest", "as_of": str(DAY), "state": "START"})
    for _ in range(3):
        stage.perform(TOY, "ingest", DAY, ingest)
    states = [event["state"] for event in ledger.events("toy")]
    assert states.count("KILLED") == 1
    ledger.record("toy", {"run_id": "toy", "stage": "ingest", "as_of": str(DAY), "state": "START"})
    for _ in range(3):
        stage.perform(TOY, "ingest", DAY, ingest)
    assert [event["state"] for event in ledger.events("toy")].count("KILLED") == 2


@pytest.mark.parametrize("content", ["", '{"at": "19', "[]", "\x00\x00"])
def test_a_cut_file_of_the_ledger_is_named_and_the_day_goes_on(
    content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.perform(TOY, "ingest", DAY, ingest)
    (settings().home / "ledger" / "toy" / "99991231T000000000000-ingest-START-0000.json").write_text(content)
    (settings().home / "ledger" / "toy" / "99991231T000000000001-ingest-COMPLETE-0000.json").write_text(content)
    assert (ledger.newest("toy", "ingest", "COMPLETE") or {})["state"] == "COMPLETE"
    assert ledger.written_by(TOY, FEATURES, 10**6) is None
    assert stage.perform(TOY, "check", DAY, lambda run: "well").state == "done"
    assert stage.perform(TOY, "ingest", DAY, ingest).state == "unchanged"
    words = capsys.readouterr().err
    assert "ingest-COMPLETE-0000.json: expected a JSON object" in words and "Move the file out of the ledger" in words


def test_a_release_whose_file_was_lost_is_published_again(capsys: pytest.CaptureFixture[str]) -> None:
    """It was in force and its file is gone: what the run says must not be that it is in force."""

    def publish(run: StageRun) -> str:
        number = (run.base.release_id if run.base else 0) + 1
        releases.publish(Release(number, "toy", DAY, number - 1 or None, {}, {}, "c", "l", "toy", "now"))
        run.facts["release_id"] = number
        return f"release {number} is in force"

    for name, work in (("ingest", ingest), ("check", lambda run: "well"), ("release", publish)):
        stage.perform(TOY, name, DAY, work)
    assert stage.perform(TOY, "release", DAY, publish).state == "unchanged"
    objects.delete(releases.key("toy", 1))
    assert stage.perform(TOY, "release", DAY, publish).state == "done"
    assert releases.numbers("toy") == [1]
    assert "release 1, which this run published, is gone: it is published again" in capsys.readouterr().err


def test_what_a_library_raises_is_told_in_our_words_and_kept_as_the_cause() -> None:
    def full(run: StageRun) -> str:
        raise OSError(errno.ENOSPC, "No space left on device", "/data/x")

    with pytest.raises(DiskTrouble, match="no room left on the disk of /data/x") as error:
        stage.perform(TOY, "ingest", DAY, full)
    assert isinstance(error.value.__cause__, OSError)
    assert list(ledger.events("toy"))[-1]["error"].startswith("DiskTrouble: no room left")


def test_a_release_that_is_not_there_is_named() -> None:
    with pytest.raises(ReleaseError, match="no release of toy yet"):
        releases.required("toy")
    whole_run(DAY)
    with pytest.raises(ReleaseError, match=r"toy has no release 9; it has \[1\]"):
        releases.read("toy", 9)
    with pytest.raises(ReleaseError, match="does not name features.customers"):
        releases.required("toy").version(FEATURES)
