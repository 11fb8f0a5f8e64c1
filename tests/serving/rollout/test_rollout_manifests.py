"""The Rollout, the AnalysisTemplate and the VirtualService as files: read whole, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from plumbline.product import Product
from products import ALL
from products.churn import CHURN
from serving import shelf
from serving.rollout import analysis, envoy, manifests
from serving.rollout.analysis import AnalysisRun
from serving.rollout.conditions import NotEvaluated, condition
from serving.rollout.driver import LAPTOP
from serving.rollout.errors import RolloutError
from serving.rollout.manifests import Analysis, Metric, Pause, SetWeight
from serving.rollout.prometheus import QueryError

ROLLOUT, KPIS = manifests.rollout_file(CHURN), manifests.kpis(CHURN)
GIVEN = {"canary-hash": "new", "stable-hash": "old", "canary-service": "churn-canary", "stable-service": "churn-stable"}


def shipped() -> dict[str, Any]:
    return manifests.read(manifests.virtual_service(CHURN), "VirtualService")


def given(product: Product) -> dict[str, str]:
    """The args of an analysis that have no default."""
    return {arg: value.replace(CHURN.name, product.name) for arg, value in GIVEN.items()}


@pytest.mark.parametrize("product", ALL, ids=lambda product: product.name)
def test_the_shipped_rollouts_go_10_25_50_with_an_analysis_behind_each(product: Product) -> None:
    shipped = manifests.rollout(manifests.rollout_file(product))
    steps = shipped.steps
    assert [step.weight for step in steps if isinstance(step, SetWeight)] == [10, 25, 50]
    for weight, behind in zip(steps[::2], steps[1::2], strict=True):
        assert isinstance(weight, SetWeight) and isinstance(behind, Analysis)
        assert behind.templates == tuple(manifests.templates(product))
        assert behind.hashes == {"canary-hash": "canary", "stable-hash": "stable"}
        assert set(behind.hashes) | set(behind.values) == set(GIVEN)
        assert dict(behind.values) == {"canary-service": shipped.canary, "stable-service": shipped.stable}
    declared = manifests.read(manifests.virtual_service(product), "VirtualService")
    assert (declared["metadata"]["name"], declared["spec"]["hosts"]) == (product.host, [product.host])
    assert envoy.weights(declared, shipped.route) == {shipped.stable: 100, shipped.canary: 0}


@pytest.mark.parametrize("product", ALL, ids=lambda product: product.name)
def test_each_kpi_of_a_product_has_its_guardrail_at_its_share_of_alpha(product: Product) -> None:
    metrics = manifests.metrics(
        [manifests.kpis(product)], {name: GIVEN[name] for name in ("canary-hash", "stable-hash")}
    )
    assert [metric.name.replace("-", "_") for metric in metrics] == [kpi.name for kpi in product.kpis]
    for metric, kpi in zip(metrics, product.kpis, strict=True):
        assert f'canary_kpi_p_value{{kpi="{kpi.name}",canary="new",stable="old"' in metric.query
        assert metric.success and metric.success.text == f"len(result) > 0 && result[0] > 0.05 / {len(product.kpis)}"
    assert {kpi.event for kpi in product.kpis} <= set(shelf.outcomes(product).schema().names)


@pytest.mark.parametrize("product", ALL, ids=lambda product: product.name)
def test_a_laptop_changes_times_and_counts_of_the_shipped_templates_and_no_threshold(product: Product) -> None:
    paths = list(manifests.templates(product).values())
    cluster = manifests.metrics(paths, given(product))
    laptop = manifests.metrics(paths, {**given(product), **LAPTOP})
    assert [m.name for m in laptop] == [m.name for m in cluster]
    for ours, theirs in zip(laptop, cluster, strict=True):
        if ours.name != "canary-traffic":  # how many requests a window must have, and the window is shorter
            assert ours.success and theirs.success and ours.success.text == theirs.success.text
        assert (ours.failure_limit, ours.error_limit) == (theirs.failure_limit, theirs.error_limit)
        assert "{{" not in ours.query
        assert ours.initial_delay < theirs.initial_delay


@pytest.mark.parametrize(
    ("text", "result", "holds"),
    [
        ("len(result) > 0 && result[0] <= 0.05 / 2", [0.025], True),
        ("len(result) > 0 && result[0] <= 0.05 / 2", [0.03], False),
        ("len(result) > 0 && result[0] <= 1", [], False),
        ("len(result) == 0 || isNaN(result[0])", [float("nan")], True),
        ("!(result[0] != 2)", [2.0], True),
        ("result >= -1 * 2", -2.0, True),
        ("result[0] < 1", [float("nan")], False),
    ],
)
def test_conditions_mean_what_they_mean_to_argo(text: str, result: list[float] | float, holds: bool) -> None:
    assert condition(text).holds(result) is holds


@pytest.mark.parametrize("text", ["result[0] < 1", "len(result) + 1"])
def test_a_condition_that_cannot_be_answered_is_an_error_not_a_verdict(text: str) -> None:
    with pytest.raises(NotEvaluated):
        condition(text).holds([])


@pytest.mark.parametrize(
    "text", ["__import__('os')", "result.x", "all(result, {# < 1})", "[1][0]", "result[0] in [1]", ""]
)
def test_other_expressions_are_refused(text: str) -> None:
    with pytest.raises(RolloutError, match="condition"):
        condition(text)


@pytest.mark.parametrize(("text", "value"), [("30s", 30), ("1m30s", 90), ("500ms", 0.5), (10, 10), ("2h", 7200)])
def test_durations(text: str | int, value: float) -> None:
    assert manifests.seconds(text) == value


@pytest.mark.parametrize("text", ["soon", "30 s", "s", "1m30"])
def test_no_durations(text: str) -> None:
    with pytest.raises(RolloutError, match="no duration"):
        manifests.seconds(text)


def metric(**more: Any) -> Metric:
    given: dict[str, Any] = {"success": condition("result[0] < 1"), "failure": None, "interval": 1.0, "count": 3}
    return Metric("m", "http://p", "q", **{**given, **more})


def run_of(answers: list[Any], **more: Any) -> AnalysisRun:
    """An analysis whose queries are answered by these, one after the other; then its phase is asked for."""
    waiting = iter(answers)

    def ask(address: str, query: str) -> Any:
        answer = next(waiting)
        if isinstance(answer, Exception):
            raise answer
        return answer

    run = AnalysisRun([metric(**more)], 0.0, ask)
    for second in range(len(answers)):
        run.step(float(second))
    return run


GOOD, BAD, NONE, AWAY = [0.5], [2.0], [], QueryError("away")
UNSURE = {"success": condition("result[0] < 1"), "failure": condition("result[0] > 10")}


@pytest.mark.parametrize(
    ("answers", "more", "phase"),
    [
        ([GOOD, GOOD], {}, "Running"),
        ([GOOD, GOOD, GOOD], {}, "Successful"),
        ([GOOD, BAD], {}, "Failed"),
        ([GOOD, BAD, GOOD], {"failure_limit": 1}, "Successful"),
        ([BAD, GOOD, BAD], {"failure_limit": 1}, "Failed"),
        ([AWAY, GOOD, GOOD, GOOD], {"error_limit": 1}, "Successful"),  # an error is not counted
        ([AWAY, GOOD, AWAY, GOOD, GOOD], {"error_limit": 1}, "Successful"),  # nor two that are not in a row
        ([GOOD, AWAY, AWAY], {"error_limit": 1}, "Error"),
        ([AWAY] * 5, {}, "Error"),
        ([NONE], {"error_limit": 0}, "Error"),  # result[0] of nothing
        ([NONE], {"success": condition("len(result) > 0 && result[0] < 1")}, "Failed"),
        ([BAD], {**UNSURE}, "Inconclusive"),
        ([BAD, GOOD, GOOD], {**UNSURE, "inconclusive_limit": 1}, "Successful"),
        ([[11.0]], {**UNSURE}, "Failed"),
        ([GOOD], {"count": 1, "interval": None}, "Successful"),
    ],
)
def test_an_analysis_ends_by_argos_rules(answers: list[Any], more: dict[str, Any], phase: str) -> None:
    assert run_of(answers, **more).phase == phase


def test_the_first_metric_that_fails_ends_the_analysis_and_says_what_and_how_often() -> None:
    others = [metric(), Metric("other", "http://p", "q", condition("result[0] < 9"), None, count=9, interval=1.0)]
    run = AnalysisRun(others, 0.0, lambda address, query: BAD)
    assert [taken.metric for taken in run.step(0.0)] == ["m"]
    assert run.phase == "Failed" and run.why == "m: 2, expected result[0] < 1 (1 bad, 0 allowed)"
    assert run.step(9.0) == []


def test_nothing_is_measured_before_its_delay_or_between_intervals() -> None:
    run = AnalysisRun([metric(initial_delay=5.0, interval=2.0)], 100.0, lambda address, query: GOOD)
    assert [len(run.step(at)) for at in (104.9, 105.0, 106.9, 107.0)] == [0, 1, 0, 1]
    assert analysis.measure(metric(), lambda address, query: 0.5).phase == "Error"  # a scalar has no [0]


def test_routes_split_as_the_virtual_service_says() -> None:
    route = envoy.routes(shipped())["virtual_hosts"][0]["routes"][0]
    assert route["route"]["weighted_clusters"]["clusters"] == [
        {"name": "churn-stable", "weight": 100},
        {"name": "churn-canary", "weight": 0},
    ]
    assert route["route"]["timeout"] == "3s"
    policy = route["route"]["retry_policy"]
    assert {policy["retry_on"], policy["num_retries"]} == {"connect-failure,refused-stream", 1}
    assert [told["name"] for told in policy["retry_host_predicate"]] == ["envoy.retry_host_predicates.previous_hosts"]


def test_weights_change_and_nothing_else_does() -> None:
    changed = envoy.with_weights(shipped(), {"churn-stable": 75, "churn-canary": 25})
    assert envoy.weights(changed) == {"churn-stable": 75, "churn-canary": 25}
    assert envoy.with_weights(changed, envoy.weights(shipped())) == shipped()


def altered(**fields: Any) -> dict[str, Any]:
    made = shipped()
    made["spec"]["http"][0] |= fields
    return made


@pytest.mark.parametrize(
    ("virtual_service", "message"),
    [
        ({"metadata": {"name": "v"}, "spec": {}}, "VirtualService v: spec.http has no route"),
        (altered(fault={"abort": {}}), "fault is not translated for Envoy"),
        (altered(match=[{"headers": {}}]), "only one `uri.prefix` is translated"),
        (altered(route=[{"destination": {"host": "a"}, "weight": 90}]), "add up to 90, expected 100"),
        (altered(route=[]), "no destination"),
    ],
)
def test_what_envoy_would_do_otherwise_than_the_mesh_is_refused(virtual_service: Any, message: str) -> None:
    with pytest.raises(RolloutError, match=message):
        envoy.routes(virtual_service)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": [{"setHeaderRoute": {}}]}, "is not followed; known: setWeight, pause, analysis"),
        ({"steps": []}, "no steps"),
        ({"steps": [{"setWeight": 10, "pause": {}}]}, "is not followed; known: setWeight, pause, analysis"),
        ({"steps": [{"analysis": {"templates": [], "dryRun": []}}]}, "analysis: dryRun is not followed"),
        ({"dynamicStableScale": True}, "strategy.canary: dynamicStableScale is not followed"),
        ({"analysis": {"templates": []}}, "strategy.canary: analysis is not followed"),
        (None, "spec.strategy.canary is missing"),
    ],
)
def test_a_rollout_that_cannot_be_followed_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    made = manifests.read(ROLLOUT, "Rollout")
    made["spec"]["strategy"] = (
        {"blueGreen": {}} if change is None else {"canary": made["spec"]["strategy"]["canary"] | change}
    )
    path = tmp_path / "rollout.yaml"
    path.write_text(yaml.safe_dump(made))
    with pytest.raises(RolloutError, match=message):
        manifests.rollout(path)


@pytest.mark.parametrize(
    ("where", "field"), [("template", "dryRun"), ("metric", "consecutiveSuccessLimit"), ("provider", "rangeQuery")]
)
def test_a_template_that_cannot_be_followed_is_refused(tmp_path: Path, where: str, field: str) -> None:
    made = manifests.read(manifests.GUARDRAILS, "AnalysisTemplate")
    metric = made["spec"]["metrics"][0]
    {"template": made["spec"], "metric": metric, "provider": metric["provider"]["prometheus"]}[where][field] = {}
    path = tmp_path / "template.yaml"
    path.write_text(yaml.safe_dump(made))
    with pytest.raises(RolloutError, match=f"{field} is not followed here"):
        manifests.metrics([path], GIVEN)


def kpis(folder: Path, **changed: Any) -> Path:
    """The shipped template of KPIs with these fields of its spec."""
    made = manifests.read(KPIS, "AnalysisTemplate")
    path = folder / "kpis.yaml"
    path.write_text(yaml.safe_dump({**made, "spec": {**made["spec"], **changed}}))
    return path


def test_what_argo_does_not_merge_is_refused(tmp_path: Path) -> None:
    args = manifests.read(KPIS, "AnalysisTemplate")["spec"]["args"]
    other = [{**arg, "value": "3m"} if arg["name"] == "warm-up" else arg for arg in args]
    with pytest.raises(RolloutError, match=r"kpis.yaml: the arg warm-up is '3m', and '2m' in another template"):
        manifests.metrics([manifests.GUARDRAILS, kpis(tmp_path, args=other)], GIVEN)
    twice = manifests.read(manifests.GUARDRAILS, "AnalysisTemplate")["spec"]["metrics"][:1]
    with pytest.raises(RolloutError, match="more than one metric canary-traffic"):
        manifests.metrics([manifests.GUARDRAILS, kpis(tmp_path, metrics=twice)], GIVEN)


def test_a_default_of_one_template_is_the_arg_of_both(tmp_path: Path) -> None:
    args = manifests.read(KPIS, "AnalysisTemplate")["spec"]["args"]
    bare = kpis(tmp_path, args=[{"name": arg["name"]} if arg["name"] == "warm-up" else arg for arg in args])
    for paths in ([manifests.GUARDRAILS, bare], [bare, manifests.GUARDRAILS]):
        assert {metric.initial_delay for metric in manifests.metrics(paths, GIVEN)} == {120}


def test_a_template_that_is_not_at_hand_is_refused() -> None:
    manifests.named(manifests.rollout(ROLLOUT), manifests.templates(CHURN))
    with pytest.raises(RolloutError, match="name the template churn-kpis; known: churn-guardrails, other"):
        manifests.named(manifests.rollout(ROLLOUT), ["churn-guardrails", "other"])


def test_pauses_are_steps(tmp_path: Path) -> None:
    made = manifests.read(ROLLOUT, "Rollout")
    made["spec"]["strategy"]["canary"]["steps"] = [{"pause": {"duration": "1m"}}, {"pause": {}}]
    path = tmp_path / "rollout.yaml"
    path.write_text(yaml.safe_dump(made))
    assert manifests.rollout(path).steps == (Pause(60.0), Pause(None))


def test_a_file_that_is_not_there_or_no_yaml_is_named(tmp_path: Path) -> None:
    for name, text in (("none.yaml", None), ("bad.yaml", "{"), ("other.yaml", "kind: Pod")):
        path = tmp_path / name
        if text is not None:
            path.write_text(text)
        with pytest.raises(RolloutError, match=name):
            manifests.rollout(path)


def test_a_cluster_gets_its_address_before_its_weight_and_loses_it_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    write = envoy.files.write_whole

    def written(path: Path, text: str, mode: int = 0o644) -> None:
        order.append(path.name)
        write(path, text, mode)

    monkeypatch.setattr(envoy.files, "write_whole", written)
    at = ("127.0.0.1", 1)
    envoy.write(tmp_path, shipped(), {"churn-stable": [at], "churn-canary": [at]})
    envoy.write(tmp_path, shipped(), {"churn-canary": [], "churn-stable": [at]})
    stable, canary = (envoy.EDS.format(name) for name in ("churn-stable", "churn-canary"))
    assert order == [stable, canary, envoy.RDS, stable, envoy.RDS, canary]
