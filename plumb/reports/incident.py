"""`plumb incident ALERT`: what on-call asks when an alert fires, from ledger, releases, lake and contracts.

Nothing is changed, and nothing but the home's own files and servers is asked. Two kinds of trouble are told apart: the
line stands still and an older release is served, or what is served is itself in doubt.
"""

from __future__ import annotations

import json
import urllib.request
from datetime import datetime, timedelta
from typing import Any

from observability import cluster_rules, house_rules, promises, slo_rules
from observability.rule import Alert, alerts
from observability.stack import ALERTMANAGER
from plumb.reports import what_changed
from plumbline import clock, provenance, verdict
from plumbline.errors import PlumblineError, Unreadable
from plumbline.lake import tables as lake
from plumbline.product import Product
from plumbline.registry import registered_models
from plumbline.servers import services
from plumbline.state import ledger, releases
from plumbline.state.releases import Release
from products import ALL
from products.churn import CHURN


class IncidentError(PlumblineError):
    """There is no such alert."""


def incident(name: str, dataset: str | None = None, product: str | None = None) -> dict[str, Any]:
    """Everything that is known of an alert by now; parts that cannot be known are None and `unknown` says why.

    Without a dataset or product it is that which fires; nothing fires: the first that has such an alert. Raises
    IncidentError that lists the alerts, when there is none of that name or of that dataset or product.
    """
    known = alerts([*slo_rules.groups(), *house_rules.groups(), *cluster_rules.groups()])
    firing = _firing(name)
    told = sorted(firing or (), key=lambda a: bool(a["state"] != "active"))  # what is silenced is not the cause
    told = [a for a in told if product in (None, a["labels"].get("product"))]
    if dataset is None:
        dataset = next((a["labels"]["dataset"] for a in told if "dataset" in a["labels"]), None)
        if product is None:
            product = next((a["labels"]["product"] for a in told if "product" in a["labels"]), None)
    alert = _named(known, name, dataset, product)
    of = next((one for one in ALL if one.name == alert.about.get("product")), CHURN)
    unknown: list[str] = []
    numbers, known_releases = _releases(of, unknown)
    current = known_releases[-1] if known_releases and known_releases[-1].release_id == numbers[-1] else None
    broken: list[str] = []
    events = list(ledger.events(of.name, broken))
    unknown += [f"cannot be read: {why}" for why in broken]
    good = last_good(current, known_releases, events, doubted=alert.way_back.doubts_release)
    found: dict[str, Any] = {
        "alert": name,
        "severity": sorted({a.severity for a in known if a.name == name}),
        "dataset": alert.about.get("dataset"),
        "product": alert.about.get("product"),
        "runbook": alert.runbook,
        "owner": alert.contract.owner,
        "channel": alert.contract.channel,
        "firing": firing,
        "clock": clock.now().isoformat(),
        "replay": clock.is_replay(),
        "in_force": _about(current),
        "last_good": _about(good),
        "downstream": list(alert.affected),
    }
    if firing is None:
        unknown.append("whether it fires: no Alertmanager of this home runs (`plumb up`)")
    if current is None:
        why = "the release in force cannot be read" if numbers else "nothing was ever released"
        unknown.append(f"what changed: {why}")
    found["since_release"] = _since(current, events) if current else None
    found["changed"], found["differs"] = None, None
    if current and good and good.release_id != current.release_id:
        found["differs"] = releases.diff(good, current)
        try:
            found["changed"] = what_changed.what_changed(of, str(good.release_id), str(current.release_id))
        except (PlumblineError, ValueError) as error:  # a table that is broken may not be comparable
            unknown.append(f"what changed in the rows: {error}")
    models = registered_models.versions(of.model)
    failed = [event["stage"] for event in found["since_release"] or [] if event["at"]]  # code has no time
    found["models"] = [str(model) for model in models if model.aliases]
    found["predictions_exposed"] = _exposed(of, alert, current, released=bool(numbers))
    found["way_back"] = way_back(
        of,
        alert,
        good,
        found["since_release"] or [],
        next((a["labels"]["stage"] for a in told if "stage" in a["labels"]), failed[-1] if failed else None),
        released=bool(numbers),
        previous=any(registered_models.PREVIOUS in model.aliases for model in models),
    )
    found["unknown"] = unknown
    return found


def last_good(
    current: Release | None, known: list[Release], events: list[dict[str, Any]], *, doubted: bool
) -> Release | None:
    """The newest release that was not undone and did not fail parity; `doubted`, one before that in force; or None.

    `known` are the releases that can be read, oldest first. None when that in force cannot: it may undo any of them.
    """
    if current is None:
        return None
    undone = {number for release in known for number in release.undoes}
    newest = {
        event.get("release_id"): event["state"]
        for event in events
        if event["stage"] == "parity_check" and event["state"] != "START"
    }
    for release in reversed(known):
        if doubted and release.tables == current.tables:
            continue
        if release.release_id not in undone and newest.get(release.release_id) != "GATE_FAILED":
            return release
    return None


