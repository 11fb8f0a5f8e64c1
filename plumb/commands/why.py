"""What is behind one answer."""

from __future__ import annotations

from typing import Annotated

import typer

from plumb.commands.base import MODEL, Json, app, show


@app.command(rich_help_panel=MODEL)
def why(
    asked: Annotated[str, typer.Argument(metavar="CUSTOMER|REQUEST_ID", help="A customer's number or a request's id.")],
    request: Annotated[bool, typer.Option("--request", help="It is a request's id, even if it is a number.")] = False,
    customer: Annotated[int | None, typer.Option(help="Of a request about several, this one.")] = None,
    json: Json = False,
) -> None:
    """Everything behind an answer: features and ages, their orders, release, gates, model, run, dataset.

    Of a customer: what would be answered now, and the last answer. The id of a request is in its x-request-id.

    Example: plumb why 1
    """

    from plumb.reports import why, why_text

    found = why.why(asked, request=request, customer=customer)
    show(found, True) if json else why_text.show(found)
