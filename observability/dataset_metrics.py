"""The metrics of each contracted dataset, named after its table: a new contract brings its metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from plumbline.contracts import contract as contracts
from plumbline.contracts.contract import Contract
from plumbline.metrics import EXTERNAL, SCHEMA, Metric
from plumbline.product import Product
from products import ALL


def prefix(table: str) -> str:
    """What the names of a table's metrics begin with."""
    return table.replace(".", "_")


def of_dataset(contract: Contract) -> tuple[Metric, ...]:
    """The metrics of one contracted dataset, named after the table that holds it (`features_customers_rows`).

    Freshness is of what the release in force covers, for raw tables of what landed; nulls are of the rows that the
    release added (all when it added none or made the table anew), from the Delta log's statistics.
    """
    table = table_of(contract)
    name = prefix(table)
    found = [
        Metric(f"{name}_freshness_seconds", "gauge", "s", f"From the end of {table}'s last day to the platform's now."),
        Metric(f"{name}_rows", "gauge", "1", f"Rows of {table} in the release in force."),
        Metric(f"{name}_null_ratio", "gauge", "ratio", f"Share of nulls in what came to {table}.", ("column",)),
    ]
    if any(level.property == "timeOfAvailability" for level in contract.levels):
        found += [
            Metric(f"{name}_due_days", "gauge", "1", f"Days of the last 200 whose {table} was due."),
            Metric(f"{name}_late_days", "gauge", "1", "Those of them that were not in force by their deadline."),
        ]
    return tuple(found)


def table_of(contract: Contract) -> str:
    """The lake's table that a contract's rows lie in; the shop's tables land in `raw`."""
    schema, _, name = contract.dataset.partition(".")
    return f"raw.{name}" if schema == "shop" else contract.dataset


def contracted(products: Sequence[Product] = ALL) -> list[str]:
    """The watched datasets that the folder of contracts has one of, by name.

    A mart's history is not watched beside it: one model run writes both, so both are late or odd together. What a
    stream brings is told by the stream itself: it has no day that could be late.
    """
    names = {path.name.removesuffix(contracts.SUFFIX) for path in contracts.folder().glob(f"*{contracts.SUFFIX}")}
    apart = {name for product in ALL for name in (*product.histories, product.events, *product.streams.values())}
    return sorted(dataset for dataset in names - apart if _is_of(products, dataset))


def _is_of(products: Sequence[Product], dataset: str) -> bool:
    """Whether its contract is of one of these products; one that cannot be read is told by who reads it."""
    try:
        return contracts.load(dataset).product in {product.name for product in products}
    except contracts.ContractError:
        return True


def datasets(products: Sequence[Product] = ALL) -> Iterator[Contract]:
    """Every contract of these products in the folder of contracts, by name. Raises ContractError when one is
    malformed."""
    return map(contracts.load, contracted(products))


def known(of: Iterable[Contract] | None = None) -> dict[str, Metric]:
    """Every metric of ours by its name: the schema's, and those of the datasets of these contracts, or of all."""
    return {m.name: m for m in (*SCHEMA, *(m for c in (datasets() if of is None else of) for m in of_dataset(c)))}


def series() -> set[str]:
    """Every name that a rule or a dashboard may read: a histogram has three, others' metrics are among them."""
    suffixes = {"histogram": ("_bucket", "_sum", "_count")}
    return {m.name + end for m in known().values() for end in suffixes.get(m.kind, ("",))} | set(EXTERNAL)
