"""generate.py: several prompts, constraints, beam search, ensembles, infilling, interactive mode."""

import json
import re

import pexpect
import pytest

import lm
from lm.session import Session
from tests.conftest import ROOT, WORDS, called, script


def generate(run, *arguments):
    result = called("generate", run, *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_several_prompts_from_a_file_are_continued_together(trained_run, tmp_path):
    (tmp_path / "prompts.txt").write_text("The sea\nA boat\nLight\n")
    lines = generate(
        trained_run, "--prompts-file", tmp_path / "prompts.txt", "--json", "--seed", 3, "--length", 40
    ).splitlines()
    samples = [json.loads(line) for line in lines]
    assert [s["prompt"] for s in samples] == ["The sea", "A boat", "Light"]
    assert [s["seed"] for s in samples] == [3, 4, 5]
    alone = generate(trained_run, "--prompt", "A boat", "--json", "--seed", 4, "--length", 40)
    assert json.loads(alone)["text"] == samples[1]["text"]


def test_prompts_end_at_line_feeds_only(trained_run, tmp_path):
    prompts = ["The\x0bsea", "A\x0cboat\x1c\x1d\x1e", "", "Li\x85ght\u2028and\u2029", "\u2028"]
    file, options = tmp_path / "prompts.txt", ["--json", "--seed", 3, "--length", 2]
    for content in ("\n".join(prompts), "\r\n".join(prompts) + "\r\n"):
        file.write_bytes(content.encode())
        records = map(json.loads, generate(trained_run, "--prompts-file", file, *options).splitlines())
        assert [(r["prompt"], r["seed"]) for r in records] == list(zip(prompts, range(3, 8), strict=True))
    file.write_bytes(b"The\rsea\n")  # a line break in a prompt, written as in training
    assert json.loads(generate(trained_run, "--prompts-file", file, *options))["prompt"] == "The\nsea"


def test_match_choice_and_ban(trained_run):
    text = generate(trained_run, "--match", "[A-Z][a-z]+( [a-z]+){2}\\.", "--seed", 1)
    assert re.fullmatch("[A-Z][a-z]+( [a-z]+){2}\\.\n", text)
    text = generate(trained_run, "--prompt", "The ", "--choice", "small boat", "--choice", "calm sea")
    assert text in ("The small boat\n", "The calm sea\n")
    text = generate(trained_run, "--ban", "the", "--ban", " a ", "--length", 1500, "--seed", 1)
    assert "the" not in text and " a " not in text
    assert "the" in generate(trained_run, "--length", 1500, "--seed", 1)


def test_beam_search_finds_a_more_likely_text_than_greedy_decoding(trained_run):
    search = ["--prompt", "The ", "--length", 30, "--json"]
    greedy = json.loads(generate(trained_run, *search, "--greedy"))
    best, second = map(
        json.loads, generate(trained_run, *search, "--beams", 8, "--num-samples", 2).splitlines()
    )
    assert sum(best["logprobs"]) >= sum(greedy["logprobs"])
    assert sum(best["logprobs"]) >= sum(second["logprobs"])
    assert best["seed"] is None and best["text"] != second["text"]
    assert "found with 8 beams" in generate(trained_run, *search[:-1], "--beams", 8)


def test_an_ensemble_of_a_model_with_itself_changes_nothing(trained_run):
    options = ["--seed", 2, "--length", 60, "--temperature", "0.5:1.2"]
    assert generate(trained_run, *options, "--mix", f"{trained_run}=0.3") == generate(trained_run, *options)


def test_a_backward_model_generates_up_to_a_suffix(trained_run, backward_run):
    text = generate(backward_run, "--suffix", " light.", "--length", 60, "--seed", 1)
    assert text.endswith(" light.\n") and len(text) == 60 + len(" light.\n")
    assert sum(word in text.lower() for word in WORDS) > 3


def test_infilled_text_fits_both_sides(trained_run, backward_run):
    gap = ["--infill", "The small bo| went out to find", "--length", 12, "--seed", 1]
    for first, second in ((trained_run, backward_run), (backward_run, trained_run)):
        lines = generate(first, *gap, "--backward-model", second, "--num-samples", 3, "--json").splitlines()
        found = [json.loads(line) for line in lines]
        assert [f["score"] for f in found] == sorted((f["score"] for f in found), reverse=True)
        assert found[0]["text"].startswith("at")
        words = ("The small bo" + found[0]["text"] + " went").lower().replace(".", "").split()
        assert set(words) <= set(WORDS), words


ERRORS = [
    (["--match", "("], "cannot use the pattern '('"),
    (["--match", "a", "--choice", "b"], "contradict each other"),
    (["--suffix", "x"], "--suffix requires a model trained with --direction backward"),
    (["--infill", "a|b"], "--backward-model"),
    (["--mix", "nowhere=0.5"], "there is no model folder 'nowhere'"),
    (["--temperature", "1:2:3"], "a range such as 0.3:1.0"),
    (["--temperature", "hot"], "--temperature must be a number"),
    (["--match", "[0-9]"], "no token is allowed"),
    (["--beams", "3", "--match", "q+", "--ban", "q"], "no token is allowed"),
    (["--prompts-file", "/nowhere"], "cannot read the prompt file /nowhere"),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS)
def test_errors_are_one_line(trained_run, arguments, message):
    result = called("generate", trained_run, *arguments)
    assert result.returncode == 2
    assert message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_interactive_mode_in_a_terminal(trained_run):
    """Choose tokens, generate, undo and type: the text printed at the end is what was displayed."""
    command = [str(ROOT / "generate.py"), str(trained_run), "--interactive", "--prompt", "The se"]
    options = {"cwd": str(trained_run), "encoding": "utf-8", "timeout": 60, "dimensions": (60, 100)}
    child = pexpect.spawn("python", command, **options)
    child.expect("> ")
    assert "'a'" in child.before and "█" in child.before and "%" in child.before
    child.sendline("1")
    child.expect("The sea▏")
    for line, displayed in (
        ("g 12", r"The sea.{8,}▏"),
        ("u", "The sea▏"),
        ('"1"', r"The sea.*▏"),
        (" was calm", "was calm▏"),
    ):
        child.expect("> ")
        child.sendline(line)
        child.expect(displayed)
    child.expect("> ")
    child.sendline("q")
    child.expect(pexpect.EOF)
    assert child.before.strip().splitlines()[-1].startswith("The sea")
    assert child.before.strip().endswith(" was calm")
    child.close()
    assert child.exitstatus == 0


def test_interactive_commands_can_come_from_a_file(trained_run):
    command = ["generate.py", trained_run, "--interactive", "--prompt", "The se"]
    result = script(*command, cwd=trained_run, input="1\n was\n")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "The sea was\n"


@pytest.mark.parametrize("line", ["²", "g ²", "9" * 5000, "g " + "9" * 5000, "g 0", "u 0", "-1"])
def test_interactive_mode_takes_what_is_no_number_as_text(trained_run, line):
    result = script("generate.py", trained_run, "--interactive", cwd=trained_run, input=line + "\n")
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr and len(result.stdout) > len(line) - 5


def test_interactive_mode_rejects_input_that_is_not_utf_8(trained_run):
    command = ["generate.py", trained_run, "--interactive"]
    result = script(*command, cwd=trained_run, input=b"\xff\n", text=False)
    assert result.returncode == 2 and not result.stdout
    assert result.stderr.decode().endswith("error: standard input is not UTF-8.\n")


def test_every_precision_generates_words(trained_run):
    for precision in ("bf16", "int8"):
        text = generate(
            trained_run, "--length", 300, "--seed", 1, "--precision", precision, "--temperature", 0.5
        )
        words = text.lower().replace(".", "").split()[:-1]
        assert sum(word in WORDS for word in words) > 0.9 * len(words)


def test_a_session_can_be_loaded_with_its_run_again(trained_run, tmp_path):
    session = lm.load(trained_run).session()
    session.feed("The sea")
    session.save(tmp_path / "s")
    assert Session.load(lm.load(trained_run), tmp_path / "s").text == "The sea"
