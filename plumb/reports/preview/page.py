"""A preview as a page and in a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.display import figures, page, terminal
from plumbline.display.page import number

if TYPE_CHECKING:
    from plumb.reports.preview.result import Preview

SHOWN = 12
"""Histograms: the columns that moved most, new ones first."""


def write(path: Path, made: Preview) -> Path:
    """The page at `path`."""
    if made.metrics:
        for name, metric in made.metrics["metrics"].items():
            metric["told"] = told(name, metric)
    return page.write(path, "preview.html", made=made, figures=_figures(made), pair=_pair)


def told(name: str, metric: dict[str, float]) -> str:
    """What a difference says, by its interval."""
    if metric["low"] <= 0 <= metric["high"]:
        return "no difference that this sample can show"
    return "better" if (metric["difference"] < 0) == (name == "log_loss") else "worse"


def show(made: Preview) -> None:
    """The preview in the terminal, without the columns that stayed the same."""
    from rich.markup import escape

    console = terminal.console(120)
    console.print(
        f"\n[bold]{made.table}[/bold]: the working tree's code on {made.customers:,} customers "
        f"({100 * made.share:g} %), beside release {made.release_id} as of {made.as_of}"
    )
    if made.limits:
        console.print(f"  {made.limits}", soft_wrap=True)
    for error in made.errors:
        console.print(f"[red]{escape(error)}[/red]", soft_wrap=True)
    if diff := made.diff:
        rows = diff["rows"]
        console.print(
            f"  rows: {rows['before']:,} released, {rows['after']:,} here; {rows['added']:,} added, "
            f"{rows['removed']:,} removed, {rows['changed']:,} changed"
        )
        for what, columns in diff["columns"].items():
            if columns:
                names = (f"{n} {t if isinstance(t, str) else ' → '.join(t)}" for n, t in columns.items())
                console.print(f"  columns {what}: {', '.join(names)}")
        moved = _moved(diff)
        if moved:
            stats = ("rows changed", "PSI", "missing", "mean", "5 %", "median", "95 %")
            listed = terminal.table("Columns that moved", "column", *stats, right=stats)
            for name in moved:
                c = diff["each"][name]
                share = "new" if c["changed"] is None else f"{100 * c['changed']:.2f} %"
                pairs = (_pair(c, what) for what in ("missing", "mean", "p05", "median", "p95"))
                listed.add_row(name, share, number(c["psi"]), *pairs)
            console.print(listed)
        else:
            console.print("  every column of every row that both have is the same")
    if made.tests:
        failed = [test for test in made.tests if test["status"] != "pass"]
        console.print(f"  dbt tests on the sample: {len(made.tests) - len(failed)} passed, {len(failed)} not")
        for test in failed:
            console.print(
                f"  [red]{test['name']}[/red] {test['status']}: {test['rows']} rows; dbt/{test['file']}; "
                f"the query: {test['query']}",
                soft_wrap=True,
            )
    if made.metrics:
        m = made.metrics
        title = f"The model on a sample of {m['customers']:,} customers, tested on {m['test_day']}"
        told_of = ("released", "preview", "difference", "95 % interval", "")
        listed = terminal.table(title, "metric", *told_of, right=told_of)
        for name, v in m["metrics"].items():
            bounds = f"{v['low']:+.4f} to {v['high']:+.4f}"
            values = (f"{v['before']:.4f}", f"{v['after']:.4f}", f"{v['difference']:+.4f}", bounds)
            listed.add_row(name, *values, told(name, v))
        console.print(listed)
    elif made.no_metrics:
        console.print(f"  the model: not known: {made.no_metrics}")
    console.print("  what else reads it:")
    for reader in made.readers:
        console.print(f"    {escape(reader)}", soft_wrap=True)
    console.print(f"  page: {made.page}   ({made.seconds:.0f} s)", soft_wrap=True)


def _moved(diff: dict[str, Any]) -> list[str]:
    """Columns that are new or differ somewhere: new ones, then by PSI."""
    each = diff["each"]
    found = [name for name, column in each.items() if column["changed"] is None or column["changed"] > 0]
    return sorted(found, key=lambda name: (each[name]["changed"] is not None, -(each[name]["psi"] or 0)))


def _pair(column: dict[str, Any], what: str) -> str:
    """A statistic as it was → as it is; once when it stayed."""
    values = [side.get(what) if side else None for side in (column["before"], column["after"])]
    texts = [f"{100 * v:.1f} %" if what == "missing" and v is not None else number(v) for v in values]
    return texts[1] if texts[0] == texts[1] or column["before"] is None else f"{texts[0]} → {texts[1]}"


def _figures(made: Preview) -> list[dict[str, str]]:
    if not made.diff:
        return []
    drawn = []
    with figures.style() as pyplot:
        for name in _moved(made.diff)[:SHOWN]:
            column = made.diff["each"][name]
            if not (bins := column["histogram"]):
                continue
            figure, axes = pyplot.subplots(figsize=(3.4, 2.1), layout="constrained")
            for side, color in (("before", figures.SECOND), ("after", figures.MODEL)):
                if bins[side]:
                    axes.stairs(
                        bins[side],
                        bins["edges"],
                        color=color,
                        linewidth=1.4,
                        label={"before": "released", "after": "preview"}[side],
                    )
            axes.set(title=name, ylabel="share of rows")
            axes.legend(fontsize=8)
            share = "new" if column["changed"] is None else f"{100 * column['changed']:.1f} % of rows changed"
            caption = f"{share}; missing {_pair(column, 'missing')}; PSI {number(column['psi'])}"
            drawn.append({"svg": figures.svg(figure, f"Histogram of {name}, released and preview"), "caption": caption})
            pyplot.close(figure)
    return drawn
