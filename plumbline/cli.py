"""`plumb`: one command a stage, the same in a shell, in an Airflow task and in a pod."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from plumbline.errors import EXIT_CODES, PlumblineError, ServiceUnavailable

if TYPE_CHECKING:
    from plumbline.stage import Result

app = typer.Typer(
    help="Plumbline: training and serving read the same tested truth.",
    epilog="Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + ".",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
shop = typer.Typer(help="The shop database that orders come from.", no_args_is_help=True)
release_app = typer.Typer(help="What is in force, and what was.", no_args_is_help=True)
features_app = typer.Typer(invoke_without_command=True)
app.add_typer(features_app, name="features", rich_help_panel="The daily run, stage by stage")
app.add_typer(shop, name="shop", rich_help_panel="Data")
app.add_typer(release_app, name="releases", rich_help_panel="Data")

AsOf = Annotated[
    datetime | None,
    typer.Option(
        "--as-of",
        formats=["%Y-%m-%d"],
        metavar="DATE",
        help="The last day covered, YYYY-MM-DD; default: the last day that is over.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
ReleaseId = Annotated[int | None, typer.Option("--release", help="A release's number; default: the one in force.")]


def main() -> None:
    """Runs the command line; an error of ours becomes one message and its exit code."""
    try:
        app()
    except PlumblineError as error:
        _fail(error)
    except Exception as error:
        from plumbline import causes

        if known := causes.explained(error):
            _fail(known)
        if told := _of_spark(error) or _of_mlflow(error):
            _fail(told)
        raise
    except KeyboardInterrupt:
        print("plumb: interrupted; run the same command again to go on", file=sys.stderr)
        sys.exit(130)


def _fail(error: PlumblineError) -> NoReturn:
    print(f"plumb: {error}", file=sys.stderr)
    sys.exit(error.exit_code)


def _of_spark(error: Exception) -> PlumblineError | None:
    """The first line of an error that Spark raised, None for any other: its plans and traces fill screens."""
    errors = sys.modules.get("pyspark.errors.exceptions.base")
    if errors is None or not isinstance(error, errors.PySparkException):
        return None
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return PlumblineError(f"Spark: {first[:600]}")


def _of_mlflow(error: Exception) -> PlumblineError | None:
    """The first line of an error that MLflow raised, without the login that its server's URL may hold."""
    errors = sys.modules.get("mlflow.exceptions")
    if errors is None or not isinstance(error, errors.MlflowException):
        return None
    told = "MLflow: " + re.sub(r"://[^@/]*@", "://***@", str(error).partition("\n")[0])[:600]
    return ServiceUnavailable(told) if "API request" in told else PlumblineError(told)


def _room(path: str) -> Callable[..., Any]:
    """A room's function, imported when its command runs: rooms are heavy, and the spine does not depend on them."""
    module, _, name = path.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def _day(as_of: datetime | None) -> date:
    from plumbline import clock

    return as_of.date() if as_of else clock.last_whole_day()


def _stage(product: str, name: str, room: str, as_of: datetime | None, as_json: bool) -> None:
    from plumbline import stage

    _tell(stage.perform(product, name, _day(as_of), _room(room)), as_json)


def _tell(result: Result, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(result), default=str))
        return
    print(f"{result.stage} {result.as_of}: {result.state} ({result.seconds:.1f} s) {result.message}")
    for table, rows in result.rows.items():
        pinned = f" @v{result.tables[table]}" if table in result.tables else ""
        print(f"    {table}{pinned}: {rows:,} rows")


def _print(value: object, as_json: bool) -> None:
    if as_json:
        print(json.dumps(value, default=str))
    elif isinstance(value, dict):
        for name, item in value.items():
            print(f"{name}: {item}")
    else:
        print(value)


# --- the daily run -----------------------------------------------------------------------------------------------


@app.command(rich_help_panel="The daily run, stage by stage")
def ingest(as_of: AsOf = None, json: Json = False) -> None:
    """Land what the shop recorded since the last run, up to the end of a day.

    Example: plumb ingest --as-of 1998-06-30
    """
    _stage("churn", "ingest", "ingestion.landing:land", as_of, json)


@app.command("dbt_run", rich_help_panel="The daily run, stage by stage")
def dbt_run(as_of: AsOf = None, json: Json = False) -> None:
    """Build staging views and marts with dbt on Spark, and run the tests beside the models.

    Example: plumb dbt_run --as-of 1998-06-30
    """
    _stage("churn", "dbt_run", "plumbline.transform:build", as_of, json)


@app.command("ge_check", rich_help_panel="The daily run, stage by stage")
def ge_check(as_of: AsOf = None, json: Json = False) -> None:
    """Gate: Great Expectations over analytics.orders. Exit code 3 stops the line.

    Example: plumb ge_check --as-of 1998-06-30
    """
    _stage("churn", "ge_check", "validation.orders:check", as_of, json)


