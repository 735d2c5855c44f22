"""Papers for the tests of cleaning."""

from collections.abc import Callable

import pytest

from baltoro.papers.schema import Block, Inline, Paper, Section


def _block(content: str | Block) -> Block:
    return content if isinstance(content, Block) else Block("paragraph", [Inline("text", content)])


@pytest.fixture
def make_paper() -> Callable[..., Paper]:
    """Make a paper with one section, or with several given as ``{heading: [block or text]}``."""

    def make(*blocks: str | Block, sections: dict | None = None, **fields) -> Paper:
        given = sections if sections is not None else {"Results": list(blocks)}
        return Paper(
            paper_id="s/a",
            format=fields.pop("format", "grobid_tei"),
            sections=[
                Section(1, heading, blocks=[_block(b) for b in content]) for heading, content in given.items()
            ],
            **fields,
        )

    return make


@pytest.fixture
def printed() -> Callable[[Paper], list[str]]:
    """Give the texts of a paper's blocks."""
    return lambda paper: [block.printed() for block in paper.blocks()]
