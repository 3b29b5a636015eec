"""`lm evaluate` on a table of items: each row by itself, its columns in every line, regions and formats."""

import csv
import io
import json
import math
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
import wordfreq

import lm
from lm.console.escaping import unescaped
from lm.insight.table_files import Values, table_lines

ITEMS = (
    'id,"item, nr",condition,sentence\n'
    "a,1,plain,the sea was calm\n"
    "b,1,,\n"
    'c,2,"x ""y""\t#z",the boat # was naïve Ж\n'
    "d,2,#1,#the sea\n"
)
SENTENCES = {1: "the sea was calm", 3: "the boat # was naïve Ж", 4: "#the sea"}


@pytest.fixture(scope="module", params=["char", "bpe", "word"])
def model(request, saved):
    return saved(request.param)


@pytest.fixture(autouse=True)
def items(tmp_path):
    (tmp_path / "items.csv").write_text(ITEMS, encoding="utf-8")


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))


def test_every_row_starts_from_the_empty_state_and_keeps_its_number_and_columns(evaluate, model):
    keep = ("--text-column", "sentence", "--keep", 'id,"item, nr"', "--keep", "condition")
    result = evaluate(model, "--dataset", "items.csv", *keep, "--per-token", "-", "--per-word", "w.tsv")
    assert result.returncode == 0, result.stderr
    tokens, words = rows_of(result.stdout), rows_of(Path("w.tsv").read_text("utf-8"))
    loaded = lm.load(model)
    kept = {1: ("a", "1", "plain"), 3: ("c", "2", 'x "y"\\t#z'), 4: ("d", "2", "#1")}
    for number, sentence in SENTENCES.items():
        of_row = [row for row in tokens if row["document"] == str(number)]
        expected = [-score.logprob / math.log(2) for score in loaded.score(sentence)]
        assert [float(row["surprisal"]) for row in of_row] == pytest.approx(expected, abs=1e-4)
        assert {(row["id"], row["item, nr"], row["condition"]) for row in of_row} == {kept[number]}
        assert max(int(row["end"]) for row in of_row) == len(sentence)
        of_row = [row for row in words if row["document"] == str(number)]
        assert [row["word"] for row in of_row] == sentence.split()
        assert [int(row["word_number"]) for row in of_row] == [*range(1, len(of_row) + 1)]
        assert [sentence[int(row["offset"]) : int(row["end"])] for row in of_row] == sentence.split()
        assert {row["id"] for row in of_row} == {kept[number][0]}
    assert {row["document"] for row in [*tokens, *words]} == {"1", "3", "4"}
    carried = evaluate(
        model, "--dataset", "items.csv", "--text-column", "sentence", "--carry", "--per-token", "-"
    )
    first = next(row["surprisal"] for row in rows_of(carried.stdout) if row["document"] == "3")
    assert first != next(row["surprisal"] for row in tokens if row["document"] == "3")


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_json_and_parquet_tables(evaluate, char, tmp_path, kind):
    items = [{"n": 7, "text": "the sea", "tags": ["a", "b"]}, {"n": 8, "text": ""}, {"n": 9, "text": "boat"}]
    if kind == "parquet":
        pytest.importorskip("pyarrow")
        pandas.DataFrame(items).to_parquet(tmp_path / "t.parquet")
    else:
        text = json.dumps(items) if kind == "json" else "".join(json.dumps(item) + "\n" for item in items)
        (tmp_path / f"t.{kind}").write_text(text)
    options = ("--dataset", f"t.{kind}", "--text-column", "text", "--keep", "n,tags")
    result = evaluate(char, *options, "--per-word", "-", "--format", "jsonl")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["word"], row["n"], row["document"]) for row in rows] == [
        ("the", 7, 1),
        ("sea", 7, 1),
        ("boat", 9, 3),
    ]
    assert rows[0]["tags"] == ["a", "b"] and rows[2]["tags"] is None


def test_a_kept_column_with_the_name_of_another_is_renamed(evaluate, char, tmp_path):
    (tmp_path / "t.csv").write_text("word,text\nfirst,the sea\nlast,  \nend,boat\n")
    options = ("--dataset", "t.csv", "--text-column", "text", "--keep", "word", "--per-word", "-")
    rows = rows_of(evaluate(char, *options).stdout)
    found = [(row["word"], row["kept_word"], row["document"], row["space"]) for row in rows]
    # The whitespace of the second row belongs to no word, not to the one before it.
    bits = -lm.load(char).score("the sea")[3].logprob / math.log(2)
    assert found == [
        ("the", "first", "1", f"{bits:.5f}"),
        ("sea", "first", "1", "0.00000"),
        ("boat", "end", "3", "0.00000"),
    ]


