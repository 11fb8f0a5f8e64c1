"""Alerts that no contract has a number for: a stage that failed, a gate that stopped the line, a part that is down."""

from __future__ import annotations

from observability import promises, stream_rules
from observability.rule import EXPORTER, WATCHDOG, Alert, Group
from observability.slo_rules import CUSTOMERS
from observability.way_back import RUNBOOK, by, model, stage
from plumbline.contracts import contract as contracts
from plumbline.contracts.contract import Contract
from plumbline.lineage.expected import affected_by
from plumbline.product import Product
from products import ALL
from products.churn import CHURN

STUCK = 3_600
"""Seconds: no stage of the demo takes a tenth of it, and a killed stage leaves a start without an end."""

OFFLINE = 900
"""Seconds from a release to its rows online; materialization takes under a minute and is tried twice."""


def groups() -> list[Group]:
    """What watches, each product's pipeline and predictor, its stream, and event consumers."""
    features = contracts.load(CHURN.features)
    watched = Alert(
        WATCHDOG,
        "vector(1)",
        "none",
        features,
        "always fires: Prometheus evaluates its rules and Alertmanager hears of it",
        by("plumb up"),
    )
    return [
        Group("watchdog", (watched,)),
        *(Group(f"pipeline of {product.name}", _pipeline(product)) for product in ALL),
        Group("exporter", _exporter(features)),
        *(Group(product.endpoint, _predictor(product)) for product in ALL),
        *stream_rules.groups(),
    ]


def _pipeline(product: Product) -> tuple[Alert, ...]:
    """Of a product's stages, and of what it has online."""
    of, about = f'product="{product.name}"', {"product": product.name}
    first, judged = (product.raw or product.tables)[0], (product.marts or product.tables)[0]
    features, owner = contracts.load(product.features), contracts.load(judged)
    served = affected_by(product, product.features)
    materialize, check = product.command_of("materialize"), product.command_of("parity_check")
    one = product.entities.removesuffix("s")
    return (
        Alert(
            "GateFailed",
            f'gate_passed{{{of},gate!="parity"}} == 0',
            "ticket",
            owner,
            "{{ $labels.gate }} stopped the line; the release in force stays and is served",
            stage(product),
            affected_by(product, judged),
            about=about,
        ),
        Alert(
            "ParityBroken",
            f"feature_parity_mismatch_ratio{{{of}}} > 0",
            "page",
            features,
            f"what is online is not what the release holds; {product.entities} whose rows were taken out get no score",
            by(f"{materialize} && {check}", doubts_release=True),
            served,
            about=about,
        ),
        Alert(
            "StageFailed",
            f'max by (product, stage) (stage_state{{{of},state=~"fail|killed"}}) == 1',
            "ticket",
            owner,
            "{{ $labels.stage }} failed or was killed, and nobody has run it again",
            stage(product),
            affected_by(product, first),
            300,
            about,
        ),
        Alert(
            "StageStuck",
            f"stage_running_seconds{{{of}}} > {STUCK}",
            "ticket",
            owner,
            "{{ $labels.stage }} began {{ $value | humanizeDuration }} ago and has not ended",
            stage(product),
            affected_by(product, first),
            about=about,
        ),
        Alert(
            "NotOnline",
            f"materialization_lag_seconds{{{of}}} > {OFFLINE}",
            "page",
            features,
            f"the release in force is not online: {product.entities} are scored from an older one",
            by(materialize),
            served,
            about=about,
        ),
        Alert(
            "OnlineRowsMissing",
            f"online_rows{{{of}}} < online_rows_written{{{of}}}",
            "page",
            features,
            f"Redis holds {{{{ $value }}}} whole rows, fewer than were written: a {one} without one gets no score",
            by(f"{materialize} && {check}"),
            served,
            120,
            about,
        ),
    )


def _exporter(features: Contract) -> tuple[Alert, ...]:
    """Of what watches, and of what it cannot see."""
    return (
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
        Alert(
            "LineageNotSent",
            counted("lineage_emit_failures_total"),
            "ticket",
            features,
            "the lineage server did not confirm events; the file has them",
            by("plumb lineage_resend"),
        ),
    )


def _predictor(product: Product) -> tuple[Alert, ...]:
    """Of a product's predictor. It is missed once a model was deployed, or it has run within a day."""
    of, about, answers = f'{{product="{product.name}"}}', {"product": product.name}, promises.predictor(product)
    here = f"predictions_in_flight{of}"  # of a target that does not answer Prometheus keeps no series
    wanted = f"max(champion_version{of}) or max(present_over_time({here}[1d]))"
    return (
        Alert(
            "PredictorDown",
            f"absent({here}) and on () ({wanted})",
            "page",
            answers,
            f"no predictor of {product.name} answers",
            by("plumb up"),
            (CUSTOMERS,),
            60,
            about,
        ),
        Alert(
            "ModelRefused",
            f"max by (model_version) (model_refused{of}) == 1",
            "page",
            answers,
            "champion version {{ $labels.model_version }} does not verify; the previous version serves in its place",
            model(product),
            (CUSTOMERS,),
            about=about,
        ),
        Alert(
            "OutcomesLost",
            f"{counted(f'outcome_log_dropped_total{of}')} or {counted(f'outcome_log_failures_total{of}')}",
            "ticket",
            answers,
            "predictions are served and not written down",
            RUNBOOK,
            affected_by(product, product.log),
            about=about,
        ),
    )


def counted(counter: str) -> str:
    """Whether a counter counted in the last 15 minutes. `increase` alone does not see a counter's first value."""
    return f"(increase({counter}[15m]) > 0 or ({counter} > 0 unless {counter} offset 15m))"
