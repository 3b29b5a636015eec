"""CSV and TSV: delimiters, headers, quotes and encodings are detected, and what looks wrong is reported."""

import csv
import io

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from lm.config.schema import DataConfig
from lm.data.columns import Notes
from lm.data.source import Source
from lm.data.tables import Options, read_rows
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
    assert any("most lines lack the delimiter of the first ('id,text')" in w for w in warnings_of(path))


def test_unquoted_delimiters_in_a_single_column_are_text(tmp_path):
    texts = ["Hello, world", "one", "two", "a, b, c", "a; b"]
    path = written(tmp_path / "a.csv", "text\n" + "\n".join(texts))
    assert read(path) == texts
    assert notes_of(path).format == "one column, header text"


def test_line_breaks_that_are_not_quoted_are_warned_about(tmp_path):
    path = written(tmp_path / "a.csv", "id,text\n1,one\n2,hello\nworld\n3,x\nmore\n\n")
    assert read(path) == ["one", "hello", "x"]
    (warning,) = warnings_of(path)
    assert f"{path} has 2 rows with too few cells for the column 'text', the first in line 4:" in warning


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
    source = Source("t", "csv", {"train": [str(path)]}, options, DataConfig())
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
    path = tmp_path / "a.csv"
    for lines, found in ((20, False), (21, True)):
        cell = '"' + "a\n" * (lines - 1) + 'b"'
        written(path, f"id,text\n1,{cell}\n2,{cell}\n3,c\n")
        warnings = warnings_of(path)
        assert len(warnings) == found
        assert all("has 21 lines, from line 2 on" in warning for warning in warnings)


def test_warnings_count_all_rows_if_there_is_no_text_in_the_first_ones(tmp_path):
    """The column is then chosen from later rows, and the file is read again from its beginning."""
    rows = [f"{number}," if number < 1400 else f"{number},a b" for number in range(3000)]
    for number in (500, 1500, 1600):
        rows[number] += ",c"
    rows[600], rows[1700] = (f'"{number}' + "\n" * lines + '",' for number, lines in ((600, 24), (1700, 49)))
    warnings = warnings_of(written(tmp_path / "a.csv", "id,text\n" + "\n".join(rows) + "\n"))
    (wide,) = (warning for warning in warnings if "more cells" in warning)
    assert "has 3 rows with more cells than its 2 columns, the first in line 502:" in wide
    (swallowed,) = (warning for warning in warnings if "a quote not closed" in warning)
    assert "a row of" in swallowed and "has 50 lines, from line 1,726 on" in swallowed


def test_header_names_are_unique(tmp_path):
    path = written(tmp_path / "a.csv", "text, text ,\na b,c d,e\n")
    assert read(path) == ["a b"]
    assert read(path, text_column="text 2") == ["c d"]
    assert read(path, text_column="3") == ["e"]


@pytest.mark.parametrize(
    ("header", "names"),
    [
        (",0,1", ["1 1", "0", "1"]),  # as pandas writes it
        ('"","1","2"', ["1 1", "1", "2"]),  # as R writes it
        ("a 3,a,a", ["a 3", "a", "a 3 3"]),
        ("1 1,1,", ["1 1", "1", "3"]),
        (",1 1,1", ["1 1 1", "1 1", "1"]),
    ],
)
def test_no_column_takes_a_name_in_the_header_from_another(tmp_path, header, names):
    path = written(tmp_path / "a.csv", f"{header}\none two,b,c\n")
    (row,) = read_rows(str(path), "csv", Options(), Notes())
    assert row == dict(zip(names, ["one two", "b", "c"], strict=True))


