"""Watching what runs: the exporter, and what on-call needs when an alert fires."""

from __future__ import annotations

from typing import Annotated

import typer

from plumb.commands.base import Json, app, show

WATCH = "On call"


@app.command(rich_help_panel=WATCH)
def exporter(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 9102,
    host: Annotated[str, typer.Option(help="Address to listen on; in a pod 0.0.0.0.")] = "127.0.0.1",
) -> None:
    """Serve metrics of ledger, releases and lake to Prometheus, computed at each scrape; until SIGTERM or Ctrl-C.

    What cannot be known is absent, not zero, and counts in exporter_unreadable_total.

    Example: plumb exporter --port 9102
    """

    from feature_repo import online_rows
    from observability import server

    server.serve(host, port, online_rows.counts)


@app.command(rich_help_panel=WATCH)
def incident(
    alert: Annotated[str, typer.Argument(metavar="ALERT", help="An alert's name, as in docs/runbooks.")],
    dataset: Annotated[
        str | None, typer.Option(help="Which dataset's, where an alert is of several; default: the one that fires.")
    ] = None,
    product: Annotated[
        str | None, typer.Option(help="Which product's, where an alert is of several; default: the one that fires.")
    ] = None,
    json: Json = False,
) -> None:
    """What on-call needs to know of an alert: last good release, what changed since, downstream, the way back.

    Predictions exposed are counted in the outcome log. Nothing is changed.

    Example: plumb incident DatasetLate
    """

    from plumb.reports import incident, incident_text

    found = incident.incident(alert, dataset, product)
    if json:
        show(found, True)
    else:
        incident_text.show(found)
