"""Tables for terminals of any width: the rows of a table that does not fit become paragraphs instead of being cut."""

import textwrap
from typing import Any

from distill.cli.output import console


def print_table(table: Any) -> None:
    """Print a `rich.table.Table` of plain texts.

    In a terminal that is too narrow, cells would be cut off and 172.4 would read as 172. Each row then becomes a
    paragraph: `full: shared by none; weights 28.4; …`.
    """
    shown = console()
    if _needed_width(table) <= shown.width:
        shown.print(table)
        return
    lines = [table.title, *_paragraphs(table, shown.width), table.caption]
    shown.print("\n".join(str(line) for line in lines if line), markup=False)


def _needed_width(table: Any) -> int:
    """Return the width at which nothing is cut, in terminal columns; cells may wrap between words if allowed to."""
    from rich.cells import cell_len

    width = 2 if table.box is not None else 0
    for column in table.columns:
        texts = [str(column.header), *map(str, column.cells)]
        pieces = texts if column.no_wrap else [word for text in texts for word in text.split()]
        width += max((cell_len(piece) for piece in pieces), default=0) + table.padding[1] + table.padding[3] + 1
    return width - 1


def _paragraphs(table: Any, width: int) -> list[str]:
    names = [str(column.header) for column in table.columns]
    rows = zip(*(map(str, column.cells) for column in table.columns), strict=True)
    paragraphs, first = [], ""
    for row in rows:
        first = row[0] or first  # an empty cell repeats the one above
        told = [f"{name} {cell}".strip() for name, cell in zip(names[1:], row[1:], strict=True) if cell]
        text = f"{first}: {'; '.join(told)}"
        paragraphs += textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
    return paragraphs
