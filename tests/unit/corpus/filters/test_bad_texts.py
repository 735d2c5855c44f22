"""Each kind of bad text is caught by the rule made for it, and nothing that looks like it in a paper is."""

import random
import re

import pytest

from baltoro.corpus.filters import FilterConfig, evidence_of

ENGLISH = FilterConfig(language={"allow": ["en"]})


def shifted(text, by=3):
    return "".join(
        chr((ord(c) - base + by) % 26 + base) if c.isascii() and c.isalpha() else c
        for c in text
        for base in [97 if c.islower() else 65]
    )


def spoilt(text, fraction, spoil, seed=1):
    draw = random.Random(seed)
    return "".join(spoil(c) if c.isascii() and c.isalpha() and draw.random() < fraction else c for c in text)


def misread(text, fraction, seed=1):
    alike = {
        "e": "c",
        "a": "s",
        "o": "0",
        "l": "1",
        "i": "!",
        "s": "5",
        "t": "f",
        "n": "ri",
        "m": "rn",
        "h": "li",
    }
    return spoilt(text, fraction, lambda c: alike.get(c, c), seed)


def paragraphs(text, function):
    return "\n\n".join(function(paragraph) for paragraph in text.split("\n\n"))


FRENCH = (
    "Les glaciers de la vallée intérieure perdent à leur base plus de glace que leur bilan ne le "
    "suggère. L'été dernier, nous avons suivi l'eau à l'aide de traceurs, et montré qu'un tiers de "
    "celle-ci reste piégé plus d'une semaine. La réserve croît avec la durée de la période chaude, puis "
    "décroît dès la première nuit gelée. "
)
RUSSIAN = (
    "Ледники внутренней долины теряют у своего ложа больше льда, чем предполагает баланс их поверхности. "
    "Треть воды остаётся подо льдом дольше недели, и запас растёт с продолжительностью тёплого времени "
    "года. "
)
CHINESE = (
    "冰川内部的融水储存在冰床之下，其持续时间超过一周。我们用染料示踪和压力传感器追踪了两个夏季的水流，发"
    "现三分之一的水滞留在冰下。储水量随暖期延长而增加，并在第一个寒夜之后排空。"
)

GARBLED = {
    "code table lost": shifted,
    "letters spaced": lambda prose: paragraphs(
        prose, lambda p: "  ".join(" ".join(word) for word in p.split())
    ),
    "words glued": lambda prose: paragraphs(prose, lambda p: "".join(p.split())),
    "replacement characters": lambda prose: spoilt(prose, 0.03, lambda c: "\ufffd"),
    "private-use glyphs": lambda prose: spoilt(prose, 0.1, lambda c: chr(0xF000 + ord(c))),
    "control characters": lambda prose: spoilt(prose, 0.05, lambda c: "\x0e"),
    "glyph numbers": lambda prose: re.sub(r"[a-z]", lambda m: f"(cid:{ord(m[0])})", prose),
    "letters misread": lambda prose: misread(prose, 0.3),
    "vowels lost": lambda prose: re.sub("[aeiou]", "", prose),
    "look-alikes of another script": lambda prose: prose.translate(str.maketrans("aeopc", "аеорс")),
    "noise": lambda prose: re.sub(
        r"[a-z]", lambda m: random.Random(m.start()).choice("bcdfghjklmnpqrtvwxz"), prose
    ),
    "UTF-8 read as Windows-1252": lambda prose: FRENCH.encode().decode("cp1252", "replace"),
    "Cyrillic UTF-8 read as Latin-1": lambda prose: (RUSSIAN * 2).encode().decode("latin-1"),
    "Chinese GB18030 read as Latin-1": lambda prose: (CHINESE * 3).encode("gb18030").decode("latin-1"),
}


@pytest.mark.parametrize("damage", GARBLED)
def test_broken_text_is_garbled(judge, prose, damage):
    judged = judge(GARBLED[damage](prose), ENGLISH)
    assert judged.reason == "garbled"
    assert re.fullmatch(r"garble_fraction [\d.]+ > 0.08", judged.verdict.detail)


