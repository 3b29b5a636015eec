"""generate.py from the user's point of view."""

import json
import re
import subprocess

import pytest

from tests.conftest import WORDS, called, script, started


def test_generated_text_consists_of_words_of_the_training_text(trained_run):
    result = script(
        "generate.py", trained_run, "--prompt", "The sea", "--length", 300, "--seed", 1, cwd=trained_run
    )
    assert result.returncode == 0
    assert result.stdout.startswith("The sea")
    words = result.stdout.lower().replace(".", " ").split()[:-1]
    assert sum(word in WORDS for word in words) > 0.7 * len(words)
    assert re.search(r"^\d+ tokens in [\d.]+ s \([\d,]+ tokens/s\), seed 1$", result.stderr, re.MULTILINE)


@pytest.mark.slow
def test_the_default_is_the_newest_run_or_else_the_pretrained_model(trained_run, tmp_path):
    home = trained_run.parent.parent
    newest = script("generate.py", "--seed", 1, cwd=home).stdout
    assert newest == script("generate.py", trained_run, "--seed", 1, cwd=home).stdout
    shipped = script("generate.py", "--prompt", "def ", "--seed", 1, "--length", 200, cwd=tmp_path)
    assert shipped.returncode == 0
    assert shipped.stdout.startswith("def ")


def test_text_is_streamed(trained_run):
    options, pipe = [trained_run, "--length", 1000000], subprocess.PIPE
    process = started("generate.py", *options, cwd=trained_run, stdout=pipe, stderr=pipe)
    assert process.stdout.read(200)
    process.stdout.close()  # as `| head` does
    assert process.wait(timeout=20) == 141
    assert "Traceback" not in process.stderr.read()


def test_samples_of_a_batch_equal_single_texts(trained_run):
    common = [trained_run, "--prompt", "A ", "--length", 80, "--json"]
    batch = called("generate", *common, "--num-samples", 9, "--seed", 4)
    records = [json.loads(line) for line in batch.stdout.splitlines()]
    assert len(records) == 9
    for i in (0, 5, 8):
        alone = json.loads(called("generate", *common, "--seed", 4 + i).stdout)
        assert alone == records[i]
    assert {"text", "tokens", "logprobs"} <= set(records[0])
    assert len({record["text"] for record in records}) == 9


def test_stop_ends_the_text_before_the_string(trained_run):
    options = ["--prompt", "The", "--seed", 2, "--length", 500]
    whole = called("generate", trained_run, *options).stdout
    stopped = called("generate", trained_run, *options, "--stop", ".\n", "--stop", "@@").stdout
    assert stopped == whole.split(".\n")[0] + "\n"


def test_greedy_and_top_k_of_one_agree(trained_run):
    greedy = called("generate", trained_run, "--greedy").stdout
    assert greedy == called("generate", trained_run, "--top-k", 1, "--seed", 9).stdout
    assert greedy == called("generate", trained_run, "--temperature", 0).stdout


def test_the_prompt_can_come_from_a_file_or_standard_input(trained_run, tmp_path):
    (tmp_path / "p.txt").write_text("A small boat")
    options = ["--seed", 3, "--length", 50]
    direct = script("generate.py", trained_run, "--prompt", "A small boat", *options, cwd=tmp_path).stdout
    file = script("generate.py", trained_run, "--prompt-file", "p.txt", *options, cwd=tmp_path).stdout
    piped = script(
        "generate.py", trained_run, "--prompt-file", "-", *options, cwd=tmp_path, input="A small boat"
    ).stdout
    assert direct == file == piped


def test_unknown_characters(trained_run):
    common = [trained_run, "--prompt", "The 日 sea", "--length", 20, "--seed", 1]
    replaced = called("generate", *common)
    assert replaced.returncode == 0
    assert replaced.stderr.splitlines()[0] == "warning: the model does not know '日'; replaced by <unk>."
    assert called("generate", *common, "--unknown", "skip").returncode == 0
    rejected = called("generate", *common, "--unknown", "error")
    assert rejected.returncode == 2
    assert rejected.stderr.startswith("error: the model does not know '日'")
    assert rejected.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "there is no model folder 'nowhere'"),
        (["."], "is not a model folder: it has no config.json"),
        (["--temperature", "-1"], "--temperature must be at least 0"),
        (["--top-p", "2"], "--top-p must be in (0, 1], got 2.0"),
        (["--length", "0"], "must be a whole number from 1 to"),
        (["--seed", "-1"], "must be a whole number from 0 to"),
        (["--length", "ten"], "--length"),
        (["--prompt-file", "nowhere.txt"], "cannot read the prompt file nowhere.txt"),
    ],
)
def test_errors_are_one_line(tmp_path, arguments, message):
    result = script("generate.py", *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr.strip().splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
