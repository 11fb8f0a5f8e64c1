"""Every alert, by promtool: it fires when it should, and is silent when it should be, or when another one covers it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from observability import cluster_rules, generated, house_rules, slo_rules
from observability.promises import Speed, fast
from observability.rule import alerts
from observability.way_back import missing_day
from plumbline.product import Product
from plumbline.settings import ROOT
from products import ALL
from products.churn import CHURN

Tool = Callable[[str], Path]
UP = {'up{job="exporter"}': "1x250"}
SERVED = {f'predictions_in_flight{{product="{product.name}"}}': "0x250" for product in ALL}
BOTH = {**UP, **SERVED}
TABLES = (
    "analytics.customers",
    "analytics.orders",
    "analytics.returns",
    "features.customers",
    "raw.customers",
    "raw.orders",
    "raw.returns",
)
KNOWN = {f"{table.replace('.', '_')}_freshness_seconds": "0x250" for table in TABLES}
"""What a platform in which nothing is wrong shows."""


@dataclass(frozen=True)
class Case:
    """Series, and what fires at a time: each as the labels that tell it, besides `alertname`."""

    alert: str
    series: dict[str, str]
    at: str
    fires: tuple[str, ...] = ()
    by: str = "severity"
    interval: str = "1m"
    name: str = field(default="")
    product: str = ""
    """Whose series they are: its alerts may fire, and none of another product."""

    def __str__(self) -> str:
        return f"{self.alert}-{self.product}-{'fires' if self.fires else 'silent'}-{self.name}"


def late(table: str, freshness: str) -> dict[str, str]:
    return {**BOTH, **KNOWN, f"{table.replace('.', '_')}_freshness_seconds": freshness}


def landed(features: str) -> dict[str, str]:
    """raw.orders was late until minute 20."""
    return {
        **late("features.customers", features.replace("86460", "86760")),
        "raw_orders_freshness_seconds": "86760x20 300x60",
    }


def nulls(column: str, values: str) -> dict[str, str]:
    return {f'features_customers_null_ratio{{column="{column}"}}': values}


GROUP = 'consumergroup="plumbline-order-events",topic="shop.orders",partition="0"'


def lag(values: str, at: str = "0+10x60") -> dict[str, str]:
    """Messages that wait, and where the group is: by default ten a minute are read."""
    return {f"kafka_consumergroup_{name}{{{GROUP}}}": had for name, had in (("lag", values), ("current_offset", at))}


CASES = [
    # The deadline is 00:05: five minutes past it is late, a minute before it is not.
    Case("DatasetLate", late("features.customers", "86400+60x20"), "6m", ("features.customers",), "dataset"),
    Case("DatasetLate", late("features.customers", "86400+60x20"), "5m", (), "dataset", name="until 00:05"),
    Case("DatasetLate", late("raw.orders", "86400+60x20"), "6m", ("raw.orders",), "dataset", name="by its downstream"),
    Case("DatasetLate", late("features.customers", "86400+60x6 0x10"), "8m", (), "dataset", name="after recovery"),
    Case("DatasetLate", late("raw.orders", "86400+60x6 0x10"), "7m", ("raw.orders",), "dataset", name="just landed"),
    Case("DatasetLate", late("raw.orders", "86400+60x6 0x10"), "8m", (), "dataset", name="landed"),
    Case("DatasetLate", landed("86460x60"), "29m", (), "dataset", name="its source has just landed"),
    Case("DatasetLate", landed("86460x60"), "40m", ("features.customers",), "dataset", name="landed long ago"),
    Case("DatasetLate", BOTH, "1h", name="missing, DatasetUnknown covers it"),
    Case("DatasetUnknown", BOTH, "11m", tuple(sorted(TABLES)), "dataset", name="nothing is known"),
    Case("DatasetUnknown", BOTH, "9m", (), "dataset", name="ten minutes' grace"),
    Case("DatasetUnknown", {**BOTH, **KNOWN}, "1h", (), "dataset", name="all is known"),
    Case("DatasetUnknown", SERVED, "1h", (), "dataset", name="missing, ExporterDown covers it"),
    # 99.5% of 200 days: the first late day spends the budget, the second is too many.
    Case("LateDaysSpent", {**BOTH, "features_customers_late_days": "2x10"}, "1m", ("features.customers",), "dataset"),
    Case("LateDaysSpent", {**BOTH, "features_customers_late_days": "1x10"}, "1m", (), "dataset", name="one in 200"),
    Case("LateDaysSpent", BOTH, "1h", (), "dataset", name="missing, DatasetUnknown covers it"),
    # 0.1% may lack their id; 14.4 times as much over an hour and five minutes pages.
    Case("DatasetIncomplete", nulls("customer_id", "0.02x120"), "66m", ("page", "ticket"), name="2% for an hour"),
    Case("DatasetIncomplete", nulls("customer_id", "0x60 1x10"), "63m", ("page", "ticket"), name="all of them"),
    Case("DatasetIncomplete", nulls("customer_id", "0.002x60"), "9h", ("ticket",), interval="10m", name="twice it"),
    Case("DatasetIncomplete", nulls("customer_id", "0.0005x60"), "9h", (), interval="10m", name="half of it"),
    Case("DatasetIncomplete", nulls("customer_id", "0.02x120 0x300"), "200m", ("ticket",), name="page ends"),
    Case("DatasetIncomplete", nulls("avg_ticket_30d", "0.9x120"), "66m", name="a column that may be null"),
    Case("DatasetIncomplete", BOTH, "66m", name="missing, DatasetUnknown covers it"),
    Case("LineageNotSent", {"lineage_emit_failures_total": "0x5 3x20"}, "7m", ("ticket",)),
    Case("LineageNotSent", {"lineage_emit_failures_total": "_x5 3x20"}, "7m", ("ticket",), name="its first value"),
    Case("LineageNotSent", {"lineage_emit_failures_total": "3x60"}, "30m", name="long ago"),
    Case("ExporterDown", {**SERVED, 'up{job="exporter"}': "1x5 0x20"}, "9m", ("page",)),
    Case("ExporterDown", SERVED, "3m", ("page",), name="no target at all"),
    Case("ExporterDown", BOTH, "9m", name="up"),
    Case("ExporterBlind", {'exporter_unreadable_total{what="ledger"}': "0x5 1+1x20"}, "7m", ("ledger",), "what"),
    Case("ExporterBlind", {'exporter_unreadable_total{what="ledger"}': "7x60"}, "30m", (), "what", name="mended"),
    Case("ConsumerLag", lag("900+100x60"), "20m", ("shop.orders",), "topic"),
    Case("ConsumerLag", lag("9000x60", "0+100x60"), "20m", ("shop.orders",), "topic", name="90 minutes' reading"),
    Case("ConsumerLag", lag("9000x60", "0+60000x60"), "30m", (), "topic", name="nine seconds' reading"),
    Case("ConsumerLag", lag("9000-100x60"), "30m", (), "topic", name="catching up"),
    Case("ConsumerLag", lag("500x60"), "30m", (), "topic", name="a little"),
    Case("ConsumerLag", BOTH, "30m", (), "topic", name="missing, no Kafka"),
    Case("Watchdog", {}, "1h", ("none",), name="whatever there is"),
]


def pipeline(product: Product) -> list[Case]:
    """Of a product's stages, and of what it has online."""
    of, last = f'product="{product.name}"', product.daily_stages[1]
    stage, online = f'{of},stage="{last}"', {f"online_rows_written{{{of}}}": "9x9"}
    gate, parity = f'gate_passed{{{of},gate="volume"}}', f'gate_passed{{{of},gate="parity"}}'
    mismatch, lag, rows = (
        f"{name}{{{of}}}" for name in ("feature_parity_mismatch_ratio", "materialization_lag_seconds", "online_rows")
    )
    fail, killed, stopped = (f'stage_state{{{stage},state="{state}"}}' for state in ("fail", "killed", "gate_failed"))
    running = f"stage_running_seconds{{{stage}}}"
    cases = [
        Case("GateFailed", {gate: "1x5 0x10"}, "6m", ("volume",), "gate"),
        Case("GateFailed", {gate: "0x5 1x10"}, "7m", (), "gate", name="again"),
        Case("GateFailed", {parity: "0x9"}, "5m", (), "gate", name="ParityBroken's"),
        Case("GateFailed", BOTH, "1h", name="missing, ExporterBlind covers it"),
        Case("ParityBroken", {mismatch: "0x5 0.001x9"}, "6m", ("page",)),
        Case("ParityBroken", {mismatch: "0x9"}, "6m", name="equal"),
        Case("StageFailed", {fail: "1x20"}, "6m", (last,), "stage"),
        Case("StageFailed", {killed: "1x20"}, "6m", (last,), "stage", name="killed"),
        Case("StageFailed", {fail: "1x3 0x20"}, "20m", (), "stage", name="second try"),
        Case("StageFailed", {stopped: "1x20"}, "9m", (), "stage", name="GateFailed's"),
        Case("StageStuck", {running: "3500+60x9"}, "3m", (last,), "stage"),
        Case("StageStuck", {running: "0+60x9"}, "9m", (), "stage", name="at work"),
        Case("NotOnline", {lag: "800+60x9"}, "3m", ("page",)),
        Case("NotOnline", {lag: "0x9"}, "9m", name="online"),
        Case("OnlineRowsMissing", online | {rows: "9x3 8x9"}, "6m", ("page",)),
        Case("OnlineRowsMissing", online | {rows: "9x3 8x1 9x9"}, "9m", name="brought back"),
        Case("OnlineRowsMissing", {rows: "8x9"}, "6m", name="none is online"),
    ]
    return [replace(case, product=product.name) for case in cases]


