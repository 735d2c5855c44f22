import contextlib
import hashlib
import pickle
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baltoro.core.errors import ArtifactError
from baltoro.core.storage import Storage
from baltoro.data.shards import RowBatch, ShardFile, TokenDataset, shard_ranges, verify_shard, write_shard


def make_rows(rows, width=8, *, masked=False, seed=0):
    rng = np.random.default_rng(seed)
    ends = [np.unique(rng.integers(1, width + 1, 3)).astype(np.int32) for _ in range(rows)]
    return RowBatch(
        rng.integers(0, 50_000, (rows, width), dtype=np.int32),
        ends,
        [rng.integers(0, 9, len(row), dtype=np.int32) for row in ends],
        rng.random((rows, width)) < 0.5 if masked else None,
    )


def same(a, b):
    return (
        np.array_equal(a.input_ids, b.input_ids)
        and [row.tolist() for row in a.segment_ends] == [row.tolist() for row in b.segment_ends]
        and [row.tolist() for row in a.paper_index] == [row.tolist() for row in b.paper_index]
        and (a.loss_mask is None) == (b.loss_mask is None)
        and (a.loss_mask is None or np.array_equal(a.loss_mask, b.loss_mask))
    )


def write_dataset(
    folder, batch, *, rows_per_shard=5, rows_per_row_group=2, fingerprint="f" * 64, dataset="d"
):
    files = []
    for number, rows in enumerate(shard_ranges(len(batch), rows_per_shard)):
        path = folder / f"{number:05d}.parquet"
        files.append(
            write_shard(
                batch.slice(rows.start, rows.stop),
                path,
                uri=str(path),
                rows_per_row_group=rows_per_row_group,
                tokenizer_fingerprint=fingerprint,
                origin=f"{dataset}/{number:05d}",
            )
        )
    return files


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 23), st.integers(1, 7), st.integers(1, 4), st.booleans(), st.data())
def test_any_range_reads_as_it_was_written(tmp_path_factory, rows, shard, group, masked, data):
    batch = make_rows(rows, masked=masked, seed=rows)
    files = write_dataset(
        tmp_path_factory.mktemp("shards"), batch, rows_per_shard=shard, rows_per_row_group=group
    )
    assert [file.rows for file in files[:-1]] == [shard] * (len(files) - 1)
    with TokenDataset.open(files, Storage()) as dataset:
        assert (len(dataset), dataset.sequence_length, dataset.tokenizer_fingerprint) == (rows, 8, "f" * 64)
        for _ in range(3):
            start = data.draw(st.integers(0, rows - 1))
            stop = data.draw(st.integers(start + 1, rows))
            assert same(dataset.read_rows(start, stop), batch.slice(start, stop))


def test_many_shards_read_back_in_any_order(tmp_path):
    batch = make_rows(60)
    with TokenDataset.open(write_dataset(tmp_path, batch), Storage()) as dataset:
        for start in np.random.default_rng(0).permutation(57).tolist():
            assert same(dataset.read_rows(start, start + 3), batch.slice(start, start + 3))


def test_a_closed_dataset_opens_its_files_again(tmp_path):
    batch = make_rows(10)
    with TokenDataset.open(write_dataset(tmp_path, batch), Storage()) as dataset:
        dataset.close()
        assert same(dataset.read_rows(0, 10), batch)


def test_the_file_has_the_documented_columns(tmp_path):
    (file,) = write_dataset(tmp_path, make_rows(4, masked=True))
    schema = pq.read_schema(file.uri)
    assert schema.names == ["input_ids", "segment_ends", "paper_index", "loss_mask"]
    assert schema.field("input_ids").type.list_size == 8
    assert schema.field("input_ids").type.value_type == pa.int32()
    assert schema.field("segment_ends").type.value_type == pa.int32()
    assert schema.field("loss_mask").type.value_type == pa.bool_()
    assert schema.metadata[b"baltoro.sequence_length"] == b"8"
    assert schema.metadata[b"baltoro.tokenizer_fingerprint"] == b"f" * 64
    assert schema.metadata[b"baltoro.origin"] == b"d/00000"
    digests = schema.metadata[b"baltoro.row_group_digests"].split()
    assert [len(digest) for digest in digests] == [32, 32]
    groups = pq.ParquetFile(file.uri).metadata
    assert [groups.row_group(index).num_rows for index in range(groups.num_row_groups)] == [2, 2]


