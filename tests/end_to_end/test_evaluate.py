"""`python -m lm evaluate`, and a backward model, as a user runs them."""

import csv
import io
import json

import pytest

from tests.conftest import WORDS, script


def test_without_a_dataset_the_validation_text_is_scored(trained_run):
    validation = json.loads((trained_run / "config.json").read_text())["validation"]
    result = script("-m lm evaluate", trained_run, "--json", cwd=trained_run)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["tokens"] == found["characters"] == validation["tokens"] == 3000
    for name in ("loss", "perplexity", "bits_per_character", "bits_per_byte"):
        metric = found["scores"]["plain"][name]
        assert metric["value"] == pytest.approx(validation[name], rel=0.01)  # in another precision
        assert metric["interval"][0] < metric["value"] < metric["interval"][1]


def test_a_table_on_standard_output_is_alone_there(trained_run, tmp_path):
    arguments = [trained_run, "--dataset", "-", "--per-word", "-"]
    result = script("-m lm evaluate", *arguments, cwd=tmp_path, input="The sea was calm.\n")
    assert result.returncode == 0, result.stderr
    rows = csv.DictReader(io.StringIO(result.stdout), delimiter="\t", quoting=csv.QUOTE_NONE)
    assert [row["word"] for row in rows] == ["The", "sea", "was", "calm."]
    assert "Bits per character" in result.stderr


def test_a_backward_model_writes_words_before_the_prompt_and_readable_samples(backward_run):
    prompt = ["--prompt", " at light.", "--seed", 1, "--length", 200]
    result = script("generate.py", backward_run, *prompt, cwd=backward_run)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith(" at light.\n")
    words = result.stdout.lower().replace(".", " ").split()[1:]
    assert sum(word in WORDS for word in words) > 0.7 * len(words)
    several = script("generate.py", backward_run, *prompt, "--num-samples", 2, cwd=backward_run)
    assert several.stdout.count(" at light.\n\n") == 2
    assert result.stdout.strip() in several.stdout
    samples = (backward_run / "training/samples.txt").read_text().lower()
    assert samples.count(" light.\n\n") == 11
    assert sum(word in WORDS for word in samples.replace(".", " ").split()[-40:]) > 20
    card = (backward_run / "README.md").read_text()
    assert "right to left" in card and ".generate(" in card
