"""Tables: text exactly as the file writes it, whatever the format, and a report of what was read."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lm.config.schema import DataConfig, ModelConfig
from lm.data import report
from lm.data.columns import Notes
from lm.data.corpus import open_corpus
from lm.data.source import Source
from lm.data.tables import Options, read_rows
from lm.errors import DataError
from tests.conftest import some_text
from tests.data.conftest import documents, found, jsonl, notes_of, read, streamed, warnings_of, written

pytestmark = pytest.mark.usefixtures("empty_cache")
LINES = some_text(6000).splitlines()


# Values are text as they are written.


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


# Lists, conversations and nested fields.


def test_list_of_strings_is_joined_by_newlines(tmp_path):
    rows = [{"dialog": ["one two", "three"], "act": [1, 2]}, {"dialog": ["four", None, "five"], "act": []}]
    path = jsonl(tmp_path / "d.jsonl", rows)
    assert read(path) == streamed(path, 2) == ["one two\nthree", "four\nfive"]
    assert read(path, text_column="act") == ["1\n2"]


@pytest.mark.parametrize(("who", "what"), [("role", "content"), ("from", "value")])
def test_messages_become_dialogue(tmp_path, who, what):
    turns = [
        {who: "user", what: "Where is it?"},
        {who: "gpt", what: "Here.\nLook."},
        {who: "gpt", what: None},
    ]
    expected = "user: Where is it?\ngpt: Here.\nLook."
    path = jsonl(tmp_path / "chat.jsonl", [{"id": 0, "messages": turns}])
    assert read(path) == streamed(path, 1) == [expected]
    assert read(jsonl(tmp_path / "bare.jsonl", [turns, turns])) == [expected, expected]
    pq.write_table(pa.Table.from_pylist([{"conversations": turns[:2]}]), tmp_path / "c.parquet")
    assert read(tmp_path / "c.parquet") == [expected]


def test_messages_in_parts_are_their_texts(tmp_path):
    parts = [{"type": "text", "text": "a b"}, {"type": "image", "url": "x"}, {"type": "text", "text": "c"}]
    path = jsonl(tmp_path / "p.jsonl", [{"messages": [{"role": "user", "content": parts}]}])
    assert read(path) == ["user: a b\nc"]


def test_text_in_pieces_is_put_together(tmp_path):
    """As in exports of chats: links and bold words are objects within the text."""
    link = {"type": "link", "text": "https://example.org"}
    rows = [{"text": "plain"}, {"text": ["see ", link, " now"]}, {"text": [link]}, {"text": []}]
    path = written(tmp_path / "chat.json", json.dumps({"name": "us", "messages": rows}))
    expected = ["plain", "see https://example.org now", "https://example.org"]
    assert read(path) == expected
    comments = [{"author": "A", "text": "one"}, {"author": "B", "text": "two"}]
    with pytest.raises(DataError, match="several columns"):  # two texts, not one in pieces
        read(jsonl(tmp_path / "c.jsonl", [{"text": comments}]))


@pytest.mark.parametrize("about", [{"from": "Bob"}, {"date": "2024-01-01"}, {"from": None, "date": "2024"}])
def test_messages_with_a_sender_or_a_date_are_no_pieces(tmp_path, about):
    """As in the full export of Telegram, whose messages have a type as well."""
    texts = ["hello", ["see ", {"type": "link", "text": "https://example.org"}, " now"], "bye then"]
    messages = [{"id": i, "type": "message", **about, "text": text} for i, text in enumerate(texts)]
    chats = [{"name": f"chat {i}", "id": i, "messages": messages[: 3 - i]} for i in (2, 0, 0)]
    path = written(tmp_path / "result.json", json.dumps({"chats": {"list": chats}}))
    with pytest.raises(DataError, match=r"several columns of result contain text; .*messages\.text"):
        read(path)
    expected = "hello\nsee https://example.org now\nbye then"
    assert read(path, text_column="messages.text") == ["hello", expected, expected]
    chats = [{"id": i, "messages": [messages[0], messages[2]]} for i in range(3)]
    path = written(tmp_path / "plain.json", json.dumps({"chats": {"list": chats}}))
    with pytest.raises(DataError, match=r"several columns of plain contain text; .*messages\.text"):
        read(path)
    assert read(path, text_column="messages.text") == ["hello\nbye then"] * 3


def test_fields_of_objects_have_dotted_names(tmp_path):
    rows = [{"translation": {"en": "one word", "fr": "un mot", "more": {"n": i}}} for i in range(3)]
    path = jsonl(tmp_path / "t.jsonl", rows)
    assert read(path, text_column="translation.en") == streamed(path, 3, text_column="translation.en")
    assert read(path, text_column="translation.fr") == ["un mot"] * 3
    assert read(path, text_column="translation.more.n") == ["0", "1", "2"]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet", text_column="translation.en") == ["one word"] * 3
    columns = r"translation.en \('one word'\), translation.fr \('un mot'\)\.$"
    with pytest.raises(DataError, match=f"choose one with --text-column: {columns}"):
        read(path)
    with pytest.raises(DataError, match=r"'translation' of t contains objects; .*: translation.en, transl"):
        read(path, text_column="translation")
    with pytest.raises(DataError, match=r"no column 'translation.ne'; .*did you mean 'translation.en'"):
        read(path, text_column="translation.ne")


def test_name_with_a_dot_is_preferred_to_a_field(tmp_path):
    path = jsonl(tmp_path / "t.jsonl", [{"a.b": "the name", "a": {"b": "the field"}}])
    assert read(path, text_column="a.b") == streamed(path, 1, text_column="a.b") == ["the name"]
    pq.write_table(pa.table({"a.b": ["the name"], "c": ["x y"]}), tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet", text_column="a.b") == ["the name"]


def test_fields_of_the_objects_in_a_list_are_joined(tmp_path):
    rows = [{"title": "A title", "sections": [{"text": "one two three"}, {"text": "four five six"}]}]
    path = jsonl(tmp_path / "s.jsonl", rows)
    assert read(path, text_column="sections.text") == ["one two three\nfour five six"]
    with pytest.raises(DataError, match=r"several columns of s contain text; .* sections.text"):
        read(path)


# Where the rows of JSON are.


@pytest.mark.parametrize("values", [["one two", 'say "hi"', "café"], ["one two", 5, "x"]])
def test_strings_are_rows(tmp_path, values):
    expected = [str(value) for value in values]
    assert read(written(tmp_path / "a.json", json.dumps(values))) == expected
    assert read(jsonl(tmp_path / "a.jsonl", values)) == streamed(tmp_path / "a.jsonl", 3) == expected


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.ndjson"])
def test_objects_are_rows_in_a_list_and_on_lines_whatever_the_name(tmp_path, name):
    rows = [{"id": i, "text": line} for i, line in enumerate(LINES[:5])]
    path = tmp_path / name
    for content in (
        json.dumps(rows),
        json.dumps(rows, indent=2),
        "\ufeff" + json.dumps(rows),
        "\n".join(map(json.dumps, rows)),
        "\r\n\r\n".join(map(json.dumps, rows)) + "\r\n",
        json.dumps({"version": "1.0", "data": rows}, indent=1),
    ):
        if name == "rows.json" or "version" not in content:
            assert read(written(path, content)) == LINES[:5]
    assert read(written(path, json.dumps(rows[0]))) == LINES[:1]


def test_rows_inside_an_object_are_found_or_asked_for(tmp_path):
    rows = [{"title": "A title", "text": line} for line in LINES[:5]]
    path = written(tmp_path / "a.json", json.dumps({"version": "1.0", "a": {"data": rows}, "n": [1, 2]}))
    assert read(path) == streamed(path, 5) == LINES[:5]
    assert notes_of(path).format == "rows in 'a.data'"
    (tmp_path / "files").mkdir()
    for name in ("a", "b"):
        written(tmp_path / "files" / f"{name}.json", json.dumps({name: rows}))
    assert notes_of(tmp_path / "files").format == "rows in 'a'"
    path = written(tmp_path / "b.json", json.dumps({"train": rows, "test": rows[:2]}))
    with pytest.raises(DataError, match=r"several lists of rows; .* --json-field: train, test\."):
        read(path)
    assert read(path, json_field="test") == LINES[:2]
    with pytest.raises(DataError, match="no list 'tset' of rows; it has train, test; did you mean 'test'"):
        read(path, json_field="tset")
    path = written(tmp_path / "c.json", json.dumps({"version": "1", "data": LINES[:5]}))
    assert read(path) == LINES[:5]


def test_object_with_a_text_of_its_own_is_a_row(tmp_path):
    article = {"title": "A title", "text": "A long text. " * 20, "authors": [{"name": "A B"}, {"name": "C"}]}
    assert read(written(tmp_path / "a.json", json.dumps(article))) == ["A long text. " * 20]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.json",
            '[\n{"text": "a"},\n{"text": }\n]',
            "a.json, line 3, is not JSON: Expecting value at column 10",
        ),
        ("a.jsonl", '{"text": "a"}\n\n{"text": "b"\n', "a.jsonl, line 3, is not JSON"),
        ("a.json", "[" * 100_000, "a.json, line 1, is nested too deeply"),
        ("a.json", "[" * 100_000 + "]" * 100_000, "a.json, line 1, is nested too deeply"),
        ("a.json", "[" * 101 + "]" * 101, "a.json, line 1, is nested too deeply"),
        ("a.jsonl", '{"text": "a"}\n' + '{"a":' * 400 + "1" + "}" * 400, "a.jsonl, line 2, is nested too"),
    ],
)
def test_invalid_json_is_reported_with_its_line(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        read(written(tmp_path / name, content))


def test_json_may_be_nested_a_hundred_levels(tmp_path):
    row = '{"text": "one [[{{ two", "more": ' + "[" * 99 + "]" * 99 + "}"
    path = written(tmp_path / "a.jsonl", f"{row}\n{row}\n")
    assert read(path) == ["one [[{{ two"] * 2
    assert notes_of(path, text_column="text").column == "text"
    assert read(written(tmp_path / "b.jsonl", json.dumps("[{" * 1000))) == ["[{" * 1000]


def test_a_table_with_a_million_columns_is_an_error(tmp_path):
    path = written(tmp_path / "a.csv", ",".join(["one two"] * 1_000_000) + "\n")
    with pytest.raises(DataError, match=r"a\.csv has 1,000,000 columns, and a CSV file can have") as error:
        read(path)
    assert len(str(error.value)) < 400
    names = ["text", *map(str, range(9999))]
    path = written(tmp_path / "b.csv", ",".join(names) + "\none two" + "," * 9999 + "\n")
    assert read(path) == ["one two"]


@pytest.mark.parametrize("value", ["one two", 1, ["one two"], {"a": "one two"}, [{"a": "one two"}]], ids=repr)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_an_object_with_too_many_fields_is_an_error_unless_one_is_named(tmp_path, name, value):
    row = {str(number): value for number in range(12_000)}
    path = written(tmp_path / name, json.dumps(row))
    with pytest.raises(
        DataError, match=r"^a has a row with more than 10,000 columns .* --text-column"
    ) as error:
        read(path)
    assert len(str(error.value)) < 400
    column = "11999.a" if "a" in str(value) else "11999"
    if name == "a.jsonl":  # the rows of .json may be in one of these lists
        assert read(path, text_column=column) == ["1" if value == 1 else "one two"]
    assert read(written(tmp_path / name, json.dumps({**row, "text": "three four"}))) == ["three four"]


def test_thousands_of_fields_in_many_rows_do_not_hide_the_text(tmp_path):
    rows = [{"votes": {f"{i}-{n}": 1 for n in range(99)}, "body": f"row {i} of many"} for i in range(300)]
    assert read(jsonl(tmp_path / "a.jsonl", rows)) == [row["body"] for row in rows]


def test_columns_of_the_same_name_keep_their_places(tmp_path):
    path = written(tmp_path / "a.csv", "a 2,a,a,text\n1,2,3,one two\n")
    assert read(path, text_column="text") == ["one two"]
    assert read(path, text_column="a") == ["2"]


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


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"data": [{"text": "one two"}], "errors": [], "next": None, "more": True}, ["one two"]),
        ({"ids": [1, 2, 3], "data": ["one two", "three"]}, ["one two", "three"]),
        ({"paragraphs": [], "data": [{"text": "one two"}]}, ["one two"]),
        ({"text": "one two", "lines": ["one two"]}, ["one two"]),  # no more text than the rest of the object
    ],
)
def test_rows_of_an_object_are_its_only_list_with_most_of_the_text(tmp_path, value, expected):
    assert read(written(tmp_path / "a.json", json.dumps(value))) == expected


def test_list_on_a_line_is_one_row_unless_json_field_names_it(tmp_path):
    assert read(jsonl(tmp_path / "a.jsonl", [["one two", "three"], ["four"]])) == ["one two\nthree", "four"]
    pages = [{"data": [{"text": "one"}, {"text": "two"}]}, {"data": [{"text": "three"}]}]
    path = jsonl(tmp_path / "b.jsonl", pages)
    assert read(path, json_field="data") == streamed(path, 3, json_field="data") == ["one", "two", "three"]
    path = written(tmp_path / "c.json", json.dumps(pages))
    with pytest.raises(DataError, match=r"c\.json has no list 'data' of rows; leave out --json-field\."):
        read(path, json_field="data")


def test_file_of_messages_is_one_conversation(tmp_path):
    turns = [{"role": "user", "content": "Where is it?"}, {"role": "assistant", "content": "Here."}]
    path = written(tmp_path / "chat.json", json.dumps(turns))
    assert read(path) == ["user: Where is it?\nassistant: Here."]


# Folders, and other formats.


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
    source = Source("t", "", "fasta", {"train": [file]}, {}, DataConfig(text_column="sequence"))
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
