"""The quality rules of a whole table, as the Open Data Contract Standard has them: read, tried, and run.

`metric: rowCount` and `metric: duplicateValues` count rows; `type: sql` gives one value by a query that reads
`${object}`, the one table version that is looked at, and nothing else. DataFusion runs it, which delta-rs brings.
What a rule gives is compared by its `mustBe…`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from typing import TYPE_CHECKING, Any

from plumbline.contracts.limits import said
from plumbline.lake import repeatable

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable
    from open_data_contract_standard.model import DataQuality

    from plumbline.contracts.contract import Column, Contract

OBJECT = "audited"
"""What `${object}` is called where the query runs."""

PLACEHOLDER = re.compile(r"\$?\{(?:object|table)\}")
DIALECT = "postgres"
"""sqlglot's dialect that is nearest to DataFusion's SQL."""

OPERATORS = {
    "mustBe": "{}",
    "mustNotBe": "anything but {}",
    "mustBeGreaterThan": "more than {}",
    "mustBeGreaterOrEqualTo": "{} or more",
    "mustBeLessThan": "less than {}",
    "mustBeLessOrEqualTo": "{} or less",
    "mustBeBetween": "{} to {}",
    "mustNotBeBetween": "less than {} or more than {}",
}
"""How messages have what each operator expects; both ends of a range belong to it."""

IGNORED = ("schedule", "scheduler", "customProperties", "method", "rule")
"""What a rule may not state, for nothing here would heed it."""


class RuleError(ValueError):
    """A rule cannot be run as it is stated."""


@dataclass(frozen=True)
class Rule:
    """One rule: `query` gives one value, which must be to `expected` as `operator` says; `stated` is for messages."""

    name: str
    stated: str
    query: str
    operator: str
    expected: tuple[Any, ...]
    description: str = ""

    @property
    def wanted(self) -> str:
        """What is expected, in words."""
        return OPERATORS[self.operator].format(*map(said, self.expected))

    @property
    def told(self) -> str:
        """The whole rule, in words."""
        return f"{self.stated}: {self.wanted}"

    def holds(self, value: Any) -> bool:
        """Whether a value is as expected. Raises RuleError for one that cannot be compared with it."""
        low, high = self.expected[0], self.expected[-1]
        number = isinstance(value, int | float | Decimal) and not isinstance(value, bool) and isfinite(value)
        if not (number if isinstance(low, int | float) and not isinstance(low, bool) else type(value) is type(low)):
            raise RuleError(f"{'null' if value is None else repr(value)}, which cannot be compared with it")
        holds: dict[str, Callable[[], bool]] = {
            "mustBe": lambda: value == low,
            "mustNotBe": lambda: value != low,
            "mustBeGreaterThan": lambda: value > low,
            "mustBeGreaterOrEqualTo": lambda: value >= low,
            "mustBeLessThan": lambda: value < low,
            "mustBeLessOrEqualTo": lambda: value <= low,
            "mustBeBetween": lambda: low <= value <= high,
            "mustNotBeBetween": lambda: not low <= value <= high,
        }
        return holds[self.operator]()


def read(given: DataQuality, position: int, columns: Mapping[str, Column]) -> Rule:
    """A rule as a contract states it. Raises RuleError for one that nothing here could run."""
    kind = given.type or "library"
    if kind not in ("sql", "library"):
        raise RuleError(f"nothing here would check a rule of type {kind}: state it as sql, or as a library metric")
    if heedless := [name for name in IGNORED if getattr(given, name, None) is not None]:
        raise RuleError(
            f"nothing here would heed {', '.join(heedless)}: a rule runs with the stage that writes the rows"
        )
    if given.severity not in (None, "error"):
        raise RuleError(f"severity {given.severity}: a rule that is broken stops the stage, so it is an error")
    operator, expected = _expected(given, numbers=kind != "sql")
    stated, query = _sql(given) if kind == "sql" else _library(given, columns)
    name = given.name or given.id or given.metric or f"quality[{position}]"
    return Rule(str(name), stated, query, operator, expected, " ".join((given.description or "").split()))


def _expected(given: DataQuality, numbers: bool) -> tuple[str, tuple[Any, ...]]:
    stated = [name for name in OPERATORS if getattr(given, name, None) is not None]
    if len(stated) != 1:
        raise RuleError(f"expected one of {', '.join(OPERATORS)}; found {', '.join(stated) or 'none'}")
    (operator,) = stated
    value = getattr(given, operator)
    values = tuple(value) if isinstance(value, list) else (value,)
    plain = numbers or operator not in ("mustBe", "mustNotBe")
    for item in values:
        number = isinstance(item, int | float) and not isinstance(item, bool)
        if not (number and isfinite(item)) and (plain or not isinstance(item, str | bool)):
            raise RuleError(f"{operator}: expected a number, found {item!r}")
    if len(values) == 2 and values[0] > values[1]:
        raise RuleError(f"{operator}: expected the smaller number first, found {value}: no value would do")
    return operator, values


def _library(given: DataQuality, columns: Mapping[str, Column]) -> tuple[str, str]:
    metric, unit, arguments = given.metric, given.unit or "rows", given.arguments or {}
    if metric not in ("rowCount", "duplicateValues"):
        raise RuleError(f"{metric} is a rule of one column: of a whole table there are rowCount and duplicateValues")
    if unit not in (("rows",) if metric == "rowCount" else ("rows", "percent")):
        raise RuleError(f"nothing here counts {metric} in {unit}")
    if unknown := sorted(set(arguments) - ({"properties"} if metric == "duplicateValues" else set())):
        raise RuleError(f"nothing here would heed the arguments {', '.join(unknown)} of {metric}")
    if metric == "rowCount":
        return metric, f"SELECT count(*) FROM {OBJECT}"
    names = arguments.get("properties", list(columns))
    if not isinstance(names, list) or not names or (unknown := [n for n in names if n not in columns]):
        raise RuleError(f"arguments.properties: expected columns of the table ({', '.join(columns)}), found {names}")
    distinct = f"SELECT count(*) FROM (SELECT DISTINCT {', '.join(names)} FROM {OBJECT}) AS seen"
    rows = f"(SELECT count(*) FROM {OBJECT})"
    repeated = f"{rows} - ({distinct})"
    if unit == "percent":
        repeated = f"CASE WHEN {rows} = 0 THEN 0.0 ELSE 100.0 * ({repeated}) / {rows} END"
    of = f" of {', '.join(names)}" if "properties" in arguments else ""
    return f"{metric}{of}{' in percent' if unit == 'percent' else ''}", f"SELECT {repeated}"


def _sql(given: DataQuality) -> tuple[str, str]:
    """A query's text for messages, and as it runs. Raises RuleError for one that does more than read the table."""
    import sqlglot
    from sqlglot import exp

    stated = " ".join((given.query or "").split())
    query = PLACEHOLDER.sub(OBJECT, given.query or "")
    if given.metric:
        raise RuleError(f"expected a query or a metric, found both: {given.metric} and {stated}")
    if left := re.search(r"\$\{\w+\}", query):
        raise RuleError(f"{stated}: nothing here says what {left.group(0)} is; ${{object}} is the table")
    try:
        trees = sqlglot.parse(query, dialect=DIALECT)
    except sqlglot.errors.SqlglotError as error:
        raise RuleError(f"{stated}: not SQL: {_one_line(re.sub(chr(27) + '[^m]*m', '', str(error)))}") from None
    (tree, *more) = trees or [None]
    writes = (exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.Create, exp.Drop, exp.Into, exp.Command, exp.Copy)
    if more or not isinstance(tree, exp.Query) or tree.find(*writes):
        raise RuleError(f"{stated}: expected one SELECT, which reads and writes nothing")
    known = {cte.alias for cte in tree.find_all(exp.CTE)}
    tables = {table.sql(dialect=DIALECT, comments=False).partition(" AS ")[0] for table in tree.find_all(exp.Table)}
    if others := sorted(tables - known - {OBJECT}):
        raise RuleError(
            f"{stated}: reads {', '.join(others)}; a rule reads ${{object}} alone, one version of its table"
        )
    if OBJECT not in tables:
        raise RuleError(f"{stated}: does not read ${{object}}, so it checks nothing")
    if depends := repeatable.depends_on(query):
        raise RuleError(f"{stated}: reads {', '.join(depends)}, and would say another thing of the same rows later")
    return stated, query


