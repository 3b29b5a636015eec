"""Sentences are read one by one, and the page's tables are those of `lm evaluate`."""

import csv
import io
import re

import numpy as np
import pytest

import lm
from app.tabs.inside.items import (
    MAX_CHARACTERS,
    has_pairs,
    pairs_csv,
    pairs_of,
    score_lines,
    score_pairs_of,
    score_table,
)
from app.tabs.inside.sentences import items_html, pairs_html
from lm.cli.main import main
from lm.errors import UserError
from lm.insight.surprisal import entropies, score_text
from tests.insight.networks import make

TABLE = 'id,sentence,condition\na1,"The boat, lost, sank.",full\na2,,full\na3,The ☃ fell.,reduced\n'
PAIRS = "UID,sentence_good,sentence_bad,n\nverb,The boats sink.,The boats sinks.,1\nverb,A b.,A b.,2\n"


@pytest.fixture(scope="module")
def model():
    return lm.load("pretrained", device="cpu")


def read(text):
    return list(csv.DictReader(line for line in io.StringIO(text) if not line.startswith("#")))


@pytest.mark.parametrize("flag", ["per_token", "per_word"])
def test_a_table_gives_what_lm_evaluate_writes(flag, model, tmp_path, capsys):
    (tmp_path / "items.csv").write_text(TABLE)
    options = ["--text-column", "sentence", "--keep", "id,condition", "--format", "csv"]
    name = f"--{flag.replace('_', '-')}"
    assert (
        main(["evaluate", "pretrained", "--dataset", str(tmp_path / "items.csv"), name, "-", *options]) == 0
    )
    ours, expected = read(score_table(model, TABLE).csv(flag, "pretrained")), read(capsys.readouterr().out)
    without = [{name: value for name, value in row.items() if name != "entropy"} for row in ours]
    assert without == expected and len(expected) > 5
    assert {row["unknown"] for row in ours} == {"0", "1"}
    assert ("entropy" in ours[0]) == (flag == "per_token")


def test_a_kept_column_is_not_replaced_by_the_entropy(model):
    study = score_table(model, "entropy,sentence,item\n9,The sea.,8\n")
    rows = read(study.csv("per_token", "m"))
    assert [(row["kept_entropy"], row["item"]) for row in rows] == [("9", "8")] * 8
    assert [float(row["entropy"]) for row in rows] == pytest.approx(study.entropies, abs=1e-3)
    assert read(study.csv("per_word", "m"))[0]["entropy"] == "9"


def test_a_cell_with_only_white_space_is_no_sentence(model):
    study = score_table(model, "sentence,item\nThe sea.,1\n  ,2\nA boat.,3\n")
    rows = read(study.csv("per_word", "m"))
    assert [(row["document"], row["item"], row["word"]) for row in rows] == [
        ("1", "1", "The"),
        ("1", "1", "sea."),
        ("3", "3", "A"),
        ("3", "3", "boat."),
    ]


def test_lines_are_numbered_and_each_is_read_from_the_empty_state(model):
    study = score_lines(model, "The sea.\r\n\n  The sea.  \n☃\n")
    rows = read(study.csv("per_token", "m"))
    assert [row["document"] for row in rows] == ["1"] * 8 + ["3"] * 8 + ["4"]
    assert [row["surprisal"] for row in rows[:8]] == [row["surprisal"] for row in rows[8:16]]
    expected = model.score("The sea.")
    assert study.entropies[:8] * np.log(2) == pytest.approx([score.entropy for score in expected])
    shown = items_html(study, "LINKS")
    assert shown.count("<tr>") == 4 and '<span class="unknown" title=' in shown and "LINKS" in shown
    assert "☃</span>" in shown and ">3</th>" in shown
    words = study.scored.per_word()["surprisal"]
    assert re.findall("<rt>(.*?)</rt>", shown) == [f"{bits:.1f}" for bits in words] and len(words) == 5


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_entropies_are_in_text_order(direction):
    one = make(direction=direction)
    scored = score_text(one, "the sea was calm.")
    expected = [score.entropy for score in one.score("the sea was calm.")]
    assert entropies(one, scored) * np.log(2) == pytest.approx(expected)


