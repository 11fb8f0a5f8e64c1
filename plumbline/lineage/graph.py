"""Walking lineage: from a dataset at a version up to what it was made from and down to what was made from it.

By version and not by time: an undo puts older versions in force, and they lead to the runs that wrote them. Where a run
opened more than a dataset is made from (to compare, or the base that it carries on) the declarations say which of it
leads on; the rest is shown as opened too.
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from plumbline.lineage import expected
from plumbline.lineage.runs import Events, LineageError, Port, Run
from plumbline.product import Product
from plumbline.state import releases


def latest(product: Product) -> dict[str, str]:
    """Words for the newest version of a dataset."""
    words = {"champion": product.champion, "challenger": product.models, "endpoint": product.endpoint}
    return {**words, product.model: product.models}


@dataclass
class Graph:
    """What was reached from `start`: ports and runs, and edges (from, to) between their ids, in the data's direction.

    A run may make several ports, each of another: `steps` are (from, run, to), the way of the data itself. `also` holds
    for each run what it opened beside that; `alike` how many runs wrote a port, or did what this one did.
    """

    start: Port
    where: str
    ports: dict[str, Port] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    edges: dict[tuple[str, str], None] = field(default_factory=dict)
    steps: dict[tuple[str, str, str], None] = field(default_factory=dict)
    also: dict[str, list[Port]] = field(default_factory=dict)
    alike: dict[str, int] = field(default_factory=dict)

    def above(self, node: str) -> list[str]:
        """The nodes that lead to this one."""
        return [source for source, target in self.edges if target == node]

    def below(self, node: str) -> list[str]:
        """The nodes that this one leads to."""
        return [target for source, target in self.edges if source == node]

    def made_from(self, port: str) -> list[str]:
        """The ports that a port was made from."""
        return [source for source, _, target in self.steps if target == port]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: nodes by id and edges."""
        return {
            "start": str(self.start),
            "from": self.where,
            "datasets": {
                node: {"dataset": port.dataset, "version": port.version, "writers": self.alike.get(node, 0)}
                for node, port in sorted(self.ports.items())
            },
            "runs": {
                node: {
                    "job": run.job,
                    "state": run.state,
                    "began": run.began,
                    "ended": run.ended,
                    "alike": self.alike.get(node, 1),
                    "rows": run.rows,
                    "error": run.error,
                    "parent": run.parent,
                    "tags": run.tags,
                    "assertions": {"made": run.asserted, "failed": run.failed},
                    "opened_too": [str(port) for port in self.also.get(node, [])],
                    "columns": run.columns,
                }
                for node, run in sorted(self.runs.items())
            },
            "edges": [list(edge) for edge in self.edges],
            "steps": [list(step) for step in self.steps],
        }


def of(asked: str, events: Events, product: Product) -> Graph:
    """The graph around a dataset (`features.customers`, `features.customers@3`), a model (`champion`, `3`) or a run.

    Raises LineageError when no event names it.
    """
    runs = events.runs()
    starts = _resolved(asked, runs, events.where, product)
    graph = Graph(starts[0], events.where)
    index = _Index(runs, product)
    for start in starts:
        _up(graph, index, start)
        _down(graph, index, start)
    return graph


def sources(run: Run, target: Port, product: Product) -> list[Port]:
    """Of what a run opened, what an output is made from: one version of each dataset.

    That of the output itself when it is among them (a champion is that version of the model), else the newest.
    """
    stage = product.by_name.get(run.stage)
    flows = {**stage.flows, **expected.marts(product)} if stage and run.job == product.job(run.stage) else {}
    wanted = set(flows[target.dataset]) if target.dataset in flows else None
    written = {port.dataset for port in run.outputs}
    found: dict[str, Port] = {}
    for port in sorted(run.inputs, key=lambda port: (port.dataset, port.version == target.version, port.rank)):
        if port.dataset != target.dataset and (
            port.dataset not in written if wanted is None else port.dataset in wanted
        ):
            found[port.dataset] = port
    return list(found.values())


