"""Lint's check: the tree as it is passes, and each file that says other than its contract is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from plumbline.contracts import check as contract_check
from plumbline.contracts import docs as contract_docs
from plumbline.contracts.contract import ContractError
from plumbline.lineage import column_lineage
from plumbline.settings import ROOT, settings
from products import ALL
from products.churn import CHURN

REPEATED = (
    "contracts",
    "dbt/models",
    "feature_repo/churn/jobs/customers.sql",
    "feature_repo/churn/definitions.py",
    "feature_repo/images/definitions.py",
    "docs/contracts.md",
)


@pytest.fixture
def tree(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of everything that repeats a contract, which the check looks at instead of the repository."""
    for name in REPEATED:
        target = tmp_path / "tree" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(ROOT / name, target) if (ROOT / name).is_dir() else shutil.copy(ROOT / name, target)
    for module in (contract_check, contract_docs, column_lineage):
        monkeypatch.setattr(module, "ROOT", tmp_path / "tree")
    monkeypatch.setenv("PLUMBLINE_CONTRACTS", str(tmp_path / "tree" / "contracts"))
    settings.cache_clear()
    return tmp_path / "tree"


def test_the_tree_as_it_is_says_what_the_contracts_say(tree: Path) -> None:
    assert contract_check.check(ALL) == []
    assert contract_check.refuse_drift(ALL)["verdict"] == "passed"


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        (
            "dbt/models/marts/orders.yml",
            "data_tests: [unique, not_null]",
            "",
            "orders.yml: order_id: lacks the test unique",
        ),
        ("dbt/models/marts/orders.yml", '">= 0"', '">= 1"', "total_cents: tests '>= 1', contract analytics.orders has"),
        (
            "dbt/models/marts/orders.yml",
            "How many units were bought.",
            "How many.",
            "orders.yml: units: description 'How many.'",
        ),
        ("dbt/models/marts/orders.yml", "name: units", "name: pieces", "orders.yml: lacks units, which contract"),
        ("dbt/models/marts/orders.sql", "    units,\n", "", "orders.sql: lacks units, which contract analytics.orders"),
        (
            "dbt/models/marts/customers.sql",
            "as signed_up_on",
            "as joined_on",
            "customers.sql: has joined_on, which is not",
        ),
        (
            "dbt/models/staging/stg_orders.sql",
            "        units,\n",
            "",
            "stg_orders.sql: lacks units, which contract shop.orders",
        ),
        (
            "dbt/models/staging/stg_orders.yml",
            "name: units",
            "name: coupon",
            "stg_orders.yml: has coupon, which contract",
        ),
        (
            "feature_repo/churn/jobs/customers.sql",
            "AS orders_7d,\n    CAST(orders_30d",
            "AS x7,\n    CAST(orders_30d",
            "has x7, which",
        ),
        (
            "feature_repo/churn/jobs/customers.sql",
            "CAST(spend_cents_7d AS BIGINT)",
            "CAST(spend_cents_7d AS INT)",
            "customers.sql: spend_cents_7d is int, contract features.customers says bigint",
        ),
        (
            "feature_repo/churn/definitions.py",
            '"orders_7d", dtype=Int32',
            '"orders_7d", dtype=Int64',
            "orders_7d is Int64, contract",
        ),
        (
            "feature_repo/churn/definitions.py",
            "Orders known so far.",
            "All orders.",
            "orders_total: description 'All orders.'",
        ),
        ("docs/contracts.md", "always given", "mostly given", "docs/contracts.md is not what the contracts give"),
        (
            "contracts/analytics.orders.odcs.yaml",
            "        required: true\n        description: The customer",
            "        description: The customer",
            "orders.yml: customer_id: has the test not_null, contract analytics.orders promises nothing of the kind",
        ),
        (
            "contracts/shop.orders.odcs.yaml",
            "name: units",
            "name: pieces",
            "stg_orders.sql: lacks pieces, which contract",
        ),
        (
            "contracts/features.customers.odcs.yaml",
            "- name: avg_ticket\n",
            "- name: avg\n",
            "customers.sql: lacks avg, which",
        ),
    ],
)
def test_what_says_other_than_its_contract_is_named(tree: Path, file: str, old: str, new: str, told: str) -> None:
    text = (tree / file).read_text()
    assert old in text
    (tree / file).write_text(text.replace(old, new, 1))
    with pytest.raises(ContractError) as error:
        contract_check.refuse_drift(ALL)
    assert told in str(error.value) and "`plumb contract docs`" in str(error.value)


def test_a_short_notice_and_a_stray_contract_are_named(tree: Path) -> None:
    path = tree / "contracts" / "shop.orders.odcs.yaml"
    rename = "{from: units, to: pieces, announced: '1998-06-01', effective: '1998-06-07'}"
    said = f"customProperties:\n  - {{property: announcedRenames, value: [{rename}]}}\n"
    path.write_text(path.read_text().replace("customProperties:\n", said))
    (tree / "contracts" / "shop.refunds.odcs.yaml").write_text("x: 1\n")
    found = "\n".join(contract_check.check(ALL))
    assert "announced at least 7 days before it takes effect, not before 1998-06-08" in found
    assert "shop.refunds.odcs.yaml: no dataset of ours has that name" in found


def test_the_page_names_every_dataset_and_column(home: Path) -> None:
    page = contract_docs.page([CHURN])
    assert page.count("\n## ") == len(CHURN.contracted)
    assert "| `total_cents` | bigint | always given, 0 to 10,000,000 |" in page
    assert "- **timeOfAvailability** 00:05 UTC: Yesterday is there by 00:05 UTC on 99.5% of days." in page
