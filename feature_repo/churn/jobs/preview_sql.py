"""A trial of customers.sql as the working tree has it: a sample of customers, every snapshot day, kept nowhere."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from feature_repo.churn.jobs import customers as job
from feature_repo.churn.jobs import history
from plumbline.errors import PlumblineError
from plumbline.lake import spark
from plumbline.lake import tables as lake
from plumbline.state.releases import Release

if TYPE_CHECKING:
    import pandas as pd

READS = tuple(job.READS.values())


class TrialError(PlumblineError):
    """customers.sql cannot be run: where, and why."""


def changed(release: Release) -> bool | None:
    """Whether customers.sql is another than the one that made the release's rows; None when it was not recorded."""
    before = history.recorded(release)
    return None if before is None else before != history.definition(job.SQL.read_text())


def run(release: Release, sample: str, built: dict[str, str]) -> dict[str, Any]:
    """The released rows of the sampled customers, and the same days by the working tree's SQL.

    `sample` is a SQL condition on customer_id; `built` names relations that stand in for released tables, such as a
    trial's marts. Gives `before`, `after` (frames), `types` (SQL types of both) and `errors`.
    """
    session = spark.session()
    relations = {table: built.get(table) or lake.at(table, release.version(table)) for table in READS}
    inputs = {
        name: session.sql(f"SELECT * FROM {relations[table]} WHERE {sample}") for name, table in job.READS.items()
    }
    released = session.sql(f"SELECT * FROM {lake.at(job.TABLE, release.version(job.TABLE))} WHERE {sample}")
    days = job.days_of(release.version(job.TABLE))
    try:
        computed = job.snapshots(session, inputs, None, None, days, release.release_id)
        after = _pandas(computed)
    except Exception as error:
        raise TrialError(_told(error)) from None
    types = tuple({field.name: field.dataType.simpleString() for field in f.schema} for f in (released, computed))
    return {"before": _pandas(released), "after": after, "types": types}


def _pandas(frame: Any) -> pd.DataFrame:
    found: pd.DataFrame = frame.toPandas()
    import pandas as pd

    return found.assign(**{name: pd.to_datetime(found[name]) for name in ("snapshot_date",) if name in found})


def _told(error: Exception) -> str:
    """Spark's message with the place in customers.sql that it points at: file, line, the line itself."""
    text = str(error)
    message = text.partition("JVM stacktrace:")[0].partition("== SQL")[0].partition(";\n")[0].strip()
    message = " ".join(message.split())[:600]
    place = re.search(r"line (\d+)(?:,? pos(?:ition)? (\d+))?", text)
    if place is None:
        return f"{job.SQL.relative_to(job.SQL.parents[3])}: {message}"
    line = int(place.group(1))
    lines = job.SQL.read_text().splitlines()
    shown = lines[line - 1].strip() if 0 < line <= len(lines) else ""
    return f"{job.SQL.relative_to(job.SQL.parents[3])}:{line}: {message}\n      {shown}"
