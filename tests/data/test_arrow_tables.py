"""Parquet and Arrow: only the columns that are needed are read, and a value that cannot be is named."""

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from lm.data.columns import Notes
from lm.data.tables import Options, read_rows
from lm.errors import DataError
from tests.conftest import some_text
from tests.data.conftest import read, streamed

pytestmark = pytest.mark.usefixtures("empty_cache")
LINES = some_text(6000).splitlines()[:30]
TOO_LATE = pa.array([2**62] * len(LINES), pa.timestamp("us"))  # Python has no such year


def arrow(path, table, as_file=False):
    new = pa.ipc.new_file if as_file else pa.ipc.new_stream
    with pa.OSFile(str(path), "wb") as opened, new(opened, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    return path


def parquet(path, table):
    pq.write_table(table, path)
    return path


@pytest.mark.parametrize("write", [parquet, arrow])
def test_only_the_columns_that_are_needed_are_read(tmp_path, write):
    file = write(tmp_path / f"a.{write.__name__}", pa.table({"text": LINES, "time": TOO_LATE}))
    assert read(file) == read(file, text_column="text") == streamed(file, len(LINES)) == LINES
    with pytest.raises(DataError, match=r"the column 'time' of .* cannot be read \(.*--text-column"):
        read(file, text_column="time")
    with pytest.raises(DataError, match="a has no column 'txt'; it has text, time; did you mean 'text'"):
        read(file, text_column="txt")


def test_column_that_cannot_be_read_is_named(tmp_path):
    damaged = pa.Array.from_buffers(pa.string(), 1, [None, *pa.array([b"a \xff b"]).buffers()[1:]])
    file = parquet(tmp_path / "a.parquet", pa.table({"id": [1], "text": damaged, "more": ["a b"]}))
    with pytest.raises(DataError, match=r"the column 'text' of .*a\.parquet cannot be read"):
        read(file)
    assert read(file, text_column="more") == ["a b"]


@pytest.mark.parametrize("write", [parquet, arrow])
def test_columns_of_the_same_name_are_told_apart_by_their_numbers(tmp_path, write):
    columns = {"text": ["a b"], "id": [1], "text ": ["c d"], "more": ["e f"]}
    table = pa.table(columns).rename_columns(["text", "id", "text", "more"])
    file = write(tmp_path / f"a.{write.__name__}", table)
    assert read(file) == read(file, text_column="text") == ["a b"]
    assert read(file, text_column="text 3") == streamed(file, 1, text_column="text 3") == ["c d"]
    assert read(file, text_column="more") == ["e f"]
    (row,) = read_rows(str(file), write.__name__, Options(), Notes(), columns={"id", "text 3"})
    assert (row["id"], row["text 3"]) == (1, "c d") and "more" not in row
    with pytest.raises(DataError, match="it has text, id, text 3, more"):
        read(file, text_column="txt 9")


@pytest.mark.parametrize("write", [parquet, arrow])
def test_keys_of_a_map_are_names_of_columns(tmp_path, write):
    pairs = pa.map_(pa.string(), pa.string())
    maps = pa.array([[("en", line), ("fr", f"le {line}")] for line in LINES] + [None], pairs)
    lists = pa.array([[[("en", line)], None] for line in LINES] + [[]], pa.list_(pairs))
    file = write(tmp_path / f"a.{write.__name__}", pa.table({"translation": maps, "more": lists}))
    with pytest.raises(DataError, match=r"several columns .*: translation\.en .*, translation\.fr"):
        read(file)
    assert read(file, text_column="translation.fr") == [f"le {line}" for line in LINES]
    assert read(file, text_column="more.en") == LINES


@pytest.mark.parametrize("as_file", [False, True])
def test_both_formats_of_arrow_are_read(tmp_path, as_file):
    table = pa.table({"id": range(len(LINES)), "body": LINES})
    assert read(arrow(tmp_path / "a.arrow", table, as_file)) == LINES
    feather.write_feather(table, tmp_path / "a.feather", compression="zstd")
    assert read(tmp_path / "a.feather") == LINES
    (tmp_path / "b.arrow").write_bytes((tmp_path / "a.arrow").read_bytes()[:-400])
    with pytest.raises(DataError, match=r"b\.arrow is damaged or truncated .*: download it again"):
        read(tmp_path / "b.arrow")


def test_damaged_text_in_parquet_with_checksums_is_an_error(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": LINES}), path, compression="none", write_page_checksum=True)
    assert read(path) == LINES
    path.write_bytes(path.read_bytes().replace(LINES[3].encode(), LINES[3].upper().encode()))
    with pytest.raises(DataError, match=r"a\.parquet is damaged or truncated .*: download it again"):
        read(path)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9) | st.none(), max_size=9))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_row_is_read_whichever_columns_are(tmp_path, values):
    table = pa.table({"text": pa.array(values, pa.string()), "id": range(len(values))})
    rows = table.to_pylist()
    for kind, file in (
        ("parquet", parquet(tmp_path / "a.parquet", table)),
        ("arrow", arrow(tmp_path / "a.arrow", table)),
    ):
        for columns in (None, {"text"}, {"text", "none"}, {"none"}):
            found = list(read_rows(str(file), kind, Options(), Notes(), columns=columns))
            kept = {"text", "id"} if columns is None else columns
            assert found == [{name: row[name] for name in row if name in kept} for row in rows]


def test_each_flipped_bit_of_a_parquet_footer_is_one_line_or_harmless(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"text": LINES[:9], "ids": [[1, 2]] * 9}), path)
    whole = path.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    rejected = 0
    for bit in range(8 * footer, 8 * len(whole), 5):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            list(read_rows(str(path), "parquet", Options(), Notes()))
        except DataError as error:
            assert "\n" not in str(error) and str(error).startswith(f"{path} is damaged or truncated (")
            rejected += 1
    assert rejected > 100
