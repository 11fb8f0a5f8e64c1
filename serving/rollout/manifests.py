"""A product's Rollout and AnalysisTemplates as files, and what of them a laptop follows.

The files are the ones that a cluster gets. A field that would change what a rollout does and that is not followed here
is refused: a laptop that quietly does something else would prove nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plumbline.product import Product
from plumbline.settings import ROOT
from serving.rollout.conditions import Condition, condition
from serving.rollout.errors import RolloutError

GUARDRAILS = ROOT / "k8s" / "predictor" / "guardrails.yaml"
"""The AnalysisTemplate that all products share."""

ERRORS_IN_A_ROW = 4
"""Argo's default of `consecutiveErrorLimit`."""

KNOWN = {
    "strategy.canary": {
        "stableService",
        "canaryService",
        "stableMetadata",
        "canaryMetadata",
        "trafficRouting",
        "steps",
        "scaleDownDelaySeconds",
        "abortScaleDownDelaySeconds",
    },
    "analysis": {"templates", "args"},
    "template": {"args", "metrics"},
    "metric": {
        "name",
        "interval",
        "initialDelay",
        "count",
        "successCondition",
        "failureCondition",
        "failureLimit",
        "inconclusiveLimit",
        "consecutiveErrorLimit",
        "provider",
    },
    "provider.prometheus": {"address", "query"},
}
"""The fields that are followed, by where they stand; any other is refused."""

HASHES = {"Latest": "canary", "Stable": "stable"}
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Metric:
    """One metric of a template with its args filled in; times in seconds. `count` None measures until it is stopped."""

    name: str
    address: str
    query: str
    success: Condition | None
    failure: Condition | None
    initial_delay: float = 0.0
    interval: float | None = None
    count: int | None = 1
    failure_limit: int = 0
    inconclusive_limit: int = 0
    error_limit: int = ERRORS_IN_A_ROW


@dataclass(frozen=True)
class SetWeight:
    """So many of 100 requests go to the canary from now on."""

    weight: int


@dataclass(frozen=True)
class Pause:
    """Seconds to wait, None until somebody promotes."""

    seconds: float | None


@dataclass(frozen=True)
class Analysis:
    """Templates by name, and the args that the step gives them: a value, or `canary` or `stable` for a revision."""

    templates: tuple[str, ...]
    values: Mapping[str, str]
    hashes: Mapping[str, str]


Step = SetWeight | Pause | Analysis


@dataclass(frozen=True)
class Rollout:
    """What the Rollout says. The delays before pods leave are not followed: they stand for proxies that learn of new
    weights late, and the one proxy here says when it has them and when its last request is answered."""

    name: str
    stable: str
    canary: str
    route: str
    steps: tuple[Step, ...]


def rollout_file(product: Product) -> Path:
    """A product's Rollout."""
    return ROOT / product.manifests / "base" / "rollout.yaml"


def virtual_service(product: Product) -> Path:
    """The VirtualService whose weights the Rollout's controller writes."""
    return ROOT / product.manifests / "base" / "virtual-service.yaml"


def kpis(product: Product) -> Path:
    """The AnalysisTemplate of its KPIs; the judge takes alpha and effect from its args."""
    return ROOT / product.manifests / "base" / "kpis.yaml"


def templates(product: Product) -> dict[str, Path]:
    """Its AnalysisTemplates by the names that they have in a cluster, where the shared one's is prefixed."""
    return {f"{product.name}-guardrails": GUARDRAILS, f"{product.name}-kpis": kpis(product)}


def rollout(path: Path) -> Rollout:
    """Reads a Rollout. Raises RolloutError for what is not there or not followed here."""
    made = read(path, "Rollout")
    strategy = (made["spec"].get("strategy") or {}).get("canary")
    if strategy is None:
        raise RolloutError(f"{path}: spec.strategy.canary is missing; no other strategy is followed")
    _followed(path, "strategy.canary", strategy)
    service = strategy.get("trafficRouting", {}).get("istio", {}).get("virtualService") or {}
    steps = tuple(_step(path, step) for step in strategy.get("steps") or [])
    if not steps:
        raise RolloutError(f"{path}: no steps: all traffic would go over at once")
    return Rollout(
        name=made["metadata"]["name"],
        stable=strategy["stableService"],
        canary=strategy["canaryService"],
        route=(service.get("routes") or ["primary"])[0],
        steps=steps,
    )


def metrics(paths: Collection[Path], args: Mapping[str, str]) -> list[Metric]:
    """The metrics of an analysis by these templates, with `args` in place of their defaults.

    Raises RolloutError for an arg without a value, one that no template has, and what Argo Rollouts does not merge:
    an arg with two defaults, a metric that two templates have.
    """
    where = ", ".join(map(str, paths))
    given = {**_declared(paths), **args}
    if unknown := set(args) - set(_declared(paths)):
        known = ", ".join(sorted(set(given) - unknown))
        raise RolloutError(f"{where} has no arg {', '.join(sorted(unknown))}; it has {known}")
    if absent := sorted(name for name, value in given.items() if value is None):
        raise RolloutError(f"{where}: the args {', '.join(absent)} have no value")
    found = [
        _metric(path, _filled(path, metric, given))
        for path in paths
        for metric in read(path, "AnalysisTemplate")["spec"].get("metrics") or []
    ]
    if twice := sorted(name for name, count in Counter(metric.name for metric in found).items() if count > 1):
        raise RolloutError(f"{where}: more than one metric {', '.join(twice)}")
    return found


