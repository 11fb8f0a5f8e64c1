"""The board that on-call opens first: what is wrong, since when, who feels it; then a product's data and its model."""

from __future__ import annotations

from datetime import timedelta

from grafana_foundation_sdk.builders import dashboard

from observability.dataset_metrics import prefix
from observability.grafana import limits as promises
from observability.grafana.board import (
    DATA_DOCS,
    RUNBOOKS,
    Section,
    answers_uid,
    board,
    model,
    pipeline_uid,
    report,
    with_rows,
)
from observability.grafana.parts import BAD, GOOD, NEUTRAL, WARN, Panel, Query, curve, link, number, rows, steps
from observability.house_rules import OFFLINE
from observability.promises import Speed, available, fast
from observability.slo_rules import explained
from plumbline.product import Product

HOUR, HOURS = 3600, timedelta(hours=1)
SEVERITIES = {"page": {"text": "page", "color": BAD}, "ticket": {"text": "ticket", "color": WARN}}
VERSION = "v{{model_version}} {{track}}"


def answers_board(product: Product, about: str, measures: tuple[str, ...], *more: Section) -> dashboard.Dashboard:
    """The board. `measures` are the metrics by which its champion is judged, `more` sections of its own."""
    made = board(
        product,
        about,
        answers_uid(product),
        "What is wrong, since when and who feels it, on one page; on-call's first.",
    ).link(link("The pipeline's stages", f"/d/{pipeline_uid(product)}"))
    for panel in (*_verdict(product), *_alerts(product)):
        made = made.with_panel(panel)
    return with_rows(made, ("Data", _data(product)), ("Model", _model(product, measures)), *more)


def _firing(product: Product) -> str:
    """The alerts of a product, and those of what watches all of them."""
    return f'ALERTS{{alertstate="firing", severity!="none", product=~"|{product.name}"}}'


def _explained(product: Product) -> str:
    """Late tables that are late because of another: Alertmanager silences them, and they are no trouble of their own.

    Empty for a product that nobody waits for by the day.
    """
    late = 'ALERTS{alertstate="firing", severity!="none", alertname="DatasetLate", dataset'
    tables = promises.tables(product)
    return " or ".join(
        f'({late}=~"{"|".join(below)}"}} and on () {late}="{table}"}})'
        for table, below in explained().items()
        if table in tables
    )


def _trouble(product: Product, severity: str = "") -> str:
    """What fires, without what is explained."""
    firing, silenced = _firing(product), _explained(product)
    if severity:
        firing = firing.replace('severity!="none"', f'severity="{severity}"')
    return f"({firing} unless ({silenced}))" if silenced else firing


def _verdict(product: Product) -> list[Panel]:
    of, oldest, answered = f'product="{product.name}"', promises.oldest(product), available(product).objective / 100
    requests = f"predictions_total{{{of}"
    gates = f"gate_passed{{{of}}}"
    return [
        number(
            "Alerts firing",
            "Is anything wrong? The table below says what; a table that is late because of another is not counted. "
            "Grey: Prometheus does not answer.",
            [Query(f"count({_trouble(product)}) or vector(0)")],
            unit="none",
            limits=steps((1, BAD)),
            span=4,
        ),
        _age(product, oldest),
        number(
            "Gates failed",
            "Did a gate stop the line? Gates whose newest verdict is a failure. What it guards does not go on "
            "until it passes.",
            [Query(f"count({gates} == 0) or (0 * count({gates}))")],
            unit="none",
            limits=steps((1, BAD)),
            span=4,
            links=[link("Data docs: which expectation", DATA_DOCS)] if product.marts else [],
        ),
        number(
            "Online behind release",
            "Do callers get the newest release? Since it was published without being in the online store.",
            [Query(f"materialization_lag_seconds{{{of}}}")],
            unit="s",
            limits=steps((60, WARN), ((oldest / HOURS - 24) * HOUR if oldest else OFFLINE, BAD)),
            span=4,
        ),
        number(
            "Requests answered",
            f"Do callers get answers? Requests of the last 5 minutes without a 5xx; promised are {answered:.1%}.",
            [Query(f'sum(rate({requests},status!~"5.."}}[5m])) / sum(rate({requests}}}[5m]))')],
            unit="percentunit",
            limits=steps((answered, GOOD), below=BAD),
            decimals=2,
            span=4,
        ),
        number(
            f"{product.entities.capitalize()} scored, last hour",
            f"Who feels it? {product.entities.capitalize()} whose score was handed out in the last hour, good or bad.",
            [Query(f"sum(increase(outcome_log_rows_total{{{of}}}[1h]))")],
            unit="none",
            limits=steps(below=NEUTRAL),
            decimals=0,
            span=4,
            filled=False,
        ),
    ]


