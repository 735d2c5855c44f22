"""Settings of cleaning: a switch or a choice for each rule."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from baltoro.core.config import StrictModel, result, section

Choice = Literal["drop", "keep"]
FormulaChoice = Literal["keep", "repair", "repair_or_drop"]


class BackMatterConfig(StrictModel):
    """What becomes of the sections around a paper's science, told by their headings in seven languages."""

    references: Choice = result("drop", "reference lists that stand as text in the body")
    acknowledgements: Choice = result("drop", "acknowledgements")
    funding: Choice = result("drop", "funding statements")
    author_contributions: Choice = result("drop", "statements of who did what")
    competing_interests: Choice = result("drop", "statements of competing interests")
    data_availability: Choice = result("keep", "statements of where data and code are")
    checklists: Choice = result("drop", "filled-in checklists that a conference or a journal demands")


class PersonalDataConfig(StrictModel):
    """Masking of addresses and numbers of persons in running text, notes, tables and reviews."""

    emails: bool = result(True, "mask e-mail addresses, written out, obfuscated or grouped")
    phones: bool = result(True, "mask telephone and fax numbers that are introduced as such or international")
    email_token: str = result("[EMAIL]", "what stands for an e-mail address")
    phone_token: str = result("[PHONE]", "what stands for a telephone number")

    @model_validator(mode="after")
    def _tokens_cannot_be_masked_again(self) -> Self:
        for name in ("email_token", "phone_token"):
            token = getattr(self, name)
            if not token.strip() or any(c in "@+" or c.isdigit() or not c.isprintable() for c in token):
                raise ValueError(
                    f"corpus.clean.personal_data.{name}: {token!r} is not allowed; a mask is printable text "
                    "on one line without '@', '+' and digits, such as [EMAIL]"
                )
        return self


class CleanConfig(StrictModel):
    """Cleaning of a paper's structure, before rendering."""

    unicode_repair: bool = result(
        True, "repair text decoded with the wrong encoding (mojibake) and compose letters with their accents"
    )
    ligatures: bool = result(True, "write typographic ligatures as the letters they stand for")
    control_characters: bool = result(
        True, "remove control, zero-width and soft-hyphen characters from the text"
    )
    decoder_failures: bool = result(
        True, "remove the markers that Nougat leaves for failed pages, and cut loops of text decoders"
    )
    formulas: FormulaChoice = result(
        "repair",
        "LaTeX whose braces, environments or \\left do not balance: keep it as it is; repair it where one "
        "closing delimiter is missing; or drop it where that does not help",
    )
    prose_tables: bool = result(True, "turn tables of GROBID that swallowed prose back into paragraphs")
    running_heads: bool = result(True, "remove running heads and page numbers that stand as paragraphs")
    boilerplate: bool = result(
        True, "remove licence texts, copyright lines, publisher's notes, download and submission stamps"
    )
    hyphenation: bool = result(True, "rejoin words that a line or page break cut")
    back_matter: BackMatterConfig = section(BackMatterConfig, "sections around the science: drop or keep")
    personal_data: PersonalDataConfig = section(PersonalDataConfig, "masking of personal data")
    empty_blocks: bool = result(True, "remove blocks and sections that hold no text")