def test_the_same_rows_give_the_same_bytes(tmp_path):
    settings_ = {"uri": "s3://x/y", "rows_per_row_group": 2, "tokenizer_fingerprint": "f", "origin": "d/0"}
    files = [write_shard(make_rows(6), tmp_path / name, **settings_) for name in "ab"]
    data = (tmp_path / "a").read_bytes()
    assert (tmp_path / "b").read_bytes() == data
    assert files[0] == files[1]
    assert (files[0].size_bytes, files[0].sha256) == (len(data), hashlib.sha256(data).hexdigest())
    footer = data[-8 - int.from_bytes(data[-8:-4], "little") :]
    assert files[0].footer_sha256 == hashlib.sha256(footer).hexdigest()
    assert write_shard(make_rows(6, seed=1), tmp_path / "c", **settings_).sha256 != files[0].sha256


def test_verification_names_the_damaged_shard(tmp_path):
    files = write_dataset(tmp_path, make_rows(12))
    TokenDataset.open(files, Storage(), verify=True).close()
    path = tmp_path / "00001.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        ArtifactError, match=r"00001\.parquet: damaged: \d+ bytes with SHA-256 .* restore the file"
    ):
        TokenDataset.open(files, Storage(), verify=True)
    verify_shard(files[0], Storage())


def test_a_flipped_bit_is_found_when_the_rows_are_read(tmp_path):
    files = write_dataset(tmp_path, make_rows(10))
    path = tmp_path / "00001.parquet"
    data = bytearray(path.read_bytes())
    data[60] ^= 1  # inside the first data page, behind its header
    path.write_bytes(data)
    with TokenDataset.open(files, Storage()) as dataset:
        dataset.read_rows(0, 5)
        with pytest.raises(ArtifactError, match=r"00001\.parquet: damaged \(.*; restore the file or build"):
            dataset.read_rows(5, 6)


def read_second_shard(files, message):
    """The shards before are read; the damaged one is named, with what to do."""
    with TokenDataset.open(files, Storage()) as dataset:
        dataset.read_rows(0, 5)
        with pytest.raises(ArtifactError, match=rf"00001\.parquet: {message}") as caught:
            dataset.read_rows(5, 10)
    assert "restore the file or build the token dataset again" in str(caught.value)


@pytest.mark.parametrize("left", [0, 4, 100, -20, -1])
def test_a_truncated_shard_is_named(tmp_path, left):
    files = write_dataset(tmp_path, make_rows(10))
    path = tmp_path / "00001.parquet"
    path.write_bytes(path.read_bytes()[:left])
    size = path.stat().st_size
    read_second_shard(files, f"damaged: {size} bytes where the manifest names {files[1].size_bytes}")


def test_a_lengthened_shard_is_named(tmp_path):
    files = write_dataset(tmp_path, make_rows(10))
    path = tmp_path / "00001.parquet"
    path.write_bytes(path.read_bytes() * 2)
    read_second_shard(files, r"damaged: \d+ bytes where the manifest names")


@pytest.mark.parametrize("verify", [True, False])
def test_a_deleted_shard_is_named(tmp_path, verify):
    files = write_dataset(tmp_path, make_rows(10))
    (tmp_path / "00001.parquet").unlink()
    with (
        pytest.raises(ArtifactError, match=r"00001\.parquet: is gone; restore the file or build the token"),
        TokenDataset.open(files, Storage(), verify=verify) as dataset,
    ):
        dataset.read_rows(0, 10)