class _Index:
    """Runs by what they wrote and opened; who opened an unknown version is taken to have opened the newest."""

    def __init__(self, runs: list[Run], product: Product) -> None:
        self.product = product
        self.wrote: dict[Port, list[Run]] = defaultdict(list)
        self.opened: dict[Port, list[Run]] = defaultdict(list)
        written = sorted((port for run in runs for port in run.outputs), key=lambda port: port.rank)
        newest = {port.dataset: port for port in written}
        for run in runs:
            run.inputs = [newest.get(port.dataset, port) if port.version is None else port for port in run.inputs]
            for port in run.outputs:
                self.wrote[port].append(run)
            for port in run.inputs:
                self.opened[port].append(run)

    def writer(self, port: Port) -> tuple[Run, int] | None:
        """Who wrote a port, and how many runs say they did: the newest that ended well, else the newest."""
        found = self.wrote.get(port, [])
        best = sorted(found, key=lambda run: (run.state == "COMPLETE", run.began))
        return (best[-1], len(found)) if best else None

    def readers(self, port: Port) -> list[tuple[Run, list[Port], int]]:
        """Who was led on by a port, what it made from it (nothing, when it only looked), and how many did the same.

        Of runs that did the same the newest stands for all.
        """
        found: dict[tuple[str, tuple[Port, ...]], list[Run]] = defaultdict(list)
        for run in self.opened.get(port, []):
            made = tuple(target for target in run.outputs if port in sources(run, target, self.product))
            newest = max(other.rank for other in run.inputs if other.dataset == port.dataset)
            if made or (not run.outputs and port.rank == newest):
                found[run.job, made].append(run)
        return [
            (max(runs, key=lambda run: run.began), list(made), len(runs))
            for (_, made), runs in sorted(found.items(), key=lambda item: (item[0][0], str(item[0][1])))
        ]


def _up(graph: Graph, index: _Index, port: Port) -> None:
    waiting, seen = [port], set[Port]()
    while waiting:
        port = waiting.pop(0)
        graph.ports[str(port)] = port
        if port in seen or (writer := index.writer(port)) is None:
            continue
        seen.add(port)
        run, graph.alike[str(port)] = writer
        made_from = sources(run, port, index.product)
        _add(graph, run, made_from)
        graph.edges[run.run_id, str(port)] = None
        for source in made_from:
            graph.edges[str(source), run.run_id] = None
            graph.steps[str(source), run.run_id, str(port)] = None
        waiting += made_from


def _down(graph: Graph, index: _Index, port: Port) -> None:
    waiting, seen = [port], set[Port]()
    while waiting:
        port = waiting.pop(0)
        graph.ports[str(port)] = port
        if port in seen:
            continue
        seen.add(port)
        for run, made, alike in index.readers(port):
            _add(graph, run, [port])
            graph.alike[run.run_id] = alike
            graph.edges[str(port), run.run_id] = None
            for target in made:
                graph.edges[run.run_id, str(target)] = None
                graph.steps[str(port), run.run_id, str(target)] = None
            waiting += made


def _add(graph: Graph, run: Run, led_on: list[Port]) -> None:
    graph.runs[run.run_id] = run
    before = graph.also.get(run.run_id)
    rest = [port for port in run.inputs if port not in led_on]
    graph.also[run.run_id] = rest if before is None else [port for port in before if port in rest]


def _resolved(asked: str, runs: list[Run], where: str, product: Product) -> list[Port]:
    """What is meant: a port, or all that a run wrote (else opened). Raises LineageError."""
    ports = {port for run in runs for port in (*run.outputs, *run.inputs)}
    dataset, version = latest(product).get(asked, asked), None
    if asked.isdecimal():
        dataset, version = product.models, asked
    elif "@" in asked:
        dataset, _, version = asked.partition("@")
        version = re.sub(r"^v=?(?=\d+$)", "", version)
    known = sorted((port for port in ports if port.dataset == dataset), key=lambda port: port.rank)
    if known and version is not None:
        if (port := Port(dataset, version)) not in known:
            raise LineageError(
                f"no event names {port}; of {dataset} there are {', '.join(str(p.version) for p in known)}"
            )
        return [port]
    if known:
        return [_in_force(dataset, known, product) or _last_written(dataset, runs) or known[-1]]
    named = [run for run in runs if asked in (run.run_id, run.tags.get("run_id"))]
    if of_run := [port for run in named[-1:] for port in (run.outputs or run.inputs)]:
        return of_run
    if of_version := [port for port in sorted(ports, key=str) if port.version == asked]:
        return of_version[:1]
    close = difflib.get_close_matches(asked, sorted({port.dataset for port in ports}), n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(close)}?" if close else f"it knows {len(ports)} versions of datasets"
    raise LineageError(f"no event in {where} names {asked!r}: {hint}")


def _in_force(dataset: str, known: list[Port], product: Product) -> Port | None:
    """The version that the release in force names: after an undo that is not the newest."""
    release = releases.in_force(product.name)
    port = Port(dataset, str(release.tables[dataset])) if release and dataset in release.tables else None
    return port if port in known else None


def _last_written(dataset: str, runs: list[Run]) -> Port | None:
    """The version written last, by a run that ended well: a champion may be an older version than the one before."""
    ended = sorted((run for run in runs if run.state == "COMPLETE"), key=lambda run: run.began)
    ports = [port for run in ended for port in run.outputs if port.dataset == dataset]
    return ports[-1] if ports else None
