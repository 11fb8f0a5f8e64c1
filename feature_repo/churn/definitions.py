"""What Feast knows of the churn product: entity, views and services. Features themselves are in jobs/customers.sql, and
those of the order stream in jobs/activity.sql.

A service stays as it is, by convention: a model names the one it was trained on, and the predictor asks Feast for
that one. A change of the set of features is a new service, as `churn_v2` is, beside the old; its name ends in `_vN`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, RequestSource, ValueType
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float32, Int32, Int64

customer = Entity(
    name="customer",
    join_keys=["customer_id"],
    value_type=ValueType.INT64,
    description="A customer of the shop.",
)


def source(table: str, relation: str = "") -> SparkSource:
    """Where a view is read offline: its table, or in a release's store the `relation` at one Delta version of it."""
    return SparkSource(
        name=table.replace(".", "_"),
        query=f"SELECT * FROM {relation or table}",
        timestamp_field="event_time",
        created_timestamp_column="created_at",
        description="Rows by customer; event_time is when a row was knowable.",
    )


customer_features = FeatureView(
    name="customer_features",
    entities=[customer],
    ttl=timedelta(days=14),
    source=source("features.customers"),
    online=True,
    schema=[
        Field(name="tenure_months", dtype=Int32, description="Whole months since the customer signed up."),
        Field(name="avg_ticket", dtype=Float32, description="Cents per order, over all orders."),
        Field(
            name="avg_ticket_30d", dtype=Float32, description="Cents per order dated in the last 30 days, else null."
        ),
        Field(name="orders_7d", dtype=Int32, description="Orders dated in the last 7 days."),
        Field(name="orders_30d", dtype=Int32, description="Orders dated in the last 30 days."),
        Field(name="orders_90d", dtype=Int32, description="Orders dated in the last 90 days."),
        Field(name="spend_cents_7d", dtype=Int64, description="Cents spent in the last 7 days."),
        Field(name="spend_cents_30d", dtype=Int64, description="Cents spent in the last 30 days."),
        Field(name="spend_cents_90d", dtype=Int64, description="Cents spent in the last 90 days."),
        Field(name="orders_total", dtype=Int32, description="Orders known so far."),
        Field(name="spend_cents_total", dtype=Int64, description="Cents spent in all."),
        Field(name="units_total", dtype=Int32, description="Units bought in all."),
        Field(name="days_between_orders", dtype=Float32, description="Mean gap in days; null below two orders."),
        Field(name="returned_cents_90d", dtype=Int64, description="Cents paid back for returns of the last 90 days."),
        Field(name="first_order_day", dtype=Int32, description="Date of the first order, in days since 1970-01-01."),
        Field(name="last_order_day", dtype=Int32, description="Date of the newest order, in days since 1970-01-01."),
        Field(name="release_id", dtype=Int64, description="The release that wrote the row."),
    ],
    description="Customer snapshots, one a day.",
)

customer_activity = FeatureView(
    name="customer_activity",
    entities=[customer],
    ttl=timedelta(days=7),
    source=source("features.customer_activity"),
    online=True,
    schema=[
        Field(name="orders_1h", dtype=Int32, description="Orders placed in the hour before event_time."),
        Field(name="orders_24h", dtype=Int32, description="Orders placed in the 24 hours before event_time."),
        Field(name="orders_7d", dtype=Int32, description="Orders placed in the 7 days before event_time."),
        Field(name="spend_cents_1h", dtype=Int64, description="Cents spent in the hour before event_time."),
        Field(name="spend_cents_24h", dtype=Int64, description="Cents spent in the 24 hours before event_time."),
        Field(name="spend_cents_7d", dtype=Int64, description="Cents spent in the 7 days before event_time."),
        Field(
            name="last_order_second",
            dtype=Int64,
            description="When the newest of them was placed, in seconds since 1970-01-01 UTC; null without.",
        ),
    ],
    description="What the order stream saw, a row for each micro-batch that has an order of the customer.",
)

request = RequestSource(
    name="request",
    schema=[Field(name="request_time", dtype=Int64)],
    description="When the question is asked, in seconds since 1970-01-01 UTC.",
)


@on_demand_feature_view(  # type: ignore[untyped-decorator]
    sources=[customer_features, request],
    schema=[Field(name="days_since_last_order", dtype=Int64)],
    mode="python",
    description="Whole days from the newest order's date to the request; null without orders.",
)
def churn_recency(inputs: dict[str, Any]) -> dict[str, Any]:
    return {
        "days_since_last_order": [
            None if day is None or day != day else int(asked) // 86400 - int(day)
            for day, asked in zip(inputs["last_order_day"], inputs["request_time"], strict=True)
        ]
    }


@on_demand_feature_view(  # type: ignore[untyped-decorator]
    sources=[customer_activity[["last_order_second"]], request],
    schema=[Field(name="seconds_since_last_event", dtype=Int64)],
    mode="python",
    description="Seconds from the newest order of the last 7 days to the request; null without one.",
)
def activity_recency(inputs: dict[str, Any]) -> dict[str, Any]:
    return {
        "seconds_since_last_event": [
            None if second is None or second != second else int(asked) - int(second)
            for second, asked in zip(inputs["last_order_second"], inputs["request_time"], strict=True)
        ]
    }


@on_demand_feature_view(  # type: ignore[untyped-decorator]
    sources=[customer_features[["last_order_day"]], customer_activity[["last_order_second"]], request],
    schema=[Field(name="days_since_last_order", dtype=Int64)],
    mode="python",
    description="Whole days from the newest order's date to the request, the stream's orders counted; null without.",
)
def live_recency(inputs: dict[str, Any]) -> dict[str, Any]:
    days, seconds = inputs["last_order_day"], inputs["last_order_second"]
    newest = [
        [int(day) for day in known if day is not None and day == day]
        for known in zip(days, [second and second // 86400 for second in seconds], strict=True)
    ]
    asked = [int(second) // 86400 for second in inputs["request_time"]]
    return {
        "days_since_last_order": [
            today - max(known) if known else None for today, known in zip(asked, newest, strict=True)
        ]
    }


churn_v1 = FeatureService(
    name="churn_v1",
    features=[
        customer_features[
            [
                "tenure_months",
                "avg_ticket",
                "avg_ticket_30d",
                "orders_7d",
                "orders_30d",
                "orders_90d",
                "spend_cents_7d",
                "spend_cents_30d",
                "spend_cents_90d",
                "orders_total",
                "spend_cents_total",
                "units_total",
                "days_between_orders",
            ]
        ],
        churn_recency,
    ],
    description="What the first churn model reads.",
)

churn_v2 = FeatureService(
    name="churn_v2",
    features=[
        customer_features[[*(one.name for one in churn_v1.feature_view_projections[0].features), "returned_cents_90d"]],
        churn_recency,
    ],
    description="churn_v1, and what was paid back for returns.",
)

churn_v3 = FeatureService(
    name="churn_v3",
    features=[
        customer_features[[one.name for one in churn_v2.feature_view_projections[0].features]],
        live_recency,
        # Its windows of 7 days are left out: two features of a service cannot have one name, and the snapshot has both.
        customer_activity[["orders_1h", "orders_24h", "spend_cents_1h", "spend_cents_24h"]],
        activity_recency,
    ],
    description="churn_v2, whose newest order may be one of the stream's, and what that saw of the last day.",
)

DEFINITIONS = [
    customer,
    customer_features,
    customer_activity,
    churn_recency,
    activity_recency,
    live_recency,
    churn_v1,
    churn_v2,
    churn_v3,
]