def test_no_kept_column_replaces_another(evaluate, char, tmp_path):
    (tmp_path / "t.csv").write_text("word,kept_word,text\na,b,the sea\n")
    for keep in ("kept_word,word", "word,kept_word"):
        options = ("--dataset", "t.csv", "--text-column", "text", "--keep", keep, "--per-word", "-")
        (row, _) = rows_of(evaluate(char, *options).stdout)
        values = {"word": "a", "kept_word": "b"}
        assert list(row)[-2:] == ["kept_word", "kept_kept_word"] and row["word"] == "the"
        assert [row["kept_word"], row["kept_kept_word"]] == [values[name] for name in keep.split(",")]


def test_the_names_of_kept_columns_are_escaped_like_their_values(evaluate, char, tmp_path):
    name = "a\tb\n#c"
    (tmp_path / "t.jsonl").write_text(json.dumps({name: name, "text": "boat"}))
    options = ("--dataset", "t.jsonl", "--text-column", "text", "--keep", f'"{name}"', "--per-word", "-")
    for flags, shown in (((), r"a\tb\n#c"), (("--format", "tsv"), r"a\tb\n\u0023c")):
        written = evaluate(char, *options, *flags).stdout
        (row,) = rows_of("".join(line for line in written.splitlines(True) if not line.startswith("# ")))
        assert list(row.items())[-1] == (shown, shown)
    written = evaluate(char, *options, "--format", "csv").stdout.partition("\nword,")[2]
    assert written.count(f'"{name}"') == 2


@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl"])
def test_numbers_in_kept_lists_and_objects_stay_numbers(evaluate, char, tmp_path, kind):
    values = {"list": [1, [2.5, None], "3"], "object": {"a": 4, "b": [True, -5]}}
    (tmp_path / "t.jsonl").write_text(json.dumps({**values, "text": "boat"}))
    options = ("--dataset", "t.jsonl", "--text-column", "text", "--keep", "list,object", "--per-word", "w")
    assert evaluate(char, *options, "--format", kind).returncode == 0
    if kind == "jsonl":
        row = json.loads(Path("w").read_text("utf-8"))
        assert {name: row[name] for name in values} == values
        return
    quoting = {"sep": "\t", "quoting": csv.QUOTE_NONE} if kind == "tsv" else {}
    row = pandas.read_csv("w", comment="#", **quoting).iloc[0]
    assert {name: json.loads(row[name]) for name in values} == values


def test_a_kept_number_of_more_digits_than_python_converts_is_written_as_text(evaluate, char, tmp_path):
    (tmp_path / "t.jsonl").write_text('{"text": "boat", "n": %s}' % ("9" * 5000))
    options = ("--dataset", "t.jsonl", "--text-column", "text", "--keep", "n", "--format", "jsonl")
    assert json.loads(evaluate(char, *options, "--per-word", "-").stdout)["n"] == "9" * 5000


def test_json_lines_have_no_values_that_json_lacks(evaluate, char, tmp_path):
    values = '"nan": NaN, "big": 1e400, "list": [-Infinity, 1.50, {"a": NaN}]'
    (tmp_path / "t.jsonl").write_text(f'{{"text": "boat", {values}}}')
    options = ("--dataset", "t.jsonl", "--text-column", "text", "--keep", "nan,big,list", "--format", "jsonl")
    row = json.loads(evaluate(char, *options, "--per-word", "-").stdout, parse_constant=pytest.fail)
    assert (row["nan"], row["big"], row["list"]) == (None, "1e400", ["-Infinity", 1.5, {"a": None}])
    table = {
        "kept": Values([math.nan, math.inf, b"\x01a", [b"\xff"]]),
        "bits": np.array([math.nan, -math.inf, 1, 2]),
    }
    rows = [json.loads(line, parse_constant=pytest.fail) for line in table_lines(table, "jsonl")]
    assert [row["kept"] for row in rows] == [None, "inf", "0161", ["ff"]]
    assert [row["bits"] for row in rows] == [None, "-inf", 1, 2]


