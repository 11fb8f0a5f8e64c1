"""What predictions are worth: outcomes, simulated in this repository, and the KPIs made of them."""

from __future__ import annotations

from typing import Annotated

import typer

from plumb.commands.base import Json, Of, app, product_of, show

BUSINESS = "Business"

simulate = typer.Typer(
    help="What the demo makes up, and says so: requests, and what customers did after them.", no_args_is_help=True
)
app.add_typer(simulate, name="simulate", rich_help_panel=BUSINESS)

Seed = Annotated[int, typer.Option(help="The same seed, the same simulation.")]


@simulate.command("traffic")
def traffic(
    requests: Annotated[int, typer.Option(min=1, max=100_000, help="How many, for one customer each.")] = 200,
    seconds: Annotated[float, typer.Option(min=0, help="Spread them over so long; 0: as fast as one client can.")] = 0,
    seed: Seed = 1997,
    json: Json = False,
) -> None:
    """Ask the running predictor about real customers, over HTTP. Request ids begin with `simulated-`.

    Example: plumb up && plumb simulate traffic --requests 200
    """

    from plumb.demo import simulation

    show(simulation.traffic(requests, seed, seconds), json)


@simulate.command("outcomes")
def outcomes(product: Of = "churn", seed: Seed = 1997, json: Json = False) -> None:
    """Simulate what came of each logged prediction that has no outcome yet; a second time changes nothing.

    From the customer, the campaign's action and what the customer really did, never from the model that scored. Where
    CDNOW's file ends before the 90 days after the request, its last 90 days stand in; each row names its window. Of
    images, a simulated reviewer says the label that the picture has.

    Example: plumb simulate outcomes
    """

    from plumb.demo import simulation

    show(simulation.outcomes(product_of(product), seed), json)


@app.command(rich_help_panel=BUSINESS)
def kpis(json: Json = False) -> None:
    """Build analytics.business_kpis by dbt, and show it: by model version, track and day. Not part of the daily run.

    The rates are of all customers with a known outcome, contacted or not, so that versions can be compared. Exit code
    3 when a dbt test fails; the table stays as it was.

    Example: plumb simulate outcomes && plumb kpis
    """

    from transform import business_kpis

    found = business_kpis.kpis()
    if json:
        show(found, True)
        return
    from plumbline.display import terminal

    numbers = ("predictions", "known", "contacted", "conversion", "calls each", "retained", "handle time s")
    simulated = "SIMULATED outcomes" if any(row["is_simulated"] for row in found) else "recorded outcomes"
    table = terminal.table(f"Business KPIs, {simulated}", "day", "model", "track", *numbers, right=numbers)
    for row in found:
        counts = [f"{row[name]:,}" for name in ("predictions", "known_outcomes", "contacted_customers")]
        rates = [terminal.number(row[name], "{:.3f}") for name in ("conversion_rate", "call_center_load")]
        last = [f"{row['retained_customers']:,}", terminal.number(row["avg_handle_time"], "{:.0f}")]
        table.add_row(str(row["request_day"]), row["model_version"], row["track"], *counts, *rates, *last)
    terminal.console(130).print(table)
