"""`lm generate --interactive`: every command leaves the text as it says, and none loses it."""

import io
import signal

import pytest

import lm
from lm.session import Session
from tests.conftest import called


@pytest.fixture
def interact(char, monkeypatch):
    """Gives commands to an interactive session and returns its result."""

    def run(*lines, arguments=()):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        result = called("generate", char, "--interactive", "--seed", 1, *arguments)
        assert "Traceback" not in result.stderr
        return result

    return run


def test_a_number_takes_a_token_that_is_listed_and_others_are_text(interact, char):
    session = lm.load(char).session()
    listed = session.next(1000)
    doubled = ["n"] * 10  # more than there are tokens
    for number, (name, _, _) in enumerate(listed, start=1):
        if number in (1, 9, len(listed)):
            assert interact(*doubled, number).stdout == name + "\n"
    result = interact(*doubled, len(listed) + 1)
    assert result.returncode == 0 and "warning: the model does not know" in result.stderr


def test_the_last_seed_generates(interact):
    result = interact("the", "g 2", arguments=["--seed", 2**64 - 1])
    assert "error:" not in result.stderr and len(result.stdout) == len("the") + 3


def test_undo_goes_back_to_the_text_before_each_command(interact):
    assert interact("the", " sea", "u").stdout == "the\n"
    assert interact("the", " sea", "u", "u", "u").stdout == ""
    assert interact("u", arguments=["--prompt", "the"]).stdout == "the\n"


def test_undo_after_tokens_were_removed_undoes_what_is_left(interact):
    assert interact("the", " sea", " was", "u 6", "u").stdout == "the\n"
    assert interact("the", " sea", "u 4", "u").stdout == ""
    assert interact("the", " sea", "u 7", "u", "u").stdout == ""
    assert interact("u 2", "ab", "u", "u", arguments=["--prompt", "the"]).stdout == "t\n"


def test_commands_with_zero_are_errors(interact):
    result = interact("the", "g 0", "u 0")
    assert result.stdout == "the\n"
    assert "error: 'g 0' must have a number of at least 1." in result.stderr
    assert "error: 'u 0' must have a number of at least 1." in result.stderr


def test_a_command_that_is_not_possible_keeps_the_text(interact):
    choices = ["--choice", "sea", "--ban", "e"]
    result = interact("the ", "g 5", "a", arguments=choices)
    assert result.returncode == 0 and result.stdout.startswith("the s") and result.stdout.endswith("a\n")
    assert result.stderr.count("error: no token is allowed after the first 1:") == 1


def test_typed_text_is_read_as_unknown_says(interact):
    warned = "warning: the model does not know 'ß'; {}.\n"
    replaced = interact("theß")
    assert warned.format("replaced by <unk>") in replaced.stderr
    skipped = interact("theß", arguments=["--unknown", "skip"])
    assert warned.format("skipped") in skipped.stderr and skipped.stdout == "the\n"
    rejected = interact("the", "ß", arguments=["--unknown", "error"])
    assert "error: the model does not know 'ß'" in rejected.stderr and "warning" not in rejected.stderr
    assert rejected.returncode == 0 and rejected.stdout == "the\n"


def test_ctrl_c_ends_what_the_model_writes_and_the_program_but_keeps_the_text(char, monkeypatch, tmp_path):
    model = lm.load(char)
    model.facts["trained_on"] = {"documents": 1}  # it writes without end
    model.save(tmp_path)

    sample = Session.sample

    def interrupted(self, **settings):
        """The user presses Ctrl-C while the model writes."""
        for number, piece in enumerate(sample(self, **settings), start=1):
            if number == 20:
                signal.raise_signal(signal.SIGINT)
            yield piece

    class Typed(io.StringIO):
        """The user presses Ctrl-C at the last prompt."""

        def readline(self, *_):
            if line := super().readline():
                return line
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Session, "sample", interrupted)
    monkeypatch.setattr("sys.stdin", Typed("the\ng 999999999\n"))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # of a background job, it is ignored
    try:
        result = called("generate", tmp_path, "--interactive", "--seed", 1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.returncode == 130 and result.stderr.count("interrupted\n") == 1
    assert result.stdout.startswith("the") and len(result.stdout) == len("the\n") + 20


def test_input_that_cannot_be_read_ends_the_program_but_keeps_the_text(char, monkeypatch):
    typed = io.TextIOWrapper(io.BytesIO(b"the\n\xff\n"), encoding="utf-8", errors="surrogateescape")
    monkeypatch.setattr("sys.stdin", typed)
    result = called("generate", char, "--interactive")
    assert result.returncode == 2 and "error: standard input is not UTF-8." in result.stderr
    assert result.stdout == "the\n"
