"""The AnalysisTemplates: only names of the schema, queries that Prometheus takes, no way to pass without data."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from observability import dataset_metrics
from plumbline.product import Product
from plumbline.settings import ROOT
from products import ALL
from products.churn import CHURN
from serving.rollout import manifests

Tool = Callable[[str], Path]
SPECS: dict[str, dict[str, Any]] = {
    path: yaml.safe_load((ROOT / path).read_text())["spec"]
    for path in ("k8s/predictor/guardrails.yaml", "k8s/churn/base/kpis.yaml")
}
SERVICES = {"canary-service": "churn-canary", "stable-service": "churn-stable"}
ARGS: dict[str, str] = {"canary-hash": "c4n4ry", "stable-hash": "5t4b1e", **SERVICES} | manifests.defaults(
    manifests.templates(CHURN).values()
)
METRICS: dict[str, Any] = {metric["name"]: metric for spec in SPECS.values() for metric in spec["metrics"]}
FUNCTIONS = {"sum", "min", "max", "rate", "increase", "delta", "histogram_quantile", "vector", "by", "le", "or"}
HASHES = {"canary", "stable", "revision"}


def filled(text: str, args: dict[str, str] = ARGS) -> str:
    """The text with the args in their places, as the controller puts them there."""
    return re.sub(r"\{\{ *args\.([a-z0-9-]+) *\}\}", lambda found: args[found[1]], text)


def query(name: str) -> str:
    return filled(METRICS[name]["provider"]["prometheus"]["query"])


def selectors(expr: str) -> list[tuple[str, dict[str, str]]]:
    """Every series that an expression reads: its name, and its matchers' values by their labels."""
    found = re.findall(r"([a-z_][a-z0-9_]*)\{([^}]*)\}", expr)
    return [(name, dict(re.findall(r'(\w+)=~?"([^"]*)"', labels))) for name, labels in found]


@pytest.mark.parametrize("name", METRICS)
def test_a_guardrail_reads_names_and_labels_of_the_schema(name: str) -> None:
    expr = query(name)
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]', " ", expr)
    read = set(re.findall(r"[A-Za-z_]\w*", bare)) - FUNCTIONS
    assert read == {series for series, _ in selectors(expr)} and read <= dataset_metrics.series()
    for series, labels in selectors(expr):
        ours = dataset_metrics.known().get(series)
        targets = {"namespace", "revision"} if series.startswith("pct_missing") else {"namespace"}
        istio = {"destination_service_name", "destination_service_namespace", "response_code"}
        assert set(labels) <= (istio if series.startswith("istio") else targets | set(ours.labels if ours else ()))
        assert {labels[label] for label in HASHES & set(labels)} <= {"c4n4ry", "5t4b1e"}


