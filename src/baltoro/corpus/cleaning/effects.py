"""What cleaning did to one paper: counts for every rule, and on request excerpts from before and after."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

_CONTEXT_CHARACTERS: Final = 60
_LONGEST_EXCERPT_CHARACTERS: Final = 300
# What these change, no rule before them looks for.
_SETTLED: Final = frozenset(
    {"unicode_repair", "ligatures", "control_characters", "formulas_repaired", "emails", "phones"}
)


@dataclass(frozen=True, slots=True)
class CleaningStep:
    """What one rule did to one paper.

    Attributes:
        rule: a name in :data:`baltoro.corpus.cleaning.RULES`, which says what is counted.
        count: how often, 0 if the rule found nothing.
        examples: ``(before, after)`` excerpts around the change; an empty ``after`` means that it is gone.
    """

    rule: str
    count: int
    examples: list[tuple[str, str]]


@dataclass(slots=True)
class Effects:
    """A tally of the rules' effects on one paper.

    Attributes:
        examples_per_rule: how many excerpts to keep; 0 while a corpus is built.
        counts: by rule.
        examples: by rule.
        unsettled: number of effects after which another rule may find something; a pass without any is the
            last one.
    """

    examples_per_rule: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    unsettled: int = 0

    def add(self, rule: str, before: str, after: str, count: int = 1, *, settled: bool = False) -> None:
        """Count an effect of a rule on a text.

        Args:
            rule: its name.
            before: the text, or what stands for it in an excerpt.
            after: what became of it, empty if it is gone.
            count: how often.
            settled: whether no rule can find anything because of this effect that it had not found without.
        """
        self.counts[rule] = self.counts.get(rule, 0) + count
        self.unsettled += not settled and rule not in _SETTLED
        if self.examples_per_rule:
            kept = self.examples.setdefault(rule, [])
            if len(kept) < self.examples_per_rule:
                kept.append(excerpts(before, after))


def excerpts(before: str, after: str) -> tuple[str, str]:
    """Return the parts of two texts that differ, with some text around them."""
    if not after:
        return _shortened(before), ""
    shortest = min(len(before), len(after))
    start = next((i for i in range(shortest) if before[i] != after[i]), shortest)
    tail = next((i for i in range(shortest - start) if before[-1 - i] != after[-1 - i]), shortest - start)
    first = max(start - _CONTEXT_CHARACTERS, 0)
    last = max(tail - _CONTEXT_CHARACTERS, 0)
    return _shortened(before[first : len(before) - last]), _shortened(after[first : len(after) - last])


def _shortened(text: str) -> str:
    if len(text) <= _LONGEST_EXCERPT_CHARACTERS:
        return text
    half = _LONGEST_EXCERPT_CHARACTERS // 2
    return f"{text[:half]} … {text[-half:]}"
