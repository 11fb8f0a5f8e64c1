"""docs/contracts.md: the contracts for people to read, generated."""

from __future__ import annotations

from collections.abc import Sequence

from plumbline import files
from plumbline.contracts import contract as contracts
from plumbline.contracts.contract import Column, Contract
from plumbline.product import Product
from plumbline.settings import ROOT

PATH = "docs/contracts.md"


def write(products: Sequence[Product]) -> str:
    """Writes the page anew; its path."""
    files.write_whole(ROOT / PATH, page(products))
    return PATH


def page(products: Sequence[Product]) -> str:
    """The page: a section for each dataset."""
    parts = [
        "<!-- Generated from contracts/*.odcs.yaml by `plumb contract docs`. Do not edit: `make lint` compares. -->",
        "# Data contracts\n",
        "What each dataset promises. How an owner changes one, and what happens to data that breaks it: "
        "[contracts-and-quarantine.md](contracts-and-quarantine.md).\n",
    ]
    datasets = [dataset for product in products for dataset in product.contracted]
    return "\n".join([*parts, *(_section(contracts.load(dataset)) for dataset in datasets)]).rstrip() + "\n"


def _section(contract: Contract) -> str:
    lines = [
        f"## {contract.dataset}",
        "",
        f"{contract.purpose} {contract.grain} {contract.usage}",
        f"{contract.limitations}",
        "",
        f"Version {contract.version} ([source](../contracts/{contract.path.name})). Owner: {contract.owner} "
        f"(team {contract.team}), told in {contract.channel}. Key: {', '.join(f'`{name}`' for name in contract.key)}.",
        "",
        "| column | type | promises | what it is |",
        "|---|---|---|---|",
        *(f"| `{c.name}` | {c.type} | {_promises(c) or '–'} | {c.description} |" for c in contract.columns.values()),
        "",
        *(f"- **{level.property}** {level.value} {level.unit}: {level.description}" for level in contract.levels),
        *(f"- **{rule.name}**: {rule.told}. {rule.description}".rstrip() for rule in contract.rules),
        *(f"- **announced**: {rename.told()}." for rename in contract.renames),
        "",
    ]
    return "\n".join(lines)


def _promises(column: Column) -> str:
    found = [word for word, kept in (("always given", column.required), ("unique", column.unique)) if kept]
    if column.minimum is not None and column.maximum is not None:
        found.append(f"{_plain(column.minimum)} to {_plain(column.maximum)}")
    elif column.minimum is not None:
        found.append(f"{_plain(column.minimum)} or more")
    elif column.maximum is not None:
        found.append(f"{_plain(column.maximum)} or less")
    if column.not_after_run:
        found.append("not in the future")
    return ", ".join(found)


def _plain(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,}"
