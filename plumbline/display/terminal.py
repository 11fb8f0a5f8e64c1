"""How our tables look in a terminal."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def console(width: int) -> Console:
    """The terminal, as wide as it is; `width` characters where output goes elsewhere."""
    from rich.console import Console

    terminal = Console(highlight=False)
    return terminal if terminal.is_terminal else Console(highlight=False, width=width)


def table(title: str, *columns: str, right: Collection[str] = ()) -> Table:
    """An empty table; columns named in `right` are numbers, and stand right."""
    from rich import box
    from rich.table import Table

    empty = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        empty.add_column(column, overflow="fold", justify="right" if column in right else "left")
    return empty


def number(value: float | None, form: str) -> str:
    """A number in a table, as `form` (`{:.3f}`) writes it; a dash for one that is not known."""
    return "–" if value is None else form.format(value)
