"""The gate `orders_reconciled`: the day's orders in the shop, and the day's events, are the same orders.

The shop's database and the topic are two ways by which an order comes here. Training reads the one, the newest features
come by the other: an order that only one of them has is scored by half of the truth.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from plumbline import clock
from plumbline.contracts.contract import VERSION_ORDER
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.pipeline import gates
from plumbline.pipeline.stage import StageRun
from plumbline.progress import say
from plumbline.state import acceptances
from plumbline.verdict import Verdict
from validation.churn import thresholds
from validation.churn.stream_books import BOOKS, EVENTS
from validation.churn.thresholds import OrdersReconciled

if TYPE_CHECKING:
    import pandas as pd

GATE = "orders_reconciled"
ORDERS = "raw.orders"
VALUES = ("customer_id", "units", "total_cents")
SAMPLES = 5


@dataclass(frozen=True)
class Finding:
    """Orders of a day that do not agree in one way: how many, of how many, some of their ids; `broken` when that is
    more than the limit."""

    day: date
    kind: str
    count: int
    of: int
    keys: list[Any]
    told: str
    broken: bool


def check(run: StageRun) -> Verdict:
    """Compares the run's days, from the one on which the stream began. That one is told and not judged: the stream saw
    only a part of it.

    Raises GateFailed that names the orders, unless somebody accepted it for the day. What was landed is set aside.
    """
    limits = thresholds.load().orders_reconciled
    began = _began(run)
    first = max(began, run.base.as_of + timedelta(days=1)) if run.base and BOOKS in run.base.tables else began
    days = [first + timedelta(days=n) for n in range((run.as_of - first).days + 1)]
    orders, events = _orders(run, days), _events(run, days)
    findings = [one for day in days for one in judge(day, orders, events, limits, partial=day == began)]
    for finding in findings:
        say(finding.told)
    broken = [finding for finding in findings if finding.broken]
    accepted = acceptances.accepted(run.product.name, GATE, run.as_of) if broken else None
    verdict = Verdict(
        GATE,
        not broken or accepted is not None,
        3 * len(days),
        tuple(finding.told for finding in broken),
        accepted=accepted,
        extra={
            "orders": len(orders),
            "events": len(events),
            "told": [finding.told for finding in findings if not finding.broken],
        },
    )
    evidence = {"versions": {ORDERS: run.pin(ORDERS), **run.named}, "findings": [asdict(one) for one in findings]}
    reported = gates.record(run, verdict, evidence)
    if not reported.passed:
        raise GateFailed(
            f"{GATE}: the shop's orders and the events are not the same, nothing is published:\n  "
            + "\n  ".join(verdict.failed)
            + f"\n  Evidence: {reported.report}; limits and reasons: {thresholds.place()}.\n  What was landed is set "
            "aside. If orders lack, mend them in the shop; if events lack, have the producer send them and run `plumb "
            f"events run --once`. If it is real, accept it: `plumb gate accept {GATE} --as-of {run.as_of} --why …`. "
            f"Either way start over with `{run.product.command_of(run.product.daily_stages[0])} --as-of {run.as_of}`."
        )
    return reported


def judge(
    day: date, orders: pd.DataFrame, events: pd.DataFrame, limits: OrdersReconciled, *, partial: bool
) -> Iterable[Finding]:
    """What does not agree on a day. Both frames have `day`, `order_id` and VALUES, `orders` also `deleted`: an order
    that the shop deleted had its event, and is not compared.

    On a `partial` day, or one of few orders, nothing is broken.
    """
    mine, theirs = orders[orders["day"] == day], events[events["day"] == day]
    shown = mine[~mine["deleted"]]
    of = max(len(shown), theirs["order_id"].nunique())
    without_event = shown.loc[~shown["order_id"].isin(theirs["order_id"]), "order_id"]
    without_order = theirs.loc[~theirs["order_id"].isin(mine["order_id"]), "order_id"]
    both = shown.merge(theirs, on="order_id", suffixes=("", "_event"))
    differs = both[[*VALUES]].to_numpy() != both[[f"{name}_event" for name in VALUES]].to_numpy()
    repeated = both.loc[both.duplicated("order_id"), "order_id"]
    differing = set(both.loc[differs.any(axis=1), "order_id"]) | set(repeated)
    for kind, limit, found, words in (
        ("without_event", limits.without_event, without_event, f"orders in {ORDERS} have no event"),
        ("without_order", limits.without_order, without_order, f"orders of events are not in {ORDERS}"),
        ("differing", limits.differing, differing, f"orders differ in {', '.join(VALUES)}, or have several events"),
    ):
        keys = sorted(set(found))
        if not keys:
            continue
        judged = not partial and of >= limits.fewest_compared.value
        broken = judged and len(keys) / of > limit.value
        why = ""
        if not judged:
            why = "; the stream began on that day, not judged" if partial else "; too few orders to be judged"
        told = (
            f"{day}: {len(keys):,} of {of:,} {words}, {len(keys) / of:.1%}, at most {limit.value:.0%}: order_id "
            f"{', '.join(map(str, keys[:SAMPLES]))}{' …' if len(keys) > SAMPLES else ''}{why}"
        )
        yield Finding(day, kind, len(keys), of, keys[:SAMPLES], told, broken)


def _began(run: StageRun) -> date:
    """The day on which the first batch landed."""
    dates = (str(part["known_date"]) for part in lake.open_table(BOOKS, run.pin(BOOKS)).partitions())
    return datetime.fromisoformat(min(dates)).date()


def _orders(run: StageRun, days: list[date]) -> pd.DataFrame:
    """The newest version of each order that is dated one of the days."""
    import pyarrow as pa
    import pyarrow.compute as pc

    dataset = lake.open_table(ORDERS, run.pin(ORDERS)).to_pyarrow_dataset()
    kept = ~pc.field("batch_id").isin(pa.array(run.candidate.rejected, pa.string()))
    kept = kept & (pc.field("known_at") < clock.end_of(run.as_of))
    names = ["order_id", "order_date", *VALUES, *VERSION_ORDER]
    names += ["deleted_at"] if "deleted_at" in dataset.schema.names else []
    dated = pc.field("order_date").isin(pa.array(days, pa.date32()))
    ids = dataset.to_table(columns=["order_id"], filter=kept & dated)["order_id"].unique()
    rows = dataset.to_table(columns=names, filter=kept & pc.field("order_id").isin(ids)).to_pandas()
    newest = rows.sort_values(list(VERSION_ORDER)).drop_duplicates("order_id", keep="last")
    deleted = newest["deleted_at"].notna() if "deleted_at" in newest else False
    found: pd.DataFrame = newest.assign(day=newest["order_date"], deleted=deleted)
    return found[["day", "order_id", *VALUES, "deleted"]].reset_index(drop=True)


def _events(run: StageRun, days: list[date]) -> pd.DataFrame:
    """The events of the days, whenever they were known; an event is known at most five minutes before its time."""
    import pandas as pd
    import pyarrow.compute as pc

    columns = ["event_time", "order_id", *VALUES]
    if EVENTS not in run.named:
        return pd.DataFrame({name: [] for name in ("day", *columns[1:])})
    first, end = clock.end_of(days[0] - timedelta(days=1)), clock.end_of(days[-1])
    moment, known = pc.field("event_time"), pc.field("known_date")
    within = (known >= days[0] - timedelta(days=1)) & (moment >= first) & (moment < end)
    dataset = lake.open_table(EVENTS, run.pin(EVENTS)).to_pyarrow_dataset()
    rows = dataset.to_table(columns=columns, filter=within).to_pandas()
    found: pd.DataFrame = rows.assign(day=rows["event_time"].dt.date)
    return found[["day", *columns[1:]]]
