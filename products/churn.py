"""Churn: who of the shop's customers will not order again soon, by the day. How soon is said by the shop's page."""

from __future__ import annotations

from plumbline.product import Kpi, Product, Stage, marts_of, raw_of

DAILY, TRAINING, BY_HAND = "retail_features", "ml_training_pipeline", "operations"

SOURCES = ("orders", "customers", "returns")
ORDERS, CUSTOMERS = "analytics.orders", "analytics.customers"
FEATURES = "features.customers"
ONLINE = "online.customer_features"
LOG = "serving.predictions"
OUTCOMES, KPIS = "serving.outcomes", "analytics.business_kpis"
DATASET = "training.churn"
RUNS, MODELS, CHAMPION = "runs.churn_xgb", "models.churn_xgb", "models.churn_xgb.champion"
ENDPOINT = "endpoints.churn-predictor"
RELEASES = "releases.churn"
EVENTS = "orders.events"
ACTIVITY = "features.customer_activity"
APPENDED = ("raw.order_batches", "raw.order_events", "raw.order_dead_letters", ACTIVITY)
"""The tables that the order stream appends to. A release names them once there are any."""

HISTORIES = ("analytics.orders_history", "analytics.customers_history", "analytics.returns_history")
RAW, MARTS = raw_of(SOURCES), (*marts_of(SOURCES), *HISTORIES)
RELEASED = (*RAW, *MARTS, FEATURES)
"""The tables that a release names."""

CHURN = Product(
    name="churn",
    daily=DAILY,
    training=TRAINING,
    by_hand=BY_HAND,
    sources=SOURCES,
    histories=HISTORIES,
    events=EVENTS,
    streams={"customer_activity": ACTIVITY},
    appended=APPENDED,
    entity="customer_id",
    feature_project="churn",
    view="customer_features",
    model="churn_xgb",
    service="churn-predictor",
    host="churn-model",
    releases=RELEASES,
    features=FEATURES,
    features_sql="feature_repo/churn/jobs/customers.sql",
    online=ONLINE,
    dataset=DATASET,
    runs=RUNS,
    models=MODELS,
    champion=CHAMPION,
    endpoint=ENDPOINT,
    log=LOG,
    outcomes=OUTCOMES,
    kpis=(
        Kpi("conversion_rate", -1, "customers who ordered afterwards", "ordered"),
        Kpi("call_center_load", 1, "customers who called support", "called_support"),
    ),
    acceptable={
        "rows_deleted": "keys that landed and that the shop does not show any more",
        "daily_rows": "how many rows the shop recorded on each day on which it is open, against its contract",
        "orders_volume": "how many orders a day brought, against the days before",
        "orders_repeated": "new orders that repeat another one of theirs in customer, day, units and amount",
        "null_ratio": "missing values in new orders and in features, against before",
        "orders_shift": "amounts and units of new orders, against the 28 days before",
        "features_shift": "each feature's newest snapshot, against the released ones of the last 7 days",
        "orders_reconciled": "the day's orders in the shop, against the day's events",
    },
    acceptable_in_training={
        "target_leakage": "how well one feature alone ranks in a release's dataset, and how pure its groups are",
    },
    stages=(
        Stage(
            "ingest",
            DAILY,
            {f"raw.{source}": (f"shop.{source}",) for source in SOURCES},
            tool="dlt",
            work="ingestion.database.landing:land",
            about="Land what the shop recorded since the last run, up to the end of a day.",
        ),
        # What a mart is made from is said by dbt's models alone: lineage reads it there.
        Stage(
            "dbt_run",
            DAILY,
            dict.fromkeys(MARTS, ()),
            also=RAW,
            tool="dbt on Spark",
            work="transform.build:build",
            about="Build staging views and marts with dbt on Spark, and run the tests beside the models.",
        ),
        Stage(
            "ge_check",
            DAILY,
            also=(*MARTS, *RAW),
            tool="Great Expectations",
            work="validation.churn.suites:check",
            about="Gate: Great Expectations over the marts. Exit code 3 stops the line.",
        ),
        Stage(
            "features",
            DAILY,
            {FEATURES: HISTORIES},
            also=("raw.orders", "raw.returns"),
            tool="Spark",
            work="feature_repo.churn.jobs.customers:compute",
        ),
        Stage(
            "activity",
            DAILY,
            also=(*APPENDED, "raw.orders"),
            tool="stream = batch",
            work="plumb.commands.activity:close",
            about="Gates: what the order stream landed, against its offsets, the day's orders and the batch. Exit code "
            "3 stops.\n\nWhere no stream ever ran there is nothing to do. Exit code 6: the stream has not reached the "
            "end of the day yet.",
        ),
        Stage(
            "distribution_check",
            DAILY,
            also=(FEATURES, ORDERS),
            tool="volume, nulls, PSI, KS",
            work="validation.churn.distribution_check:check",
            about="Gates: new orders and features against the last good releases (volume, missing, PSI, KS). "
            "Exit code 3 stops.\n\nLimits and reasons: validation/churn/thresholds.yaml. If the anomaly is genuine, "
            "accept it for that day: `plumb gate accept`.",
        ),
        Stage(
            "release",
            DAILY,
            {RELEASES: RELEASED},
            also=APPENDED,
            tool="manifest",
            work="plumbline.pipeline.publish:publish",
            about="Publish what the run wrote and the gates passed, as one numbered release.",
        ),
        Stage("materialize", DAILY, {ONLINE: (FEATURES,)}, tool="Feast"),
        Stage("parity_check", DAILY, also=(ONLINE, FEATURES, ACTIVITY, LOG), tool="online = offline"),
        Stage("lineage_check", TRAINING, tool="lineage completeness"),
        Stage("dataset", TRAINING, {DATASET: (FEATURES, ORDERS)}, also=(ACTIVITY,), tool="Feast, point in time"),
        Stage(
            "leakage_check",
            TRAINING,
            also=(DATASET, FEATURES, ORDERS, HISTORIES[0], HISTORIES[2]),
            tool="leakage gates",
        ),
        Stage("train", TRAINING, {RUNS: (DATASET, ORDERS)}, tool="xgboost"),
        Stage("register", TRAINING, {MODELS: (RUNS,)}, also=(DATASET, FEATURES, ACTIVITY), tool="MLflow"),
        Stage("deploy", TRAINING, {CHAMPION: (MODELS,)}, also=(ONLINE, FEATURES, LOG), tool="KServe"),
        Stage("serve", "serving", {ENDPOINT: (MODELS, CHAMPION, ONLINE), LOG: (MODELS, ONLINE)}),
        Stage("simulate_outcomes", "business", {OUTCOMES: (LOG,)}),
        Stage("kpis", "business", {KPIS: (LOG, OUTCOMES)}),
        Stage("leaky_twin", BY_HAND, {DATASET: (FEATURES,)}, also=(ACTIVITY,)),
        Stage("variant_train", BY_HAND, {RUNS: (DATASET,)}, also=(FEATURES, ACTIVITY)),
        Stage("variant_register", BY_HAND, {MODELS: (RUNS,)}),
        Stage("reproduce", BY_HAND, also=(RUNS, MODELS, *RELEASED, *APPENDED, DATASET)),
        Stage("undo", BY_HAND, {RELEASES: RELEASED}, also=APPENDED),
        Stage("erase", BY_HAND, {RELEASES: RELEASED}, also=APPENDED),
    ),
)
