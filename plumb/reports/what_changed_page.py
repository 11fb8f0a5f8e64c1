"""What changed, in a terminal and as a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.display import figures, page, terminal
from plumbline.display.page import number, short
from plumbline.lake import distributions

if TYPE_CHECKING:
    from rich.console import Console

HISTOGRAMS = 6
VISIBLE = 0.001
"""Below this PSI two histograms cannot be told apart by eye."""
LISTED = 20
"""Commits, files and packages shown; the JSON output has all."""


def show(found: dict[str, Any], path: Path, seconds: float) -> None:
    """Prints it; parts in which nothing changed take one line."""
    from rich.markup import escape

    console = terminal.console(140)
    for which in ("before", "after"):
        side = found[which]
        undone = f"; undoes {', '.join(map(str, side['undoes']))}: {escape(side['why'])}" if side["undoes"] else ""
        console.print(f"  {which:6} [bold]{escape(side['name'])}[/bold], as of {side['as_of']}{undone}")
    numbers = ("versions", "rows", "added", "removed", "changed")
    listed = terminal.table("Tables", "table", *numbers, "columns", right=numbers)
    for item in found["tables"]:
        rows = item["rows"] or {}
        counts = (number(rows.get(name)) for name in ("added", "removed", "changed"))
        listed.add_row(item["table"], _pair(item["before"], item["after"]), _rows(rows), *counts, _columns(item))
    console.print(listed)
    for told in lines(found):
        console.print(f"  {escape(told)}", soft_wrap=True)
    if model := found["model"]:
        console.print(_metrics(model["metrics"]))
    if each := moved(found):
        _print_moved(console, found, each)
    console.print(f"  page: {path}   ({seconds:.1f} s)", soft_wrap=True)


def write(path: Path, found: dict[str, Any], seconds: float) -> Path:
    """The page at `path`, light or dark as its reader has it."""
    return page.write(
        path,
        "what_changed.html",
        found=found,
        lines=lines(found),
        moved=moved(found),
        figures=_figures(found),
        rows=_rows,
        pair=_pair,
        columns=_columns,
        seconds=seconds,
        large=distributions.LARGE,
        notable=distributions.NOTABLE,
        listed=LISTED,
    )


def lines(found: dict[str, Any]) -> list[str]:
    """What is no table: code, environment, SQL, gates, batches; a sentence each."""
    told = []
    dbt = ", ".join(f"{name} {what}" for name, what in found["dbt"].items())
    told.append(f"dbt models: {dbt or 'the SQL of every one is the same'}")
    sql = found["features_sql"]
    if sql["changed"] is None:
        told.append("customers.sql: not known, the ledger does not have the run that computed one of the two")
    elif not sql["changed"]:
        told.append("customers.sql: the same")
    for name, (was, now) in sql["columns"].items():
        what = f"new: {now}" if was is None else f"gone, was {was}" if now is None else f"{was} → {now}"
        told.append(f"customers.sql, {name}: {what}")
    if sql["changed"] and not sql["columns"]:
        told.append("customers.sql: other joins or conditions, the same expressions")
    code, lock = found["code"], found["lock"]
    if code["before"] == code["after"]:
        told.append(f"code: the same, {short(code['after'])}")
    elif short(code["before"]) == short(code["after"]):
        told.append(f"code: commit {short(code['after'])} with other uncommitted changes")
    else:
        known = f": {len(code['commits'])} commits, {len(code['files'])} files" if code["commits"] else ""
        told.append(f"code: {short(code['before'])} → {short(code['after'])}{known}")
        told += [f"  {commit}" for commit in code["commits"][:LISTED]]
    if lock["before"] == lock["after"]:
        told.append("environment: the same lock")
    else:
        told.append(f"environment: lock {short(lock['before'])} → {short(lock['after'])}")
        packages = list(lock["packages"].items())[:LISTED]
        told += [f"  {name} {was or 'none'} → {now or 'gone'}" for name, (was, now) in packages]
    for name, (then, now) in found["gates"].items():
        if then != now:
            told.append(f"gate {name}: {then or 'did not run'} → {now or 'did not run'}")
    told += [f"raw batches {what}: {', '.join(names)}" for what, names in found["batches"].items() if names]
    if orders := found["orders"]:
        each = (
            f"{name} {_stat(about, 'mean')} on average" + ("" if about["psi"] is None else f", PSI {about['psi']:.3f}")
            for name, about in orders["each"].items()
        )
        compared = f"; the 28 days before → these: {'; '.join(each)}" if orders["each"] else ""
        told.append(f"new orders: {orders['added']:,}{compared}")
    for name, (then, now) in found["model"].get("tags", {}).items():
        if then != now:
            told.append(f"{name}: {then} → {now}")
    return told


def moved(found: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Features by how far their newest snapshots are apart, the farthest first, without those that stayed."""
    each = found["features"].get("each", {})
    known = [(name, about) for name, about in each.items() if about["psi"] is None or about["psi"] > 0]
    return sorted(known, key=lambda item: -(item[1]["psi"] if item[1]["psi"] is not None else float("inf")))