@features_app.callback()
def features(context: typer.Context, as_of: AsOf = None, json: Json = False) -> None:
    """Compute customer snapshots for a day, and weekly ones for the days before it that have none; or look at features.

    When customers.sql changed, all snapshots are computed anew, as a new version beside the released one.

    Example: plumb features --as-of 1998-06-30
    """
    if context.invoked_subcommand is None:
        _stage("churn", "features", "feature_repo.jobs.customers:compute", as_of, json)


@features_app.command("list")
def features_list(json: Json = False) -> None:
    """Every feature: type, services, missing share and age at the release in force.

    Example: plumb features list
    """
    found = _room("feature_repo.catalog:listed")()
    _print(found, True) if json else _room("feature_repo.catalog_text:show_list")(found)


@features_app.command("show")
def features_show(name: Annotated[str, typer.Argument()], json: Json = False) -> None:
    """One feature: its definition, who uses it, its SQL, and its lineage back to raw columns with file and line.

    Example: plumb features show avg_ticket_30d
    """
    found = _room("feature_repo.catalog:shown")(name)
    _print(found, True) if json else _room("feature_repo.catalog_text:show_one")(found)


@features_app.command("history")
def features_history(
    name: Annotated[str, typer.Argument()],
    customer: Annotated[int | None, typer.Option(help="This customer's values by snapshot instead.")] = None,
    last: Annotated[int, typer.Option(help="How many releases back.")] = 10,
    json: Json = False,
) -> None:
    """A feature over the releases (rows, missing, mean, quantiles, PSI), and the commits that changed its SQL.

    Example: plumb features history orders_90d --customer 1
    """
    if customer is not None:
        rows = _room("feature_repo.catalog:of_customer")(name, customer)
        _print(rows, True) if json else _room("feature_repo.catalog_text:show_customer")(name, customer, rows)
        return
    found = _room("feature_repo.catalog:history")(name, last)
    _print(found, True) if json else _room("feature_repo.catalog_text:show_history")(found)


@app.command(rich_help_panel="The daily run, stage by stage")
def release(as_of: AsOf = None, json: Json = False) -> None:
    """Publish what the run wrote and the gates passed, as one numbered release.

    Example: plumb release --as-of 1998-06-30
    """
    _stage("churn", "release", "plumbline.publish:publish", as_of, json)


@app.command(rich_help_panel="The daily run, stage by stage")
def materialize(release: ReleaseId = None, json: Json = False) -> None:
    """Bring a release's features into Redis through Feast.

    Example: plumb materialize
    """
    _print(_room("feature_repo.materialize:materialize")(release), json)


# --- the model ---------------------------------------------------------------------------------------------------


@app.command(rich_help_panel="The model")
def dataset(release: ReleaseId = None, json: Json = False) -> None:
    """Build the training dataset of a release, point in time, through Feast.

    Example: plumb dataset --release 2
    """
    _print(_room("training.dataset:build")(release), json)


@app.command(rich_help_panel="The model")
def train(release: ReleaseId = None, json: Json = False) -> None:
    """Train and evaluate the churn model beside its baselines; everything goes to MLflow.

    Example: plumb train
    """
    _print(_room("training.train:train")(release), json)


@app.command(rich_help_panel="The model")
def register(release: ReleaseId = None, json: Json = False) -> None:
    """Register the trained model; it becomes challenger when it is not worse than the champion.

    Example: plumb register
    """
    _print(_room("training.register:register")(release), json)


@app.command(rich_help_panel="The model")
def deploy(
    model: Annotated[
        str | None, typer.Option(help="Switch to this one: challenger, previous, or a version's number.")
    ] = None,
    json: Json = False,
) -> None:
    """Make the first model champion; with --model, replace the champion, after a shadow check on real customers.

    The switch is all at once, and `--model previous` goes back: right for a laptop. For real traffic a canary is the
    way, a share at a time. A running predictor is started again with the new champion.

    Example: plumb deploy --model challenger
    """
    _print(_room("serving.deploy:deploy")(model), json)


@app.command(rich_help_panel="The model")
def serve(
    port: Annotated[int, typer.Option(help="HTTP port; 0 chooses a free one.")] = 0,
    grpc_port: Annotated[int, typer.Option(help="gRPC port; 0 chooses a free one.")] = 0,
    model: Annotated[str, typer.Option(help="The registered model's alias or version.")] = "champion",
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 in a pod.")] = "127.0.0.1",
) -> None:
    """Serve the model with KServe's model server until it gets SIGTERM: v1 and v2, REST and gRPC.

    Example: plumb serve --port 8080
    """
    _room("serving.server:serve")(port=port, grpc_port=grpc_port, model=model, host=host)


