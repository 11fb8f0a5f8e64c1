"""A lineage graph in a terminal: one tree up to the sources, one down to whoever uses it."""

from __future__ import annotations

from datetime import datetime

from rich.markup import escape
from rich.tree import Tree

from plumbline.display import terminal
from plumbline.lineage.graph import Graph
from plumbline.lineage.runs import Run

COLORS = {"COMPLETE": "green", "FAIL": "red", "ABORT": "red", "START": "yellow"}
WORDS = {"COMPLETE": "complete", "FAIL": "failed", "ABORT": "killed", "START": "running"}


def show(graph: Graph) -> None:
    """Prints both trees; a dataset that stands above already is named once more without what is behind it."""
    console = terminal.console(150)
    console.print(_up(graph))
    console.print()
    console.print(_down(graph))
    for run in graph.runs.values():
        if run.state in ("FAIL", "ABORT") and run.error:
            console.print(f"  [red]{escape(run.job)}[/red]: {escape(run.error.splitlines()[0][:200])}")
    console.print(f"[dim]from {escape(graph.where)}[/dim]")


def state(run: Run) -> str:
    """complete, failed, killed, running, or unknown."""
    return WORDS.get(run.state or "", "state unknown")


def seconds(run: Run) -> float | None:
    """How long a run took, None while it runs."""
    if not run.began or not run.ended:
        return None
    return (datetime.fromisoformat(run.ended) - datetime.fromisoformat(run.began)).total_seconds()


def _up(graph: Graph) -> Tree:
    seen: set[str] = set()
    tree = Tree(f"[bold]{escape(str(graph.start))}[/bold]{_written(graph, str(graph.start))}")
    _grow_up(graph, tree, str(graph.start), seen)
    return tree


def _grow_up(graph: Graph, tree: Tree, port: str, seen: set[str]) -> None:
    seen.add(port)
    for source in graph.made_from(port):
        again = source in seen
        branch = tree.add(f"← {escape(source)}{' (above)' if again else _written(graph, source)}")
        if not again:
            _grow_up(graph, branch, source, seen)


def _written(graph: Graph, port: str) -> str:
    writers = graph.above(port)
    if not writers:
        return " [dim](no run is known to have written it)[/dim]" if graph.ports[port].version is not None else ""
    run = graph.runs[writers[0]]
    rows = run.rows.get(graph.ports[port].dataset)
    return f"  {_run(graph, writers[0], port)}" + (f", {rows:,} rows" if rows is not None else "")


def _down(graph: Graph) -> Tree:
    seen: set[str] = set()
    tree = Tree(f"[bold]{escape(str(graph.start))}[/bold] is used by")
    _grow_down(graph, tree, str(graph.start), seen)
    if not tree.children:
        tree.add("[dim]nothing yet[/dim]")
    return tree


def _grow_down(graph: Graph, tree: Tree, port: str, seen: set[str]) -> None:
    seen.add(port)
    for run in graph.below(port):
        targets = [target for source, by, target in graph.steps if (source, by) == (port, run)]
        branch = tree.add(f"→ {_run(graph, run)}") if not targets else None
        for target in targets:
            again = target in seen
            branch = tree.add(f"→ {escape(target)}{' (above)' if again else '  ' + _run(graph, run)}")
            if not again:
                _grow_down(graph, branch, target, seen)


def _run(graph: Graph, node: str, port: str | None = None) -> str:
    run = graph.runs[node]
    told = f"[{COLORS.get(run.state or '', 'dim')}]{state(run)}[/]"
    verdicts = f", {len(run.failed)} of {run.asserted} checks failed" if run.failed else ""
    checks = verdicts or (f", {run.asserted} check{'s' if run.asserted > 1 else ''} held" if run.asserted else "")
    alike = graph.alike.get(port or node, 1)
    tries = f", {alike} runs" if alike > 1 else ""
    return f"[dim]{escape(run.job)}[/dim] {told} {run.began[:16].replace('T', ' ')}{checks}{tries}"