def test_other_encoding_of_a_table_is_an_error_that_names_encoding(tmp_path):
    path = written(tmp_path / "a.csv", "id;comment\n1;un café\n2;une forêt\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"a\.csv is not UTF-8: byte 0xe9 at position 19.*--encoding"):
        read(path)
    assert read(path, encoding="cp1252") == streamed(path, 2, encoding="cp1252") == ["un café", "une forêt"]


# What is not RFC 4180 is another dialect, or an error.


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        # A backslash before quotes; elsewhere it is text.
        ('id,text\n1,"He said \\"go home\\" and left"\n', ['He said "go home" and left']),
        ('id,text\n1,"She said \\"go, home\\""\n2,"a\\nb \\\\ c"\n', ['She said "go, home"', "a\\nb \\ c"]),
        ('id, text\n1, "Say \\"a, b\\" now"\n', ['Say "a, b" now']),
        ('text\n"Say \\"a, b\\" now"\n', ['Say "a, b" now']),
        # Spaces after the delimiter.
        (
            'id, text\n1, "Well, the cat sat"\n2, "a ""b"" c"\n3, d e\n',
            ["Well, the cat sat", 'a "b" c', "d e"],
        ),
        ('id, text\n1, "The cat sat"\n', ["The cat sat"]),
        ("id, text\n1, The cat sat\n", [" The cat sat"]),
        ('id,text\n1,"said "" , ""hi"\n2, padded x\n', ['said " , "hi', " padded x"]),
        # Lines without quoting.
        (
            'text\n"I was there.\nIt rained.\n"Really?" she asked, and left.\nNobody answered.\n',
            ['"I was there.', "It rained.", '"Really?" she asked, and left.', "Nobody answered."],
        ),
        ('id\ttext\n1\t"To be\n2\t5" nails\n', ['"To be', '5" nails']),
        ('sep=;\nid;text\n1;"To be" he said\n', ['"To be" he said']),
        ('"sep=;"\nid;text\n1;hello, words\n', ["hello, words"]),
        ("sep=;,,\nid;text\n1;hello, words\n", ["hello, words"]),
        # Commas within numbers, or one in each row.
        ("id;preis (EUR, netto);text\n1;3,50;Hello there\n2;4,20;Good bye\n", ["Hello there", "Good bye"]),
        ("id;price;text\n1;3,50;Hello there\n2;4,20;Good bye\n", ["Hello there", "Good bye"]),
    ],
)
def test_other_dialects_are_recognized(tmp_path, content, expected):
    path = written(tmp_path / "a.csv", content)
    assert read(path) == streamed(path, len(expected)) == expected


def test_quotes_that_are_text_are_warned_about(tmp_path):
    path = written(tmp_path / "a.csv", 'text\n"Hello," she said.\nThe man went away.\n')
    assert any("the quotes in" in warning and "are read as text" in warning for warning in warnings_of(path))
    assert not warnings_of(written(tmp_path / "b.csv", 'text\n"Hello, she said."\nThe man went away.\n'))


@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        ('id,text\n1,"The cat"\n2,"a "b" c"\n', 3, "text follows a closing quote; double the quotes"),
        ('id,text\n1,"Well, the cat"\n2,"Hm", he said\n', 3, "has 3 cells"),
        ('id,text\n1,"a, b"\n2,"Hm" he said, she\n', 3, "text follows a closing quote"),
        ('id,text\n1,"a, b"\n2,"c\n3,d, e\n', 3, "a quote in it is never closed"),
        ('"id"x,text\n1,"a, b"\n2,"c, d"\n', 2, "has 3 cells and the first row has 2"),
        (
            "id,text\n1,Well, the cat\n2,Yes\n3,No, never, no\n4,Oh, no\n",
            2,
            "has 3 cells and the first row has 2",
        ),
        ("id,lang,text\n1,the cat\n2,the dog\n", 2, "and the first row has 3: delete lines above"),
        ("Exported 2024\n\nid;text\n0;The cat\n1;The dog\n", 3, "and the first row has 1: delete lines"),
        ('"text"\n"1","the cat"\n"2","the dog"\n', 2, "and the first row has 1"),
    ],
)
def test_malformed_rows_are_errors_that_name_the_line(tmp_path, content, line, problem):
    path = written(tmp_path / "a.csv", content)
    if problem == "has 3 cells":
        assert any(f"the first in line {line}" in warning for warning in warnings_of(path))
        return
    with pytest.raises(DataError, match=rf"a\.csv, line {line}, .*{problem}"):
        read(path)


