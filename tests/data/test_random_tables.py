"""Random tables: every format is read as the library that defines it reads it."""

import csv
import io
import json
import string

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings, strategies as st

from lm.data.binary_files import check_is_text
from lm.errors import DataError
from tests.data.conftest import jsonl, read, streamed, written

pytestmark = pytest.mark.usefixtures("empty_cache")
WORD = st.text(string.ascii_lowercase, min_size=1, max_size=8)
TRICKY = st.sampled_from(
    [
        "None",
        "NA",
        "null",
        "nan",
        "007",
        "1.50",
        "1e5",
        "true",
        "",
        '"',
        'a "b" c',
        "x,y",
        "x;y",
        "a|b",
        "-",
        "é中😀",
    ]
)
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\uffff"), max_size=30)
CELL = TRICKY | ANY_TEXT
NUMBER = st.integers() | st.floats() | st.booleans()
VALUE = CELL | NUMBER | st.none() | st.lists(CELL | st.none(), max_size=3)
REPEATED = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def as_text(value):
    """The text of a JSON value."""
    if isinstance(value, list):
        return "\n".join(as_text(item) for item in value if item is not None)
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def is_text(path):
    """Whether a file is taken for text: not if it has most kinds of control characters."""
    try:
        check_is_text(str(path), path.read_bytes(), "utf-8")
    except DataError:
        return False
    return True


def check(path, expected, **options):
    """Compare the documents of a table, streamed and not."""
    expected = [text for text in expected if text.strip()]
    if expected:
        assert read(path, text_column="column", **options) == expected
        assert streamed(path, len(expected), text_column="column", **options) == expected


@REPEATED
@given(
    st.lists(st.tuples(CELL, CELL), min_size=1, max_size=8),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_csv_is_what_the_csv_module_reads(tmp_path, rows, quoting):
    file = io.StringIO(newline="")
    csv.writer(file, quoting=quoting).writerows([("column", "other"), *rows])
    path = written(tmp_path / "t.csv", file.getvalue())
    assume(is_text(path))
    reader = csv.DictReader(io.StringIO(file.getvalue(), newline=""))
    check(path, [row["column"] for row in reader])


@REPEATED
@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=8))
def test_tsv_is_what_the_csv_module_reads_without_quoting(tmp_path, rows):
    clean = [[cell.translate(dict.fromkeys(map(ord, "\t\r\n"), " ")) for cell in row] for row in rows]
    path = written(
        tmp_path / "t.tsv", "".join("\t".join(row) + "\n" for row in [["column", "other"], *clean])
    )
    assume(is_text(path))
    reader = csv.DictReader(path.open(encoding="utf-8", newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
    check(path, [row["column"] for row in reader])


@REPEATED
@given(st.lists(st.tuples(VALUE, VALUE), min_size=1, max_size=8), st.booleans())
def test_json_is_what_the_json_module_reads(tmp_path, rows, ascii_only):
    rows = [{"column": value, "other": {"nested": other}} for value, other in rows]
    lines = [json.dumps(row, ensure_ascii=ascii_only) for row in rows]
    expected = [as_text(json.loads(line)["column"]) for line in lines]
    check(written(tmp_path / "t.jsonl", "\n".join(lines)), expected)
    check(written(tmp_path / "t.json", json.dumps(rows, ensure_ascii=ascii_only, indent=1)), expected)
    nested = [{"a": row} for row in rows]
    path = jsonl(tmp_path / "nested.jsonl", nested)
    if any(map(str.strip, expected)):
        assert read(path, text_column="a.column") == [text for text in expected if text.strip()]


@pytest.mark.slow
@REPEATED
@given(
    st.lists(CELL | st.none(), min_size=1, max_size=8)
    | st.lists(st.integers(-(2**63), 2**63 - 1) | st.none(), min_size=1, max_size=8)
    | st.lists(st.lists(CELL | st.none(), max_size=3) | st.none(), min_size=1, max_size=8)
)
def test_parquet_is_the_text_of_its_values(tmp_path, values):
    table = pa.table({"other": [{"nested": "x"}] * len(values), "column": values})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=3)
    check(tmp_path / "t.parquet", list(map(as_text, values)))
