"""Tables and lists of fields, laid out for the width of a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

COLUMN_GAP = INDENT = 2
"""Spaces between the columns of a table, and before what belongs to the line above."""
MAX_PARAGRAPH_LINES = 4
"""Of a row that is too wide for the terminal."""
MIN_FIELD_COLUMNS = 16
"""Of the values beside their names, on however narrow a terminal."""


def lay_out_table(
    columns: Sequence[tuple[str, bool]], rows: Iterable[Iterable[str]], width: int
) -> Iterator[RenderableType]:
    """Yields a table of at most `width` columns of the terminal, or a paragraph per row if there is not enough room.

    `columns` are pairs of title and whether the column may be truncated; the others, such as ids to copy, stay whole.
    """
    table = Table(box=None, pad_edge=False, padding=(0, COLUMN_GAP // 2), header_style="bold")
    cells = [[Text.from_markup(cell) for cell in row] for row in rows]
    titles = [Text(title) for title, _ in columns]
    widths = [max(text.cell_len for text in texts) for texts in zip(titles, *cells, strict=True)]
    gaps = COLUMN_GAP * (len(widths) - 1)
    for index, (title, may_truncate) in enumerate(columns):
        if may_truncate:
            left = width - gaps - sum(widths) + widths[index]
            widths[index] = min(widths[index], max(left, len(title)))
        table.add_column(title, no_wrap=True, overflow="ellipsis", width=widths[index])
    table.width = sum(widths) + gaps
    if cells and table.width > width:
        yield from _lay_out_paragraphs([title for title, _ in columns], cells, width)
        return
    for row in cells:
        table.add_row(*row)
    yield table


def _lay_out_paragraphs(titles: Sequence[str], rows: Iterable[Sequence[Text]], width: int) -> Iterator[RenderableType]:
    """Yields the first cell of each row, and below it the others with their titles."""
    for first, *others in rows:
        first.stylize("bold")
        yield first
        fields = [
            Text.assemble((title, "dim"), " " if title else "", cell)
            for title, cell in zip(titles[1:], others, strict=True)
            if cell
        ]
        text = Text(", ").join(fields)
        text.truncate(MAX_PARAGRAPH_LINES * (width - INDENT), overflow="ellipsis")
        yield Padding(text, (0, 0, 0, INDENT))


def lay_out_fields(fields: Iterable[tuple[str, str]], width: int | None) -> Iterator[Text]:
    """Yields the lines of names and values; fields without a value are left out.

    Values are wrapped between words at `width`, if there is one; a path or an id stays whole, so that it can be copied.
    """
    shown = [(Text(name), Text.from_markup(value)) for name, value in fields if value]
    name_columns = max((name.cell_len for name, _ in shown), default=0) + COLUMN_GAP
    for name, value in shown:
        room = None if width is None else max(width - name_columns, MIN_FIELD_COLUMNS)
        for index, line in enumerate(value.divide(_break_offsets(value.plain, room))):
            label = name.plain if index == 0 else ""
            line.rstrip()
            yield Text.assemble((label, "dim"), " " * (name_columns - Text(label).cell_len), line)


def _break_offsets(text: str, room: int | None) -> list[int]:
    """Returns where the lines after the first begin: at words that do not fit. Rich itself would break a long word."""
    offsets, used = [], 0
    for word in re.finditer(r"\S+\s*", text):
        if room is not None and used and used + cell_len(word[0].rstrip()) > room:
            offsets.append(word.start())
            used = 0
        used += cell_len(word[0])
    return offsets
