"""A verdict's JSON is what files hold: read, and written again, it stays the same; what is none is named."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from plumbline import files, verdict
from plumbline.errors import Unreadable
from plumbline.pipeline import gates
from plumbline.state import ledger, releases
from plumbline.verdict import Acceptance, Verdict

SALE = Acceptance("orders_volume", "1998-06-30", "a sale", "ana", "2026-01-01T00:00:00+00:00")
PLAIN: dict[str, Any] = {"verdict": "passed", "expectations": 21, "failed": [], "report": "/home/evidence/r/a.json"}

WRITTEN: dict[str, dict[str, Any]] = {
    "orders_expectations": PLAIN,
    "target_leakage": {**PLAIN, "verdict": "failed", "failed": ["orders_90d alone ranks churn"]},
    "orders_volume": {**PLAIN, "failed": ["3 times the orders"], "accepted": vars(SALE)},
    "contract:analytics.customers": {**PLAIN, "contract": "1.2.0"},
    "schema_contract": {**PLAIN, "contracts": {"orders": "1.0.0", "customers": "1.0.0"}},
    "features_history": {
        **PLAIN,
        "change": "adds columns only",
        "told": "16 columns of 100 released rows came out the same",
        "new_columns": ["share_30d"],
        "lost_columns": [],
        "differing": {},
    },
    "features_knowable": {**PLAIN, "told": "on 1997-03-12", "days": ["1997-03-12"], "rows": 9, "only": 0},
    "model_signature": {**PLAIN, "report": None},
}
"""A verdict of each kind, as platforms before this type wrote it."""


@pytest.mark.parametrize("gate", WRITTEN)
def test_what_was_written_comes_back_the_same(gate: str) -> None:
    assert files.dumps(verdict.from_dict(gate, WRITTEN[gate]).as_dict()) == files.dumps(WRITTEN[gate])


def test_each_field_is_where_a_reader_looks() -> None:
    found = verdict.read(WRITTEN, "a ledger")
    assert found["orders_volume"].accepted == SALE
    assert (found["orders_volume"].passed, found["orders_volume"].failed) == (True, ("3 times the orders",))
    assert found["contract:analytics.customers"].extra == {"contract": "1.2.0"}
    assert verdict.failed(found.values()) == ["target_leakage"]
    assert verdict.as_dicts(found) == WRITTEN


def test_what_an_older_platform_did_not_write_is_empty() -> None:
    assert verdict.from_dict("orders", {"verdict": "failed"}) == Verdict("orders", passed=False)
    assert verdict.of_event({"stage": "ingest"}) == verdict.of_event({"gates": None}) == {}


FOREIGN = [
    ("fine", r"expected an object with a verdict, 'passed' or 'failed', found 'fine'"),
    ({"verdict": True}, r"expected an object with a verdict, 'passed' or 'failed', found \{'verdict': True\}"),
    ({**PLAIN, "expectations": "21"}, "expected a whole number of expectations, found '21'"),
    ({**PLAIN, "failed": "rows"}, r"expected a list of sentences in failed, found 'rows'"),
    ({**PLAIN, "failed": [3]}, r"expected a list of sentences in failed, found \[3\]"),
    ({**PLAIN, "report": 3}, "expected a path in report, found 3"),
    ({**PLAIN, "accepted": {"why": "a sale"}}, "expected in accepted the texts .* found {'why': 'a sale'}"),
]


@pytest.mark.parametrize(("found", "told"), FOREIGN)
def test_a_foreign_verdict_is_named_with_its_event(found: object, told: str) -> None:
    event = {"stage": "ge_check", "at": "2026-01-01T00:00:00", "gates": {"orders": found}}
    with pytest.raises(Unreadable, match=f"event of ge_check at 2026-01-01T00:00:00: gate orders: {told}"):
        verdict.of_event(event)


def test_gates_that_are_no_object_are_named() -> None:
    with pytest.raises(Unreadable, match=r"a file: expected gates by name, found \['orders'\]"):
        verdict.read(["orders"], "a file")


def test_a_ledger_s_foreign_verdict_is_told_and_the_other_events_are_read(home: Path) -> None:
    ledger.record("toy", {"stage": "ingest", "state": "COMPLETE"})
    ledger.record("toy", {"stage": "check", "state": "COMPLETE", "gates": {"orders": {}}})
    unreadable: list[str] = []
    assert [event["stage"] for event in ledger.events("toy", unreadable)] == ["ingest"]
    assert len(unreadable) == 1 and "-check-COMPLETE-" in unreadable[0] and "gate orders: expected" in unreadable[0]


def test_a_release_keeps_its_verdicts_and_a_foreign_one_is_unreadable(home: Path) -> None:
    day = date(1998, 6, 30)
    known = verdict.read(WRITTEN, "a ledger")
    made = releases.Release(1, "toy", day, None, {}, known, "code", "lock", "run", "now")
    releases.publish(made)
    path = home / "releases" / "toy" / "000001.json"
    assert (files.read_json(path) or {})["gates"] == WRITTEN
    assert releases.read("toy", 1) == made
    (home / "releases" / "old").mkdir()
    (home / "releases" / "old" / "000001.json").write_text(files.dumps({**made.as_dict(), "gates": {"orders": 1}}))
    with pytest.raises(Unreadable, match=r"000001.json: expected a release's manifest, .*: gate orders: expected"):
        releases.read("old", 1)


def test_evidence_lies_under_the_run_and_the_verdict_names_it(home: Path) -> None:
    audit = gates.Audit("churn-training-1", {"release_id": 1})
    found = gates.record(audit, Verdict("orders", passed=True, expectations=2), {"limits": 3})
    path = home / "evidence" / "churn-training-1" / "orders.json"
    assert found.report == str(path) and audit.gates == {"orders": found}
    assert files.read_json(path) == {"run_id": "churn-training-1", "release_id": 1, "limits": 3, **found.as_dict()}
    assert audit.told() == {"gates": {"orders": found.as_dict()}}


def test_gates_that_share_evidence_name_the_same_file(home: Path) -> None:
    audit = gates.Audit("run")
    gates.record_all(audit, [Verdict("one", passed=True), Verdict("two", passed=False)], {}, name="both")
    assert {one.report for one in audit.gates.values()} == {str(home / "evidence" / "run" / "both.json")}
    assert (files.read_json(home / "evidence" / "run" / "both.json") or {})["gates"] == audit.told()["gates"]


def test_a_gate_without_evidence_writes_no_file(home: Path) -> None:
    audit = gates.Audit("run")
    assert gates.record(audit, Verdict("model_signature", passed=True), None).report is None
    assert not (home / "evidence").exists()
