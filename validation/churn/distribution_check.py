"""The gates of `distribution_check`: is what this run brought like what the last good releases hold?

Five gates over exactly the versions that the run wrote: `orders_volume`, `orders_repeated`, `null_ratio`,
`orders_shift` and `features_shift`. Their limits stand in thresholds.yaml. What they find can be real (a sale, a
holiday), so each can be accepted for a day (acceptances.py). No Spark: Delta tables are read with delta-rs, in
a second or two.

A run that covers many days (the first one: all of history) is judged day by day for its volume; for the rest its newest
days are judged by those before them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from plumbline.contracts import contract as contracts
from plumbline.errors import GateFailed
from plumbline.lake import tables as lake
from plumbline.lake.distributions import describe, psi
from plumbline.lake.table_diff import numbers
from plumbline.pipeline import gates
from plumbline.pipeline.stage import StageRun
from plumbline.progress import say
from plumbline.state import acceptances
from plumbline.verdict import Verdict
from validation import shifts
from validation.churn import thresholds, volume
from validation.churn.thresholds import Threshold, Thresholds

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

ORDERS, FEATURES = "analytics.orders", "features.customers"
GATES = ("orders_volume", "orders_repeated", "null_ratio", "orders_shift", "features_shift")
KEY_COLUMNS = ("total_cents", "units")
ORDER_COLUMNS = ("order_id", "customer_id", "order_date", *KEY_COLUMNS)
NOT_COMPARED = {
    "customer_id",
    "snapshot_date",
    "event_time",
    "created_at",
    "release_id",
    "tenure_months",
    "first_order_day",
    "last_order_day",
}
"""Columns of features.customers that are keys, bookkeeping or the calendar itself: they move with every day."""

WEEK, REFERENCE = timedelta(days=7), timedelta(days=28)
SAMPLES = 3


@dataclass(frozen=True)
class Finding:
    """One limit that is broken: in which column, what was found, how many rows, some keys; `told` in words."""

    gate: str
    table: str
    column: str
    found: float
    limit: float
    rows: int
    keys: list[int]
    told: str


def check(run: StageRun) -> str:
    """Audits the run's new orders and its newest snapshot; one sentence when every limit holds or was accepted.

    Raises GateFailed that names each broken limit, its table, column, rows and some keys. Verdicts are in `run.gates`,
    the evidence in `<home>/evidence/<run_id>/distribution_check.json`.
    """
    orders_version, features_version = run.pin(ORDERS), run.pin(FEATURES)
    base = f"release {run.base.release_id}" if run.base else "no release before it"
    say(f"{ORDERS}@v{orders_version} and {FEATURES}@v{features_version} against {base}")
    limits = thresholds.load()
    orders = read_orders(run, orders_version)
    snapshots = read_snapshots(run, features_version)
    looked, findings = judge(orders, snapshots, _opened(run), run.as_of, limits)
    evidence = {
        "base": run.candidate.base,
        "versions": {ORDERS: orders_version, FEATURES: features_version},
        "findings": [asdict(finding) for finding in findings],
    }
    verdicts = [_verdict(run, gate, looked[gate], findings) for gate in GATES]
    reported = gates.record_all(run, verdicts, evidence, name=run.name)
    if broken := [finding for finding in findings if not reported[finding.gate].passed]:
        raise GateFailed(_refusal(broken, run.as_of, str(reported[broken[0].gate].report)))
    let_through = sorted({finding.gate for finding in findings})
    return f"{sum(looked.values())} limits hold" + (f"; accepted: {', '.join(let_through)}" if let_through else "")


def _verdict(run: StageRun, gate: str, looked: int, findings: list[Finding]) -> Verdict:
    """A gate's verdict: without a finding it passes, and with findings that somebody accepted for the day."""
    told = tuple(finding.told for finding in findings if finding.gate == gate)
    accepted = acceptances.accepted(run.candidate.product, gate, run.as_of) if told else None
    return Verdict(gate, not told or accepted is not None, looked, told, accepted=accepted)


def judge(
    orders: pd.DataFrame, snapshots: dict[date, pd.DataFrame], opened: date | None, as_of: date, limits: Thresholds
) -> tuple[dict[str, int], list[Finding]]:
    """How many limits were looked at, by gate, and those that are broken.

    `orders` are all that were known by the end of `as_of` (ORDER_COLUMNS and `known_on`, the day), new ones known from
    `opened` on (None: all are new). `snapshots` are feature rows by day, the newest the run's, the others released.
    """
    looked = dict.fromkeys(GATES, 0)
    findings: list[Finding] = []
    for gate, finding in (
        *_volume(orders, opened, as_of, limits),
        *_repeated(orders, opened, as_of, limits),
        *_orders(orders, opened, as_of, limits),
        *_features(orders, snapshots, as_of, limits),
    ):
        looked[gate] += 1
        findings += [finding] if finding else []
    return looked, findings


