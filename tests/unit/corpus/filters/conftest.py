"""One document through the filters, and a page of sound prose to spoil."""

from dataclasses import dataclass
from typing import Any

import pytest

from baltoro.corpus.filters import (
    Facts,
    FilterConfig,
    Measurement,
    Parts,
    Verdict,
    decide,
    facts_of,
    keywords_of,
    language_of,
    measure,
    parts_of,
)
from baltoro.corpus.words import words_of
from baltoro.papers.schema import Paper


@dataclass(frozen=True)
class Judged:
    facts: Facts
    scores: dict[str, float]
    verdict: Verdict | None
    parts: Parts
    measurement: Measurement

    @property
    def reason(self) -> str | None:
        return self.verdict.reason if self.verdict else None


def judge_text(text: str, config: FilterConfig | None = None, paper: Paper | None = None) -> Judged:
    config = config or FilterConfig()
    words = words_of(text)
    parts = parts_of(text, words)
    facts = facts_of(paper or Paper(), language_of(text, words, parts))
    measurement = measure(text, words, facts, parts=parts, keywords=keywords_of(config.keywords.any_of))
    verdict = decide(measurement.scores, facts, config)
    return Judged(facts, measurement.scores, verdict, parts, measurement)


@pytest.fixture(scope="session")
def judge() -> Any:
    """A function from a text (and a config, and a paper) to everything the filters say about it."""
    return judge_text


PROSE = (
    """
# Meltwater storage below the tongue of a valley glacier

## Abstract

Glaciers of the inner valley lose more ice by melt at their bed than their surface balance suggests.
We followed the water through two summers with dye, pressure sensors and a line of seismometers, and
found that a third of it stays below the ice for longer than a week. The storage grows with the
length of the warm spell and empties when the first cold night closes the crevasses.

## Introduction

Water that reaches the bed of a glacier may leave within hours through a channel, or linger in
cavities behind bumps of rock. Which of the two happens decides how fast the ice slides. Early
models took the drainage to be either open or closed; later work showed that both states can exist
side by side, separated by a few tens of metres. What switches a patch of the bed from one to the
other has remained unclear, because holes drilled to the bed sample single points and dye returns
only an average over the whole path.

Here we combine the two kinds of measurement. Our aim is to say where the water was when it was not
moving, how much of it there was, and whether the glacier noticed. The site was chosen for its
simple shape: one basin, one outlet, no lake at the margin, and a rock bed that crops out on both
sides.

## Field site and methods

The tongue is four kilometres long and up to 180 m thick. A stream gauge stands 300 m below the
snout, where a road bridge gives a fixed section. We injected fluorescein into moulins at three
heights on eleven days, and recorded its return every minute. Pressure was logged in nine boreholes;
two of them froze in the second winter and are left out.

Seismic noise between two and eight hertz rises with discharge. After removing the tremor of the
road we used its ratio between stations to locate the noisiest reach of the bed, which we take as
the main channel. Errors were found by repeating the location with every station left out in turn.

## Results

Transit times fell from five hours in June to fifty minutes in August, as expected for a channel
that grows. The recovered mass of dye, however, also fell: in the hottest week only 62 per cent came
back within three days. The missing part arrived later as a long tail that lasted until a frost in
September. At the same time the boreholes furthest from the channel recorded high and steady
pressure, while those beside it followed the daily cycle of melt.

## Discussion and conclusion

The simplest reading is that high pressure in the channel pushes water sideways into cavities each
afternoon, and that not all of it finds the way back during the night. Such a pump has been proposed
on theoretical grounds, but was never seen. It explains why the ice moved fastest not at peak
discharge but two days after it. If other glaciers store a similar share, the models that route all
melt through channels predict the timing of floods too early, and the sliding speed too low.
""".strip()
    .replace("\n\n", "\0")
    .replace("\n", " ")
    .replace("\0", "\n\n")
)


@pytest.fixture(scope="session")
def prose() -> str:
    """A short paper of own wording, as the style k2 renders one, without citations and formulas."""
    return PROSE