@pytest.mark.parametrize("text", [FRENCH, RUSSIAN, CHINESE * 2], ids=["fr", "ru", "zh"])
def test_the_same_texts_in_their_right_encoding_are_not_garbled(judge, text):
    assert judge(text, FilterConfig(min_characters=100)).scores["garble_fraction"] == 0


def test_the_worse_the_scan_the_higher_the_garble_score(judge, prose):
    scores = [judge(misread(prose, fraction)).scores["garble_fraction"] for fraction in (0, 0.05, 0.1, 0.3)]
    assert scores == sorted(set(scores))
    assert scores[0] == 0


def test_what_a_score_was_counted_from_can_be_shown(judge, prose):
    sentence = "Downloaded from the pages of the library by a reader in May."
    spoilt_prose = (
        prose.replace("glacier", "glcrrrr").replace("\n\n", f"\n\n{sentence}\n\n") + "\n\n- Log in\n- x;"
    )
    evidence = evidence_of(judge(spoilt_prose).measurement, most=2)
    assert evidence.counts["damaged_words"] == prose.count("glacier")
    assert evidence.excerpts["damaged_words"] == ["glcrrrr", "glcrrrrs"]
    assert len(evidence.excerpts["words_in_duplicate_5grams"]) == 2
    assert all(
        excerpt.startswith(sentence[:-1]) for excerpt in evidence.excerpts["words_in_duplicate_5grams"]
    )
    assert evidence.excerpts["bullet_lines"] == ["- Log in", "- x;"]
    assert evidence.excerpts["web_notice_lines"] == ["- Log in"]
    assert evidence.excerpts["code_lines"] == ["- x;"]
    assert evidence.words["formulas"] == evidence.words["tables"] == 0


LOREM = """
Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore
et dolore magna aliqua. Ut enim ad minim veniam, quis nostrud exercitation ullamco laboris nisi ut
aliquip ex ea commodo consequat.

Duis aute irure dolor in reprehenderit in voluptate velit esse cillum dolore eu fugiat nulla
pariatur. Excepteur sint occaecat cupidatat non proident, sunt in culpa qui officia deserunt mollit
anim id est laborum.
"""

MENU = """
Home, About us, Journals, For authors, For readers, Contact, Search, Advanced search, Current issue,
Archive, Editors, Announcements, Subscribe, Help, Register, Browse by title, Browse by author,
Browse by subject, Physics, Chemistry, Geology, Medicine, Social sciences, Most read, Most cited,
Open access, Permissions, Reprints, Accessibility, Terms, Follow us, Share, Print, Download, Cite
this page, Related pages, Previous page, Next page, Back to top
"""

NOTICES = """
Please enable JavaScript in your browser to read this page.

This site uses cookies to give you a better experience of its pages.

Read our cookie policy to learn what we store and for how long.

Sign in to see the full text of this article and of those that cite it.

Log in with the account of your institution, or register a new one.

Click here if you are not sent on to the next page within five seconds.

The page that you asked for needs an account that may read it, and yours does not seem to be one.
"""

PYTHON = """
import numpy as np
from pathlib import Path

def read_gauge(path, column=2):
    rows = []
    with Path(path).open() as handle:
        for line in handle:
            parts = line.split(",")
            if len(parts) < 3:
                continue
            rows.append(float(parts[column]))
    return np.array(rows)

class Channel:
    def __init__(self, length, radius, roughness=0.05):
        self.length = length
        self.radius = radius
        self.roughness = roughness

    def discharge(self, head):
        area = np.pi * self.radius ** 2
        slope = head / self.length
        return area * self.radius ** (2 / 3) * slope ** 0.5 / self.roughness

def main():
    stage = read_gauge("stage.csv")
    channel = Channel(4000, 1.5)
    flow = [channel.discharge(level) for level in stage]
    print(max(flow), min(flow))
    np.save("flow.npy", flow)
"""

