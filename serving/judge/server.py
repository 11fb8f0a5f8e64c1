"""`plumb judge`: reads the outcome log's tail every few seconds and serves its verdicts to Prometheus."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline import clock, metrics
from plumbline.errors import ServiceUnavailable
from plumbline.product import Product
from plumbline.progress import say, warn
from plumbline.servers import services
from serving.judge.log import Log, Rewound
from serving.judge.verdicts import Judge, Levels, levels
from serving.rollout.manifests import kpis

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

PORT = 9103
EVERY = 2.0
"""Seconds from one look at the log to the next."""

BACK = timedelta(hours=6)
"""How far back a judge that starts looks for a canary: a rollout takes less. It judges as if it had been up since."""

BLIND = 10.0
"""Seconds without a log that can be read, after which nothing is told of it any more: old verdicts are none."""


class Bench:
    """A judge and the log that it reads. `collect` is prometheus_client's, called from another thread."""

    def __init__(self, product: Product, levels: Levels) -> None:
        self._product, self._levels = product, levels
        self._lock = threading.Lock()
        self._failures = 0
        self._told = ""
        self._since = clock.monotonic()
        self._start()

    def _start(self) -> None:
        self._judge = Judge(self._levels, self._product.kpis)
        self._log = Log(self._product, clock.wall() - BACK)

    def look(self) -> bool:
        """Reads what is new. False, said once and counted, when the log cannot be read; it is tried again next time."""
        try:
            answers, outcomes = self._log.read()
        except Exception as error:
            with self._lock:
                self._failures += 1
                if isinstance(error, Rewound):
                    self._start()
            if (told := f"{type(error).__name__}: {error}") != self._told:
                self._told = told
                warn(f"the outcome log cannot be read, verdicts are withheld: {told}")
            return False
        with self._lock:
            self._judge.read(answers, outcomes)
            self._since = clock.monotonic()
        if self._told:
            self._told = ""
            say("the outcome log can be read again")
        return True

    def samples(self) -> dict[str, dict[tuple[str, ...], float]]:
        """Metrics of JUDGE by name and labels; of the log nothing when it could not be read for BLIND seconds."""
        with self._lock:
            blind = clock.monotonic() - self._since > BLIND
            found = {} if blind else self._judge.samples()
            return {**found, "judge_failures_total": {(): float(self._failures)}}

    def collect(self) -> Iterator[Family]:
        """The samples, for prometheus_client's registry."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        found = self.samples()
        for metric in metrics.JUDGE:
            kind: Any = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = kind(metric.name, metric.help, labels=metric.labels)
            for values, value in found.get(metric.name, {}).items():
                family.add_metric(list(values), value)
            yield family


def serve(
    product: Product, template: Path | None = None, host: str = services.HOST, port: int = PORT, every: float = EVERY
) -> None:
    """Looks at a product's log every `every` seconds and answers scrapes until SIGTERM or Ctrl-C; port 0 is a free one.

    Raises ServingError for a template without alpha and effect, ServiceUnavailable for a port that is taken.
    """
    from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

    found = levels(template or kpis(product))
    bench, registry = Bench(product, found), CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(bench)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise ServiceUnavailable(f"the judge cannot listen on {host}:{port}: {error.strerror}; --port") from None
    say(f"verdicts at alpha {found.alpha:g}, tuned to {found.effect:.0%}; http://{host}:{server.server_port}/metrics")
    over = threading.Event()
    try:
        while not over.wait(every):
            bench.look()
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


def now(product: Product, template: Path | None = None) -> list[dict[str, Any]]:
    """The verdicts of a product's log as it is: a row for each KPI of each pair.

    Raises ServingError when it cannot be read.
    """
    bench = Bench(product, levels(template or kpis(product)))
    if not bench.look():
        raise ServiceUnavailable("no verdict: the outcome log cannot be read")
    found = bench.samples()
    rows = []
    for (kpi, canary, stable), p_value in found["canary_kpi_p_value"].items():
        row = {"kpi": kpi, "canary": canary, "stable": stable, "p_value": p_value}
        for name in ("canary_kpi_difference", "canary_kpi_difference_lower", "canary_kpi_difference_upper"):
            row[name.removeprefix("canary_kpi_")] = found[name].get((kpi, canary, stable))
        row["canary_requests"] = int(found["canary_kpi_observations"][kpi, canary])
        row["stable_requests"] = int(found["canary_kpi_observations"][kpi, stable])
        row["score_psi"] = found["canary_score_psi"].get((canary, stable))
        rows.append(row)
    return rows
