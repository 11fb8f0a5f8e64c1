"""The judge over real Delta tables and HTTP: each row once, whatever the log does, and up when it is broken."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from plumbline import clock, metrics
from plumbline.lake import tables as lake
from plumbline.settings import ROOT, settings
from products.churn import CHURN
from serving.churn import log as outcome_log
from serving.churn import outcomes
from serving.judge import server as judge_server
from serving.judge.log import Log, Rewound, Tail
from serving.judge.server import Bench, now
from serving.judge.verdicts import Levels
from tests.serving.made_up_customers import eventually

TEMPLATE = ROOT / "k8s/churn/base/kpis.yaml"
SINCE = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = ["request_id", "revision"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("PLUMBLINE_HOME", str(tmp_path))
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()


def predictions(first: int, count: int, at: datetime = SINCE, revision: str | None = "new") -> list[dict[str, Any]]:
    track = "canary" if revision == "new" else "stable"
    head = {"at": at, "logged_at": at, "customer_id": 1, "score": 0.5, "track": track, "revision": revision}
    return [{"request_id": f"{revision}-{number}", **head} for number in range(first, first + count)]


def a_canary(requests: int = 400) -> None:
    """A log of now: a stable that converts, a canary that seldom does, one commit of each kind a hundred requests; then
    one more request, half a minute after the last outcome."""
    rng, at = random.Random(1997), clock.wall() - timedelta(minutes=10)  # noqa: S311
    for first in range(0, requests, 100):
        rows = [
            row
            for number in range(first, first + 100)
            for row in predictions(number, 1, at + timedelta(seconds=number), rng.choice(["new", "old", "old"]))
        ]
        outcome_log.append(rows)
        known = {"customer_id": 1, "contacted": False, "simulated": True}
        outcomes.append(
            [
                {"request_id": row["request_id"], **known, "ordered": sold, "called_support": rng.random() < 0.1}
                for row in rows
                for sold in [rng.random() < (0.5 if row["revision"] == "old" else 0.1)]
            ]
        )
    outcome_log.append(predictions(requests, 1, clock.wall() + timedelta(seconds=30), "old"))


def names(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(row["request_id"] for row in rows)


def test_each_row_is_read_once_compacted_or_not() -> None:
    tail = Tail(outcome_log.TABLE, COLUMNS, "logged_at", SINCE)
    assert tail.read() == []
    outcome_log.append(predictions(0, 3))
    assert names(tail.read()) == names(predictions(0, 3))
    assert tail.read() == []
    outcome_log.append(predictions(3, 2))
    DeltaTable(lake.uri(outcome_log.TABLE)).optimize.compact()
    outcome_log.append(predictions(5, 1, revision=None))
    assert tail.read() == [
        *({"request_id": f"new-{n}", "revision": "new"} for n in (3, 4)),
        {"request_id": "None-5", "revision": None},
    ]
    DeltaTable(lake.uri(outcome_log.TABLE)).optimize.compact()
    assert tail.read() == []


def test_the_first_read_begins_where_it_is_told() -> None:
    outcome_log.append(predictions(0, 2, at=SINCE - timedelta(days=1)))
    outcome_log.append(predictions(2, 2, at=SINCE + timedelta(hours=1)))
    assert names(Tail(outcome_log.TABLE, COLUMNS, "logged_at", SINCE).read()) == ["new-2", "new-3"]


def test_a_judge_that_starts_reads_from_the_first_canary_on() -> None:
    now = clock.wall()
    hours = {hour: now - timedelta(hours=hour) for hour in (8, 5, 3, 2)}
    outcome_log.append(predictions(8, 1, hours[8]))
    outcome_log.append(predictions(5, 1, hours[5], revision="old"))
    outcome_log.append([*predictions(3, 1, hours[3]), *predictions(3, 1, hours[3], revision="old")])
    outcome_log.append(predictions(2, 1, hours[2], revision="old"))
    assert Log(CHURN, now - timedelta(hours=1)).read()[0] == [], "no canary since: nothing to compare"
    log = Log(CHURN, now - judge_server.BACK)
    assert sorted(row.request_id for row in log.read()[0]) == ["new-3", "old-2", "old-3"]
    outcome_log.append(predictions(0, 1, clock.wall(), revision="old"))
    assert [row.request_id for row in log.read()[0]] == ["old-0"]


def test_a_log_from_before_revisions_has_no_canaries() -> None:
    import pyarrow as pa
    from deltalake import write_deltalake

    before = pa.schema([field for field in outcome_log.schema() if field.name != "revision"])
    rows = [{k: v for k, v in row.items() if k != "revision"} for row in predictions(0, 2)]
    write_deltalake(lake.uri(outcome_log.TABLE), pa.Table.from_pylist(rows, schema=before))
    log = Log(CHURN, SINCE)
    assert log.read() == ([], [])
    outcome_log.append(predictions(2, 2) + predictions(4, 1, revision=None))
    assert [row.request_id for row in log.read()[0]] == ["new-2", "new-3"]


def test_a_table_that_was_made_anew_is_another_log() -> None:
    tail = Tail(outcome_log.TABLE, COLUMNS, "logged_at", SINCE)
    for number in range(3):
        outcome_log.append(predictions(number, 1))
    tail.read()
    moved = Path(lake.uri(outcome_log.TABLE))
    moved.rename(moved.with_name("gone"))
    with pytest.raises(Rewound, match=r"serving.predictions is at version None, it was at 2"):
        tail.read()


def test_outcomes_are_kept_while_predictions_cannot_be_read() -> None:
    a_canary(100)
    log, folder = Log(CHURN, clock.wall() - timedelta(hours=1)), Path(lake.uri(outcome_log.TABLE))
    data = next(folder.glob("*.parquet"))
    whole = data.read_bytes()
    data.write_bytes(b"PAR1 no more")
    for _ in range(2):
        with pytest.raises(Exception, match=r"(?i)parquet"):
            log.read()
    data.write_bytes(whole)
    answers, known = log.read()
    assert (len(answers), len(known)) == (101, 100)
    assert log.read() == ([], [])


def test_verdicts_are_withheld_once_the_log_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a_canary()
    bench = Bench(CHURN, Levels(alpha=0.05, effect=0.1))
    assert bench.look() and bench.samples()["canary_kpi_p_value"]["conversion_rate", "new", "old"] < 0.025
    at = clock.monotonic()
    log = Path(lake.uri(outcome_log.TABLE)) / "_delta_log" / f"{5:020}.json"
    log.write_text("{no json\n")
    assert not bench.look() and not bench.look()
    assert bench.samples()["canary_kpi_p_value"], "one look that fails is no reason yet"
    monkeypatch.setattr(clock, "monotonic", lambda: at + judge_server.BLIND + 1)
    assert bench.samples() == {"judge_failures_total": {(): 2.0}}
    log.unlink()
    assert bench.look() and bench.samples()["canary_kpi_p_value"]
    told = capsys.readouterr().err
    assert told.count("cannot be read, verdicts are withheld") == 1 and told.count("can be read again") == 1


def test_one_look_gives_the_verdicts_as_they_are() -> None:
    assert now(CHURN, TEMPLATE) == []
    a_canary()
    conversion, calls = now(CHURN, TEMPLATE)
    assert (conversion["kpi"], conversion["canary"], conversion["stable"]) == ("conversion_rate", "new", "old")
    assert conversion["p_value"] < 0.025 < 0.1 < calls["p_value"]
    assert conversion["difference_lower"] < conversion["difference"] < conversion["difference_upper"] < 0
    assert 380 < conversion["canary_requests"] + conversion["stable_requests"] <= 400
    assert conversion["score_psi"] < 0.01


def test_the_command_serves_what_the_schema_names_and_survives_a_missing_log(home: Path) -> None:
    command = [sys.executable, "-m", "plumb", "judge", "--port", "0", "--every", "0.2"]
    environment = {**os.environ, "PLUMBLINE_HOME": str(home)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = process.stderr.readline().split("; ")[1].strip()

            def page() -> str:
                with urllib.request.urlopen(address, timeout=5) as answer:  # noqa: S310
                    return str(answer.read().decode())

            assert "judge_failures_total 0.0" in page() and "canary_kpi_p_value{" not in page()
            a_canary(200)
            shown = eventually(lambda: page() if "canary_kpi_p_value{" in page() else "")
            typed = {line.split()[2]: line.split()[3] for line in shown.splitlines() if line.startswith("# TYPE")}
            ours = {name: kind for name, kind in typed.items() if not name.startswith("process_")}
            assert ours == {metric.name: metric.kind for metric in metrics.JUDGE}
            assert 'canary_kpi_p_value{canary="new",kpi="conversion_rate",stable="old"}' in shown
            assert 'canary_kpi_observations{kpi="call_center_load",revision="new"}' in shown
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) == 143
            assert "Traceback" not in (process.stderr.read() if process.stderr else "")


@pytest.mark.parametrize("template", ["spec: {}", None])
def test_a_template_that_says_nothing_is_an_error_with_its_name(home: Path, template: str | None) -> None:
    file = home / "template.yaml"
    if template is not None:
        file.write_text(template)
    command = [sys.executable, "-m", "plumb", "judge", "--template", str(file), "--once", "--json"]
    environment = {**os.environ, "PLUMBLINE_HOME": str(home)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith(f"plumb: {file}: ")
    command[command.index("--template") + 1] = str(TEMPLATE)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout) == {"verdicts": []}
