"""An incident in a terminal."""

from __future__ import annotations

from typing import Any

from plumb.reports import what_changed_page
from plumbline.display import terminal

LISTED = 6


def show(found: dict[str, Any]) -> None:
    """Prints it: first what to do, then what it rests on."""
    from rich.markup import escape

    console = terminal.console(140)

    def line(what: str, told: str) -> None:
        console.print(f"  {what:20} {escape(told)}", soft_wrap=True)

    of = f" of {about}" if (about := found["dataset"] or found["product"]) else ""
    console.print(f"[bold]{escape(found['alert'])}[/bold]{escape(of)} ({' or '.join(found['severity'])})")
    line("way back", found["way_back"])
    line("runbook", found["runbook"])
    line("whose", f"{found['owner']}, told in {found['channel']}")
    for alert in found["firing"] or ():
        about = ", ".join(f"{k}={alert['labels'][k]}" for k in ("dataset", "gate", "stage") if k in alert["labels"])
        line("firing", f"{about or found['alert']} since {alert['since'][:19]} UTC ({alert['state']})")
    if found["firing"] == []:
        line("firing", "no")
    line("clock", found["clock"] + (" (a replay)" if found["replay"] else ""))
    line("in force", _release(found["in_force"]))
    line("last good release", _release(found["last_good"]))
    for event in (found["since_release"] or [])[-LISTED:]:
        first = event["error"].partition("\n")[0][:200]
        line("since then", f"{(event['at'] or '')[:19]} {event['stage']} {event['state']}: {first}")
    if found["since_release"] == []:
        line("since then", "nothing failed and no code changed")
    for name, (was, now) in (found["differs"] or {}).items():
        if name.startswith("tables."):
            line("changed", f"{name.removeprefix('tables.')} v{was} → v{now}")
    if changed := found["changed"]:
        for told in what_changed_page.lines(changed):
            line("changed", told)
    exposed = found["predictions_exposed"]
    line("predictions exposed", f"{'not known' if exposed['rows'] is None else exposed['rows']}: {exposed['of']}")
    line("downstream", ", ".join(found["downstream"]) or "nothing")
    line("models", ", ".join(found["models"]) or "none")
    for told in found["unknown"]:
        line("not known", told)


def _release(release: dict[str, Any] | None) -> str:
    if release is None:
        return "none"
    back = f", release {release['restores']}'s tables" if release["restores"] else ""
    return f"release {release['release_id']}, as of {release['as_of']}, published {release['published_at']}{back}"
