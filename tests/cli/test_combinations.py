"""Flags that would be ignored are errors of one line, unless they say what is the case anyway."""

import pytest

import lm
from lm.cli.generate import check_combination, parse
from lm.errors import UserError
from tests.conftest import called

CANNOT = "{} cannot be combined with {}."
REJECTED = [
    ("--interactive --beams 2", CANNOT.format("--beams", "--interactive")),
    ("--interactive --json", CANNOT.format("--json", "--interactive")),
    ("--interactive --num-samples 2", CANNOT.format("--num-samples", "--interactive")),
    ("--interactive --prompts-file f", CANNOT.format("--prompts-file", "--interactive")),
    ("--interactive --infill a|b", CANNOT.format("--infill", "--interactive")),
    ("--interactive --length 5", CANNOT.format("--length", "--interactive")),
    ("--interactive --prompt-file -", "would both read standard input"),
    ("--infill a|b --beams 2", CANNOT.format("--beams", "--infill")),
    ("--infill a|b --length-penalty 0.5", CANNOT.format("--length-penalty", "--infill")),
    ("--beams 2 --temperature 0.5", "--temperature has no effect on a beam search"),
    ("--beams 2 --temperature 0", "--temperature has no effect on a beam search"),
    ("--beams 2 --greedy", "--greedy has no effect on a beam search"),
    ("--beams 2 --top-p 0.5", "--top-p has no effect on a beam search"),
    ("--beams 2 --repetition-penalty 2", "--repetition-penalty has no effect on a beam search"),
    ("--beams 2 --seed 0", "--seed has no effect on a beam search"),
    ("--length-penalty 0", "--length-penalty requires --beams."),
    ("--beams 1 --length-penalty 0.5", "--length-penalty requires --beams."),
    ("--length-penalty nan", "--length-penalty must be finite"),
    ("--backward-model m", "--backward-model requires --infill."),
    ("--encoding cp1252", "--encoding requires --prompt-file or --prompts-file."),
    ("--repetition-window 9", "--repetition-window requires --repetition-penalty or --presence-penalty or"),
    ("--match a --choice b", "--match and --choice contradict each other"),
    ("--greedy --temperature 0.5", "--temperature has no effect with --greedy"),
    ("--greedy --top-k 5", "--top-k has no effect with --greedy: leave one of them out."),
    ("--greedy --min-p 0.1", "--min-p has no effect with --greedy"),
    ("--temperature 0 --top-p 0.9", "--top-p has no effect with --temperature 0: leave one of them out."),
    ("--temperature 0.0 --typical-p 0.9", "--typical-p has no effect with --temperature 0"),
    ("--stop=", "--stop must not be empty."),
    ("--ban=", "--ban must not be empty."),
    ("--encoding= --prompt-file p.txt", "--encoding must not be empty."),
    ("--prompt-file=", "--prompt-file must not be empty."),
    ("--prompts-file=", "--prompts-file must not be empty."),
]
ACCEPTED = [
    "--beams 2 --temperature 0.8 --top-k 0 --no-repeat-ngram 3 --length-penalty 0 --num-samples 2",
    "--beams 1 --seed 1 --length-penalty 1 --temperature 0.5",
    "--interactive --beams 1 --num-samples 1 --length-penalty 1 --seed 3 --temperature 2 --stop x",
    "--infill a|b --backward-model m --num-samples 3 --json --temperature 0",
    "--greedy --temperature 0 --seed 1 --top-k 0 --top-p 1",
    "--temperature 0:1 --top-k 5",
    "--encoding cp1252 --prompt-file -",
    "--repetition-window 9 --frequency-penalty 1",
    "--repetition-window 64",
    "--choice= --choice a",
]


@pytest.mark.parametrize(("arguments", "message"), REJECTED)
def test_flags_that_would_be_ignored_are_rejected(arguments, message):
    result = called("generate", "pretrained", *arguments.split(" "))
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", ACCEPTED)
def test_flags_that_are_used_or_the_default_are_accepted(arguments):
    check_combination(parse(arguments.split(" ")))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beams": 2, "temperature": 0.5}, "--temperature has no effect on a beam search"),
        ({"beams": 2, "seed": 1}, "--seed has no effect on a beam search"),
        ({"beams": 0}, r"--beams must be in \[1, 100000\], got 0"),
        ({"length_penalty": 0.5}, "--length-penalty requires --beams"),
        ({"beams": 2, "length_penalty": float("nan")}, "--length-penalty must be finite"),
        ({"beams": 2, "length_penalty": -1000}, r"--length-penalty must be in \[-10, 10\]"),
    ],
)
def test_the_python_api_rejects_them_too(settings, message):
    with pytest.raises(UserError, match=message):
        lm.load("pretrained").generate("a", **settings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--resume --overwrite", CANNOT.format("--overwrite", "--resume")),
        ("--resume --print-config", CANNOT.format("--print-config", "--resume")),
        ("--find-lr --overwrite", CANNOT.format("--overwrite", "--find-lr")),
        ("--find-lr --print-config", CANNOT.format("--print-config", "--find-lr")),
        ("--shuffle-buffer 5", "--shuffle-buffer has no effect without --streaming"),
        ("--tokenizer byte --vocab-size 300", "--vocab-size has no effect on the tokenizer byte"),
        ("--tokenizer unigram --min-frequency 2", "--min-frequency has no effect on the tokenizer unigram"),
        ("--sample-every 0 --sample-prompt a", "--sample-prompt has no effect with --sample-every 0"),
        ("--find-lr --lr 0.1", "--lr has no effect with --find-lr"),
        ("--find-lr --schedule linear", "--schedule has no effect with --find-lr"),
        ("--quiet --data-report", "--data-report has no effect with --quiet"),
        ("--out=", "--out must not be empty."),
        ("--dataset=", "--dataset must not be empty."),
    ],
)
def test_flags_of_a_training_that_would_be_ignored_are_rejected(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = called("train", *arguments.split(" "))
    assert result.returncode == 2 and message in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", ["--shuffle-buffer 1000", "--streaming --shuffle-buffer 5", "--sample-prompt="]
)
def test_flags_of_a_training_that_are_used_or_the_default_are_accepted(arguments):
    assert called("train", "--print-config", *arguments.split(" ")).returncode == 0
