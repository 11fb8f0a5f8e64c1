"""The image product's model: from a release's dataset to a registered classifier, `plumb images dataset` and on."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plumb.commands.base import Json, ReleaseId, show
from plumb.commands.images import images_app

if TYPE_CHECKING:
    from plumbline.state.trainings import Place

Service = Annotated[
    str | None, typer.Option("--service", help="A feature service, as in images_v2; default: the newest released.")
]
Cutoff = Annotated[
    datetime | None,
    typer.Option(
        "--cutoff",
        formats=["%Y-%m-%d"],
        metavar="DATE",
        help="The last day whose images and labels count; default: the release's last day.",
    ),
]
Leaky = Annotated[bool, typer.Option("--leaky", help="The leaky twin instead: to compare, never registered.")]


def _place(release: int | None, service: str | None, cutoff: datetime | None) -> Place:
    from training.images import dataset

    return dataset.place(release, service, cutoff.date() if cutoff else None)


@images_app.command()
def dataset(
    release: ReleaseId = None, service: Service = None, cutoff: Cutoff = None, leaky: Leaky = False, json: Json = False
) -> None:
    """04: Build the dataset of a release, point in time, split by group; DVC keeps the version.

    The label is the newest one known at the cutoff. Near duplicates are on one side of the split. With --leaky its
    twin: copies augmented before the split, later reviewed labels, a random split. Both are scored side by side, and
    the leakage gates judge the twin.

    Example: plumb images dataset --cutoff 2026-11-20
    """
    from dataclasses import replace

    from training.images import dataset as honest
    from training.images import leaky as twin
    from validation import leakage

    place = _place(release, service, cutoff)
    if not leaky:
        show(honest.build(place), json)
        return
    about = twin.build(place)
    judged = leakage.verdict(replace(place, leaky=True))
    show({**about, **judged}, True) if json else twin.tell(about, judged)


@images_app.command()
def checkout(
    dataset_id: Annotated[str, typer.Argument(help="A version's name, as in dataset_v1.0_pit_20261120T000000Z_….")],
    folder: Annotated[Path | None, typer.Argument(help="Where its folder goes; default: datasets in home.")] = None,
    json: Json = False,
) -> None:
    """Bring back a version of a dataset by `dvc pull`, and prove by its hash that it is the one.

    Example: plumb images checkout dataset_v1.0_pit_20261120T000000Z_0123456789ab
    """
    from training.images import versions

    show(versions.checkout(dataset_id, folder), json)


@images_app.command("leakage_check")
def leakage_check(
    release: ReleaseId = None, service: Service = None, cutoff: Cutoff = None, leaky: Leaky = False, json: Json = False
) -> None:
    """Gate: no near duplicate or copy is on two sides, nothing beside the pixels gives a label away, nothing is newer.

    `plumb images train` asks for its verdict. Limits: validation/leakage.yaml. Exit code 3 stops the line.

    Example: plumb images leakage_check
    """
    from dataclasses import replace

    from plumb.commands.trust import judge

    judge(replace(_place(release, service, cutoff), leaky=leaky), json)


@images_app.command()
def train(release: ReleaseId = None, service: Service = None, cutoff: Cutoff = None, json: Json = False) -> None:
    """05: Train the classifier on embeddings beside a baseline; the model is one ONNX file in MLflow.

    Example: plumb images train
    """
    from training import runs

    show(runs.train(_place(release, service, cutoff)), json)


@images_app.command()
def register(release: ReleaseId = None, service: Service = None, cutoff: Cutoff = None, json: Json = False) -> None:
    """Sign and register the trained classifier; it becomes challenger when it is not worse than the champion.

    Not worse: its log loss is at most 0.002 nats above the champion's on the same test images. Else it is registered
    without an alias (exit code 0).

    Example: plumb images register
    """
    from training import register as registry

    show(registry.register(_place(release, service, cutoff)), json)
