"""Tables for terminals, all in one style: narrow, so that they fit 80 columns."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

__all__ = ["text_table"]


def text_table(title: str, rows: Sequence[Sequence[str]]) -> Table:
    """Rows of text under a title, the first one being the heads of the columns."""
    heads, *others = rows
    table = Table(
        *heads,
        title=title,
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for row in others:
        table.add_row(*map(escape, row))
    return table
