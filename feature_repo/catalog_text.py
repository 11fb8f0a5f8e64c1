"""The catalog of features in a terminal."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.tree import Tree

from plumbline.display import terminal
from plumbline.display.page import number


def show_list(found: list[dict[str, Any]]) -> None:
    """A line a feature."""
    release = found[0]["release_id"]
    table = terminal.table(f"Features at release {release}", "feature", "type", "services", "missing", "age", "what")
    for item in found:
        share = (
            "on demand"
            if item["on_demand"]
            else "live"
            if item["live"]
            else f"{100 * item['missing']:.1f} %"
            if item["missing"] is not None
            else "not there yet"
        )
        age = "–" if item["age_seconds"] is None else f"{item['age_seconds'] / 3600:.0f} h"
        table.add_row(
            item["name"], item["type"], ", ".join(item["services"]) or "–", share, age, escape(item["description"])
        )
    terminal.console(140).print(table)


def show_one(item: dict[str, Any]) -> None:
    """One feature, its SQL and its lineage as a tree with file:line."""
    console = terminal.console(140)
    kind = "on demand, " if item["on_demand"] else ""
    console.print(
        f"[bold]{item['name']}[/bold] ({kind}{item['type']}, view {item['view']}): {escape(item['description'])}"
    )
    console.print(f"  services: {', '.join(item['services']) or 'none'}")
    console.print(f"  models:   {', '.join(item['models']) or 'none'}")
    console.print(escape(item["definition"]), style="cyan")
    for step in item["lineage"]:
        console.print(_branch(step, Tree(_told(step), guide_style="dim")))
    console.print(f"  comes from: {', '.join(item['roots'])}")


def show_history(found: dict[str, Any]) -> None:
    """A line a release, and a line a commit."""
    names = ("rows", "missing", "mean", "p05", "median", "p95", "psi")
    table = terminal.table(f"{found['name']}, newest snapshot of each release", "release", "as of", "version", *names)
    for point in found["releases"]:
        values = (
            f"{100 * point[n]:.1f} %" if n == "missing" and point.get(n) is not None else number(point.get(n))
            for n in names
        )
        table.add_row(str(point["release_id"]), point["as_of"], f"@v{point['version']}", *values)
    console = terminal.console(140)
    console.print(table)
    if found["uncommitted"]:
        console.print("  customers.sql has uncommitted changes; the commits are those of the whole file")
    for commit in found["commits"]:
        console.print(f"  {commit['commit']}  {commit['on']}  {escape(commit['subject'])}")
    if not found["commits"]:
        console.print("  no git history here")


def show_customer(name: str, customer: int, rows: list[dict[str, Any]]) -> None:
    """A line a snapshot."""
    table = terminal.table(f"{name} of customer {customer}", "snapshot", "value", "release")
    for row in rows:
        value = "missing" if row[name] is None else number(row[name])
        table.add_row(str(row["snapshot_date"]), value, str(row["release_id"]))
    terminal.console(140).print(table)


def _branch(step: dict[str, Any], tree: Tree) -> Tree:
    for below in step["inputs"]:
        _branch(below, tree.add(_told(below)))
    return tree


def _told(step: dict[str, Any]) -> str:
    place = f"  [dim]{step['place']}[/dim]" if step["place"] else ""
    return f"{step['column']}{place}"
