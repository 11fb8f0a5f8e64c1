"""The edges that lineage must show, from declarations alone: dbt's models, Feast's definitions, stages' declarations.

Nothing here looks at an event or needs a home, so that what was observed can be held against it.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from plumbline.product import Product
from plumbline.settings import ROOT

DBT = ROOT / "dbt"
APART = "business"
"""The folder of models that are no part of the daily run: `plumb kpis` builds them, and declares what from."""

REFERENCE = re.compile(r"\bref\(\s*['\"](\w+)['\"]\s*\)")
SOURCE = re.compile(r"\b(?:source|pinned|landed_before)\(\s*['\"](\w+)['\"]\s*,\s*['\"](\w+)['\"]\s*\)")
CONFIG = re.compile(r"\b(alias|schema|materialized)\s*=\s*['\"](\w+)['\"]")
COMMENT = re.compile(r"\{#.*?#\}|--[^\n]*", re.DOTALL)


@dataclass(frozen=True, order=True)
class Edge:
    """The dataset `target` is made from the dataset `source` by a job."""

    source: str
    job: str
    target: str

    def __str__(self) -> str:
        return f"{self.source} → {self.job} → {self.target}"


@cache
def edges(product: Product) -> tuple[Edge, ...]:
    """Every expected edge between datasets, sorted; a dataset that is carried on from itself has none to itself."""
    found = {
        Edge(source, product.job(stage.name), target)
        for stage in product.stages
        for target in stage.flows
        for source in marts(product).get(target, ())
    }
    for stage in product.stages:
        if stage.dag == product.by_hand:  # may happen, and is not expected
            continue
        for target, sources in stage.flows.items():
            found |= {Edge(source, product.job(stage.name), target) for source in sources if source != target}
    for view, table in feast_tables(product).items():  # what a view reads is what materialization reads
        if view not in product.streams:
            found |= {Edge(table, product.job("materialize"), target) for target in product.stage("materialize").flows}
    return tuple(sorted(found))


def downstream(product: Product, dataset: str) -> tuple[str, ...]:
    """All datasets that are made from this one, directly or not, nearest first; the predictor's endpoint is one."""
    found: list[str] = []
    waiting = [dataset]
    for current in waiting:
        for edge in edges(product):
            if edge.source == current and edge.target not in (dataset, *found):
                found.append(edge.target)
                waiting.append(edge.target)
    return tuple(found)


def affected_by(product: Product, dataset: str) -> tuple[str, ...]:
    """What on-call has to think of when a dataset is late or wrong: what is made of it, nearest first.

    A mart stands for its history too: one run writes both. The history itself is not named beside its mart.
    """
    own = [dataset, *(name for name in product.histories if name == f"{dataset}_history")]
    names = dict.fromkeys(name for each in own for name in downstream(product, each))
    return tuple(name for name in names if name not in product.histories)


def upstream(product: Product, dataset: str) -> tuple[Edge, ...]:
    """The expected edges that lead to a dataset, from the shop on, nearest first."""
    found: list[Edge] = []
    waiting = [dataset]
    for current in waiting:
        for edge in edges(product):
            if edge.target == current:
                found.append(edge)
                waiting += [edge.source] if edge.source not in waiting else []
    return tuple(found)


@cache
def marts(product: Product) -> dict[str, tuple[str, ...]]:
    """Each of the product's tables that dbt makes, with the tables outside dbt, or of other marts, that its SQL reads.

    Views are no tables: what a mart takes from staging it takes from what staging reads.
    """
    declared = {target for stage in product.stages for target in stage.flows}
    paths = (path for path in sorted((DBT / "models").rglob("*.sql")) if path.parent.name != APART)
    models = {path.stem: _model(path) for path in paths}

    def sources(name: str) -> set[str]:
        found = set(models[name]["sources"])
        for other in models[name]["refs"]:
            found |= {models[other]["table"]} if models[other]["is_table"] else sources(other)
        return found

    return {
        model["table"]: tuple(sorted(sources(name)))
        for name, model in models.items()
        if model["table"] in declared and model["is_table"]
    }


@cache
def incremental(product: Product) -> tuple[str, ...]:
    """Of the product's marts, those that dbt merges new rows into instead of making them anew."""
    paths = (path for path in sorted((DBT / "models").rglob("*.sql")) if path.parent.name != APART)
    found = {model["table"] for model in map(_model, paths) if model["is_incremental"]}
    return tuple(table for table in product.marts if table in found)


def of_manifest(manifest: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """What `marts` says, from dbt's own manifest."""
    nodes = {**manifest["nodes"], **manifest["sources"]}

    def named(node: dict[str, Any]) -> str:
        return f"{node['schema']}.{node.get('alias') or node['identifier']}"

    def sources(node: dict[str, Any]) -> set[str]:
        found = set[str]()
        for other in (nodes[key] for key in node["depends_on"]["nodes"] if key in nodes):
            is_view = other["resource_type"] == "model" and other["config"]["materialized"] == "view"
            found |= sources(other) if is_view else {named(other)}
        return found

    models = [node for node in manifest["nodes"].values() if node["resource_type"] == "model"]
    return {named(node): tuple(sorted(sources(node))) for node in models if node["config"]["materialized"] != "view"}


@cache
def feast_tables(product: Product) -> dict[str, str]:
    """Each feature view with the table that it reads, from the text of definitions.py: importing Feast takes seconds.

    None for a product without features. Raises ValueError for a view whose source is not a function that is called
    with the relation, or has it as its default.
    """
    path = ROOT / product.definitions
    if not path.exists():
        return {}
    tree = ast.parse(path.read_text())
    relations = {
        node.name: node.args.defaults[0].value
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.args.defaults and isinstance(node.args.defaults[0], ast.Constant)
    }
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "FeatureView":
            given = {word.arg: word.value for word in node.keywords}
            made_by = given["source"].func if isinstance(given["source"], ast.Call) else None
            if not isinstance(made_by, ast.Name) or made_by.id not in relations:
                raise ValueError(f"{path}: the source of {ast.unparse(given['name'])} names no table")
            named = given["source"].args if isinstance(given["source"], ast.Call) else []
            relation = ast.literal_eval(named[0]) if named else relations[made_by.id]
            found[str(ast.literal_eval(given["name"]))] = str(relation)
    return found


def _model(path: Path) -> dict[str, Any]:
    """A model's table or view, and what its text refers to: as dbt's folder settings and its own config say."""
    text = COMMENT.sub("", path.read_text())
    config = {**_settings(path), **dict(CONFIG.findall(text))}
    return {
        "table": f"{config['schema']}.{config.get('alias', path.stem)}",
        "is_table": config["materialized"] != "view",
        "is_incremental": config["materialized"] == "incremental",
        "refs": sorted(set(REFERENCE.findall(text))),
        "sources": sorted({f"{source}.{table}" for source, table in SOURCE.findall(text)}),
    }


def _settings(path: Path) -> dict[str, str]:
    """Schema and materialization of a model's folder in dbt_project.yml."""
    import yaml

    project = yaml.safe_load((DBT / "dbt_project.yml").read_text())
    level: dict[str, Any] = project["models"][project["name"]]
    found = {"schema": "", "materialized": "view"}
    for folder in ("", *path.relative_to(DBT / "models").parent.parts):
        level = level.get(folder, {}) if folder else level
        found |= {name: level[f"+{name}"] for name in found if f"+{name}" in level}
    return found
