"""Docling output: the ``DoclingDocument`` tree as JSON, and its Markdown export.

The tree: ``texts``, ``tables``, ``pictures`` and ``groups`` are flat arrays; ``body.children`` and the
``children`` of every item give the reading order as JSON pointers (``{"$ref": "#/texts/3"}``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from baltoro.papers.readers._builder.build import build_paper
from baltoro.papers.readers._builder.draft import Source
from baltoro.papers.readers._markup.blocks import RawBlock, RawKind
from baltoro.papers.readers._markup.latex import formula_block
from baltoro.papers.readers._markup.scanner import scan_blocks
from baltoro.papers.readers._text import collapse
from baltoro.papers.readers.markdown import normalise_line_ends
from baltoro.papers.schema import Inline, Paper, ReadReject

_COMMENT_COUNTS = {"formula-not-decoded": "formulas_not_decoded", "image": "images"}
_NUMBERED_LINE = re.compile(r"[ \t]{0,4}(\d{1,4})(?:[ \t]+|$)")
_ONLY_NUMBERS = re.compile(r"[ \t]*(?:[-*][ \t]+)?(\d{1,4}(?:[ \t]+\d{1,4})*)[ \t]*$")
_FEWEST_LINE_NUMBERS = 10
_CONSISTENT_FRACTION = 0.95
_COVERED_FRACTION = 0.9
_FURNITURE = frozenset({"page_header", "page_footer"})
_ARRAYS = ("texts", "tables", "pictures", "groups", "key_value_items", "form_items")
_NOTE_MARK = re.compile(r"(\d{1,3}|[*†‡§¶]{1,3})[.)]?\s+(?=\S)")
_EQUATION_NUMBER = r"(?:[A-Z]\.?)?\d{1,3}(?:\.\d{1,3})?[a-z]?"
_PRINTED_NUMBER = re.compile(rf"(?:^|\s)\(({_EQUATION_NUMBER})\)$")
_DECODED_NUMBER = re.compile(
    rf"(?P<gap>(?:(?:\\q?quad\b|\\hfill\b|\\eqno\b|~)\s*(?:\\[,;: ]\s*)*)+|(?<=\s))"
    rf"(?:\\left)?\(\s*(?P<number>{_EQUATION_NUMBER})\s*(?:\\right)?\)\s*$"
)
_MOST_CELLS = 1_000_000
_NO_SPACE_BEFORE = tuple(",.;:!?)]}’”")
_NO_SPACE_AFTER = tuple("([{“‘")


def parse_docling_markdown(text: str) -> Paper:
    """Return the paper of a Docling Markdown export.

    A consistent column of line numbers (review copies) is removed (``extra["line_numbers_removed"]``), as
    are the placeholders of undecoded formulas (``extra["formulas_not_decoded"]``) and of pictures
    (``extra["images"]``).

    Args:
        text: the decoded file.

    Raises:
        ReadReject: ``empty_file`` for white space only, ``no_text`` if only placeholders are left.
    """
    text = normalise_line_ends(text)
    if not text or text.isspace():
        raise ReadReject("empty_file", "the Docling Markdown file is empty or holds only white space")
    counts: Counter[str] = Counter()
    text, counts["line_numbers_removed"] = _without_line_numbers(text)
    scanned = scan_blocks(text, "markdown")
    for comment, count in scanned.comments.items():
        counts[_COMMENT_COUNTS.get(comment, "comments_removed")] += count
    return build_paper(
        Source(
            scanned.blocks,
            "markdown",
            link_names=scanned.link_names,
            counts=counts,
            loose_lines_are_authors=True,
        )
    )


def _without_line_numbers(text: str) -> tuple[str, int]:
    """Return the text without its line numbers, and how many were removed (none if in doubt)."""
    lines = text.split("\n")
    numbered = [_NUMBERED_LINE.match(line) for line in lines]
    filled = sum(1 for line in lines if line.strip())
    values = [int(match[1]) for match in numbered if match]
    if (
        len(values) >= _FEWEST_LINE_NUMBERS
        and len(values) >= _COVERED_FRACTION * filled
        and _count_up(values)
    ):
        kept = [line[match.end() :] if match else line for line, match in zip(lines, numbered, strict=True)]
        return "\n".join(kept), len(values)
    removed = 0
    run: list[int] = []
    run_values: list[int] = []

    def close() -> None:
        nonlocal removed
        if len(run_values) >= _FEWEST_LINE_NUMBERS and _count_up(run_values):
            for index in run:
                lines[index] = ""
            removed += len(run_values)
        run.clear()
        run_values.clear()

    for index, line in enumerate(lines):
        numbers = _ONLY_NUMBERS.match(line)
        if numbers:
            run.append(index)
            run_values.extend(map(int, numbers[1].split()))
        elif line.strip():
            close()
    close()
    return ("\n".join(lines), removed) if removed else (text, 0)


def _count_up(values: list[int]) -> bool:
    """Tell whether numbers go up by one (or by five), but for a start again at each page."""
    steps = [right - left for left, right in pairwise(values)]
    usual = max((1, 5), key=steps.count)
    restarts = sum(right <= 1 for right in values[1:])
    return steps.count(usual) + restarts >= _CONSISTENT_FRACTION * len(steps)


def parse_docling_json(document: dict[str, Any]) -> Paper:
    """Return the paper of a ``DoclingDocument``.

    Each node is read once, in reading order. Page headers and footers and the words inside pictures are
    dropped and counted (``extra["furniture_dropped"]``, ``extra["picture_texts_dropped"]``). Pointers to
    nothing and to nodes already read are skipped and counted (``extra["dangling_references"]``,
    ``extra["repeated_references"]``); nodes that no pointer reaches come last
    (``extra["unreferenced_nodes"]``).

    Args:
        document: the decoded JSON object.

    Raises:
        ReadReject: ``unknown_format`` if it is not a Docling document, ``malformed_json`` if its parts
            have the wrong type, ``no_text`` if it holds no text.
    """
    if document.get("schema_name") != "DoclingDocument" and not ("body" in document and "texts" in document):
        raise ReadReject(
            "unknown_format", "not a DoclingDocument: it has neither that schema_name nor body and texts"
        )
    tree = _Tree(document)
    blocks = list(tree.blocks())
    return build_paper(Source(blocks, "plain", counts=tree.counts, loose_lines_are_authors=True))


class _Tree:
    """The nodes of one document, walked without recursion."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.counts: Counter[str] = Counter()
        self._nodes: dict[str, dict[str, Any]] = {}
        for name in _ARRAYS:
            array = document.get(name) or []
            if not isinstance(array, list):
                raise ReadReject(
                    "malformed_json", f"DoclingDocument: {name} is not a list but {type(array).__name__}"
                )
            for index, node in enumerate(array):
                if isinstance(node, dict):
                    self._nodes[f"#/{name}/{index}"] = node
        self._body = document.get("body") or {}
        if not isinstance(self._body, dict):
            raise ReadReject(
                "malformed_json", f"DoclingDocument: body is not an object but {type(self._body).__name__}"
            )
        self._seen: set[str] = set()
        self._links: dict[tuple[str, str], list[str]] = {}
        self._top = self._checked(self._body.get("children"))
        for reference, node in self._nodes.items():
            for name in ("children", "captions", "footnotes"):
                pointers = node.get(name)
                if pointers:
                    self._links[reference, name] = self._checked(pointers)

    def _checked(self, value: Any) -> list[str]:
        """Return the pointers of a list that lead to a node."""
        good = []
        for item in value if isinstance(value, list) else ():
            reference = item.get("$ref") or item.get("cref") if isinstance(item, dict) else item
            if isinstance(reference, str) and reference in self._nodes:
                good.append(reference)
            else:
                self.counts["dangling_references"] += 1
        return good

    def _linked(self, reference: str, name: str) -> list[str]:
        return self._links.get((reference, name), [])

    def blocks(self) -> Iterator[RawBlock]:
        """Yield the blocks of all nodes, the unreferenced ones last."""
        order = list(self._walk(self._top))
        owned = self._captions(order)
        for reference, level in order:
            if reference not in owned:
                yield from self._node(reference, level)
        left = [
            reference
            for reference, node in self._nodes.items()
            if reference not in self._seen
            and (self._words(node) or reference.startswith("#/tables/"))
            and node.get("content_layer", "body") == "body"
        ]
        for reference, level in self._walk(left):
            if reference not in owned:
                before = self.counts["furniture_dropped"]
                yield from self._node(reference, level)
                self.counts["unreferenced_nodes"] += before == self.counts["furniture_dropped"]

    def _walk(self, start: list[str]) -> Iterator[tuple[str, int]]:
        """Yield each reachable node once with its list depth; those inside pictures only count."""
        stack: list[tuple[Iterator[str], int, bool]] = [(iter(start), 0, False)]
        while stack:
            references, level, inside = stack[-1]
            reference = next(references, None)
            if reference is None:
                stack.pop()
                continue
            if reference in self._seen:
                self.counts["repeated_references"] += 1
                continue
            self._seen.add(reference)
            node = self._nodes[reference]
            part = reference.split("/")[1]
            if part == "groups" and node.get("label") == "inline":
                yield reference, level
                self._seen.update(self._linked(reference, "children"))
                continue
            if not inside:
                yield reference, level
            elif part == "texts" and self._words(node):
                self.counts["picture_texts_dropped"] += 1
            children = self._linked(reference, "children")
            if children:
                deeper = level + (node.get("label") == "list_item")
                own = {*self._linked(reference, "captions"), *self._linked(reference, "footnotes")}
                children = [child for child in children if child not in own]
                stack.append((iter(children), deeper, inside or part in ("pictures", "tables")))

    def _captions(self, order: list[tuple[str, int]]) -> set[str]:
        """Return the nodes that a table, picture or listing in the order prints as its caption or note."""
        printed = {reference for reference, _ in order}
        owned: set[str] = set()
        for (reference, name), pointers in self._links.items():
            if name != "children" and reference in printed:
                owned.update(pointers)
        self._seen |= owned
        return owned

    @staticmethod
    def _words(node: dict[str, Any]) -> str:
        text = node.get("text")
        if not isinstance(text, str) or not text.strip():
            text = node.get("orig")
        return text if isinstance(text, str) and not text.isspace() else ""

    def _node(self, reference: str, level: int) -> Iterator[RawBlock]:
        node = self._nodes[reference]
        part = reference.split("/")[1]
        label = str(node.get("label", ""))
        if label in _FURNITURE or node.get("content_layer") == "furniture":
            if self._words(node):
                self.counts["furniture_dropped"] += 1
            return
        if part in ("tables", "pictures"):
            yield RawBlock(
                "table" if part == "tables" else "figure",
                collapse(" ".join(self._linked_words(reference, "captions"))),
                cells=self._cells(node) if part == "tables" else [],
            )
            for words in self._linked_words(reference, "footnotes"):
                yield self._note(words)
        elif part in ("key_value_items", "form_items"):
            graph = node.get("graph")
            cells = graph.get("cells") if isinstance(graph, dict) else None
            for cell in cells if isinstance(cells, list) else ():
                if isinstance(cell, dict) and (words := self._words(cell)):
                    yield self._plain("paragraph", words)
        elif part == "groups":
            if label == "inline":
                yield self._inline_group(reference, level)
        elif (words := self._words(node)) or label == "formula":
            yield from self._text(reference, node, words, label, level)

    def _text(
        self, reference: str, node: dict[str, Any], words: str, label: str, level: int
    ) -> Iterator[RawBlock]:
        match label:
            case "title":
                yield RawBlock("heading", collapse(words), level=1)
            case "section_header":
                depth = node.get("level")
                yield RawBlock(
                    "heading",
                    collapse(words),
                    level=1 + min(max(depth, 1), 8) if isinstance(depth, int) else 2,
                )
            case "list_item":
                marker = node.get("marker")
                block = self._plain("item", words)
                block.level = level
                block.marker = collapse(marker) if isinstance(marker, str) and marker.strip() else "•"
                yield block
            case "formula":
                span, number = self._numbered_formula(node)
                if span is not None:
                    yield RawBlock("formula", inlines=[span], marker=number)
            case "code":
                yield RawBlock("code", words)
                for caption in self._linked_words(reference, "captions"):
                    yield self._plain("paragraph", caption)
            case "footnote":
                yield self._note(words)
            case _:
                yield self._plain("paragraph", words)

    def _formula(self, node: dict[str, Any]) -> Inline | None:
        """Return decoded TeX, or the glyphs as they were found where the formula was not decoded."""
        text = node.get("text")
        if isinstance(text, str) and text.strip():
            return Inline("formula", collapse(text), "tex")
        self.counts["formulas_not_decoded"] += 1
        glyphs = collapse(self._words(node))
        return Inline("formula", glyphs) if glyphs else None

    def _numbered_formula(self, node: dict[str, Any]) -> tuple[Inline | None, str | None]:
        """Return a displayed formula, and the number printed beside it, which the TeX may not hold."""
        span = self._formula(node)
        original = node.get("orig")
        printed = _PRINTED_NUMBER.search(collapse(original)) if isinstance(original, str) else None
        number = f"({printed[1]})" if printed else None
        if span is None:
            return None, None
        if span.target is None:
            glyphs = span.text[: printed.start()] if printed else ""
            return (Inline("formula", glyphs), number) if glyphs else (span, None)
        block = formula_block(span.text)
        span.text = block.text
        if block.marker:
            return span, block.marker
        decoded = _DECODED_NUMBER.search(span.text)
        # Decoded TeX sets every token apart: only a gap, or the page, tells "(3)" from an argument.
        if decoded and (decoded["gap"] or (printed and printed[1] == decoded["number"])):
            span.text = span.text[: decoded.start()].rstrip()
            number = f"({decoded['number']})"
        return span, number

    def _inline_group(self, group: str, level: int) -> RawBlock:
        spans: list[Inline] = []
        kind: str = "paragraph"
        marker = None
        for reference in self._linked(group, "children"):
            child = self._nodes[reference]
            if child.get("label") == "formula":
                span = self._formula(child)
            else:
                words = collapse(self._words(child))
                span = Inline("text", words) if words else None
            if span is None:
                continue
            if child.get("label") == "list_item":
                kind, marker = "item", child.get("marker") or "•"
            if (
                spans
                and not span.text.startswith(_NO_SPACE_BEFORE)
                and not spans[-1].text.endswith(_NO_SPACE_AFTER)
            ):
                spans.append(Inline("text", " "))
            spans.append(span)
        merged: list[Inline] = []
        for span in spans:
            if merged and span.kind == merged[-1].kind == "text":
                merged[-1] = Inline("text", merged[-1].text + span.text)
            else:
                merged.append(span)
        text = "".join(span.text for span in merged)
        return RawBlock(
            "item" if kind == "item" else "paragraph", text, level=level, marker=marker, inlines=merged
        )

    def _linked_words(self, owner: str, name: str) -> list[str]:
        return [
            words for reference in self._linked(owner, name) if (words := self._words(self._nodes[reference]))
        ]

    @staticmethod
    def _plain(kind: RawKind, words: str) -> RawBlock:
        return RawBlock(kind, collapse(words))

    def _note(self, words: str) -> RawBlock:
        mark = _NOTE_MARK.match(words)
        block = self._plain("note", words[mark.end() :] if mark else words)
        block.marker = mark[1] if mark else None
        return block

    @staticmethod
    def _cells(node: dict[str, Any]) -> list[list[str]]:
        """Return the rows of a table; a cell that spans several columns or rows stands in the first."""
        data = node.get("data")
        if not isinstance(data, dict):
            return []
        grid = data.get("grid")
        if isinstance(grid, list) and grid:
            return [
                [_cell_text(cell, row_index, column) for column, cell in enumerate(row)]
                for row_index, row in enumerate(grid)
                if isinstance(row, list)
            ]
        cells = [cell for cell in data.get("table_cells") or [] if isinstance(cell, dict)]
        places = [
            (_offset(cell, "row"), _offset(cell, "col"), collapse(str(cell.get("text") or "")))
            for cell in cells
        ]
        rows = 1 + max((row for row, _, _ in places), default=-1)
        columns = 1 + max((column for _, column, _ in places), default=-1)
        if rows * columns > _MOST_CELLS:
            raise ReadReject(
                "malformed_json", f"DoclingDocument: a table of {rows} rows and {columns} columns"
            )
        table = [[""] * columns for _ in range(rows)]
        for row, column, words in places:
            table[row][column] = f"{table[row][column]} {words}".strip()
        return table


def _offset(cell: dict[str, Any], axis: str) -> int:
    value = cell.get(f"start_{axis}_offset_idx")
    return max(value, 0) if isinstance(value, int) else 0


def _cell_text(cell: Any, row: int, column: int) -> str:
    if not isinstance(cell, dict):
        return ""
    start_row, start_column = cell.get("start_row_offset_idx"), cell.get("start_col_offset_idx")
    if (
        isinstance(start_row, int)
        and isinstance(start_column, int)
        and (start_row, start_column) != (row, column)
    ):
        return ""
    return collapse(str(cell.get("text") or ""))
