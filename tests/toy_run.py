"""The toy product's daily run for real: Delta tables, gates, a release. As a process it can be met in the middle.

`python -m tests.toy_run STAGE DAY [FOLDER]` runs one stage. With a folder it creates `FOLDER/ready` once it is at work,
and goes on when `FOLDER/go` is there. It prints what the stage said, or the error's type and message.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

from plumbline.errors import PlumblineError
from plumbline.lake import tables as lake
from plumbline.pipeline import gates, publish, stage
from plumbline.pipeline.stage import Result, StageRun
from plumbline.verdict import Verdict
from tests.toy import TOY

TABLE = "features.toys"


def ingest(run: StageRun) -> str:
    """Writes a version of the table with one row."""
    import pyarrow as pa
    from deltalake import write_deltalake

    write_deltalake(lake.uri(TABLE), pa.table({"toy_id": [1], "day": [str(run.as_of)]}), mode="overwrite")
    run.write(TABLE, int(lake.version(TABLE) or 0), 1)
    run.facts["batch_id"] = f"{run.as_of}..{run.as_of}"
    return "landed 1 toy"


def check(run: StageRun) -> str:
    """A gate that reads the version that this run wrote."""
    rows = lake.rows(TABLE, run.pin(TABLE))
    gates.record(run, Verdict("toys", passed=rows == 1, expectations=1), {"rows": rows})
    return f"{rows} toy keeps its contract"


WORK: dict[str, Callable[[StageRun], str]] = {"ingest": ingest, "check": check, "release": publish.publish}


def perform(name: str, day: date, before: Callable[[], None] = lambda: None) -> Result:
    """Runs one stage; `before` is called when it holds the lease and its work begins."""

    def work(run: StageRun) -> str:
        before()
        return WORK[name](run)

    return stage.perform(TOY, name, day, work)


def main(name: str, day: str, folder: str | None = None) -> int:
    """Runs one stage; its exit code is that of `plumb`."""

    def meet() -> None:
        if folder is not None:
            (Path(folder) / "ready").touch()
            while not (Path(folder) / "go").exists():
                time.sleep(0.02)

    try:
        result = perform(name, date.fromisoformat(day), meet)
    except PlumblineError as error:
        print(f"{type(error).__name__}: {error}")
        return error.exit_code
    print(f"{result.state}: {result.message}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