def predictor(product: Product) -> list[Case]:
    """Of a product's predictor: what it answers, how fast, and whether it is there."""
    of = f'product="{product.name}"'

    def answers(good: str, bad: str, status: str = "503") -> dict[str, str]:
        totals = {"200": good, status: bad}
        return {f'predictions_total{{{of},protocol="v1",status="{n}"}}': values for n, values in totals.items()}

    def latency(speed: Speed, fast: str, every: str) -> dict[str, str]:
        about = f'{of},input="{speed.input}",model_version="1",track="stable"'
        return {
            f'prediction_latency_ms_bucket{{le="{speed.milliseconds:.1f}",{about}}}': fast,
            f"prediction_latency_ms_count{{{about}}}": every,
        }

    here, champion = f"predictions_in_flight{{{of}}}", {f'champion_version{{{of},model="m"}}': "1x1500"}
    refused, failures = f'model_refused{{{of},model_version="3"}}', f"outcome_log_failures_total{{{of}}}"
    both, hour, ten = ("page", "ticket"), "66m", "10m"
    cases = [
        Case("PredictorFailing", answers("0+57x120", "0+3x120"), hour, both, name="5% for an hour"),
        Case("PredictorFailing", answers("0+59980x60", "0+120x60"), "9h", ("ticket",), interval=ten, name="0.2%"),
        Case("PredictorFailing", answers("0+60x120", "0x120"), hour, name="none fails"),
        Case("PredictorFailing", answers("0+1x120", "0x57 1x60"), "59m", name="one at night, where few ask"),
        Case("PredictorFailing", answers("0+1x120", "0x50 1+1x3 4x60"), "56m", name="four at night"),
        Case("PredictorFailing", answers("0+1x120", "0x50 1+1x7 8x60"), "58m", both, name="eight at night"),
        Case("PredictorFailing", answers("0x120", "0+60x120", "404"), hour, name="not ours"),
        Case("PredictorFailing", answers("0x120", "0x120"), hour, name="nobody asks"),
        Case("PredictorFailing", UP, hour, name="missing, PredictorDown covers it"),
        Case("PredictorSlow", UP, hour, name="missing, PredictorDown covers it"),
        Case("PredictorDown", {**UP, **champion, here: "0x5 stale"}, "8m", ("page",)),
        Case("PredictorDown", {**UP, **champion}, "3m", ("page",), name="no target at all"),
        Case("PredictorDown", {**UP, here: "0x5 stale"}, "20h", ("page",), interval="5m", name="it ran today"),
        Case("PredictorDown", {**UP, here: "0x5 stale"}, "26h", interval="5m", name="it is gone for good"),
        Case("PredictorDown", UP, "3m", name="no model was ever deployed"),
        Case(
            "PredictorDown",
            {**UP, **champion, f'predictions_in_flight{{{of},instance="a"}}': "0x2 stale", here: "0x20"},
            "9m",
            name="one of two",
        ),
        Case("ModelRefused", {refused: "1x9"}, "1m", ("3",), "model_version"),
        Case("ModelRefused", {refused: "0x9"}, "1m", (), "model_version", name="taken"),
        Case(
            "OutcomesLost",
            {f'outcome_log_dropped_total{{{of},reason="full"}}': "_x5 7x9"},
            "7m",
            ("ticket",),
            name="dropped",
        ),
        Case("OutcomesLost", {failures: "0x5 1x9"}, "7m", ("ticket",), name="not written"),
        Case("OutcomesLost", {failures: "0x50"}, "30m", name="all written"),
    ]
    for speed in fast(product):
        by = speed.input
        night = latency(speed, "0+1x57 57+1x60", "0+1x57 59+1x60")
        cases += [
            Case("PredictorSlow", latency(speed, "0+40x120", "0+60x120"), hour, both, name=f"a third by {by}"),
            Case(
                "PredictorSlow",
                latency(speed, "0+980x60", "0+1000x60"),
                "9h",
                ("ticket",),
                interval=ten,
                name=f"twice what is allowed by {by}",
            ),
            Case("PredictorSlow", latency(speed, "0+60x120", "0+60x120"), hour, name=f"all in time by {by}"),
            Case("PredictorSlow", night, "59m", name=f"one slow by {by}, where few ask"),
        ]
    return [replace(case, product=product.name) for case in cases]


