"""JSON and JSON lines: which values are rows, and what is not JSON."""

import json

import pytest

from lm.errors import DataError
from tests.conftest import some_text
from tests.data.conftest import jsonl, notes_of, read, streamed, warnings_of, written

pytestmark = pytest.mark.usefixtures("empty_cache")
LINES = some_text(6000).splitlines()


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
    "more", [{"tags": ["animals", "pets", "funny"]}, {"replies": [{"text": "A reply that is longer."}]}]
)
def test_a_short_text_is_a_row_like_longer_ones_in_other_files(tmp_path, more):
    for name, text in (("a", "A long text. " * 20), ("b", "Short."), ("c", "Another text. " * 20)):
        written(tmp_path / f"{name}.json", json.dumps({"id": 1, "text": text, **more}))
    assert read(tmp_path) == ["A long text. " * 20, "Short.", "Another text. " * 20]
    row = {"text": " ", **more}  # nothing but the list
    (tmp_path / "other").mkdir()
    path = written(tmp_path / "other" / "d.json", json.dumps(row))
    assert read(path) == more.get("tags", ["A reply that is longer."])


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_values_one_after_another_are_rows(tmp_path, name):
    rows = [{"text": "one [{", "n": 1}, {"text": "two", "data": [{"text": "inside"}]}, "three"]
    pretty = written(tmp_path / name, "\n".join(json.dumps(row, indent=2) for row in rows) + "\n")
    assert read(pretty) == ["one [{", "two", "three"]
    if name == "a.json":
        assert read(written(pretty, "".join(map(json.dumps, rows)))) == ["one [{", "two", "three"]
    with pytest.raises(DataError, match=rf"{name}, line 5, is not JSON: Expecting value at column 1\.$"):
        read(written(pretty, json.dumps(rows[0], indent=2) + "\nfour\n"))


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.ndjson"])
def test_short_values_of_jq_are_on_one_line_and_others_on_several(tmp_path, name):
    values = [None, {}, {"text": "one"}, "two", ["three", "four"], [], {"text": "five", "n": [1, {"a": 2}]}]
    lines = "\n".join(json.dumps(value, indent=2) for value in values) + "\n"
    for ends in ("\n", "\r\n"):
        path = written(tmp_path / name, lines.replace("\n", ends))
        assert read(path) == ["one", "two", "three\nfour", "five"]
    path.write_text(lines + '{\n  "text": bad\n}\n')
    with pytest.raises(DataError, match=rf"line {lines.count(chr(10)) + 2}, is not JSON: Expecting value at"):
        read(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.json",
            '[\n{"text": "a"},\n{"text": }\n]',
            "a.json, line 3, is not JSON: Expecting value at column 10",
        ),
        ("a.jsonl", '{"text": "a"}\n\n{"text": "b"\n', "a.jsonl, line 3, is not JSON"),
        ("a.jsonl", '{"text": "a\tb"}', "is not JSON: Invalid control character at column 12"),
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


@pytest.mark.slow
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


@pytest.mark.parametrize("first", ["null", "{}"])
def test_an_empty_first_row_is_no_reason_to_warn(tmp_path, first):
    path = written(tmp_path / "a.jsonl", f'{first}\n{{"text": "one two"}}\n{{"text": "three"}}\n')
    assert read(path) == ["one two", "three"]
    assert warnings_of(path) == []
