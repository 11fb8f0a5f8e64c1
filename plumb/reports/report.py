"""What a run of the demo came to, in the terminal; the same and more is on the report's pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from plumb.reports import report_page
from plumb.reports.report_page import METRICS, MODELS
from plumbline import clock, files, shop, verdict
from plumbline.display import terminal
from plumbline.product import Product
from plumbline.settings import settings
from plumbline.state import ledger, objects, releases, trainings
from plumbline.verdict import Verdict
from products.churn import CHURN

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def show(product: Product, answers: list[dict[str, Any]], seconds: dict[str, float], total: float, seen: int) -> None:
    """Prints the summary and writes it to `<home>/report/<product>/summary.json`.

    `seen` is how many events the ledger had before: what those tell was not done now.
    """
    release = releases.required(product.name)
    trained = objects.read_json(trainings.key(product.name, release.release_id, trainings.RUN)) or {}
    summary = {
        "clock": clock.now().isoformat(),
        "replay": clock.is_replay(),
        "release": {"release_id": release.release_id, "as_of": release.as_of, "tables": release.tables},
        "gates": verdict.as_dicts(release.gates),
        "stages": _stages(product.name, seen),
        "training": trained,
        "answers": answers,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "seconds_total": round(total, 1),
    }
    path = settings().home / "report" / product.name / "summary.json"
    files.write_whole(path, files.dumps(summary))
    report_page.write(product)
    tell(summary, release.gates, terminal.console(160))


def _stages(product: str, seen: int) -> list[dict[str, Any]]:
    """The newest completed run of each stage and day."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for number, event in enumerate(ledger.events(product)):
        if event["state"] == "COMPLETE":
            found[(event["run_id"], event["stage"])] = {**event, "now": number >= seen}
    return list(found.values())


def tell(summary: dict[str, Any], gates: dict[str, Verdict], console: Console) -> None:
    """Prints a summary, and the verdicts of its release."""
    replay = " (a replay: the clock is set)" if summary["replay"] else ""
    console.print(f"\n[bold]Plumbline, as of {summary['clock'][:16]} UTC[/bold]{replay}\n")
    console.print(_stage_table(summary["stages"]), _gate_table(gates))
    if metrics := summary["training"].get("metrics"):
        console.print(_metric_table(metrics))
        rate = metrics["base_rate"]
        console.print(f"  {rate:.1%} of the test customers churned, so accuracy alone would say nothing.\n")
    console.print(_answer_table(summary["answers"]))
    slowest = sorted(summary["seconds"].items(), key=lambda pair: -pair[1])[:6]
    told = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in slowest)
    console.print(f"  {summary['seconds_total']:.0f} s in all; the slowest: {told}")
    console.print("\n[bold]Where to look next[/bold]")
    home = settings().home
    for what, where in (
        ("the report", home / "report" / CHURN.name / "index.html"),
        ("data docs", home / "data_docs" / "index.html"),
        ("ask it yourself", "make up, then the curl line it prints"),
        ("a canary", "make demo-canary: a good model rolled out step by step, a bad one stopped at 10 %"),
        ("MLflow", "make up, then the address it prints"),
        ("dbt docs", f"{settings().plumb_command} dbt docs generate"),
    ):
        console.print(f"  {what:16} {where}", soft_wrap=True)


def _stage_table(stages: list[dict[str, Any]]) -> Table:
    columns = ("run", "stage", "s", "what it did", "versions written")
    table = terminal.table("Stages, each an Airflow task", *columns, right=("s",))
    run = ""
    for event in stages:
        wrote = "\n".join(f"{name} @v{version}" for name, version in (event.get("wrote") or {}).items())
        shown = "" if event["run_id"] == run else event["run_id"]
        run = event["run_id"]
        told = event.get("message", "")
        if event["now"]:
            table.add_row(shown, event["stage"], f"{event['seconds']:.1f}", told, wrote)
        else:
            table.add_row(shown, event["stage"], "–", f"unchanged: {told}", wrote, style="dim")
    return table


def _gate_table(gates: dict[str, Verdict]) -> Table:
    table = terminal.table("Gates", "gate", "verdict", "expectations", "evidence")
    for name, gate in gates.items():
        table.add_row(name, f"[green]{gate.verdict}[/green]", str(gate.expectations), str(gate.report))
    return table


def _metric_table(metrics: dict[str, float]) -> Table:
    table = terminal.table(
        f"Churn within {shop.page().horizon_days} days, observed later than all training",
        "",
        *METRICS.values(),
    )
    for prefix, model in MODELS.items():
        if f"{prefix}log_loss" in metrics:  # a baseline may have no best fit
            table.add_row(model, *(f"{metrics[prefix + name]:.4f}" for name in METRICS))
    return table


def _answer_table(answers: list[dict[str, Any]]) -> Table:
    table = terminal.table("Live answers over HTTP", "customer", "who", "HTTP", "P(churn)", "answer")
    for item in answers:
        table.add_row(str(item["customer_id"]), item["who"], str(item["status"]), *_answer(item))
    return table


def _answer(item: dict[str, Any]) -> tuple[str, str]:
    answer = item["answer"]
    if item["status"] != 200:
        return "–", str(answer.get("error", answer))
    prediction = answer["predictions"][0]
    age = prediction["features_age_seconds"] / 3600
    versions = f"model v{answer['model_version']}, release {prediction['release_id']}, features {age:.0f} h old"
    missing = prediction.get("missing")
    return f"{prediction['churn_probability']:.3f}", versions + (f", missing {', '.join(missing)}" if missing else "")