@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl"])
def test_half_of_a_character_in_a_kept_column_is_replaced(evaluate, char, tmp_path, kind):
    (tmp_path / "t.jsonl").write_text(r'{"n\ud83d": "a\ud83db", "text": "boat"}')
    options = ("--dataset", "t.jsonl", "--text-column", "text", "--keep", "n\ud83d", "--format", kind)
    for file in ("w", "-"):
        result = evaluate(char, *options, "--per-word", file)
        assert result.returncode == 0, result.stderr
        written = Path("w").read_text("utf-8") if file == "w" else result.stdout
        assert "n?" in written and "a?b" in written


def test_rows_of_several_tables_are_numbered_on(evaluate, char, tmp_path):
    (tmp_path / "t.csv").write_text("s\nboat\n")
    (tmp_path / "u.csv").write_text("s\nthe sea\n\nwas\n")
    options = ("--dataset", "u.csv", "--dataset", "t.csv", "--text-column", "s", "--per-word", "-")
    rows = rows_of(evaluate(char, *options).stdout)
    assert [(row["word"], row["document"]) for row in rows] == [
        ("the", "1"),
        ("sea", "1"),
        ("was", "2"),  # a CSV file has no rows in empty lines
        ("boat", "3"),
    ]


def test_rows_after_a_table_that_is_cut_have_the_numbers_of_the_whole_table(evaluate, char, tmp_path):
    (tmp_path / "t.csv").write_text("n,s\n1,the sea\n2,the boat\n3,was calm\n")
    (tmp_path / "u.csv").write_text("n,s\n4,boat\n5,the sea was calm\n")
    files = ("--dataset", "t.csv", "--dataset", "u.csv", "--text-column", "s")
    rows = rows_of(evaluate(char, *files, "--keep", "n", "--max-chars", "10", "--per-word", "-").stdout)
    assert [(row["word"], row["n"], row["document"]) for row in rows] == [
        ("the", "1", "1"),
        ("sea", "1", "1"),
        ("boat", "4", "4"),
    ]


def test_documents_of_several_text_files_are_numbered_on(evaluate, char, tmp_path):
    (tmp_path / "t.txt").write_text("the sea\nwas\n")
    (tmp_path / "u.txt").write_text("boat\n")
    options = ("--dataset", "t.txt", "--dataset", "u.txt", "--document-separator", "line", "--per-word", "-")
    rows = rows_of(evaluate(char, *options).stdout)
    words = [(row["word"], row["document"]) for row in rows]
    assert words == [("the", "1"), ("sea", "1"), ("was", "2"), ("boat", "3")]


def test_documents_of_a_text_file_are_carried_unless_reset(evaluate, char, tmp_path):
    (tmp_path / "t.txt").write_text("the sea\nthe sea\n")
    options = ("--dataset", "t.txt", "--document-separator", "line", "--per-token", "-")
    carried, reset = (rows_of(evaluate(char, *options, *flag).stdout) for flag in ((), ("--reset",)))
    first = [row["surprisal"] for row in reset if row["document"] == "1"]
    assert first == [row["surprisal"] for row in reset if row["document"] == "2"]
    assert first != [row["surprisal"] for row in carried if row["document"] == "2"]


def test_rows_are_never_cut(evaluate, char):
    options = ("--dataset", "items.csv", "--text-column", "sentence", "--keep", "id", "--per-word", "-")
    last = rows_of(evaluate(char, *options, "--split", "0.3").stdout)
    assert [(row["word"], row["id"], row["document"]) for row in last] == [
        ("#the", "d", "4"),
        ("sea", "d", "4"),
    ]
    first = rows_of(evaluate(char, *options, "--max-chars", "20").stdout)
    assert " ".join(row["word"] for row in first) == SENTENCES[1]


def test_regions_sum_their_tokens_and_the_whitespace_before(evaluate, model, tmp_path):
    (tmp_path / "r.csv").write_text("s\nthe sea|was calm|the boat\nthe | sea\n")
    options = ("--dataset", "r.csv", "--region-separator", "|", "--per-region", "-", "--per-token", "t.tsv")
    regions = rows_of(evaluate(model, *options).stdout)
    assert [row["region"] for row in regions] == ["the sea", "was calm", "the boat", "the", "sea"]
    tokens = rows_of((tmp_path / "t.tsv").read_text())
    for row in regions:
        inside = [
            float(token["surprisal"])
            for token in tokens
            if (token["document"], token["region_number"]) == (row["document"], row["region_number"])
        ]
        assert float(row["surprisal"]) == pytest.approx(sum(inside), abs=1e-3)
    total = sum(float(row["surprisal"]) for row in regions)
    assert total == pytest.approx(sum(float(token["surprisal"]) for token in tokens), abs=1e-3)