def test_a_shard_of_other_rows_is_named(tmp_path):
    files = write_dataset(tmp_path, make_rows(10))
    (tmp_path / "other").mkdir()
    write_dataset(tmp_path / "other", make_rows(3))
    shutil.copy(tmp_path / "other" / "00000.parquet", tmp_path / "00001.parquet")
    read_second_shard(files, r"damaged: \d+ bytes where the manifest names \d+")


def same_size_shards(folder, dataset, count=200):
    """Return shards of five rows each that are alike in rows and bytes, but hold other tokens."""
    by_size = {}
    for seed in range(count):
        batch = make_rows(5, seed=seed)
        # Segments of one length each, so that only tokens differ.
        batch = RowBatch(batch.input_ids, [np.array([8], np.int32)] * 5, [np.array([1], np.int32)] * 5)
        (file,) = write_dataset(folder, batch, dataset=dataset)
        by_size.setdefault(file.size_bytes, []).append(((folder / "00000.parquet").read_bytes(), file))
    return max(by_size.values(), key=len)


def test_another_shard_of_the_same_rows_and_bytes_is_named(tmp_path):
    (mine, file), (other, _) = same_size_shards(tmp_path, "d")[:2]
    assert len(mine) == len(other)
    assert mine != other
    path = tmp_path / "00000.parquet"
    path.write_bytes(mine)
    TokenDataset.open([file], Storage()).close()
    path.write_bytes(other)
    message = (
        r"00000\.parquet: is not the shard that the manifest names: it calls itself d/00000 and holds "
        r"5 rows, of 5; it was replaced or its footer altered: restore the file"
    )
    with pytest.raises(ArtifactError, match=message):
        TokenDataset.open([file], Storage())


def test_a_shard_whose_beginning_is_another_ones_is_named(tmp_path):
    (mine, file), (other, _) = same_size_shards(tmp_path, "d")[:2]
    path = tmp_path / "00000.parquet"
    metadata = pq.read_metadata(pa.BufferReader(mine))
    # All pages of the other one: each is whole and has a checksum that is right.
    end = int.from_bytes(mine[-8:-4], "little") + 8
    path.write_bytes(other[:-end] + mine[-end:])
    offsets = [
        [
            bytes_.row_group(group).column(column).data_page_offset
            for group in range(metadata.num_row_groups)
            for column in range(metadata.num_columns)
        ]
        for bytes_ in (metadata, pq.read_metadata(pa.BufferReader(other)))
    ]
    assert offsets[0] == offsets[1], "the case would be found without checksums of rows"
    with (
        TokenDataset.open([file], Storage()) as dataset,
        pytest.raises(ArtifactError, match=r"00000\.parquet: damaged \(row group 0 has another checksum"),
    ):
        dataset.read_rows(0, 1)


def test_an_altered_footer_is_named(tmp_path):
    files = write_dataset(tmp_path, make_rows(10))
    path = tmp_path / "00001.parquet"
    whole = path.read_bytes()
    start = len(whole) - int.from_bytes(whole[-8:-4], "little") - 8
    for position in range(start, len(whole), 3):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with TokenDataset.open(files, Storage()) as dataset, pytest.raises(ArtifactError) as caught:
            dataset.read_rows(5, 10)
        assert str(path) in str(caught.value)


def test_every_altered_byte_that_is_read_is_found(tmp_path):
    batch = make_rows(5)
    (file,) = write_dataset(tmp_path, batch)
    path = tmp_path / "00000.parquet"
    whole = path.read_bytes()
    unnoticed = []
    for position in range(0, len(whole), 3):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 8]) + whole[position + 1 :])
        with (
            contextlib.suppress(ArtifactError),
            TokenDataset.open([file], Storage()) as dataset,
        ):
            assert same(dataset.read_rows(0, 5), batch), f"byte {position}"
            unnoticed.append(position)
    # Bytes that say nothing of the rows: the magic number, and statistics of encodings in page headers.
    assert len(unnoticed) < len(whole) / 60
    path.write_bytes(whole[: unnoticed[0]] + b"~" + whole[unnoticed[0] + 1 :])
    with pytest.raises(ArtifactError, match=r"damaged: .* with SHA-256"):
        TokenDataset.open([file], Storage(), verify=True)


