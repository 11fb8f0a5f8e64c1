"""What a busy predictor's outcome log costs its readers: after 20,000 commits of one row, and after its compaction.

`python -m bench.outcome_log` writes the commits as the predictor does, with `plumb compact_log` behind each 2,000. It
prints one JSON object: files, and seconds of each reader, at the beginning and before and after the last compaction.
Some fifteen minutes on two cores.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.measured import took
from plumbline.lake import tables as lake
from plumbline.progress import say
from plumbline.settings import settings
from products.churn import CHURN
from serving import compaction
from serving.churn.log import TABLE, append

COMMITS, SHARE = int(os.environ.get("BENCH_COMMITS", "20000")), 2_000
FIRST = datetime(1998, 7, 1, tzinfo=UTC)

WHY = "from plumb.reports import why; rows = why._logged('customer_id', 7)"
ANSWERS = f"from validation import served_answers as s; rows = s._since('{TABLE}', lake.version('{TABLE}'), None, None)"
JUDGE = (
    "from datetime import datetime; from serving.judge.log import Tail; "
    f"rows = Tail('{TABLE}', ['customer_id', 'score'], 'logged_at', datetime.fromisoformat('{{since}}')).read()"
)
APPEND = "from serving.churn.log import append; rows = [append([{'request_id': 'x', 'customer_id': -1}])]"
TIMED = """
import json, os, time
from plumbline.lake import tables as lake
from products.churn import CHURN
{imports}
begun = time.perf_counter()
{read}
print(json.dumps([time.perf_counter() - begun, len(rows)]), flush=True)
os._exit(0)
"""


def main() -> None:
    """Prints the numbers."""
    with tempfile.TemporaryDirectory(prefix="outcome-log") as folder:
        os.environ |= {"PLUMBLINE_HOME": folder, "PLUMBLINE_NOW": "1998-07-09T00:00:00Z"}
        settings.cache_clear()
        found: dict[str, Any] = {"commits": COMMITS}
        _write(range(100))
        compaction.compact(CHURN)
        found["after 100 commits, compacted"] = _read(100)
        seconds, spent = 0.0, []
        for begun in range(100, COMMITS, SHARE):
            end = min(begun + SHARE, COMMITS)
            seconds += took(lambda begun=begun, end=end: _write(range(begun, end)))  # type: ignore[misc]
            if end == COMMITS:
                found[f"after {COMMITS:,}, before the last compaction"] = _read(COMMITS)
            spent.append(round(took(lambda: compaction.compact(CHURN)), 2))
            say(f"{end:,} commits, compacted in {spent[-1]} s")
        found[f"after {COMMITS:,}, compacted"] = _read(COMMITS)
        found |= {"seconds a commit": round(seconds / COMMITS, 4), "seconds of each compaction": spent}
        print(json.dumps(found, indent=1))


def _write(numbers: range) -> None:
    for number in numbers:
        at = FIRST + timedelta(seconds=4 * number)
        row = {"request_id": str(number), "at": at, "logged_at": at, "customer_id": number % 23_570, "release_id": 1}
        append([{**row, "features": "{}", "model_version": "1", "track": "stable", "score": 0.5}])


def _read(rows: int) -> dict[str, Any]:
    """Files, log entries and bytes; and seconds of each reader in a process of its own, imports left out."""
    root = Path(lake.uri(TABLE))
    log = root / "_delta_log"
    since = (FIRST + timedelta(seconds=4 * rows) - timedelta(minutes=10)).isoformat()
    return {
        "files of the newest version": len(lake.opened(TABLE).file_uris()),
        "files in its folder": sum(1 for _ in root.rglob("*.parquet")),
        "files of its log": sum(1 for _ in log.iterdir()),
        "plumb why": _seconds(WHY),
        "answers check": _seconds(ANSWERS),
        "a judge's start": _seconds(JUDGE.format(since=since)),
        "a predictor's first write": _seconds(APPEND),
    }


def _seconds(read: str) -> float:
    imports, _, work = read.rpartition("; ")
    script = TIMED.format(imports=imports, read=work)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    seconds, _ = json.loads(done.stdout.splitlines()[-1])
    return round(float(seconds), 3)


if __name__ == "__main__":
    main()
