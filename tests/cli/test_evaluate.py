"""`lm evaluate`: its output, the tables it writes, and its errors."""

import csv
import json
import math
import os
import re
import shutil
import sys
import threading
from dataclasses import asdict

import pytest
import yaml

import lm
from lm.config.schema import ModelConfig
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.storage.model_folder import PRETRAINED
from lm.tokenization.vocabulary import train_tokenizer


@pytest.fixture(scope="module")
def bpe_model(tmp_path_factory):
    """A backward model with another tokenizer."""
    tokenizer = train_tokenizer("bpe", iter(["the sea was calm"]), 260)
    network = RecurrentLM(ModelConfig(hidden_size=4, direction="backward"), tokenizer.vocab_size)
    folder = tmp_path_factory.mktemp("models") / "bpe"
    LanguageModel(network, tokenizer).save(folder)
    return folder


def table(file):
    with open(file, encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_another_text_is_scored_as_a_whole_and_printed_as_a_table(evaluate, trained_run, tmp_path):
    (tmp_path / "new.txt").write_text("The sea was calm.\nLight, light; é!\n")
    result = evaluate(trained_run, "--dataset", "new.txt", "--dynamic", "--cache")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "char, LSTM, 1 layer of 32 units" in lines[0]
    assert lines[1].endswith("new: 35 tokens, 35 characters, 36 bytes, 1 document")
    assert lines[2].split() == ["plain", "dynamic", "+", "cache"]
    assert len(re.findall(r"\d\.\d{4}", lines[3])) == 2
    assert result.stderr.count("warning:") == 1
    assert "the model does not know 4 of the 35 tokens (" in result.stderr
    assert "), 11.4%. Scoring them as <unk>" in result.stderr
    assert "'é'" in result.stderr


def test_the_function_returns_what_the_command_prints(evaluate, trained_run, tmp_path):
    model = lm.load(trained_run)
    for name, texts in (
        ("one.txt", "The sea\r\nwas calm.\rLight, light; é!\n" * 50),
        ("several.jsonl", ["The sea was calm.\n", "", "A boat and a light.\n"]),
    ):
        rows = texts if isinstance(texts, str) else "".join(json.dumps({"text": t}) + "\n" for t in texts)
        (tmp_path / name).write_bytes(rows.encode())
        record = json.loads(evaluate(trained_run, "--dataset", name, "--carry", "--json").stdout)
        expected = {metric: value["value"] for metric, value in record["scores"]["plain"].items()}
        assert asdict(lm.evaluate(model, texts)) == {**expected, "tokens": record["tokens"]}
    for nothing in ("", [], ["", ""]):
        with pytest.raises(lm.UserError, match="the text is empty"):
            lm.evaluate(model, nothing)
    with pytest.raises(lm.UserError, match="ensemble"):
        lm.evaluate(model.mixed_with([(model, 0.5)]), "The sea")


def test_column_of_a_table_that_was_scored_is_shown(evaluate, trained_run, tmp_path):
    (tmp_path / "t.csv").write_text("id;body\n1;The sea was calm.\n2;\n3;The boat\n")
    (tmp_path / "rows.jsonl").write_text('{"title": "The sea", "text": "a boat and a light"}\n')
    facts = [
        ["Column", "'body', the only one with text; 3 rows, 1 without text"],
        ["Example", "The sea was calm."],
        ["Format", "a semicolon between cells, header id, body"],
    ]
    lines = evaluate(trained_run, "--dataset", "t.csv").stdout.splitlines()
    assert [line.split(maxsplit=1) for line in lines[2:5]] == facts
    both = evaluate(trained_run, "--dataset", "t.csv", "--dataset", "rows.jsonl", "--text-column", "title")
    assert both.returncode == 2
    (tmp_path / "t.csv").write_text("title\nThe sea was calm.\n")
    both = evaluate(trained_run, "--dataset", "t.csv", "--dataset", "rows.jsonl", "--text-column", "title")
    assert "Example of t        The sea was calm." in both.stdout
    assert "Column of rows      'title', chosen with --text-column; 1 row; more text in text" in both.stdout
    result = evaluate(trained_run, "--dataset", "t.csv", "--per-token", "-")
    assert "Column" in result.stderr and "Column" not in result.stdout
    assert "scores" in json.loads(evaluate(trained_run, "--dataset", "t.csv", "--json").stdout)


@pytest.fixture
def trained_with(trained_run, tmp_path):
    """Makes a run as if it had been trained with other settings for reading its text."""

    def make(**settings):
        run = shutil.copytree(trained_run, tmp_path / "run", dirs_exist_ok=True)
        config = yaml.safe_load((run / "training/config.yaml").read_text()) | settings
        (run / "training/config.yaml").write_text(yaml.safe_dump(config))
        return run

    return make


def facts_of(result):
    """The rows that were printed, by their labels."""
    assert result.returncode == 0, result.stderr
    return dict(re.split(r"\s{2,}", line, maxsplit=1) for line in result.stdout.splitlines())


def test_text_is_read_as_in_training_where_that_fits(evaluate, trained_with, tmp_path):
    run = trained_with(text_column="body", document_separator="line")
    (tmp_path / "t.jsonl").write_text('{"body": "The boat", "text": "The sea was calm."}\n')
    facts = facts_of(evaluate(run, "--dataset", "t.jsonl"))
    assert facts["Column"] == "'body', as in training; 1 row; more text in text"
    assert (facts["Example"], facts["As in training"]) == ("The boat", "--text-column body")
    facts = facts_of(evaluate(run, "--dataset", "t.jsonl", "--text-column", "text"))
    assert facts["Column"] == "'text', chosen with --text-column; 1 row"
    assert "As in training" not in facts
    (tmp_path / "t.jsonl").write_text('{"text": "The sea was calm."}\n')
    facts = facts_of(evaluate(run, "--dataset", "t.jsonl"))
    assert facts["Column"] == "'text', named text (there is no 'body' as in training); 1 row"
    assert "As in training" not in facts
    (tmp_path / "t.txt").write_text("The sea\nwas calm.\n")
    facts = facts_of(evaluate(run, "--dataset", "t.txt"))
    assert facts["Text"].endswith("2 documents")
    assert facts["As in training"] == "--document-separator line"
    facts = facts_of(evaluate(run, "--dataset", "t.txt", "--document-separator", ""))
    assert facts["Text"].endswith("1 document") and "As in training" not in facts
    (tmp_path / "t.json").write_text('{"text": "The sea\\nwas"}\n')
    mixed = facts_of(evaluate(run, "--dataset", "t.txt", "--dataset", "t.json"))
    assert mixed["Text"].endswith("3 documents")


def test_a_table_does_not_replace_the_text_that_the_model_was_trained_on(
    evaluate, trained_with, text_file, tmp_path
):
    text = shutil.copy(text_file, tmp_path / "t.txt")
    result = evaluate(trained_with(dataset=str(text)), "--per-word", "t.txt")
    assert result.returncode == 2 and "t.txt is an input and would be overwritten" in result.stderr
    assert text.read_bytes() == text_file.read_bytes()


def test_a_table_does_not_replace_standard_input(evaluate, trained_run, tmp_path, monkeypatch):
    text = tmp_path / "t.txt"
    text.write_text("The sea was calm.")
    with open(text) as opened:
        monkeypatch.setattr(sys, "stdin", opened)
        result = evaluate(trained_run, "--dataset", "-", "--per-word", "t.txt")
    assert result.returncode == 2 and "t.txt is an input and would be overwritten" in result.stderr
    assert text.read_text() == "The sea was calm."


def test_encoding_of_the_training_is_used_only_if_the_text_is_not_utf_8(evaluate, trained_with, tmp_path):
    run = trained_with(encoding="cp1252")
    for encoding, taken in (("utf-8", False), ("cp1252", True), ("utf-16", False)):
        (tmp_path / "t.txt").write_text("The sea – was calm.", encoding=encoding)
        facts = facts_of(evaluate(run, "--dataset", "t.txt"))
        assert ", 19 characters, 21 bytes" in facts["Text"]
        assert facts.get("As in training") == ("--encoding cp1252" if taken else None)
    (tmp_path / "t.txt").write_text("The sea – was calm.", encoding="cp1252")
    result = evaluate(run, "--dataset", "t.txt", "--encoding", "utf-8")
    assert result.returncode == 2 and "t.txt is not UTF-8" in result.stderr


def test_rows_of_a_table_are_found_as_in_training(evaluate, trained_with, tmp_path):
    run = trained_with(header=False, text_column="2", json_field="b")
    (tmp_path / "t.csv").write_text("The light,The sea was calm\nThe boat,The light\n")
    facts = facts_of(evaluate(run, "--dataset", "t.csv"))
    assert facts["Column"] == "'2', as in training; 2 rows"
    assert facts["As in training"] == "--no-header --text-column 2"
    facts = facts_of(evaluate(run, "--dataset", "t.csv", "--header", "--text-column", "The light"))
    assert facts["Column"].startswith("'The light', chosen with --text-column; 1 row;")
    (tmp_path / "t.json").write_text('{"a": [{"text": "one"}], "b": [{"text": "The sea"}]}')
    facts = facts_of(evaluate(run, "--dataset", "t.json"))
    assert facts["Example"] == "The sea"
    assert facts["As in training"] == "--json-field b"
    (tmp_path / "t.json").write_text('{"c": [{"text": "The boat"}]}')
    assert facts_of(evaluate(run, "--dataset", "t.json"))["Example"] == "The boat"
    (tmp_path / "t.json").write_text('{"text": ')
    assert "t.json, line 1, is not JSON" in evaluate(run, "--dataset", "t.json").stderr


def test_tables_of_tokens_and_words_from_both_sides(evaluate, trained_run, backward_run, text_file, tmp_path):
    options = ["--backward", backward_run, "--dataset", text_file, "--split", "0.1", "--json"]
    result = evaluate(trained_run, *options, "--per-token", "t.tsv", "--per-word", "w.tsv")
    assert result.returncode == 0, result.stderr
    scores = json.loads(result.stdout)["scores"]
    assert list(scores) == ["forward", "backward", "mean"]
    assert all(scores[side]["loss"]["value"] < 1.3 for side in scores)
    held_out = text_file.read_text()[27_000:]
    tokens, words = (table(tmp_path / name) for name in ("t.tsv", "w.tsv"))
    assert [row["word"] for row in words] == held_out.split()
    assert len(tokens) == len(held_out)
    for side, metrics in scores.items():
        total = metrics["loss"]["value"] * len(tokens) / math.log(2)
        assert sum(float(row[side]) for row in tokens) == pytest.approx(total, rel=1e-4)
        assert sum(float(row[side]) + float(row[f"{side}_space"]) for row in words) <= total * 1.0001
    # The first letter of a word is hard to predict from the left, easy from the right.
    first = [row for row in tokens if row["word"] and row["token"] == row["word"][0] and row["column"] != "1"]
    forward, backward = (sum(float(row[side]) for row in first) for side in ("forward", "backward"))
    assert forward > 2 * backward


def test_two_models_with_different_tokenizers_are_compared(evaluate, trained_run, bpe_model, text_file):
    options = ["--compare", bpe_model, "--dataset", text_file, "--split", "0.1"]
    record = json.loads(evaluate(trained_run, *options, "--cache", "--json").stdout)
    assert list(record["scores"]) == ["model plain", "other plain", "model cache", "other cache"]
    assert record["compare"] == str(bpe_model)
    for mode, found in record["difference"].items():
        for unit in ("bits_per_character", "bits_per_byte"):
            model, other = (record["scores"][f"{side} {mode}"][unit] for side in ("model", "other"))
            low, high = found[unit]["interval"]
            assert found[unit]["value"] == pytest.approx(model["value"] - other["value"])
            assert low < found[unit]["value"] < high < -2  # only one of them was trained
            assert high - low < sum(each["interval"][1] - each["interval"][0] for each in (model, other))
        assert found["p"] == 0.0001
        assert found["intervals"]["resampled"] == "blocks" and 10 <= found["intervals"]["parts"] < 30
    printed = evaluate(trained_run, *options)
    assert "the other model does not know" not in printed.stderr
    facts = facts_of(printed)
    plain = record["difference"]["plain"]["bits_per_byte"]["value"]
    assert facts["Other"].endswith("right to left") and "2,000" not in facts["Tokens"]
    assert facts["Difference"].endswith(f"below zero, {trained_run} predicts the text better")
    assert facts["Bits per byte"].startswith(f"{plain:+.4f} (-") and facts["p"] == "0.0001"
    assert facts["Test"].endswith("two-sided")
    # Of one model and the other: 100 tokens or more per block.
    counts = [record["tokens"] // 100, int(facts["Tokens"].replace(",", "")) // 100]
    assert [record[name]["parts"] for name in ("intervals", "compare_intervals")] == counts
    shown = re.findall(r"^Intervals +95%, from resampling (\d+) blocks$", printed.stdout, re.MULTILINE)
    assert [int(count) for count in shown] == counts and counts[0] != counts[1]


def test_documents_are_resampled_and_a_comparison_warns_of_unknown_characters(
    evaluate, trained_run, bpe_model, tmp_path
):
    rows = (json.dumps({"text": f"The sea was {'calm ' * (n % 3)}é"}) for n in range(30))
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    result = evaluate(trained_run, "--dataset", "rows.jsonl", "--dynamic", "--reset", "--compare", bpe_model)
    assert "95%, from resampling 30 documents" in result.stdout
    assert "permutation of the signs of 30 documents, two-sided" in result.stdout
    assert "the model does not know 30 of the" in result.stderr
    assert "and the comparison unfair." in result.stderr and "--skip-unknown" not in result.stderr
    record = json.loads(evaluate(trained_run, "--dataset", "rows.jsonl", "--json").stdout)
    assert record["intervals"] == {"level": 0.95, "resampled": "documents", "parts": 30}
    (tmp_path / "short.txt").write_text("The sea")
    record = json.loads(evaluate(trained_run, "--dataset", "short.txt", "--json").stdout)
    assert record["intervals"] is None


def test_a_table_can_be_written_to_a_pipe(evaluate, trained_run, tmp_path):
    (tmp_path / "new.txt").write_text("The sea")
    os.mkfifo(tmp_path / "pipe")
    read = []
    reader = threading.Thread(
        target=lambda: read.extend((tmp_path / "pipe").read_text().splitlines()), daemon=True
    )
    reader.start()
    assert evaluate(trained_run, "--dataset", "new.txt", "--per-token", "pipe").returncode == 0
    reader.join(timeout=10)
    assert len(read) == 8
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("run", ["trained_run", "backward_run"])
def test_the_loss_of_the_held_out_text_is_that_of_the_training(evaluate, request, run):
    folder = request.getfixturevalue(run)
    validation = json.loads((folder / "config.json").read_text())["validation"]
    found = json.loads(evaluate(folder, "--json").stdout)
    assert found["scores"]["plain"]["loss"]["value"] == pytest.approx(validation["loss"], rel=1e-5)


def test_a_text_that_has_changed_is_not_taken_for_the_held_out_one(evaluate, trained_run, tmp_path):
    run = shutil.copytree(trained_run, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["trained_on"]["fingerprint"] = "0" * 16
    (run / "config.json").write_text(json.dumps(config))
    result = evaluate(run)
    assert (result.returncode, result.stdout) == (2, "")
    assert "is not the text that the model was trained on: it has changed" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "there is no model folder 'nowhere'"),
        (["RUN", "--dataset", "none.txt"], "there is no file or folder 'none.txt'"),
        (["RUN", "--dataset", "empty.txt"], "error: empty.txt contains no text: choose another file."),
        (
            ["RUN", "--dataset", "head.csv"],
            "error: head.csv contains no text below its header: choose another file",
        ),
        (
            ["RUN", "--dataset", "head.csv", "--per-word", "w"],
            "error: head.csv contains no text below its header: choose",
        ),
        (
            ["RUN", "--dataset", "good.txt", "--keep", "a", "--per-word", "w"],
            "good.txt is not a table: --keep",
        ),
        (["RUN", "--pairs", "good.txt"], "good.txt is not a table: --pairs reads"),
        (["RUN", "--pairs", "head.csv"], "error: head.csv has no rows: name another table."),
        (["RUN", "--pairs", "head.csv", "more.csv"], "head.csv, more.csv have no rows: name another table."),
        (["RUN", "--dataset", "other.txt"], "the model knows none of the characters of this text"),
        (["RUN", "--dataset", "good.txt", "--split", "test"], "good has no split 'test'; it has train"),
        (["RUN", "--dataset", "good.txt", "--split", "2"], "--split must be the name of a split"),
        (["RUN", "--split", "test"], "the model was trained without a test split"),
        (["RUN", "--split", "0.5"], "without --dataset, --split must be validation or test, got 0.5"),
        (["RUN", "--max-chars", "50"], "--max-chars requires --dataset"),
        (["RUN", "--dynamic-rate", "0.1"], "--dynamic-rate requires --dynamic"),
        (["RUN", "--cache", "--cache-lambda", "1"], "--cache-lambda must be in (0, 1), got 1.0"),
        (["RUN", "--backward", "RUN"], "reads left to right: name a forward model"),
        (["RUN", "--backward", "BPE"], "have different tokenizers"),
        (["RUN", "--compare", "nowhere"], "there is no model folder 'nowhere'"),
        (["RUN", "--compare", ""], "--compare must not be empty"),
        (["RUN", "--dataset", "good.txt", "--encoding", ""], "--encoding must not be empty"),
        (["RUN", "--compare", "BPE", "--backward", "BPE"], "under two models: leave out --backward"),
        (["RUN", "--compare", "BPE", "--per-word", "w.tsv"], "under two models: leave out --per-word"),
        (["RUN", "--compare", "BPE", "--skip-unknown"], "leave out --skip-unknown"),
        (["RUN", "--per-word", "no/where.tsv"], "cannot write no/where.tsv"),
        (["RUN", "--dataset", "good.txt", "--per-word", "/proc/w.tsv"], "cannot write /proc/w.tsv"),
        (["RUN", "--per-word", "-", "--json"], "both go to standard output"),
        (["RUN", "--per-word", "x", "--per-token", "x"], "name the same file"),
        (["RUN", "--per-word", "x", "--per-token", "./x"], "name the same file"),
        (
            ["RUN", "--per-word", "x", "--per-token", "y", "--per-region", "x", "--region-separator", "/"],
            "--per-word and --per-region name the same file: choose different files.",
        ),
        (["RUN", "--dataset", "good.txt", "--per-word", "./good.txt"], "./good.txt is an input and would be"),
        (["RUN", "--dataset", "good*", "--per-token", "good.txt"], "good.txt is an input and would be"),
        (["SHIPPED"], "does not say which text it held out: name one with --dataset"),
    ],
)
def test_user_errors_are_one_line_and_leave_no_files(
    evaluate, trained_run, bpe_model, tmp_path, arguments, message
):
    texts = {"empty.txt": "", "other.txt": "ЖЩ Я", "good.txt": "The sea", "head.csv": "text\n"}
    for name, content in {**texts, "more.csv": "other\n"}.items():
        (tmp_path / name).write_text(content)
    before = set(tmp_path.iterdir())
    named = {"RUN": trained_run, "BPE": bpe_model, "SHIPPED": PRETRAINED}
    result = evaluate(*(named.get(argument, argument) for argument in arguments))
    assert result.returncode == 2, result.stderr
    assert message in result.stderr.strip().splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert result.stdout == "" or "/proc/w.tsv" in arguments
    assert set(tmp_path.iterdir()) == before
    assert all((tmp_path / name).read_text() == content for name, content in texts.items())


def test_whitespace_that_a_word_model_does_not_represent_is_warned_about(evaluate, saved, tmp_path):
    (tmp_path / "a.txt").write_text("the sea was calm\n" * 50)
    (tmp_path / "b.txt").write_text("the   sea was \t calm\n" * 50)
    warning = (
        r"warning: (\d+\.\d)% of the text is whitespace that the tokens of the (other )?model do not rep"
    )
    assert not re.search(warning, evaluate(saved("word"), "--dataset", "a.txt").stderr)
    assert re.findall(warning, evaluate(saved("word"), "--dataset", "b.txt").stderr) == [("19.0", "")]
    assert not re.search(warning, evaluate(saved("char"), "--dataset", "b.txt").stderr)
    both = evaluate(saved("char"), "--dataset", "b.txt", "--compare", saved("word")).stderr
    assert re.findall(warning, both) == [("19.0", "other ")]
    assert both.count("and the comparison unfair.") == 2
