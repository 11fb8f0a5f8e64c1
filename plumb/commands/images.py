"""The image product: `plumb images STAGE`, seven stages from a raw picture to a model that can be made again."""

from __future__ import annotations

from typing import Annotated

import typer

from plumb.commands.base import IMAGES as PANEL
from plumb.commands.base import AsOf, Json, ReleaseId, app, perform, show, stage_command
from products.images import IMAGES

images_app = typer.Typer(help="What a picture shows: ingest, clean, embed, train, serve.", no_args_is_help=True)
app.add_typer(images_app, name="images", rich_help_panel=PANEL)


@images_app.command()
def ingest(
    source: Annotated[
        str | None,
        typer.Option(help="Where pictures come from, as PLUMBLINE_IMAGES_SOURCE; default: that setting."),
    ] = None,
    as_of: AsOf = None,
    json: Json = False,
) -> None:
    """01: Land pictures and labels from a source into the raw bucket. Nothing there is ever overwritten.

    A source is `mnist`, `emoji`, `mnist:500` (the first 500), or a folder, an archive or s3://bucket/prefix with a
    labels.csv.

    Example: plumb images ingest --source mnist:500
    """
    perform(IMAGES, IMAGES.stage("ingest"), as_of, json, source=source)


for stage in IMAGES.stages:
    if stage.about and stage.name != "ingest":
        images_app.command(stage.name)(stage_command(IMAGES, stage))


@images_app.command()
def materialize(release: ReleaseId = None, json: Json = False) -> None:
    """Bring a release's embeddings into Redis through Feast.

    Example: plumb images materialize
    """
    from feature_repo import materialize

    show(materialize.materialize(IMAGES, release), json)