@app.command(rich_help_panel="Features")
def preview(
    table: Annotated[str | None, typer.Argument(help="A table; default: each one whose code changed.")] = None,
    sample: Annotated[float, typer.Option(help="Share of the customers, with their whole histories.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Another seed, other customers.")] = 1997,
    json: Json = False,
) -> None:
    """Run changed models or features on a sample, beside the release in force. Publishes nothing.

    Rows, columns, distributions, dbt's tests, what it does to the model, and what else reads it. Exit code 1 when
    something cannot be built or a test fails.

    Example: plumb preview features.customers --sample 0.2
    """
    found = _room("plumbline.preview:preview")(table, sample, seed)
    if json:
        _print([asdict(made) for made in found], True)
    elif not found:
        print(_room("plumbline.preview:nothing_changed")())
    for made in found:
        if not json:
            _room("plumbline.preview_page:show")(made)
    if any(made.failed for made in found):
        raise typer.Exit(1)


# --- looking around ----------------------------------------------------------------------------------------------


@shop.command("load")
def shop_load(json: Json = False) -> None:
    """Load CDNOW's 69,659 real orders into the shop database. Loading twice changes nothing.

    Example: plumb shop load
    """
    _print(_room("ingestion.shop:load")(), json)


@release_app.command("list")
def releases_list(json: Json = False) -> None:
    """All releases, oldest first.

    Example: plumb releases list --json
    """
    from plumbline import releases

    found = [asdict(releases.read("churn", number)) for number in releases.numbers("churn")]
    if json:
        _print(found, True)
        return
    for item in found:
        gates = ", ".join(f"{name} {gate['verdict']}" for name, gate in item["gates"].items())
        tables = " ".join(f"{name}@v{version}" for name, version in item["tables"].items())
        print(f"{item['release_id']:>4}  as of {item['as_of']}  {gates}  code {item['code_sha'][:12]}  {tables}")


@release_app.command("show")
def releases_show(number: Annotated[int | None, typer.Argument()] = None, json: Json = False) -> None:
    """One release, by default the one in force.

    Example: plumb releases show 2
    """
    from plumbline import releases

    _print(asdict(releases.required("churn", number)), json)


@app.command(
    rich_help_panel="Data",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def dbt(context: typer.Context) -> None:
    """Any dbt command on the project, with its profile and the released versions set up.

    Example: plumb dbt docs generate
    """
    _room("plumbline.transform:run_dbt")(context.args)


@app.command(rich_help_panel="The house")
def report(json: Json = False) -> None:
    """Write the report's pages anew: a page a run, with its flow, gates, model, drift and answers.

    Example: plumb report
    """
    _print({"report": _room("plumbline.report_page:write")("churn")}, json)


@app.command(rich_help_panel="The house")
def settings(json: Json = False) -> None:
    """Every setting and its value, secrets masked.

    Example: PLUMBLINE_NOW=1998-07-01T00:00:00Z plumb settings
    """
    from plumbline import settings as module

    _print(module.show(), json)


@app.command(rich_help_panel="The house")
def up(json: Json = False) -> None:
    """Start what answers: Redis, the predictor, MLflow's pages. Nothing is trained or computed.

    Example: plumb up
    """
    found = _room("plumbline.demo:up")()
    if json:
        _print(found, json)
    else:
        for what, where in found.items():
            print(f"{what:17} {where}")
        body = """'{"instances": [{"customer_id": 1}]}'"""
        print("stop with `make down`")
        print(f"try: curl -s -H 'Content-Type: application/json' -d {body} {found['predictor']}")


@app.command(rich_help_panel="The house")
def airflow(json: Json = False) -> None:
    """Start Airflow's API server with its pages, scheduler and DAG processor, to look at and to trigger runs in.

    Example: plumb airflow
    """
    from plumbline import scheduler

    _print(scheduler.start(), json)


@app.command(rich_help_panel="The house")
def down() -> None:
    """Stop every process that this home started.

    Example: plumb down
    """
    from plumbline import services

    print("stopped: " + (", ".join(services.stop_all()) or "nothing was running"))


@app.command(rich_help_panel="The house")
def demo(
    until: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], metavar="DATE", help="Only orders up to this day; default: all of them."),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the servers running, as `plumb up` would.")] = False,
) -> None:
    """The whole path through Airflow: real orders in, live churn predictions out.

    Example: plumb demo
    """
    _room("plumbline.demo:demo")(until=until.date() if until else None, keep=keep)


@app.command(rich_help_panel="The house")
def replay(
    days: Annotated[int, typer.Option(min=1, help="How many days.")] = 1,
) -> None:
    """Days after the demo's last, each through Airflow: with real orders as long as there are some, without after that.

    Example: plumb replay --days 3
    """
    _room("plumbline.replay:replay")(days)


def _version(asked: bool) -> None:
    if asked:
        from plumbline import __version__

        print(f"plumb {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")] = False,
) -> None: ...


if __name__ == "__main__":
    main()
