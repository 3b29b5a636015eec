"""The formats of the tables of `lm evaluate`, and the columns that `--keep` adds to them."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pandas
import pytest

import lm
from lm.console.escaping import unescaped
from lm.insight.table_files import Values, table_lines
from tests.cli.conftest import SENTENCES, rows_of

pytestmark = pytest.mark.usefixtures("items")


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