def test_shards_of_another_tokenizer_are_refused(tmp_path):
    (tmp_path / "other").mkdir()
    first = write_dataset(tmp_path, make_rows(5))
    second = write_dataset(tmp_path / "other", make_rows(5), fingerprint="e" * 64)
    with (
        TokenDataset.open([*first, *second], Storage()) as dataset,
        pytest.raises(ArtifactError, match=r"8 tokens by tokenizer eeeeeeeeeeee, where .* by ffffffffffff"),
    ):
        dataset.read_rows(0, 10)


def test_another_parquet_file_is_no_token_shard(tmp_path):
    path = tmp_path / "papers.parquet"
    pq.write_table(pa.table({"text": ["granite"]}), path)
    with pytest.raises(ArtifactError, match=r"papers\.parquet: is not a token shard"):
        TokenDataset.open([ShardFile(str(path), 1, path.stat().st_size, "", "")], Storage())
    path.write_text("granite")
    with pytest.raises(ArtifactError, match=r"papers\.parquet: damaged \(it does not end as a Parquet file"):
        TokenDataset.open([ShardFile(str(path), 1, 7, "", "")], Storage())
    with pytest.raises(ArtifactError, match="names no shard"):
        TokenDataset.open([], Storage())


@pytest.mark.parametrize(("start", "stop"), [(0, 11), (-1, 3), (4, 4), (5, 2)])
def test_a_range_outside_the_dataset_is_an_error(tmp_path, start, stop):
    message = f"rows {start} to {stop} of a dataset of 10 rows"
    with (
        TokenDataset.open(write_dataset(tmp_path, make_rows(10)), Storage()) as dataset,
        pytest.raises(IndexError, match=message),
    ):
        dataset.read_rows(start, stop)


def test_a_dataset_travels_to_another_process(tmp_path):
    batch = make_rows(10)
    with TokenDataset.open(write_dataset(tmp_path, batch), Storage()) as dataset:
        dataset.read_rows(0, 10)
        with pickle.loads(pickle.dumps(dataset)) as copy:
            assert same(copy.read_rows(2, 9), batch.slice(2, 9))


@pytest.mark.parametrize(
    ("ends", "papers", "message"),
    [
        ([3, 3], [0, 1], "row 0: segment_ends must increase within 1 to 8"),
        ([3, 9], [0, 1], "row 0: segment_ends must increase within 1 to 8"),
        ([0, 3], [0, 1], "row 0: segment_ends must increase within 1 to 8"),
        ([], [], "row 0: segment_ends must increase within 1 to 8"),
        ([3, 4], [0], "row 0 has 2 segments and 1 entries of paper_index"),
    ],
)
def test_segments_that_make_no_sense_are_not_written(tmp_path, ends, papers, message):
    batch = RowBatch(
        np.zeros((1, 8), dtype=np.int32), [np.array(ends, dtype=np.int32)], [np.array(papers, dtype=np.int32)]
    )
    with pytest.raises(ValueError, match=message):
        write_shard(
            batch, tmp_path / "a", uri="", rows_per_row_group=1, tokenizer_fingerprint="f", origin="d/0"
        )


def test_rows_without_mask_join_rows_with_one():
    joined = RowBatch.concatenate([make_rows(2), make_rows(1, masked=True)])
    assert joined.loss_mask[:2].all()
    assert (joined.loss_mask[2:] == make_rows(1, masked=True).loss_mask).all()
    assert len(joined) == 3
