"""What was made from what."""

from __future__ import annotations

from typing import Annotated

import typer

from plumb.commands.base import DATA, MODEL, Json, ReleaseId, app, show
from products import ALL
from products.churn import CHURN


@app.command(rich_help_panel=DATA)
def lineage(
    asked: Annotated[
        str,
        typer.Argument(
            metavar="DATASET|MODEL|RUN", help="features.customers, features.customers@3, champion, 3, a run."
        ),
    ],
    marquez: Annotated[
        str | None, typer.Option(metavar="URL", help="Ask this Marquez instead of the home's event file.")
    ] = None,
    html: Annotated[bool, typer.Option("--html", help="Write a page with a graph to click; print its path.")] = False,
    json: Json = False,
) -> None:
    """Walk lineage up to the raw orders and down to the endpoint, with versions and how each run ended.

    It is what the stages were observed to read and write. A dataset without a version is the one in force.

    Example: plumb lineage champion
    """

    from plumbline.lineage import graph, page, runs, text
    from plumbline.lineage.marquez import Marquez

    events = Marquez(marquez, ALL) if marquez else runs.EventFile()
    found = graph.of(asked, events, CHURN)
    if json:
        show(found.as_dict(), True)
    elif html:
        print(page.write(found))
    else:
        text.show(found)


@app.command("lineage_check", rich_help_panel=MODEL)
def lineage_check(release: ReleaseId = None, json: Json = False) -> None:
    """Gate: every step from the raw tables to a release's features was seen, at its versions. Exit code 3 stops.

    Expected steps come from dbt's models, Feast's definitions and the stages' declarations, observed ones from events.

    Example: plumb lineage_check --release 2
    """

    from validation import lineage_check

    show(lineage_check.check(CHURN, release), json)
