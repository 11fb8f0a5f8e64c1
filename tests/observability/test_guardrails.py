"""The AnalysisTemplate: only names of the schema, queries that Prometheus takes, no way to pass without data."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from plumbline import metrics
from plumbline.settings import ROOT

Tool = Callable[[str], Path]
FILE = ROOT / "k8s/churn/base/analysis-template.yaml"
SPEC: dict[str, Any] = yaml.safe_load(FILE.read_text())["spec"]
ARGS: dict[str, str] = {"canary-hash": "c4n4ry", "stable-hash": "5t4b1e"} | {
    arg["name"]: arg["value"] for arg in SPEC["args"] if "value" in arg
}
METRICS: dict[str, Any] = {metric["name"]: metric for metric in SPEC["metrics"]}
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
    assert read == {series for series, _ in selectors(expr)} and read <= metrics.series()
    for series, labels in selectors(expr):
        ours = metrics.known().get(series)
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


def test_every_arg_is_used_and_every_used_one_is_declared() -> None:
    text = yaml.safe_dump(SPEC["metrics"])
    used = set(re.findall(r"\{\{ *args\.([a-z0-9-]+) *\}\}", text))
    assert used | {"effect"} == set(ARGS) == {arg["name"] for arg in SPEC["args"]}


def test_alpha_is_divided_among_the_kpis() -> None:
    kpis = [name for name in METRICS if "canary_kpi_p_value" in query(name)]
    thresholds = {METRICS[name]["successCondition"].partition("> {{")[2] for name in kpis}
    assert len(kpis) == 2 and thresholds == {"args.alpha}} / 2"}
