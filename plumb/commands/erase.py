"""Erasure: a customer goes out of everything that the platform holds."""

from __future__ import annotations

from typing import Annotated

import typer

from plumb.commands.base import DATA, Json, app, show
from products.churn import CHURN


@app.command("erase", rich_help_panel=DATA)
def erase(
    customer: Annotated[int, typer.Argument(help="The customer's number.", min=-(2**63), max=2**63 - 1)],
    why: Annotated[str, typer.Option("--why", help="The reason, for the ledger; without the customer's number.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only say what holds the customer.")] = False,
    json: Json = False,
) -> None:
    """Take a customer out of the lake (every version), Redis, datasets, evidence and pages. It cannot be taken back.

    The shop must not show them any more. A new release without them comes into force; older releases that held them
    cannot be read or reproduced from then on.

    Example: plumb erase 42 --why "request of 3 June" --yes
    """
    import sys
    from dataclasses import asdict

    from feature_repo import forget
    from ingestion.database import still_shown
    from plumbline.pipeline import erase as module

    sys.argv = ["CUSTOMER" if word == str(customer) else word for word in sys.argv]  # a lease keeps its command
    if yes:
        done = module.erase(
            CHURN,
            customer,
            why,
            lambda person: still_shown.refuse(CHURN, person),
            lambda release: forget.forget(CHURN, customer, release),
        )
    else:
        done = module.look(
            CHURN,
            customer,
            lambda person: still_shown.refuse(CHURN, person),
            lambda: forget.count(CHURN, customer),
        )
    if json:
        show(asdict(done), True)
        return
    if not done.places:
        print("nothing is left of the customer")
        return
    for table, rows in done.rows.items():
        print(f"{table:28} {rows:,} rows, old versions included")
    for place, copies in done.copies.items():
        print(f"{place:28} {copies:,} files that name the customer or their orders")
    if done.online:
        print(f"{'Redis':28} {done.online:,} rows")
    print(f"no longer reproducible: {', '.join(done.lost) or 'nothing'}")
    if not yes:
        print("Nothing was changed. The same with --yes erases all of this; it cannot be taken back")
    elif done.release:
        print(f"release {done.release} is in force: the same without the customer")
