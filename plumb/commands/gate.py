"""What to do about a gate whose finding is odd and real."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from plumb.commands.base import DAILY, AsOf, Json, app, day, show
from plumbline.product import Product
from products import ALL
from products.churn import CHURN

gate_app = typer.Typer(help="Accept what a gate found, when it is real.", no_args_is_help=True)
app.add_typer(gate_app, name="gate", rich_help_panel=DAILY)

Why = Annotated[str, typer.Option("--why", help="The reason, as its release will name it.")]


@gate_app.command("accept")
def accept(
    gate: Annotated[str, typer.Argument(help="A gate that `plumb gate list` names.")],
    why: Why,
    as_of: AsOf = None,
    by: Annotated[str | None, typer.Option("--by", help="Who says so; default: the user who runs this.")] = None,
    json: Json = False,
) -> None:
    """Let a day through that a gate stops, because it really is so. Structural gates cannot be accepted.

    It holds for the next run of that day, and its release names it. The limits stay as they are.

    Example: plumb gate accept orders_volume --as-of 1997-07-26 --why "the summer sale"
    """
    from plumbline.state import acceptances

    product = _product(gate)
    made = acceptances.accept(product, gate, day(as_of), why, by)
    if json:
        show(asdict(made), True)
    else:
        print(f"accepted by {made.by}: {made.gate} of {made.as_of}: {made.why}")
        if gate in product.acceptable_in_training:
            print(f"now run {product.command_of('leakage_check')}, and the stages after it")
        else:
            first = product.command_of(product.daily_stages[0])
            print(f"now run that day: {first} --as-of {made.as_of}, and the stages after it")


@gate_app.command("list")
def list_(json: Json = False) -> None:
    """The gates that can be accepted, and what was.

    Example: plumb gate list
    """
    from plumbline.state import acceptances

    found = [item for product in ALL for item in acceptances.listed(product.name)]
    gates = {name: what for product in ALL for name, what in _acceptable(product).items()}
    if json:
        show({"gates": gates, "accepted": [asdict(item) for item in found]}, True)
        return
    for name, what in gates.items():
        print(f"{name:16} {what}")
    print("accepted so far:" if found else "nothing was accepted so far")
    for item in found:
        print(f"  {item.as_of}  {item.gate}  by {item.by}, {item.at[:16]} UTC: {item.why}")


def _acceptable(product: Product) -> dict[str, str]:
    return {**product.acceptable, **product.acceptable_in_training}


def _product(gate: str) -> Product:
    """The product whose gate it is: no two have one of the same name. An unknown one is refused as churn's."""
    return next((product for product in ALL if gate in _acceptable(product)), CHURN)
