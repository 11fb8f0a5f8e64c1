"""What a product is made of: its stages with what each reads and writes, its sources, model, service and names.

A product is data (a page in `products/`); the platform's code takes one as an argument and knows none by name. Dataset
names are logical ones, the same on every machine: `<schema>.<table>` for what lies in the lake, and a name of the same
form for what lies elsewhere (the shop, Redis, MLflow, the predictor).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

NAMESPACE = "plumbline"
"""The lineage namespace of all our datasets and jobs."""

PARENT = "OPENLINEAGE_PARENT_ID"
"""The variable that tells a command who runs it: `namespace/job/run id`, Airflow's DAG run when a task does."""


def raw_of(sources: tuple[str, ...]) -> tuple[str, ...]:
    """The lake's tables that a shop's tables land in."""
    return tuple(f"raw.{source}" for source in sources)


def marts_of(sources: tuple[str, ...]) -> tuple[str, ...]:
    """The marts that dbt makes of them, one each."""
    return tuple(f"analytics.{source}" for source in sources)


@dataclass(frozen=True, eq=False)
class Stage:
    """A stage's DAG, and its flows: each dataset that it writes with those that it is made from.

    `also` names what the stage opens beside that: to judge it, or to compare with. What a stage writes it may read.
    `work` names the function (`module:function`) of a stage that works on one day of the product's run; with `about`,
    its help, the stage is a command without further code. `tool` is what does the work, for the picture of the flow.
    `of_release` marks a training stage where one DAG runs daily and training stages alike.
    """

    name: str
    dag: str
    flows: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    tool: str = ""
    work: str = ""
    about: str = ""
    of_release: bool = False

    @property
    def reads(self) -> frozenset[str]:
        """All datasets that the stage may open."""
        return frozenset({*self.flows, *self.also, *(name for made_from in self.flows.values() for name in made_from)})

    @property
    def judged(self) -> str | None:
        """The dataset that verdicts without one of their own are about."""
        return next(iter([*self.also, *self.flows]), None)


@dataclass(frozen=True)
class Kpi:
    """A share of the answers that a canary is judged by: `about` says of which ones. They are those whose outcome has
    `event`, a column that is true or false. `worse` is the harmful direction: a lower share (-1) or a higher one (1).
    """

    name: str
    worse: Literal[-1, 1]
    about: str
    event: str