C = """
#include <stdio.h>
#include <stdlib.h>

static double melt(double temperature, double factor) {
    if (temperature <= 0) {
        return 0.0;
    }
    return temperature * factor;
}

int main(int argc, char **argv) {
    double total = 0.0;
    struct station *head = malloc(sizeof(struct station));
    for (int day = 0; day < argc - 1; day++) {
        double value = atof(argv[day + 1]);
        total += melt(value, 0.006);
        printf("day %d melt %f\\n", day, total);
    }
    while (head) {
        struct station *next = head->next;
        free(head);
        head = next;
    }
    return 0;
}
"""

KEYWORDS = "glacier|melt water|hydrology|borehole|channel|cavity|pressure|seismic|sliding|ice core|snow"


def keyword_spam(prose):
    return ", ".join(random.Random(7).choices(KEYWORDS.split("|"), k=400)) + "."


def keyword_list(prose):
    words = sorted(set(re.findall(r"[a-z]{6,}", prose)))
    return "\n\n".join(", ".join(words[start : start + 30]) + "." for start in range(0, len(words), 30))


def reference_list(prose):
    draw = random.Random(3)
    authors = [
        "Haller, B., Ostrow, M.",
        "Lind, K.",
        "Perez, J., Amari, T., and Voss, E.",
        "Moreau, C. and Dietl, F.",
    ]
    titles = [
        "Dye tracing below ice",
        "On the pressure in cavities",
        "A channel that closes",
        "Noise of rivers",
    ]
    return "\n".join(
        f"[{n}] {draw.choice(authors)} {1980 + n}. {draw.choice(titles)}, part {n}. Ice, {n}, {n}-{n + 9}."
        for n in range(1, 40)
    )


def unnumbered_reference_list(prose):
    return "References\n\n" + "\n\n".join(
        f"{author} ({1980 + n}). Sliding laws compared, part {n}. Annals of Snow {n}:{n * 3}."
        for n, author in enumerate(
            ["Haller B, Ostrow M", "Lind K", "Perez J, Amari T", "Moreau C, Dietl F"] * 9
        )
    )


