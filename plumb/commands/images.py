"""The image product: `plumb images STAGE`, seven stages from a raw picture to a model that can be made again."""

from __future__ import annotations

import typer

from plumb.commands.base import IMAGES as PANEL
from plumb.commands.base import Json, ReleaseId, app, show, stage_command
from products.images import IMAGES

images_app = typer.Typer(help="What a picture shows: ingest, clean, embed, train, serve.", no_args_is_help=True)
app.add_typer(images_app, name="images", rich_help_panel=PANEL)

for stage in IMAGES.stages:
    if stage.about:
        images_app.command(stage.name)(stage_command(IMAGES, stage))


@images_app.command()
def materialize(release: ReleaseId = None, json: Json = False) -> None:
    """Bring a release's embeddings into Redis through Feast.

    Example: plumb images materialize
    """
    from feature_repo import materialize

    show(materialize.materialize(IMAGES, release), json)