@dataclass(frozen=True, eq=False)
class Product:
    """One product on the platform.

    `daily` and `training` are its DAGs; a stage of neither is run by hand or serves. `sources` are the shop's tables
    that land, `histories` the marts that keep every version of their rows. `feature_project`, `view` and `entity` are
    Feast's names, `more_views` further views with the table of each, `entity_type` Feast's name of the key's type.
    `live` is the table, column and value by which an entity counts at a release: rows of others stay in the views'
    tables, and no reader takes them.
    `outcomes` is the table of what came of the answers in `log`, `kpis` what a canary is judged by from it.
    `tables` are further tables of the lake that have a contract. `events` is the dataset of the events that come
    through Kafka, `streams` the live Feast views that a stream writes, with the table of each: their rows do not wait
    for a release. `appended` are all the tables that a stream appends to: a release names a version of each once there
    is one, and nothing brings them back to it, since events are facts. `command` goes before a stage's name on the
    command line. `model` is MLflow's, `service` KServe's, `host` the one that callers ask through Istio, `server` the
    predictor's name among a home's servers. From `releases` on, the names of datasets as lineage has them.
    `features_sql` is the file of its feature SQL, where it has one.
    `acceptable` names the gates whose findings may be real, each with what it compares; `acceptable_in_training` those
    of a release's dataset.
    """

    name: str
    daily: str
    stages: tuple[Stage, ...]
    training: str = ""
    by_hand: str = "operations"
    sources: tuple[str, ...] = ()
    histories: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    events: str = ""
    streams: Mapping[str, str] = field(default_factory=dict)
    appended: tuple[str, ...] = ()
    command: str = ""
    entity: str = ""
    entity_type: str = "INT64"
    feature_project: str = ""
    view: str = ""
    more_views: Mapping[str, str] = field(default_factory=dict)
    live: tuple[str, str, str] | None = None
    model: str = ""
    service: str = ""
    host: str = ""
    server: str = "predictor"
    releases: str = ""
    features: str = ""
    features_sql: str = ""
    online: str = ""
    dataset: str = ""
    runs: str = ""
    models: str = ""
    champion: str = ""
    endpoint: str = ""
    log: str = ""
    outcomes: str = ""
    kpis: tuple[Kpi, ...] = ()
    acceptable: Mapping[str, str] = field(default_factory=dict)
    acceptable_in_training: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def by_name(self) -> dict[str, Stage]:
        """Every stage by its name."""
        return {stage.name: stage for stage in self.stages}

    @cached_property
    def daily_stages(self) -> tuple[str, ...]:
        """The names of the daily run's stages in their order; the same list is the order of the Airflow tasks."""
        return tuple(stage.name for stage in self.stages if stage.dag == self.daily and not stage.of_release)

    @cached_property
    def training_stages(self) -> tuple[str, ...]:
        """The same for the training run."""
        one_dag = self.training == self.daily
        of_training = (stage for stage in self.stages if self.training and stage.dag == self.training)
        return tuple(stage.name for stage in of_training if stage.of_release or not one_dag)

    def stage(self, name: str) -> Stage:
        """A stage by its name; one that is not declared may open nothing."""
        return self.by_name.get(name) or Stage(name, self.by_hand)

    def command_of(self, stage: str) -> str:
        """What a person types to run a stage, as in `plumb images clean`."""
        return " ".join(part for part in ("plumb", self.command, stage) if part)

    def job(self, stage: str) -> str:
        """`<dag>.<stage>`, as in `retail_features.ingest`: Marquez would prefix a job with its parent's name anyway."""
        return f"{self.stage(stage).dag}.{stage}"

    @property
    def views(self) -> dict[str, str]:
        """Every Feast view that a release brings, with the table that it reads; first the one whose rows say which
        release they are of."""
        return {self.view: self.features, **self.more_views}

    @property
    def view_tables(self) -> dict[str, str]:
        """Every Feast view with the table that it reads offline, the live ones too."""
        return {**self.views, **self.streams}

    def beside(self, what: str) -> str:
        """The name of a server that stands beside its predictor in a home, named alike: `envoy`, `image-envoy`."""
        return self.server.removesuffix("predictor") + what

    @property
    def canary_server(self) -> str:
        """The canary's name among a home's servers."""
        return f"{self.server}-canary"

    @property
    def entities(self) -> str:
        """What its predictor's answers are about, as in `customers`."""
        return f"{self.entity.removesuffix('_id')}s"

    @property
    def raw(self) -> tuple[str, ...]:
        """The lake's tables that the sources land in."""
        return raw_of(self.sources)

    @property
    def marts(self) -> tuple[str, ...]:
        """The lake's tables that dbt makes of the sources: one each, and the histories."""
        return (*marts_of(self.sources), *self.histories)

    @property
    def contracted(self) -> tuple[str, ...]:
        """Every dataset that has to have a contract."""
        named = (
            *(f"shop.{source}" for source in self.sources),
            *self.tables,
            *self.marts,
            *self.views.values(),
            self.events,
            *self.streams.values(),
            self.log,
        )
        return tuple(name for name in named if name)

    @property
    def online_mark(self) -> str:
        """A hash in Redis: release_id, the release whose rows are online; event_time, until when they reach (ISO 8601);
        rows, an integer: how many entities were written.

        It is absent before the first materialization and while one is at work.
        """
        return f"plumbline:{self.name}:online"

    @property
    def repository(self) -> str:
        """The folder of its feature definitions and of Feast's settings for them, below the repository."""
        return f"feature_repo/{self.name}"

    @property
    def definitions(self) -> str:
        """The file of its feature definitions."""
        return f"{self.repository}/definitions.py"

    @property
    def manifests(self) -> str:
        """The folder of its Kubernetes manifests, below the repository."""
        return f"k8s/{self.name}"
