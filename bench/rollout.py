"""(g) A promotion and an abort under steady load: requests that failed, p99 before, during and after.

The load is simulated and steady: an open loop that asks at its pace whatever the last answer took, from the same two
cores that run Envoy, both predictors, Prometheus and the judge.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from bench import measured
from plumb.demo.simulated_churn import Callers
from plumb.demo.simulated_traffic import Answer, Traffic
from plumb.demo.simulation import known_customers
from plumbline import clock, files
from plumbline.settings import ROOT
from products.churn import CHURN

if TYPE_CHECKING:
    from serving.rollout.driver import Driver

PER_SECOND = 100.0
QUIET_SECONDS = 20.0
"""Before the canary's process is started, and after the rollout ended."""

PAGE = ROOT / "docs" / "rollout.md"
BEGIN, END = "<!-- measured by `make bench ONLY=rollout` -->", "<!-- end of what was measured -->"
ROLLED_OUT = {"retrained": "promotion", "swapped": "abort"}


def measure() -> dict[str, Any]:
    """A good and a bad model rolled out in the demo's home; rows of each phase."""
    manifest = sorted((measured.HOME / "demo" / "releases" / "churn").glob("*.json"))[-1]
    last = datetime.fromisoformat(json.loads(manifest.read_text())["as_of"]).date()
    with measured.home("demo", last):
        measured.plumb("materialize")
        customers = len(known_customers())
        rollouts = [_rolled_out(kind) for kind in ROLLED_OUT]
    found = {"per_second": PER_SECOND, "customers": customers, "rollouts": rollouts}
    _write(found)
    return found


def _rolled_out(kind: str) -> dict[str, Any]:
    from serving.rollout.driver import Aborted, Driver, paced
    from serving.rollout.laptop import Laptop
    from training import variants

    version = variants.register(CHURN, kind)["version"]
    laptop = Laptop.of(CHURN)
    where = laptop.up()[CHURN.host]
    driver = Driver(laptop, paced(PER_SECOND), traffic="simulated")
    with Traffic(where, PER_SECOND, Callers()) as traffic:
        time.sleep(QUIET_SECONDS)
        begun = clock.monotonic()
        with suppress(Aborted):
            driver.run(version)
        ended = clock.monotonic()
        time.sleep(QUIET_SECONDS)
    stepping = begun + _until_first_weight(driver)
    spans = {
        "before": (begun - QUIET_SECONDS + 2, begun),  # the connections of the first two seconds are new
        "the canary starts": (begun, stepping),
        "its steps": (stepping, ended),
        "after": (ended, clock.monotonic()),
    }
    return {
        "kind": ROLLED_OUT[kind],
        "model": kind,
        "phase": driver.status.phase,
        "weights": [item["canary"] for item in driver.status.weights],
        "exposed": driver.status.exposed,
        "verdict": driver.status.message,
        "rows": [{"span": name, **_row(traffic.between(*span))} for name, span in spans.items()],
        "failed": sum(answer.status != 200 for answer in traffic.answers),
        "requests": len(traffic.answers),
    }


def _row(answers: Sequence[Answer]) -> dict[str, Any]:
    failed = sum(answer.status != 200 for answer in answers)
    return {**measured.percentiles([answer.ms / 1000 for answer in answers]), "failed": failed}


def _until_first_weight(driver: Driver) -> float:
    """Seconds from the rollout's begin to its first weight."""
    times = [datetime.fromisoformat(at) for at in (driver.status.begun_at, driver.status.weights[0]["at"])]
    return (times[1] - times[0]).total_seconds()


def _write(found: dict[str, Any]) -> None:
    """Puts the table between the page's two marks."""
    head, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, tail = rest.partition(END)
    files.write_whole(PAGE, head + BEGIN + "\n" + _table(found) + END + tail)


def _table(found: dict[str, Any]) -> str:
    machine = measured.machine()
    lines = [
        f"{found['per_second']:g} simulated requests a second for {found['customers']:,} customers, "
        f"on {machine['cores']} cores ({machine['processor']}) that run everything, {machine['measured_on']}:",
        "",
        "| rollout | span | requests | failed | p50 ms | p99 ms |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for rollout in found["rollouts"]:
        for row in rollout["rows"]:
            lines.append(
                f"| {rollout['kind']} | {row['span']} | {row['n']:,} | {row['failed']} "
                f"| {row['p50_ms']:.1f} | {row['p99_ms']:.1f} |"
            )
    lines.append("")
    for rollout in found["rollouts"]:
        weights = " → ".join(map(str, rollout["weights"]))
        lines.append(
            f"- {rollout['kind']} ({rollout['model']}): weights {weights}; the canary saw {rollout['exposed']:,} of "
            f"{rollout['requests']:,} requests; {rollout['failed']} failed; {rollout['verdict']}"
        )
    return "\n".join(lines) + "\n"
