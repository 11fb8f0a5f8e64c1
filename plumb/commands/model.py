"""From a release to a model that answers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from plumb.commands.base import MODEL, Json, Of, ReleaseId, app, product_of, show
from plumb.commands.serve import serve_command
from products.churn import CHURN


@app.command(rich_help_panel=MODEL)
def dataset(
    release: ReleaseId = None,
    leaky: Annotated[
        bool, typer.Option("--leaky", help="Its twin without point-in-time correctness, to compare; never registered.")
    ] = False,
    json: Json = False,
) -> None:
    """Build the training dataset of a release, point in time, through Feast.

    With --leaky its twin: every observation takes the customer's newest features. Both are scored side by side, and
    the leakage gates judge the twin.

    Example: plumb dataset --release 2
    """

    from plumbline.state import trainings
    from training.churn import dataset
    from training.churn import leaky as leaky_module
    from validation import leakage

    if not leaky:
        show(dataset.build(release), json)
        return
    found = leaky_module.build(release)
    judged = leakage.verdict(trainings.place(CHURN, release, leaky=True))
    show({**found, **judged}, True) if json else leaky_module.tell(found, judged)


@app.command(rich_help_panel=MODEL)
def train(release: ReleaseId = None, json: Json = False) -> None:
    """Train and evaluate the churn model beside its baselines; everything goes to MLflow.

    Example: plumb train
    """

    from plumbline.state import trainings
    from training import runs

    show(runs.train(trainings.place(CHURN, release)), json)


@app.command(rich_help_panel=MODEL)
def register(release: ReleaseId = None, json: Json = False) -> None:
    """Sign and register the trained model; it becomes challenger when it is not worse than the champion.

    Not worse: its log loss is at most 0.002 nats above the champion's on the same test rows. Else it is registered
    without an alias (exit code 0).

    Every file of it is signed with PLUMBLINE_SIGNING_KEY, else with a demo key that this home makes for itself. Nothing
    is served that is not signed with the key whose public half is PLUMBLINE_VERIFY_KEY.

    Example: plumb register
    """

    from plumbline.state import trainings
    from training import register

    show(register.register(trainings.place(CHURN, release)), json)


@app.command(rich_help_panel=MODEL)
def resign(product: Of = "churn", json: Json = False) -> None:
    """Sign every registered version anew with the key that signs here now, so that an older key can be retired.

    Only what a key of PLUMBLINE_VERIFY_KEY signed is signed anew: give it the old and the new public key meanwhile.
    What nobody trusted signed stays as it is and is named (exit code 3).

    Example: plumb resign
    """

    from serving import resigning

    show(resigning.resign(product_of(product)), json)


@app.command(rich_help_panel=MODEL)
def deploy(
    model: Annotated[
        str | None, typer.Option(help="Switch to this one: challenger, previous, or a version's number.")
    ] = None,
    json: Json = False,
) -> None:
    """Make the first model champion; with --model, replace the champion, after a shadow check on real customers.

    The switch is all at once, and `--model previous` goes back: right for a laptop. For real traffic a canary is the
    way, a share at a time. A running predictor is started again with the new champion. A model whose files are not
    those that were signed is refused (exit code 3, the file is named); champion and predictor stay as they are.

    Example: plumb deploy --model challenger
    """

    from serving import deploy

    show(deploy.deploy(CHURN, model), json)


app.command("serve", rich_help_panel=MODEL)(serve_command(CHURN))


@app.command(rich_help_panel="Features")
def preview(
    table: Annotated[str | None, typer.Argument(help="A table; default: each one whose code changed.")] = None,
    sample: Annotated[float, typer.Option(help="Share of the customers, with their whole histories.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Another seed, other customers.")] = 1997,
    json: Json = False,
) -> None:
    """Run changed models or features on a sample, beside the release in force. Publishes nothing.

    Rows, columns, distributions, dbt's tests, what it does to the model, and what else reads it. Exit code 1 when
    something cannot be built or a test fails.

    Example: plumb preview features.customers --sample 0.2
    """

    from plumb.reports.preview import page, preview

    found = preview.preview(table, sample, seed)
    if json:
        show([asdict(made) for made in found], True)
    elif not found:
        print(preview.nothing_changed())
    for made in found:
        if not json:
            page.show(made)
    if any(made.failed for made in found):
        raise typer.Exit(1)
