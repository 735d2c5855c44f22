"""Which reviews belong to which paper.

Three tries in a fixed order, each over what the ones before left: the file's stem (or the reviews' own id),
a metadata column of the paper, the normalised title. A key that stands for several papers or several reviewed
papers proves nothing by itself: within such a group the titles decide, and what they leave goes on to the
next try. Copies of one paper share one set of reviews: the first by ``paper_id`` gets it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from baltoro.core.errors import InputError
from baltoro.instructions.reviews.config import JoinConfig
from baltoro.instructions.reviews.readers import STAGE
from baltoro.instructions.reviews.records import ReviewedPaper
from baltoro.papers.detect import stem_of
from baltoro.papers.schema import Block, Inline, Paper, Reject

METHODS = ("own_file", "stem", "metadata", "title")
"""How a pair was found, in the order of the tries; ``own_file`` is a paper that carries its reviews."""

_EXAMPLES = 5
_STEM_SUFFIX = re.compile(r"[_-](?:content|paper|parsed|fulltext)$", re.IGNORECASE)
_PLACEHOLDERS = frozenset(("artitle title", "article title", "abstract", "untitled", "no title"))


@dataclass(frozen=True, slots=True)
class PaperKey:
    """What of a paper the join looks at; small, so that a million fit into memory."""

    paper_id: str
    uri: str
    stem: str
    column: str
    title: str


@dataclass(slots=True)
class Join:
    """The outcome of a join.

    Attributes:
        pairs: by ``paper_id``.
        found_by: pairs by one of :data:`METHODS`.
        titles_differ: ids of papers joined by stem or column whose title shares under half of its words with
            the reviews' title: worth a look.
        rejects: papers without reviews, reviews without paper, copies whose reviews another copy has.
    """

    pairs: dict[str, ReviewedPaper] = field(default_factory=dict)
    found_by: Counter[str] = field(default_factory=Counter)
    titles_differ: list[str] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)


def normalise_title(title: str) -> str:
    """Return a title's letters and digits in lower case, without accents, LaTeX commands and spaces.

    Without spaces, since parsers cut words (``PROMPT-ING``) and join them.

    >>> normalise_title("Résumé:  a PROMPT-ING\\nstudy")
    'resumeapromptingstudy'
    """
    plain = unicodedata.normalize("NFKD", re.sub(r"\\\\[a-zA-Z]+", "", title)).casefold()
    kept = "".join(character for character in plain if character.isalnum())
    return "" if title.strip().casefold() in _PLACEHOLDERS else kept


def paper_key(paper: Paper, config: JoinConfig) -> PaperKey:
    """Return what the join looks at of a paper."""
    name = paper.paper_id.partition("#")[2] or paper.uri or paper.paper_id
    column = paper.extra.get(config.metadata_column, "") if config.metadata_column else ""
    stem = _STEM_SUFFIX.sub("", stem_of(name))
    return PaperKey(paper.paper_id, paper.uri, stem, column.strip(), paper.title)


def join(papers: Iterable[PaperKey], reviewed: Sequence[ReviewedPaper], config: JoinConfig) -> Join:
    """Find the reviews of each paper.

    Args:
        papers: the papers that do not carry their own reviews.
        reviewed: the reviewed papers, from one place.
        config: the settings.

    Raises:
        InputError: under ``min_fraction`` of the smaller side found its partner.
    """
    found = Join()
    left = sorted(papers, key=lambda paper: paper.paper_id)
    # A reviewed paper may be found by its file's stem or by its own id.
    rest: list[ReviewedPaper] = sorted(reviewed, key=lambda one: (one.key, one.uri))
    smaller = min(len(left), len(rest))
    tries: list[tuple[str, Callable[[PaperKey], str], Callable[[ReviewedPaper], tuple[str, ...]]]] = [
        ("stem", lambda paper: paper.stem, lambda one: (one.key, one.stem)),
        ("metadata", lambda paper: paper.column, lambda one: (one.key, one.stem)),
        ("title", lambda paper: normalise_title(paper.title), lambda one: (normalise_title(one.title),)),
    ]
    everyone = list(left)
    for method, key_of, keys_of in tries:
        left, rest = _try(method, papers=left, reviewed=rest, key_of=key_of, keys_of=keys_of, found=found)
    _check(len(found.pairs), smaller, left, rest, config)
    joined_titles = {normalise_title(paper.title) for paper in everyone if paper.paper_id in found.pairs}
    for paper in left:
        copy = normalise_title(paper.title)
        if copy and copy in joined_titles:
            reason, detail = "another_copy_joined", "another copy of this paper has the reviews"
        else:
            reason = "paper_without_reviews"
            detail = f"no reviews under the stem {paper.stem!r} or the title {paper.title!r}"
        found.rejects.append(Reject(paper.paper_id, paper.uri, STAGE, reason, detail))
    for one in rest:
        detail = f"no paper under {one.key!r} or the title {one.title!r}"
        found.rejects.append(Reject(one.key, one.uri, STAGE, "reviews_without_paper", detail))
    return found


def _try(
    method: str,
    *,
    papers: list[PaperKey],
    reviewed: list[ReviewedPaper],
    key_of: Callable[[PaperKey], str],
    keys_of: Callable[[ReviewedPaper], tuple[str, ...]],
    found: Join,
) -> tuple[list[PaperKey], list[ReviewedPaper]]:
    """Add the pairs of one try to ``found`` and return what is left of both sides."""
    groups: dict[str, tuple[list[PaperKey], list[ReviewedPaper]]] = {}
    for paper in papers:
        if key := key_of(paper):
            groups.setdefault(key, ([], []))[0].append(paper)
    for one in reviewed:
        for key in dict.fromkeys(keys_of(one)):
            if key in groups:
                groups[key][1].append(one)
    taken: set[int] = set()
    for own_papers, own_reviewed in groups.values():
        free = [one for one in own_reviewed if id(one) not in taken]
        # In a group of one title, titles decide nothing: the first of each side makes the pair.
        exact = method == "title" or (len(own_papers) == 1 and len(free) == 1)
        pairs = [(own_papers[0], free[0])] if exact and free else _by_title(own_papers, free)
        for paper, one in pairs:
            taken.add(id(one))
            found.pairs[paper.paper_id] = one
            found.found_by[method] += 1
            if method != "title" and _differ(paper.title, one.title):
                found.titles_differ.append(paper.paper_id)
    return (
        [paper for paper in papers if paper.paper_id not in found.pairs],
        [one for one in reviewed if id(one) not in taken],
    )


def _by_title(
    papers: Sequence[PaperKey], reviewed: Sequence[ReviewedPaper]
) -> list[tuple[PaperKey, ReviewedPaper]]:
    """Return the pairs of a group that have one title; the first paper of a title gets the reviews."""
    pairs = []
    free = {normalise_title(one.title): one for one in reversed(reviewed)}
    for paper in papers:
        one = free.pop(normalise_title(paper.title), None) if normalise_title(paper.title) else None
        if one is not None:
            pairs.append((paper, one))
    return pairs


def _differ(title: str, other: str) -> bool:
    words, others = (set(re.findall(r"\w{3,}", text.casefold())) for text in (title, other))
    smaller = min(len(words), len(others))
    return bool(smaller) and 2 * len(words & others) < smaller


def _check(
    pairs: int, smaller: int, papers: list[PaperKey], reviewed: list[ReviewedPaper], config: JoinConfig
) -> None:
    if smaller and pairs / smaller >= config.min_fraction:
        return
    if not smaller:
        raise InputError(
            f"there is nothing to join: {len(papers)} papers and {len(reviewed)} reviewed papers; check "
            "instructions.reviews.papers and instructions.reviews.reviews"
        )
    some_papers = "; ".join(f"{paper.stem} ({paper.title[:60]!r})" for paper in papers[:_EXAMPLES])
    some_reviewed = "; ".join(f"{one.key} ({one.title[:60]!r})" for one in reviewed[:_EXAMPLES])
    raise InputError(
        f"only {pairs} of {smaller} papers and reviews found their partner ({pairs / smaller:.0%} of "
        f"the smaller "
        f"side), less than instructions.reviews.join.min_fraction = {config.min_fraction}.\n"
        f"  papers without reviews: {some_papers}\n"
        f"  reviews without paper: {some_reviewed}\n"
        "Name the column with the reviews' id in instructions.reviews.join.metadata_column (the table in "
        "instructions.reviews.papers_metadata), or lower min_fraction if the sets hardly overlap"
    )


def fill_empty(paper: Paper, reviewed: ReviewedPaper) -> Paper:
    """Return the paper with an empty title or abstract, or a parser's placeholder, filled from the reviews.

    The paper itself is not changed.
    """
    title = paper.title if normalise_title(paper.title) else reviewed.title or paper.title
    abstract = paper.abstract
    printed = " ".join(block.printed() for block in abstract)
    if not normalise_title(printed) and reviewed.abstract:
        paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", reviewed.abstract)]
        abstract = [Block("paragraph", [Inline("text", part)]) for part in paragraphs if part]
    if title == paper.title and abstract is paper.abstract:
        return paper
    return replace(paper, title=title, abstract=abstract)