def stream(product: Product) -> list[Case]:
    """Of a product's order stream."""
    of = f'product="{product.name}"'
    known = f"events_known_at_timestamp_seconds{{{of}}}"
    landed = f"events_landed_total{{{of}}}"

    def letters(landed: str, malformed: str, wrong_type: str = "0x120") -> dict[str, str]:
        dead = f"events_dead_letters_total{{{of},reason="
        sent = {f"events_landed_total{{{of}}}": landed, f"events_duplicates_total{{{of}}}": "0x120"}
        return {**sent, f'{dead}"malformed"}}': malformed, f'{dead}"wrong_type"}}': wrong_type}

    def fresh(in_time: str, every: str) -> dict[str, str]:
        name = "events_freshness_seconds"
        return {f'{name}_bucket{{{of},le="5.0"}}': in_time, f"{name}_count{{{of}}}": every}

    both, hour, ten = ("page", "ticket"), "66m", "10m"
    cases = [
        Case("StreamDown", {landed: "0+9x9 stale"}, "16m", ("page",)),
        Case("StreamDown", {landed: "0+9x9 stale"}, "14m", name="five minutes' grace"),
        Case("StreamDown", {landed: "0+9x9 stale"}, "26h", interval="5m", name="it is gone for good"),
        Case("StreamDown", {landed: "7x60"}, "30m", name="nobody orders"),
        Case("StreamDown", BOTH, "30m", name="there never was one"),
        Case("StreamStalled", {**lag("7x60"), known: "100+60x5 400x60"}, "16m", ("shop.orders",), "topic"),
        Case("StreamStalled", {**lag("7x60"), known: "100+60x5 400x60"}, "12m", (), "topic", name="a long batch"),
        Case("StreamStalled", lag("7x60"), "6m", ("shop.orders",), "topic", name="it landed nothing since it began"),
        Case("StreamStalled", {**lag("7x60"), known: "100+60x60"}, "30m", (), "topic", name="it lands"),
        Case("StreamStalled", {**lag("0x60"), known: "100x60"}, "30m", (), "topic", name="nobody orders"),
        Case(
            "StreamStalled", {**lag("0x20 7x60"), known: "100x20 160+60x60"}, "40m", (), "topic", name="after a night"
        ),
        Case("StreamStalled", BOTH, "30m", (), "topic", name="there never was one"),
        # 0.1% of what is sent may be no event: all reasons together, and each is named.
        Case("DeadLetters", letters("0+1000x120", "0+2x120"), hour, ("malformed",), "reason", name="0.2%"),
        Case(
            "DeadLetters",
            letters("0+10000x120", "0+7x120", "0+7x120"),
            hour,
            ("malformed", "wrong_type"),
            "reason",
            name="0.07% each",
        ),
        Case("DeadLetters", letters("0+10000x120", "0+7x120"), hour, (), "reason", name="0.07%"),
        Case("DeadLetters", letters("0+1x120", "0x30 4x90"), hour, (), "reason", name="four at night"),
        Case("DeadLetters", letters("0x120", "0x30 9x90"), hour, ("malformed",), "reason", name="nothing else"),
        Case("DeadLetters", letters("0+1000x300", "0+2x60 120x240"), "125m", (), "reason", name="an hour later"),
        Case("DeadLetters", BOTH, hour, (), "reason", name="there never was one"),
        Case("StreamSlow", fresh("0+40x120", "0+60x120"), hour, both, name="a third for an hour"),
        Case("StreamSlow", fresh("0+980x60", "0+1000x60"), "9h", ("ticket",), interval=ten, name="twice the budget"),
        Case("StreamSlow", fresh("0+60x120", "0+60x120"), hour, name="all in time"),
        Case("StreamSlow", fresh("0+995x60", "0+1000x60"), "9h", interval=ten, name="half the budget"),
        Case("StreamSlow", fresh("0+1x57 57+1x60", "0+1x57 59+1x60"), "59m", name="one, where few order"),
        Case("StreamSlow", fresh("0x120", "0x120"), hour, name="nobody orders"),
        Case("StreamSlow", BOTH, hour, name="there never was one"),
    ]
    return [replace(case, product=product.name) for case in cases]