def _print_moved(console: Console, found: dict[str, Any], each: list[tuple[str, dict[str, Any]]]) -> None:
    stats = ("PSI", "customers changed", "missing", "mean", "median", "95 %")
    title = f"Features, snapshot of {found['features']['then']} → {found['features']['now']}"
    listed = terminal.table(title, "feature", *stats, right=stats)
    for name, about in each:
        psi = about["psi"]
        level = (
            ""
            if psi is None
            else "red"
            if psi > distributions.LARGE
            else "yellow"
            if psi > distributions.NOTABLE
            else ""
        )
        shown = number(psi) if psi is None else f"{psi:.4f}"
        changed = "new" if about["changed"] is None else f"{about['changed']:.2%}"
        values = (_stat(about, what) for what in ("missing", "mean", "median", "p95"))
        listed.add_row(name, f"[{level}]{shown}[/{level}]" if level else shown, changed, *values)
    console.print(listed)


def _metrics(metrics: dict[str, list[float | None]]) -> Any:
    listed = terminal.table(
        "Metrics, each on its own test rows", "metric", "before", "after", right=("before", "after")
    )
    for name, values in metrics.items():
        listed.add_row(name, *(number(value) for value in values))
    return listed


def _rows(rows: dict[str, Any]) -> str:
    return _pair(rows.get("before"), rows.get("after")) if rows else "–"


def _pair(before: int | None, after: int | None) -> str:
    """A number as it was → as it is; once when it stayed."""
    return number(after) if before == after else f"{number(before)} → {number(after)}"


def _columns(item: dict[str, Any]) -> str:
    parts = []
    for what, columns in item["columns"].items():
        names = (f"{name} {kind if isinstance(kind, str) else ' → '.join(kind)}" for name, kind in columns.items())
        parts += [f"{what}: {', '.join(names)}"] if columns else []
    return "; ".join(parts)


def _stat(about: dict[str, Any], what: str) -> str:
    values = [(side or {}).get(what) for side in (about["before"], about["after"])]
    texts = [f"{value:.2%}" if what == "missing" and value is not None else number(value) for value in values]
    return texts[1] if texts[0] == texts[1] else f"{texts[0]} → {texts[1]}"


def _figures(found: dict[str, Any]) -> list[dict[str, str]]:
    """Bars of every feature's PSI, then histograms of those that moved most."""
    each = [(name, about) for name, about in moved(found) if about["psi"] is not None]
    if not each:
        return []
    then, now = found["features"]["then"], found["features"]["now"]
    drawn = []
    with figures.style() as plt:
        figure, axes = plt.subplots(figsize=(7.4, 0.3 * len(each) + 1.3), layout="constrained")
        names, values = [name for name, _ in each][::-1], [about["psi"] for _, about in each][::-1]
        colors = [
            figures.BAD if v > distributions.LARGE else figures.SECOND if v > distributions.NOTABLE else figures.MODEL
            for v in values
        ]
        end = max(1.2 * distributions.NOTABLE, min(max(values), 2 * distributions.LARGE))
        bars = axes.barh(names, [min(value, end) for value in values], color=colors, height=0.62)
        axes.bar_label(bars, [f"{value:.4f}" for value in values], padding=3, color=figures.MUTED, fontsize=9)
        for limit in (distributions.NOTABLE, distributions.LARGE):
            if limit < end:
                axes.axvline(limit, color=figures.MUTED, lw=1, ls="--")
        axes.grid(axis="y", visible=False)
        axes.set(
            xlim=(0, 1.15 * end),
            xlabel="population stability index",
            title=f"How far each feature moved, {then} to {now}",
        )
        drawn.append({"svg": figures.svg(figure, f"Bars: PSI of each feature between {then} and {now}"), "caption": ""})
        plt.close(figure)
        for name, about in each[:HISTOGRAMS]:
            bins = about["histogram"]
            if not bins or about["psi"] < VISIBLE:
                continue
            figure, axes = plt.subplots(figsize=(3.4, 2.1), layout="constrained")
            for which, color, label in (("before", figures.SECOND, then), ("after", figures.MODEL, now)):
                axes.stairs(bins[which], bins["edges"], color=color, linewidth=1.4, label=label)
            axes.set(title=name, ylabel="share of customers")
            axes.legend(fontsize=8)
            caption = f"PSI {about['psi']:.4f}; missing {_stat(about, 'missing')}"
            drawn.append({"svg": figures.svg(figure, f"Histogram of {name}, {then} and {now}"), "caption": caption})
            plt.close(figure)
    return drawn