def run(rules: Iterable[Rule], table: DeltaTable, view: str = "") -> list[tuple[Rule, Any, str]]:
    """Each rule over a version of a table with what it gave, and a sentence where it does not hold, else "".

    `view` is a query that `${object}` stands for, over the table as `whole`; the table itself by default.
    """
    from deltalake import QueryBuilder

    engine = QueryBuilder().register("whole" if view else OBJECT, table)
    if view:
        engine.execute(f"CREATE VIEW {OBJECT} AS {view}").read_all()
    return [(rule, *_judged(rule, engine)) for rule in rules]


def evidence(given: Iterable[tuple[Rule, Any, str]]) -> list[dict[str, Any]]:
    """What `run` gave, for a gate's evidence."""
    return [
        {
            "rule": rule.name,
            "stated": rule.stated,
            "expected": rule.wanted,
            "found": value if isinstance(value, int | float | str | None) else str(value),
            "holds": not told,
        }
        for rule, value, told in given
    ]


def _judged(rule: Rule, engine: Any) -> tuple[Any, str]:
    value, quoted = None, f"rule {rule.name}: {rule.stated}"
    try:
        given = _answer(rule, engine)
        if len(given) != 1:
            raise RuleError(f"{len(given):,} rows, expected one with one value")
        value = given.column(0)[0].as_py()
        if rule.holds(value):
            return value, ""
        told = f"{quoted} gave {said(value)}, expected {rule.wanted}"
    except RuleError as error:
        told = f"{quoted} gave {error}, expected {rule.wanted}"
    except Exception as error:
        told = f"{quoted} cannot be run: {_one_line(str(error))}"
    return value, told + (f" ({rule.description})" if rule.description else "")


