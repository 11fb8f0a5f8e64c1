"""dbt on Spark: staging views and marts, built in this process from the raw versions that a run pinned.

The pins reach dbt's macros as PLUMB_… variables (dbt/macros/pinned.sql). Everything dbt writes goes to `<home>/dbt`.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline import causes, files, observed
from plumbline.errors import GateFailed, PlumblineError
from plumbline.lake import repeatable
from plumbline.lake import tables as lake
from plumbline.lake.spark import session
from plumbline.lineage import column_lineage, expected
from plumbline.observed import Assertion
from plumbline.pipeline import contract_gate, gates
from plumbline.pipeline.stage import StageRun
from plumbline.product import Product
from plumbline.progress import say
from plumbline.settings import ROOT, settings
from plumbline.state import candidates, releases
from plumbline.verdict import Verdict
from transform import landed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbt.cli.main import dbtRunnerResult
    from pyspark.sql import SparkSession

PROJECT = ROOT / "dbt"
PACKAGES = {"dbt_utils"}
GATE = "dbt_tests"
REPEATABLE = "models_repeatable"
SAMPLES, SHOWN = 3, 5
"""Of a failed test: how many rows a message shows, and how many columns of each."""


class TransformError(PlumblineError):
    """dbt could not run, or a model could not be built."""


def build(run: StageRun) -> str:
    """Builds staging and marts on top of the base release and runs the tests beside the models.

    Raises GateFailed when a dbt test fails or a mart is not what its contract promises,
    TransformError when a model fails, ServiceUnavailable without Spark.
    """
    marts, merged = run.product.marts, expected.incremental(run.product)
    pins = {table: run.pin(table) for table in run.product.raw}
    without = run.candidate.rejected
    spark = session(writer="dbt_run")
    full = len(run.released(*merged)) < len(merged)
    say(
        f"dbt build of {', '.join(marts)}"
        + (" from all of raw" if full else f" on top of release {run.candidate.base}")
    )
    _prepare(run, spark)
    before = {} if full else run.released(*run.product.raw)
    heads = {table: lake.version(table) for table in marts}
    arguments = ["build", "--exclude-resource-type", "unit_test", *(["--full-refresh"] if full else [])]
    with variables(_pins(pins, before, without)):
        result = invoke([*arguments, "--log-level", "none"])
    nodes = _nodes(result)
    run.facts["dbt"] = nodes
    _tell_lineage(result, marts)
    _raise_if_broken(result)
    _judge_models(run, result)
    _judge_tests(run, result)
    for table in marts:
        version = lake.version(table)
        if version is None:
            raise TransformError(f"dbt reported success, but there is no {table} at {lake.uri(table)}")
        contract_gate.audit(run, table, version)
        run.write(table, version, _rows_written(table, heads[table]))
    tests = sum(node["kind"] == "test" for node in nodes)
    return f"{len(nodes) - tests} models built, {tests} tests passed"


def _tell_lineage(result: dbtRunnerResult, marts: Sequence[str]) -> None:
    """What dbt's manifest and results say: the SQL of each mart and of the views behind it, and each test's verdict."""
    compiled = {table: model.sql for table, model in column_lineage.models().items()}
    views = {table: sql for table, sql in compiled.items() if table not in marts}
    for table in marts:
        if table in compiled:
            observed.made_by(table, compiled[table], views)
    for item in results(result):
        tested = str(getattr(item.node, "attached_node", None) or "").rpartition(".")[2]
        if str(item.node.resource_type) == "test" and f"analytics.{tested}" in marts:
            rows = f"{item.failures:,} rows" if item.failures else None
            passed = str(item.status) == "pass"
            name = item.node.name.removesuffix(f"_{item.node.column_name}")
            observed.asserted(f"analytics.{tested}", Assertion(name, passed, item.node.column_name, actual=rows))


def _prepare(run: StageRun, spark: SparkSession) -> None:
    """Catalog and mart as the base release has them."""
    lake.register(spark, run.product.marts)
    # Only what is built on: other marts are made anew each time, and a RESTORE takes seconds.
    for table in lake.restore(spark, run.released(*expected.incremental(run.product))):
        say(f"{table} had moved on without a release: brought back to release {run.candidate.base}")


def run_dbt(product: Product, args: list[str]) -> None:
    """`plumb dbt …`: any dbt command, on the raw versions of the release in force, or the newest before the first.

    Prints what dbt prints. Raises TransformError when dbt's own exit code would not be 0.
    """
    if not args:
        raise TransformError("which dbt command? As in: plumb dbt docs generate, plumb dbt test --select orders")
    if args[:2] == ["docs", "generate"] and "--static" not in args:
        args = [*args, "--static"]
    release = releases.in_force(product.name)
    heads = {table: lake.version(table) for table in product.raw}
    pins = {t: head for t, head in heads.items() if head is not None} | {
        t: v for t, v in (release.tables if release else {}).items() if t in product.raw
    }
    needs_spark = args[0] not in {"clean", "debug", "deps", "list", "ls", "parse"} and not {"-h", "--help"} & set(args)
    if needs_spark:
        lake.register(session(), [table for table in (*product.raw, *product.marts) if heads.get(table, 0) is not None])
    with variables(_pins(pins, pins, release.rejected if release else candidates.rejected(product.name))):
        if needs_spark and args[0] not in {"build", "run"}:  # a new Spark server has no views yet
            invoke(["run", "--select", "staging", "--log-level", "none"])
        result = invoke(args)
    if not result.success:
        raise TransformError(
            f"dbt {' '.join(args)} failed: {_told(result) or 'see what dbt printed'}\n  dbt's log: {_log()}"
        )
    if args[:2] == ["docs", "generate"]:
        print(f"docs: {_target() / 'static_index.html'}")


def _pins(pins: Mapping[str, int], before: Mapping[str, int], without: list[str]) -> dict[str, str]:
    return {
        "PLUMB_PINS": json.dumps({table: landed.at(table, version, without) for table, version in pins.items()}),
        "PLUMB_BASE_PINS": json.dumps({table: lake.at(table, version) for table, version in before.items()}),
        "PLUMB_MERGE_ONLY": _merge_only(before, pins) if before else "true",
        "PLUMB_DELETIONS": json.dumps([table.partition(".")[2] for table in before if _deletes(table, pins[table])]),
    }


def _deletes(table: str, pinned: int) -> bool:
    """Whether a raw table holds deletions at all, by the statistics of its files. Most days none of them does."""
    return lake.nulls(table, pinned, ["deleted_at"])["deleted_at"] < lake.rows(table, pinned)


def _merge_only(before: Mapping[str, int], pins: Mapping[str, int]) -> str:
    """A bound on the keys that a MERGE can touch, from the Delta log's statistics, so that it skips the target's other
    files. It bounds by key because that is always right: a second landing may carry another date.
    """
    old, new = (
        lake.open_table("raw.orders", pinned["raw.orders"]).get_add_actions(flatten=True) for pinned in (before, pins)
    )
    known = set(_column(old, "path"))
    lows, highs = (_column(new, f"{end}.order_id") for end in ("min", "max"))
    added = [i for i, path in enumerate(_column(new, "path")) if path not in known]
    if not added:
        return "false"
    if any(bound[i] is None for bound in (lows, highs) for i in added):
        return "true"
    low, high = min(lows[i] for i in added), max(highs[i] for i in added)
    return f"DBT_INTERNAL_DEST.order_id between {low} and {high}"


def _column(actions: Any, name: str) -> list[Any]:
    import pyarrow as pa

    table = pa.table(actions)
    return list(table[name].to_pylist()) if name in table.column_names else [None] * table.num_rows


def _rows_written(table: str, head: int | None) -> int:
    """How many rows the commits behind `head` wrote: inserted, updated and deleted ones of MERGEs, all of a new table.

    A RESTORE writes none: it brings back what was there.
    """
    delta, written = lake.open_table(table), 0
    commits = delta.version() - (-1 if head is None else head)
    for commit in delta.history(commits) if commits else []:
        metrics: dict[str, str] = commit.get("operationMetrics", {})
        if commit["operation"] == "MERGE":
            written += sum(int(metrics.get(f"numTargetRows{what}", 0)) for what in ("Inserted", "Updated", "Deleted"))
        elif commit["operation"] != "RESTORE":
            written += int(metrics.get("numOutputRows", 0))
    return written


def invoke(args: list[str], folder: Path | None = None, lake_uri: str | None = None) -> dbtRunnerResult:
    """One dbt command in this process. dbt and its adapters find the session that is active here.

    Its files go to `folder` (`<home>/dbt`), its tables into the lake at `lake_uri` (the home's).
    """
    from dbt.cli.main import dbtRunner

    home = folder or settings().home / "dbt"
    home.mkdir(parents=True, exist_ok=True)
    static = {
        "DBT_PROJECT_DIR": str(PROJECT),
        "DBT_PROFILES_DIR": str(PROJECT),
        "DBT_TARGET_PATH": str(home / "target"),
        "DBT_LOG_PATH": str(home / "logs"),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DBT_CACHE_SELECTED_ONLY": "true",
        "DBT_LOG_LEVEL_FILE": "info",
        "PLUMB_LAKE": lake_uri or settings().lake_uri,
        "PLUMB_DBT_PACKAGES": "offline_packages" if settings().dbt_utils == "offline" else str(home / "packages"),
    }
    # dbt-spark asks for Hive support each time; a running server rightly refuses, and its catalog is what we want.
    warnings.filterwarnings("ignore", message="Failed to set spark.sql.catalogImplementation")
    with variables(static):
        if settings().dbt_utils == "hub" and args[0] != "deps" and PACKAGES - _installed():
            say("dbt deps: fetching dbt_utils from the dbt hub")
            fetched = dbtRunner().invoke(["deps", "--log-level", "none"])
            if not fetched.success:
                raise TransformError(
                    f"dbt deps could not fetch dbt_utils from the dbt hub ({_told(fetched)}). "
                    "Without the hub, set PLUMBLINE_DBT_UTILS=offline: it uses the macros in dbt/offline_packages."
                )
        return dbtRunner().invoke(args)


def _installed() -> set[str]:
    return {path.parent.name for path in (settings().home / "dbt" / "packages").glob("*/dbt_project.yml")}


def _nodes(result: dbtRunnerResult) -> list[dict[str, Any]]:
    """dbt's results, a dict each: node, kind, status, seconds and the failing rows of a test."""
    return [
        {
            "node": item.node.unique_id,
            "kind": str(item.node.resource_type),
            "status": str(item.status),
            "seconds": round(item.execution_time, 2),
            **({"sql": digest(item.node.original_file_path)} if str(item.node.resource_type) == "model" else {}),
            **({"failures": item.failures} if item.failures is not None else {}),
        }
        for item in results(result)
    ]


def digest(model: str) -> str:
    """SHA-256 of a model's file, `models/marts/orders.sql`, as it is in the working tree."""
    return files.sha256((PROJECT / model).read_bytes())


def _raise_if_broken(result: dbtRunnerResult) -> None:
    items = results(result)
    errors = [item for item in items if str(item.status) == "error"]
    if errors or (not result.success and not items):
        known = causes.said("\n".join([*(str(item.message) for item in errors), str(result.exception)]))
        raise known or TransformError("\n  ".join([_told(result) or "dbt failed", f"dbt's log: {_log()}"]))


def _judge_models(run: StageRun, result: dbtRunnerResult) -> None:
    """The gate `models_repeatable`: what dbt ran, macros and all, gives the same rows whenever it is run."""
    models = [item.node for item in results(result) if str(item.node.resource_type) == "model"]
    lines = [
        f"{PROJECT.name}/{node.original_file_path} reads {', '.join(reads)}"
        for node in models
        if (reads := [*repeatable.depends_on(node.compiled_code or ""), *_of_the_run(node)])
    ]
    gates.record(run, Verdict(REPEATABLE, not lines, len(models), tuple(lines)), {})
    if lines:
        raise GateFailed(
            "\n  ".join(["a model says something else each time it is built, nothing is published:", *lines])
            + "\n  Use what the rows themselves say (known_at, order_date); rows taken by their order need one. "
            f"Then run `plumb dbt_run --as-of {run.as_of}` again.",
            sets_aside=False,
        )


def _of_the_run(node: Any) -> list[str]:
    """What a model's template, or a macro of this project that it calls, reads of the run that compiles it."""
    macros = (files.read_json(_target() / "manifest.json") or {}).get("macros", {})
    called = [macros[name] for name in node.depends_on.macros if name in macros]
    texts = [node.raw_code or "", *(each["macro_sql"] for each in called if each["package_name"] != "dbt_spark")]
    return list(dict.fromkeys(phrase for text in texts for phrase in repeatable.templated(text)))


def _judge_tests(run: StageRun, result: dbtRunnerResult) -> None:
    """The gate `dbt_tests`: the tests beside the models. Raises GateFailed that names each that found rows."""
    tests = [item for item in results(result) if str(item.node.resource_type) == "test"]
    lines = [
        f"{item.node.name}: {item.failures:,} rows of {_tested(item.node)} fail{_samples(item.node)}; "
        f"the query that finds them: {PROJECT.parent / item.node.compiled_path}"
        for item in tests
        if str(item.status) == "fail"
    ]
    gates.record(run, Verdict(GATE, not lines, len(tests), tuple(lines)), {"nodes": run.facts["dbt"]})
    if lines:
        raise GateFailed(
            f"{len(lines)} dbt tests failed, nothing is published:\n  "
            + "\n  ".join(lines)
            + "\n  What was landed is set aside: mend the data at its source, or the model, "
            "and start over with `plumb ingest`."
        )


def _tested(node: Any) -> str:
    tested = str(node.attached_node or node.name).rpartition(".")[2]
    return f"{tested}.{node.column_name}" if node.column_name else tested


def _samples(node: Any) -> str:
    """A few of the rows that a failed test found, with as much of each as the test selects."""
    found = session().sql(f"SELECT * FROM ({node.compiled_code}) LIMIT {SAMPLES}").collect()
    rows = [", ".join(f"{k} {v}" for k, v in list(row.asDict().items())[:SHOWN]) for row in found]
    return f", such as {'; '.join(rows)}" if rows else ""


def _told(result: dbtRunnerResult) -> str:
    """What dbt says went wrong: a line for each node that failed, else its exception."""
    lines = [
        f"{item.node.name}: {short(str(item.message))}"
        for item in results(result)
        if str(item.status) in {"error", "fail", "runtime error"}
    ]
    return "\n  ".join(lines) or (short(str(result.exception)) if result.exception else "")


def short(message: str) -> str:
    """Spark's error without the query it repeats and the JVM's stack, both of which are in dbt's log."""
    head = message.partition("JVM stacktrace:")[0].partition("== SQL")[0].partition("SQLSTATE")[0]
    return " ".join(line.strip() for line in head.splitlines() if line.strip())


def results(result: dbtRunnerResult) -> list[Any]:
    """What dbt says of each model and test that it ran."""
    found = getattr(result.result, "results", None)
    return [item for item in found if hasattr(item, "status")] if isinstance(found, Iterable) else []


def _target() -> Path:
    return settings().home / "dbt" / "target"


def _log() -> str:
    return str(settings().home / "dbt" / "logs" / "dbt.log")


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Sets variables of this process for the time of a dbt command."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
