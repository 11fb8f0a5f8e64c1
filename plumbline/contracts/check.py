"""`plumb contract check`: whatever repeats a contract says the same, or lint fails. It needs no lake and no server.

Held against the contracts: dbt's models (columns, descriptions, not_null and unique tests, the SELECT itself), the
feature job's SQL, Feast's view, and the generated docs/contracts.md.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from plumbline.contracts import contract as contracts
from plumbline.contracts import docs as contract_docs
from plumbline.contracts import quality
from plumbline.contracts.contract import LANDING, RECORDED, SUFFIX, Column, ContractError
from plumbline.lineage import column_lineage
from plumbline.product import Product
from plumbline.settings import ROOT

FEAST = {
    "Int32": "int",
    "Int64": "bigint",
    "Float32": "float",
    "Float64": "double",
    "String": "string",
    "Array(Float32)": "array<float>",
}


def check(products: Sequence[Product]) -> list[str]:
    """Every place that says other than its contract, a sentence each; none when all is well."""
    found: list[str] = list(_strays(products))
    for product in products:
        for name, look in CHECKS.items():
            try:
                found += look(product)
            except (ContractError, OSError, SyntaxError, KeyError) as error:
                found.append(f"{name}: {error}")
    found += _docs(products)
    return list(dict.fromkeys(found))


def _docs(products: Sequence[Product]) -> Iterator[str]:
    path = ROOT / contract_docs.PATH
    try:
        same = path.exists() and path.read_text() == contract_docs.page(products)
    except (ContractError, OSError, KeyError) as error:
        yield f"{contract_docs.PATH}: {error}"
        return
    if not same:
        yield f"{contract_docs.PATH} is not what the contracts give: `plumb contract docs` writes it anew"


def refuse_drift(products: Sequence[Product]) -> dict[str, Any]:
    """What was checked. Raises ContractError that names every file that says other than its contract."""
    if found := check(products):
        raise ContractError(
            f"{len(found)} places do not say what the contracts say:\n  "
            + "\n  ".join(found)
            + "\n  The contract is the one source: mend the place, or change the contract first. "
            "docs/contracts.md is written anew by `plumb contract docs`."
        )
    named = [dataset for product in products for dataset in product.contracted]
    return {"contracts": named, "checked": [*CHECKS, contract_docs.PATH], "verdict": "passed"}


def _strays(products: Sequence[Product]) -> Iterator[str]:
    datasets = [dataset for product in products for dataset in product.contracted]
    names = {product.name for product in products}
    for path in sorted(contracts.folder().glob(f"*{SUFFIX}")):
        dataset = path.name.removesuffix(SUFFIX)
        if dataset not in datasets and _of(names, dataset):
            yield f"{path}: no dataset of ours has that name; there are {', '.join(datasets)}"


def _of(products: set[str], dataset: str) -> bool:
    """Whether a contract is of one of these products, as far as it can be read."""
    try:
        return contracts.load(dataset).product in products
    except ContractError:
        return True


def _files(product: Product) -> Iterator[str]:
    for dataset in product.contracted:
        contract = contracts.load(dataset)
        yield from (f"{contract.file}: {told}" for told in quality.unfit(contract))
        for rename in contract.renames:
            if rename.effective - rename.announced < contracts.NOTICE:
                yield (
                    f"{contract.file}: {rename.told()}: a breaking change is announced at least "
                    f"{contracts.NOTICE.days} days before it takes effect, not before "
                    f"{rename.announced + contracts.NOTICE}"
                )


def _marts(product: Product) -> Iterator[str]:
    for dataset in product.marts:
        stem = f"dbt/models/marts/{dataset.partition('.')[2]}"
        columns = contracts.load(dataset).columns
        described = _described(stem)
        yield from _same_names(f"{stem}.yml", described, dataset, columns)
        yield from _same_names(f"{stem}.sql", _selected(stem), dataset, columns)
        for name in columns.keys() & described.keys():
            yield from _same_column(f"{stem}.yml: {name}", described[name], dataset, columns[name])


def _same_column(place: str, described: Mapping[str, Any], dataset: str, column: Column) -> Iterator[str]:
    said = " ".join(str(described.get("description", "")).split())
    if said != column.description:
        yield f"{place}: description {said!r}, contract {dataset} says {column.description!r}"
    tests = [test if isinstance(test, str) else next(iter(test)) for test in described.get("data_tests", [])]
    for test, promised in (("not_null", column.required), ("unique", column.unique)):
        if (test in tests) is not promised:
            yield (
                f"{place}: {'has' if test in tests else 'lacks'} the test {test}, contract {dataset} promises "
                f"{'it' if promised else 'nothing of the kind'}"
            )
    for test in described.get("data_tests", []):
        rule = test.get("dbt_utils.expression_is_true") if isinstance(test, dict) else None
        expression = (rule or {}).get("arguments", {}).get("expression")
        if expression is not None and expression != f">= {column.minimum}":
            yield f"{place}: tests {expression!r}, contract {dataset} has the minimum {column.minimum}"


def _staging(product: Product) -> Iterator[str]:
    for source in product.sources:
        dataset, stem = f"shop.{source}", f"dbt/models/staging/stg_{source}"
        contract = contracts.load(dataset)
        for what, names in ((f"{stem}.yml", _described(stem)), (f"{stem}.sql", _selected(stem))):
            given = {name for name in names if name not in LANDING}
            given -= {RECORDED} - {contract.recorded}  # landing adds it where the shop has none
            for column in contract.columns:
                alternatives = {
                    column,
                    *(n for r in contract.renames for n in (r.old, r.new) if column in (r.old, r.new)),
                }
                if not alternatives & given:
                    yield f"{what}: lacks {column}, which contract {dataset} promises"
                given -= alternatives
            yield from (f"{what}: has {name}, which contract {dataset} does not promise" for name in sorted(given))


def _features(product: Product) -> Iterator[str]:
    dataset, file = product.features, product.features_sql
    if not file:  # its features are no SQL
        return
    columns = contracts.load(dataset).columns
    given = column_lineage.outputs((ROOT / file).read_text())
    yield from _same_names(file, given, dataset, columns)
    for name in columns.keys() & given.keys():
        cast = re.match(r"CAST\(.*\bAS\s+(\w+)\s*\)$", " ".join(given[name].split()), re.IGNORECASE)
        if cast and cast.group(1).lower() != columns[name].type:
            yield f"{file}: {name} is {cast.group(1).lower()}, contract {dataset} says {columns[name].type}"


def _feast(product: Product) -> Iterator[str]:
    file = product.definitions
    for view, dataset in product.view_tables.items():
        columns = contracts.load(dataset).columns
        for name, (kind, description) in feast_fields((ROOT / file).read_text(), view).items():
            place = f"{file}: {view}'s {name}" if len(product.view_tables) > 1 else f"{file}: {name}"
            if name not in columns:
                yield f"{place} is not in contract {dataset}"
            elif FEAST.get(kind) != columns[name].type:
                yield f"{place} is {kind}, contract {dataset} says {columns[name].type}"
            elif description != columns[name].description:
                yield f"{place}: description {description!r}, contract {dataset} says {columns[name].description!r}"


CHECKS: dict[str, Callable[[Product], Iterable[str]]] = {
    "contracts": _files,
    "dbt marts": _marts,
    "dbt staging": _staging,
    "feature SQL": _features,
    "feature definitions": _feast,
}


def feast_fields(source: str, view: str) -> dict[str, tuple[str, str]]:
    """Type and description of each Field of a view, read without loading Feast; its variable has the view's name.

    The Fields stand in the view, or in a list that it names.
    """
    assigned = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assign)]
    values = {getattr(node.targets[0], "id", ""): node.value for node in assigned}
    if view in values:
        named = [values[n.id] for n in ast.walk(values[view]) if isinstance(n, ast.Name) and n.id in values]
        for value in (values[view], *named):
            fields = [n for n in ast.walk(value) if isinstance(n, ast.Call) and _called(n) == "Field"]
            if not fields:
                continue
            made = [{k.arg: k.value for k in field.keywords} for field in fields]
            return {
                str(ast.literal_eval(m["name"])): (
                    ast.unparse(m["dtype"]),
                    str(ast.literal_eval(m["description"])) if "description" in m else "",
                )
                for m in made
            }
    raise ContractError(f"the feature definitions have no view {view}")


def _called(node: ast.Call) -> str:
    return str(getattr(node.func, "id", ""))


def _described(stem: str) -> dict[str, dict[str, Any]]:
    """The columns of a model's .yml, by name."""
    import yaml

    model = yaml.safe_load((ROOT / f"{stem}.yml").read_text())["models"][0]
    return {column["name"]: column for column in model["columns"]}


def _selected(stem: str) -> dict[str, str]:
    """The columns that a model gives: of its last SELECT, or of the CTE that it passes on whole."""
    from sqlglot import exp, parse_one

    sql = (ROOT / f"{stem}.sql").read_text()
    plain = re.sub(r"\{\{\s*config\(.*?\)\s*\}\}|\{%.*?%\}|\{#.*?#\}", "", sql, flags=re.DOTALL)
    tree = parse_one(re.sub(r"\{\{.*?\}\}", "relation", plain, flags=re.DOTALL), dialect=column_lineage.DIALECT)
    select = tree
    while isinstance(select, exp.Select) and isinstance(select.expressions[0], exp.Star):
        name = select.find(exp.Table)
        select = next(cte.this for cte in tree.find_all(exp.CTE) if name is not None and cte.alias == name.name)
    return {item.alias_or_name: item.sql() for item in select.expressions}


def _same_names(place: str, given: Iterable[str], dataset: str, columns: Mapping[str, Column]) -> Iterator[str]:
    names = set(given)
    yield from (f"{place}: lacks {name}, which contract {dataset} promises" for name in columns if name not in names)
    yield from (f"{place}: has {name}, which is not in contract {dataset}" for name in sorted(names - set(columns)))
