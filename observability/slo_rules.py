"""The promises of the contracts as recording rules and alerts.

Ratios (requests, records) burn an error budget: an alert for each pair of windows, so that a fast burn pages within
minutes, a slow one makes a ticket, and what is over stops to fire (Google's SRE workbook, chapter 5: 14.4 times the
budget over 1 h spends 2% of 30 days, 6 over 6 h 5%, 3 over a day 10%, 1 over three days 10%).

A promise of days is no ratio of requests: 99.5% is one late day in 200, which the exporter counts from the releases.
Deadlines are held against the platform's clock, by way of freshness, so that a replay keeps them too.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from observability import dataset_metrics, promises
from observability.promises import Ratio
from observability.rule import EXPORTER, Alert, Group, Recording, Severity
from observability.way_back import FIRST_DAY_OR_RUNBOOK, RUNBOOK, WayBack, missing_day, model, undo
from plumbline.contracts import contract as contracts
from plumbline.contracts.contract import Contract
from plumbline.lineage import expected
from plumbline.product import Product
from products import ALL

CUSTOMERS = "customers"
"""Who is downstream of the predictor."""

DAY = 86_400
GRACE = "15m"
"""How long its tables may be late after a late source has landed: a day's run takes three minutes, and two tries."""

KEPT = 5
"""For how many seconds more, so for one evaluation at least, a source that has landed silences what was late by it:
both are over in the same evaluation, but Alertmanager hears of one before it hears of the other."""

WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
BURNS: tuple[tuple[Severity, float, str, str], ...] = (
    ("page", 14.4, "1h", "5m"),
    ("page", 6, "6h", "30m"),
    ("ticket", 3, "1d", "2h"),
    ("ticket", 1, "3d", "6h"),
)
"""Severity, how many times faster than the budget allows, the long window and the short one that ends the alert."""

LEAST = 5
"""Bad events in the long window below which a share of them says nothing."""


def groups() -> list[Group]:
    """A group of all deadlines, one for each contract's other promises, one for each predictor's and stream's.

    Deadlines are evaluated together, so that Alertmanager knows a late source no later than what it silences.
    """
    contracted = list(dataset_metrics.datasets())
    found = [
        Group("deadlines", tuple(rule for contract in contracted for rule in _deadline(contract))),
        *(Group(f"promises of {contract.dataset}", _of(contract)) for contract in contracted),
        *(Group(f"promises of {product.endpoint}", _of_predictor(product)) for product in ALL),
        *(
            Group(f"promises of {table}", tuple(_of_stream(product, table)))
            for product in ALL
            for table in product.streams.values()
        ),
    ]
    return [group for group in found if group.rules]


def _affected(table: str) -> tuple[str, ...]:
    """What is made of a table, whichever product's it is."""
    return tuple(name for product in ALL for name in expected.affected_by(product, table))


def product_of(contract: Contract) -> Product:
    """Whose dataset it is."""
    return next(product for product in ALL if product.name == contract.product)


def about_table(contract: Contract) -> dict[str, str]:
    """What tells the alerts of a contracted dataset from others."""
    return {"dataset": dataset_metrics.table_of(contract), "product": contract.product}


def _of(contract: Contract) -> tuple[Recording | Alert, ...]:
    table = dataset_metrics.table_of(contract)
    name, affected = dataset_metrics.prefix(table), _affected(table)
    rules: list[Recording | Alert] = []
    if promises.deadline(contract) is not None:
        rules += _days(contract, table, affected)
    if (promised := promises.complete(contract)) is not None:
        ratio, columns = promised
        among = "|".join(columns)
        rules += burning(
            "DatasetIncomplete",
            f"{table}-complete",
            ratio,
            lambda window: f'max(avg_over_time({name}_null_ratio{{column=~"{among}"}}[{window}]))',
            contract,
            f"{table} lacks {' or '.join(columns)} in more rows than its contract allows",
            undo(product_of(contract)),
            affected,
            about_table(contract),
        )
    return tuple(rules)


def _due(contract: Contract) -> timedelta | None:
    """When a day must be there: as promised, or, for what promises no time, when the first of its downstream is due."""
    if (own := promises.deadline(contract)) is not None:
        return own
    below = _affected(dataset_metrics.table_of(contract))
    others = (c for c in dataset_metrics.datasets() if dataset_metrics.table_of(c) in below)
    return min((due for c in others if (due := promises.deadline(c)) is not None), default=None)


