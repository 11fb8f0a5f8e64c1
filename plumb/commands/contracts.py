"""Data contracts, and what was kept out because it broke one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plumb.commands.base import DATA, Json, app, show
from products import ALL
from products.churn import CHURN

contract_app = typer.Typer(help="What datasets promise, and whether it holds.", no_args_is_help=True)
quarantine_app = typer.Typer(help="Batches that were kept out, and how they come in.", no_args_is_help=True)
app.add_typer(contract_app, name="contract", rich_help_panel=DATA)
app.add_typer(quarantine_app, name="quarantine", rich_help_panel=DATA)

BatchId = Annotated[str, typer.Argument(metavar="BATCH")]


@contract_app.command("check")
def contract_check(json: Json = False) -> None:
    """Whether dbt's models, the feature SQL, Feast's view and the docs say what the contracts say. Part of make lint.

    Example: plumb contract check
    """

    from plumbline.contracts import check

    found = check.refuse_drift(ALL)
    show(found if json else f"{len(found['contracts'])} contracts hold: {', '.join(found['checked'])}", json)


@contract_app.command("diff")
def contract_diff(json: Json = False) -> None:
    """The shop as it is now and the lake's tables in force, against the contracts. Exit code 3 when one is broken.

    Example: plumb contract diff
    """

    from ingestion.database import source_schema
    from plumbline.contracts import diff as module

    found = [*source_schema.of_shop(CHURN), *module.of_lake(CHURN)]
    if json:
        show([difference.as_dict() for difference in found], True)
    else:
        for difference in found:
            print(f"{'BREAKING' if difference.breaking else 'additive'}  {difference.dataset:19} {difference.told}")
        counted = module.summary(found)
        print(f"{counted['breaking']} breaking, {counted['additive']} additive differences")
    module.refuse_breaking(found)


@contract_app.command("draft")
def contract_draft(
    url: Annotated[str, typer.Argument(metavar="URL", help="The shop's database, as PLUMBLINE_SHOP_URL names it.")],
    to: Annotated[Path, typer.Option("--to", help="The folder to write to; it must have none of the files.")],
    json: Json = False,
) -> None:
    """Write the first contracts and the page of a shop, from the tables that landing reads. Guesses are marked.

    Example: plumb contract draft postgresql+psycopg://reader@host/shop --to my-shop
    """

    from ingestion.database import draft

    show(draft.draft(CHURN, url, to.expanduser().absolute()), json)


@contract_app.command("docs")
def contract_docs(json: Json = False) -> None:
    """Write docs/contracts.md anew from the contracts.

    Example: plumb contract docs
    """

    from plumbline.contracts import docs

    show({"written": docs.write(ALL)}, json)


@quarantine_app.command("list")
def quarantine_list(json: Json = False) -> None:
    """Every batch that was kept out: by a contract at landing (schema, records) or by a later gate (gate).

    `held` counts its rows that are in no batch that counts; 0 when all of it came in since.

    Example: plumb quarantine list
    """

    from ingestion.database import quarantine_replay

    found = quarantine_replay.listed(CHURN)
    if json:
        show(found, True)
        return
    for item in found:
        rows, held = (", ".join(f"{n:,} {table}" for table, n in item[what].items()) for what in ("rows", "held"))
        state = ("asked back" if item["asked_back"] else "held") if any(item["held"].values()) else "came in"
        print(f"{item['batch_id']:28} {item['kind']:8} {state:10} {rows} (held: {held})")
        print(f"    {item['why'].splitlines()[0][:200]}")
    if not found:
        print("nothing was kept out")


@quarantine_app.command("show")
def quarantine_show(batch: BatchId, json: Json = False) -> None:
    """All that is known of one batch: what broke, its window, its rows, which contract it broke, where its rows are.

    Example: plumb quarantine show 1998-06-30..1998-06-30
    """

    from ingestion.database import quarantine_replay

    show(quarantine_replay.shown(CHURN, batch), json)


@quarantine_app.command("put")
def quarantine_put(
    why: Annotated[str, typer.Option("--why", help="The reason, as `plumb quarantine list` will name it.")],
    batch: Annotated[str | None, typer.Argument(metavar="[BATCH]")] = None,
    table: Annotated[str | None, typer.Option("--table", help="A table of the shop, in place of BATCH.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="The key of a row in it: its batch is set aside.")] = None,
    json: Json = False,
) -> None:
    """Set a landed batch aside that no gate stopped and a later stage breaks on, by its id or by one of its rows.

    It must be in no release yet. Mend the shop; the next ingest of that day lands its rows again.

    Example: plumb quarantine put --table orders --key 370 --why "3,000,000,000 units"
    """

    from ingestion.database import set_aside

    show(set_aside.put(CHURN, why, batch, table, key), json)


@quarantine_app.command("replay")
def quarantine_replay(batch: BatchId, json: Json = False) -> None:
    """Hold a batch against the contract and the shop as they are now; if it keeps it, the next ingest takes it in.

    Rows that the shop still shows come in its version, others as quarantine has them. Exit code 3 while it is broken.

    Example: plumb quarantine replay 1998-06-30..1998-06-30
    """

    from ingestion.database import quarantine_replay

    show(quarantine_replay.replay(CHURN, batch), json)
