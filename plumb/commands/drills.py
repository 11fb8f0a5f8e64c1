"""Faults on purpose."""

from __future__ import annotations

from typing import Annotated

import typer

from plumb.commands.base import HOUSE, app


@app.command(rich_help_panel=HOUSE)
def drill(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]…", help="Which; default: all.")] = None,
    page: Annotated[bool, typer.Option("--page", help="Write docs/drills*.md from the newest run of each.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="Say which there are, and run none.")] = False,
) -> None:
    """Put a fault into a real run, in a home of its own, and see who stops it, how soon, and how it is mended.

    All of them take some 45 minutes; a single one a minute or two, after 3 minutes for the
    state that they start from. Nothing outside `.plumbline/drills/` is touched.

    Example: plumb drill renamed-column half-a-batch
    """

    from drills import table

    if listed:
        table.show_list()
        return
    if names or not page:
        table.drill(names or [])
    if page:
        print(*table.write(), sep="\n")