def _limit(contract: Contract) -> int | None:
    """The age in seconds at which a table is late; None for one that nobody waits for."""
    due = _due(contract)
    return None if due is None else DAY + int(due.total_seconds())


def _landed_just_now(table: str) -> str:
    """That a raw table which this one is made from was late and has landed: the run that follows needs some time."""
    found = ""
    for source in dataset_metrics.datasets():
        raw, limit = dataset_metrics.table_of(source), _limit(source)
        if raw.startswith("raw.") and limit is not None and table in _affected(raw):
            age = f"{raw.replace('.', '_')}_freshness_seconds"
            found += f" unless on() (max_over_time({age}[{GRACE}]) > {limit} and {age} <= {limit})"
    return found


def _deadline(contract: Contract) -> list[Recording | Alert]:
    limit, table = _limit(contract), dataset_metrics.table_of(contract)
    if limit is None:
        return []
    name, affected, seconds = dataset_metrics.prefix(table), _affected(table), limit - DAY
    at = f"{seconds // 3600:02}:{seconds % 3600 // 60:02} UTC"
    unknown = f'absent({name}_freshness_seconds) and on() (up{{job="{EXPORTER}"}} == 1)'
    about = about_table(contract)
    severity: Severity = "page" if felt(affected) else "ticket"
    return [
        Alert(
            "DatasetLate",
            f"{name}_freshness_seconds > {limit}{_landed_just_now(table)}",
            severity,
            contract,
            f"{table}: yesterday is not there, it was due at {at}",
            missing_day(product_of(contract)),
            affected,
            about=about,
            kept=KEPT if table.startswith("raw.") else 0,
        ),
        Alert(
            "DatasetUnknown",
            unknown,
            severity,
            contract,
            f"{table}: the exporter answers but cannot say how fresh it is, so nobody would be told if it was late",
            FIRST_DAY_OR_RUNBOOK,
            affected,
            600,
            about,
        ),
    ]


def _days(contract: Contract, table: str, affected: tuple[str, ...]) -> list[Recording | Alert]:
    name, slo = dataset_metrics.prefix(table), f"{table}-on-time"
    allowed = promises.late_days_allowed(contract)
    return [
        Recording("slo:late_days:ratio", f"{name}_late_days / ({name}_due_days > 0)", {"slo": slo}),
        Recording("slo:budget_remaining:ratio", f"1 - {name}_late_days / {allowed:g}", {"slo": slo}),
        Alert(
            "LateDaysSpent",
            f"{name}_late_days > {allowed:g}",
            "ticket",
            contract,
            f"{table}: {{{{ $value }}}} late days in {promises.DAYS}, allowed: {allowed:g}",
            RUNBOOK,
            affected,
            about=about_table(contract),
        ),
    ]


def _of_predictor(product: Product) -> tuple[Recording | Alert, ...]:
    contract, affected, about = promises.predictor(product), (CUSTOMERS,), {"product": product.name}
    every = f'predictions_total{{product="{product.name}"}}'
    bad = f'predictions_total{{product="{product.name}",status=~"5.."}}'
    rules = burning(
        "PredictorFailing",
        f"{product.server}-available",
        promises.available(product),
        # A predictor that never failed has no such series: its share of failures is 0 and not unknown.
        lambda window: (
            f"(sum(rate({bad}[{window}])) / (sum(rate({every}[{window}])) > 0)"
            f" or 0 * (sum(rate({every}[{window}])) > 0))"
        ),
        contract,
        "the predictor answers 5xx to more requests than its contract allows",
        model(product),
        affected,
        about,
        bad=lambda window: f"sum(increase({bad}[{window}]))",
    )
    speeds = promises.fast(product)
    for speed in speeds:
        rules += _slow(product, speed, f"-{speed.input}" if len(speeds) > 1 else "")
    return tuple(rules)


