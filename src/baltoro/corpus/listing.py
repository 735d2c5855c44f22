"""Which objects the sources of a recipe hold: listed, filtered, sorted and digested before any work."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from baltoro.core.errors import InputError
from baltoro.core.storage import ObjectInfo, Storage, absolute_uri, digest_of, is_local, local_path
from baltoro.corpus.config import CorpusConfig, SourceConfig, TrialConfig
from baltoro.papers.reader import is_hidden, refuse_mostly_pdfs

_STAT_THREADS = 16


@dataclass(frozen=True, slots=True)
class SourceListing:
    """The objects of one source in key order."""

    source: SourceConfig
    objects: tuple[ObjectInfo, ...]

    @property
    def size_bytes(self) -> int:
        """Total size of the objects in bytes."""
        return sum(entry.size_bytes for entry in self.objects)

    def digest(self) -> str:
        """Return a digest of the sorted (key, size, ETag) listing: another paper gives another digest."""
        return digest_of(self.objects)


@dataclass(frozen=True, slots=True)
class Chunk:
    """The objects one read task handles.

    ``index`` orders the chunks of a build; ``first_object`` is the place of the first object among all
    objects of all sources, which no cut changes.
    """

    index: int
    source_index: int
    objects: tuple[ObjectInfo, ...]
    first_object: int = 0


def list_sources(config: CorpusConfig, storage: Storage, root_uri: str = "") -> list[SourceListing]:
    """List every source of the recipe.

    Args:
        config: the recipe's corpus section.
        storage: lists the objects.
        root_uri: where artifacts are written; a source that holds this folder does not hold its files.

    Raises:
        InputError: a source does not exist, is empty, mostly PDFs, its patterns leave nothing, or it is the
            storage root itself.
    """
    if not config.sources:
        raise InputError(
            "corpus.sources is empty; name at least one folder or s3:// prefix with parsed papers"
        )
    return [list_source(index, source, storage, root_uri) for index, source in enumerate(config.sources)]


def list_source(index: int, source: SourceConfig, storage: Storage, root_uri: str = "") -> SourceListing:
    """List one source; ``index`` is its place in the recipe, for messages.

    Its own metadata table is not one of its papers, nor are names that begin with a dot, nor what lies in
    the storage root.
    """
    root = absolute_uri(root_uri) if root_uri else None
    if root == absolute_uri(source.uri):
        raise InputError(
            f"corpus.sources.{index}.uri: {source.uri} is storage.root itself, where artifacts are written; "
            "set storage.root to another folder (one inside the papers' folder is left out when reading)"
        )
    if source.uri_list:
        return list_named(index, source, storage)
    # Papers that were put into the root are papers all the same.
    inside = root is not None and not absolute_uri(source.uri).startswith(f"{root}/")
    found = 0
    kept: list[ObjectInfo] = []
    table_uri = absolute_uri(source.metadata.uri) if source.metadata is not None else None
    for entry in storage.list(source.uri):
        uri = absolute_uri(entry.uri)
        if uri == table_uri or is_hidden(entry.key) or (inside and uri.startswith(f"{root}/")):
            continue
        found += 1
        if _selected(entry.key, source):
            kept.append(entry)
    if not found:
        absent = is_local(source.uri) and not local_path(source.uri).exists()
        raise InputError(
            f"corpus.sources.{index}.uri: {source.uri} {'does not exist' if absent else 'holds no files'}; "
            "give a folder or s3:// prefix with parsed papers (TEI, JATS, .mmd, JSON, Markdown, text)"
        )
    if not kept:
        raise InputError(
            f"corpus.sources.{index}: none of the {found} files under {source.uri} passes "
            f"include={list(source.include)} exclude={list(source.exclude)}; loosen the patterns"
        )
    refuse_mostly_pdfs(source.uri, (entry.key for entry in kept))
    return SourceListing(source, tuple(sorted(kept, key=lambda entry: entry.key)))


def list_named(index: int, source: SourceConfig, storage: Storage) -> SourceListing:
    """List the files that a text file names; relative paths are relative to its folder.

    Raises:
        InputError: the file is missing, no UTF-8, names nothing, a file twice, or one that does not exist.
    """
    where = f"corpus.sources.{index}.uri: {source.uri}"
    try:
        text = storage.read_bytes(source.uri).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: byte {error.start} is not UTF-8; save the list as UTF-8") from None
    base = absolute_uri(source.uri).rpartition("/")[0] or "/"
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        named = line.strip()
        if not named or named.startswith("#"):
            continue
        uri = absolute_uri(named, base)
        if uri in lines:
            raise InputError(f"{where}: line {number} names {named} again (line {lines[uri]}); remove one")
        lines[uri] = number
    if not lines:
        raise InputError(f"{where}: names no file; write one path or URI a line")
    with ThreadPoolExecutor(_STAT_THREADS) as pool:
        found = list(pool.map(storage.stat, lines))
    objects = []
    for (uri, number), entry in zip(lines.items(), found, strict=True):
        if entry is None:
            raise InputError(f"{where}: line {number}: {uri} does not exist or is a folder; correct the line")
        key = uri.removeprefix("s3://").lstrip("/")
        if _selected(key, source):
            objects.append(ObjectInfo(uri, key, entry.size_bytes, entry.etag))
    if not objects:
        raise InputError(
            f"corpus.sources.{index}: none of the {len(lines)} files that {source.uri} names passes "
            f"include={list(source.include)} exclude={list(source.exclude)}; loosen the patterns"
        )
    refuse_mostly_pdfs(source.uri, (entry.key for entry in objects))
    return SourceListing(source, tuple(sorted(objects, key=lambda entry: entry.key)))


def _selected(key: str, source: SourceConfig) -> bool:
    if source.include and not any(fnmatch.fnmatchcase(key, pattern) for pattern in source.include):
        return False
    return not any(fnmatch.fnmatchcase(key, pattern) for pattern in source.exclude)


def sample_listings(listings: Sequence[SourceListing], trial: TrialConfig) -> list[SourceListing]:
    """Return the part of the files that a trial reads: those whose seeded hashes are smallest.

    A larger limit or fraction of the same seed chooses the same files and more.

    Raises:
        InputError: nothing is left.
    """
    if not trial.enabled:
        return list(listings)

    def place(listing: SourceListing, entry: ObjectInfo) -> int:
        named = f"{trial.seed}\0{listing.source.name}/{entry.key}"
        return int.from_bytes(hashlib.blake2b(named.encode(), digest_size=8).digest(), "big")

    places = sorted(place(listing, entry) for listing in listings for entry in listing.objects)
    bound = int((trial.fraction if trial.fraction is not None else 1.0) * 2**64)
    if trial.limit is not None and trial.limit < len(places):
        bound = min(bound, places[trial.limit])
    chosen = [
        SourceListing(
            listing.source, tuple(entry for entry in listing.objects if place(listing, entry) < bound)
        )
        for listing in listings
    ]
    if not any(listing.objects for listing in chosen):
        raise InputError(
            f"corpus.trial.fraction: {trial.fraction} chooses none of {len(places)} files; raise it, or give "
            "corpus.trial.limit"
        )
    return chosen


def chunk_listings(
    listings: Sequence[SourceListing], *, objects_per_task: int, bytes_per_task: int
) -> Iterator[Chunk]:
    """Cut the listings into chunks of consecutive objects of one source.

    The cut depends only on the listing and the two limits, so a repeated build makes the same files.
    """
    index = first_object = 0

    def cut(source_index: int, pending: list[ObjectInfo]) -> Chunk:
        nonlocal index, first_object
        chunk = Chunk(index, source_index, tuple(pending), first_object)
        index, first_object = index + 1, first_object + len(pending)
        return chunk

    for source_index, listing in enumerate(listings):
        pending: list[ObjectInfo] = []
        pending_bytes = 0
        for entry in listing.objects:
            full = len(pending) >= objects_per_task or pending_bytes + entry.size_bytes > bytes_per_task
            if pending and full:
                yield cut(source_index, pending)
                pending, pending_bytes = [], 0
            pending.append(entry)
            pending_bytes += entry.size_bytes
        if pending:
            yield cut(source_index, pending)
