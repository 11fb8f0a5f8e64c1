"""The daily stage `activity`: the day closes the order stream. It puts gates of several rooms into one stage."""

from __future__ import annotations

from feature_repo.churn.jobs import activity, activity_parity
from ingestion.events import reached
from plumbline.pipeline.stage import StageRun
from plumbline.progress import say
from validation.churn import orders_reconciled, stream_books


def close(run: StageRun) -> str:
    """Pins the stream's tables for the release, and judges what it wrote up to the end of the day.

    In a home in which no stream ever ran there is nothing to do. Raises NotYet when the stream has not reached the end
    of the day, GateFailed when a gate does not hold.
    """
    answer = reached.require(run.as_of)
    if answer.state == reached.NEVER:
        return f"{answer.message}: nothing to close"
    say(answer.message)
    window = stream_books.take(run, activity.TABLE)
    if window is None:
        return "the order stream has landed nothing yet"
    complete = stream_books.check(run, window)
    orders = orders_reconciled.check(run)
    parity = activity_parity.check(run, window.since, window.until)
    accepted = ", accepted" if orders.accepted else ""
    return (
        f"{complete.extra['messages']:,} messages are accounted for, {orders.extra['orders']:,} orders and "
        f"{orders.extra['events']:,} events reconciled{accepted}, {parity.extra.get('rows', 0):,} rows as the batch "
        "makes them"
    )