def _slow(product: Product, speed: promises.Speed, ending: str) -> list[Recording | Alert]:
    chosen = f'product="{product.name}",input="{speed.input}"'
    every = f"prediction_latency_ms_count{{{chosen}}}"
    in_time = f'prediction_latency_ms_bucket{{{chosen},le="{speed.milliseconds:.1f}"}}'
    return burning(
        "PredictorSlow",
        f"{product.server}-fast{ending}",
        speed.ratio,
        lambda window: f"1 - sum(rate({in_time}[{window}])) / (sum(rate({every}[{window}])) > 0)",
        promises.predictor(product),
        f"more predictions by {speed.input} than the contract allows take over {speed.milliseconds:g} ms",
        model(product),
        (CUSTOMERS,),
        {"product": product.name},
        bad=lambda window: f"sum(increase({every}[{window}])) - sum(increase({in_time}[{window}]))",
    )


def stream_affects(product: Product) -> tuple[str, ...]:
    """What is downstream of a product's stream: its tables, and those who are scored by what they hold."""
    return (CUSTOMERS, product.endpoint, *product.streams.values())


def _of_stream(product: Product, table: str) -> list[Recording | Alert]:
    """How fast what happened can be read, by the contract of the table that the stream writes."""
    contract = contracts.load(table)
    if (promised := promises.fresh(contract)) is None:
        return []
    ratio, seconds = promised
    every = f'events_freshness_seconds_count{{product="{product.name}"}}'
    in_time = f'events_freshness_seconds_bucket{{product="{product.name}",le="{seconds}"}}'
    return burning(
        "StreamSlow",
        f"{table}-fresh",
        ratio,
        lambda window: f"1 - sum(rate({in_time}[{window}])) / (sum(rate({every}[{window}])) > 0)",
        contract,
        f"more order events than the contract allows take over {seconds:g} s to where customers are scored",
        RUNBOOK,
        stream_affects(product),
        {"product": product.name},
        bad=lambda window: f"sum(increase({every}[{window}])) - sum(increase({in_time}[{window}]))",
    )


def felt(affected: tuple[str, ...]) -> bool:
    """Whether customers feel it: somebody who answers them is downstream."""
    return any(name == CUSTOMERS or name.startswith("endpoints.") for name in affected)


def explained() -> dict[str, tuple[str, ...]]:
    """Late tables that explain other late tables: table → those of its downstream that have a deadline."""
    late = sorted(
        dataset_metrics.table_of(contract) for contract in dataset_metrics.datasets() if _limit(contract) is not None
    )
    below = {table: tuple(sorted(set(_affected(table)) & set(late))) for table in late}
    return {table: tables for table, tables in below.items() if tables}


def burning(
    alert: str,
    slo: str,
    ratio: Ratio,
    errors: Callable[[str], str],
    contract: Contract,
    summary: str,
    way_back: WayBack,
    affected: tuple[str, ...],
    about: dict[str, str] | None = None,
    bad: Callable[[str], str] | None = None,
) -> list[Recording | Alert]:
    """Error ratios over WINDOWS, and an alert for each severity of BURNS; tickets alone where no customer feels it.

    `errors` gives the ratio over a window. It must be absent, not 0, when there is nothing to divide by: an alert of
    what is missing covers that. `bad` gives the number of bad events over a window: fewer than LEAST alert nobody, for
    where little is asked, one of them is a large share.
    """

    def enough(window: str) -> str:
        return f" and on() (({bad(window)}) > {LEAST - 0.5:g})" if bad else ""  # increase() estimates: 5 may be 4.9

    rules: list[Recording | Alert] = [
        Recording(f"slo:error_ratio:{window}", errors(window), {"slo": slo}) for window in WINDOWS
    ]
    severities: tuple[Severity, ...] = ("page", "ticket")
    for severity in severities:
        pairs = [
            f'(slo:error_ratio:{long}{{slo="{slo}"}} > {factor * ratio.budget:g}'
            f' and slo:error_ratio:{short}{{slo="{slo}"}} > {factor * ratio.budget:g}{enough(long)})'
            for meant, factor, long, short in BURNS
            if (meant if felt(affected) else "ticket") == severity
        ]
        if not pairs:
            continue
        rules.append(
            Alert(
                alert,
                " or ".join(pairs),
                severity,
                contract,
                summary,
                way_back,
                affected,
                about={"slo": slo, **(about or {})},
            )
        )
    return rules
