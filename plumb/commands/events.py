"""The order stream: `plumb events …`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer

from plumb.commands.base import DATA, Json, app, day, show

events_app = typer.Typer(help="Orders as events, through Kafka.", no_args_is_help=True)
app.add_typer(events_app, name="events", rich_help_panel=DATA)


def _share(told: str) -> float:
    return typer.Option(0.0, min=0, max=1, help=f"Share of the events {told}.", rich_help_panel="Faults on request")  # type: ignore[no-any-return]


@events_app.command()
def produce(
    since: Annotated[
        datetime | None,
        typer.Option("--from", formats=["%Y-%m-%d"], metavar="DATE", help="The first day; default: the last one."),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(
            "--to", formats=["%Y-%m-%d"], metavar="DATE", help="The last day; default: the last that is over."
        ),
    ] = None,
    rate: Annotated[float, typer.Option(min=0, help="Events a second; 0: as fast as the broker takes them.")] = 100.0,
    duplicates: float = _share("that are sent twice"),
    late: float = _share("that come behind 200 others"),
    out_of_order: float = _share("that change places with the next one"),
    malformed: float = _share("before which half a message is sent"),
    wrong_typed: float = _share("before which one with a word for a number is sent"),
    seed: Annotated[int, typer.Option(help="Which events get a fault.", rich_help_panel="Faults on request")] = 7,
    json: Json = False,
) -> None:
    """Send the shop's orders of some days as events, keyed by customer, to the topic shop.orders.

    The second within the day is made up. Sent again, the same orders are duplicates and no new events. Kafka is the one
    of PLUMBLINE_KAFKA_URL, or a private one that this starts.

    Example: plumb events produce --to 1997-10-07 --rate 1000 --duplicates 0.01
    """
    from ingestion.events import produce as producer
    from plumbline.servers import kafka

    faults = producer.Faults(duplicates, late, out_of_order, malformed, wrong_typed, seed)
    last = day(until)
    sent = producer.days(kafka.broker(), since.date() if since else last, last, rate, faults)
    if json:
        show({**asdict(sent), "messages": sent.messages}, True)
        return
    more = {"duplicates": sent.duplicates, "malformed": sent.malformed, "of a wrong type": sent.wrong_typed}
    also = "".join(f", {count:,} {what}" for what, count in more.items() if count)
    moved = "".join(f", {n:,} {what}" for what, n in (("late", sent.late), ("out of order", sent.out_of_order)) if n)
    print(f"{sent.events:,} events{moved}{also}: {sent.messages:,} messages in {sent.seconds:.1f} s")
