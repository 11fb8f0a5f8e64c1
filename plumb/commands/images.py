"""The image product: `plumb images STAGE`, seven stages from a raw picture to a model that can be made again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plumb.commands.base import HOUSE, AsOf, Json, ReleaseId, app, day, perform, show, stage_command
from plumb.commands.base import IMAGES as PANEL
from plumb.commands.parity import parity_command
from plumb.commands.serve import serve_command
from products.images import IMAGES

images_app = typer.Typer(help="What a picture shows: ingest, clean, embed, train, serve.", no_args_is_help=True)
BEGINS = "The image's id, or how it begins."
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
    from ingestion.images.ingest import refuse_other_source

    if source is not None:
        refuse_other_source(day(as_of), source)
    perform(IMAGES, IMAGES.stage("ingest"), as_of, json, source=source)


@images_app.command()
def features(
    embedding: Annotated[
        list[str] | None,
        typer.Option(help="A version of embeddings, as v2; again for several. Default: PLUMBLINE_IMAGES_EMBEDDINGS."),
    ] = None,
    as_of: AsOf = None,
    json: Json = False,
) -> None:
    """03: Embed each clean picture that has no embedding of this version yet.

    Versions that the release has are carried on beside those that are asked for. A killed run goes on where it was.

    Example: plumb images features --embedding v2
    """
    perform(IMAGES, IMAGES.stage("features"), as_of, json, versions=embedding)


OWN = ("ingest", "features")
"""Stages whose commands are above, for they have options of their own."""

for stage in IMAGES.stages:
    if stage.about and stage.name not in OWN:
        images_app.command(stage.name)(stage_command(IMAGES, stage))


@images_app.command()
def materialize(release: ReleaseId = None, json: Json = False) -> None:
    """Bring a release's embeddings into Redis through Feast.

    Example: plumb images materialize
    """
    from feature_repo import materialize

    show(materialize.materialize(IMAGES, release), json)


images_app.command("parity_check")(parity_command(IMAGES))


@images_app.command()
def nearest(
    image: Annotated[str, typer.Argument(metavar="IMAGE_ID", help=BEGINS)],
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="So many pictures.")] = 5,
    embedding: Annotated[str, typer.Option(help="The version of embeddings that is compared.")] = "v1",
    release: ReleaseId = None,
    json: Json = False,
) -> None:
    """The pictures that look most like one: exact search over a release's embeddings, by cosine similarity.

    Example: plumb images nearest 0123456789abcdef0123456789abcdef -n 3
    """
    from feature_repo.images import nearest

    found = nearest.nearest(image, count, embedding, release)
    if json:
        show(found, True)
    for item in [] if json else found:
        print(f"{item['similarity']:.4f}  {item['image_id']}  {item['label'] or '–'}  {item['uri']}")


@images_app.command()
def deploy(
    model: Annotated[
        str | None, typer.Option(help="Switch to this one: challenger, previous, or a version's number.")
    ] = None,
    json: Json = False,
) -> None:
    """06: Make the first model champion; with --model, replace the champion after a shadow check on images online.

    A model whose files are not those that were signed is refused (exit code 3).

    Example: plumb images deploy --model challenger
    """
    from serving import deploy

    show(deploy.deploy(IMAGES, model), json)


images_app.command("serve")(serve_command(IMAGES))


@app.command("demo-images", rich_help_panel=HOUSE)
def demo_images(
    source: Annotated[
        str | None, typer.Option(help="Where pictures come from, as in `plumb images ingest`; default: mnist.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the servers running.")] = False,
) -> None:
    """The image product through Airflow: pictures in, live answers out, and a page of what came of it.

    Example: plumb demo-images --source mnist:500
    """
    from plumb.demo import images

    images.demo(source, keep)


@images_app.command()
def why(
    image: Annotated[str, typer.Argument(metavar="IMAGE_ID", help=BEGINS)],
    json: Json = False,
) -> None:
    """Everything behind one image: labels, cleaning and its picture, embeddings, datasets, answers.

    Example: plumb images why 3f2a
    """
    from plumb.reports import images_why

    found = images_why.why(image)
    show(found, True) if json else images_why.show(found)


By = Annotated[str, typer.Option("--by", help="Who states it.")]


@images_app.command()
def label(
    image_id: Annotated[str, typer.Argument(metavar="IMAGE_ID", help=BEGINS)],
    label: Annotated[str, typer.Argument(metavar="LABEL")],
    by: By,
    json: Json = False,
) -> None:
    """State what a picture shows. It lands with the day's run, as a new row; the label at ingestion stays.

    Example: plumb images label 5ba2c0a8d6f94ed0c2f8a1c3a5d7e9f0 7 --by ada
    """
    from ingestion.images import relabels

    show(relabels.state(image_id, label, by), json)


@images_app.command()
def relabel(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A CSV with the columns image_id and label.")],
    by: By,
    json: Json = False,
) -> None:
    """State what many pictures show, from a CSV.

    Example: plumb images relabel reviewed.csv --by ada
    """
    from ingestion.images import relabels

    show(relabels.state_file(file, by), json)


@images_app.command()
def quarantine(
    reason: Annotated[str | None, typer.Option(help="Only what was set aside for this reason.")] = None,
    release: ReleaseId = None,
    json: Json = False,
) -> None:
    """What cleaning set aside, with the reason of each picture.

    Example: plumb images quarantine --reason truncated
    """
    from ingestion.images import quarantine as module

    entries = module.listed(release, reason)
    show(entries if json else module.told(entries, most=50), json)


@images_app.command("lineage_check")
def lineage_check(release: ReleaseId = None, json: Json = False) -> None:
    """Gate: every step from the source to a release's embeddings was seen, at its versions. Exit code 3 stops.

    Example: plumb images lineage_check
    """
    from validation import lineage_check

    show(lineage_check.check(IMAGES, release), json)
