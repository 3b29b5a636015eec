"""CSV and TSV: delimiters, headers, quotes and encodings are detected, and what looks wrong is reported."""

import csv
import io

import pytest

from lm.config.schema import DataConfig
from lm.data.source import Source
from lm.errors import DataError
from tests.conftest import some_text
from tests.data.conftest import notes_of, read, streamed, warnings_of, written

pytestmark = pytest.mark.usefixtures("empty_cache")
LINES = some_text(6000).splitlines()


@pytest.mark.parametrize(
    ("delimiter", "name"), [(",", "comma"), (";", "semicolon"), ("\t", "tab"), ("|", "pipe")]
)
def test_delimiter_is_detected_and_reported(tmp_path, delimiter, name):
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter)
    texts = [f"{line}, et; a|b" for line in LINES[:30]] + ['a "quoted"\nword', "no, no; no"]
    writer.writerows([["id", "texte"], *enumerate(texts)])
    path = written(tmp_path / "a.csv", file.getvalue())
    assert read(path) == texts
    assert streamed(path, len(texts)) == texts
    assert notes_of(path).format == f"a {name} between cells, header id, texte"
    assert read(written(path, f"sep={delimiter}\r\n" + file.getvalue())) == texts


def test_delimiter_may_split_half_of_the_rows_and_the_comma_is_preferred(tmp_path):
    path = written(tmp_path / "a.csv", "id,text\n1,one two\nplain\nlines\n")
    assert notes_of(path).format == "a comma between cells, header id, text"
    path = written(tmp_path / "a.csv", "a,b;c\n1 x,2;3 y\n")
    assert notes_of(path, text_column="a").format == "a comma between cells, header a, b;c"
    path = written(tmp_path / "a.csv", "id,text\none\ntwo\n3,three\n4 five\n")
    assert notes_of(path).format == "one column, header id,text"


def test_unquoted_delimiters_in_a_single_column_are_text(tmp_path):
    texts = ["Hello, world", "one", "two", "a, b, c", "a; b"]
    path = written(tmp_path / "a.csv", "text\n" + "\n".join(texts))
    assert read(path) == texts
    assert notes_of(path).format == "one column, header text"


def test_row_with_too_many_cells_is_warned_about(tmp_path):
    path = written(tmp_path / "a.csv", "id,text\n1,one two\n2,hello, world\n3,x\n")
    assert read(path) == ["one two", "hello", "x"]
    (warning,) = warnings_of(path)
    assert f"{path} has 1 row with more cells than its 2 columns, the first in line 3:" in warning


@pytest.mark.parametrize(
    ("first", "suspicious"),
    [
        ("Our neighbour counts the harbour.", True),
        ("text", False),
        ("12,a text", True),
        ("id,text", False),
        ("A,good", True),
        ("id,The text of the tweet", False),
    ],
)
def test_first_row_that_looks_like_data_is_warned_about(tmp_path, first, suspicious):
    wide = "," in first
    rows = [f"{i},{line}" if wide else line for i, line in enumerate(LINES[:10])] + ["A,good"] * wide
    path = written(tmp_path / "a.csv", "\n".join([first, *rows]))
    warnings = [w for w in warnings_of(path) if "--no-header" in w]
    assert bool(warnings) == suspicious
    names = notes_of(path, header=False, text_column="1")
    assert names.format.endswith(", no header, columns 1, 2" if wide else ", no header, columns 1")
    texts = read(path, header=False, text_column="2" if wide else None)
    assert texts == [row.split(",")[-1] for row in [first, *rows]]


def test_line_for_excel_names_the_delimiter(tmp_path):
    path = written(tmp_path / "a.csv", "sep=^\nid^text\n1^a b\n2^c^d\n3^e^f\n")
    assert read(path) == ["a b", "c", "e"]
    (warning,) = warnings_of(path)
    assert f"{path} has 2 rows with more cells than its 2 columns, the first in line 4:" in warning
    assert read(written(tmp_path / "a.tsv", "sep=;\nid;text\n1;a\tb\n")) == ["a\tb"]
    assert read(written(tmp_path / "b.csv", "sep=;x,text\n1,a b\n")) == ["a b"]  # a column of that name


def test_names_of_the_columns_may_come_from_the_hub(tmp_path):
    path = written(tmp_path / "a.csv", "1,a long first text.\n2,a text\n")
    options = {"column_names": ["id", "body"]}
    source = Source("t", "", "csv", {"train": [str(path)]}, options, DataConfig())
    assert list(source.texts("train")) == ["a long first text.", "a text"]
    notes = source.notes["train"]
    assert (notes.column, notes.format) == ("body", "a comma between cells, no header, columns id, body")
    assert notes.facts("t")["warnings"] == []


def test_file_without_rows(tmp_path):
    for content in ("", "\n\n", "id,text\n"):
        assert notes_of(written(tmp_path / "a.csv", content)).rows == 0


def test_format_is_that_of_the_first_file(tmp_path):
    (tmp_path / "rows").mkdir()
    written(tmp_path / "rows" / "a.csv", "id;text\n1;a b\n")
    written(tmp_path / "rows" / "b.csv", "id,text\n1,c d\n")
    assert notes_of(tmp_path / "rows").format == "a semicolon between cells, header id, text"
    assert read(tmp_path / "rows") == ["a b", "c d"]


def test_tsv_has_no_quoting(tmp_path):
    path = written(tmp_path / "a.tsv", 'id\ttext\n1\t"She said no\n2\tplain row\n3\tanother "row\n4\tlast\n')
    expected = ['"She said no', "plain row", 'another "row', "last"]
    assert read(path) == streamed(path, 4) == expected
    assert warnings_of(path) == []


def test_cell_that_swallowed_many_lines_is_warned_about(tmp_path):
    rows = [f"{i},{line}" for i, line in enumerate(LINES[:60])]
    rows[10] = '10,"' + LINES[10]
    path = written(tmp_path / "a.csv", "id,text\n" + "\n".join(rows))
    assert len(read(path)) == 11
    (warning,) = warnings_of(path)
    assert "has 50 lines, from line 12 on" in warning
    for lines, found in ((20, False), (21, True)):
        cell = '"' + "a\n" * (lines - 1) + 'b"'
        written(path, f"id,text\n1,{cell}\n2,{cell}\n3,c\n")
        warnings = warnings_of(path)
        assert len(warnings) == found
        assert all("has 21 lines, from line 2 on" in warning for warning in warnings)


def test_header_names_are_unique(tmp_path):
    path = written(tmp_path / "a.csv", "text, text ,\na b,c d,e\n")
    assert read(path) == ["a b"]
    assert read(path, text_column="text 2") == ["c d"]
    assert read(path, text_column="3") == ["e"]


def test_other_encoding_of_a_table_is_an_error_that_names_encoding(tmp_path):
    path = written(tmp_path / "a.csv", "id;comment\n1;un café\n2;une forêt\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"a\.csv is not UTF-8: byte 0xe9 at position 19.*--encoding"):
        read(path)
    assert read(path, encoding="cp1252") == streamed(path, 2, encoding="cp1252") == ["un café", "une forêt"]
