"""Rules of a whole table: each that cannot be run is refused with its place, each that can gives the right value."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from deltalake import DeltaTable, write_deltalake

from plumbline.contracts import check, quality
from plumbline.contracts import contract as contracts
from plumbline.contracts.contract import ContractError
from products.churn import CHURN

ORDERS = "analytics.orders"


@pytest.fixture
def folder(own_contracts: Path) -> Path:
    return own_contracts


def state(folder: Path, *rules: dict[str, Any], dataset: str = ORDERS) -> None:
    path = folder / f"{dataset}.odcs.yaml"
    document = yaml.safe_load(path.read_text())
    document["schema"][0]["quality"] = list(rules)
    path.write_text(yaml.safe_dump(document, sort_keys=False))


def sql(query: str, **more: Any) -> dict[str, Any]:
    return {"name": "mine", "type": "sql", "query": query, **(more or {"mustBe": 0})}


FREE = "SELECT count(*) FROM ${object} WHERE total_cents = 0"


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"metric": "rowCount"}, "expected one of mustBe, mustNotBe, .*; found none"),
        ({"metric": "rowCount", "mustBe": 1, "mustBeLessThan": 2}, "found mustBe, mustBeLessThan"),
        ({"metric": "rowCount", "mustBeBetween": [9, 1]}, "mustBeBetween: expected the smaller number first"),
        ({"metric": "rowCount", "mustBeGreaterThan": float("nan")}, "mustBeGreaterThan: expected a number, found nan"),
        ({"metric": "rowCount", "mustBe": "many"}, "mustBe: expected a number, found 'many'"),
        ({"metric": "rowCount", "mustBe": 1, "unit": "percent"}, "nothing here counts rowCount in percent"),
        ({"metric": "rowCount", "mustBe": 1, "severity": "warning"}, "severity warning: a rule that is broken stops"),
        ({"metric": "rowCount", "mustBe": 1, "schedule": "0 20 * * *"}, "nothing here would heed schedule"),
        ({"metric": "rowCount", "mustBe": 1, "arguments": {"filter": "x"}}, "would heed the arguments filter"),
        ({"metric": "nullValues", "mustBe": 0}, "nullValues is a rule of one column"),
        ({"metric": "duplicateValues", "mustBe": 0, "arguments": {"properties": ["price"]}}, "found \\['price'\\]"),
        ({"type": "text", "description": "all is well"}, "nothing here would check a rule of type text"),
        ({"type": "custom", "engine": "soda", "implementation": "x"}, "nothing here would check a rule of type custom"),
        (sql("SELECT count(* FROM ${object}"), "mine.*not SQL"),
        (sql("DELETE FROM ${object}"), "expected one SELECT, which reads and writes nothing"),
        (sql("COPY (SELECT 1 FROM ${object}) TO '/tmp/x.csv'"), "expected one SELECT|not SQL"),
        (sql("SELECT 1 FROM ${object}; DROP TABLE ${object}"), "expected one SELECT"),
        (sql("SELECT count(*) INTO other FROM ${object}"), "expected one SELECT"),
        (sql("SELECT count(*) FROM ${object} JOIN raw.orders USING (order_id)"), "reads raw.orders; a rule reads"),
        (sql("SELECT count(*) FROM generate_series(1, 9)"), "reads GENERATE_SERIES"),
        (sql("SELECT 0"), "does not read \\$\\{object\\}, so it checks nothing"),
        (
            sql("SELECT count(*) FROM ${object} WHERE ${property} IS NULL"),
            "nothing here says what \\$\\{property\\} is",
        ),
        (sql("SELECT count(*) FROM ${object} WHERE known_at > now()"), "reads the wall clock"),
    ],
)
def test_a_rule_that_nothing_here_could_run_is_refused(folder: Path, rule: dict[str, Any], told: str) -> None:
    state(folder, rule)
    with pytest.raises(ContractError, match=told) as error:
        contracts.load(ORDERS)
    assert "schema[0].quality[0]" in str(error.value)
    assert [line for line in check.check([CHURN]) if "quality[0]" in line], "and the check says so"


def test_two_rules_of_one_name_and_a_rule_of_what_no_stage_writes_are_refused(folder: Path) -> None:
    rule = {"metric": "rowCount", "mustBeGreaterThan": 0}
    state(folder, rule, rule)
    with pytest.raises(ContractError, match="rowCount: two rules of that name"):
        contracts.load(ORDERS)
    state(folder, rule, dataset="serving.predictions")
    with pytest.raises(ContractError, match="nothing here would run a rule of serving.predictions"):
        contracts.load("serving.predictions")


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("SELECT count(*) FROM ${object} WHERE price > 0", "mine: .*cannot be run: .*No field named price"),
        ("SELECT datediff(order_date, order_date) FROM ${object}", "cannot be run: .*Invalid function 'datediff'"),
        ("SELECT max(order_date) FROM ${object}", "gives date32.*, which cannot be compared with 0"),
        ("SELECT count(*), 1 FROM ${object}", r"2 columns \(.*\), expected one value"),
    ],
)
def test_a_query_that_fits_no_such_table_is_found_before_any_row_is_there(folder: Path, query: str, told: str) -> None:
    state(folder, sql(query))
    (line,) = [line for line in check.check([CHURN]) if "mine" in line]
    assert line.count("\n") == 0 and "contracts/analytics.orders.odcs.yaml: rule " in line
    assert re.search(told, line)


def test_a_rule_that_can_be_run_passes_the_check(folder: Path) -> None:
    state(folder, sql(FREE, mustBeLessThan=100), {"metric": "rowCount", "mustBeGreaterThan": 0})
    assert [line for line in check.check([CHURN]) if "rule" in line] == []


@pytest.fixture
def table(tmp_path: Path) -> DeltaTable:
    """Five orders: two of one customer on one day, one without a customer, one that cost nothing."""
    rows = {
        "customer_id": pa.array([1, 1, 2, 3, None], pa.int64()),
        "order_date": pa.array([date(1997, 1, day) for day in (1, 1, 1, 2, 2)]),
        "total_cents": pa.array([500, 700, 0, 900, 900], pa.int64()),
    }
    write_deltalake(str(tmp_path / "orders"), pa.table(rows))
    return DeltaTable(str(tmp_path / "orders"))


COLUMNS = ("customer_id", "order_date", "total_cents")


def stated(**rule: Any) -> quality.Rule:
    from open_data_contract_standard.model import DataQuality

    return quality.read(DataQuality(**rule), 0, dict.fromkeys(COLUMNS))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "value", "told"),
    [
        ({"metric": "rowCount", "mustBe": 5}, 5, ""),
        ({"metric": "rowCount", "mustBeGreaterThan": 5}, 5, "rule rowCount: rowCount gave 5, expected more than 5"),
        ({"metric": "rowCount", "mustBeGreaterOrEqualTo": 5}, 5, ""),
        ({"metric": "rowCount", "mustBeLessThan": 5}, 5, "rule rowCount: rowCount gave 5, expected less than 5"),
        ({"metric": "rowCount", "mustBeLessOrEqualTo": 5}, 5, ""),
        ({"metric": "rowCount", "mustBeBetween": [5, 9]}, 5, ""),
        ({"metric": "rowCount", "mustNotBeBetween": [1, 5]}, 5, "less than 1 or more than 5"),
        ({"metric": "rowCount", "mustNotBe": 5}, 5, "expected anything but 5"),
        ({"metric": "duplicateValues", "mustBe": 0}, 0, ""),
        (
            {"metric": "duplicateValues", "mustBe": 0, "arguments": {"properties": ["customer_id", "order_date"]}},
            1,
            "duplicateValues of customer_id, order_date gave 1, expected 0",
        ),
        (
            {
                "metric": "duplicateValues",
                "unit": "percent",
                "mustBeLessThan": 20,
                "arguments": {"properties": ["order_date"]},
            },
            60.0,
            "duplicateValues of order_date in percent gave 60.0, expected less than 20",
        ),
        (sql(FREE, mustBe=0), 1, f"rule mine: {FREE} gave 1, expected 0"),
        (sql("SELECT avg(total_cents) FROM {table}", mustBeBetween=[500, 700]), 600.0, ""),
        (sql("WITH days AS (SELECT DISTINCT order_date FROM ${table}) SELECT count(*) FROM days", mustBe=2), 2, ""),
        (sql("SELECT min(customer_id) FROM ${object} WHERE total_cents > 1000"), None, "gave null, which cannot be"),
        (sql("SELECT total_cents FROM ${object}"), None, "gave 5 rows, expected one with one value, expected 0"),
        (sql("SELECT 1 / (count(*) - 5) FROM ${object}"), None, "Divide by zero"),
        (sql("SELECT max('all') FROM ${object}", mustBe="all"), "all", ""),
    ],
)
def test_a_rule_gives_the_right_value_and_says_what_was_expected(
    table: DeltaTable, rule: dict[str, Any], value: Any, told: str
) -> None:
    ((_, given, sentence),) = quality.run([stated(**rule)], table)
    assert given == value
    assert told in sentence if told else sentence == ""


def test_a_query_cannot_change_the_table(table: DeltaTable) -> None:
    for query in ("DELETE FROM ${object}", "INSERT INTO ${object} SELECT * FROM ${object}", "DROP TABLE ${object}"):
        with pytest.raises(quality.RuleError, match="expected one SELECT"):
            stated(**sql(query))
    assert DeltaTable(table.table_uri).version() == 0