def rollout(product: Product) -> list[Case]:
    """Of a product's Rollout in one of its namespaces."""
    namespace = f"{product.name}-prod"
    of = f'namespace="{namespace}",name="{product.name}"'

    def phases(**values: str) -> dict[str, str]:
        return {f'rollout_info{{{of},phase="{phase}"}}': had for phase, had in values.items()}

    def pods(available: str, desired: str) -> dict[str, str]:
        counts = {"available": available, "desired": desired}
        return {f"rollout_info_replicas_{which}{{{of}}}": had for which, had in counts.items()}

    there, by = (namespace,), "namespace"
    cases = [
        Case("RolloutAborted", phases(Progressing="1x9 stale", Abort="_x9 1x9"), "12m", there, by),
        Case("RolloutAborted", phases(InvalidSpec="1x9"), "3m", there, by, name="a spec that is none"),
        Case("RolloutAborted", phases(Abort="1x9 stale", Completed="_x9 1x9"), "12m", (), by, name="reverted"),
        Case("RolloutAborted", phases(Progressing="1x9"), "9m", (), by, name="under way"),
        Case("RolloutAborted", {'rollout_info{name="theirs",phase="Abort"}': "1x9"}, "9m", (), by, name="not ours"),
        Case("RolloutStuck", phases(Paused="1x90"), "62m", there, by),
        Case("RolloutStuck", phases(Paused="1x30 stale", Progressing="_x30 1x60"), "62m", there, by, name="again"),
        Case("RolloutStuck", phases(Progressing="1x20 stale", Completed="_x20 1x99"), "90m", (), by, name="a canary"),
        Case("RolloutPodsMissing", pods("3x9 2x30", "3x40"), "21m", there, by),
        Case("RolloutPodsMissing", pods("3x9 2x6 3x30", "3x40"), "21m", (), by, name="a pod is replaced"),
        Case("RolloutPodsMissing", pods("4x40", "3x40"), "21m", (), by, name="a canary beside them"),
    ]
    missing = [Case(alert, BOTH, "3h", (), by, name="no cluster") for alert in sorted({case.alert for case in cases})]
    return [replace(case, product=product.name) for case in [*cases, *missing]]


