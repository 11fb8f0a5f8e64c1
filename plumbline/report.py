"""What a run of the demo came to: rows per stage, gates, versions, metrics beside baselines, answers, seconds."""

from __future__ import annotations

from typing import Any

from plumbline import clock, files, ledger, releases
from plumbline.settings import settings

METRICS = {"roc_auc": "ROC-AUC ↑", "pr_auc": "PR-AUC ↑", "log_loss": "log loss ↓", "brier": "Brier ↓"}
MODELS = {"": "xgboost (champion's run)", "baseline_bgnbd_": "BG/NBD", "baseline_recency_": "days since last order"}


def show(product: str, answers: list[dict[str, Any]], seconds: dict[str, float], total: float) -> None:
    """Prints the summary and writes it to `<home>/report/summary.json`."""
    release = releases.required(product)
    trained = files.read_json(settings().home / "training" / str(release.release_id) / "run.json") or {}
    summary = {
        "clock": clock.now().isoformat(),
        "replay": clock.is_replay(),
        "release": {"release_id": release.release_id, "as_of": release.as_of, "tables": release.tables},
        "gates": release.gates,
        "stages": _stages(product),
        "training": trained,
        "answers": answers,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "seconds_total": round(total, 1),
    }
    path = settings().home / "report" / "summary.json"
    files.write_whole(path, files.dumps(summary))
    _print(summary)


def _stages(product: str) -> list[dict[str, Any]]:
    """The newest completed run of each stage and day."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for event in ledger.events(product):
        if event["state"] == "COMPLETE":
            found[(event["run_id"], event["stage"])] = event
    return list(found.values())


def _print(summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    replay = " · a replay: the clock is set" if summary["replay"] else ""
    console.print(f"\n[bold]Plumbline, as of {summary['clock'][:16]} UTC[/bold]{replay}\n")

    stages = Table("run", "stage", "rows", "wrote", "s", title="Stages, each an Airflow task", title_justify="left")
    stages.columns[4].justify = "right"
    for event in summary["stages"]:
        rows = "\n".join(
            f"{table} {count:,}" for table, count in (event.get("rows") or {}).items() if isinstance(count, int)
        )
        wrote = "\n".join(f"{table} @v{version}" for table, version in (event.get("wrote") or {}).items())
        stages.add_row(event["run_id"], event["stage"], rows, wrote, f"{event['seconds']:.1f}")
    console.print(stages)

    gates = Table("gate", "verdict", "expectations", "report", title="Gates", title_justify="left")
    for name, gate in summary["gates"].items():
        gates.add_row(
            name, f"[green]{gate['verdict']}[/green]", str(gate.get("expectations", "")), str(gate.get("report", ""))
        )
    console.print(gates)

    metrics = summary["training"].get("metrics") or {}
    if metrics:
        table = Table("test set", *METRICS.values(), title="Churn within 90 days, out of time", title_justify="left")
        for prefix, model in MODELS.items():
            cells = [metrics.get(prefix + name) for name in METRICS]
            table.add_row(model, *(f"{cell:.4f}" if cell is not None else "–" for cell in cells))
        console.print(table)
        base = metrics.get("base_rate", metrics.get("test_churn_rate"))
        if base is not None:
            console.print(f"  {base:.1%} of the test customers churned, so accuracy alone would say nothing.\n")

    live = Table("customer", "who", "HTTP", "P(churn)", "answer", title="Live answers over HTTP", title_justify="left")
    for item in summary["answers"]:
        live.add_row(str(item["customer_id"]), item["who"], str(item["status"]), *_answer(item))
    console.print(live)

    slowest = sorted(summary["seconds"].items(), key=lambda pair: -pair[1])[:6]
    console.print(
        f"  {summary['seconds_total']:.0f} s in all; the slowest: " + ", ".join(f"{n} {s:.0f} s" for n, s in slowest)
    )
    home = settings().home
    console.print("\n[bold]Where to look next[/bold]")
    for what, where in (
        ("data docs", home / "data_docs" / "index.html"),
        ("this summary", home / "report" / "summary.json"),
        ("ask it yourself", "make up, then the curl line it prints"),
        ("MLflow", "make up, then the address it prints"),
        ("dbt docs", "plumb dbt docs generate"),
    ):
        console.print(f"  {what:16} {where}", soft_wrap=True)


def _answer(item: dict[str, Any]) -> tuple[str, str]:
    answer = item["answer"]
    if item["status"] != 200:
        return "–", str(answer.get("error", answer))
    prediction = answer["predictions"][0]
    age = prediction["features_age_seconds"] / 3600
    versions = f"model v{answer['model_version']}, release {prediction['release_id']}, features {age:.0f} h old"
    missing = prediction.get("missing")
    return f"{prediction['churn_probability']:.3f}", versions + (f", missing {', '.join(missing)}" if missing else "")
