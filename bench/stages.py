"""(f) The demo, stage by stage: what a stage works, and what its process costs on top (start, imports)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import defaultdict
from datetime import date
from typing import Any

from bench import measured
from plumbline.settings import settings
from plumbline.state import ledger
from products.churn import CHURN

LAST = date(1998, 6, 30)
RUNS = {"churn-1998-06-29": "backfill", "churn-1998-06-30": "daily"}


def measure() -> dict[str, Any]:
    """Runs the demo in an empty home and leaves it there, with its servers, for the benchmarks that read it."""
    shutil.rmtree(measured.HOME / "demo", ignore_errors=True)
    measured.use(measured.HOME / "demo", LAST)
    whole = measured.took(_demo)
    worked = _worked()
    seconds = json.loads((settings().home / "report" / CHURN.name / "summary.json").read_text())["seconds"]
    stages = []
    for name, task in seconds.items():
        work = worked.get(name)
        if work is not None:
            stages.append(
                {"stage": name, "task_s": task, "work_s": round(work, 1), "start_up_s": round(task - work, 1)}
            )
    tasks, work = sum(s["task_s"] for s in stages), sum(s["work_s"] for s in stages)
    return {
        "stages": stages,
        "whole_s": round(whole, 1),
        "tasks_s": round(tasks, 1),
        "work_s": round(work, 1),
        "start_up_s": round(tasks - work, 1),
        "start_up_share": round((tasks - work) / tasks, 3),
        "airflow_s": seconds.get("airflow: its own share"),
    }


def _demo() -> None:
    subprocess.run([measured.PLUMB, "demo"], check=True, env=dict(os.environ), stdout=subprocess.DEVNULL)


def _worked() -> dict[str, float]:
    """Seconds inside each stage, by the ledger, under the names that the demo gives its tasks."""
    found: dict[str, float] = defaultdict(float)
    for event in ledger.events(CHURN.name):
        if event["state"] == "COMPLETE":
            found[f"{RUNS.get(event['run_id'], 'training')}: {event['stage']}"] += event["seconds"]
    return found
