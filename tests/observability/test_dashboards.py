"""The committed dashboards: what the code gives, in names that the schema has, with limits that the contracts set."""

from __future__ import annotations

import json
import re
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from observability import dataset_metrics
from observability.grafana import generate
from observability.grafana import limits as promises
from observability.grafana.answers import panels
from plumbline.metrics import SCHEMA
from plumbline.product import Product
from plumbline.settings import ROOT, settings
from products import ALL
from products.churn import CHURN
from products.images import IMAGES

BOARDS = {path.name: json.loads(path.read_text()) for path in generate.rendered()}
PROMQL = {
    "and",
    "bool",
    "by",
    "changes",
    "count",
    "histogram_quantile",
    "ignoring",
    "increase",
    "label_join",
    "max",
    "or",
    "rate",
    "sum",
    "topk",
    "unless",
    "vector",
}


def queries(board: dict[str, Any]) -> list[str]:
    asked = [target["expr"] for panel in panels(board) for target in panel["targets"]]
    return asked + [mark["expr"] for mark in board["annotations"]["list"]]


def names(expr: str) -> set[str]:
    """The metrics that an expression reads: its words, without strings, label lists, durations and functions."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\b(by|ignoring|on)\s*\([^)]*\)', " ", expr)
    return set(re.findall(r"\b[A-Za-z_][A-Za-z0-9_]*\b", bare)) - PROMQL


def test_the_page_counts_panels_and_queries() -> None:
    shown = [panel for board in BOARDS.values() for panel in panels(board)]
    asked = sum(len(panel["targets"]) for panel in shown)
    assert f"the {asked} queries of the {len(shown)} panels" in (ROOT / "docs" / "dashboards.md").read_text()


def test_what_is_committed_is_what_the_code_gives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert generate.stale() == []
    monkeypatch.setattr(generate, "FOLDER", ROOT / "observability" / "elsewhere")
    assert generate.stale() == [f"observability/elsewhere/{name}" for name in generate.BOARDS]


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_every_query_reads_metrics_of_the_schema(board: dict[str, Any]) -> None:
    known = dataset_metrics.series()
    for expr in queries(board):
        assert names(expr), expr
        assert names(expr) <= known, f"{expr}: {names(expr) - known} is not in plumbline.metrics"


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_a_board_is_whole(board: dict[str, Any]) -> None:
    """Ids once, nothing overlaps or sticks out, each panel says what it answers, no query by two names."""
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert len({panel["title"] for panel in board["panels"]}) == len(board["panels"])
    for panel in panels(board):
        assert "?" in panel["description"] or "." in panel["description"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        refs = [target["refId"] for target in panel["targets"]]
        assert len(refs) == len(set(refs)) <= 26
    assert {mark["name"] for mark in board["annotations"]["list"]} == {"Releases", "Rollouts"}
    assert {"Lineage", "Report", "Runbooks"} <= {link["title"] for link in board["links"]}


@pytest.mark.parametrize("product", ALL, ids=lambda product: product.name)
def test_a_board_shows_its_product_alone(product: Product) -> None:
    """Each series that has the label product is read with this one's; tables' series and others' have none."""
    of_product = {metric.name for metric in SCHEMA if "product" in metric.labels}
    read: set[str] = set()
    for board in (json.loads(path.read_text()) for path in generate.rendered() if path.parent.name == product.name):
        for expr in queries(board):
            for word, labels in re.findall(r"\b([a-z_]+)\b(?:\{([^}]*)\})?", re.sub(r'"\$[^"]*"', "", expr)):
                if (name := re.sub("_(bucket|sum|count)$", "", word)) in of_product:
                    assert f'product="{product.name}"' in labels, f"{word} in {expr}"
                    read.add(name)
    assert len(read) > 15


def test_the_images_boards_show_what_only_pictures_have() -> None:
    shown = {name for board in ("images.json", "images-pipeline.json") for expr in queries(BOARDS[board])
             for name in names(expr)}  # fmt: skip
    assert {"quarantined_pictures", "near_duplicate_groups", "dataset_rows", "predictions_refused_total"} <= shown
    titles = {panel["title"] for panel in panels(BOARDS["images.json"])}
    assert {"Latency by image_id", "Latency by image"} <= titles, "each input has a promise of its own"
    states = next(p for p in panels(BOARDS["images-pipeline.json"]) if p["title"] == "State of the daily run")
    assert [target["legendFormat"] for target in states["targets"]] == list(IMAGES.daily_stages)


def test_every_kpi_says_that_it_is_simulated() -> None:
    kpis = {"conversion_rate", "call_center_load", "retained_customers", "avg_handle_time"}
    shown = set()
    for panel in panels(BOARDS["churn.json"]):
        if found := kpis & {name for target in panel["targets"] for name in names(target["expr"])}:
            shown |= found
            assert "simulated" in panel["title"]
            assert panel["description"].startswith("SIMULATED")
    assert shown == kpis
    assert all("Simulated" in dataset_metrics.known()[name].help for name in kpis)


def test_limits_come_from_the_contracts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "contracts"
    shutil.copytree(ROOT / "contracts", folder)
    path = folder / "features.customers.odcs.yaml"
    path.write_text(path.read_text().replace('"00:05"', '"06:30"').replace("percent: 99.5", "percent: 99.0"))
    assert (promises.oldest(CHURN), promises.late_days(CHURN)) == (timedelta(hours=24, minutes=5), 1.0)
    assert promises.oldest(IMAGES) is None, "nobody waits for pictures by the day"
    monkeypatch.setenv("PLUMBLINE_CONTRACTS", str(folder))
    settings.cache_clear()
    try:
        assert (promises.oldest(CHURN), promises.late_days(CHURN)) == (timedelta(hours=30, minutes=30), 2.0)
        assert generate.stale() == [
            "observability/grafana/dashboards/churn/churn.json",
            "observability/grafana/dashboards/churn/pipeline.json",
        ]
    finally:
        monkeypatch.undo()
        settings.cache_clear()


def test_provisioning_names_what_is_there() -> None:
    folder = ROOT / "observability" / "grafana" / "provisioning"
    source = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"][0]
    assert source["type"] == "prometheus"
    assert source["url"] == "${PROMETHEUS_URL}", "no address and no password in the repository"
    providers = [
        yaml.safe_load((folder / "dashboards" / f"{product.name}.yml").read_text())["providers"][0] for product in ALL
    ]
    for provider, product in zip(providers, ALL, strict=True):
        assert provider["type"] == "file"
        assert provider["allowUiUpdates"] is False
        assert provider["options"]["path"] == f"/etc/grafana/dashboards/{product.name}"
    assert len({provider["name"] for provider in providers}) == len(ALL)
    uids = {board["uid"] for board in BOARDS.values()}
    linked = {
        link["url"].removeprefix("/d/") for board in BOARDS.values() for link in board["links"] if "/d/" in link["url"]
    }
    assert linked == uids, "the boards lead to each other"
