"""`plumb exporter`: what ledger, releases and lake say, as Prometheus metrics, made anew at each scrape.

Nothing is pushed and nothing kept, so that no metric outlives the thing it tells of. What cannot be known is absent,
never zero: a part that fails leaves its metrics out, counts in `exporter_unreadable_total`, and the others go on.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from observability import dataset_metrics
from observability.airflow_metrics import AirflowMetrics
from observability.lake_facts import LakeFacts
from observability.late_days import late_days
from observability.ledger_tail import STATES, LedgerTail, Told, running_seconds
from observability.promises import deadline
from plumbline import clock
from plumbline.contracts import contract as contracts
from plumbline.contracts.contract import Contract
from plumbline.lake import tables as lake
from plumbline.lineage import sending
from plumbline.product import Product
from plumbline.progress import warn
from plumbline.settings import settings, settings_file
from plumbline.state import releases
from plumbline.state.releases import Release
from products import ALL
from products.churn import KPIS

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

KPI_NAMES = ("conversion_rate", "call_center_load", "retained_customers", "avg_handle_time")
OnlineRows = Callable[[Product], "tuple[int, int] | None"]
"""How many whole rows Redis holds and how many were written; None while no release is online."""

ONLINE_SECONDS = 60.0
SKEW = 60.0
"""Seconds that two machines' clocks may differ; what is dated farther in the future cannot be believed."""


