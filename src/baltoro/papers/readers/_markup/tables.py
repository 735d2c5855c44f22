"""Cells of pipe tables and of HTML tables."""

from __future__ import annotations

from baltoro.papers.readers._markup.inline import without_markup
from baltoro.papers.readers._text import collapse


def pipe_cells(line: str) -> list[str]:
    """Return the cells of one row of a pipe table, without markup."""
    row = line.strip().removeprefix("|")
    if row.endswith("|") and not row.endswith("\\|"):
        row = row[:-1]
    if "\\|" in row:
        parts = [part.replace("\0", "|") for part in row.replace("\\|", "\0").split("|")]
    else:
        parts = row.split("|")
    return [without_markup(part, "markdown") for part in parts]


def html_cells(source: str) -> tuple[list[list[str]], str]:
    """Return the rows of an HTML table (of its outermost one) and its caption."""
    from lxml import html as lxml_html

    table = lxml_html.fromstring(source)
    caption = " ".join(collapse("".join(map(str, element.itertext()))) for element in table.iter("caption"))
    for line_break in table.iter("br", "p", "li"):
        line_break.tail = " " + (line_break.tail or "")
    rows = []
    for row in table.iter("tr"):
        if next(row.iterancestors("td", "th"), None) is not None:
            continue
        cells: list[str] = []
        for cell in row.iterchildren("td", "th"):
            cells.append(collapse("".join(map(str, cell.itertext()))))
            span = cell.get("colspan", "1")
            cells.extend([""] * (min(int(span), 100) - 1 if span.isdecimal() else 0))
        rows.append(cells)
    return rows, caption
