"""Alerts of a product's order stream: it is down, it stands still, or what is sent is no event.

A home that never ran one has none of its series, and none of these fires there.
"""

from __future__ import annotations

from observability import promises
from observability.rule import Alert, Group
from observability.slo_rules import LEAST, stream_affects
from observability.way_back import RUNBOOK, by
from plumbline.contracts import contract as contracts
from plumbline.product import Product
from plumbline.servers import kafka
from products import ALL

BEHIND = 1_000
"""Messages a consumer group may be behind before anybody looks."""

CAUGHT_UP = 60
"""Seconds of reading, at the pace of the last ten minutes, that may lie before a consumer group."""

STILL = 300
"""Seconds without a batch while messages wait; a batch takes a minute at most."""


def groups() -> list[Group]:
    """Of each product with a stream, and of consumer groups."""
    found = [Group(f"order stream of {product.name}", _stream(product)) for product in ALL if product.streams]
    return [*found, Group("consumers", tuple(_lag(product) for product in ALL if product.streams))]


def _lag(product: Product) -> Alert:
    each = "sum by (consumergroup, topic)"
    lag, read = f"{each} (kafka_consumergroup_lag)", f"{each} (delta(kafka_consumergroup_current_offset[10m]))"
    return Alert(
        "ConsumerLag",
        f"{lag} > {BEHIND} and {each} (delta(kafka_consumergroup_lag[10m])) >= 0"
        f" unless {lag} <= {read} * {CAUGHT_UP} / 600",
        "ticket",
        _activity(product),
        "{{ $labels.consumergroup }} is {{ $value }} messages of {{ $labels.topic }} behind and does not catch up",
        RUNBOOK,
        stream_affects(product),
        300,
    )


def _stream(product: Product) -> tuple[Alert, ...]:
    of, about = f'product="{product.name}"', {"product": product.name}
    activity, affected = _activity(product), stream_affects(product)
    here, lag = f"events_landed_total{{{of}}}", f'kafka_consumergroup_lag{{consumergroup="{kafka.GROUP}"}}'
    return (
        Alert(
            "StreamDown",
            f"absent({here}) and on () max(present_over_time({here}[1d]))",
            "page",
            activity,
            f"the order stream of {product.name} does not run: customers are scored on what they did before",
            by("plumb events run"),
            affected,
            300,
            about,
        ),
        Alert(
            "StreamStalled",
            f"sum by (consumergroup, topic) ({lag}) > 0"
            f" unless on () max(changes(events_known_at_timestamp_seconds{{{of}}}[{STILL // 60}m])) > 0",
            "page",
            activity,
            "{{ $value }} messages of {{ $labels.topic }} wait, and no batch lands",
            RUNBOOK,
            affected,
            STILL,
            about,
        ),
        *_dead_letters(product),
    )


def _dead_letters(product: Product) -> tuple[Alert, ...]:
    """What the shop sends that is no event, by reason, once it is more than the events' contract allows."""
    events = contracts.load(product.events)
    if (promised := promises.complete(events)) is None:
        return ()
    of, allowed = f'{{product="{product.name}"}}[1h]', promised[0].budget
    dead = f"increase(events_dead_letters_total{of})"
    sent = " + ".join(f"sum(increase(events_{name}_total{of}))" for name in ("landed", "duplicates", "dead_letters"))
    return (
        Alert(
            "DeadLetters",
            f"sum by (reason) ({dead}) > 0.5"
            f" and on () (sum({dead}) > {LEAST - 0.5:g} and sum({dead}) > {allowed:g} * ({sent}))",
            "ticket",
            events,
            f'{{{{ printf "%.0f" $value }}}} messages of the last hour are {{{{ $labels.reason }}}}: together more '
            f"dead letters than the {100 * allowed:g}% that the contract allows",
            RUNBOOK,
            stream_affects(product),
            about={"product": product.name},
        ),
    )


def _activity(product: Product) -> contracts.Contract:
    """The contract of what the stream computes."""
    return contracts.load(next(iter(product.streams.values())))
