"""Writing dialogues with the tokenizer's own chat template, and finding in the result what is learned.

A template is asked with marks in place of what the turns say. What stands between the marks is the template's
own: only there do control tokens count as such, so a paper that prints ``<|im_end|>`` cannot end a turn. What
a model says begins where the prompt for it ends, and ends after its text's first control token.
"""

from __future__ import annotations

import datetime
import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from baltoro.core.errors import ConfigError
from baltoro.instructions.formats.dialogue import Dialogue, ExampleReject
from baltoro.instructions.formats.pieces import Piece
from baltoro.instructions.formats.plain import LAYOUTS, joined

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Some templates print today's date; the same examples must give the same bytes tomorrow. What is passed to a
# template cannot be called, so a macro takes the place of the function.
_DATE = datetime.date(2024, 7, 26)
_DATE_FUNCTION = "strftime_now"
_DATE_MACRO = "{{% macro {name}(format) %}}{{{{ format{steps} }}}}{{% endmacro %}}{{{{ '' }}}}".format(
    name=_DATE_FUNCTION,
    steps="".join(
        f" | replace('%{code}', '{_DATE.strftime(f'%{code}')}')" for code in "aAbBdejmuwyYHIMSpfZz"
    ),
)
_PLACE = re.compile("\ue000([0-9]+)\ue001")

Roles = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Part:
    """A stretch of a written dialogue: of the template's own text, or the place of a message."""

    text: str
    message: int | None
    learned: bool


class ChatTemplate:
    """The chat template of one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Take the template and try it on a question with an answer.

        Raises:
            ConfigError: there is none, it cannot be used, or it writes a prompt otherwise once the answer
                follows.
        """
        self._tokenizer = tokenizer
        others = ", ".join(LAYOUTS)
        if not tokenizer.chat_template:
            raise ConfigError(
                "format.format is chat, and the tokenizer has no chat template; use the tokenizer of an "
                f"instruction-tuned model, or one of the formats {others}"
            )
        try:
            template = str(tokenizer.get_chat_template())
        except ValueError as error:
            raise ConfigError(
                f"format.format is chat, and the tokenizer's chat template cannot be chosen: {error}"
            ) from error
        self._template = _DATE_MACRO + template if _DATE_FUNCTION in template else template
        added = tokenizer.backend_tokenizer.get_added_tokens_decoder().values()
        self._added = {
            token.content: token for token in added if token.special or token.content == tokenizer.eos_token
        }
        longest_first = sorted(self._added, key=lambda content: (-len(content), content))
        self._control = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._full: dict[Roles, list[_Part]] = {}
        self._prompts: dict[Roles, list[_Part]] = {}
        try:
            self._parts(("user", "assistant"))
        except ExampleReject as reject:
            raise ConfigError(
                f"format.format is chat, and the tokenizer's chat template cannot be learned from: "
                f"{reject.detail}; use one of the formats {others}"
            ) from reject

    def pieces(self, dialogue: Dialogue, *, eos: str | None) -> list[Piece]:
        """Return the pieces of a dialogue.

        Args:
            dialogue: what is said; white space around it is dropped, as most templates do.
            eos: the end token that is put after the last turn if the template itself puts none there.

        Raises:
            ExampleReject: the template refuses its roles, changes what is said, or is not prefix-stable.
        """
        messages = _messages(dialogue)
        parts = self._parts(tuple(role for role, _ in messages))
        pieces = self._filled(parts, messages, self._render(messages, prompt=False))
        last = max(number for number, piece in enumerate(pieces) if piece.learned and piece.text)
        if eos is not None and not pieces[last].control:
            # Without an end the model would never learn to stop, and what follows its text is nobody's.
            pieces[last + 1 :] = [Piece(eos, learned=True, control=True)]
        return pieces

    def prompt(self, dialogue: Dialogue) -> list[Piece]:
        """Return the pieces up to where the model speaks; none is learned.

        Raises:
            ExampleReject: as :meth:`pieces`.
        """
        messages = _messages(dialogue)
        parts = self._prompt_parts(tuple(role for role, _ in messages))
        return self._filled(parts, messages, self._render(messages, prompt=True))

    def _prompt_parts(self, roles: Roles) -> list[_Part]:
        if roles not in self._prompts:
            marked = self._render(_marked(roles), prompt=True)
            self._prompts[roles] = _cut(marked, [], messages=len(roles))
        return self._prompts[roles]

    def _parts(self, roles: Roles) -> list[_Part]:
        """Return a dialogue's parts; they depend on who speaks, not on what is said."""
        if roles not in self._full:
            marked = _marked(roles)
            whole = self._render(marked, prompt=False)
            learned: list[tuple[int, int]] = []
            for number, role in enumerate(roles):
                if role != "assistant":
                    continue
                prompt = self._render(marked[:number], prompt=True)
                place = whole.find(marked[number][1])
                if not whole.startswith(prompt) or place < len(prompt):
                    raise ExampleReject(
                        "not_prefix_stable",
                        f"the prompt for message {number + 1} of {len(roles)} is not the beginning of the "
                        "dialogue with its answer",
                    )
                end = place + len(marked[number][1])
                following = whole.find("\ue000", end)
                control = self._control.search(whole, end, following if following >= 0 else len(whole))
                learned.append((len(prompt), control.end() if control else end))
            self._full[roles] = _cut(whole, learned, messages=len(roles))
        return self._full[roles]

    def _render(self, messages: list[tuple[str, str]], *, prompt: bool) -> str:
        from jinja2 import TemplateError

        try:
            text = self._tokenizer.apply_chat_template(
                [{"role": role, "content": text} for role, text in messages],
                tokenize=False,
                add_generation_prompt=prompt,
                chat_template=self._template,
            )
        except (TemplateError, ValueError, TypeError) as error:
            detail = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ExampleReject("template_refuses", f"the chat template says: {detail}") from error
        return str(text)

    def _filled(self, parts: list[_Part], messages: list[tuple[str, str]], expected: str) -> list[Piece]:
        said = [part.text if part.message is None else messages[part.message][1] for part in parts]
        if "".join(said) != expected:
            at = next(
                (place for place, (a, b) in enumerate(zip("".join(said), expected, strict=False)) if a != b),
                min(sum(map(len, said)), len(expected)),
            )
            raise ExampleReject(
                "template_changes_text",
                f"the chat template writes {expected[max(at - 20, 0) : at + 20]!r}; the turns say otherwise",
            )
        pieces: list[Piece] = []
        strip_next = False
        for part, text in zip(parts, said, strict=True):
            if part.message is not None:
                pieces.append(Piece(text, part.learned))
                continue
            start = 0
            for match in self._control.finditer(text):
                token = self._added[match[0]]
                before = text[start : match.start()]
                pieces.append(Piece(_stripped(before, left=strip_next, right=token.lstrip), part.learned))
                pieces.append(Piece(match[0], part.learned, control=True))
                start, strip_next = match.end(), token.rstrip
            pieces.append(Piece(_stripped(text[start:], left=strip_next, right=False), part.learned))
            strip_next = strip_next and not text[start:].strip()
        return pieces


