"""A corpus whose files were removed or altered after it was published is noticed where it is read."""

import pyarrow.parquet as pq
import pytest

from baltoro.core.artifacts import ArtifactStore
from baltoro.core.errors import ArtifactError
from baltoro.core.storage import Storage
from baltoro.testing.collections import Plan, write_collection

pytestmark = [pytest.mark.jobs, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def corpus(build, tmp_path):
    """Settings, and the parts of a published corpus."""
    write_collection(tmp_path / "papers", Plan(40, words=150), format="markdown")
    overrides = (f"storage.root={tmp_path / 'root'}", f"corpus.sources.0.uri={tmp_path / 'papers'}")
    built = build("corpus", "name=altered", *overrides)
    artifact = ArtifactStore(Storage(), str(tmp_path / "root")).open(built["corpus"]["artifact"])
    parts = [artifact.uri_of(file) for file in artifact.files("documents/part-")]
    assert len(parts) > 1
    # The tokenizer reads the same parts: that one is trained while they are whole.
    build("tokenizer", "name=altered", *overrides)
    return ("name=altered", *overrides), parts


def test_a_missing_part_is_named(build, corpus):
    overrides, parts = corpus
    Storage().delete(parts[1])
    with pytest.raises(ArtifactError, match=rf"{parts[1].rpartition('/')[2]} \(missing\)"):
        build("tokens", *overrides)


def test_a_part_of_another_length_is_named(build, corpus):
    overrides, parts = corpus
    Storage().write_bytes(parts[1], Storage().read_bytes(parts[1]) + b"!")
    with pytest.raises(ArtifactError, match=rf"{parts[1].rpartition('/')[2]} \(\d+ bytes instead of \d+\)"):
        build("tokens", *overrides)


def test_an_altered_byte_in_a_text_is_noticed_and_the_part_named(build, corpus):
    overrides, parts = corpus
    data = bytearray(Storage().read_bytes(parts[1]))
    group = pq.read_metadata(parts[1]).row_group(0)
    columns = [group.column(place) for place in range(group.num_columns)]
    (pages,) = (column for column in columns if column.path_in_schema == "text")
    start = pages.dictionary_page_offset or pages.data_page_offset
    data[start + pages.total_compressed_size // 2] ^= 1
    Storage().write_bytes(parts[1], bytes(data))
    with pytest.raises(ArtifactError, match=rf"{parts[1].rpartition('/')[2]}.*damaged"):
        build("tokens", *overrides)
