"""`plumb preview`: a changed model or feature on a sample, beside the release in force. Nothing is published.

A sample is whole histories of fewer customers, chosen by a hash of customer_id and a seed. What a preview makes lies
in `<home>/preview/` and in two schemas of Spark's catalog, `preview_staging` and `preview_analytics`.
"""

from __future__ import annotations

import difflib
from typing import Any

from feature_repo.churn.jobs import preview_sql
from plumb.reports.preview import page, readers
from plumb.reports.preview.result import Preview
from plumbline import clock, files
from plumbline.contracts import contract as contracts
from plumbline.errors import PlumblineError
from plumbline.lake import spark, table_diff
from plumbline.lake import tables as lake
from plumbline.lineage import expected
from plumbline.progress import say
from plumbline.settings import settings
from plumbline.state import releases
from plumbline.state.releases import Release
from products.churn import CHURN
from training.churn import preview_model
from transform import trial as dbt_trial

PRODUCT = CHURN.name
FEATURES = "features.customers"
TABLES = (*CHURN.marts, FEATURES)
BOOKKEEPING = ("created_at", "release_id")
OLD_ORDERS = (
    "Shown as if every order were built anew. A run builds only newly landed ones: a changed stg_orders, orders or "
    "orders_history reaches those, and there is no way yet to build old ones anew."
)
"""What a preview of a changed incremental mart must say: a run merges into it."""
SEED = 1997
BUCKETS = 1_000_000


class PreviewError(PlumblineError):
    """There is no such table, or what was asked for cannot be previewed."""


def changed() -> dict[str, bool | None]:
    """For each table, whether the working tree's code is another than the release's; None when nobody recorded it."""
    release = releases.required(PRODUCT)
    return {
        **dbt_trial.changed(CHURN, release),
        FEATURES: preview_sql.changed(release),
    }


def preview(table: str | None = None, share: float = 0.1, seed: int = SEED) -> list[Preview]:
    """Previews one table, or every one whose code changed since the release in force; none when nothing did.

    `share` of the customers, in (0, 1]. Raises PreviewError for an unknown table or a share that holds no customer.
    """
    if table is not None and table not in TABLES:
        close = difflib.get_close_matches(table, TABLES, 1, 0.5)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(TABLES)}"
        raise PreviewError(f"no table {table!r} to preview: {hint}")
    if not 0 < share <= 1:
        raise PreviewError(f"--sample {share}: expected a share of the customers, over 0 and up to 1")
    release = releases.required(PRODUCT)
    tables = [table] if table else [name for name, differs in changed().items() if differs]
    folder = settings().home / "preview" / PRODUCT
    with files.locked(folder / "preview.lock", wait=False, held="another preview of this home is at work"):
        return _all(release, tables, share, seed) if tables else []


def nothing_changed() -> str:
    """Why there is nothing to preview, and how to ask all the same."""
    unknown = [name for name, differs in changed().items() if differs is None]
    told = "the code of every table is what the release in force was built with"
    if unknown:
        told = f"nothing is known to have changed; what built {', '.join(unknown)} was not recorded with the release"
    return f"{told}. Name a table to preview it all the same: plumb preview {FEATURES}"


def _all(release: Release, tables: list[str], share: float, seed: int) -> list[Preview]:
    folder = settings().home / "preview" / PRODUCT
    begun = clock.monotonic()
    sample = f"pmod(xxhash64(customer_id, {seed}), {BUCKETS}) < {round(share * BUCKETS)}"
    session = spark.session()
    known = lake.at("analytics.customers", release.version("analytics.customers"))
    customers = int(session.sql(f"SELECT count(*) AS n FROM {known} WHERE {sample}").collect()[0]["n"])
    if not customers:
        raise PreviewError(f"--sample {share} holds none of the release's customers: sample more")
    about: dict[str, Any] = {
        "release_id": release.release_id,
        "as_of": str(release.as_of),
        "share": share,
        "customers": customers,
    }
    found = []
    marts = [name for name in tables if name in CHURN.marts]
    trial = dbt_trial.Trial({}, [], [], {})
    try:
        if marts:
            say(f"dbt build of {', '.join(marts)} from release {release.release_id}'s raw, {customers:,} customers")
            trial = dbt_trial.build(session, CHURN, release, marts, sample, folder)
        for name in marts:
            made = Preview(name, **about, tests=trial.tests, errors=trial.errors)
            if name in expected.incremental(CHURN) and dbt_trial.changed(CHURN, release)[name]:
                made.limits = OLD_ORDERS
            if name in trial.tables:
                _compare_mart(made, release, trial.tables[name], sample)
            made.readers = readers.of(name, trial.manifest)
            found.append(made)
        if FEATURES in tables:
            found.append(_features(release, sample, trial.tables, Preview(FEATURES, **about)))
    finally:
        if marts:
            dbt_trial.clear(session, folder)
    for made in found:
        made.seconds = clock.monotonic() - begun
        made.page = str(page.write(folder / made.table / "index.html", made))
    return found


def _compare_mart(made: Preview, release: Release, relation: str, sample: str) -> None:
    session = spark.session()
    released = session.sql(f"SELECT * FROM {lake.at(made.table, release.version(made.table))} WHERE {sample}")
    tried = session.sql(f"SELECT * FROM {relation}")
    types = tuple(
        {column.name: column.dataType.simpleString() for column in frame.schema} for frame in (released, tried)
    )
    _compare(made, released.toPandas(), tried.toPandas(), (types[0], types[1]))


def _compare(made: Preview, before: Any, after: Any, types: tuple[dict[str, str], dict[str, str]]) -> None:
    try:
        made.diff = table_diff.compare(
            _dated(before), _dated(after), list(contracts.load(made.table).key), types, BOOKKEEPING
        )
    except ValueError as error:
        made.errors = [*made.errors, f"{made.table}: {error}"]
    made.rows = after.tail(5).astype(str).to_dict("records")


def _dated(frame: Any) -> Any:
    """Dates of Spark come as Python objects: as timestamps they can be compared as numbers."""
    import pandas as pd

    days = [n for n in frame.columns if len(frame) and type(frame[n].dropna().iloc[:1].squeeze()).__name__ == "date"]
    return frame.assign(**{name: pd.to_datetime(frame[name]) for name in days})


def _features(release: Release, sample: str, built: dict[str, str], made: Preview) -> Preview:
    say(f"{FEATURES} on all snapshot days of release {release.release_id}, {made.customers:,} customers")
    made.readers = readers.of(FEATURES, {})
    try:
        tried = preview_sql.run(release, sample, built)
    except preview_sql.TrialError as error:
        made.errors = [str(error)]
        return made
    say(f"comparing {len(tried['after']):,} rows")
    _compare(made, tried["before"], tried["after"], tried["types"])
    if made.errors:
        return made
    say("training on the sample, with the released columns and with the changed ones")
    try:
        made.metrics = preview_model.difference(release, tried["before"], tried["after"])
    except PlumblineError as error:
        made.no_metrics = str(error)
    return made
