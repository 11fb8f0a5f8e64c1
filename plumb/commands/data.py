"""Where data comes from and what is in force."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from plumb.commands.base import DATA, Json, Of, app, product_of, show
from plumbline.errors import Unreadable
from products.churn import CHURN

shop = typer.Typer(help="The shop database that orders come from.", no_args_is_help=True)
releases_app = typer.Typer(help="What is in force, and what was.", no_args_is_help=True)
app.add_typer(shop, name="shop", rich_help_panel=DATA)
app.add_typer(releases_app, name="releases", rich_help_panel=DATA)


@shop.command("load")
def shop_load(
    one_in: Annotated[int, typer.Option("--one-in", min=1, help="Every so many-th customer only.")] = 1,
    json: Json = False,
) -> None:
    """Load the orders that come with the shop's page into its database. Loading twice changes nothing.

    Example: plumb shop load
    """

    from plumb.demo import demo

    show(demo.load_packaged(one_in=one_in), json)


@releases_app.command("list")
def releases_list(product: Of = CHURN.name, json: Json = False) -> None:
    """All releases, oldest first; exit code 1 when one of them cannot be read.

    Example: plumb releases list --json
    """
    from plumbline.state import erasures, releases

    found: list[releases.Release | dict[str, Any]] = []
    name = product_of(product).name
    for number in releases.numbers(name):
        try:
            found.append(releases.read(name, number))
        except Unreadable as error:
            found.append({"release_id": number, "unreadable": str(error)})
    if json:
        show([item if isinstance(item, dict) else item.as_dict() for item in found], True)
    for item in [] if json else found:
        if isinstance(item, dict):
            print(f"{item['release_id']:>4}: cannot be read: {item['unreadable']}")
            continue
        gates = ", ".join(
            f"{name} {'accepted' if gate.accepted else gate.verdict}" for name, gate in item.gates.items()
        )
        tables = " ".join(f"{name}@v{version}" for name, version in item.tables.items())
        undone = f"undoes {', '.join(map(str, item.undoes))}: " if item.undoes else ""
        reason = f"{undone}{item.why}  " if item.why else ""
        gone = max((erasures.unreadable(table).get(version, "") for table, version in item.tables.items()), default="")
        if gone:
            reason += f"not reproducible since {gone}: a customer was erased  "
        print(f"{item.release_id:>4}  as of {item.as_of}  {reason}{gates}  code {item.code_sha[:12]}  {tables}")
    if any(isinstance(item, dict) for item in found):
        raise typer.Exit(1)


@releases_app.command("show")
def releases_show(
    number: Annotated[int | None, typer.Argument()] = None, product: Of = CHURN.name, json: Json = False
) -> None:
    """One release, by default the one in force.

    Example: plumb releases show 2
    """
    from plumbline.state import releases

    show(releases.required(product_of(product).name, number).as_dict(), json)


@app.command(
    rich_help_panel=DATA,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def dbt(context: typer.Context) -> None:
    """Any dbt command on the project, with its profile and the released versions set up.

    Example: plumb dbt docs generate
    """

    from transform import build

    build.run_dbt(CHURN, context.args)
