"""Churn's section of business: what its predictions are worth, by outcomes that are made up."""

from __future__ import annotations

from observability.grafana.answers_board import VERSION
from observability.grafana.board import Section
from observability.grafana.parts import Query, number, steps

SIMULATED = "SIMULATED: requests and outcomes are made up from what the shop's customers did; see docs/dashboards.md. "


def business() -> Section:
    """The newest day's KPIs, by version and track."""
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
    shown = [
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
    return "Business (simulated in this repository)", [*shown]