def test_minimal_pairs_are_lines_or_a_table_with_the_columns_of_blimp(model):
    lines = pairs_of("The boats sink.\n\nThe boats sinks.\n")
    assert (lines.good, lines.bad) == (["The boats sink."], ["The boats sinks."])
    assert has_pairs(PAIRS) and not has_pairs(TABLE)
    pairs = pairs_of(PAIRS)
    scored = score_pairs_of(model, pairs)
    rows = read(pairs_csv(pairs, scored, model, "m"))
    assert [(row["phenomenon"], row["row"], row["tie"], row["n"]) for row in rows] == [
        ("verb", "1", "0", "1"),
        ("verb", "2", "1", "2"),
    ]
    assert float(rows[0]["surprisal_good"]) == pytest.approx(
        -sum(score.logprob for score in model.score(" The boats sink.")) / np.log(2), abs=1e-4
    )
    shown = pairs_html(scored, model, "LINK")
    assert "tie" in shown and "correct" in shown and shown.count("<tr>") == 3
    assert "Accuracy 1.00 (0.34 to 1.00) on 2 pairs" in shown


def test_one_sentence_and_one_pair_are_in_the_singular(model):
    assert ">1 sentence ·" in items_html(score_lines(model, "The sea."), "")
    pairs = score_pairs_of(model, pairs_of("The boats sink.\nThe boats sinks.\n"))
    assert "on 1 pair, ties" in pairs_html(pairs, model, "")


def test_the_interval_of_the_accuracy_is_in_the_language_of_the_page(model, in_chinese):
    assert "2 对的准确率为 1.00（0.34 至 1.00）" in pairs_html(
        score_pairs_of(model, pairs_of(PAIRS)), model, ""
    )


def test_spaces_after_the_commas_of_a_table_belong_neither_to_names_nor_to_sentences():
    pairs = pairs_of('\ufeffsentence_good, sentence_bad, n\nThe sea., "The, see.", 1\n')
    assert (pairs.good, pairs.bad, pairs.kept) == (["The sea."], ["The, see."], {"n": ["1"]})


def test_a_line_that_mentions_the_columns_of_blimp_is_no_table():
    pairs = pairs_of("The sentence_good and sentence_bad are\nThe sentence_good and sentence_bad is\n")
    assert len(pairs.good) == 1
    assert not has_pairs('sentence_good,"sentence_bad\n') and not has_pairs("")


def test_html_is_escaped(model):
    assert "<b>" not in items_html(score_lines(model, "a <b>&"), "")


@pytest.mark.parametrize(
    ("score", "text", "message"),
    [
        (score_lines, "", "the text is empty"),
        (score_lines, "x" * (MAX_CHARACTERS + 1), "the limit is 10,000"),
        (score_table, "just a sentence", "the table has no rows: the first line only names the columns"),
        (score_table, "", "not a table"),
        (score_table, "a,b\n1,2,3\n", "not a table"),
        (score_table, "a,a\nx y,z w\n", "not a table"),
        (score_table, "a,b\nThe sea.,The boat.\n", "call it text, or leave only one column with text"),
        (score_table, "good,bad\nA b.,B a.\n", "For minimal pairs, call two columns sentence_good and"),
        (lambda model, text: pairs_of(text), "sentence_good,sentence_bad\n", "the table has no rows"),
        (score_table, "a,b\n1,2\n", "call it text, or leave only one column with text"),
        (score_table, 'a,b\n"x', "not valid CSV"),
        (lambda model, text: pairs_of(text), "one\ntwo\nthree", "two lines each, got 3"),
        (lambda model, text: pairs_of(text), "sentence_good,sentence_bad\na b,\n", "row 1 lacks a sentence"),
        (lambda model, text: score_pairs_of(model, pairs_of(text)), "", "there are no sentences"),
    ],
)
def test_what_cannot_be_read_is_a_one_line_error(score, text, message, model):
    with pytest.raises(UserError, match=message):
        score(model, text)
