"""`lm evaluate` on texts with regions, marked in the text or named in another column."""

import math

import pytest

import lm
from tests.cli.conftest import rows_of


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
