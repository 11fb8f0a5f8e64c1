"""Where a column comes from: through a query's CTEs and the dbt models behind it, back to raw columns.

Only what a column's value is computed from. Conditions of joins and filters decide which rows there are, and are not
part of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline import files
from plumbline.settings import ROOT, settings

if TYPE_CHECKING:
    from sqlglot.lineage import Node

DIALECT = "spark"
ITS_BASE = "__base"
"""What the name of an incremental model ends in where its own SQL reads it."""

Columns = dict[str, list[tuple[str, str]]]
"""A column → the (table, column) that it is computed from."""


@dataclass
class Step:
    """One column on the way: its expression, where it is written (file:line, None when nobody wrote it), its inputs."""

    column: str
    sql: str
    place: str | None
    inputs: list[Step] = field(default_factory=list)

    def roots(self) -> set[str]:
        """The columns that nothing here computes: raw ones, and what a run hands in."""
        return set().union(*(step.roots() for step in self.inputs)) if self.inputs else {self.column}


@dataclass(frozen=True)
class Model:
    """A dbt model: its compiled SQL, and the file that it was compiled from."""

    sql: str
    file: str


def models() -> dict[str, Model]:
    """dbt's models by table name, as the newest dbt run of this home compiled them; none before the first."""
    manifest = files.read_json(settings().home / "dbt" / "target" / "manifest.json") or {}
    nodes = [node for node in manifest.get("nodes", {}).values() if node["resource_type"] == "model"]
    return {
        f"{node['schema']}.{node['alias']}": Model(by_name(node["compiled_code"]), f"dbt/{node['original_file_path']}")
        for node in nodes
        if node.get("compiled_code")
    }


def trace(column: str, query: Path, tables: Mapping[str, str], raw: Mapping[str, list[str]]) -> Step:
    """The column's way through a query's file and the dbt models to the columns of `raw` tables.

    `tables` says what the query's `{placeholders}` stand for.

    Raises ValueError when the query gives no such column.
    """
    from sqlglot.lineage import lineage

    text = re.sub(r"\{(\w+)\}", lambda found: tables.get(found.group(1), found.group(1)), query.read_text())
    known, schema = models(), dict[str, dict[str, dict[str, str]]]()
    for table, columns in raw.items():
        schema.setdefault(table.partition(".")[0], {})[table.partition(".")[2]] = dict.fromkeys(columns, "string")
    sources = {name: _on_its_base(name, model.sql) for name, model in known.items()}
    try:
        node = lineage(column, text, schema=schema, sources=sources, dialect=DIALECT)
    except Exception as error:
        raise ValueError(f"{query.name} gives no column {column!r} that can be traced: {error}") from None
    return _step(node, str(query.relative_to(ROOT)) if query.is_relative_to(ROOT) else str(query), known)


def outputs(query: str) -> dict[str, str]:
    """Each column that a query gives, with its expression as it is written in the last SELECT."""
    from sqlglot import exp, parse_one

    tree = parse_one(re.sub(r"\{(\w+)\}", r"\1", query), dialect=DIALECT)
    assert isinstance(tree, exp.Select)  # noqa: S101 (one query a file)
    return {item.alias_or_name: item.unalias().sql(DIALECT, pretty=True) for item in tree.expressions}


def _step(node: Node, file: str, known: Mapping[str, Model]) -> Step:
    from sqlglot import exp

    # In a UNION it is the column's place.
    name = node.expression.alias_or_name if node.name.isdecimal() else node.name.rpartition(".")[2]
    if isinstance(node.expression, exp.Table):
        table = ".".join(part for part in (node.expression.db, node.expression.name) if part)
        return Step(f"{table}.{name}", "", None)
    below = _inputs(node)
    model = node.source_name
    while model and len(below) == 1 and _passes_on(node) and below[0].source_name == model:
        node = below[0]  # within one model, what only hands a column on is not a step
        below = _inputs(node)
    shown = f"{model}.{name}" if model else name if node.name.isdecimal() else node.name
    place = _line_in(known[model].file, name) if model in known else f"{file}:{_line(node) or '?'}"
    return Step(shown, node.expression.unalias().sql(DIALECT), place, [_step(child, file, known) for child in below])


