"""Text on its way into blocks: what the walker adds to, and when a block ends."""

from __future__ import annotations

from baltoro.papers.readers._xml import InlineBuilder, collapse_space
from baltoro.papers.schema import Block, BlockKind


class Flow(InlineBuilder):
    """A builder of spans for the block under construction, with the list that finished blocks go to.

    ``is_flat`` text has no blocks (captions, cells, headings): what would be a block is set off by spaces.
    ``is_joined`` text keeps its paragraphs in one block (list items). ``is_string`` means that span kinds
    are not needed. The label goes to the first block; one that is not printed in the source (the number of
    a list item) is dropped when no text comes. ``notes`` are footnotes that wait for the end of the block.
    """

    __slots__ = (
        *("blocks", "kind", "label", "notes", "ref_id"),
        *("is_flat", "is_joined", "is_label_printed", "is_string"),
    )

    def __init__(
        self,
        blocks: list[Block],
        kind: BlockKind = "paragraph",
        *,
        label: str | None = None,
        ref_id: str | None = None,
        is_flat: bool = False,
        is_joined: bool = False,
        is_string: bool = False,
        is_label_printed: bool = True,
    ) -> None:
        # What ``InlineBuilder`` sets, without the call: one flow is made per list item, caption and cell.
        self.pieces = []
        self.spans = []
        self.blocks = blocks
        self.kind = kind
        self.label = label
        self.ref_id = ref_id
        self.is_flat = is_flat
        self.is_joined = is_joined
        self.is_string = is_string
        self.is_label_printed = is_label_printed
        self.notes: list[Block] = []

    def flush(self) -> None:
        """End the block under construction, if it has text."""
        if not self.pieces and not self.spans:
            return
        spans = self.build()
        if spans:
            self.blocks.append(Block(self.kind, spans, [], self.label, self.ref_id))
            self.label = self.ref_id = None

    def close(self) -> None:
        """End the block; a printed label without text and waiting footnotes become blocks of their own."""
        self.flush()
        if self.label is not None and self.is_label_printed:
            self.blocks.append(Block(self.kind, [], [], self.label, self.ref_id))
            self.label = self.ref_id = None
        if self.notes:
            self.blocks.extend(self.notes)
            self.notes = []

    def printed(self) -> str:
        """Return the text of a flow without blocks (``is_flat``) on one line, and start anew."""
        if self.spans:
            return "".join([inline.text for inline in self.build()])
        text = collapse_space("".join(self.pieces)).strip(" ")
        self.pieces.clear()
        return text