def application(name: str, project: str, **labels: str) -> str:
    told = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return f'{{namespace="argocd",name="{name}",project="{project}",{told}}}'


def app(values: str, name: str = "churn-prod", project: str = "plumbline", **labels: str) -> dict[str, str]:
    return {f"argocd_app_info{application(name, project, **labels)}": values}


def syncs(values: str, phase: str = "Failed", dry_run: str = "false") -> dict[str, str]:
    labels = application("churn-prod", "plumbline", phase=phase, dry_run=dry_run)
    return {f"argocd_app_sync_total{labels}": values}


def until(seconds: int, which: str = "root") -> dict[str, str]:
    """The mesh's certificate; promtool's clock begins at 0."""
    name = {"root": "citadel_server_root_cert_expiry_timestamp", "chain": "citadel_server_cert_chain_expiry_timestamp"}
    return {f'{name[which]}{{pod="istiod"}}': f"{seconds}x60"}


def left(values: str, which: str = "default") -> dict[str, str]:
    return {f'istio_agent_cert_expiry_seconds{{pod="p",resource_name="{which}"}}': values}


def pressed(values: str, condition: str = "DiskPressure", status: str = "true") -> dict[str, str]:
    return {f'kube_node_status_condition{{node="n",condition="{condition}",status="{status}"}}': values}


