"""The board that on-call opens first: what is wrong, since when, who feels it; then data, model and business."""

from __future__ import annotations

from datetime import timedelta

from grafana_foundation_sdk.builders import dashboard

from observability.dataset_metrics import prefix
from observability.grafana import limits as promises
from observability.grafana.board import CHURN, DATA_DOCS, MODEL, PIPELINE, REPORT, RUNBOOKS, board, with_rows
from observability.grafana.parts import BAD, GOOD, NEUTRAL, WARN, Panel, Query, curve, link, number, rows, steps
from observability.promises import available, fast
from observability.slo_rules import explained

HOUR, HOURS = 3600, timedelta(hours=1)
FIRING = 'ALERTS{alertstate="firing", severity!="none"}'
LATE = f'{FIRING[:-1]}, alertname="DatasetLate", dataset'
EXPLAINED = " or ".join(
    f'({LATE}=~"{"|".join(below)}"}} and on () {LATE}="{table}"}})' for table, below in explained().items()
)
"""Late tables that are late because of another: Alertmanager silences them, and they are no trouble of their own."""

TROUBLE = f"({FIRING} unless ({EXPLAINED}))"
PAGES, TICKETS = (
    f'count(ALERTS{{alertstate="firing", severity="{severity}"}} unless ({EXPLAINED})) or vector(0)'
    for severity in ("page", "ticket")
)
SINCE = (
    f'label_join(1000 * ALERTS_FOR_STATE and ignoring (alertstate) {TROUBLE}, "about", " ", "dataset", "gate", "stage")'
)
ANSWERED = 'sum(rate(predictions_total{status!~"5.."}[5m])) / sum(rate(predictions_total[5m]))'
SIMULATED = "SIMULATED: requests and outcomes are made up from what the shop's customers did; see docs/dashboards.md. "
SEVERITIES = {"page": {"text": "page", "color": BAD}, "ticket": {"text": "ticket", "color": WARN}}
VERSION = "v{{model_version}} {{track}}"


def churn() -> dashboard.Dashboard:
    """The board."""
    made = board(
        "Churn: data, model, business",
        CHURN,
        "What is wrong, since when and who feels it, on one page; on-call's first.",
    ).link(link("The pipeline's stages", f"/d/{PIPELINE}"))
    for panel in (*_verdict(), *_alerts()):
        made = made.with_panel(panel)
    return with_rows(
        made,
        ("Data", _data()),
        ("Model", _model()),
        ("Business (simulated in this repository)", _business()),
    )


def _verdict() -> list[Panel]:
    oldest, answered = promises.oldest() / HOURS, available().objective / 100
    return [
        number(
            "Alerts firing",
            "Is anything wrong? The table below says what; a table that is late because of another is not counted. "
            "Grey: Prometheus does not answer.",
            [Query(f"count({TROUBLE}) or vector(0)")],
            unit="none",
            limits=steps((1, BAD)),
            span=4,
        ),
        number(
            f"Features' age, at most {oldest:.1f} h",
            "How old is what customers are scored on? From the end of the last day in force to the platform's now. "
            f"Red: past the contract's deadline ({(oldest - 24) * 60:.0f} minutes after midnight UTC).",
            [Query(f"features_customers_freshness_seconds / {HOUR}")],
            unit="suffix: h",
            decimals=1,
            limits=steps((24, WARN), (oldest, BAD)),
            span=4,
        ),
        number(
            "Gates failed",
            "Did a gate stop the line? Gates whose newest verdict is a failure. What it guards does not go on "
            "until it passes.",
            [Query("count(gate_passed == 0) or (0 * count(gate_passed))")],
            unit="none",
            limits=steps((1, BAD)),
            span=4,
            links=[link("Data docs: which expectation", DATA_DOCS)],
        ),
        number(
            "Online behind release",
            "Do customers get the newest release? Since it was published without being in the online store.",
            [Query('materialization_lag_seconds{product="churn"}')],
            unit="s",
            limits=steps((60, WARN), ((oldest - 24) * HOUR, BAD)),
            span=4,
        ),
        number(
            "Requests answered",
            f"Do callers get answers? Requests of the last 5 minutes without a 5xx; promised are {answered:.1%}.",
            [Query(ANSWERED)],
            unit="percentunit",
            limits=steps((answered, GOOD), below=BAD),
            decimals=2,
            span=4,
        ),
        number(
            "Customers scored, last hour",
            "Who feels it? Customers whose score was handed out in the last hour, good or bad.",
            [Query("sum(increase(outcome_log_rows_total[1h]))")],
            unit="none",
            limits=steps(below=NEUTRAL),
            decimals=0,
            span=4,
            filled=False,
        ),
    ]


def _alerts() -> list[Panel]:
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
            Query(SINCE),
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
            [
                Query(PAGES, "page"),
                Query(TICKETS, "ticket"),
            ],
            unit="none",
            lowest=0,
            stepped=True,
            colors={"page": BAD, "ticket": WARN},
            span=9,
            height=8,
        ),
    ]


