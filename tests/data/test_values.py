"""Lists, conversations and nested fields of tables become text."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lm.data.values import distinct_names
from lm.errors import DataError
from tests.data.conftest import jsonl, read, streamed, written

pytestmark = pytest.mark.usefixtures("empty_cache")


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


@pytest.mark.parametrize("call", [{"tool_calls": [{"id": "1"}]}, {"function_call": {"name": "f"}}])
def test_a_call_of_a_tool_needs_no_content(tmp_path, call):
    said = [{"role": "user", "content": "Where is it?"}, {"role": "assistant", "content": "Here."}]
    rows = [{"messages": [said[0], {"role": "assistant", **call}, said[1]]}, {"messages": said}]
    dialogue = "user: Where is it?\nassistant: Here."
    assert read(jsonl(tmp_path / "chat.jsonl", rows)) == [dialogue, dialogue]


def test_messages_in_parts_are_their_texts(tmp_path):
    parts = [{"type": "text", "text": "a b"}, {"type": "image", "url": "x"}, {"type": "text", "text": "c"}]
    path = jsonl(tmp_path / "p.jsonl", [{"messages": [{"role": "user", "content": parts}]}])
    assert read(path) == ["user: a b\nc"]


def test_conversations_of_two_formats_in_one_table(tmp_path):
    """Every message has the fields of both, as in an Arrow table."""
    none = dict.fromkeys(("role", "content", "from", "value"))
    first = {**none, "role": "user", "content": "one"}
    second = {**none, "from": "human", "value": "two"}
    path = jsonl(tmp_path / "c.jsonl", [{"chat": [first, first]}, {"chat": [second]}])
    assert read(path) == ["user: one\nuser: one", "human: two"]


def test_fields_of_objects_in_lists_of_lists_are_read(tmp_path):
    rows = [{"turns": [{"text": "one two"}]}, {"turns": [[{"text": "three four"}], [{"text": "five"}]]}]
    assert read(jsonl(tmp_path / "t.jsonl", rows)) == ["one two", "three four\nfive"]
    assert read(jsonl(tmp_path / "u.jsonl", rows[1:]), text_column="turns.text") == ["three four\nfive"]


def test_messages_without_text_in_another_column_do_not_matter(tmp_path):
    content = [{"type": "text", "text": {"value": "hi", "annotations": []}}]
    row = {"text": "some good text", "messages": [{"role": "user", "content": content}]}
    assert read(jsonl(tmp_path / "a.jsonl", [row]), text_column="text") == ["some good text"]


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


def test_names_of_columns_are_distinct():
    assert distinct_names(["a 3", "a", "a", "", "b"]) == ["a 3", "a", "a 3 3", "4", "b"]