class Scrape:
    """The samples of one scrape, each held against the schema, in which these contracts' datasets are."""

    def __init__(self, contracted: list[Contract]) -> None:
        self._schema = dataset_metrics.known(contracted)
        self._families: dict[str, Family] = {}

    def add(self, name: str, value: float, **labels: str) -> None:
        """One sample. Raises KeyError for a name that is not in the schema, ValueError for other labels than its."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        known = self._schema[name]
        if set(labels) != set(known.labels):
            raise ValueError(f"{name} has the labels {known.labels}, not {tuple(labels)}")
        if name not in self._families:
            kind = CounterMetricFamily if known.kind == "counter" else GaugeMetricFamily
            self._families[name] = kind(name, known.help, labels=known.labels)
        self._families[name].add_metric([labels[label] for label in known.labels], value)  # type: ignore[attr-defined]

    def families(self) -> Iterator[Family]:
        """What Prometheus is shown, in the order in which it came."""
        yield from self._families.values()


class Exporter:
    """Collects on demand. It keeps what cannot change (events, releases, table versions), so that a scrape is cheap."""

    def __init__(self, products: Sequence[Product] = ALL, online_rows: OnlineRows | None = None) -> None:
        self._products = products
        self._count_online = online_rows
        self._online: dict[str, tuple[float, tuple[int, int] | None]] = {}
        self._tails: dict[str, LedgerTail] = {}
        self._releases: dict[tuple[str, int], Release] = {}
        self._lake = LakeFacts()
        self._kpis: tuple[int, list[dict[str, Any]]] = -1, []
        self._unreadable: Counter[str] = Counter()
        self._warned: set[str] = set()
        self._settings_changed = 0
        self._lock = threading.Lock()
        self.airflow = AirflowMetrics()

    def collect(self) -> Iterator[Family]:
        """Every family, for prometheus_client's registry. It raises nothing for what it reads."""
        with self._lock:
            begun = clock.monotonic()
            self._follow_settings()
            contracted = self._contracts()
            scrape = Scrape(contracted)
            self._try("clock", lambda: self._clock(scrape))
            for product in self._products:
                name = product.name
                told = self._told(name)
                self._try("ledger", lambda p=product, t=told: self._ledger(scrape, p, t))  # type: ignore[misc]
                release = self._try("releases", lambda n=name: self._in_force(n))  # type: ignore[misc]
                self._try("releases", lambda n=name, t=told, r=release: self._release(scrape, n, t, r))  # type: ignore[misc]
                self._try("online rows", lambda p=product: self._online_rows(scrape, p))  # type: ignore[misc]
                for contract in (one for one in contracted if one.product == name):
                    self._try(
                        dataset_metrics.table_of(contract),
                        lambda c=contract, t=told, r=release: self._dataset(scrape, c, t, r),  # type: ignore[misc]
                    )
            self._try(KPIS, lambda: self._business(scrape))
            self._try("lineage", lambda: scrape.add("lineage_emit_failures_total", sending.failures()))
            self._try("airflow", lambda: self.airflow.show(scrape.add))
            for what, times in sorted(self._unreadable.items()):
                scrape.add("exporter_unreadable_total", times, what=what)
            scrape.add("exporter_collect_seconds", clock.monotonic() - begun)
            yield from scrape.families()

    def _try(self, what: str, part: Callable[[], Any]) -> Any:
        """What the part gives; None, counted and said once, when it fails."""
        try:
            return part()
        except Exception as error:
            self._cannot(what, f"{type(error).__name__}: {error}")
            return None

    def _cannot(self, what: str, why: str) -> None:
        self._unreadable[what] += 1
        kind = f"{what}: {re.sub('[0-9]+', '', why)}"  # a time in it does not make it another reason
        if kind not in self._warned:
            self._warned.add(kind)
            warn(f"exporter: {what} cannot be read, its metrics are absent: {why[:500]}")

    def _follow_settings(self) -> None:
        """A replay moves its clock by the settings file; this process must agree with the next command."""
        file = settings_file()
        changed = file.stat().st_mtime_ns if file.exists() else 0
        if changed != self._settings_changed:
            settings.cache_clear()
            self._settings_changed = changed

    def _contracts(self) -> list[Contract]:
        """The contracts that can be read."""
        names = self._try("contracts", dataset_metrics.contracted) or []
        found = [self._try("contracts", lambda n=name: contracts.load(n)) for name in names]  # type: ignore[misc]
        return [contract for contract in found if contract is not None]

    def _clock(self, scrape: Scrape) -> None:
        scrape.add("plumbline_clock_seconds", clock.now().timestamp())
        scrape.add("plumbline_replay", clock.is_replay())

    def _told(self, product: str) -> Told:
        tail = self._tails.setdefault(product, LedgerTail(product))
        for name in self._try("ledger", tail.look) or ():
            self._cannot("ledger", f"{product}/{name} is no event")
        return tail.told

    def _ledger(self, scrape: Scrape, of: Product, told: Told) -> None:
        product = of.name
        for name, last in told.stages.items():
            head = {"product": product, "stage": name}
            for state in STATES.values():
                scrape.add("stage_state", last.state == state, state=state, **head)
            scrape.add("stage_last_timestamp_seconds", last.at.timestamp(), **head)
            if (running := running_seconds(last)) is not None:
                scrape.add("stage_running_seconds", running, **head)
            if name in told.seconds:
                scrape.add("stage_seconds", told.seconds[name], **head)
            for table, rows in told.rows.get(name, {}).items():
                scrape.add("stage_rows", rows, table=table, **head)
        for (name, state), runs in told.runs.items():
            scrape.add("stage_runs_total", runs, product=product, stage=name, state=state)
        for gate, last_judged in told.gates.items():
            scrape.add("gate_passed", last_judged.verdict.passed, product=product, gate=gate)
        for (gate, verdict), times in told.verdicts.items():
            scrape.add("gate_verdicts_total", times, product=product, gate=gate, verdict=verdict)
        for (table, outcome), rows in told.landed.items():
            scrape.add("landing_records_total", rows, product=product, table=table, outcome=outcome)
        for split, rows in told.splits.items():
            scrape.add("dataset_rows", rows, product=product, split=split)
        if told.cleaning is not None:
            scrape.add("clean_pictures", told.cleaning["clean"], product=product)
            scrape.add("near_duplicate_groups", told.cleaning["groups"], product=product)
            for reason, pictures in told.cleaning["quarantined"].items():
                scrape.add("quarantined_pictures", pictures, product=product, reason=reason)
        if told.mismatch_ratio is not None:
            scrape.add("feature_parity_mismatch_ratio", told.mismatch_ratio, product=product)
        if told.champion is not None:
            scrape.add("champion_version", float(told.champion), product=product, model=of.model)
            for metric, value in told.champion_metrics().items():
                scrape.add(
                    "champion_metric",
                    value,
                    product=product,
                    model=of.model,
                    model_version=told.champion,
                    metric=metric,
                )

    def _in_force(self, product: str) -> Release | None:
        """The newest release, None when there is none that can be read; what was read before is not read again."""
        numbers = releases.numbers(product)
        for number in numbers:
            if (product, number) not in self._releases:
                read = self._try("releases", lambda n=number: releases.read(product, n))  # type: ignore[misc]
                if read is not None:
                    self._releases[product, number] = read
        return self._releases.get((product, numbers[-1])) if numbers else None

    def _release(self, scrape: Scrape, product: str, told: Told, release: Release | None) -> None:
        if told.online is not None:
            scrape.add("online_release_id", told.online, product=product)
        if release is None:
            return
        head = {"product": product}
        scrape.add("release_id", release.release_id, **head)
        scrape.add("release_covers_until_timestamp_seconds", clock.end_of(release.as_of).timestamp(), **head)
        if (age := self._since(datetime.fromisoformat(release.published_at), "the release in force")) is not None:
            scrape.add("release_age_seconds", age, **head)
        if told.online == release.release_id:
            scrape.add("materialization_lag_seconds", 0, **head)
        elif (published := told.published.get(release.release_id)) is not None:
            scrape.add("materialization_lag_seconds", max(0, (clock.wall() - published).total_seconds()), **head)

    def _online_rows(self, scrape: Scrape, product: Product) -> None:
        """Rows in Redis and rows written, counted once in ONLINE_SECONDS: it reads every row."""
        if self._count_online is None or not product.view:
            return
        counted_at, counts = self._online.get(product.name, (-ONLINE_SECONDS, None))
        if clock.monotonic() - counted_at >= ONLINE_SECONDS:
            counts = self._count_online(product)
            self._online[product.name] = clock.monotonic(), counts
        if counts is not None:
            scrape.add("online_rows", counts[0], product=product.name)
            scrape.add("online_rows_written", counts[1], product=product.name)

    def _dataset(self, scrape: Scrape, contract: Contract, told: Told, release: Release | None) -> None:
        table = dataset_metrics.table_of(contract)
        name = dataset_metrics.prefix(table)
        stamp = next((c.name for c in contract.columns.values() if c.kind == "timestamp"), "")
        base: int | None = None
        version: int | None = None
        until: datetime | None = None
        if release is not None and table in release.tables:
            version, until = release.tables[table], clock.end_of(release.as_of)
            before = self._releases.get((release.product, release.base)) if release.base else None
            base = before.tables.get(table) if before else None
        elif release is not None:
            version = self._lake.head(table)
        if table.startswith("raw."):
            until = told.landed_until
        self._promised(scrape, contract, release)
        if version is not None:
            try:
                facts = self._lake.at(table, version, base, stamp)
            except lake.LakeError as gone:
                self._cannot(table, str(gone))
            else:
                until = until or facts.newest
                scrape.add(f"{name}_rows", facts.rows)
                for column in sorted(facts.nulls.keys() & contract.columns.keys()):
                    scrape.add(f"{name}_null_ratio", facts.nulls[column], column=column)
        if until is not None and (age := self._since(until, table)) is not None:
            scrape.add(f"{name}_freshness_seconds", age)

    def _promised(self, scrape: Scrape, contract: Contract, release: Release | None) -> None:
        promised = deadline(contract)
        if release is None or promised is None or contract.dataset not in release.tables:
            return
        known = [r for (product, _), r in sorted(self._releases.items()) if product == release.product]
        published = [(datetime.fromisoformat(r.published_at), r.as_of) for r in known if contract.dataset in r.tables]
        due, late = late_days(published, clock.now(), promised)
        name = dataset_metrics.prefix(contract.dataset)
        scrape.add(f"{name}_due_days", due)
        scrape.add(f"{name}_late_days", len(late))

    def _since(self, then: datetime, what: str) -> float | None:
        """Seconds from then to the platform's now; None for what is dated in the future, which nobody can believe."""
        age = (clock.now() - then).total_seconds()
        if age < -SKEW:
            self._cannot("clock", f"{what} is of {then:%F %H:%M} UTC, the clock says {clock.now():%F %H:%M}")
            return None
        return max(0.0, age)

    def _business(self, scrape: Scrape) -> None:
        head = self._lake.head(KPIS)
        if head is None:
            return
        if head != self._kpis[0]:
            rows = lake.open_table(KPIS, head).to_pyarrow_table().to_pylist()
            newest = {(r["model_version"], r["track"]): r for r in sorted(rows, key=lambda r: r["request_day"])}
            self._kpis = head, list(newest.values())
        for row in self._kpis[1]:
            for name in KPI_NAMES:
                if row.get(name) is not None:
                    scrape.add(name, float(row[name]), model_version=str(row["model_version"]), track=str(row["track"]))
