"""`lm evaluate --pairs`: accuracy on minimal pairs from tables of every kind, with intervals and ties."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pandas
import pytest

import lm
from lm.config.schema import ModelConfig
from lm.insight.pairs import score_pairs
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import train_tokenizer
from tests.conftest import called

PAIRS = [
    {"sentence_good": good, "sentence_bad": bad, "UID": uid, "pairID": number}
    for number, (good, bad, uid) in enumerate(
        [
            ("the sea was calm", "the sea calm was", "order"),
            ("the boat was naïve", "naïve the was boat", "order"),
            ("boat the sea", "the sea boat", "order"),
            ("the sea", "the seas", "ending"),
            ("the boat", "the boats", "ending"),
            ("a calm sea", "a calm sea", "same"),
            ('the "calm" sea', "the calm, Ж sea", "same"),
        ]
    )
]


@pytest.fixture(scope="module", params=["char", "word"])
def folder(request, saved):
    return saved(request.param)


@pytest.fixture(autouse=True)
def tables(monkeypatch, tmp_path):
    """The pairs as JSON lines in the working folder."""
    monkeypatch.chdir(tmp_path)
    write("pairs.jsonl", PAIRS)


def write(file, rows):
    Path(file).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def results(folder, *arguments):
    result = called("evaluate", folder, "--pairs", *arguments, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def bits_of(model, text):
    return sum(-score.logprob for score in model.score(text)) / math.log(2)


def test_a_pair_is_correct_if_the_model_finds_its_good_sentence_more_probable(folder):
    found = results(folder, "pairs.jsonl", "--per-pair", "p.jsonl", "--format", "jsonl", "--keep", "pairID")
    rows = [json.loads(line) for line in Path("p.jsonl").read_text("utf-8").splitlines()]
    model = lm.load(folder)
    outcomes = {"order": [], "ending": [], "same": []}
    for row, pair in zip(rows, PAIRS, strict=True):
        good, bad = (" " + pair[side] for side in ("sentence_good", "sentence_bad"))
        same = model.encode(good) == model.encode(bad)
        bits = [bits_of(model, good), bits_of(model, bad)]
        assert [row["surprisal_good"], row["surprisal_bad"]] == pytest.approx(bits, abs=1e-4)
        assert [row["tokens_good"], row["tokens_bad"]] == [len(model.encode(good)), len(model.encode(bad))]
        assert (row["correct"], row["tie"]) == (not same and bits[0] < bits[1], same)
        assert (row["good"], row["bad"], row["pairID"]) == (good[1:], bad[1:], pair["pairID"])
        assert row["unknown_bad"] == bool(model.tokenizer.unknown_in(bad))
        outcomes[pair["UID"]].append((row["correct"], row["tie"]))
    assert list(found["phenomena"]) == list(outcomes)
    for name, each in outcomes.items():
        correct, ties = np.sum(each, axis=0).tolist()
        phenomenon = found["phenomena"][name]
        assert (phenomenon["pairs"], phenomenon["correct"], phenomenon["ties"]) == (len(each), correct, ties)
        assert phenomenon["accuracy"]["value"] == (correct + ties) / len(each)
    assert found["pairs"] == 7 and found["accuracy"]["value"] == (found["correct"] + found["ties"]) / 7
    values = [each["accuracy"]["value"] for each in found["phenomena"].values()]
    assert found["mean_of_phenomena"] == pytest.approx(sum(values) / 3)
    assert found["pairs_with_unknown"] == sum(row["unknown_good"] or row["unknown_bad"] for row in rows)
    assert 0 < found["correct"] < 7 - found["ties"]


def test_sentences_that_differ_only_in_unknown_words_are_ties_with_a_warning(saved):
    write("t.jsonl", [{"sentence_good": "the oxen", "sentence_bad": "the oxens", "UID": "x"}])
    result = called("evaluate", saved("word"), "--pairs", "t.jsonl")
    first, second = result.stderr.splitlines()[-2:]
    assert "in 1 of 1 pair, both" in first and first.endswith("would make the accuracy 0.0000.")
    assert "('oxen', 'oxens'), 50.0%." in second
    assert result.stdout.splitlines()[-1].split()[-2:] == ["1", "1"]


def test_the_warning_names_what_is_unknown_in_the_sentences_and_the_delimiter(char):
    write("t.jsonl", [{"sentence_good": "Жthe sea", "sentence_bad": "the seaЖ", "UID": "x"}])
    result = called("evaluate", char, "--pairs", "t.jsonl", "--target-delimiter", "§")
    assert "does not know 4 of the 18 tokens ('§', 'Ж'), 22.2%." in result.stderr
    vocabulary = iter(["the sea"])  # which no line ends
    LanguageModel(RecurrentLM(ModelConfig(hidden_size=4), 8), train_tokenizer("char", vocabulary)).save("m")
    result = called("evaluate", "m", "--pairs", "t.jsonl", "--target-delimiter", "")
    assert "does not know 2 of the 16 tokens ('Ж'), 12.5%." in result.stderr


def test_no_kept_column_replaces_another(char):
    write("t.jsonl", [{**PAIRS[0], "tie": "a", "kept_tie": "b"}])
    options = ("--per-pair", "p.jsonl", "--format", "jsonl", "--keep", "kept_tie,tie")
    assert called("evaluate", char, "--pairs", "t.jsonl", *options).returncode == 0
    row = json.loads(Path("p.jsonl").read_text("utf-8"))
    assert (row["tie"], row["kept_tie"], row["kept_kept_tie"]) == (False, "b", "a")


def test_the_delimiter_is_a_space_unless_another_is_chosen(char):
    model = lm.load(char)
    for delimiter in (" ", "", "the "):
        flag = ["--target-delimiter", delimiter] if delimiter != " " else []
        called("evaluate", char, "--pairs", "pairs.jsonl", "--per-pair", "p.csv", "--format", "csv", *flag)
        first = pandas.read_csv("p.csv", comment="#").iloc[0]
        assert first.surprisal_good == pytest.approx(bits_of(model, delimiter + first.good), abs=1e-4)
    scored = score_pairs(model, ["the sea"], ["sea the"], delimiter="")
    assert scored.bits[:, 0] == pytest.approx([bits_of(model, "the sea"), bits_of(model, "sea the")])


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "parquet", "jsonl.gz"])
def test_tables_of_every_kind_give_the_same_results(char, kind):
    frame = pandas.DataFrame(PAIRS)
    if kind == "parquet":
        frame.to_parquet("t.parquet")
    elif kind == "tsv":
        frame.to_csv("t.tsv", sep="\t", index=False, quoting=csv.QUOTE_NONE)
    elif kind == "csv":
        frame.to_csv("t.csv", index=False)
    else:
        frame.to_json(f"t.{kind}", orient="records", lines=kind != "json")
    expected = results(char, "pairs.jsonl") | {"text": "t"}
    assert results(char, f"t.{kind}") == expected


def test_several_files_globs_and_other_columns(char):
    Path("few").mkdir()
    for name in ("order", "ending", "same"):
        chosen = [pair for pair in PAIRS if pair["UID"] == name]
        renamed = [{"g": each["sentence_good"], "b": each["sentence_bad"]} for each in chosen]
        write(f"few/{name}.jsonl", renamed)  # without UID, the file's name is the phenomenon
    columns = ("--good", "g", "--bad", "b")
    by_glob, by_name = (
        results(char, *files, *columns)
        for files in (["few/*.jsonl"], ["few/order.jsonl", "few/ending.jsonl", "--pairs", "few/same.jsonl"])
    )
    expected = results(char, "pairs.jsonl")
    assert by_glob["phenomena"] == by_name["phenomena"] == expected["phenomena"]
    assert by_glob["accuracy"] == expected["accuracy"]
    swapped = results(char, "few", "--good", "b", "--bad", "g")
    assert swapped["correct"] == 7 - expected["correct"] - expected["ties"]
    by_id = results(char, "pairs.jsonl", "--phenomenon", "pairID")
    assert list(by_id["phenomena"]) == [*map(str, range(7))]


def test_the_table_of_phenomena_has_the_numbers_of_the_json_object(char):
    found = results(char, "pairs.jsonl", "--per-phenomenon", "p.tsv")
    rows = list(csv.DictReader(Path("p.tsv").read_text("utf-8").splitlines(), delimiter="\t"))
    for row, (name, each) in zip(rows, found["phenomena"].items(), strict=True):
        assert row["phenomenon"] == name
        assert [int(row[count]) for count in ("pairs", "correct", "ties")] == [
            each[count] for count in ("pairs", "correct", "ties")
        ]
        numbers = [each["accuracy"]["value"], *each["accuracy"]["interval"]]
        assert [row["accuracy"], row["low"], row["high"]] == [f"{number:.5f}" for number in numbers]


def test_the_printed_table_shows_each_phenomenon_and_all_pairs(char):
    found = results(char, "pairs.jsonl")
    lines = called("evaluate", char, "--pairs", "pairs.jsonl").stdout.splitlines()
    shown = {line.split("  ")[0]: line.split()[-5:] for line in lines}
    for name, each in {**found["phenomena"], "All pairs": found}.items():
        low, high = each["accuracy"]["interval"]
        value, counts = each["accuracy"]["value"], [str(each["pairs"]), str(each["ties"])]
        assert f"{name:19}{value:.4f} ({low:.4f} to {high:.4f})" in "\n".join(lines)
        assert shown[name][-2:] == counts


def test_the_results_go_to_standard_error_if_a_table_goes_to_standard_output(char):
    plain = called(
        "evaluate", char, "--pairs", "pairs.jsonl", "--per-pair", "p.tsv", "--per-phenomenon", "q.tsv"
    )
    for flag, file in (("--per-pair", "p.tsv"), ("--per-phenomenon", "q.tsv")):
        result = called("evaluate", char, "--pairs", "pairs.jsonl", flag, "-")
        assert result.stdout == Path(file).read_text("utf-8")
        assert result.stderr == plain.stderr + plain.stdout


def test_each_phenomenon_has_a_line_whatever_its_name(char):
    names = ["Phenomenon", "All pairs", "Mean of phenomena", "two\nlines", "[/red]"]
    write("t.jsonl", [{**PAIRS[0], "UID": name} for name in names])
    lines = called("evaluate", char, "--pairs", "t.jsonl").stdout.splitlines()[2:]
    shown = ["Phenomenon", *names[:3], r"two\nlines", "[/red]", "All pairs", "Mean of phenomena"]
    assert [line[:19].rstrip() for line in lines] == shown
    assert [line.split()[-2] for line in lines[1:-1]] == ["1"] * 5 + ["5"]


@pytest.mark.parametrize(
    "arguments",
    [
        *("--backward m", "--per-token t", "--per-word t", "--per-region t", "--reset", "--carry"),
        *("--regions c", "--region-separator /", "--skip-unknown", "--frequency en", "--dynamic", "--cache"),
        *("--dataset t", "--split test", "--text-column t", "--max-chars 9", "--document-separator line"),
    ],
)
def test_flags_that_would_be_ignored_are_rejected(char, arguments):
    result = called("evaluate", char, "--pairs", "pairs.jsonl", *arguments.split())
    assert result.returncode == 2 and result.stdout == "" and result.stderr.count("\n") == 1
    assert f"{arguments.split()[0]} cannot be combined with --pairs." in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "--good g",
            "row 1 of pairs.jsonl has no column 'g' (--good); it has sentence_good, sentence_bad, UID",
        ),
        ("--phenomenon sentence_god", "did you mean 'sentence_good'?"),
        ("--keep pair --per-pair p", "pairs has no column 'pair' (--keep)"),
        ("--keep pairID", "--keep requires --per-pair."),
        ("--format csv", "--format requires --per-pair or --per-phenomenon."),
        ("--format lm-zoo --per-pair p", "--format lm-zoo is for tables of tokens"),
        ("--per-pair p --per-phenomenon p", "--per-pair and --per-phenomenon name the same file"),
        ("--per-pair p --per-phenomenon ./p", "--per-pair and --per-phenomenon name the same file"),
        (
            "--per-pair ./pairs.jsonl",
            "./pairs.jsonl is an input and would be overwritten by the table: choose",
        ),
        ("--per-pair - --json", "the table and --json would both go to standard output"),
        ("--pairs none.csv", "there is no file or folder 'none.csv'"),
        ("--pairs empty.jsonl", "row 2 of empty.jsonl has no text in the column 'sentence_bad' (--bad)."),
        ("--pairs a.txt", "a.txt is not a table: --pairs reads"),
    ],
)
def test_user_errors(char, arguments, message):
    write("empty.jsonl", [PAIRS[0], {**PAIRS[1], "sentence_bad": " "}])
    Path("a.txt").write_text("the sea\n")
    before = Path("pairs.jsonl").read_bytes()
    result = called("evaluate", char, "--pairs", "pairs.jsonl", *arguments.split())
    assert result.returncode == 2 and message in result.stderr.splitlines()[-1], result.stderr
    assert Path("pairs.jsonl").read_bytes() == before


@pytest.mark.parametrize("flag", ["--good", "--target-delimiter", "--per-pair", "--per-phenomenon"])
def test_flags_of_minimal_pairs_need_them(char, flag):
    result = called("evaluate", char, flag, "x")
    assert (result.returncode, result.stderr) == (2, f"error: {flag} requires --pairs.\n")
