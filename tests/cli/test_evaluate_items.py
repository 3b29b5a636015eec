"""`lm evaluate` on a table of items: each row by itself, with its number and its columns in every line."""

import json
import math
import sys
from pathlib import Path

import pandas
import pytest
import wordfreq

import lm
from tests.cli.conftest import SENTENCES, rows_of

pytestmark = pytest.mark.usefixtures("items")


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


def test_the_state_is_shown_where_a_text_file_keeps_tables_from_resetting_it(evaluate, char, tmp_path):
    (tmp_path / "r.csv").write_text("s\nthe sea\nboat\n")
    (tmp_path / "t.txt").write_text("the sea\n")
    table = ("--dataset", "r.csv", "--text-column", "s")
    assert "zero at the beginning of each document" in evaluate(char, *table).stdout
    both = evaluate(char, *table, "--dataset", "t.txt").stdout
    assert "carried from document to document (--reset starts each from zero)" in both


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
        (["--format", "lm-zoo", "--keep", "id"], "--format lm-zoo are fixed: leave out --keep."),
        (["--format", "lm-zoo", "--frequency", "en"], "are fixed: leave out --frequency."),
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