@pytest.mark.parametrize("state", ["--reset", "--carry"])
def test_rows_of_separators_only_have_a_number_but_no_lines(evaluate, char, tmp_path, state):
    (tmp_path / "r.csv").write_text("id,s\na,|\nb,the|sea\nc,||\nd,boat\n")
    options = ("--dataset", "r.csv", "--text-column", "s", "--region-separator", "|", "--keep", "id", state)
    result = evaluate(char, *options, "--per-region", "-", "--per-token", "t.tsv")
    regions, tokens = rows_of(result.stdout), rows_of((tmp_path / "t.tsv").read_text())
    assert [(row["region"], row["document"], row["id"]) for row in regions] == [
        ("the", "2", "b"),
        ("sea", "2", "b"),
        ("boat", "4", "d"),
    ]
    assert {(row["document"], row["id"]) for row in tokens} == {("2", "b"), ("4", "d")}
    (tmp_path / "s.csv").write_text("id,s\nb,the sea\nd,boat\n")
    without = rows_of(
        evaluate(char, "--dataset", "s.csv", "--text-column", "s", state, "--per-token", "-").stdout
    )
    assert [row["surprisal"] for row in tokens] == [row["surprisal"] for row in without]
    (tmp_path / "r.csv").write_text("id,s\na,|\nb,||\n")
    assert evaluate(char, *options, "--per-region", "-").stderr.endswith("error: the text is empty.\n")


def test_rows_of_whitespace_have_a_number_but_no_lines(evaluate, char, tmp_path):
    (tmp_path / "r.csv").write_text('id,s\na,the|sea\nb,   \nc,"| |"\nd,"\n"\ne,boat\n')
    options = ("--dataset", "r.csv", "--text-column", "s", "--keep", "id")
    for more, lines in ((("--region-separator", "|"), "aae"), ((), "ae")):
        flag = "--per-region" if more else "--per-word"
        rows = rows_of(evaluate(char, *options, *more, flag, "-").stdout)
        assert "".join(row["id"] for row in rows if row.get("word") != "|") == lines
        assert {row["document"] for row in rows} <= {"1", "3", "5"}
    (tmp_path / "r.jsonl").write_text('{"s": "the sea", "r": "the|sea"}\n{"s": " ", "r": ""}\n')
    options = ("--dataset", "r.jsonl", "--text-column", "s", "--regions", "r", "--per-region", "-")
    assert [row["region"] for row in rows_of(evaluate(char, *options).stdout)] == ["the", "sea"]


def test_line_breaks_in_cells_are_those_of_text_files(evaluate, char, tmp_path):
    """So positions and bits are the same whatever the file."""
    expected = [-score.logprob / math.log(2) for score in lm.load(char).score("the sea\nwas\ncalm")]
    for text in ("the sea\nwas\ncalm", "the sea\r\nwas\rcalm", "the sea\r\nwas\r\ncalm"):
        (tmp_path / "r.jsonl").write_text(json.dumps({"s": text, "r": ["the sea", text[7:].strip()]}))
        options = ("--dataset", "r.jsonl", "--text-column", "s", "--regions", "r")
        result = evaluate(char, *options, "--per-token", "-", "--per-region", "r.tsv")
        tokens = rows_of(result.stdout)
        assert [float(row["surprisal"]) for row in tokens] == pytest.approx(expected, abs=1e-4)
        assert [row["offset"] for row in tokens] == [str(number) for number in range(len(expected))]
        assert rows_of((tmp_path / "r.tsv").read_text())[1]["region"] == "was\\ncalm"


