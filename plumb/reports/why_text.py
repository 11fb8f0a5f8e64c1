"""What is behind an answer, in a terminal."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from rich.console import Console
from rich.markup import escape

from plumbline import verdict
from plumbline.display import terminal
from plumbline.display.page import short

ORDERS_SHOWN = 10


def show(found: dict[str, Any]) -> None:
    """Prints it: answer, features, orders, release, model."""
    console = terminal.console(140)
    if found.get("refused"):
        console.print(f"[bold]{found['asked']}[/bold] would not be answered now: {escape(found['refused'])}")
    if answer := found["answer"]:
        _answer(console, found, answer)
        _features(console, found["features"])
    _orders(console, found)
    _release(console, found["release"], found.get("gates") or {})
    if found["model"]:
        _model(console, found["model"])
    last = found.get("last_answer")
    if last and answer and answer["request_id"] is None:
        console.print(f"\nLast answered: {_scored(last)}; `plumb why {escape(last['request_id'])}` has more.")


def _answer(console: Console, found: dict[str, Any], answer: dict[str, Any]) -> None:
    if answer["request_id"] is None:
        console.print(f"[bold]{found['asked']}[/bold] would be answered now: {_scored(answer)}")
    else:
        console.print(f"[bold]{found['asked']}[/bold]: {_scored(answer)}, track {answer['track']}")
    others = {c: score for c, score in found.get("scores", {}).items() if c != answer["customer_id"]}
    if others:
        listed = ", ".join(f"{customer} ({score:.3f})" for customer, score in list(others.items())[:10])
        more = f" and {len(others) - 10} more" if len(others) > 10 else ""
        console.print(f"  The request was about others too: {listed}{more}; --customer chooses.")


def _scored(answer: dict[str, Any]) -> str:
    return (
        f"customer {answer['customer_id']}, P(churn) {answer['score']:.4f} by model version {answer['model_version']}, "
        f"asked at {_minute(answer['at'])}, features of {_minute(answer['event_time'])}, release {answer['release_id']}"
    )


def _features(console: Console, features: list[dict[str, Any]]) -> None:
    columns = ("feature", "value", "age", "view")
    table = terminal.table("Features, as they were read", *columns, right=("value", "age"))
    for item in features:
        value = "missing" if item["value"] is None else f"{item['value']:,.9g}"
        table.add_row(item["name"], value, _age(item), item["view"] or "on demand")
    console.print(table)


def _age(item: dict[str, Any]) -> str:
    if not item["stored"]:
        return "computed when asked"
    seconds = item["age_seconds"]
    if seconds is None:
        return "no activity"
    return f"{seconds:.0f} s" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _orders(console: Console, found: dict[str, Any]) -> None:
    orders = found["orders"]
    columns = ("order", "date", "units", "cents", "known at", "batch", "landed by")
    title = f"The {len(orders):,} orders that they came from" if len(orders) != 1 else "The order that they came from"
    table = terminal.table(title, *columns, right=("order", "units", "cents"))
    for order in orders[:ORDERS_SHOWN]:
        table.add_row(
            str(order["order_id"]),
            str(order["order_date"]),
            str(order["units"]),
            f"{order['total_cents']:,}",
            _minute(order["known_at"]),
            order["batch_id"],
            order["landed_by"] or "–",
        )
    console.print(table)
    if len(orders) > ORDERS_SHOWN:
        console.print(f"  and {len(orders) - ORDERS_SHOWN:,} older ones (--json has all)")
    wrong = {name: pair for name, pair in (found.get("orders_add_up") or {}).items() if pair[0] != pair[1]}
    for name, (total, value) in wrong.items():
        console.print(f"  [red]{name} is {value}, the orders come to {total}[/red]")
    if found.get("orders_add_up") and not wrong:
        console.print(f"  They come to what the features say: {', '.join(found['orders_add_up'])}.")


def _release(console: Console, release: dict[str, Any] | None, gates: dict[str, Any]) -> None:
    if not release or "gone" in release:
        console.print(f"\n[bold]Release[/bold]: {escape(release['gone']) if release else 'none yet'}")
        return
    tables = ", ".join(f"{name}@v{version}" for name, version in release["tables"].items())
    console.print(
        f"\n[bold]Release {release['release_id']}[/bold], as of {release['as_of']}, published "
        f"{_minute(release['published_at'])} by {release['run_id']}\n  tables: {tables}\n  gates:  {_gates(gates)}\n"
        f"  code {_code(release['code_sha'])}, lock {_code(release['lock_hash'])}"
        + (f"\n  left out: {', '.join(release['rejected'])}" if release["rejected"] else "")
    )


def _model(console: Console, model: dict[str, Any]) -> None:
    if "gone" in model:
        console.print(f"\n[bold]Model version {model['version']}[/bold]: {escape(model['gone'])}")
        return
    roles = f" ({', '.join(model['aliases'])})" if model["aliases"] else ""
    metrics = ", ".join(
        f"{name} {model['metrics'][name]:.4f}" for name in ("log_loss", "roc_auc") if name in model["metrics"]
    )
    console.print(
        f"\n[bold]Model version {model['version']}[/bold]{roles}, MLflow run {model['mlflow_run_id']}; {metrics}"
    )
    for line in (("dataset_id", "dataset_hash"), ("data_version", "orders_version", "release_id", "feature_service")):
        told = ", ".join(f"{name} {model[name]}" for name in line if name in model)
        if told:
            console.print(f"  {told}", soft_wrap=True)
    console.print(f"  code {_code(model.get('code_sha'))}, lock {_code(model.get('lock_hash'))}")
    console.print(f"  gates of its training: {_gates(model['gates'])}")


def _gates(gates: dict[str, Any]) -> str:
    found = verdict.read(gates, "gates")
    told = (f"{name} [{'green' if gate.passed else 'red'}]{gate.verdict}[/]" for name, gate in found.items())
    return ", ".join(told) or "none recorded"


def _minute(at: datetime | date | str) -> str:
    return str(at)[:16].replace("T", " ")


def _code(sha: str | None) -> str:
    return short(sha) if sha else "unknown"