@pytest.mark.parametrize(
    ("above", "named"),
    [("Survey results,,\n", 1), ("Survey results,,\n,,\n", 1), (",,\nBy,Ann,\n,,\n,,\n", 2)],
)
def test_title_with_empty_cells_is_an_error(tmp_path, above, named):
    with pytest.raises(DataError, match=f"names only {named} of 3 columns: delete lines above the header"):
        read(written(tmp_path / "a.csv", f"{above}id,text,lang\n0,The cat,en\n"))


@pytest.mark.parametrize("header", ["text,,\n", "text,,\n,,\n", ",,\n , ,\ntext,,\n"])
def test_header_with_empty_cells_names_the_columns(tmp_path, header):
    path = written(tmp_path / "a.csv", f"{header}The cat,,\nThe dog,,\n")
    assert read(path) == ["The cat", "The dog"]
    assert "header text" in notes_of(path).format


def test_empty_rows_above_the_header_are_no_header(tmp_path):
    path = written(tmp_path / "a.csv", ";;\n\n ; ;\nid;text;n\n;;\n1;The cat;2\n")
    assert read(path, text_column="text") == ["The cat"]
    assert notes_of(written(tmp_path / "b.csv", ",,\n1,The cat,2\n"), header=False).rows == 2


def test_row_names_of_r_are_an_error(tmp_path):
    """They would move every cell into the column on its right."""
    path = written(tmp_path / "a.tsv", "item\ttext\n1\t7\tThe cat\n2\t8\tA dog\n")
    with pytest.raises(DataError, match="have one cell more than the first row"):
        read(path)
    assert read(written(tmp_path / "b.tsv", "item\ttext\n7\tThe cat\t\n8\tA dog\t\n")) == ["The cat", "A dog"]


@pytest.mark.parametrize("cell", ['"a "b" c"', '"never closed'])
def test_dialect_that_changes_after_the_first_lines_is_an_error(tmp_path, cell):
    rows = [f'{i},"{line}, and"' for i, line in enumerate(LINES[:100] * 20)]
    path = written(tmp_path / "a.csv", "\n".join(["id,text", *rows, f"2000,{cell}", "2001,x", ""]))
    with pytest.raises(DataError, match=r"a\.csv, line 2,002, is not CSV: "):
        read(path)


@given(
    st.text('ab ,;"\\\n', max_size=60),
    st.sampled_from(["t", "i,t", '"i","t"', "i;t", "i, t"]),
)
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_letter_and_no_line_of_text_is_lost_or_moved(tmp_path, content, header):
    """Whatever the dialect, reading ends in an error or a warning, or returns all letters in their order."""
    notes = Notes()
    path = str(written(tmp_path / "a.csv", f"{header}\n{content}"))
    try:
        rows = list(read_rows(path, "csv", Options(), notes))
    except DataError as error:
        assert "\n" not in str(error) and path in str(error)
        return
    if any(kind.startswith("wide") for kind in notes.warnings):
        return
    cells = "".join(cell for row in rows for cell in row.values())
    assert [c for c in cells if c in "ab"] == [c for c in content if c in "ab"]
    if '"' not in content:
        assert len(rows) == sum(bool(line) for line in content.split("\n"))


@given(st.lists(st.tuples(st.text('ab ,"', max_size=9), st.text('ab ,"\n', max_size=9)), max_size=9))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_backslashes_of_a_writer_are_read(tmp_path, rows):
    rows = [("id", "text"), ("0", 'he said "no, no" then'), *(row for row in rows if any(row))]
    file = io.StringIO()
    writer = csv.writer(file, doublequote=False, escapechar="\\", quoting=csv.QUOTE_ALL)
    writer.writerows(rows)
    path = written(tmp_path / "a.csv", file.getvalue())
    found = [tuple(row.values()) for row in read_rows(str(path), "csv", Options(), Notes())]
    assert found == rows[1:]


def test_columns_of_the_same_name_keep_their_places(tmp_path):
    path = written(tmp_path / "a.csv", "a 2,a,a,text\n1,2,3,one two\n")
    assert read(path, text_column="text") == ["one two"]
    assert read(path, text_column="a") == ["2"]