def read_orders(run: StageRun, version: int) -> pd.DataFrame:
    """The released orders as the base release has them, and the run's own, each with the day it was known on."""
    import pandas as pd

    opened = _opened(run)
    frame = _orders_at(version)
    if opened is None or run.base is None or ORDERS not in run.base.tables:
        return frame
    released = _orders_at(run.base.tables[ORDERS])
    # An order of the shop's tomorrow is released before the day that it counts from.
    known = [released[released["known_on"] < opened], frame[frame["known_on"] >= opened]]
    return pd.concat(known, ignore_index=True)


def read_snapshots(run: StageRun, version: int) -> dict[date, pd.DataFrame]:
    """The run's newest snapshot, and those of the 7 days before it as the base release has them.

    Where it has none there (a run that covers more than a week), the run's own stand in.
    """
    earliest = run.as_of - WEEK
    found = _snapshots_at(version, run.as_of, run.as_of)
    released: dict[date, pd.DataFrame] = {}
    if run.base is not None and FEATURES in run.base.tables:
        released = _snapshots_at(run.base.tables[FEATURES], earliest, run.as_of - timedelta(days=1))
    return found | (released or _snapshots_at(version, earliest, run.as_of - timedelta(days=1)))


def _opened(run: StageRun) -> date | None:
    return run.base.as_of + timedelta(days=1) if run.base else None


def _orders_at(version: int) -> pd.DataFrame:
    found = lake.open_table(ORDERS, version).to_pyarrow_table(columns=[*ORDER_COLUMNS, "known_at"])
    frame: pd.DataFrame = found.to_pandas()
    frame["known_on"] = frame.pop("known_at").dt.date
    return frame


def _snapshots_at(version: int, first: date, last: date) -> dict[date, pd.DataFrame]:
    import pyarrow.compute as pc

    day = pc.field("snapshot_date")
    found = lake.open_table(FEATURES, version).to_pyarrow_dataset().to_table(filter=(day >= first) & (day <= last))
    return {date.fromisoformat(str(key)): frame for key, frame in found.to_pandas().groupby("snapshot_date")}


Judged = tuple[str, Finding | None]


def _volume(orders: pd.DataFrame, opened: date | None, as_of: date, limits: Thresholds) -> Iterator[Judged]:
    """Each day of the run against the days before it, in a run of many days also against those after."""
    import numpy as np

    mine, contract = limits.orders_volume, contracts.shop("orders")
    if not len(orders):
        return
    first = orders["known_on"].min()
    counts = np.zeros((as_of - first).days + 1)
    held = orders[orders["known_on"] <= as_of].groupby("known_on").size()
    counts[[(day - first).days for day in held.index]] = held
    for number in range(max(0, ((opened or first) - first).days), len(counts)):
        expected = volume.around(counts, number)
        if expected is None:
            continue
        day, came = first + timedelta(days=number), int(counts[number])
        for kind, wanted in (("lowest", expected[0]), ("highest", expected[1])):
            limit = mine.lowest_share if kind == "lowest" else mine.highest_share
            if wanted < mine.fewest_expected.value:
                continue
            if kind == "lowest" and contract.closed_on(day):
                continue
            share = came / wanted
            if share >= limit.value if kind == "lowest" else share <= limit.value:
                yield "orders_volume", None
                continue
            keys = [int(key) for key in orders.loc[orders["known_on"] == day, "order_id"].head(SAMPLES)]
            told = (
                f"{day} brought {came:,} orders, {share:.0%} of the {wanted:.0f} that the days "
                f"{'around' if number < len(counts) - 1 else 'before'} it lead to expect; "
                f"{'at least' if kind == 'lowest' else 'at most'} {limit.value:.0%}"
            )
            yield "orders_volume", _finding("orders_volume", ORDERS, "known_at", share, limit, came, keys, told)


