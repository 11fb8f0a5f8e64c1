"""Whether what is online is what the release says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

import typer

from plumb.commands.base import DAILY, Json, app, show
from plumbline.product import Product
from products.churn import CHURN


def parity_command(product: Product) -> Callable[..., None]:
    """The command that checks a product."""

    def command(
        sample: Annotated[int | None, typer.Option(min=1, help="So many entities instead of all of them.")] = None,
        answers: Annotated[int, typer.Option(min=1, help="Replay at most so many logged answers.")] = 1_000,
        seed: Annotated[int, typer.Option(help="Another seed, other entities and answers.")] = 1997,
        since: Annotated[
            datetime | None,
            typer.Option(help="Replay answers from this time (UTC) on, not from the last check that passed."),
        ] = None,
        json: Json = False,
    ) -> None:
        from feature_repo import online_rows
        from plumbline import clock
        from validation import parity

        begun = clock.monotonic()
        asked = parity.Asked(sample, answers, seed, since.replace(tzinfo=UTC) if since else None)
        found = parity.check(
            product,
            lambda view: online_rows.OnlineRows(product, view),
            lambda rows, times: online_rows.on_demand(product, rows, times),
            asked,
        )
        if json:
            show(found, True)
        else:
            print(f"parity_check: done ({clock.monotonic() - begun:.1f} s) {found['message']}")

    command.__doc__ = f"""Gate: online rows equal the release's, bit for bit, and answers their point-in-time join.

    Every one of the {product.entities} of the release that is online, missing ones, strangers and the ttl included.
    Rows that differ are taken out of Redis; predictors refuse those {product.entities} until
    `{product.command_of("materialize")}` has written them again. Exit code 3 if anything differs.

    Example: {product.command_of("parity_check")} --sample 1000 --seed 7
    """
    return command


app.command("parity_check", rich_help_panel=DAILY)(parity_command(CHURN))