DAY, FINE = 86_400, {"sync_status": "Synced", "health_status": "Healthy"}
CASES += [
    Case("SyncFailed", syncs("_x5 1x20"), "7m", ("churn-prod",), "name", name="its first value"),
    Case("SyncFailed", syncs("2x5 3x20", "Error"), "7m", ("churn-prod",), "name"),
    Case("SyncFailed", syncs("3x60"), "30m", (), "name", name="long ago"),
    Case("SyncFailed", syncs("0+1x60", "Succeeded"), "30m", (), "name", name="each went well"),
    Case("SyncFailed", syncs("0+1x60", dry_run="true"), "30m", (), "name", name="only tried"),
    Case("ApplicationOutOfSync", app("1x90", sync_status="OutOfSync"), "62m", ("churn-prod",), "name"),
    Case("ApplicationOutOfSync", app("1x90", sync_status="Unknown"), "62m", ("churn-prod",), "name", name="no Git"),
    Case("ApplicationOutOfSync", app("1x30 stale", sync_status="OutOfSync"), "62m", (), "name", name="for a canary"),
    Case("ApplicationOutOfSync", app("1x90", **FINE), "62m", (), "name", name="synced"),
    Case("ApplicationOutOfSync", app("1x90", project="x", sync_status="OutOfSync"), "62m", (), "name", name="theirs"),
    Case("ApplicationDegraded", app("1x90", health_status="Degraded"), "12m", ("churn-prod",), "name"),
    Case(
        "ApplicationDegraded",
        app("1x90", "plumbline", "x", health_status="Missing"),
        "12m",
        ("plumbline",),
        "name",
    ),
    Case("ApplicationDegraded", app("1x8 stale", health_status="Degraded"), "12m", (), "name", name="for a moment"),
    Case("ApplicationDegraded", app("1x90", health_status="Progressing"), "62m", (), "name", name="under way"),
    Case("MeshRootEnding", until(29 * DAY), "5m", ("root",), "certificate"),
    Case("MeshRootEnding", until(31 * DAY) | until(29 * DAY, "chain"), "5m", ("chain",), "certificate", name="signer"),
    Case("MeshRootEnding", until(31 * DAY) | until(31 * DAY, "chain"), "5m", (), "certificate", name="in a month"),
    Case("ProxyCertificateNotRenewed", left("21000x20"), "9m", ("p",), "pod"),
    Case("ProxyCertificateNotRenewed", left("43000-60x20"), "9m", (), "pod", name="at half"),
    Case("ProxyCertificateNotRenewed", left("21000x2 86000x20"), "9m", (), "pod", name="late"),
    Case("ProxyCertificateNotRenewed", left("21000x20", "ROOTCA"), "9m", (), "pod", name="MeshRootEnding's"),
    Case("ControllerSilent", app("1x5 stale", **FINE), "16m", ("argo-cd",), "controller"),
    Case("ControllerSilent", {'rollout_info{name="churn"}': "1x5 stale"}, "16m", ("argo-rollouts",), "controller"),
    Case("ControllerSilent", app("1x5 stale", **FINE), "8m", (), "controller", name="started again"),
    Case("ControllerSilent", app("1x5 stale", **FINE), "26h", (), "controller", interval="5m", name="gone for good"),
    Case("ControllerSilent", app("1x90", **FINE), "60m", (), "controller", name="heard of"),
    Case("NodeUnderPressure", pressed("1x20"), "6m", ("DiskPressure",), "condition"),
    Case("NodeUnderPressure", pressed("1x3 0x20"), "9m", (), "condition", name="over soon"),
    Case("NodeUnderPressure", pressed("1x20", status="false"), "9m", (), "condition", name="no pressure"),
    Case("NodeUnderPressure", pressed("1x20", "Ready"), "9m", (), "condition", name="a good condition"),
    *(Case(alert, BOTH, "3h", name="no cluster") for alert in ("SyncFailed", "MeshRootEnding", "ControllerSilent")),
]
CASES += [case for product in ALL for case in rollout(product)]
CASES += [case for product in ALL if product.streams for case in stream(product)]
CASES += [case for product in ALL for case in (*pipeline(product), *predictor(product))]


