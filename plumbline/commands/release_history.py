"""Releases and the lake over time: going back, what differs, what may go."""

from __future__ import annotations

from typing import Annotated

import typer

from plumbline.commands.base import Json, room, show
from plumbline.commands.data import releases_app


@releases_app.command("undo")
def undo(
    why: Annotated[str, typer.Option("--why", help="The reason, as the new release will name it.")],
    to: Annotated[int | None, typer.Option("--to", help="The release to go back to; default: the one before.")] = None,
    online: Annotated[
        bool,
        typer.Option("--materialize/--no-materialize", help="Bring Redis back too; else `plumb materialize` does."),
    ] = True,
    json: Json = False,
) -> None:
    """Put an older release's tables in force again, under the next number, and bring Redis back to them.

    Nothing is deleted. The undone days can be run again: they land anew. An undone release comes back by --to.

    Example: plumb releases undo --why "the shop sent last week's prices"
    """
    from dataclasses import asdict

    from plumbline import undo as module

    made = module.undo("churn", to, why=why)
    told = room("feature_repo.materialize:materialize")(made.release_id) if online else None
    if json:
        show({**asdict(made), "online": told}, True)
        return
    undone = ", ".join(map(str, made.undoes))
    print(f"release {made.release_id} is in force: release {made.restores}'s tables, as of {made.as_of}")
    print(f"undone: {undone} ({made.why}); raw batches left out from now on: {', '.join(made.rejected) or 'none'}")
    print(f"{told.get('message', told['state'])}" if told else "Redis still holds what it held: `plumb materialize`")
    print(
        "models trained on undone releases stay registered: `plumb deploy --model previous` goes back to the one before"
    )
