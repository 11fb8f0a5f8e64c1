"""Releases and the lake over time: going back, what differs, what may go."""

from __future__ import annotations

from typing import Annotated

import typer

from plumb.commands.base import DATA, Json, Of, app, product_of, show
from plumb.commands.data import releases_app
from products.churn import CHURN


@releases_app.command("undo")
def undo(
    why: Annotated[str, typer.Option("--why", help="The reason, as the new release will name it.")],
    to: Annotated[int | None, typer.Option("--to", help="The release to go back to; default: the one before.")] = None,
    online: Annotated[
        bool,
        typer.Option("--materialize/--no-materialize", help="Bring Redis back too; else `plumb materialize` does."),
    ] = True,
    product: Of = CHURN.name,
    json: Json = False,
) -> None:
    """Put an older release's tables in force again, under the next number, and bring Redis back to them.

    Nothing is deleted. The undone days can be run again: they land anew. An undone release comes back by --to.

    Example: plumb releases undo --why "the shop sent last week's prices"
    """

    from dataclasses import asdict

    from feature_repo import materialize
    from plumbline.pipeline import undo as module

    of = product_of(product)
    made = module.undo(of, to, why=why)
    told = materialize.materialize(of, made.release_id) if online else None
    if json:
        show({**asdict(made), "online": told}, True)
        return
    undone = ", ".join(map(str, made.undoes))
    print(f"release {made.release_id} is in force: release {made.restores}'s tables, as of {made.as_of}")
    print(f"undone: {undone} ({made.why}); raw batches left out from now on: {', '.join(made.rejected) or 'none'}")
    bring, back = of.command_of("materialize"), f"{of.command_of('deploy')} --model previous"
    print(f"{told.get('message', told['state'])}" if told else f"Redis still holds what it held: `{bring}`")
    print(f"models trained on undone releases stay registered: `{back}` goes back to the one before")


lake_app = typer.Typer(help="The Delta tables themselves.", no_args_is_help=True)
app.add_typer(lake_app, name="lake", rich_help_panel=DATA)


@lake_app.command("vacuum")
def vacuum(
    keep_days: Annotated[int, typer.Option(min=0, help="Keep files that were in use within this many days.")] = 7,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    product: Of = CHURN.name,
    json: Json = False,
) -> None:
    """Delete data files that no release, run, dataset or registered model names any more.

    Every version that one of them names stays readable, however old it is.

    Example: plumb lake vacuum --keep-days 30 --dry-run
    """
    from dataclasses import asdict

    from plumbline.pipeline import retention

    done = retention.vacuum(product_of(product), keep_days, dry_run=dry_run)
    if json:
        show([asdict(item) for item in done], True)
        return
    for item in done:
        what = f"{item.files:,} files ({item.bytes / 1e6:,.1f} MB) {'would go' if dry_run else 'went'}"
        print(f"{item.table:20} {what}; kept: versions {', '.join(map(str, sorted(item.kept)))}")


@app.command("compact_log", rich_help_panel=DATA)
def compact_log(product: Of = CHURN.name, json: Json = False) -> None:
    """Make few files of the many that predictors append to the outcome log. Once a day; the DAG outcome_log does it.

    Predictors go on meanwhile. Versions that something names, or that are under 7 days old, stay readable.

    Example: plumb compact_log
    """
    from dataclasses import asdict

    from serving import compaction

    of = product_of(product)
    done = compaction.compact(of)
    if json:
        show(asdict(done), True)
        return
    print(f"{of.log}: {done.before:,} files are {done.after:,} now; {done.removed:,} old ones removed")


@app.command("what-changed", rich_help_panel=DATA)
def what_changed(
    before: Annotated[str, typer.Argument(metavar="A", help="A release (2), a model (model:1) or a day (1998-06-29).")],
    after: Annotated[str, typer.Argument(metavar="B", help="The same kind of thing.")],
    json: Json = False,
) -> None:
    """What changed between two releases, two model versions, or two days: data, code, and what moved.

    Tables and rows, columns, dbt models and feature SQL, feature distributions (PSI), gates, code, lock; also a page.

    Example: plumb what-changed 1 2
    """

    from plumb.reports import what_changed as module
    from plumb.reports import what_changed_page
    from plumbline import clock

    begun = clock.monotonic()
    found = module.what_changed(CHURN, before, after)
    path, seconds = module.page_path(before, after), clock.monotonic() - begun
    what_changed_page.write(path, found, seconds)
    if json:
        show({**found, "page": str(path)}, True)
    else:
        what_changed_page.show(found, path, clock.monotonic() - begun)


@releases_app.command("diff")
def diff(
    before: Annotated[int, typer.Argument(help="A release's number.")],
    after: Annotated[int | None, typer.Argument(help="Another one's; default: the one in force.")] = None,
    product: Of = CHURN.name,
    json: Json = False,
) -> None:
    """Which fields of two releases' manifests differ, at once; what that means in rows: `plumb what-changed`.

    Example: plumb releases diff 1 2
    """
    from plumbline.state import releases

    name = product_of(product).name
    found = releases.diff(releases.read(name, before), releases.required(name, after))
    if json:
        show(found, True)
        return
    for name, (then, now) in found.items():
        print(f"{name:24} {then} → {now}")
    if not found:
        print("they differ in nothing")
