"""A small paper with everything that signals are made of."""

import pytest

from baltoro.papers.schema import Block, Inline, Paper, Reference, Section

LOREM = (
    "Glaciers of the northern range lost mass in every season that was measured, and the loss was largest on "
    "the lower slopes where debris is thin. Stakes were read twice a year by the same team and corrected "
    "for snow. "
)


def text(*parts):
    """Return inlines: plain strings, or ``(kind, text, target)``."""
    return [Inline("text", part) if isinstance(part, str) else Inline(*part) for part in parts]


def paragraph(*parts):
    return Block("paragraph", text(*parts))


@pytest.fixture
def paper():
    abstract = (
        "Much ice of the range lies below debris. "
        "Here we show that debris thickness explains most of the loss. " + LOREM
    )
    cite = ("citation", "[1]", "b1")
    return Paper(
        paper_id="geo/p1.xml",
        uri="file:///geo/p1.xml",
        title="Debris thickness controls glacier loss in the northern range",
        abstract=[paragraph(abstract)],
        keywords=["glaciers", "debris", "None"],
        sections=[
            Section(
                1,
                "Introduction",
                blocks=[
                    paragraph(
                        LOREM * 5,
                        "Thin debris speeds up the melting of the ice below it in nearly all ranges ",
                        cite,
                        ".",
                    ),
                    paragraph(
                        "Thick debris protects the ice from the sun, as has long been known ", cite, "."
                    ),
                ],
            ),
            Section(
                1,
                "Methods",
                blocks=[
                    paragraph(LOREM * 4, "The stakes stood in a grid on both glaciers (Fig. 1)."),
                    Block(
                        "figure",
                        text("Positions of the stakes on both glaciers in the year 2010."),
                        label="Figure 1",
                        ref_id="f1",
                    ),
                ],
            ),
            Section(
                1,
                "Results",
                blocks=[
                    paragraph(
                        LOREM * 4,
                        "The mean loss of each glacier and season is given in ",
                        ("table_ref", "Table 1", "t1"),
                        ". The method follows the usual practice of the region ",
                        cite,
                        ".",
                    ),
                    Block(
                        "table",
                        text("Mean loss of mass by glacier and season, in metres."),
                        cells=[
                            ["Glacier", "Summer", "Winter"],
                            ["Western glacier", "1.2", "0.3"],
                            ["Eastern glacier", "0.9", "0.1"],
                        ],
                        label="Table 1",
                        ref_id="t1",
                    ),
                ],
            ),
        ],
        references=[Reference("b1", "Melting below debris: a review of ranges"), Reference("b2", "")],
    )
