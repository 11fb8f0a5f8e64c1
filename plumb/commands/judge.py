"""The judge of a canary: what the outcome log says of it, as metrics that guardrails threshold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plumb.commands.base import MODEL, Json, Of, app, product_of, show


@app.command(rich_help_panel=MODEL)
def judge(
    product: Of = "churn",
    template: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The AnalysisTemplate, whose args say alpha and effect; default: k8s/PRODUCT/base/kpis.yaml.",
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 9103,
    host: Annotated[str, typer.Option(help="Address to listen on; in a pod 0.0.0.0.")] = "127.0.0.1",
    every: Annotated[float, typer.Option(min=0.1, help="Seconds from one look at the log to the next.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, show the verdicts, and end.")] = False,
    json: Json = False,
) -> None:
    """Compare a canary's KPIs and scores with stable's, from the outcome log; serve them until SIGTERM or Ctrl-C.

    P-values hold however often they are looked at. What is not known is absent; so is everything when the log cannot
    be read. The same log gives the same verdicts.

    Example: plumb judge --port 9103
    """

    from serving.judge import server

    judged = product_of(product)
    if not once:
        server.serve(judged, template, host, port, every)
        return
    found = server.now(judged, template)
    if json:
        show({"verdicts": found}, True)
        return
    from plumbline.display import terminal

    numbers = ("requests", "stable's", "difference", "from", "to", "p-value", "PSI of scores")
    table = terminal.table("Canaries in the outcome log", "KPI", "canary", "stable", *numbers, right=numbers)
    for row in found:
        counts = [f"{row[name]:,}" for name in ("canary_requests", "stable_requests")]
        ends = [
            terminal.number(row[name], "{:+.4f}") for name in ("difference", "difference_lower", "difference_upper")
        ]
        rest = [f"{row['p_value']:.4g}", terminal.number(row["score_psi"], "{:.3f}")]
        table.add_row(row["kpi"], row["canary"], row["stable"], *counts, *ends, *rest)
    terminal.console(130).print(table)
