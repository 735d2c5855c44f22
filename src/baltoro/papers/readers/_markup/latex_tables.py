"""Rows and cells of a LaTeX ``tabular``, as plain strings."""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"""\\begin\{(?P<begin>[A-Za-z]+\*?)\}
      | \\end\{(?P<end>[A-Za-z]+\*?)\}
      | (?P<row>\\\\(?:\[[^\]\[\\]{0,20}\])?|\\tabularnewline\b)
      | \\multi(?P<span>column|row)\b\*?
      | (?P<rule>\\(?:hline|toprule|midrule|bottomrule)\b)
      | (?P<partial_rule>\\(?:cmidrule|cline)\b)
      | (?P<style>\\(?:text(?:bf|it|sc|tt|rm|sf|up)?|emph|underline|mbox)\s*\{)
      | (?P<layout>\\(?:caption|centering|small|footnotesize|scriptsize|tiny)\b\*?)
      | (?P<math>\\[()])
      | (?P<escaped>\\[^A-Za-z\s])
      | (?P<cell>&)
      | (?P<open>\{)
      | (?P<close>\})
    """,
    re.VERBOSE,
)
_SPACE = re.compile(r"\s+")
_RULE_ARGUMENTS = re.compile(r"(?:\([^()\s]{0,20}\))?(?:\{[^{}]{0,40}\})?")
_EMPHASIS = re.compile(r"\*\*|(?<![^\W_])_(?=\S)|(?<=\S)_(?![^\W_])")
_KEPT = {ord("_"): "\0", ord("*"): "\1"}
_RESTORED = {0: "_", 1: "*"}
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_COMMAND_END = re.compile(r"\\[A-Za-z]+$")
_TABULARS = frozenset({"tabular", "tabular*", "tabularx", "tabulary", "longtable", "array"})
_PRINTED = {"\\%": "%", "\\&": "&", "\\_": "_", "\\#": "#", "\\$": "$"}
_LONGEST_ARGUMENT_CHARACTERS = 2000


def parse_latex_table(source: str) -> tuple[list[list[str]], str]:
    r"""Return the rows of all tabulars in ``source`` as one grid, and the words outside of them.

    Rules, column types, delimiters of formulas and Markdown emphasis go, other TeX stays;
    ``\multicolumn`` fills its span with empty cells so that columns stay aligned; a tabular inside a
    cell (a broken heading) is one cell. Rows without any text are left out. The time is linear.
    """
    rows: list[list[str]] = []
    outside: list[str] = []
    row: list[str] = []
    cell: list[str] = []
    dropped_braces: list[bool] = []
    empty_columns = depth = position = 0
    in_math = False

    def end_cell() -> None:
        nonlocal empty_columns
        text = _EMPHASIS.sub("", _SPACE.sub(" ", "".join(cell)).strip())
        row.append(text.translate(_RESTORED))
        row.extend([""] * empty_columns)
        empty_columns = 0
        cell.clear()

    def end_row() -> None:
        end_cell()
        if any(row):
            rows.append(row.copy())
        row.clear()
        dropped_braces.clear()

    while match := _TOKEN.search(source, position):
        target = cell if depth else outside
        words = source[position : match.start()]
        # In a formula these are TeX, not emphasis; outside of tables there is none to take away.
        target.append(words.translate(_KEPT) if in_math and depth else words)
        position = match.end()
        match match.lastgroup:
            case "begin" if match["begin"] in _TABULARS:
                depth += 1
                position = _after_arguments(
                    source, position, 2 if match["begin"].endswith(("x", "y", "r*")) else 1
                )
                target.append(" ")
            case "end" if match["end"] in _TABULARS:
                if depth == 1:
                    end_row()
                depth = max(depth - 1, 0)
                target.append(" ")
            case "row" if depth == 1:
                end_row()
            case "cell" if depth == 1:
                end_cell()
            case "span":
                count, position = _span(source, position)
                if match["span"] == "column" and depth == 1:
                    empty_columns += count - 1
                if source.startswith("{", position):
                    position += 1
                    dropped_braces.append(True)
            case "partial_rule":
                arguments = _RULE_ARGUMENTS.match(source, position)
                position = arguments.end() if arguments else position
                target.append(" ")
            case "style" if not in_math:
                dropped_braces.append(True)
            case "style":
                dropped_braces.append(False)
                target.append(match[0])
            case "math":
                in_math = match[0] == "\\("
                if (
                    not in_math
                    and _COMMAND_END.search(target[-1])
                    and source[position : position + 1].isalpha()
                ):
                    target.append(" ")
            case "escaped":
                printed = _PRINTED.get(match[0], match[0])
                target.append(printed.translate(_KEPT) if depth else printed)
            case "open":
                dropped_braces.append(
                    not in_math and source[match.start() - 1 : match.start()] in ("", " ", "&", "\n")
                )
                if not dropped_braces[-1]:
                    target.append("{")
            case "close":
                if not (dropped_braces and dropped_braces.pop()):
                    target.append("}")
            case "cell" if depth == 0:
                target.append("&")
            case _:
                target.append(" ")
    (cell if depth else outside).append(source[position:])
    if row or "".join(cell).strip():
        end_row()
    return rows, _SPACE.sub(" ", "".join(outside)).strip()


def _after_arguments(source: str, position: int, count: int) -> int:
    """Return the position after an optional ``[..]`` and up to ``count`` balanced ``{..}`` arguments."""
    if source.startswith("[", position):
        end = source.find("]", position, position + 20)
        position = end + 1 if end >= 0 else position
    for _ in range(count):
        if not source.startswith("{", position):
            break
        depth = 0
        for brace in _BRACE.finditer(source, position, position + _LONGEST_ARGUMENT_CHARACTERS):
            depth += (brace[0] == "{") - (brace[0] == "}")
            if depth == 0:
                position = brace.end()
                break
        else:
            break
    return position


def _span(source: str, position: int) -> tuple[int, int]:
    r"""Return the span of a ``\multicolumn`` or ``\multirow`` and where its content starts."""
    end = _after_arguments(source, position, 1)
    digits = source[position:end].strip("{}* ")
    return (min(int(digits), 100) if digits.isdecimal() and digits != "0" else 1), _after_arguments(
        source, end, 1
    )
