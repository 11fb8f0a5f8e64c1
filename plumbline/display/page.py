"""Pages that people open in a browser: one file each, no script, nothing fetched from anywhere."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from plumbline import clock, files
from plumbline.display import figures

TEMPLATES = Path(__file__).parent / "pages"


def write(path: Path, template: str, **context: Any) -> Path:
    """Renders a template of `pages/` into a file. What goes in is escaped, but for what it marks `safe`.

    A name that the template uses and the context lacks raises jinja2.UndefinedError.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, short=short)
    rendered = environment.get_template(template).render(
        light=figures.variables(dark=False),
        dark=figures.variables(dark=True),
        clock=clock.now(),
        replay=clock.is_replay(),
        **context,
    )
    files.write_whole(path, rendered + "\n")
    return path


def number(value: float | int | None) -> str:
    """A number as a person reads it: thousands apart, four significant digits, – for none."""
    if value is None or value != value:
        return "–"
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def short(value: str | datetime) -> str:
    """A hash, commit or time, as short as it still tells: 12 characters, or the minute."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M} UTC"
    return value.removeprefix("sha256:")[:12] + ("+" if "-dirty" in value else "")
