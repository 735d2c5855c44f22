"""The tokenizer: trained on a sample of the corpus, or taken from a base model with markers added.

Two kinds of added tokens are kept apart. *Control* tokens (begin, end, padding, unknown) are special: they
never come out of text, so a paper that prints ``</s>`` cannot end a document. *Markers* are the
renderer's tokens (``[START_REF]`` …): ordinary added tokens that text does produce, and that
``skip_special_tokens=True`` keeps, since they are part of what a model writes.

Everything here is a ``transformers.PreTrainedTokenizerFast`` around a Rust tokenizer, whatever class a
base model names: model classes of transformers 5 rebuild parts of ``tokenizer.json`` from their own
defaults, the generic one takes the file as it is.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from baltoro.core.errors import ConfigError, InputError
from baltoro.data.config import TokenizerConfig

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

_log = logging.getLogger(__name__)

BOS_TOKEN, PAD_TOKEN, EOS_TOKEN, UNK_TOKEN = "<s>", "<pad>", "</s>", "<unk>"
CONTROL_TOKENS = (BOS_TOKEN, PAD_TOKEN, EOS_TOKEN, UNK_TOKEN)
"""The control tokens of a trained tokenizer; ids 0 to 3 in Galactica's order (its tokenizer file)."""

BYTE_VALUES = 256
"""A byte-level vocabulary starts from one entry per byte, so no text is unknown."""

_MINIMUM_PAIR_COUNT = 2
_UNBOUNDED_LENGTH_TOKENS = int(1e30)
_NOT_IN_UTF8 = frozenset((0xC0, 0xC1, *range(0xF5, 0x100)))
"""Bytes that stand in no UTF-8 text (RFC 3629, section 1)."""

_PROBE_TEXTS = (
    "Melt rises at 1,250 °C; δ18O = −5.3‰ (n=12).\n\n## 2.1 Methods\n\ttab  two spaces \r\n",
    "地質学 Η στρωματογραφία 🪨\u200b\u0301 \x00 ﬁ Å Å",
    "".join(map(chr, range(256))),
)


def sample_hashes(paper_ids: Sequence[str], seed: int) -> npt.NDArray[np.uint64]:
    """Return a hash of each paper_id, by which documents are chosen to train the tokenizer."""
    key = seed.to_bytes(8, "little")
    return np.fromiter(
        (
            int.from_bytes(hashlib.blake2b(paper_id.encode(), digest_size=8, key=key).digest(), "little")
            for paper_id in paper_ids
        ),
        dtype=np.uint64,
        count=len(paper_ids),
    )


def sample_bound(
    hashes: npt.NDArray[np.uint64],
    fraction: float,
    *,
    lengths_characters: npt.NDArray[np.int64],
    min_characters: int = 0,
) -> int:
    """Return the largest hash whose document trains the tokenizer.

    The choice for one paper depends on its id and the seed alone, as long as ``min_characters`` does not
    bind; a larger fraction keeps every document of a smaller one.

    Args:
        hashes: :func:`sample_hashes` of the documents.
        fraction: share to choose, in (0, 1].
        lengths_characters: text lengths, one per document.
        min_characters: in a small corpus, take further documents in hash order until so much is chosen.

    Raises:
        InputError: there is no document, or none was chosen.
    """
    if not len(hashes):
        raise InputError(
            "the corpus has no document in the train split, so there is no text to train a tokenizer on; add "
            "papers, or lower corpus.splits.validation_fraction and corpus.splits.test_fraction"
        )
    bound = min(int(fraction * 2**64), 2**64 - 1)
    if lengths_characters[hashes <= np.uint64(bound)].sum() < min_characters:
        order = np.argsort(hashes, kind="stable")
        enough = int(np.searchsorted(np.cumsum(lengths_characters[order]), min_characters))
        bound = int(hashes[order[min(enough, len(order) - 1)]])
    if not (hashes <= np.uint64(bound)).any():
        raise InputError(
            f"tokenizer.sample_fraction={fraction} chooses none of {len(hashes)} documents; "
            "raise it, or set tokenizer.sample_min_characters"
        )
    return bound