BAD = {
    "lorem ipsum": (lambda prose: LOREM, "filler_text", "lorem_ipsum_fraction"),
    "menu": (
        lambda prose: MENU.strip().replace(", ", "\n").replace(",\n", "\n"),
        "no_sentences",
        "sentence_fraction",
    ),
    "notices of a web site": (lambda prose: NOTICES, "web_notices", "web_notice_line_fraction"),
    "Python": (lambda prose: PYTHON, "code", "code_line_fraction"),
    "C": (lambda prose: C, "code", "code_line_fraction"),
    "fenced code": (lambda prose: f"# Listing\n\n```\n{PYTHON}{C}```\n\nAs above.", "code", "code_fraction"),
    "references": (reference_list, "references_only", "reference_fraction"),
    "references without numbers": (unnumbered_reference_list, "references_only", "reference_fraction"),
    "keywords over and over": (keyword_spam, "no_stop_words", "stop_words"),
    "many keywords": (keyword_list, "no_stop_words", "stop_words"),
    "boilerplate between": (
        lambda prose: paragraphs(
            prose, lambda p: f"{p}\n\nDownloaded from the library's pages in May by a reader."
        ),
        "duplicate_lines",
        "dup_line_fraction",
    ),
    "the same page again": (lambda prose: f"{prose}\n\n{prose}", "duplicate_lines", "dup_line_fraction"),
    "the same page in one line": (
        lambda prose: (
            " ".join(prose.replace("#", "").split()) + " " + " ".join(prose.replace("#", "").split())
        ),
        "duplicate_ngrams",
        "dup_5gram_fraction",
    ),
    "a loop": (
        lambda prose: prose + " and the ice slides over the bed" * 200,
        "repeated_ngram",
        "top_2gram_fraction",
    ),
    "numbers": (
        lambda prose: "\n".join(f"{n} {n * 7 % 91} {n * 3 % 57}" for n in range(90)),
        "not_alphabetic",
        None,
    ),
    "hash tags": (
        lambda prose: " ".join("#" + word for word in prose.split()[9:]),
        "symbols",
        "symbols_per_word",
    ),
    "rows of dots": (lambda prose: prose.replace(" ", " ... "), "symbols", "symbols_per_word"),
    "teasers": (
        lambda prose: "\n\n".join(f"{sentence}..." for sentence in prose.split(". ")),
        "symbols",
        "ellipsis_line_fraction",
    ),
    "bullets alone": (
        lambda prose: "\n".join(
            f"- {s}." for s in " ".join(re.sub(r"#+ .*", "", prose).split()).split(". ") if s.strip()
        ),
        "bullets",
        "bullet_line_fraction",
    ),
    "German": (
        lambda prose: (
            "Gletscher im inneren Tal verlieren an ihrem Bett mehr Eis, als ihre Oberflächenbilanz "
            "vermuten lässt. Wir haben das Wasser zwei Sommer lang mit Farbstoff verfolgt und gefunden, "
            "dass ein Drittel davon länger als eine Woche unter dem Eis bleibt, bis die erste kalte "
            "Nacht die Spalten schließt."
        ),
        "language",
        None,
    ),
    "very long words": (
        lambda prose: (
            " ".join("of the " + "antidisestablishmentarian" + str(n) for n in "abcdefghij" * 30) + "."
        ),
        "repeated_ngram",
        None,
    ),
    "a blank page": (lambda prose: "", "empty_document", "characters"),
    "a title alone": (lambda prose: "# Meltwater", "too_short", "characters"),
    "glyphs alone": (lambda prose: "\ue001\ue002\ue003 " * 200, "word_number", "words"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_text_is_caught_by_its_rule(judge, prose, kind):
    make, reason, score = BAD[kind]
    judged = judge(make(prose), ENGLISH)
    assert judged.reason == reason, judged.verdict
    if score is not None:
        assert judged.verdict.detail.startswith(f"{score} ")


def test_sound_prose_passes_every_rule(judge, prose):
    assert judge(prose, ENGLISH).verdict is None


GOOD = {
    "chemical names": "We reduced 2-(4-isobutylphenyl)propanoic acid and "
    "3-hydroxy-3-methylglutaryl-coenzyme A with tris(hydroxymethyl)aminomethane in "
    "dichlorodiphenyltrichloroethane. Methylenetetrahydrofolate and "
    "N,N-dimethylformamide were added to H2SO4, Na2HPO4·12H2O and CH3COOH under N2. "
    "The yield of C6H12O6 was measured by HPLC-MS with a C18 column, and the NMR "
    "spectra in CDCl3 agree with those of the parent compound.",
    "gene names": "Knockdown of TP53, BRCA1, miR-155-5p and HIF1α lowered NFκB and TNFα in HEK293T "
    "cells, whereas p16INK4a, CDKN2A and IFNγ rose. Primers were GCTTGCACTTGGTCCATG and "
    "TTGGCATTCGGATCCTTA, and the peptide KKKRKRKKRK bound to the PDGFRs. The mRNAs of "
    "Wnt3a, Sox2 and Oct4 were measured by RT-qPCR, and those of shRNA-treated cells, "
    "dsDNA and tRNAs as well.",
    "species": "The traps held Carabus hortensis, C. nemoralis, Pterostichus oblongopunctatus, P. niger, "
    "Abax parallelepipedus and Nebria brevicollis. Among the mosses we found Hylocomium "
    "splendens, Pleurozium schreberi, Rhytidiadelphus squarrosus and Sphagnum girgensohnii. "
    "The beetles were named after the key of the region, and their nests were left where they "
    "had been.",
    "statistics": "Melt rose with height (r = 0.61, p < 0.001, n = 212), but not with slope (t = 1.2, df "
    "= 19, p = 0.24). The 95% CI was 1.21–3.45 (median 2.1, IQR 1.4–2.9), and 12 of 48 "
    "(25%) were lost. In 2003, 2007 and 2011 the means were 3.1 ± 0.2, 4.2 ± 0.3 and 5.0 ± "
    "0.4 m, and in the last of them the sum was 61.5 m.",
    "formulas without delimiters": r"Let f_{i}:\mathcal{Z}\rightarrow\mathcal{W}_{i} be the map, and let "
    r"\mathbf{x}^{(t-1)}=\sqrt{\alpha_{t-1}}\mathbf{x}^{(0)}+\sqrt{1-\alpha_{t-1}}\epsilon hold for all "
    r"t \in [0,T]. Then E = mc^2 and ∂u/∂t + u·∇u = −∇p + ν∇²u, where u is the speed of the flow and p is "
    "the pressure in it. The sum of the two is what we call the head, and it is the same on both sides of "
    "the wall.",
    "prices": "The sensor costs $120 and the logger $85 to $90, so that a station is had for less than "
    "US$300, which is half of what it was ten years ago ($650). We give the sums in the prices "
    "of the year in which each of them was bought, since the rates have changed by no more "
    "than a few per cent.",
    "addresses": "The data are at https://example.org/data/v2/xkcd/rsrc.html?id=q7Zt and the code is at "
    "http://example.org/git/mltwtr.git, as are the files in xlsx and html. The first of "
    "them was last opened in May, and both will be kept for ten years, which is what the "
    "rules of the fund that paid for the work ask for.",
    "acronyms": "The GCMs of the IPCC and the RCMs of the CMIP6 were run with the WRF and the NCEP CFSR, "
    "and the SSTs of the HYCOM with LSTMs. We compared them with the GNSS, the SRTM DEM, the "
    "MODIS NDVI and the GRACE TWS, as was done by the WMO and by NASA, and the results of "
    "both are those that are shown in the table above.",
}


@pytest.mark.parametrize("kind", GOOD)
def test_the_language_of_science_is_not_taken_for_damage(judge, kind):
    judged = judge(GOOD[kind], ENGLISH)
    assert judged.verdict is None
    assert judged.scores["garble_fraction"] < 0.04


HEAVY = {
    "k2": ("[START_FORMULA]{}[END_FORMULA]", "[START_TABLE]\nTable 1. Rates.\n\n{}\n[END_TABLE]"),
    "galactica": ("\\[{}\\]", "Table 1. Rates.\n\n{}"),
    "dollars": ("${}$", "{}"),
    "environment": ("\\begin{{equation}}{}\\end{{equation}}", "{}"),
    "plain": ("{}", "{}"),
}


@pytest.mark.parametrize("style", HEAVY)
def test_a_paper_of_formulas_and_tables_is_kept_and_its_shares_are_told(judge, prose, style):
    formula, table = HEAVY[style]
    tex = r"\mathbf{x}^{(t-1)}=\frac{\sqrt{\alpha_{t-1}}}{\beta_{t}}\mathbf{x}^{(0)}+\sum_{i=1}^{N}\lambda"
    rows = "|site|rate|rate|\n|-|-|-|\n" + "\n".join("|A|12.5|12.5|" for _ in range(60))
    if style == "plain":
        rows = rows.replace("|-|-|-|\n", "").replace("|", "\t").replace("\n\t", "\n").lstrip("\t")
    blocks = [
        f"{paragraph}\n\n" + "\n\n".join([formula.format(tex)] * 8) for paragraph in prose.split("\n\n")
    ]
    judged = judge("\n\n".join([*blocks, *[table.format(rows)] * 4]), ENGLISH)
    assert judged.verdict is None
    assert judged.scores["formula_fraction"] > 0.3
    assert judged.scores["table_fraction"] > 0.15
    assert judged.scores["garble_fraction"] == 0


def test_one_title_cited_again_and_again_is_no_repetition(judge, prose):
    cited = prose.replace(
        ". ", " [START_REF]A theory of the drainage of temperate glaciers below their tongues[END_REF]. "
    )
    plain, judged = judge(prose), judge(cited)
    assert judged.verdict is None
    assert judged.scores["citation_fraction"] > 0.2
    # Only a word before two of them makes the same 5-gram.
    assert judged.scores["dup_5gram_fraction"] < plain.scores["dup_5gram_fraction"] + 0.01
