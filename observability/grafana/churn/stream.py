"""Churn's section of the order stream: how much comes, how far behind it is, how fresh, and what is no event."""

from __future__ import annotations

from observability import promises
from observability.grafana.board import RUNBOOKS, Section
from observability.grafana.parts import BAD, GOOD, WARN, Query, curve, link, number, steps
from observability.stream_rules import BEHIND, STILL
from plumbline.contracts import contract as contracts
from plumbline.servers import kafka
from products.churn import ACTIVITY

OF, RATE = 'product="churn"', "[$__rate_interval]"
LAG = f'kafka_consumergroup_lag{{consumergroup="{kafka.GROUP}"}}'
AGE = f"max(plumbline_clock_seconds) - max(events_known_at_timestamp_seconds{{{OF}}})"


def stream() -> Section:
    """Empty in a home whose stream does not run."""
    promised = promises.fresh(contracts.load(ACTIVITY))
    seconds = [] if promised is None else [(promised[1], BAD)]
    freshness = f"events_freshness_seconds_bucket{{{OF}}}"
    kinds = {"landed": "landed", "late": "late", "duplicates": "duplicates", "dead_letters": "dead letters"}
    return "Order stream", [
        number(
            "Messages that wait",
            "Is the stream behind? Messages of the topic that have not landed, all partitions.",
            [Query(f"sum({LAG})")],
            unit="none",
            limits=steps((BEHIND, WARN)),
            span=6,
            links=[link("Runbook", f"{RUNBOOKS}/StreamStalled.md")],
        ),
        number(
            "Freshness p99, last hour",
            "Is the promise kept? From an order to its customer's row in Redis, red past the contract's seconds. Late "
            "events are left out.",
            [_share(0.99, freshness, "[1h]")],
            unit="s",
            limits=steps(*seconds),
            decimals=1,
            span=6,
            links=[link("Runbook", f"{RUNBOOKS}/StreamSlow.md")],
        ),
        number(
            "Dead letters, last hour",
            "Does the shop send what is no event? `plumb events dead-letters` lists them.",
            [Query(f"sum(increase(events_dead_letters_total{{{OF}}}[1h]))")],
            unit="none",
            limits=steps((1, WARN)),
            decimals=0,
            span=6,
            links=[link("Runbook", f"{RUNBOOKS}/DeadLetters.md")],
        ),
        number(
            "Since the newest batch",
            "Does anything land? Without messages nothing does; while some wait, this must stay small.",
            [Query(AGE)],
            unit="s",
            limits=steps((STILL, WARN), below=GOOD),
            span=6,
        ),
        curve(
            "Order events a second",
            "How much comes? Landed are new events, late ones are among them; duplicates had landed before.",
            [Query(f"sum(rate(events_{name}_total{{{OF}}}{RATE}))", told) for name, told in kinds.items()],
            unit="none",
            lowest=0,
            span=8,
        ),
        curve(
            "Lag, by partition",
            "Which partition is behind? One alone: a hot key. All of them: the job is slow or stands still.",
            [Query(f"max by (partition) ({LAG})", "partition {{partition}}")],
            unit="none",
            lowest=0,
            span=8,
        ),
        curve(
            "Freshness",
            "How old is an order when its customer is scored on it? Dashed is what the contract promises of 99%.",
            [_share(0.5, freshness, RATE), _share(0.99, freshness, RATE)],
            unit="s",
            limits=steps(*seconds),
            lowest=0,
            span=8,
        ),
        curve(
            "Dead letters a second, by reason",
            "What is wrong with what is sent? The reasons are those of `plumb events dead-letters`.",
            [Query(f"sum by (reason) (rate(events_dead_letters_total{{{OF}}}{RATE})) > 0", "{{reason}}")],
            unit="none",
            lowest=0,
            span=8,
        ),
        curve(
            "Seconds a batch",
            "Did batches become slow? From a batch's offsets to Redis and the books.",
            [_share(share, f"events_batch_seconds_bucket{{{OF}}}", RATE) for share in (0.5, 0.99)],
            unit="s",
            lowest=0,
            span=8,
        ),
        curve(
            "Since the newest batch, over time",
            "When did it stand still? The platform's clock less the newest batch's instant.",
            [Query(AGE, "since the newest batch")],
            unit="s",
            lowest=0,
            span=8,
        ),
    ]


def _share(share: float, bucket: str, window: str) -> Query:
    asked = f"histogram_quantile({share:g}, sum by (le) (rate({bucket}{window})))"
    return Query(asked, f"p{100 * share:g}")
