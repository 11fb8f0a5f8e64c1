"""A canary on this machine: real model servers behind a real Envoy, walked through the cluster's own Rollout."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from plumb.commands.base import HOUSE, Json, Of, app, product_of, show

rollout = typer.Typer(no_args_is_help=True, help="Roll a model out by a canary: start, status, watch, promote, abort.")
app.add_typer(rollout, name="rollout", rich_help_panel="The model")

Args = Annotated[
    list[str] | None,
    typer.Option("--arg", metavar="NAME=VALUE", help="Another value for an arg of the AnalysisTemplates; repeatable."),
]


@rollout.command()
def start(
    model: Annotated[str, typer.Argument(help="The version to roll out: challenger, or a number.")] = "challenger",
    arg: Args = None,
    simulate: Annotated[
        float, typer.Option(help="So many simulated requests a second, with simulated outcomes; 0: yours alone.")
    ] = 0.0,
    product: Of = "churn",
    json: Json = False,
) -> None:
    """Start a canary beside the champion and walk the steps of k8s/PRODUCT/base/rollout.yaml; until it has ended.

    Callers go through Envoy, whose address is said. The guardrails are those that the steps name; an analysis that
    fails sends all traffic back to the champion (exit code 3). While another rollout is under way its canary is
    replaced, as Argo Rollouts does. The alias `champion` moves only when the last step is done.

    Example: plumb rollout start challenger --simulate 80 --arg count=10
    """

    from plumb.demo import canary

    status = canary.roll_out(product_of(product), model, dict(_pairs(arg)), simulate)
    show(_summary(status), json)


@rollout.command()
def status(product: Of = "churn", json: Json = False) -> None:
    """The rollout that is under way, or the last one. One whose driver was killed is brought to an end first.

    Example: plumb rollout status
    """

    from serving.rollout import driver, table

    found = driver.recover(product_of(product))
    if json:
        show(asdict(found) if found else {"phase": None}, True)
    elif found is None:
        print("nothing was rolled out here yet")
    else:
        from plumbline.display import terminal

        terminal.console(140).print(table.rendered(found))


@rollout.command()
def watch(product: Of = "churn") -> None:
    """Show the rollout that is under way until it has ended.

    Example: plumb rollout watch
    """

    from serving.rollout import following

    found = following.follow(product_of(product))
    print(f"{found.phase}: {found.message}" if found else "nothing was rolled out here yet")


@rollout.command()
def abort(product: Of = "churn", json: Json = False) -> None:
    """Send all traffic back to the champion and stop the canary. Nothing happens when no rollout is under way.

    Example: plumb rollout abort
    """

    from serving.rollout import following

    show(_summary(following.ask(product_of(product), "abort", by="`plumb rollout abort`")), json)


@rollout.command()
def promote(
    full: Annotated[bool, typer.Option("--full", help="Skip every step and analysis that is left.")] = False,
    product: Of = "churn",
    json: Json = False,
) -> None:
    """Go on from a pause, also one of an inconclusive analysis; with --full make the canary stable now.

    Example: plumb rollout promote
    """

    from serving.rollout import following

    show(_summary(following.ask(product_of(product), "full" if full else "promote")), json)


@rollout.command()
def settle(
    version: Annotated[str, typer.Option(help="The version whose rollout completed.")],
    product: Of = "churn",
    json: Json = False,
) -> None:
    """Move the alias `champion` to a version whose rollout completed, recorded as a deployment.

    A rollout on this machine does it by itself; in a cluster a job does, once Argo CD sees the Rollout healthy.

    Example: plumb rollout settle --version 4
    """

    from serving import deploy

    show(deploy.settle(product_of(product), version), json)


@rollout.command()
def attend(
    product: Of = "churn", once: Annotated[bool, typer.Option("--once", help="Look once, then end.")] = False
) -> None:
    """In a stack of containers, until SIGTERM: stable serves the champion, a rollout left by a killed driver is ended.

    Example: plumb rollout attend
    """

    from serving.rollout import attending

    (attending.look if once else attending.attend)(product_of(product))


@app.command("demo-canary", rich_help_panel=HOUSE)
def demo_canary(
    product: Of = "churn",
    bad: Annotated[
        str | None,
        typer.Option(help="The bad model: leaky, swapped, slow, features; of images swapped, unsure; or all."),
    ] = None,
    good: Annotated[bool, typer.Option("--good/--no-good", help="Roll a good model out first.")] = True,
    per_second: Annotated[float, typer.Option(help="Simulated requests a second.")] = 120.0,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the servers running.")] = False,
    json: Json = False,
) -> None:
    """After the demo: a good model rolled out 10, 25, 50, 100 %, and a bad one stopped on its way, in front of you.

    Real requests through a real Envoy to two real model servers. Who asks, and what came of it after (what a customer
    did, what a reviewer said of a picture), is simulated and says so.

    Example: plumb demo-canary --bad slow
    """

    from plumb.demo import canary

    found = canary.demo(product_of(product), bad, good, per_second, keep, quiet=json)
    if json:
        show(found, True)


def _pairs(given: list[str] | None) -> list[tuple[str, str]]:
    pairs = []
    for text in given or []:
        name, found, value = text.partition("=")
        if not found or not name:
            raise typer.BadParameter(f"--arg {text!r}: expected NAME=VALUE")
        pairs.append((name, value))
    return pairs


def _summary(status: Any) -> dict[str, object]:
    if status is None:
        return {"phase": "none", "message": "no rollout is under way"}
    told = ("number", "phase", "message", "weight", "exposed", "stable", "canary")
    return {name: asdict(status)[name] for name in told}