def _age(product: Product, oldest: timedelta | None) -> Panel:
    age = [Query(f"{prefix(product.features)}_freshness_seconds / {HOUR}")]
    what = "How old is what answers are made from? From the end of the last day in force to the platform's now. "
    if oldest is None:
        title, told, limits = "Features' age", f"{what}No contract promises a new day.", steps(below=NEUTRAL)
    else:
        hours = oldest / HOURS
        title, limits = f"Features' age, at most {hours:.1f} h", steps((24, WARN), (hours, BAD))
        told = f"{what}Red: past the contract's deadline ({(hours - 24) * 60:.0f} minutes after midnight UTC)."
    filled = oldest is not None
    return number(title, told, age, unit="suffix: h", decimals=1, limits=limits, span=4, filled=filled)


def _alerts(product: Product) -> list[Panel]:
    shown = f"1000 * ALERTS_FOR_STATE and ignoring (alertstate) {_trouble(product)}"
    columns = {
        "alertname": "Alert (opens its runbook)",
        "severity": "Severity",
        "about": "About",
        "affected": "Affected downstream",
        "Value": "Since",
    }
    return [
        rows(
            "Firing now",
            "What is wrong, how bad, since when, who feels it first. The name leads to what to do; what a late source "
            "makes late is left out.",
            Query(f'label_join({shown}, "about", " ", "dataset", "gate", "stage")'),
            columns=columns,
            properties={
                columns["alertname"]: {
                    "links": [{"title": "Runbook", "url": f"{RUNBOOKS}/${{__value.raw}}.md", "targetBlank": True}],
                    "custom.width": 240,
                },
                columns["severity"]: {
                    "mappings": [{"type": "value", "options": SEVERITIES}],
                    "custom.cellOptions": {"type": "color-text"},
                    "custom.width": 90,
                },
                columns["about"]: {"custom.width": 170},
                columns["Value"]: {"unit": "dateTimeFromNow", "custom.width": 130},
            },
            sort=columns["severity"],
            empty="No alert is firing",
            span=15,
            height=8,
        ),
        curve(
            "Alerts over time",
            "Since when? How many alerts fire: `page` wakes somebody, `ticket` waits for the morning. What is late "
            "because of another is not counted.",
            [Query(f"count({_trouble(product, severity)}) or vector(0)", severity) for severity in SEVERITIES],
            unit="none",
            lowest=0,
            at_least=1,
            stepped=True,
            colors={"page": BAD, "ticket": WARN},
            span=9,
            height=8,
        ),
    ]


def _data(product: Product) -> list[Panel]:
    of, oldest, allowed = f'product="{product.name}"', promises.oldest(product), promises.incomplete(product)
    panels: list[Panel] = [
        curve(
            "Age of each table",
            "Which table is late? From the end of its last day to the platform's now."
            + (" The line: the deadline." if oldest else ""),
            [Query(f"{prefix(table)}_freshness_seconds / {HOUR}", table) for table in promises.daily_tables(product)],
            unit="suffix: h",
            limits=steps((oldest / HOURS, BAD)) if oldest else None,
            lowest=0,
            span=8,
            links=[link("The pipeline's stages", f"/d/{pipeline_uid(product)}")],
        ),
        curve(
            "Records that lack a key",
            f"Are rows incomplete? Share of nulls in what came last; the contracts allow {allowed:.1%}, the line.",
            [
                Query(f'max({prefix(table)}_null_ratio{{column=~"{"|".join(columns)}"}})', table)
                for table, columns in promises.complete_columns(product).items()
            ],
            unit="percentunit",
            limits=steps((allowed, BAD)),
            lowest=0,
            at_least=10 * allowed,
            span=8,
        ),
        curve(
            "Rows in force",
            "Did a table shrink or stand still? Rows of each table in the release in force.",
            [Query(f"{prefix(table)}_rows", table) for table in promises.tables(product)],
            unit="short",
            lowest=0,
            stepped=True,
            span=8,
        ),
        curve(
            "Rows at landing, in all",
            "Does the source send bad batches? Rows that landed, and rows that broke a contract and were kept out.",
            [Query(f"landing_records_total{{{of}}}", "{{table}} {{outcome}}")],
            unit="short",
            lowest=0,
            stepped=True,
            span=8,
        ),
        curve(
            "Failed gates",
            "Which gate stops the line, since when? 1 for a gate whose newest verdict is a failure; five of them.",
            [Query(f"topk(5, 1 - gate_passed{{{of}}})", "{{gate}}")],
            unit="none",
            lowest=0,
            at_least=1,
            stepped=True,
            span=8,
            links=[link("Report: the verdicts", report(product))],
        ),
    ]
    if product.features_sql:  # whose columns are computed, and may be blank one by one
        panels.insert(2, _nulls(product))
    return panels


