"""Small parsed papers in several formats, with planted copies and broken files, and the truth about them.

Every text is made of the same few templates, so that a tiny model learns something of it in a few steps, and
every paper has one sentence that stands nowhere else, so that a test can follow it.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

_SUBJECTS = (
    *("the granite", "the basalt", "the gneiss", "the lava flow", "the delta", "the glacier", "the aquifer"),
    *("the fault zone", "the sediment", "the magma", "the crust", "the limestone"),
)
_VERBS = ("cools", "rises", "moves", "erodes", "fractures", "subsides", "deforms", "thickens", "weathers")
_ADVERBS = ("slowly", "quickly", "in pulses", "from below", "along old cracks", "after heavy rain")
_PLACES = (
    "under the ridge",
    "near the coast",
    "at shallow depth",
    "in the northern basin",
    "below the moraine",
)
_REASONS = (
    "because heat is lost at its margin",
    "since water fills the pores",
    "although the slope is gentle",
    "while the stress grows",
    "as the load is removed",
)
_HEADINGS = ("Introduction", "Data", "Results")
_PARAGRAPHS = 2
_SENTENCES = 4


@dataclass(frozen=True, slots=True)
class PaperText:
    """What one paper says, before it is written in a format.

    ``mark`` is the sentence that only this paper has; it is part of the first paragraph. Each section is a
    heading and its paragraphs.
    """

    title: str
    abstract: str
    mark: str
    sections: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(slots=True)
class WrittenPapers:
    """What :func:`write_papers` wrote: the truth that a corpus has to agree with.

    Attributes:
        marks: the sentence that only this paper has, by key of each paper that a corpus keeps.
        duplicates: key of the kept copy, by key of the one that gives way.
        rejected: reason, by key (with ``#record`` where a file holds several records).
    """

    marks: dict[str, str] = field(default_factory=dict)
    duplicates: dict[str, str] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)

    @property
    def records(self) -> int:
        """Number of records that reading these files gives."""
        return len(self.marks) + len(self.duplicates) + len(self.rejected)

    @property
    def reasons(self) -> dict[str, int]:
        """Number of rejects by reason."""
        return dict(sorted(Counter(self.rejected.values()).items()))


def write_papers(
    folder: Path,
    count: int,
    seed: int = 0,
    *,
    formats: Sequence[str] = ("markdown", "grobid_tei", "jats", "s2orc"),
    duplicates: int = 0,
    broken: Sequence[str] = (),
) -> WrittenPapers:
    """Write papers of some 300 words, the same for the same arguments.

    Args:
        folder: made if it is not there.
        count: papers that a corpus keeps, written in the formats by turns.
        seed: another one gives other papers.
        formats: keys of :data:`FORMATS`.
        duplicates: further copies, the first of each of the first so many papers.
        broken: keys of :data:`BROKEN`; each adds a file and its rejects, and the papers that stand in it.

    Returns:
        What was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = WrittenPapers()
    for index in range(count):
        paper = make_paper(index, seed)
        suffix, render = FORMATS[formats[index % len(formats)]]
        data = render(paper).encode()
        names = [f"paper-{index:04d}{suffix}"]
        if index < duplicates:
            names.append(f"paper-{index:04d}-copy{suffix}")
        for name in names:
            (folder / name).write_bytes(data)
        kept, *gone = sorted(names)
        written.marks[kept] = paper.mark
        written.duplicates |= dict.fromkeys(gone, kept)
    for kind in broken:
        file = BROKEN[kind]
        (folder / file.name).write_bytes(file.make())
        written.rejected |= {file.name + record: reason for record, reason in file.rejected.items()}
        written.marks |= {file.name + record: mark for record, mark in file.marks.items()}
    return written


def make_paper(index: int, seed: int = 0) -> PaperText:
    """Return the ``index``-th paper of a seed; no two have the same text."""
    chance = random.Random(f"{seed}-{index}")
    mark = f"Borehole number {seed}-{index} was logged for this study."
    sections = []
    for heading in _HEADINGS:
        paragraphs = [" ".join(_sentence(chance) for _ in range(_SENTENCES)) for _ in range(_PARAGRAPHS)]
        sections.append((heading, tuple(paragraphs)))
    heading, paragraphs = sections[0][0], list(sections[0][1])
    paragraphs[0] = f"{mark} {paragraphs[0]}"
    sections[0] = (heading, tuple(paragraphs))
    subject = chance.choice(_SUBJECTS)
    return PaperText(
        title=f"How {subject} {chance.choice(_VERBS)} {chance.choice(_PLACES)}",
        abstract=" ".join(_sentence(chance) for _ in range(3)),
        mark=mark,
        sections=tuple(sections),
    )


def _sentence(chance: random.Random) -> str:
    words = [chance.choice(part) for part in (_SUBJECTS, _VERBS, _ADVERBS, _PLACES, _REASONS)]
    text = f"{words[0]} {words[1]} {words[2]} {words[3]}, {words[4]}."
    return text[0].upper() + text[1:]


def markdown(paper: PaperText) -> str:
    """Return a paper as Markdown."""
    parts = [f"# {paper.title}", "## Abstract", paper.abstract]
    for heading, paragraphs in paper.sections:
        parts += [f"## {heading}", *paragraphs]
    return "\n\n".join(parts) + "\n"


def nougat(paper: PaperText) -> str:
    """Return a paper as Nougat's ``.mmd``."""
    parts = [f"# {paper.title}", "###### Abstract", paper.abstract]
    for number, (heading, paragraphs) in enumerate(paper.sections, 1):
        parts += [f"## {number} {heading}", *paragraphs]
    return "\n\n".join(parts) + "\n"


def grobid_tei(paper: PaperText) -> str:
    """Return a paper as the TEI that GROBID writes."""
    divisions = "".join(
        f'<div xmlns="http://www.tei-c.org/ns/1.0"><head n="{number}">{escape(heading)}</head>'
        + "".join(f"<p>{escape(paragraph)}</p>" for paragraph in paragraphs)
        + "</div>"
        for number, (heading, paragraphs) in enumerate(paper.sections, 1)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<TEI xml:space="preserve" xmlns="http://www.tei-c.org/ns/1.0"><teiHeader xml:lang="en"><fileDesc>'
        f'<titleStmt><title level="a" type="main">{escape(paper.title)}</title></titleStmt></fileDesc>'
        f"<profileDesc><abstract><div><p>{escape(paper.abstract)}</p></div></abstract></profileDesc></teiHeader>"
        f'<text xml:lang="en"><body>{divisions}</body></text></TEI>\n'
    )


def jats(paper: PaperText) -> str:
    """Return a paper as a JATS article."""
    sections = "".join(
        f"<sec><title>{escape(heading)}</title>"
        + "".join(f"<p>{escape(paragraph)}</p>" for paragraph in paragraphs)
        + "</sec>"
        for heading, paragraphs in paper.sections
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<article article-type="research-article" xml:lang="en"><front><article-meta><title-group>'
        f"<article-title>{escape(paper.title)}</article-title></title-group>"
        f"<abstract><p>{escape(paper.abstract)}</p></abstract></article-meta></front>"
        f"<body>{sections}</body></article>\n"
    )


def s2orc(paper: PaperText) -> str:
    """Return a paper as S2ORC JSON."""
    body = [
        {"text": paragraph, "section": heading, "cite_spans": [], "ref_spans": [], "eq_spans": []}
        for heading, paragraphs in paper.sections
        for paragraph in paragraphs
    ]
    record = {
        "paper_id": paper.title,
        "title": paper.title,
        "abstract": [{"text": paper.abstract, "cite_spans": [], "ref_spans": []}],
        "body_text": body,
        "bib_entries": {},
        "ref_entries": {},
    }
    return json.dumps(record)


FORMATS: dict[str, tuple[str, Callable[[PaperText], str]]] = {
    "markdown": (".md", markdown),
    "nougat": (".mmd", nougat),
    "grobid_tei": (".tei.xml", grobid_tei),
    "jats": (".xml", jats),
    "s2orc": (".json", s2orc),
}
"""File suffix and writer of each format."""


_ODD = {name: make_paper(index, 1_000_000) for index, name in enumerate(("loop", "line", "records", "other"))}


def _truncated_xml() -> bytes:
    whole = grobid_tei(_ODD["other"]).encode()
    return whole[: len(whole) // 2]


def _truncated_json() -> bytes:
    return s2orc(_ODD["other"])[:700].encode()


def _entity_bomb() -> bytes:
    entities = '<!ENTITY a "ha">' + "".join(
        f'<!ENTITY {name} "{f"&{previous};" * 10}">'
        for previous, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    body = jats(_ODD["other"]).partition("?>")[2].replace("<body>", "<body><p>&i;</p>")
    return f'<?xml version="1.0"?><!DOCTYPE article [{entities}]>{body}'.encode()


def _nougat_loop() -> bytes:
    text = nougat(_ODD["loop"])
    first, rest = text.split("## 2", 1)
    loop = "the dyke swarm of the eastern margin and " * 200
    return f"{first}[MISSING_PAGE_FAIL:3]\n\n{loop}\n\n[MISSING_PAGE_EMPTY:5]\n\n## 2{rest}".encode()


def _one_long_line() -> bytes:
    chance = random.Random(5)
    sentences = [_ODD["line"].mark]
    size = 0
    while size < 5_000_000:
        sentences.append(_sentence(chance))
        size += len(sentences[-1]) + 1
    return " ".join(sentences).encode()


def _same_id_twice() -> bytes:
    # A tar may hold two members of one name; the second would get the first one's paper_id.
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for text in (markdown(_ODD["records"]), markdown(_ODD["other"])):
            data = text.encode()
            member = tarfile.TarInfo("same-name.md")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return gzip.compress(stream.getvalue(), mtime=0)


@dataclass(frozen=True, slots=True)
class BrokenFile:
    """A file that cannot be taken as it is.

    ``rejected`` and ``marks`` give the reason, or the sentence of the paper that is there all the same, by
    record (``""`` where the file is one record).
    """

    name: str
    make: Callable[[], bytes]
    rejected: dict[str, str] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)


BROKEN: dict[str, BrokenFile] = {
    "truncated_xml": BrokenFile("broken-truncated.tei.xml", _truncated_xml, {"": "malformed_xml"}),
    "wrong_encoding": BrokenFile(
        "broken-latin-1.md",
        lambda: "# Gneise der Südküste\n\nÜber die Abkühlung.\n".encode("latin-1"),
        {"": "bad_encoding"},
    ),
    "empty": BrokenFile("broken-empty.tei.xml", lambda: b"", {"": "empty_file"}),
    "white_space": BrokenFile("broken-white-space.mmd", lambda: b" \n\t\n", {"": "empty_file"}),
    "entity_bomb": BrokenFile("broken-bomb.xml", _entity_bomb, {"": "unsafe_xml"}),
    "binary_xml": BrokenFile(
        "broken-picture.xml", lambda: b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8, {"": "binary"}
    ),
    "nul_bytes": BrokenFile(
        "broken-nul.md", lambda: b"# A title\n\nSome text\0and more of it.\n", {"": "binary"}
    ),
    "pdf": BrokenFile(
        "broken-unparsed.pdf", lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n", {"": "not_parsed"}
    ),
    "truncated_json": BrokenFile("broken-truncated.json", _truncated_json, {"": "malformed_json"}),
    "truncated_gzip": BrokenFile(
        "broken-cut.tei.xml.gz",
        lambda: gzip.compress(grobid_tei(_ODD["other"]).encode(), mtime=0)[:300],
        {"": "malformed_archive"},
    ),
    "error_page": BrokenFile(
        "broken-service.tei.xml",
        lambda: b"[TIMEOUT] PDF to XML conversion timed out",
        {"": "error_page"},
    ),
    "too_short": BrokenFile("broken-stub.md", lambda: b"# A stub\n\nOne line.\n", {"": "too_short"}),
    "same_id": BrokenFile(
        "broken-same-id.tar.gz",
        _same_id_twice,
        {"#same-name.md": "duplicate_id"},
        {"#same-name.md": _ODD["records"].mark},
    ),
    "nougat_loop": BrokenFile("odd-loop-and-missing-pages.mmd", _nougat_loop, marks={"": _ODD["loop"].mark}),
    "long_line": BrokenFile("odd-one-line-of-5-MB.txt", _one_long_line, marks={"": _ODD["line"].mark}),
}
"""The broken files by kind. The last two are odd but usable: the loop is cut, the line is only long."""
