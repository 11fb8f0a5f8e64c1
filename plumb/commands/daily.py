"""The daily run, stage by stage, and what there is to know of features."""

from __future__ import annotations

from typing import Annotated

import typer

from plumb.commands.base import DAILY, AsOf, Json, ReleaseId, app, perform, show, stage_command
from products.churn import CHURN

features_app = typer.Typer(invoke_without_command=True)
app.add_typer(features_app, name="features", rich_help_panel=DAILY)


for stage in CHURN.stages:
    if stage.about:
        app.command(stage.name, rich_help_panel=DAILY)(stage_command(CHURN, stage))


@features_app.callback()
def features(context: typer.Context, as_of: AsOf = None, json: Json = False) -> None:
    """Compute the snapshots of a day and of each one skipped before it (first run: weekly ones); or look at features.

    When customers.sql changed, all snapshots are computed anew, as a new version beside the released one.

    Example: plumb features --as-of 1998-06-30
    """

    if context.invoked_subcommand is None:
        perform(CHURN, CHURN.stage("features"), as_of, json)


@features_app.command("list")
def features_list(json: Json = False) -> None:
    """Every feature: type, services, missing share and age at the release in force.

    Example: plumb features list
    """

    from feature_repo import catalog, catalog_text

    found = catalog.listed()
    show(found, True) if json else catalog_text.show_list(found)


@features_app.command("show")
def features_show(name: Annotated[str, typer.Argument()], json: Json = False) -> None:
    """One feature: its definition, who uses it, its SQL, and its lineage back to raw columns with file and line.

    Example: plumb features show avg_ticket_30d
    """

    from feature_repo import catalog, catalog_text

    found = catalog.shown(name)
    show(found, True) if json else catalog_text.show_one(found)


@features_app.command("history")
def features_history(
    name: Annotated[str, typer.Argument()],
    customer: Annotated[
        int | None, typer.Option(min=-(2**63), max=2**63 - 1, help="This customer's values by snapshot instead.")
    ] = None,
    last: Annotated[int, typer.Option(help="How many releases back.")] = 10,
    json: Json = False,
) -> None:
    """A feature over the releases (rows, missing, mean, quantiles, PSI), and the commits that changed its SQL.

    Example: plumb features history orders_90d --customer 1
    """

    from feature_repo import catalog, catalog_text

    if customer is not None:
        rows = catalog.of_customer(name, customer)
        show(rows, True) if json else catalog_text.show_customer(name, customer, rows)
        return
    found = catalog.history(name, last)
    show(found, True) if json else catalog_text.show_history(found)


@app.command(rich_help_panel=DAILY)
def materialize(
    release: ReleaseId = None,
    if_released: Annotated[
        bool, typer.Option("--if-released", help="Where nothing is released yet, do nothing (exit code 0).")
    ] = False,
    json: Json = False,
) -> None:
    """Bring a release's features into Redis through Feast.

    Example: plumb materialize
    """

    from feature_repo import materialize
    from plumbline.state import releases

    if if_released and releases.in_force(CHURN.name) is None:
        show({"message": "nothing is released yet"}, json)
        return

    show(materialize.materialize(CHURN, release), json)