def way_back(
    product: Product,
    alert: Alert,
    good: Release | None,
    since: list[dict[str, Any]],
    at_fault: str | None,
    *,
    released: bool,
    previous: bool,
) -> str:
    """The exact command that leads back from an alert, by the alert's own definition; else its runbook.

    `since` is what did not go well, `at_fault` the stage that fires or failed last, `released` whether anything ever
    was, `previous` whether there is a model with that alias.
    """
    way, by_the_book = alert.way_back, f"nothing to undo: read {alert.runbook}"
    if way.kind == "command":
        return way.command
    if not released and way.first_day:
        return "plumb demo" if product is CHURN and clock.is_replay() else product.command_of("ingest")
    if way.kind == "model":
        return way.command if previous else by_the_book
    if way.kind == "undo":
        return way.command.format(release=good.release_id, alert=alert.name) if good else by_the_book
    if way.kind == "runbook" or (way.kind == "stage" and at_fault not in (None, *product.daily_stages)):
        return by_the_book
    return _missing_day(product, since)


def _missing_day(product: Product, since: list[dict[str, Any]]) -> str:
    """The command that goes on with the day that is missing, by what stopped it last."""
    stops = [event for event in since if event["stage"] in product.daily_stages]
    if stops and stops[-1]["gates"] and not stops[-1]["sets_aside"]:  # mended code goes on at that stage
        return f"{product.command_of(stops[-1]['stage'])} --as-of {stops[-1]['as_of']}"
    kept = [event["quarantine"] for event in stops if event["quarantine"]]
    if kept:
        return f"plumb quarantine show {kept[-1]}"
    return "plumb replay --days 1" if product is CHURN and clock.is_replay() else product.command_of("ingest")


def _releases(product: Product, unknown: list[str]) -> tuple[list[int], list[Release]]:
    """The numbers of all releases, and those that can be read, oldest first; `unknown` is told of the others."""
    numbers, found = releases.numbers(product.name), []
    for number in numbers:
        try:
            found.append(releases.read(product.name, number))
        except Unreadable as error:
            unknown.append(f"cannot be read: {error}")
    return numbers, found


def _named(known: list[Alert], name: str, dataset: str | None, product: str | None) -> Alert:
    named = [alert for alert in known if alert.name == name]
    if not named:
        raise IncidentError(f"no alert {name!r}; there are {', '.join(sorted({a.name for a in known}))}")
    for about, given in (("dataset", dataset), ("product", product)):
        if given is None or about not in named[0].about:
            continue
        kept = [alert for alert in named if alert.about[about] == given]
        if not kept:
            of = ", ".join(dict.fromkeys(alert.about[about] for alert in named))
            raise IncidentError(f"{name} is not of {given!r}; it is of {of}")
        named = kept
    return named[0]


def _firing(name: str) -> list[dict[str, Any]] | None:
    """Alertmanager's alerts of that name; None when it does not answer."""
    found = services.find(ALERTMANAGER)
    if found is None:
        return None
    url = f"http://{services.HOST}:{found.port}/api/v2/alerts?filter=alertname%3D%22{name}%22"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return [
                {"labels": a["labels"], "since": a["startsAt"], "state": a["status"]["state"]}
                for a in json.load(answer)
            ]
    except OSError:
        return None


def _about(release: Release | None) -> dict[str, Any] | None:
    if release is None:
        return None
    return {
        "release_id": release.release_id,
        "as_of": release.as_of.isoformat(),
        "published_at": release.published_at,
        "code_sha": release.code_sha,
        "restores": release.restores,
    }


def _since(current: Release, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What did not go well after the newest release was published, oldest first, and code that changed meanwhile."""
    published = max(
        (e["at"] for e in events if e.get("release_id") == current.release_id and e["stage"] in ("release", "undo")),
        default="",
    )
    told = [
        {
            "at": event["at"],
            "stage": event["stage"],
            "state": event["state"].lower(),
            "as_of": event.get("as_of"),
            "error": str(event.get("error", "")).strip(),
            "gates": verdict.failed(verdict.of_event(event).values()),
            "quarantine": event.get("quarantine"),
            # Before the ledger said so, a gate on code was a FAIL, and each GATE_FAILED of a run set its batch aside.
            "sets_aside": event.get("sets_aside", event["state"] == "GATE_FAILED"),
        }
        for event in events
        if event["at"] > published and event["state"] in ("FAIL", "GATE_FAILED", "KILLED")
    ]
    if (code := provenance.code_sha()) != current.code_sha:
        told.append({"at": None, "stage": "code", "state": "changed", "error": f"{current.code_sha} → {code}"})
    return told


def _exposed(product: Product, alert: Alert, current: Release | None, *, released: bool) -> dict[str, Any]:
    """Answers given from the release in force: all since it came, of a late day those after its deadline.

    `rows` is None when the outcome log or the release in force cannot be read.
    """
    if current is None and released:
        return {"rows": None, "of": "the release in force cannot be read"}
    if current is None:
        return {"rows": 0, "of": "nothing was released, nobody was answered"}
    import pyarrow.compute as pc

    since, of = datetime.fromisoformat(current.published_at), f"answers from release {current.release_id}"
    if alert.name == "DatasetLate":
        since = clock.end_of(current.as_of) + timedelta(days=1) + (promises.deadline(alert.contract) or timedelta())
    of += f" since {since:%F %H:%M} UTC, the platform's clock"
    if lake.version(product.log) is None:
        return {"rows": 0, "of": of}
    try:
        rows = lake.open_table(product.log).to_pyarrow_dataset()
        chosen = (pc.field("release_id") == current.release_id) & (pc.field("at") >= since)
        return {"rows": rows.count_rows(filter=chosen), "of": of}
    except (lake.LakeError, OSError, ValueError) as error:
        return {"rows": None, "of": f"{of}: {product.log} cannot be read: {error}"}
