"""Which columns of which tables a query's columns are computed from, for the lineage of its output."""

from __future__ import annotations

from collections.abc import Mapping

from plumbline.lineage.column_lineage import DIALECT

Columns = dict[str, list[tuple[str, str]]]
"""A column → the (table, column) that it is computed from."""


def traced(sql: str, views: Mapping[str, str], tables: Mapping[str, list[str]]) -> Columns:
    """The lineage of each column that a query gives, through its views to the columns of `tables`.

    Columns that come from nowhere in `tables` have an empty list. Raises sqlglot's errors for what it cannot parse.
    """
    from sqlglot import exp
    from sqlglot.lineage import Node, lineage

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
