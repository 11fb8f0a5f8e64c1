"""Whether what is online is what the release says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from plumb.commands.base import DAILY, Json, app, show
from products.churn import CHURN


@app.command("parity_check", rich_help_panel=DAILY)
def parity_check(
    sample: Annotated[int | None, typer.Option(min=1, help="So many customers instead of all of them.")] = None,
    answers: Annotated[int, typer.Option(min=1, help="Replay at most so many logged answers.")] = 1_000,
    seed: Annotated[int, typer.Option(help="Another seed, other customers and answers.")] = 1997,
    since: Annotated[
        datetime | None,
        typer.Option(help="Replay answers from this time (UTC) on, not from the last check that passed."),
    ] = None,
    json: Json = False,
) -> None:
    """Gate: online rows equal the release's, bit for bit, and answers their point-in-time join. Exit code 3 if not.

    Every customer of the release that is online, missing ones, strangers and the ttl included. Rows that differ are
    taken out of Redis; predictors refuse those customers until `plumb materialize` has written them again.

    Example: plumb parity_check --sample 1000 --seed 7
    """

    from feature_repo import online_rows
    from plumbline import clock
    from validation import parity

    begun = clock.monotonic()
    asked = parity.Asked(sample, answers, seed, since.replace(tzinfo=UTC) if since else None)
    found = parity.check(
        CHURN,
        lambda: online_rows.OnlineRows(CHURN),
        lambda rows, times: online_rows.on_demand(CHURN, rows, times),
        asked,
    )
    if json:
        show(found, True)
    else:
        print(f"parity_check: done ({clock.monotonic() - begun:.1f} s) {found['message']}")
