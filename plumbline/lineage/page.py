"""A lineage graph as a page: a drawing whose boxes lead to what is known of each dataset and run. No script."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plumbline.display import page
from plumbline.lineage import text
from plumbline.lineage.graph import Graph
from plumbline.settings import settings

WIDTH, HEIGHT, ACROSS, DOWN = 190, 38, 24, 24
"""Of a box, and between boxes, in the drawing's units."""

STATES = {"COMPLETE": "good", "FAIL": "bad", "ABORT": "bad", "START": "second"}


@dataclass(frozen=True)
class Box:
    """A node of the drawing: where it stands, its two lines, and its class (dataset, good, bad, second, quiet)."""

    anchor: str
    x: int
    y: int
    title: str
    told: str
    kind: str
    is_start: bool


def write(graph: Graph) -> Path:
    """Writes `<home>/report/lineage.html`; gives its path."""
    boxes = laid_out(graph)
    paths = [_curve(boxes[source], boxes[target]) for source, target in graph.edges]
    return page.write(
        settings().home / "report" / "lineage.html",
        "lineage.html",
        graph=graph,
        boxes=list(boxes.values()),
        paths=paths,
        width=max(box.x for box in boxes.values()) + WIDTH + 20,
        height=max(box.y for box in boxes.values()) + HEIGHT + 20,
        box=(WIDTH, HEIGHT),
        anchors={node: box.anchor for node, box in boxes.items()},
        runs=[_about(graph, node) for node in graph.runs],
        ports=[(node, graph.above(node), graph.below(node)) for node in graph.ports],
    )


def _about(graph: Graph, node: str) -> dict[str, Any]:
    run = graph.runs[node]
    return {
        "node": node,
        "run": run,
        "state": text.state(run),
        "kind": STATES.get(run.state or "", "quiet"),
        "seconds": text.seconds(run),
        "from": graph.above(node),
        "to": graph.below(node),
        "also": graph.also.get(node, []),
        "alike": graph.alike.get(node, 1),
    }


def laid_out(graph: Graph) -> dict[str, Box]:
    """Each node in the row of its longest way from a source; within a row, below the middle of what leads to it."""
    nodes = [*graph.ports, *graph.runs]
    row: dict[str, int] = {}

    def depth(node: str) -> int:
        if node not in row:
            row[node] = 0  # an edge back would end here
            row[node] = max((depth(above) + 1 for above in graph.above(node)), default=0)
        return row[node]

    place: dict[str, float] = {}
    filled: dict[int, int] = {}
    beside = Counter(depth(node) for node in nodes)
    widest = max(beside.values())
    boxes: dict[str, Box] = {}
    for node in sorted(nodes, key=depth):
        above = [place[one] for one in graph.above(node) if one in place]  # a run reads a table that it wrote itself
        place[node] = sum(above) / len(above) if above else 0.0
    for node in sorted(nodes, key=lambda node: (depth(node), place[node], node)):
        across = filled[depth(node)] = filled.get(depth(node), -1) + 1
        place[node] = float(across)
        x = 20 + across * (WIDTH + ACROSS) + (widest - beside[depth(node)]) * (WIDTH + ACROSS) // 2
        y = 20 + depth(node) * (HEIGHT + DOWN)
        if node in graph.ports:
            port = graph.ports[node]
            told = f"version {port.version[:20]}" if port.version is not None else ""
            title, kind = port.dataset, "dataset"
        else:
            run = graph.runs[node]
            title, told, kind = run.stage, text.state(run), STATES.get(run.state or "", "quiet")
        boxes[node] = Box(f"n{len(boxes)}", x, y, title, told, kind, node == str(graph.start))
    return boxes


def _curve(source: Box, target: Box) -> str:
    x1, y1, x2, y2 = source.x + WIDTH // 2, source.y + HEIGHT, target.x + WIDTH // 2, target.y
    middle = (y1 + y2) // 2
    return f"M{x1},{y1} C{x1},{middle} {x2},{middle} {x2},{y2}"
