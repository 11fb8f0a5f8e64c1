"""What was made from what."""

from __future__ import annotations

from typing import Annotated

import typer

from plumb.commands.base import DATA, MODEL, Json, Of, ReleaseId, app, product_of, show
from products.churn import CHURN

MarquezUrl = Annotated[
    str | None, typer.Option("--marquez", metavar="URL", help="Ask this Marquez instead of the home's event file.")
]


@app.command(rich_help_panel=DATA)
def lineage(
    asked: Annotated[
        str,
        typer.Argument(
            metavar="DATASET|MODEL|RUN", help="features.customers, features.customers@3, champion, 3, a run."
        ),
    ],
    marquez: MarquezUrl = None,
    html: Annotated[bool, typer.Option("--html", help="Write a page with a graph to click; print its path.")] = False,
    product: Of = CHURN.name,
    json: Json = False,
) -> None:
    """Walk lineage up to the raw orders and down to the endpoint, with versions and how each run ended.

    It is what the stages were observed to read and write. A dataset without a version is the one in force.

    Example: plumb lineage champion
    """

    from plumbline.lineage import graph, page, runs, text
    from plumbline.lineage.marquez import Marquez

    walked = graph.of(asked, Marquez(marquez) if marquez else runs.EventFile(), product_of(product))
    if json:
        show(walked.as_dict(), True)
    elif html:
        print(page.write(walked))
    else:
        text.show(walked)


@app.command("lineage_check", rich_help_panel=MODEL)
def lineage_check(release: ReleaseId = None, marquez: MarquezUrl = None, json: Json = False) -> None:
    """Gate: every step from the raw tables to a release's features was seen, at its versions. Exit code 3 stops.

    Expected steps come from dbt's models, Feast's definitions and the stages' declarations, observed ones from events.

    Example: plumb lineage_check --release 2
    """

    from plumbline.lineage.marquez import Marquez
    from validation import lineage_check

    show(lineage_check.check(CHURN, release, Marquez(marquez) if marquez else None), json)


@app.command("lineage_resend", rich_help_panel=DATA)
def lineage_resend(
    everything: Annotated[bool, typer.Option("--all", help="Every event: for a server that lost its own.")] = False,
    json: Json = False,
) -> None:
    """Send the lineage server, OPENLINEAGE_URL, what it did not confirm before: it was away, frozen or slow.

    Example: plumb lineage_resend
    """
    import os

    from plumbline.errors import SettingsError
    from plumbline.lineage import sending

    if not (url := os.environ.get(sending.URL)):
        raise SettingsError(f"{sending.URL} is not set: expected the lineage server's URL, as in http://localhost:5000")
    sent = sending.resend(url, everything)
    message = f"{sent} events were confirmed" if sent else "every event was confirmed before"
    show({"message": message, "state": "done" if sent else "unchanged", "events": sent}, json)