def test_words_and_regions_are_escaped_only_where_the_format_needs_it(evaluate, char, tmp_path):
    (tmp_path / "r.jsonl").write_text(json.dumps({"s": "a\\b \\textit{c}", "r": ["a\\b", "\\textit{c}"]}))
    options = ("--dataset", "r.jsonl", "--text-column", "s", "--regions", "r", "--keep", "s")
    for flag, name in (("--per-word", "word"), ("--per-region", "region")):
        found = {
            kind: evaluate(char, *options, flag, "-", "--format", kind).stdout
            for kind in ("csv", "jsonl", "tsv")
        }
        lines = [line for line in found["csv"].splitlines() if not line.startswith("#")]
        assert [row[name] for row in csv.DictReader(lines)] == ["a\\b", "\\textit{c}"]
        assert [json.loads(line)[name] for line in found["jsonl"].splitlines()] == ["a\\b", "\\textit{c}"]
        lines = [line for line in found["tsv"].splitlines() if not line.startswith("#")]
        assert [row[name] for row in rows_of("\n".join(lines))] == ["a\\\\b", "\\\\textit{c}"]
    assert lm.score_texts(lm.load(char), ["a\\b c"])[0].per_word()["word"] == ["a\\b", "c"]


def test_the_state_is_shown_where_a_text_file_keeps_tables_from_resetting_it(evaluate, char, tmp_path):
    (tmp_path / "r.csv").write_text("s\nthe sea\nboat\n")
    (tmp_path / "t.txt").write_text("the sea\n")
    table = ("--dataset", "r.csv", "--text-column", "s")
    assert "zero at the beginning of each document" in evaluate(char, *table).stdout
    both = evaluate(char, *table, "--dataset", "t.txt").stdout
    assert "carried from document to document (--reset starts each from zero)" in both


def test_documents_of_a_text_file_that_are_separators_only_have_a_number(evaluate, char, tmp_path):
    (tmp_path / "t.txt").write_text("the|sea\n|\nboat\n")
    options = ("--dataset", "t.txt", "--document-separator", "line", "--region-separator", "|")
    regions = rows_of(evaluate(char, *options, "--per-region", "-").stdout)
    assert [(row["region"], row["document"]) for row in regions] == [
        ("the", "1"),
        ("sea", "1"),
        ("boat", "3"),
    ]


def test_the_space_before_a_region_belongs_to_it(evaluate, char, tmp_path):
    (tmp_path / "r.csv").write_text("s,parts\nthe sea was calm,the sea|was|calm\n")
    options = ("--dataset", "r.csv", "--text-column", "s", "--regions", "parts", "--per-region", "-")
    regions = rows_of(evaluate(char, *options).stdout)
    bits = [-score.logprob / math.log(2) for score in lm.load(char).score("the sea was calm")]
    expected = [sum(bits[:7]), sum(bits[7:11]), sum(bits[11:])]
    assert [float(row["surprisal"]) for row in regions] == pytest.approx(expected, abs=1e-4)
    assert [row["region"] for row in regions] == ["the sea", "was", "calm"]
    assert [(row["offset"], row["end"]) for row in regions] == [("0", "7"), ("8", "11"), ("12", "16")]
    (tmp_path / "r.csv").write_text("s,parts\nthe sea was calm,the sea|is|calm\n")
    assert "row 1: the regions in the column 'parts'" in evaluate(char, *options).stderr


def test_unknown_tokens_are_marked_and_can_be_left_out_of_the_metrics(evaluate, model):
    options = ("--dataset", "items.csv", "--text-column", "sentence")
    plain, known = (
        evaluate(model, *options, *flag, "--per-token", "t.jsonl", "--format", "jsonl", "--json")
        for flag in ((), ("--skip-unknown",))
    )
    assert json.loads(plain.stdout)["reset"]
    rows = [json.loads(line) for line in Path("t.jsonl").read_text("utf-8").splitlines()]
    unknown = [row for row in rows if row["unknown"]]
    loaded = lm.load(model)
    missing = [part for text in SENTENCES.values() for part in loaded.tokenizer.unknown_in(text)]
    if not missing:
        assert not unknown and known.stdout == plain.stdout
        return
    assert f"), {len(unknown) / len(rows):.1%}. " in plain.stderr and "--skip-unknown" in plain.stderr
    left = [row["surprisal"] for row in rows if not row["unknown"]]
    loss = json.loads(known.stdout)["scores"]["plain"]["loss"]["value"]
    assert loss == pytest.approx(sum(left) / len(left) * math.log(2), abs=1e-4)
    if loaded.tokenizer.kind == "char":
        bits = json.loads(known.stdout)["scores"]["plain"]["bits_per_character"]["value"]
        assert bits == pytest.approx(sum(left) / len(left), abs=1e-4)


