"""Whether a model may be believed: what its dataset could know, and whether it can be made again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from plumb.commands.base import MODEL, Json, ReleaseId, app, show
from products.churn import CHURN

if TYPE_CHECKING:
    from plumbline.state.trainings import Place


@app.command("leakage_check", rich_help_panel=MODEL)
def leakage_check(
    release: ReleaseId = None,
    leaky: Annotated[
        bool, typer.Option("--leaky", help="Judge the twin of `plumb dataset --leaky`: it fails.")
    ] = False,
    json: Json = False,
) -> None:
    """Gate: no feature knows the answer, none is newer than its observation, no row is on both sides of the split.

    `plumb train` asks for its verdict. Limits, with what honest data measures: validation/leakage.yaml. Exit code 3
    stops the line.

    Example: plumb leakage_check --release 2
    """

    from plumbline.state import trainings

    judge(trainings.place(CHURN, release, leaky=leaky), json)


def judge(place: Place, as_json: bool) -> None:
    """Judges a dataset and says what each gate found."""
    from plumbline import verdict
    from validation import leakage

    found = leakage.check(place)
    if as_json:
        show(found, True)
        return
    print(f"leakage_check of {found['dataset_id']}: {found['state']}, {found['verdict']}")
    for name, gate in verdict.read(found["gates"], found["dataset_id"]).items():
        print(f"    {name}: {gate.verdict} ({gate.expectations} checks)")


@app.command(rich_help_panel=MODEL)
def reproduce(
    run: Annotated[str, typer.Argument(help="An MLflow run's id, or NAME:N for a registered version.")],
    keep: Annotated[bool, typer.Option("--keep", help="Leave the rebuilt home where it is, to look at.")] = False,
    json: Json = False,
) -> None:
    """Make a model again from what MLflow says of it, and compare: dataset, model bytes, every prediction.

    Of whichever product: the run's experiment says it. `model:N` is short for churn's `churn_xgb:N`; N may be an alias.
    Its commit is checked out beside this one, its dataset built from the lake at the recorded versions in a home of its
    own that has neither the stored dataset nor the stored model. Exit code 1 names the link that is broken.

    Example: plumb reproduce model:1
    """

    from training import reproduce

    found = reproduce.reproduce(run, keep)
    if json:
        show(found, True)
    else:
        reproduce.tell(found)
    if found["broken"]:
        raise typer.Exit(1)
