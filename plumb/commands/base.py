"""What every command is made of: the app, the options they share, and how a result is shown."""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Callable
from dataclasses import asdict
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from plumbline.errors import EXIT_CODES
from plumbline.product import Product, Stage

if TYPE_CHECKING:
    from plumbline.pipeline.stage import Result

DAILY = "The daily run, stage by stage"
MODEL = "The model"
DATA = "Data"
HOUSE = "The house"
IMAGES = "The image product"

app = typer.Typer(
    help="Plumbline: training and serving read the same tested truth.",
    epilog="Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + ".",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

AsOf = Annotated[
    datetime | None,
    typer.Option(
        "--as-of",
        formats=["%Y-%m-%d"],
        metavar="DATE",
        help="The last day covered, YYYY-MM-DD; default: the last day that is over.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Of = Annotated[str, typer.Option("--product", help="Which product's: churn, images.")]
ReleaseId = Annotated[int | None, typer.Option("--release", help="A release's number; default: the one in force.")]


def product_of(name: str) -> Product:
    """The product of that name. Raises typer.BadParameter that names those there are."""
    from products import ALL

    found = {product.name: product for product in ALL}
    if name not in found:
        raise typer.BadParameter(f"no product {name!r}: there are {', '.join(found)}")
    return found[name]


def stage_command(product: Product, stage: Stage) -> Callable[..., None]:
    """The command of a stage that works on a day. Its function's module is imported when it runs."""

    def command(as_of: AsOf = None, json: Json = False) -> None:
        perform(product, stage, as_of, json)

    command.__doc__ = f"{stage.about}\n\nExample: {product.command_of(stage.name)} --as-of 1998-06-30"
    return command


def perform(product: Product, stage: Stage, as_of: datetime | None, as_json: bool, **options: object) -> None:
    """Runs a stage's work for a day and says what came of it. What is given of `options` goes to the work by name."""
    from plumbline.pipeline import stage as pipeline

    given = {name: value for name, value in options.items() if value is not None}
    work: Callable[..., str] = pkgutil.resolve_name(stage.work)
    _tell(pipeline.perform(product, stage.name, day(as_of), work, given), as_json)


def show(value: object, as_json: bool) -> None:
    if as_json:
        print(json.dumps(value, default=str))
    elif isinstance(value, dict):
        for name, item in value.items():
            print(f"{name}: {item}")
    else:
        print(value)


def day(as_of: datetime | None) -> date:
    from plumbline import clock

    return as_of.date() if as_of else clock.last_whole_day()


def _tell(result: Result, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(result), default=str))
        return
    print(f"{result.stage} {result.as_of}: {result.state} ({result.seconds:.1f} s) {result.message}")
    for table, rows in result.rows.items():
        pinned = f" @v{result.tables[table]}" if table in result.tables else ""
        print(f"    {table}{pinned}: {rows:,} rows")