def train_tokenizer(
    texts: Iterable[str], config: TokenizerConfig, special_tokens: Sequence[str]
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE; the same texts give the same tokenizer, in any order and on any threads.

    Text is cut at the markers before pairs are counted, so that no merge is spent on a marker's
    letters. Ids: control tokens, bytes, merges, then markers in the order given.

    Args:
        texts: rendered documents of the sample.
        config: vocabulary size (an upper bound: a small corpus has fewer pairs) and digits.
        special_tokens: the renderer's markers, each to be a single token.

    Raises:
        ConfigError: ``vocab_size`` has no room beyond bytes, control tokens and markers.
        InputError: the texts hold no character.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    fixed = BYTE_VALUES + len(CONTROL_TOKENS) + len(special_tokens)
    if config.vocab_size <= fixed:
        raise ConfigError(
            f"tokenizer.vocab_size={config.vocab_size} leaves no room for merges: {BYTE_VALUES} bytes, "
            f"{len(CONTROL_TOKENS)} control tokens and {len(special_tokens)} markers need {fixed}; raise it"
        )
    backend = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
        if config.split_digits
        else byte_level
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size - len(special_tokens),
        min_frequency=_MINIMUM_PAIR_COUNT,
        special_tokens=list(CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    seen_characters = 0

    def pieces() -> Iterator[str]:
        nonlocal seen_characters
        marker = re.compile("|".join(re.escape(token) for token in special_tokens) or r"(?!)")
        for text in texts:
            seen_characters += len(text)
            yield from marker.split(text)

    backend.train_from_iterator(pieces(), trainer=trainer)
    if not seen_characters:
        raise InputError("the sample for the tokenizer holds no text; check tokenizer.sample_fraction")
    tokenizer = _wrap(
        backend, bos_token=BOS_TOKEN, pad_token=PAD_TOKEN, eos_token=EOS_TOKEN, unk_token=UNK_TOKEN
    )
    tokenizer = with_markers(tokenizer, special_tokens, add=True)
    check_round_trip(tokenizer, [*_PROBE_TEXTS, *special_tokens])
    return tokenizer


def base_tokenizer(
    path: Path, special_tokens: Sequence[str], add_tokens: Literal["renderer", "none"]
) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a base model, with the renderer's markers added or left as text.

    Args:
        path: a Hugging Face folder, or a GGUF file.
        special_tokens: the renderer's markers.
        add_tokens: ``renderer`` adds those the vocabulary lacks; ``none`` adds nothing (the K2 way).

    Raises:
        InputError: no tokenizer there, an empty one, or one without an end token.
    """
    tokenizer = with_markers(load_tokenizer(path), special_tokens, add=add_tokens == "renderer")
    missing = missing_bytes(tokenizer)
    if missing is None:
        return tokenizer
    if missing:
        _log.warning(
            "the base's tokenizer lacks %d of the %d bytes of UTF-8 (%s); characters that need them are lost",
            len(missing),
            256 - len(_NOT_IN_UTF8),
            " ".join(f"{byte:02x}" for byte in missing),
        )
    else:
        check_round_trip(tokenizer, [*_PROBE_TEXTS, *special_tokens])
    return tokenizer


def load_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a Hugging Face folder or a GGUF file, from local files only.

    Raises:
        InputError: no tokenizer there, an empty one, or one without an end token.
    """
    if not path.exists():
        raise InputError(f"{path}: no such tokenizer; give a Hugging Face folder or a .gguf file")
    try:
        loaded = _load(path)
    except Exception as error:  # transformers raises a dozen kinds for one meaning: nothing usable there
        raise InputError(
            f"{path}: no tokenizer can be loaded ({_first_line(error)}); the folder needs a tokenizer.json, "
            "or a file format that transformers converts"
        ) from error
    backend = getattr(loaded, "backend_tokenizer", None)
    if backend is None:
        raise InputError(
            f"{path}: {type(loaded).__name__} has no tokenizer.json form; convert it with transformers first"
        )
    if backend.get_vocab_size(with_added_tokens=False) <= len(loaded.all_special_tokens):
        raise InputError(
            f"{path}: the tokenizer is empty (vocabulary of "
            f"{backend.get_vocab_size(with_added_tokens=False)}); its vocabulary file was not found or not "
            "understood, put a tokenizer.json into the folder"
        )
    if loaded.eos_token_id is None:
        raise InputError(f"{path}: the tokenizer names no end token; set eos_token in tokenizer_config.json")
    return _wrap(backend, chat_template=loaded.chat_template, **loaded.special_tokens_map)


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a plain Hugging Face folder; ``AutoTokenizer.from_pretrained`` loads it without Baltoro."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    # The name transformers 5 writes is unknown to transformers 4 and to servers built on it; both read this.
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(
        json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def with_markers(
    tokenizer: PreTrainedTokenizerFast, special_tokens: Sequence[str], *, add: bool
) -> PreTrainedTokenizerFast:
    """Return a tokenizer in which the markers are ordinary added tokens.

    A marker that the vocabulary already holds as a special token is made ordinary, or it would be read
    as text and vanish from decoded output; one that it lacks is added if ``add`` is set.

    Raises:
        ConfigError: a marker is one of the tokenizer's control tokens, empty, or repeated.
    """
    from tokenizers import AddedToken, Tokenizer

    roles = tokenizer.special_tokens_map
    controls = {value for value in roles.values() if isinstance(value, str)}
    for token in special_tokens:
        if not token or token in controls:
            raise ConfigError(
                f"the marker {token!r} is empty or a control token of the tokenizer; rename the marker"
            )
    if len(set(special_tokens)) != len(special_tokens):
        raise ConfigError(f"a marker stands twice in {list(special_tokens)}; name each once")
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    for added in description["added_tokens"]:
        if added["content"] in special_tokens:
            added["special"] = False
    backend = Tokenizer.from_str(json.dumps(description))
    if add:
        backend.add_tokens([AddedToken(token, normalized=False, special=False) for token in special_tokens])
    kept = {
        role: value if isinstance(value, str) else [token for token in value if token not in special_tokens]
        for role, value in roles.items()
    }
    return _wrap(backend, chat_template=tokenizer.chat_template, **kept)


def padding_id(tokenizer: PreTrainedTokenizerFast) -> int:
    """Return the id that fills the rest of a row; the end token's where no padding token is named."""
    token_id: int = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return token_id


def padded_vocab_size(tokenizer: PreTrainedTokenizerFast, multiple: int) -> int:
    """Return the rows a model's embedding needs: the largest id plus one, rounded up to ``multiple``."""
    ids: int = max(tokenizer.get_vocab().values()) + 1
    return -(-ids // multiple) * multiple


def missing_bytes(tokenizer: PreTrainedTokenizerFast) -> list[int] | None:
    """Return the bytes of UTF-8 a byte-level tokenizer cannot write; ``None`` if it is of another kind.

    With an empty list every text survives encoding and decoding. SmolLM2's vocabulary, for one, lacks some
    control characters, and drops them without a word.
    """
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    if '"ByteLevel"' not in json.dumps(description["pre_tokenizer"]) or description["normalizer"] is not None:
        return None
    vocabulary = tokenizer.get_vocab()
    return [
        byte
        for byte, character in byte_characters().items()
        if character not in vocabulary and byte not in _NOT_IN_UTF8
    ]


def check_round_trip(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> None:
    """Check that decoding gives back each text.

    Raises:
        InputError: it does not; quotes the first difference.
    """
    with text_only(tokenizer) as backend:
        for text in texts:
            decoded = backend.decode(
                backend.encode(text, add_special_tokens=False).ids, skip_special_tokens=False
            )
            if decoded != text:
                at = next(
                    (i for i, (a, b) in enumerate(zip(text, decoded, strict=False)) if a != b),
                    min(len(text), len(decoded)),
                )
                raise InputError(
                    f"the tokenizer changes text: {text[at : at + 20]!r} comes back as "
                    f"{decoded[at : at + 20]!r} (character {at}); use a byte-level tokenizer"
                )


@contextmanager
def text_only(tokenizer: PreTrainedTokenizerFast) -> Iterator[Tokenizer]:
    """Give the Rust tokenizer in a state where text yields no control token, and nothing is cut or padded.

    The state is restored at the end; the tokenizer must not be used by another thread meanwhile.
    """
    backend = tokenizer.backend_tokenizer
    before = backend.encode_special_tokens, backend.truncation, backend.padding
    backend.encode_special_tokens = True
    backend.no_truncation()
    backend.no_padding()
    try:
        yield backend
    finally:
        backend.encode_special_tokens = before[0]
        if before[1] is not None:
            backend.enable_truncation(**before[1])
        if before[2] is not None:
            backend.enable_padding(**before[2])


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """Return a hash of what turns text into ids and dialogues into text.

    Covers model (vocabulary, merges, options), normaliser, pre-tokeniser, added tokens, the roles of control
    tokens and the chat template; independent of file formatting and of the order of JSON keys. Decoder and
    post-processor are left out: the first does not make ids, the second is rewritten by transformers at load.

    Returns:
        64 hexadecimal digits (SHA-256).
    """
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    covered: dict[str, Any] = {key: description[key] for key in ("model", "normalizer", "pre_tokenizer")}
    covered["added_tokens"] = sorted(description["added_tokens"], key=lambda token: int(token["id"]))
    covered["control_tokens"] = {
        role: getattr(tokenizer, role) for role in ("bos_token", "eos_token", "pad_token", "unk_token")
    }
    covered["chat_template"] = tokenizer.chat_template
    text = json.dumps(covered, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def byte_characters() -> dict[int, str]:
    """Return the printable stand-in of each byte in a byte-level vocabulary (as GPT-2 chose them)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(BYTE_VALUES) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(BYTE_VALUES + index) for index, byte in enumerate(others)
    }


def _load(path: Path) -> Any:
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if (path / "tokenizer.json").is_file():
        from transformers import PreTrainedTokenizerFast

        # Not AutoTokenizer: it would go by the model's class, and import torch to find it.
        return PreTrainedTokenizerFast.from_pretrained(path, **local)
    from transformers import AutoTokenizer

    if path.is_dir():
        return AutoTokenizer.from_pretrained(path, **local)
    return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, **local)


def _wrap(backend: Tokenizer, **settings: Any) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        model_max_length=_UNBOUNDED_LENGTH_TOKENS,
        **{name: value for name, value in settings.items() if value},
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