def test_prometheus_takes_every_query(binary: Tool, tmp_path: Path) -> None:
    rules = [{"record": f"guardrail:{number}", "expr": query(name)} for number, name in enumerate(METRICS)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "guardrails", "rules": rules}]}))
    done = subprocess.run([binary("promtool"), "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", METRICS)
def test_what_cannot_be_read_never_passes(name: str) -> None:
    metric = METRICS[name]
    assert metric["successCondition"].startswith("len(result) > 0 && result[0] ")
    assert not {"failureCondition", "inconclusiveLimit"} & set(metric), "a reading would be inconclusive: a mere pause"
    assert metric["failureLimit"] == metric["consecutiveErrorLimit"] == "{{args.failures}}"
    assert int(ARGS["count"]) > int(ARGS["failures"]) + 1
    timing = {key: filled(metric[key]) for key in ("initialDelay", "interval", "count")}
    assert timing == {"initialDelay": "2m", "interval": "30s", "count": "10"}


@pytest.mark.parametrize("path", SPECS)
def test_every_arg_is_used_and_every_used_one_is_declared(path: str) -> None:
    used = set(re.findall(r"\{\{ *args\.([a-z0-9-]+) *\}\}", yaml.safe_dump(SPECS[path]["metrics"])))
    for_the_judge = {"effect"} if path.endswith("kpis.yaml") else set()
    assert used | for_the_judge == {arg["name"] for arg in SPECS[path]["args"]}


@pytest.mark.parametrize("product", ALL, ids=lambda product: product.name)
def test_a_product_s_kpis_are_its_guardrails_alike_but_for_their_names(product: Product) -> None:
    spec = manifests.read(manifests.kpis(product), "AnalysisTemplate")["spec"]
    churns = SPECS["k8s/churn/base/kpis.yaml"]
    assert spec["args"] == churns["args"]
    pattern = churns["metrics"][0]
    for kpi, metric in zip(product.kpis, spec["metrics"], strict=True):
        first = CHURN.kpis[0].name
        asked = pattern["provider"]["prometheus"]["query"].replace(first, kpi.name)
        assert metric["provider"]["prometheus"]["query"] == asked
        assert metric["name"] == kpi.name.replace("_", "-")
        assert metric["successCondition"].endswith(f"> {{{{args.alpha}}}} / {len(product.kpis)}"), "alpha is divided"
        assert {**metric, "name": "", "provider": {}} == {**pattern, "name": "", "provider": {}}


def asked(binary: Tool, folder: Path, series: dict[str, str], wanted: dict[str, list[float]]) -> str:
    """What promtool says to the queries ten minutes into those series: nothing when they give what is wanted."""
    tests = [
        {
            "expr": f"round({query(name)}, 0.001)",
            "eval_time": "10m",
            "exp_samples": [{"labels": "{}", "value": value} for value in values],
        }
        for name, values in wanted.items()
    ]
    given = [{"series": name, "values": values} for name, values in series.items()]
    file = folder / "test.yml"
    group = {"interval": "15s", "input_series": given, "promql_expr_test": tests}
    file.write_text(yaml.safe_dump({"evaluation_interval": "15s", "tests": [group]}))
    done = subprocess.run([binary("promtool"), "test", "rules", file], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def traffic(side: str, per_step: int, code: int = 200) -> dict[str, str]:
    labels = f'destination_service_name="churn-{side}",response_code="{code}"'
    return {f"istio_requests_total{{{labels}}}": f"0+{per_step}x40"}


def latency(side: str, within_10: int, within_250: int) -> dict[str, str]:
    """Requests a step, by the two buckets that they end in."""
    name = f'istio_request_duration_milliseconds_bucket{{destination_service_name="churn-{side}",le='
    ends = {"10": within_10, "250": within_10 + within_250, "+Inf": within_10 + within_250}
    return {f'{name}"{end}"}}': f"0+{count}x40" for end, count in ends.items()}


def missing(revision: str, pct: int) -> dict[str, str]:
    labels = f'revision="{revision}",model_version="1"'
    return {
        f"pct_missing_features_sum{{{labels}}}": f"0+{20 * pct}x40",
        f"pct_missing_features_count{{{labels}}}": "0+20x40",
    }


def judged(p_value: float) -> dict[str, str]:
    pair = 'canary="c4n4ry",stable="5t4b1e"'
    told = {f"canary_score_psi{{{pair}}}": "0.04x40"}
    for kpi in ("conversion_rate", "call_center_load"):
        told[f'canary_kpi_p_value{{kpi="{kpi}",{pair}}}'] = f"{p_value}x40"
        told[f'canary_kpi_p_value{{kpi="{kpi}",canary="another",stable="5t4b1e"}}'] = "0.0001x40"
        told[f'canary_kpi_observations{{kpi="{kpi}",revision="c4n4ry"}}'] = "0+15x40"
    return told


def test_the_queries_say_what_they_mean(binary: Tool, tmp_path: Path) -> None:
    series = (
        traffic("canary", 18)
        | traffic("canary", 2, 503)
        | traffic("stable", 180)
        | latency("canary", 10, 10)
        | latency("stable", 100, 0)
        | missing("c4n4ry", 9)
        | missing("5t4b1e", 2)
        | judged(0.3)
    )
    wanted = {
        "canary-traffic": [20 * 8],
        "error-rate": [0.1],
        "latency-p99": [10 + 240 * 0.98 - 1.5 * 9.9],  # within buckets in proportion
        "missing-features": [7],
        "score-shift": [0.04],
        "outcomes-arrive": [15 * 8],
        "conversion-rate": [0.3],
        "call-center-load": [0.3],
    }
    assert set(wanted) == set(METRICS)
    assert asked(binary, tmp_path, series, wanted) == ""


def test_a_canary_without_an_error_has_an_error_rate(binary: Tool, tmp_path: Path) -> None:
    assert asked(binary, tmp_path, traffic("canary", 20), {"error-rate": [0]}) == ""


def test_without_a_canary_every_query_is_empty(binary: Tool, tmp_path: Path) -> None:
    series = traffic("stable", 180) | latency("stable", 100, 0) | missing("5t4b1e", 2)
    assert asked(binary, tmp_path, series, {name: [] for name in METRICS}) == ""
    assert asked(binary, tmp_path, series | traffic("canary", 20), {"canary-traffic": []}) != ""


def test_a_canary_that_nobody_asks_any_more_passes_none_of_them(binary: Tool, tmp_path: Path) -> None:
    series = dict.fromkeys(traffic("canary", 1), "0+20x4 80x40") | {
        name: values.replace("0+15x40", "150x40") for name, values in judged(0.3).items()
    }
    assert asked(binary, tmp_path, series, {"canary-traffic": [0.0], "outcomes-arrive": [0.0]}) == ""
    told = asked(binary, tmp_path, series, {"error-rate": []})
    assert "got: {} NaN" in told, "0 of 0 requests: no number, which is below no threshold"
