"""The flow as a picture: stages, the tables they were seen to read and write, and what lies at both ends."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

from plumb.reports import report_page
from plumbline.errors import PlumblineError
from plumbline.product import Product

ENDS: dict[str, tuple[list[str], list[str]]] = {
    "ingest": (["shop database"], []),
    "materialize": ([], ["Redis"]),
    "parity_check": (["Redis"], []),
    "train": ([], ["MLflow runs"]),
    "register": (["MLflow runs"], ["MLflow registry"]),
    "deploy": (["MLflow registry", "Redis"], ["KServe predictor"]),
}
"""What a stage reads and writes outside the lake, which its events do not name as tables."""


class FlowError(PlumblineError):
    """There is no run to draw."""


def mermaid(product: Product) -> str:
    """A Mermaid flowchart of the newest run that was published and trained on, from what its events say.

    Raises FlowError when there is none.
    """
    whole = [run for run in report_page.runs(product) if run.release is not None and "train" in run.stages]
    if not whole:
        raise FlowError(f"no run of {product.name} was published and trained on yet: `make demo` makes one")
    run = whole[-1]
    stages = [name for name in (*product.daily_stages, *product.training_stages) if name in run.stages]
    edges = [edge for name in stages for edge in _edges(name, run.stages[name])]
    things = list(dict.fromkeys(thing for source, target in edges for thing in (source, target) if thing not in stages))
    lines = ["flowchart LR"]
    for title, names in ((product.daily, product.daily_stages), (product.training, product.training_stages)):
        lines += [f"  subgraph {title}", "    direction LR"]
        lines += [
            f'    {name}["{name}<br/><small>{product.stage(name).tool}</small>"]' for name in names if name in stages
        ]
        ordered = [name for name in names if name in stages]
        lines += [f"    {first} ==> {second}" for first, second in pairwise(ordered)]
        lines.append("  end")
    lines += [f'  {_id(thing)}[("{thing}")]' for thing in things]
    lines += [f"  {_id(source)} -.-> {_id(target)}" for source, target in edges]
    gates = [name for name in stages if run.stages[name].get("gates")]
    lines.append("  classDef gate stroke:#bc4749,stroke-width:3px")
    lines += [f"  class {name} gate" for name in gates]
    return "\n".join(lines)


def _edges(stage: str, event: dict[str, Any]) -> list[tuple[str, str]]:
    """(from, to) for what a stage read and wrote, sorted, tables by name."""
    read = {*(event.get("read") or {}), *_versions(event), *ENDS.get(stage, ([], []))[0]}
    wrote = {*(event.get("wrote") or {}), *ENDS.get(stage, ([], []))[1]}
    return [*((name, stage) for name in sorted(read)), *((stage, name) for name in sorted(wrote))]


def _versions(event: dict[str, Any]) -> list[str]:
    """The tables that training names, as in `delta:features.customers@v=3`."""
    if event["stage"] != "dataset":
        return []
    named = (str(event.get(name, "")) for name in ("data_version", "orders_version"))
    return [found[1] for text in named if (found := re.match(r"delta:(.+)@v=", text))]


def _id(name: str) -> str:
    return re.sub(r"\W", "_", name)
