"""Keeping the house: servers, settings, reports, the demo."""

from __future__ import annotations

from collections.abc import Container
from datetime import datetime
from typing import Annotated

import typer

from plumb.commands.base import HOUSE, Json, app, show
from products.churn import CHURN
from products.images import IMAGES


@app.command(rich_help_panel=HOUSE)
def report(json: Json = False) -> None:
    """Write the report's pages anew: a page a run, with its flow, gates, model, drift and answers.

    Example: plumb report
    """

    from plumb.reports import report_page

    show({"report": report_page.write(CHURN)}, json)


@app.command(rich_help_panel=HOUSE)
def settings(json: Json = False) -> None:
    """Every setting and its value, secrets masked.

    Example: PLUMBLINE_NOW=1998-07-01T00:00:00Z plumb settings
    """
    from plumbline import settings as module

    show(module.show(), json)


@app.command(rich_help_panel=HOUSE)
def up(json: Json = False) -> None:
    """Start what answers and what watches it: Redis, predictors, MLflow, exporter, Prometheus, Alertmanager.

    Nothing is trained or computed.

    Example: plumb up
    """
    from plumb.demo import up

    found = up.up()
    if json:
        show(found, json)
    else:
        for what, where in found.items():
            print(f"{what:25} {where}")
        print("stop with `make down`")
        for server, instance in _instances(found).items():
            body = f"'{{\"instances\": [{instance}]}}'"
            print(f"try: curl -s -H 'Content-Type: application/json' -d {body} {found[server]}")


def _instances(found: Container[str]) -> dict[str, str]:
    """What each of these servers may be asked."""
    from plumb.demo.images import asked

    known = {CHURN.server: '{"customer_id": 1}'} if CHURN.server in found else {}
    return known | ({IMAGES.server: f'{{"image_id": "{next(iter(asked(1)))}"}}'} if IMAGES.server in found else {})


@app.command(rich_help_panel=HOUSE)
def airflow(json: Json = False) -> None:
    """Start Airflow's API server with its pages, scheduler and DAG processor, to look at and to trigger runs in.

    Example: plumb airflow
    """
    from plumbline.orchestration import scheduler

    show(scheduler.start(), json)


@app.command(rich_help_panel=HOUSE)
def spark(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 15002,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 in a container.")] = "127.0.0.1",
) -> None:
    """Spark Connect's server for the lake in the settings, until SIGTERM; others name it in SPARK_REMOTE.

    It asks nobody who they are: only those who may change the lake may reach its port.

    Example: plumb spark --port 15002
    """
    from plumbline.lake import spark

    spark.serve(host, port)


@app.command(rich_help_panel=HOUSE)
def down() -> None:
    """Stop every process that this home started.

    Example: plumb down
    """
    from plumbline.servers import services

    print("stopped: " + (", ".join(services.stop_all()) or "nothing was running"))


@app.command(rich_help_panel=HOUSE)
def demo(
    until: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], metavar="DATE", help="Only orders up to this day; default: all of them."),
    ] = None,
    shop: Annotated[
        str | None, typer.Option("--shop", help="A folder of shops/; default: what the home serves.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the servers running, as `plumb up` would.")] = False,
) -> None:
    """The whole path through Airflow: orders in, live churn predictions out.

    Example: plumb demo
    """

    from plumb.demo import demo

    if shop is not None:
        demo.choose_shop(shop)
    demo.demo(until=until.date() if until else None, keep=keep)


@app.command("demo-events", rich_help_panel=HOUSE)
def demo_events() -> None:
    """Orders as events through Kafka: a customer's score moves seconds after an order, a kill changes nothing.

    It works in a home of its own, `demo-events` below the present one, on one in twenty of the shop's customers.
    Customers and amounts are real; that they order today is made up.

    Example: plumb demo-events
    """
    from plumb.demo import events

    events.run()


@app.command(rich_help_panel=HOUSE)
def replay(
    days: Annotated[int, typer.Option(min=1, help="How many days.")] = 1,
) -> None:
    """Days after the demo's last, each through Airflow: with real orders as long as there are some, without after that.

    Example: plumb replay --days 3
    """

    from plumb.demo import replay

    replay.replay(days)
