"""Which objects the sources of a recipe hold: listed, filtered, sorted and digested before any work."""

from __future__ import annotations

import fnmatch
import hashlib
import io
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from baltoro.core.errors import InputError
from baltoro.core.storage import ObjectInfo, ObjectTable, Storage, absolute_uri, is_local, local_path
from baltoro.corpus.config import CorpusConfig, SourceConfig, TrialConfig
from baltoro.papers.reader import is_hidden, refuse_mostly_pdfs

_STAT_THREADS = 16
_STAT_BATCH = 4096
_PLACES = 1 << 64


@dataclass(frozen=True, slots=True)
class SourceListing:
    """The objects of one source in key order."""

    source: SourceConfig
    objects: ObjectTable

    @property
    def size_bytes(self) -> int:
        """Total size of the objects in bytes."""
        return self.objects.size_bytes

    def digest(self) -> str:
        """Return a digest of the sorted (key, size, ETag) listing: another paper gives another digest."""
        return self.objects.digest()


@dataclass(frozen=True, slots=True)
class Chunk:
    """The objects one read task handles.

    ``index`` orders the chunks of a build; ``first_object`` is the place of the first object among all
    objects of all sources, which no cut changes.
    """

    index: int
    source_index: int
    objects: Sequence[ObjectInfo]
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
    table_uri = absolute_uri(source.metadata.uri) if source.metadata is not None else None

    def chosen() -> Iterator[ObjectInfo]:
        nonlocal found
        for entry in storage.list(source.uri):
            uri = absolute_uri(entry.uri)
            if uri == table_uri or is_hidden(entry.key) or (inside and uri.startswith(f"{root}/")):
                continue
            found += 1
            if _selected(entry.key, source):
                yield entry

    kept = ObjectTable.collect(chosen())
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
    refuse_mostly_pdfs(source.uri, kept.iterate_keys())
    return SourceListing(source, kept.sorted_by_key())


def list_named(index: int, source: SourceConfig, storage: Storage) -> SourceListing:
    """List the files that a text file names; relative paths are relative to its folder.

    Raises:
        InputError: the file is missing, no UTF-8, names nothing, a file twice, or one that does not exist.
    """
    where = f"corpus.sources.{index}.uri: {source.uri}"
    data = storage.read_bytes(source.uri)
    base = absolute_uri(source.uri).rpartition("/")[0] or "/"
    named = 0

    def chosen() -> Iterator[ObjectInfo]:
        nonlocal named
        lines = _names_in(data, where)
        with ThreadPoolExecutor(_STAT_THREADS) as pool:
            while batch := list(itertools.islice(lines, _STAT_BATCH)):
                named += len(batch)
                uris = [absolute_uri(name, base) for _, name in batch]
                for (number, _), uri, entry in zip(batch, uris, pool.map(storage.stat, uris), strict=True):
                    if entry is None:
                        raise InputError(
                            f"{where}: line {number}: {uri} does not exist or is a folder; correct the line"
                        )
                    key = _key_of(uri)
                    if _selected(key, source):
                        yield ObjectInfo(uri, key, entry.size_bytes, entry.etag)

    objects = ObjectTable.collect(chosen()).sorted_by_key()
    repeated = objects.repeated_key()
    if repeated is not None:
        lines = _names_in(data, where)
        first, again = [line for line in lines if _key_of(absolute_uri(line[1], base)) == repeated][:2]
        raise InputError(f"{where}: line {again[0]} names {again[1]} again (line {first[0]}); remove one")
    if not named:
        raise InputError(f"{where}: names no file; write one path or URI a line")
    if not objects:
        raise InputError(
            f"corpus.sources.{index}: none of the {named} files that {source.uri} names passes "
            f"include={list(source.include)} exclude={list(source.exclude)}; loosen the patterns"
        )
    refuse_mostly_pdfs(source.uri, objects.iterate_keys())
    return SourceListing(source, objects)


def _key_of(uri: str) -> str:
    return uri.removeprefix("s3://").lstrip("/")


def _names_in(data: bytes, where: str) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line of a list that names a file.

    Raises:
        InputError: a line is no UTF-8.
    """
    start = 0
    for number, line in enumerate(io.BytesIO(data), 1):
        try:
            text = line.decode().removeprefix("\ufeff") if number == 1 else line.decode()
        except UnicodeDecodeError as error:
            place = start + error.start
            raise InputError(f"{where}: byte {place} is not UTF-8; save the list as UTF-8") from None
        start += len(line)
        name = text.strip()
        if name and not name.startswith("#"):
            yield number, name


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

    places = [_places_of(listing, trial.seed) for listing in listings]
    everywhere = np.concatenate([np.empty(0, np.uint64), *places])
    bound = int((trial.fraction if trial.fraction is not None else 1.0) * _PLACES)
    if trial.limit is not None and trial.limit < len(everywhere):
        bound = min(bound, int(np.partition(everywhere, trial.limit)[trial.limit]))
    chosen = [
        # The whole range has one number more than fits into 64 bits.
        listing
        if bound == _PLACES
        else SourceListing(listing.source, listing.objects.filter(mine < np.uint64(bound)))
        for listing, mine in zip(listings, places, strict=True)
    ]
    if not any(listing.objects for listing in chosen):
        raise InputError(
            f"corpus.trial.fraction: {trial.fraction} chooses none of {len(everywhere)} files; raise it, or "
            "give corpus.trial.limit"
        )
    return chosen


def _places_of(listing: SourceListing, seed: int) -> npt.NDArray[np.uint64]:
    """Return each object's seeded hash."""
    named = (f"{seed}\0{listing.source.name}/{key}" for key in listing.objects.iterate_keys())
    hashed = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in named)
    return np.fromiter((int.from_bytes(digest, "big") for digest in hashed), np.uint64)


def chunk_listings(
    listings: Sequence[SourceListing], *, objects_per_task: int, bytes_per_task: int
) -> Iterator[Chunk]:
    """Cut the listings into chunks of consecutive objects of one source.

    The cut depends only on the listing and the two limits, so a repeated build makes the same files.
    """
    index = first_object = 0
    for source_index, listing in enumerate(listings):
        ends = np.cumsum(listing.objects.sizes())
        start, bytes_before = 0, 0
        while start < len(ends):
            within = int(np.searchsorted(ends, bytes_before + bytes_per_task, side="right"))
            # An object larger than the limit is a task of its own.
            end = max(start + 1, min(within, start + objects_per_task))
            yield Chunk(index, source_index, listing.objects[start:end], first_object + start)
            index, start, bytes_before = index + 1, end, int(ends[end - 1])
        first_object += len(ends)
