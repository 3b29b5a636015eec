"""Tables: text exactly as the file writes it, whatever the format, and a report of what was read."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lm.config.schema import DataConfig, ModelConfig
from lm.data import report
from lm.data.corpus import open_corpus
from lm.data.source import Source
from lm.errors import DataError
from tests.conftest import some_text
from tests.data.conftest import documents, found, jsonl, notes_of, read, streamed, warnings_of, written

pytestmark = pytest.mark.usefixtures("empty_cache")
LINES = some_text(6000).splitlines()


# Values are text as they are written.


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
@pytest.mark.parametrize("text", ["3+4=7", "+1 555 0", "12", "2026-11-30"])
def test_a_column_named_text_may_have_no_letters(tmp_path, name, text):
    texts = [text] * 1200
    if name == "a.csv":
        path = written(tmp_path / name, "text,kind\n" + "".join(f"{text},add\n" for text in texts))
    else:
        path = jsonl(tmp_path / name, [{"text": text, "kind": "add"} for text in texts])
    assert read(path) == streamed(path, len(texts)) == texts
    assert notes_of(path).why == "named text"


@pytest.mark.parametrize("streaming", [False, True])
def test_number_among_texts_becomes_its_digits_with_one_notice(tmp_path, streaming):
    texts = ["café\nline two", "plain words", 1, *LINES[:20]]
    path = jsonl(tmp_path / "m.jsonl", [{"text": text} for text in texts])
    expected = [str(text) for text in texts]
    assert (streamed(path, len(texts)) if streaming else read(path)) == expected
    corpus = open_corpus(DataConfig(dataset=str(path), streaming=streaming))
    notices = [w for w in report.warnings(corpus, 1, ModelConfig()) if "numbers" in w]
    assert notices == [
        "the column 'text' of m contains numbers or true and false rather than text in"
        " 1 of 23 rows: they are read as they are written."
    ]


@pytest.mark.parametrize("number", ["1.50", "-0", "1E400", "12345678901234567890123", "NaN", "true", "false"])
def test_json_numbers_keep_their_digits(tmp_path, number):
    path = written(tmp_path / "n.jsonl", f'{{"text": "a b"}}\n{{"text": {number}}}\n')
    assert read(path) == streamed(path, 2) == ["a b", number]


@pytest.mark.parametrize("streaming", [False, True])
def test_cells_are_never_missing_values_or_numbers(tmp_path, streaming):
    cells = [
        "None",
        "NA",
        "null",
        "nan",
        "",
        "007",
        "1.50",
        "1e5",
        "TRUE",
        "2020-01-01",
        " padded ",
        "Miller",
    ]
    path = written(tmp_path / "s.csv", "surname\n" + "\n".join(cells) + "\n")
    expected = list(filter(None, cells))
    assert (streamed(path, len(expected)) if streaming else read(path)) == expected


def test_column_that_turns_into_digits_stays_text(tmp_path):
    cells = [f"word number {i}" for i in range(11_000)] + [f"{i:05}" for i in range(11_000)]
    assert read(written(tmp_path / "late.csv", "text\n" + "\n".join(cells))) == cells


def test_null_and_missing_values_are_no_text(tmp_path):
    path = jsonl(tmp_path / "n.jsonl", [{"text": None}, {"id": 1}, {"text": ""}, {"text": "a b"}, None])
    notes = notes_of(path)
    assert read(path) == ["a b"]
    assert (notes.rows, notes.empty) == (5, 4)


def test_column_that_is_null_for_hundreds_of_rows_is_found(tmp_path):
    rows = [{"body": None}] * 3000 + [{"body": line} for line in LINES[:50]]
    assert read(jsonl(tmp_path / "late.jsonl", rows)) == LINES[:50]
    pq.write_table(pa.table({"body": [row["body"] for row in rows]}), tmp_path / "late.parquet")
    assert read(tmp_path / "late.parquet") == LINES[:50]
    rows = [{"id": i} for i in range(3000)] + [{"body": line} for line in LINES[:50]]
    assert read(jsonl(tmp_path / "new.jsonl", rows), text_column="body") == LINES[:50]


def test_damaged_characters_of_rows_that_are_read_again_count_once(tmp_path):
    """Without text in the first rows, the file is read again from its beginning."""
    for empty, name in ((10, "soon"), (3000, "late")):
        text = b"id,body\n" + b"1,\n" * empty + b"2,caf\xe9 au lait\n"
        source = found(written(tmp_path / f"{name}.csv", text), encoding_errors="replace")
        assert documents(source) == ["caf\ufffd au lait"]
        assert (source.decoded.replaced, source.decoded.characters) == (1, len(text))


def test_half_a_character_is_an_error_or_replaced(tmp_path):
    path = written(tmp_path / "h.jsonl", '{"text": "a \\ud83d b"}\n{"text": "\\ud83d\\ude00"}\n')
    with pytest.raises(DataError, match=r"row 1 of h contains '\\ud83d', half of a character"):
        read(path)
    assert read(path, encoding_errors="replace") == ["a \ufffd b", "\U0001f600"]


# Folders, and other formats.


def test_dates_and_times_are_not_text(tmp_path):
    header = "Timestamp,Score,How was your day?\n"
    rows = "1/2/2026 10:00:00,9 / 10,Fine thanks\n2026-01-02 11:30:05+01:00,90 %,Long\n"
    path = written(tmp_path / "form.csv", header + rows)
    assert read(path) == ["Fine thanks", "Long"]
    assert read(path, text_column="Score") == ["9 / 10", "90 %"]
    assert notes_of(path).why == "the only one with text"


def test_file_without_the_column_is_warned_about(tmp_path):
    (tmp_path / "rows").mkdir()
    for name, column in (("a", "text"), ("b", "body"), ("c", "text")):
        jsonl(tmp_path / "rows" / f"{name}.jsonl", [{column: f"{name} {line}"} for line in LINES[:3]])
    assert len(read(tmp_path / "rows")) == 6
    (warning,) = warnings_of(tmp_path / "rows")
    assert "b.jsonl: no column is named 'text' there" in warning


def test_format_that_only_datasets_reads(tmp_path):
    sequences = ["ACGT", "GATTACA", "TTT"]
    text = "".join(f">{number} name\n{sequence}\n" for number, sequence in enumerate(sequences))
    file = str(written(tmp_path / "a.fasta", text))
    source = Source("t", "fasta", {"train": [file]}, {}, DataConfig(text_column="sequence"))
    assert list(source.texts("train")) == sequences
    assert [row["text"] for row in source.text_rows("train")] == sequences


# What the report shows.


def test_report_shows_column_reason_example_and_format(tmp_path):
    path = written(
        tmp_path / "a.csv", "id;texte\n" + "\n".join(f"{i};{line}" for i, line in enumerate(LINES))
    )
    rows = report.rows(open_corpus(DataConfig(dataset=str(path))))
    assert rows["Column"] == f"'texte', the only one with text; {len(LINES):,} rows"
    assert rows["Example"] == LINES[0]
    assert rows["Format"] == "a semicolon between cells, header id, texte"
    both = report.rows(open_corpus(DataConfig(dataset=(str(path), str(jsonl(tmp_path / "b.jsonl", LINES))))))
    assert both["Column of a"] == rows["Column"]
    assert both["Column of b"] == f"'text', named text; {len(LINES):,} rows"


def test_line_breaks_in_the_name_of_a_column_break_no_line_of_the_report(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"What do\nyou think?": text} for text in ("This is it.", 5)])
    corpus = open_corpus(DataConfig(dataset=str(path)))
    assert report.rows(corpus)["Column"].startswith("'What do you think?', the only one with text; ")
    (warning,) = warnings_of(path)
    assert warning.startswith("the column 'What do you think?' of ") and "\n" not in warning


def test_column_with_more_text_is_warned_about(tmp_path):
    rows = [{"text": line, "body": f"{line} {line}", "tag": "a"} for line in LINES]
    path = jsonl(tmp_path / "a.jsonl", rows)
    corpus = open_corpus(DataConfig(dataset=str(path)))
    (warning,) = (w for w in report.warnings(corpus, 1, ModelConfig()) if "column" in w)
    assert warning.startswith("the column 'body' of a contains more text than 'text', which is used")
    assert report.rows(corpus)["Column"] == f"'text', named text; {len(LINES):,} rows; more text in body"
    corpus = open_corpus(DataConfig(dataset=str(path), text_column="text"))
    assert not any("column" in w for w in report.warnings(corpus, 1, ModelConfig()))
    assert "chosen with --text-column; " in report.rows(corpus)["Column"]