def _data() -> list[Panel]:
    oldest, allowed = promises.oldest() / HOURS, promises.incomplete()
    return [
        curve(
            "Age of each table",
            "Which table is late? From the end of its last day to the platform's now. The line: the deadline.",
            [Query(f"{prefix(table)}_freshness_seconds / {HOUR}", table) for table in promises.daily_tables()],
            unit="suffix: h",
            limits=steps((oldest, BAD)),
            lowest=0,
            span=8,
            links=[link("The pipeline's stages", f"/d/{PIPELINE}")],
        ),
        curve(
            "Records that lack a key",
            f"Are rows incomplete? Share of nulls in what came last; the contracts allow {allowed:.1%}, the line.",
            [
                Query(f'max({prefix(table)}_null_ratio{{column=~"{"|".join(columns)}"}})', table)
                for table, columns in promises.complete_columns().items()
            ],
            unit="percentunit",
            limits=steps((allowed, BAD)),
            lowest=0,
            at_least=10 * allowed,
            span=8,
        ),
        curve(
            "Nulls in the features",
            "Did a feature go blank? Share of nulls in the newest rows, for each column that has any. Some are meant: "
            "no order in 30 days, no ticket.",
            [Query("features_customers_null_ratio > 0", "{{column}}")],
            unit="percentunit",
            lowest=0,
            span=8,
        ),
        curve(
            "Rows in force",
            "Did a table shrink or stand still? Rows of each table in the release in force.",
            [Query(f"{prefix(table)}_rows", table) for table in promises.tables()],
            unit="short",
            lowest=0,
            stepped=True,
            span=8,
        ),
        curve(
            "Rows at landing, in all",
            "Does the shop send bad batches? Rows that landed, and rows that broke a contract and were kept out.",
            [Query("landing_records_total", "{{table}} {{outcome}}")],
            unit="short",
            lowest=0,
            stepped=True,
            span=8,
        ),
        curve(
            "Failed gates",
            "Which gate stops the line, since when? 1 for a gate whose newest verdict is a failure; five of them.",
            [Query("topk(5, 1 - gate_passed)", "{{gate}}")],
            unit="none",
            lowest=0,
            at_least=1,
            stepped=True,
            span=8,
            links=[link("Report: the verdicts", REPORT)],
        ),
    ]


def _model() -> list[Panel]:
    share, slow = fast()

    def quantile(of: float) -> str:
        return (
            f"histogram_quantile({of}, sum by (le, model_version, track) "
            "(rate(prediction_latency_ms_bucket[$__rate_interval])))"
        )

    def mean(name: str) -> str:
        sums, counts = (
            f"sum by (model_version, track) (rate({name}_{part}[$__rate_interval]))" for part in ("sum", "count")
        )
        return f"{sums} / {counts}"

    return [
        curve(
            "Latency",
            f"Do callers wait? Inside the predictor; promised is {slow:g} ms for {share.objective:g}%, the line.",
            [Query(quantile(0.5), f"p50 {VERSION}"), Query(quantile(0.99), f"p99 {VERSION}")],
            unit="ms",
            limits=steps((slow, BAD)),
            lowest=0,
            span=8,
        ),
        curve(
            "Answers a second",
            "Is there traffic, and is it refused? By HTTP status; 404 is an unknown customer, 503 nothing to score on.",
            [Query("sum by (status) (rate(predictions_total[$__rate_interval])) > 0", "{{status}}")],
            unit="reqps",
            lowest=0,
            span=8,
        ),
        curve(
            "Missing features",
            "Is the model scoring blanks? Share of null inputs, mean over scored requests.",
            [Query(mean("pct_missing_features"), VERSION)],
            unit="percent",
            lowest=0,
            span=8,
        ),
        number(
            "Online differs from offline",
            "Does serving read what training read? Share of values that differed in the newest parity check.",
            [Query('feature_parity_mismatch_ratio{product="churn"}')],
            unit="percentunit",
            limits=steps((1e-9, BAD)),
            span=6,
        ),
        number(
            "Champion",
            "Which model answers?",
            [Query("champion_version", "version")],
            unit="none",
            limits=steps(below=NEUTRAL),
            filled=False,
            span=4,
            links=[link("MLflow: its run", f"{MODEL}")],
        ),
        number(
            "The champion on held-out customers",
            "How good was it when it was trained? It says nothing of today: outcomes take the label's window.",
            [Query('champion_metric{metric=~"roc_auc|log_loss|brier"}', "{{metric}}")],
            unit="none",
            limits=steps(below=NEUTRAL),
            filled=False,
            decimals=3,
            span=14,
            links=[link("MLflow: its run", f"{MODEL}")],
        ),
    ]


def _business() -> list[Panel]:
    panels: tuple[tuple[str, str, str, str], ...] = (
        (
            "Conversion rate (simulated)",
            "Do scored customers order? Share that ordered within the label's window, contacted or not.",
            "conversion_rate",
            "percentunit",
        ),
        (
            "Call center load (simulated)",
            "Does the campaign cost calls? Support calls for each scored customer.",
            "call_center_load",
            "none",
        ),
        (
            "Retained customers (simulated)",
            "Does the campaign keep anybody? Customers who were contacted as likely to leave, and ordered.",
            "retained_customers",
            "none",
        ),
        ("Average handle time (simulated)", "How long are the calls? Mean of a call.", "avg_handle_time", "s"),
    )
    return [
        number(
            title,
            SIMULATED + answers,
            [Query(name, VERSION)],
            unit=unit,
            limits=steps(below="blue"),
            filled=False,
            graph=True,
            span=6,
            height=5,
        )
        for title, answers, name, unit in panels
    ]