def _on_its_base(name: str, sql: str) -> str:
    """A model's SQL; where it reads itself, an incremental one reads what the base release has of it."""
    return re.sub(rf"(?<![\w.`]){re.escape(name)}(?![\w.`])", f"{name}{ITS_BASE}", sql)


def _inputs(node: Node) -> list[Node]:
    """What a column is computed from, by name; not its own earlier rows, which came the same way, nor a plain NULL."""
    below = (child for child in node.downstream if not (_is_its_base(child) or _is_null(child)))
    return sorted(below, key=lambda child: child.name)


def _is_null(node: Node) -> bool:
    from sqlglot import exp

    return isinstance(node.expression.unalias(), exp.Null)


def _is_its_base(node: Node) -> bool:
    from sqlglot import exp

    if isinstance(node.expression, exp.Table):
        return str(node.expression.name).endswith(ITS_BASE)
    return bool(node.downstream) and all(_is_its_base(child) for child in node.downstream)


def _passes_on(node: Node) -> bool:
    from sqlglot import exp

    return isinstance(node.expression.unalias(), exp.Column)


def _line(node: Node) -> int | None:
    from sqlglot import exp

    lines = [identifier.meta.get("line") for identifier in node.expression.find_all(exp.Identifier)]
    return next((line for line in lines if line), None)


def _line_in(file: str, column: str) -> str:
    """dbt compiles lines away, so the line is looked up in the model itself: the last one that names the column alone
    or gives an expression its name."""
    lines = (ROOT / file).read_text().splitlines() if (ROOT / file).exists() else []
    named = re.compile(rf"^\s*(?:.*\bas\s+)?{re.escape(column)},?\s*$", re.IGNORECASE)
    found = [number for number, line in enumerate(lines, 1) if named.match(line)]
    return f"{file}:{found[-1]}" if found else file


def by_name(sql: str) -> str:
    """Pinned relations (delta.`…/raw/orders` VERSION AS OF 3) by their table's name, as the lineage knows them."""
    return re.sub(r"delta\.`[^`]*?/(\w+)/(\w+)`(?:\s+VERSION AS OF \d+)?", r"\1.\2", sql, flags=re.IGNORECASE)


def tree(step: Step) -> dict[str, Any]:
    """The step and all below it, for JSON."""
    return {"column": step.column, "sql": step.sql, "place": step.place, "inputs": [tree(s) for s in step.inputs]}


def traced(sql: str, views: Mapping[str, str], tables: Mapping[str, list[str]]) -> Columns:
    """The lineage of each column that a query gives, through its views to the columns of `tables`.

    Columns that come from nowhere in `tables` have an empty list. Raises sqlglot's errors for what it cannot parse.
    """
    from sqlglot import exp
    from sqlglot.lineage import lineage

    schema: dict[str, dict[str, dict[str, str]]] = {}
    for table, columns in tables.items():
        schema.setdefault(table.partition(".")[0], {})[table.partition(".")[2]] = dict.fromkeys(columns, "string")
    nodes = lineage(None, sql, schema=schema, sources=dict(views), dialect=DIALECT)

    def leaves(node: Node) -> set[tuple[str, str]]:
        if node.downstream or not isinstance(node.expression, exp.Table):
            return set().union(*(leaves(below) for below in node.downstream))
        table = f"{node.expression.db}.{node.expression.name}"
        return {(table, node.name.rpartition(".")[2])} if table in tables else set()

    assert isinstance(nodes, dict)  # noqa: S101 (asked for no column, it gives all)
    return {column: sorted(leaves(node)) for column, node in nodes.items()}