def _answer(rule: Rule, engine: Any) -> pa.Table:
    import pyarrow as pa

    given = pa.table(engine.execute(rule.query).read_all())
    if given.num_columns != 1:
        raise RuleError(f"{given.num_columns} columns ({', '.join(given.column_names)}), expected one value")
    return given


def unfit(contract: Contract) -> list[str]:
    """The rules of a contract that could not be run over a table with its columns, a sentence each.

    They are run over such a table without a row.
    """
    if not contract.rules:
        return []
    import tempfile

    import pyarrow as pa
    from deltalake import DeltaTable, QueryBuilder, write_deltalake

    found = []
    with tempfile.TemporaryDirectory(prefix="plumbline-rules-") as folder:
        write_deltalake(folder, arrow_schema(contract.columns.values()).empty_table())
        engine = QueryBuilder().register(OBJECT, DeltaTable(folder))
        for rule in contract.rules:
            try:
                kind = _answer(rule, engine).schema.field(0).type
                if _family(kind) != _family(pa.scalar(rule.expected[0]).type):
                    raise RuleError(f"gives {kind}, which cannot be compared with {rule.wanted}")
            except Exception as error:
                found.append(f"rule {rule.name}: {rule.stated}: cannot be run: {_one_line(str(error))}")
    return found


def _family(kind: pa.DataType) -> str:
    """What values of a type are compared with: numbers with numbers, texts with texts."""
    import pyarrow as pa

    is_a = pa.types
    if is_a.is_integer(kind) or is_a.is_floating(kind) or is_a.is_decimal(kind):
        return "number"
    return "text" if is_a.is_string(kind) or is_a.is_large_string(kind) or is_a.is_string_view(kind) else str(kind)


def arrow_schema(columns: Iterable[Column]) -> pa.Schema:
    """The same columns as Arrow has them; timestamps are UTC."""
    import pyarrow as pa

    kinds = {
        "bigint": pa.int64(),
        "int": pa.int32(),
        "float": pa.float32(),
        "double": pa.float64(),
        "array<float>": pa.list_(pa.float32()),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us", tz="UTC"),
        "string": pa.string(),
        "boolean": pa.bool_(),
    }
    return pa.schema([(column.name, kinds[column.type]) for column in columns])


def _one_line(text: str) -> str:
    return " ".join(text.replace(f"{OBJECT}.", "").replace(OBJECT, "${object}").split())[:300].rstrip(". ")
