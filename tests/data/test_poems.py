"""JSON as in chinese-poetry: poems with titles, in nested lists, next to notes or their pronunciation."""

import json

import pytest

from lm.errors import DataError
from tests.data.conftest import jsonl, notes_of, read, streamed, written

pytestmark = pytest.mark.usefixtures("empty_cache")
LINES = [
    ["春眠不覺曉，處處聞啼鳥。", "夜來風雨聲，花落知多少。"],
    ["千山鳥飛絕。", "萬徑人蹤滅。"],
    ["白日依山盡，"],
]
TEXTS = ["\n".join(lines) for lines in LINES]
POEMS = [{"chapter": f"其{i}", "author": "（唐）某", "paragraphs": lines} for i, lines in enumerate(LINES)]


def written_json(path, value):
    return written(path, json.dumps(value, ensure_ascii=False))


def test_lines_of_poems_are_preferred_to_titles(tmp_path):
    poems = [
        {"title": "The Night Train Counts", "author": "A B", "paragraphs": ["first line", "second line"]},
        {"rhythmic": "浣溪沙", "author": "晏殊", "paragraphs": ["一曲新词酒一杯。", "夕阳西下几时回？"]},
    ]
    path = written(tmp_path / "poems.json", json.dumps(poems))
    expected = ["first line\nsecond line", "一曲新词酒一杯。\n夕阳西下几时回？"]
    assert read(path) == streamed(path, 2) == expected
    assert notes_of(path).column == "paragraphs"
    assert read(jsonl(tmp_path / "one.jsonl", poems[:1])) == expected[:1]
    assert read(written(tmp_path / "one.json", json.dumps(poems[1]))) == expected[1:]


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"title": "千家詩", "content": POEMS}, "rows in 'content'"),
        (
            {
                "title": "千家詩",
                "content": [{"type": "五言", "content": POEMS[:2]}, {"type": "七言", "content": POEMS[2:]}],
            },
            "rows in 'content.content'",
        ),
        (
            {"content": [{"content": [POEMS[0], {"chapter": "二首", "paragraphs": POEMS[1:]}]}]},
            "rows in 'content.content', 'content.content.paragraphs'",
        ),
        (
            [{"title": "上卷", "content": POEMS[:1]}, {"title": "下卷", "content": POEMS[1:]}],
            "rows in 'content'",
        ),
        ({"tags": ["詩", "詞"], "a": {"b": POEMS}}, "rows in 'a.b'"),
        ([*POEMS[:1], {"volume": POEMS[1:]}], "rows in 'volume'"),
    ],
)
def test_poems_in_nested_lists_are_the_documents(tmp_path, value, where):
    path = written_json(tmp_path / "p.json", value)
    assert read(path) == streamed(path, 3) == TEXTS
    notes = notes_of(path)
    assert (notes.column, notes.format) == ("paragraphs", where)
    assert read(jsonl(tmp_path / "p.jsonl", [value] if isinstance(value, dict) else value)) == TEXTS


@pytest.mark.parametrize(
    "others",
    [
        {"spells": ["chūn mián bù jué xiǎo", "chù chù wén tí niǎo"] * 9},
        {"origin": [{"surname": "趙", "place": "天水"}, {"surname": "錢", "place": "彭城"}] * 9},
        {"notes": ["one note of many words"], "tags": ["a", "b"]},
    ],
)
def test_lists_next_to_the_lines_of_a_poem_are_not_its_text(tmp_path, others):
    poem = {"title": "春曉", **others, "paragraphs": LINES[0]}
    assert read(written_json(tmp_path / "one.json", poem)) == TEXTS[:1]
    rows = [poem, {**poem, "paragraphs": LINES[1]}]
    assert read(written_json(tmp_path / "list.json", rows)) == TEXTS[:2]
    nested = {"title": "詩", "content": [{"content": rows}]}
    assert read(written_json(tmp_path / "nested.json", nested)) == TEXTS[:2]


def test_text_next_to_poems_in_a_list_is_asked_about(tmp_path):
    """Taking only the poems would lose it."""
    value = {"content": [{"content": POEMS}, {"content": ["短", {"note": "短"}]}]}
    with pytest.raises(DataError, match="several columns of p contain text"):
        read(written_json(tmp_path / "p.json", value))


def test_objects_next_to_poems_are_rows_without_text(tmp_path):
    notes = notes_of(written_json(tmp_path / "p.json", [*POEMS, {"chapter": "其四"}]))
    assert (notes.rows, notes.empty) == (4, 1)


def test_poems_within_a_longer_text_are_not_the_documents(tmp_path):
    volumes = [{"preface": TEXTS[0] * 5, "content": POEMS}, {"preface": "短", "content": POEMS}]
    assert read(written_json(tmp_path / "p.json", volumes)) == [TEXTS[0] * 5, "短"]
    volumes[0]["preface"] = TEXTS[0]
    assert read(written_json(tmp_path / "p.json", volumes)) == 2 * TEXTS


def test_the_first_line_decides_what_the_rows_of_all_lines_are(tmp_path):
    def row(summary, *paragraphs):
        return {"summary": summary, "doc": {"paragraphs": paragraphs}}

    rows = [
        row("Short one.", "A long first paragraph.", "second"),
        row("A summary with many words.", "Brief."),
    ]
    path = jsonl(tmp_path / "a.jsonl", rows)
    assert read(path) == streamed(path, 2) == ["A long first paragraph.\nsecond", "Brief."]
    with pytest.raises(DataError, match="has no column 'summary'"):
        read(path, text_column="summary")
    path = jsonl(tmp_path / "b.jsonl", rows[::-1])
    assert read(path, text_column="summary") == ["A summary with many words.", "Short one."]
    assert read(path, text_column="doc.paragraphs") == ["Brief.", "A long first paragraph.\nsecond"]


def test_paragraphs_of_other_kinds_are_not_poems(tmp_path):
    context = {"context": "one two three four", "qas": [{"question": "what is it", "id": "a"}]}
    value = {"version": "1.1", "data": [{"title": "A title", "paragraphs": [context]}] * 2}
    path = written_json(tmp_path / "q.json", value)
    with pytest.raises(DataError, match=r"several columns .* paragraphs\.context"):
        read(path)
    assert read(path, text_column="paragraphs.context") == ["one two three four"] * 2
    value = {"volumes": [{"pages": [{"paragraphs": "one two"}, {"paragraphs": "three four"}]}]}
    assert read(written_json(tmp_path / "s.json", value)) == ["one two\nthree four"]


def test_words_are_counted_without_spaces(tmp_path):
    """The title of a poem may have a space, and its text none."""
    rows = [{"title": "春曉", "content": "春眠不覺曉，處處聞啼鳥。"} for _ in range(20)]
    rows[3] = {"title": "句 其一", "content": "夜來風雨聲，花落知多少。"}
    path = written_json(tmp_path / "p.json", rows)
    assert read(path) == [row["content"] for row in rows]
    assert notes_of(path).why == "the only one with several words"
    rows[4]["title"] = "句 其二"
    with pytest.raises(DataError, match="several columns"):
        read(written_json(tmp_path / "p.json", rows))


def test_list_is_not_preferred_to_a_text_of_similar_length(tmp_path):
    rows = [{"content": "读经宜冬，其神专也；", "comment": ["曹秋岳曰：可想见", "庞笔奴曰：无时不宜。"]}]
    with pytest.raises(DataError, match="several columns"):
        read(written_json(tmp_path / "p.json", rows))
    rows[0]["content"] = "读经，宜冬"
    path = written_json(tmp_path / "p.json", rows)
    assert notes_of(path).why == "the list with most of the text"
