"""Papers as tasks of the instruction stage read them: chunk by chunk, cleaned as those of a corpus are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from baltoro.core.storage import Storage
from baltoro.corpus.cleaning import clean_paper
from baltoro.corpus.config import CorpusConfig
from baltoro.corpus.documents import read_records
from baltoro.corpus.listing import Chunk
from baltoro.papers.metadata import MetadataTable
from baltoro.papers.schema import Paper, Reject


@dataclass(frozen=True)
class PaperChunks:
    """Where papers are and how they are read; travels to every task.

    Attributes:
        storage: opens the files.
        corpus: sources, limits and cleaning.
        metadata: table by source name.
        chunks: the papers' files, those of a task together.
    """

    storage: Storage
    corpus: CorpusConfig
    metadata: Mapping[str, MetadataTable]
    chunks: tuple[Chunk, ...]

    def read(self, index: int) -> Iterator[Paper | Reject]:
        """Yield the records of a chunk."""
        chunk = self.chunks[index]
        source = self.corpus.sources[chunk.source_index]
        for entry in chunk.objects:
            for record in read_records(entry, source, self.corpus, self.storage, self.metadata):
                if isinstance(record, Paper):
                    clean_paper(record, self.corpus.clean)
                yield record