def test_a_literal_unk_in_a_text_of_words_is_known(evaluate, saved, tmp_path):
    (tmp_path / "t.csv").write_text('s\n"the <unk> wholly <unk>, sea <unk>s\u2003<unk>"\n')
    options = ("--dataset", "t.csv", "--text-column", "s", "--per-word", "-")
    rows = rows_of(evaluate(saved("word"), *options).stdout)
    assert [row["unknown"] for row in rows] == ["0", "0", "1", "1", "0", "1", "0"]


@pytest.mark.parametrize("kind", ["tsv", "csv"])
def test_pandas_reads_a_table_with_a_header_comment(evaluate, char, kind):
    options = ("--dataset", "items.csv", "--text-column", "sentence", "--keep", "condition,id")
    assert evaluate(char, *options, "--per-word", "w", "--format", kind).returncode == 0
    lines = Path("w").read_text("utf-8").splitlines()
    digest = lm.files.digests.digest_of(char / "model.safetensors")
    assert lines[0].startswith("# lm ") and lines[1] == f"# model {char}, digest sha256:{digest}"
    quoting = {"sep": "\t", "quoting": 3} if kind == "tsv" else {}
    for engine in ("c", "python"):
        found = pandas.read_csv("w", comment="#", keep_default_na=False, engine=engine, **quoting)
        words = found["word"] if kind == "csv" else [unescaped(word).decode() for word in found["word"]]
        assert list(words) == [word for sentence in SENTENCES.values() for word in sentence.split()]
        assert found["condition"].iloc[-1] == ("#1" if kind == "csv" else r"\u00231")
        assert list(found["id"])[-1] == "d"
        if kind == "csv":
            break  # the engine written in Python ignores quotes around a comment


def test_format_of_lm_zoo(evaluate, char):
    options = ("--dataset", "items.csv", "--text-column", "sentence", "--per-token", "-")
    rows = rows_of(evaluate(char, *options, "--format", "lm-zoo").stdout)
    assert list(rows[0]) == ["sentence_id", "token_id", "token", "surprisal"]
    assert [row["token_id"] for row in rows if row["sentence_id"] == "4"] == [*map(str, range(1, 9))]


def test_word_frequencies(evaluate, char):
    options = ("--dataset", "items.csv", "--text-column", "sentence", "--per-word", "-", "--frequency")
    rows = rows_of(evaluate(char, *options, "en").stdout)
    assert float(rows[1]["frequency"]) == wordfreq.zipf_frequency("sea", "en")
    assert rows[3]["word"] == "calm" and rows[3]["length"] == "4"
    assert "--frequency must be one of" in evaluate(char, *options, "xx").stderr


def test_packages_for_the_frequencies_of_a_language_are_missed_before_the_text_is_read(
    evaluate, char, monkeypatch
):
    for module in ("wordfreq.chinese", "wordfreq.mecab"):
        monkeypatch.setitem(sys.modules, module, None)  # its import fails
    for language in ("zh", "ja", "ko"):
        result = evaluate(char, "--dataset", "none.csv", "--per-word", "w", "--frequency", language)
        assert result.returncode == 2 and "pip install" in result.stderr.splitlines()[-1]
        assert f"--frequency {language} needs packages that split its texts" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "lm-zoo", "--keep", "id"], "--format lm-zoo has no further columns: leave out --keep."),
        (["--format", "lm-zoo", "--frequency", "en"], "no further columns: leave out --frequency."),
        (["--keep", "conditoin"], "it has id, item, nr, condition, sentence; did you mean 'condition'?"),
        (["--regions", "region"], "items has no column 'region'; it has id"),
        (["--regions", "|"], "names a column: to split texts at '|', use --region-separator '|'."),
        (["--keep", ",id"], "--keep must name columns"),
        (["--keep", "id\nitem"], "--keep: put names with a comma or a line break in quotation marks."),
        (["--region-separator", "||"], "--region-separator must be one character"),
        (["--per-region", "r.tsv"], "--per-region requires --regions or --region-separator"),
        (["--reset", "--carry"], "not allowed with argument"),
    ],
)
def test_user_errors(evaluate, char, arguments, message):
    options = ("--dataset", "items.csv", "--text-column", "sentence", "--per-word", "w.tsv")
    result = evaluate(char, *options, *arguments)
    assert result.returncode == 2 and message in result.stderr.splitlines()[-1], result.stderr