def _repeated(orders: pd.DataFrame, opened: date | None, as_of: date, limits: Thresholds) -> Iterator[Judged]:
    """Orders of the run that are another one of it over again, under a number of their own.

    What repeats honestly in the 28 days before is expected; the limit is a share of what else there is.
    """
    mine, start = limits.orders_repeated, opened or date.min
    new = orders[orders["known_on"] >= start]
    if len(new) < mine.fewest_orders.value:
        return
    before = orders[(orders["known_on"] < start) & (orders["known_on"] >= (opened or as_of) - REFERENCE)]
    again = _again(new)
    share, was = len(again) / len(new), len(_again(before)) / max(len(before), 1)
    most = was + mine.share.value * (1 - was)
    if share <= most:
        yield "orders_repeated", None
        return
    told = (
        f"{len(again):,} of {len(new):,} new orders up to {as_of} repeat another one in customer, day, units and "
        f"amount, {share:.0%}; {was:.0%} did in the 28 days before: at most {most:.0%}"
    )
    keys = [int(key) for key in again["order_id"].dropna().head(SAMPLES)]
    limit = mine.share.model_copy(update={"value": most})
    yield "orders_repeated", _finding("orders_repeated", ORDERS, "order_id", share, limit, len(again), keys, told)


def _again(orders: pd.DataFrame) -> pd.DataFrame:
    return orders[orders.duplicated([column for column in ORDER_COLUMNS if column != "order_id"])]


def _orders(orders: pd.DataFrame, opened: date | None, as_of: date, limits: Thresholds) -> Iterator[Judged]:
    """The run's orders, those of its last 7 days at most, against the 28 days before them."""
    start = max(opened or date.min, as_of - WEEK + timedelta(days=1))
    new = orders[orders["known_on"] >= start]
    before = orders[(orders["known_on"] < start) & (orders["known_on"] >= start - REFERENCE)]
    if not len(new) or not len(before):
        return
    mine, nulls = limits.orders_shift, limits.null_ratio.orders_increase
    span = f"{len(new):,} orders of {start} to {as_of}" if start < as_of else f"{len(new):,} orders of {as_of}"
    for column in ORDER_COLUMNS:
        now, was = float(new[column].isna().mean()), float(before[column].isna().mean())
        if now - was <= nulls.value:
            yield "null_ratio", None
            continue
        told = f"{span}: {now:.2%} without a value, {was:.2%} in the 28 days before; at most {nulls.value:.2%} more"
        keys = [int(key) for key in new.loc[new[column].isna(), "order_id"].dropna().head(SAMPLES)]
        rows = int(new[column].isna().sum())
        yield "null_ratio", _finding("null_ratio", ORDERS, column, now - was, nulls, rows, keys, told)
    for column in KEY_COLUMNS:
        now_values, was_values = (_numbers(frame[column]) for frame in (new, before))
        now_values, was_values = (values[values == values] for values in (now_values, was_values))
        if min(len(now_values), len(was_values)) < mine.fewest_orders.value:
            continue
        measured = [("KS distance", shifts.distance(was_values, now_values), mine.ks)]
        if len(now_values) >= mine.psi_fewest_orders.value:
            measured.append(("PSI", psi(was_values, now_values), mine.psi))
        for name, value, limit in measured:
            if value <= limit.value:
                yield "orders_shift", None
                continue
            told = (
                f"{span}: {name} {value:.2f} to the 28 days before, {_then_now(was_values, now_values)}; "
                f"at most {limit.value}"
            )
            keys = _farthest(new, column, was_values)
            yield "orders_shift", _finding("orders_shift", ORDERS, column, value, limit, len(new), keys, told)


def _features(
    orders: pd.DataFrame, snapshots: dict[date, pd.DataFrame], as_of: date, limits: Thresholds
) -> Iterator[Judged]:
    """The run's snapshot against the one of the day before, and against the oldest of the last 7 days."""
    newest = snapshots.get(as_of)
    earlier = sorted(day for day in snapshots if day < as_of)
    if not earlier or not len(orders):
        return
    yield "features_shift", _lost_rows(snapshots[earlier[-1]], newest, as_of, earlier[-1], limits)
    if newest is None:
        return
    if (as_of - orders["known_on"].min()).days < limits.features_shift.youngest_shop_days.value:
        return
    if len(newest) < limits.features_shift.fewest_customers.value:
        return
    mine, nulls = limits.features_shift, limits.null_ratio
    compared = [(earlier[0], mine.psi_week, nulls.features_increase_week)]
    if earlier[-1] == as_of - timedelta(days=1):
        compared.append((earlier[-1], mine.psi_day, nulls.features_increase_day))
    for day, shift, increase in compared:
        before = snapshots[day]
        for column in sorted((set(before.columns) & set(newest.columns)) - NOT_COMPARED):
            was, now = numbers(before[column]), numbers(newest[column])
            if was is None or now is None:
                continue
            value, then, share = psi(was, now), shifts.missing(was), shifts.missing(now)
            shifted = leaked = None
            if value > shift.value:
                told = f"snapshot {as_of}: PSI {value:.3f} to {day}, {_then_now(was, now)}; at most {shift.value}"
                keys = _moved(before, newest, column)
                shifted = _finding("features_shift", FEATURES, column, value, shift, len(now), keys, told)
            if abs(share - then) > increase.value:
                told = f"snapshot {as_of}: {share:.2%} missing, {then:.2%} on {day}; at most {increase.value:.0%} apart"
                rows, keys = round(share * len(now)), _moved(before, newest, column)
                leaked = _finding("null_ratio", FEATURES, column, share - then, increase, rows, keys, told)
            yield "features_shift", shifted
            yield "null_ratio", leaked