def named(steps: Rollout, templates: Collection[str]) -> None:
    """Raises RolloutError when a step names another template than these."""
    asked = {template for step in steps.steps if isinstance(step, Analysis) for template in step.templates}
    if other := sorted(asked - set(templates)):
        raise RolloutError(f"the Rollout's steps name the template {', '.join(other)}; known: {', '.join(templates)}")


def defaults(paths: Collection[Path]) -> dict[str, str]:
    """The args of these templates that have a value."""
    return {name: value for name, value in _declared(paths).items() if value is not None}


def _declared(paths: Collection[Path]) -> dict[str, str | None]:
    """Arg → default, of all templates. Raises RolloutError for an arg with two defaults."""
    found: dict[str, str | None] = {}
    for path in paths:
        spec = read(path, "AnalysisTemplate")["spec"]
        _followed(path, "template", spec)
        for name, value in ((arg["name"], arg.get("value")) for arg in spec.get("args") or []):
            before = found.get(name)
            if value is not None and before not in (None, str(value)):
                raise RolloutError(f"{path}: the arg {name} is {value!r}, and {before!r} in another template")
            found[name] = before if value is None else str(value)
    return found


def read(path: Path, kind: str) -> dict[str, Any]:
    """The one object of that kind in a YAML file. Raises RolloutError."""
    import yaml

    try:
        found = [made for made in yaml.safe_load_all(path.read_text()) if made and made.get("kind") == kind]
    except (OSError, yaml.YAMLError, AttributeError) as error:
        raise RolloutError(f"{path} cannot be read: {error}") from None
    if len(found) != 1:
        raise RolloutError(f"{path}: expected one {kind}, found {len(found)}")
    whole: dict[str, Any] = found[0]
    return whole


def seconds(text: str | int | float) -> float:
    """Kubernetes' durations, as in `1m30s`; a bare number is seconds. Raises RolloutError."""
    if isinstance(text, int | float) or re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise RolloutError(f"{text!r} is no duration, expected one such as 30s or 1m30s")
    return sum(float(number) * UNITS[unit] for number, unit in parts)


def _followed(path: Path, where: str, given: Mapping[str, Any]) -> None:
    if other := sorted(set(given) - KNOWN[where]):
        raise RolloutError(f"{path}, {where}: {', '.join(other)} is not followed here")


def _step(path: Path, step: Mapping[str, Any]) -> Step:
    match step if len(step) == 1 else {}:
        case {"setWeight": int(weight)}:
            return SetWeight(weight)
        case {"pause": pause}:
            duration = (pause or {}).get("duration")
            return Pause(None if duration is None else seconds(duration))
        case {"analysis": {"templates": [*_]}}:
            _followed(path, "analysis", step["analysis"])
            args: list[dict[str, Any]] = step["analysis"].get("args") or []
            from_hash = {a["name"]: a["valueFrom"]["podTemplateHashValue"] for a in args if "valueFrom" in a}
            return Analysis(
                tuple(template["templateName"] for template in step["analysis"]["templates"]),
                {arg["name"]: str(arg["value"]) for arg in args if "value" in arg},
                {name: HASHES[which] for name, which in from_hash.items()},
            )
    raise RolloutError(f"{path}: the step {dict(step)!r} is not followed; known: setWeight, pause, analysis")


def _filled(path: Path, given: Any, args: Mapping[str, Any]) -> Any:
    if isinstance(given, dict):
        return {name: _filled(path, item, args) for name, item in given.items()}
    if isinstance(given, list):
        return [_filled(path, item, args) for item in given]
    if not isinstance(given, str):
        return given

    def value(match: re.Match[str]) -> str:
        if match[1] not in args:
            raise RolloutError(f"{path} uses the arg {match[1]!r} and does not declare it")
        return str(args[match[1]])

    return re.sub(r"\{\{\s*args\.([\w-]+)\s*\}\}", value, given)


def _metric(path: Path, given: Mapping[str, Any]) -> Metric:
    provider = (given.get("provider") or {}).get("prometheus")
    if provider is None:
        raise RolloutError(f"{path}, metric {given.get('name')}: only the provider prometheus is followed")
    _followed(path, "metric", given)
    _followed(path, "provider.prometheus", provider)
    interval = seconds(given["interval"]) if "interval" in given else None
    count = int(given["count"]) if "count" in given else None
    return Metric(
        name=given["name"],
        address=provider["address"],
        query=provider["query"].strip(),
        success=condition(given["successCondition"]) if given.get("successCondition") else None,
        failure=condition(given["failureCondition"]) if given.get("failureCondition") else None,
        initial_delay=seconds(given.get("initialDelay", 0)),
        interval=interval,
        count=1 if count is None and interval is None else count,
        failure_limit=int(given.get("failureLimit", 0)),
        inconclusive_limit=int(given.get("inconclusiveLimit", 0)),
        error_limit=int(given.get("consecutiveErrorLimit", ERRORS_IN_A_ROW)),
    )