def _messages(dialogue: Dialogue) -> list[tuple[str, str]]:
    """Return role and text of each message; observations are handed to the model as a user's."""
    messages = [("system", dialogue.system.strip())] if dialogue.system.strip() else []
    for exchange in dialogue.exchanges:
        messages.append(("user", joined(exchange).strip()))
        for speech in exchange.speeches(labelled=False):
            messages.append(("assistant" if speech.by_model else "user", speech.text.strip()))
    return messages


def _marked(roles: Roles) -> list[tuple[str, str]]:
    return [(role, f"\ue000{number}\ue001") for number, role in enumerate(roles)]


def _cut(whole: str, learned: list[tuple[int, int]], *, messages: int) -> list[_Part]:
    """Return the parts of a text with marks.

    Args:
        whole: what the template made of marked messages.
        learned: stretches of it that are learned, start and end.
        messages: how many marks it must have.
    """
    places = list(_PLACE.finditer(whole))
    if [int(place[1]) for place in places] != list(range(messages)):
        raise ExampleReject(
            "template_changes_text",
            f"the chat template writes {len(places)} of {messages} messages, or not in their order",
        )
    cuts = {0, len(whole), *(cut for stretch in learned for cut in stretch)}
    starts = {place.start(): (int(place[1]), place.end()) for place in places}
    cuts |= set(starts) | {end for _, end in starts.values()}
    parts: list[_Part] = []
    ordered = sorted(cuts)
    for start, end in itertools.pairwise(ordered):
        inside = any(first <= start and end <= last for first, last in learned)
        message = starts[start][0] if start in starts else None
        parts.append(_Part("" if message is not None else whole[start:end], message, inside))
    return parts


def _stripped(text: str, *, left: bool, right: bool) -> str:
    """Return a text without the white space that a neighbouring control token takes with it."""
    text = text.lstrip() if left else text
    return text.rstrip() if right else text