def _lost_rows(
    before: pd.DataFrame, newest: pd.DataFrame | None, as_of: date, day: date, limits: Thresholds
) -> Finding | None:
    limit, held = limits.features_shift.lowest_rows, set() if newest is None else set(newest["customer_id"])
    share = len(held) / len(before)
    if share >= limit.value:
        return None
    lost = sorted(set(before["customer_id"]) - held)
    told = f"snapshot {as_of}: {len(held):,} customers, {len(before):,} on {day}; at least {limit.value:.1%} of them"
    keys = [int(key) for key in lost[:SAMPLES]]
    return _finding("features_shift", FEATURES, "customer_id", share, limit, len(lost), keys, told)


def _finding(
    gate: str, table: str, column: str, found: float, limit: Threshold, rows: int, keys: list[int], told: str
) -> Finding:
    key = "order_id" if table == ORDERS else "customer_id"
    some = f"; such as {key} {', '.join(map(str, keys))}" if keys else ""
    return Finding(gate, table, column, found, limit.value, rows, keys, f"{gate}: {table}.{column}: {told}{some}")


def _refusal(broken: list[Finding], as_of: date, evidence: str) -> str:
    gates = sorted({finding.gate for finding in broken})
    accept = "; ".join(f"`plumb gate accept {gate} --as-of {as_of} --why …`" for gate in gates)
    if any(finding.table == FEATURES for finding in broken):
        accept += "; a changed definition in customers.sql does this too"
    return (
        f"{len(broken)} limits of {', '.join(gates)} are broken, nothing is published:\n  "
        + "\n  ".join(finding.told for finding in broken)
        + f"\n  Evidence: {evidence}; limits and reasons: {thresholds.place()}.\n  What was landed "
        f"is set aside. If it is an error, mend it at its source; if it is real, accept it: {accept}. Name a day on "
        f"which the shop is closed in closedDays of {contracts.shop('orders').file}. Either way start over "
        f"with `plumb ingest --as-of {as_of}`."
    )


def _then_now(was: NDArray[Any], now: NDArray[Any]) -> str:
    then, since = describe(was), describe(now)
    parts = (f"{name} {_short(then[name])} → {_short(since[name])}" for name in ("mean", "median"))
    return ", ".join(parts)


def _short(value: float | None) -> str:
    return "none" if value is None else f"{value:,.4g}"


def _numbers(column: pd.Series) -> NDArray[Any]:
    import numpy as np

    return column.to_numpy(dtype="float64", na_value=np.nan)


def _farthest(new: pd.DataFrame, column: str, was: NDArray[Any]) -> list[int]:
    """The keys of the new orders whose values are farthest from the middle of what they are compared with."""
    import numpy as np

    off = (new[column].astype("float64") - float(np.median(was))).abs().sort_values(ascending=False, kind="stable")
    return [int(key) for key in new.loc[off.index[:SAMPLES], "order_id"].dropna()]


def _moved(before: pd.DataFrame, after: pd.DataFrame, column: str) -> list[int]:
    """The customers whose value changed most; one that appeared or went counts as much."""
    import numpy as np
    import pandas as pd

    was, now = (pd.Series(numbers(frame[column]), index=frame["customer_id"]) for frame in (before, after))
    both = was.index.intersection(now.index)
    change = (now[both] - was[both]).abs()
    change[was[both].isna() != now[both].isna()] = np.inf
    found = change[change > 0].sort_values(ascending=False, kind="stable").head(SAMPLES)
    return [int(key) for key in found.index]
