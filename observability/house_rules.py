"""Alerts that no contract has a number for: a stage that failed, a gate that stopped the line, a part that is down."""

from __future__ import annotations

from observability import promises
from observability.rule import EXPORTER, PREDICTOR, WATCHDOG, Alert, Group
from observability.slo_rules import CUSTOMERS
from observability.way_back import MODEL, RUNBOOK, STAGE, by
from plumbline.contracts import contract as contracts
from plumbline.lineage.expected import affected_by
from products.churn import CHURN, LOG

STUCK = 3_600
"""Seconds: no stage of the demo takes a tenth of it, and a killed stage leaves a start without an end."""

OFFLINE = 900
"""Seconds from a release to its rows online; materialization takes under a minute and is tried twice."""

BEHIND = 1_000
"""Messages a consumer group may be behind before anybody looks."""


def groups() -> list[Group]:
    """The pipeline's alerts, the exporter's, the predictor's and those of event consumers."""
    features, orders = contracts.load("features.customers"), contracts.load("analytics.orders")
    landed = contracts.shop("orders")
    served, answers = affected_by(CHURN, "features.customers"), promises.predictor()
    pipeline = (
        Alert(
            "GateFailed",
            'gate_passed{gate!="parity"} == 0',
            "ticket",
            orders,
            "{{ $labels.gate }} stopped the line; the release in force stays and is served",
            STAGE,
            affected_by(CHURN, "analytics.orders"),
        ),
        Alert(
            "ParityBroken",
            "feature_parity_mismatch_ratio > 0",
            "page",
            features,
            "what is online is not what the release holds; customers whose rows were taken out get no score",
            by("plumb materialize && plumb parity_check", doubts_release=True),
            served,
        ),
        Alert(
            "StageFailed",
            'max by (product, stage) (stage_state{state=~"fail|killed"}) == 1',
            "ticket",
            orders,
            "{{ $labels.stage }} failed or was killed, and nobody has run it again",
            STAGE,
            affected_by(CHURN, "raw.orders"),
            300,
        ),
        Alert(
            "StageStuck",
            f"stage_running_seconds > {STUCK}",
            "ticket",
            orders,
            "{{ $labels.stage }} began {{ $value | humanizeDuration }} ago and has not ended",
            STAGE,
            affected_by(CHURN, "raw.orders"),
        ),
        Alert(
            "NotOnline",
            f"materialization_lag_seconds > {OFFLINE}",
            "page",
            features,
            "the release in force is not online: customers are scored from an older one",
            by("plumb materialize"),
            served,
        ),
        Alert(
            "OnlineRowsMissing",
            "online_rows < online_rows_written",
            "page",
            features,
            "Redis holds {{ $value }} whole rows, fewer than were written: who is missing gets no score",
            by("plumb materialize && plumb parity_check"),
            served,
            120,
        ),
        Alert(
            "LineageNotSent",
            _counted("lineage_emit_failures_total"),
            "ticket",
            features,
            "the lineage server did not confirm events; the file has them",
            by("plumb lineage_resend"),
        ),
    )
    watched = (
        Alert(
            WATCHDOG,
            "vector(1)",
            "none",
            features,
            "always fires: Prometheus evaluates its rules and Alertmanager hears of it",
            by("plumb up"),
        ),
    )
    exporter = (
        Alert(
            "ExporterDown",
            f'absent(up{{job="{EXPORTER}"}} == 1)',
            "page",
            features,
            "no exporter answers: nobody would be told of late or wrong data",
            by("plumb up"),
            seconds=120,
        ),
        Alert(
            "ExporterBlind",
            "sum by (what) (increase(exporter_unreadable_total[10m])) > 0",
            "ticket",
            features,
            "the exporter cannot read {{ $labels.what }}; the metrics that need it are absent",
            RUNBOOK,
        ),
    )
    serving = (
        Alert(
            "PredictorDown",
            f'absent(up{{job="{PREDICTOR}"}} == 1)',
            "page",
            answers,
            "no predictor answers",
            by("plumb up"),
            (CUSTOMERS,),
            60,
        ),
        Alert(
            "ModelRefused",
            "max by (model_version) (model_refused) == 1",
            "page",
            answers,
            "champion version {{ $labels.model_version }} does not verify; the previous version serves in its place",
            MODEL,
            (CUSTOMERS,),
        ),
        Alert(
            "OutcomesLost",
            f"{_counted('outcome_log_dropped_total')} or {_counted('outcome_log_failures_total')}",
            "ticket",
            answers,
            "predictions are served and not written down",
            RUNBOOK,
            affected_by(CHURN, LOG),
        ),
    )
    consumers = (
        Alert(
            "ConsumerLag",
            f"sum by (consumergroup, topic) (kafka_consumergroup_lag) > {BEHIND}"
            " and sum by (consumergroup, topic) (delta(kafka_consumergroup_lag[10m])) >= 0",
            "ticket",
            landed,
            "{{ $labels.consumergroup }} is {{ $value }} messages of {{ $labels.topic }} behind and does not catch up",
            RUNBOOK,
            affected_by(CHURN, "raw.orders"),
            300,
        ),
    )
    named = {"pipeline": pipeline, "exporter": exporter, "predictor": serving, "consumers": consumers}
    return [Group("watchdog", watched), *(Group(name, rules) for name, rules in named.items())]


def _counted(counter: str) -> str:
    """Whether a counter counted in the last 15 minutes. `increase` alone does not see a counter's first value."""
    return f"(increase({counter}[15m]) > 0 or ({counter} > 0 unless {counter} offset 15m))"
