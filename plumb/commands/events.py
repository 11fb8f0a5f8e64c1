"""The order stream: `plumb events …`."""

from __future__ import annotations

import signal
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import typer

from plumb.commands.base import DATA, Json, app, day, show
from plumbline.progress import say

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


@events_app.command()
def run(
    once: Annotated[bool, typer.Option("--once", help="Drain the topic and end.")] = False,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds from one batch to the next.")] = 1.0,
    most: Annotated[int, typer.Option("--batch", min=1, help="Messages in a batch, at most.")] = 100_000,
    metrics_port: Annotated[int, typer.Option(min=0, max=65_535, help="Where /metrics is; 0 chooses a free port.")] = 0,
    metrics_host: Annotated[str, typer.Option(help="Address of /metrics; 0.0.0.0 in a container.")] = "127.0.0.1",
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Go on behind messages that the broker deleted before they landed.")
    ] = False,
    accept_new_topic: Annotated[
        bool, typer.Option("--accept-new-topic", help="Go on with a topic that was deleted and made anew.")
    ] = False,
    json: Json = False,
) -> None:
    """Land order events from Kafka, compute customers' activity and bring it to Redis, until SIGTERM or Ctrl-C.

    An event lands once, whatever is killed and however often it is sent. What is no event of the contract goes to the
    dead letters: `plumb events dead-letters`.

    Example: plumb events run --once
    """
    for number in (signal.SIGTERM, signal.SIGINT):  # in mid-import an exit is a traceback; nothing is begun yet
        signal.signal(number, signal.SIG_DFL)
    from feature_repo import live_rows
    from feature_repo.churn.jobs import activity
    from ingestion.events import stream
    from products.churn import CHURN

    view = "customer_activity"

    def online(rows: Any) -> None:
        live_rows.write(CHURN, view, rows)

    def ready() -> None:
        if mended := live_rows.repair(CHURN, view):
            say(f"{mended:,} rows of {view} in Redis were not what the lake holds: they are now")

    plan = stream.Plan(
        activity.rows,
        activity.TABLE,
        online,
        ready,
        once=once,
        every=every,
        most=most,
        accept_loss=accept_loss,
        accept_new_topic=accept_new_topic,
        metrics_port=metrics_port,
        metrics_host=metrics_host,
    )
    report = stream.run(plan)
    if json:
        show(asdict(report), True)
        return
    told = ", ".join(f"{count:,} {reason}" for reason, count in sorted(report.reasons.items()))
    print(
        f"{report.messages:,} messages in {report.batches:,} batches and {report.seconds:.1f} s: {report.landed:,} "
        f"events landed, {report.duplicates:,} duplicates, {report.dead_letters:,} dead letters"
        + (f" ({told})" if told else "")
    )


@events_app.command()
def backfill(
    since: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], metavar="DATE", help="The first day.")],
    until: Annotated[
        datetime | None,
        typer.Option(
            "--to", formats=["%Y-%m-%d"], metavar="DATE", help="The last day; default: the last that is over."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Give the stream a past, before its first batch: the shop's orders as if it had landed them when they were placed.

    A model that reads customers' activity needs one to be trained on. The batches are named backfill/N.

    Example: plumb events backfill --from 1997-01-01 --to 1998-06-29
    """
    from feature_repo.churn.jobs import activity
    from ingestion.events import backfill as past

    counts = past.backfill(activity.rows, activity.TABLE, since.date(), day(until))
    told = f"{counts['events']:,} events in {counts['batches']:,} batches, {counts['rows']:,} rows of {activity.TABLE}"
    show(counts, True) if json else print(told)


@events_app.command("dead-letters")
def dead_letters(
    since: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], metavar="DATE", help="Known since this day.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Of this reason alone.")] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="How many are shown.")] = 20,
    replay: Annotated[
        bool, typer.Option("--replay", help="Send their messages to the topic again, after a mend.")
    ] = False,
    json: Json = False,
) -> None:
    """Messages that are no events of the contract: where they are in the topic, why, and what they say.

    Example: plumb events dead-letters --reason wrong_type --replay
    """
    from ingestion.events import dead_letters as letters
    from plumbline.servers import kafka

    first = since.date() if since else None
    if replay:
        sent = letters.replay(kafka.broker(), first, reason)
        show({"sent": sent}, True) if json else print(f"{sent:,} messages sent again; `plumb events run` reads them")
        return
    rows = letters.listed(first, reason, most)
    if json:
        show({"counts": letters.counted(first), "newest": rows}, True)
        return
    for row in rows:  # a stranger's bytes: quoted, as they could drive the terminal
        print(
            f"{row['topic']}/{row['partition']}/{row['offset']}  {row['reason']}: {row['detail']}\n    {row['value']!r}"
        )
    print(", ".join(f"{count:,} {name}" for name, count in letters.counted(first).items()) or "none")


@events_app.command()
def reached(
    on: Annotated[
        datetime | None,
        typer.Option("--day", formats=["%Y-%m-%d"], metavar="DATE", help="Default: the last day that is over."),
    ] = None,
    wait: Annotated[float, typer.Option(min=0, help="Ask again for so many seconds before it is not yet.")] = 0.0,
    json: Json = False,
) -> None:
    """Whether the stream has reached the end of a day, or what lags: exit code 0, or 6 for not yet.

    It has once a batch counts from the next day on, or all that the topic holds has landed. A home in which no stream
    ever ran has nothing to wait for.

    Example: plumb events reached --day 1998-06-30
    """
    from ingestion.events import reached as stream
    from plumbline.errors import NotYet

    answer = stream.wait_for(day(on), wait)
    show(asdict(answer), True) if json else print(f"{answer.day}: {answer.state}: {answer.message}")
    if not answer.over:
        raise typer.Exit(NotYet.exit_code)