def promtool(
    tool: Path, folder: Path, tests: list[dict[str, Any]], alert: str = ""
) -> subprocess.CompletedProcess[str]:
    """promtool over a cluster's committed rules; of `alert`, over the groups that hold it: a group needs no other."""
    committed = [yaml.safe_load(path.read_text())["spec"] for path in (ROOT / generated.CLUSTER).glob("rules-*.yaml")]
    groups = [group for rules in committed for group in rules["groups"]]
    chosen = [group for group in groups if alert in ("", *(rule.get("alert") for rule in group["rules"]))]
    (folder / "rules.yml").write_text(yaml.safe_dump({"groups": chosen}))
    file, given = folder / "test.yml", {"rule_files": ["rules.yml"], "tests": tests}
    file.write_text(yaml.safe_dump({**given, "evaluation_interval": tests[0]["interval"]}))
    return subprocess.run([tool, "test", "rules", file], capture_output=True, text=True, timeout=60, check=False)


def expected(series: dict[str, str], expr: str, at: str, samples: list[str], interval: str) -> dict[str, Any]:
    return {
        "interval": interval,
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {"expr": expr, "eval_time": at, "exp_samples": [{"labels": sample, "value": 1} for sample in samples]}
        ],
    }


@pytest.mark.parametrize("alert", sorted({case.alert for case in CASES}))
def test_an_alert_fires_when_it_should_and_only_then(alert: str, binary: Tool, tmp_path: Path) -> None:
    cases = [case for case in CASES if case.alert == alert]
    for interval in sorted({case.interval for case in cases}):
        tests = []
        for case in cases:
            if case.interval == interval:
                by = f"product, {case.by}" if case.product else case.by
                expr = f'group by ({by}) (ALERTS{{alertname="{alert}",alertstate="firing"}})'
                of = f'product="{case.product}",' if case.product else ""
                samples = [f'{{{of}{case.by}="{value}"}}' for value in case.fires]
                tests.append({"name": str(case), **expected(case.series, expr, case.at, samples, interval)})
        done = promtool(binary("promtool"), tmp_path, tests, alert)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_is_silent() -> None:
    found = alerts([*slo_rules.groups(), *house_rules.groups(), *cluster_rules.groups()])
    names = {(alert.name, "" if "dataset" in alert.about else alert.about.get("product", "")) for alert in found}
    assert {(case.alert, case.product) for case in CASES if case.fires} == names
    silent = {(case.alert, case.product) for case in CASES if not case.fires}
    assert silent == names - {("Watchdog", "")}, "its silence is the alarm"


def test_without_any_data_only_those_fire_that_say_so(binary: Tool, tmp_path: Path) -> None:
    firing = 'group by (alertname) (ALERTS{alertstate="firing",severity!="none"})'
    nothing = expected({}, firing, "3h", ['{alertname="ExporterDown"}'], "10m")
    well = expected({**BOTH, **KNOWN}, firing, "3h", [], "10m")
    done = promtool(binary("promtool"), tmp_path, [nothing, well])
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_alert_says_whose_it_is_what_is_downstream_and_where_to_read_on(binary: Tool, tmp_path: Path) -> None:
    alert = next(
        a for a in alerts(slo_rules.groups()) if (a.name, a.about.get("dataset")) == ("DatasetLate", "raw.orders")
    )
    labels = alert.as_dict()["labels"]
    assert labels["owner"] == "shop-data-owner" and labels["channel"] == "#shop-data" and labels["severity"] == "page"
    assert "features.customers" in labels["affected"] and "endpoints.churn-predictor" in labels["affected"]
    test = {
        "interval": "1m",
        "input_series": [{"series": "raw_orders_freshness_seconds", "values": "86761x9"}],
        "alert_rule_test": [
            {
                "eval_time": "1m",
                "alertname": "DatasetLate",
                "exp_alerts": [
                    {
                        "exp_labels": labels,
                        "exp_annotations": {
                            "summary": "raw.orders: yesterday is not there, it was due at 00:05 UTC",
                            "description": missing_day(CHURN).sentence.format(alert="DatasetLate"),
                            "runbook": "docs/runbooks/DatasetLate.md",
                        },
                    }
                ],
            }
        ],
    }
    done = promtool(binary("promtool"), tmp_path, [test])
    assert done.returncode == 0, done.stdout + done.stderr
