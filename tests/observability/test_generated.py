"""Generated files: up to date, made of the schema's names only, taken by the real tools, routed where they must go."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from observability import (
    alertmanager,
    cluster_rules,
    dataset_metrics,
    generated,
    house_rules,
    promises,
    slo_rules,
    stack,
)
from observability.rule import Recording, alerts
from plumbline.contracts import contract as contracts
from plumbline.lineage.expected import affected_by
from plumbline.settings import ROOT, settings
from products import ALL

Tool = Callable[[str], Path]
WORDS = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
PROMQL = {
    "and", "or", "unless", "on", "by", "group", "sum", "max", "min", "avg", "count", "rate", "increase", "delta",
    "absent", "max_over_time", "present_over_time", "avg_over_time", "offset", "ignoring", "without", "vector",
    "changes", "time",
}  # fmt: skip


def names(expr: str) -> set[str]:
    """The metrics that an expression reads: its words, without strings, label matchers, windows and functions."""
    bare = re.sub(r'"[^"]*"|\[[^\]]*\]|\boffset \w+', " ", expr)
    bare = re.sub(r"\{[^}]*\}|\b(by|on|without|ignoring) \([^)]*\)", " ", bare)
    return {word for word in WORDS.findall(bare) if word not in PROMQL}


def all_groups() -> list[generated.Group]:
    return [*slo_rules.groups(), *house_rules.groups(), *cluster_rules.groups()]


def test_what_is_committed_is_what_contracts_and_code_give() -> None:
    for path, text in generated.texts().items():
        assert (ROOT / path).read_text() == text, f"{path}: `make generate`"
    assert "up to date" in generated.check()


def test_the_tools_take_what_is_generated(binary: Tool) -> None:
    binary("promtool"), binary("amtool")
    assert generated.check() == "generated files are up to date, promtool and amtool take them"


def test_a_file_that_was_edited_fails_the_check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(generated, "ROOT", tmp_path)
    assert set(generated.write()) == set(generated.texts())
    assert generated.write() == []
    edited = tmp_path / generated.RULES / "house.yml"
    edited.write_text(edited.read_text().replace("> 3600", "> 7200"))
    with pytest.raises(generated.Drifted, match=r"house.yml: not what contracts and code give; `make generate`"):
        generated.check()


def test_rules_read_only_what_the_schema_names() -> None:
    recorded = {rule.record for group in all_groups() for rule in group.rules if isinstance(rule, Recording)}
    read = {name for group in all_groups() for rule in group.rules for name in names(rule.expr)}
    assert read <= dataset_metrics.series() | recorded
    assert recorded.isdisjoint(dataset_metrics.series())


def test_a_name_outside_the_schema_is_found() -> None:
    assert names('sum by (a) (rate(made_up_total{b="c"}[5m])) > 3 unless on() up') == {"made_up_total", "up"}


def test_code_makes_only_what_the_schema_names() -> None:
    made: dict[str, Path] = {}
    for room in ("observability", "plumb", "plumbline", "serving", "training", "transform", "ingestion", "validation"):
        for path in (ROOT / room).rglob("*.py"):
            found = re.findall(r'\b(?:instrument|scrape\.add)\(\s*"([^"]+)"', path.read_text())
            made |= dict.fromkeys(found, path)
    assert len(made) > 20
    assert {name: path for name, path in made.items() if name not in dataset_metrics.known()} == {}


def test_a_new_contract_brings_its_metrics_and_its_alerts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    folder = tmp_path / "contracts"
    shutil.copytree(contracts.folder(), folder)
    text = (folder / "features.customers.odcs.yaml").read_text().replace("features.customers", "features.shops")
    (folder / "features.shops.odcs.yaml").write_text(text)
    monkeypatch.setenv("PLUMBLINE_CONTRACTS", str(folder))
    settings.cache_clear()
    try:
        assert "features_shops_freshness_seconds" in dataset_metrics.known()
        of = {
            (a.name, a.about["dataset"])
            for a in alerts(slo_rules.groups())
            if a.about.get("dataset") == "features.shops"
        }
        assert {name for name, _ in of} == {"DatasetLate", "DatasetUnknown", "LateDaysSpent", "DatasetIncomplete"}
    finally:
        monkeypatch.undo()
        settings.cache_clear()


def test_freshness_is_promised_in_seconds_that_the_stream_counts_by() -> None:
    contract = contracts.load("features.customer_activity")
    (latency,) = (level for level in contract.levels if level.property == "latency")
    promised = promises.fresh(contract)
    assert promised is not None
    assert (promised[0].objective, promised[1]) == (99, 5.0)
    other = replace(contract, levels=(replace(latency, value=7),))
    with pytest.raises(
        contracts.ContractError, match=r"customer_activity.*latency: expected one of 0.5, 1, .* 86400 s"
    ):
        promises.fresh(other)
    assert promises.fresh(replace(contract, levels=())) is None


def test_every_alert_says_what_on_call_needs() -> None:
    for alert in alerts(all_groups()):
        told = alert.as_dict()
        assert set(told["labels"]) >= {"severity", "owner", "channel", "affected"}
        assert (ROOT / told["annotations"]["runbook"]).is_file()
        if alert.name.startswith("Dataset"):
            affected = told["labels"]["affected"].split(", ")
            below = {name for product in ALL for name in affected_by(product, alert.about["dataset"])}
            assert set(affected) == (below or {"nothing downstream"})
            assert affected[0].startswith("endpoints.") or "endpoints." not in str(affected)


def test_only_what_customers_feel_pages() -> None:
    answers = [a for a in alerts(all_groups()) if a.about.get("dataset") == "serving.predictions"]
    assert answers and {a.severity for a in answers} == {"ticket"}
    assert {a.severity for a in alerts(all_groups()) if a.name == "DatasetLate"} == {"page"}


ROUTES = [
    ({"alertname": "DatasetLate", "severity": "page", "channel": "#shop-data"}, "page #shop-data"),
    ({"alertname": "GateFailed", "severity": "ticket", "channel": "#data-platform"}, "ticket #data-platform"),
    ({"alertname": "PredictorFailing", "severity": "page", "channel": "#ml-serving"}, "page #ml-serving"),
    ({"alertname": "PredictorSlow", "severity": "ticket", "channel": "#ml-serving"}, "ticket #ml-serving"),
    ({"alertname": "RolloutAborted", "severity": "ticket", "channel": "#ml-serving"}, "ticket #ml-serving"),
    ({"alertname": "KubePodCrashLooping", "severity": "warning"}, "ticket #data-platform"),
    ({"alertname": "Watchdog", "severity": "none", "channel": "#data-platform"}, "watchdog"),
    ({"alertname": "NobodysAlert", "severity": "page"}, "ticket #data-platform"),
]


@pytest.mark.parametrize(
    ("labels", "receiver"), ROUTES, ids=lambda value: value.get("alertname") if isinstance(value, dict) else ""
)
def test_amtool_routes_an_alert_to(labels: dict[str, str], receiver: str, binary: Tool) -> None:
    given = [f"{name}={value}" for name, value in labels.items()]
    where = ["--config.file", str(ROOT / generated.CONFIG), f"--verify.receivers={receiver}"]
    done = subprocess.run(
        [binary("amtool"), "config", "routes", "test", *where, *given], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_page_goes_to_pagerduty_and_to_slack_and_no_secret_is_in_the_file() -> None:
    document = yaml.safe_load((ROOT / generated.CONFIG).read_text())
    for receiver in document["receivers"]:
        assert ("pagerduty_configs" in receiver) == receiver["name"].startswith("page ")
        assert receiver["slack_configs"][0]["send_resolved"] is (receiver["name"] != "watchdog")
    text = (ROOT / generated.CONFIG).read_text()
    assert not re.search(r"api_url:|service_key:|routing_key:|hooks\.slack\.com", text)


def test_a_late_source_silences_what_is_made_of_it_and_nothing_else() -> None:
    rules = {
        rule["source_matchers"][1]: rule["target_matchers"][1]
        for rule in alertmanager.config()["inhibit_rules"]
        if rule["source_matchers"][0] == 'alertname="DatasetLate"'
    }
    assert rules['dataset="raw.customers"'] == 'dataset=~"analytics.customers|features.customers"'
    assert rules['dataset="raw.orders"'] == 'dataset=~"analytics.orders|analytics.returns|features.customers"'
    assert 'dataset="features.customers"' not in rules


def test_without_secrets_nobody_is_told_and_with_one_only_that_channel() -> None:
    nobody = alertmanager.config(only=set())
    assert all(set(receiver) == {"name"} for receiver in nobody["receivers"])
    one = alertmanager.config(only={"slack-shop-data"})
    assert [r["name"] for r in one["receivers"] if "slack_configs" in r] == ["page #shop-data", "ticket #shop-data"]


def test_prometheus_takes_its_configuration(binary: Tool, tmp_path: Path) -> None:
    file = tmp_path / "prometheus.yml"
    file.write_text(generated.dumped(stack.prometheus_config(9102, 9093, "5s"), "a test"))
    done = subprocess.run([binary("promtool"), "check", "config", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 rule files found" in done.stdout
