"""What each stage may read and does write. A stage that opens another table than these fails.

Names are logical ones, the same on every machine: `<schema>.<table>` for what lies in the lake, and a name of the same
form for what lies elsewhere (the shop, Redis, MLflow, the predictor).
"""

from __future__ import annotations

from dataclasses import dataclass, field

NAMESPACE = "plumbline"
"""Of all our datasets and jobs."""

PARENT = "OPENLINEAGE_PARENT_ID"
"""The variable that tells a command who runs it: `namespace/job/run id`, Airflow's DAG run when a task does."""

ORDERS, CUSTOMERS = "analytics.orders", "analytics.customers"
FEATURES = "features.customers"
ONLINE = "online.customer_features"
LOG = "serving.predictions"
OUTCOMES, KPIS = "serving.outcomes", "analytics.business_kpis"
DATASET = "training.churn"
RUNS = "runs.churn_xgb"
MODELS = "models.churn_xgb"
CHAMPION = "models.churn_xgb.champion"
ENDPOINT = "endpoints.churn-predictor"
RELEASES = "releases.churn"
LAKE = ("raw.orders", "raw.customers", ORDERS, CUSTOMERS, FEATURES)
"""The tables that a release names."""


@dataclass(frozen=True)
class Declared:
    """A stage's DAG, and its flows: each dataset that it writes with those that it is made from.

    `also` names what the stage opens beside that: to judge it, or to compare with. What a stage writes it may read.
    """

    dag: str
    flows: dict[str, tuple[str, ...]] = field(default_factory=dict)
    also: tuple[str, ...] = ()

    @property
    def reads(self) -> frozenset[str]:
        """All that it may open."""
        return frozenset({*self.flows, *self.also, *(name for made_from in self.flows.values() for name in made_from)})

    @property
    def judged(self) -> str | None:
        """The dataset that verdicts without one of their own are about."""
        return next(iter([*self.also, *self.flows]), None)


DAILY, TRAINING, BY_HAND = "retail_features", "ml_training_pipeline", "operations"

STAGES: dict[str, Declared] = {
    "ingest": Declared(DAILY, {"raw.orders": ("shop.orders",), "raw.customers": ("shop.customers",)}),
    # What a mart is made from is said by dbt's models alone: `expected` reads it there.
    "dbt_run": Declared(DAILY, {ORDERS: (), CUSTOMERS: ()}, also=("raw.orders", "raw.customers")),
    "ge_check": Declared(DAILY, also=(ORDERS, "raw.orders")),
    "features": Declared(DAILY, {FEATURES: (ORDERS, CUSTOMERS)}),
    "distribution_check": Declared(DAILY, also=(FEATURES, ORDERS)),
    "release": Declared(DAILY, {RELEASES: LAKE}),
    "materialize": Declared(DAILY, {ONLINE: (FEATURES,)}),
    "parity_check": Declared(DAILY, also=(ONLINE, FEATURES, LOG)),
    "lineage_check": Declared(TRAINING),
    "dataset": Declared(TRAINING, {DATASET: (FEATURES, ORDERS)}),
    "leakage_check": Declared(TRAINING, also=(DATASET, FEATURES, ORDERS)),
    "train": Declared(TRAINING, {RUNS: (DATASET, ORDERS)}),
    "register": Declared(TRAINING, {MODELS: (RUNS,)}, also=(DATASET, FEATURES)),
    "deploy": Declared(TRAINING, {CHAMPION: (MODELS,)}, also=(ONLINE, FEATURES, LOG)),
    "serve": Declared("serving", {ENDPOINT: (MODELS, CHAMPION, ONLINE), LOG: (MODELS, ONLINE)}),
    "simulate_outcomes": Declared("business", {OUTCOMES: (LOG,)}),
    "kpis": Declared("business", {KPIS: (LOG, OUTCOMES)}),
    "leaky_twin": Declared(BY_HAND, {DATASET: (FEATURES,)}),
    "reproduce": Declared(BY_HAND, also=(RUNS, MODELS, *LAKE, DATASET)),
    "undo": Declared(BY_HAND, {RELEASES: LAKE}),
}
"""Every stage that leaves events; the daily ones in the order of `plumbline.pipeline.stage.STAGES`."""


def job(stage: str) -> str:
    """`<dag>.<stage>`, as in `retail_features.ingest`: Marquez would prefix a job with its parent's name anyway."""
    declared = STAGES.get(stage)
    return f"{declared.dag if declared else BY_HAND}.{stage}"