def _nulls(product: Product) -> Panel:
    return curve(
        "Nulls in the features",
        "Did a feature go blank? Share of nulls in the newest rows, for each column that has any. Some are meant: "
        "no order in 30 days, no ticket.",
        [Query(f"{prefix(product.features)}_null_ratio > 0", "{{column}}")],
        unit="percentunit",
        lowest=0,
        span=8,
    )


def _model(product: Product, measures: tuple[str, ...]) -> list[Panel]:
    of, one = f'product="{product.name}"', product.entities.removesuffix("s")
    sums, counts = (
        f"sum by (model_version, track) (rate(pct_missing_features_{part}{{{of}}}[$__rate_interval]))"
        for part in ("sum", "count")
    )
    speeds = fast(product)
    return [
        *(_latency(product, speed, f" by {speed.input}" if len(speeds) > 1 else "") for speed in speeds),
        curve(
            "Answers a second",
            f"Is there traffic, and is it refused? By HTTP status; 404 is an unknown {one}, 503 nothing to score on.",
            [Query(f"sum by (status) (rate(predictions_total{{{of}}}[$__rate_interval])) > 0", "{{status}}")],
            unit="reqps",
            lowest=0,
            span=8,
        ),
        *(
            [
                curve(
                    "Missing features",
                    "Is the model scoring blanks? Share of null inputs, mean over scored requests.",
                    [Query(f"{sums} / {counts}", VERSION)],
                    unit="percent",
                    lowest=0,
                    span=8,
                )
            ]
            if product.features_sql
            else []
        ),
        number(
            "Online differs from offline",
            "Does serving read what training read? Share of values that differed in the newest parity check.",
            [Query(f"feature_parity_mismatch_ratio{{{of}}}")],
            unit="percentunit",
            limits=steps((1e-9, BAD)),
            span=6,
        ),
        number(
            "Champion",
            "Which model answers?",
            [Query(f"champion_version{{{of}}}", "version")],
            unit="none",
            limits=steps(below=NEUTRAL),
            filled=False,
            span=4,
            links=[link("MLflow: its run", model(product))],
        ),
        number(
            f"The champion on held-out {product.entities}",
            "How good was it when it was trained? It says nothing of today: outcomes take the label's window.",
            [Query(f'champion_metric{{{of},metric=~"{"|".join(measures)}"}}', "{{metric}}")],
            unit="none",
            limits=steps(below=NEUTRAL),
            filled=False,
            decimals=3,
            span=14,
            links=[link("MLflow: its run", model(product))],
        ),
    ]


def _latency(product: Product, speed: Speed, ending: str) -> Panel:
    chosen = f'product="{product.name}",input="{speed.input}"'
    rate = f"rate(prediction_latency_ms_bucket{{{chosen}}}[$__rate_interval])"
    summed = f"sum by (le, model_version, track) ({rate})"
    return curve(
        f"Latency{ending}",
        f"Do callers wait? Inside the predictor; promised is {speed.milliseconds:g} ms for {speed.ratio.objective:g}%, "
        "the line.",
        [Query(f"histogram_quantile({of}, {summed})", f"p{100 * of:.0f} {VERSION}") for of in (0.5, 0.99)],
        unit="ms",
        limits=steps((speed.milliseconds, BAD)),
        lowest=0,
        span=8,
    )
