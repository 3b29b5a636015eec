"""Errors about patterns: one line that says what is wrong and where, without the internals of llguidance."""

import re
import time

import pytest
import torch

from lm.config.schema import ModelConfig
from lm.errors import UserError
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import train_tokenizer

INTERNAL = re.compile(r"<state>|NoExtensionBias|lexer|grammar|Parser|at 1\(|start: |\n|\^ error")

BOUNDARY = r"\b and \B are not supported; write the characters around the word, such as a space."


@pytest.fixture(scope="module", params=["char", "word"])
def model(request):
    torch.manual_seed(1)
    tokenizer = train_tokenizer(request.param, iter(["aa ab ( ) a a/b \\ b\n" * 20]), 60)
    network = RecurrentLM(ModelConfig(cell="gru", hidden_size=4), tokenizer.vocab_size)
    return LanguageModel(network, tokenizer, {"trained_on": {"documents": 1}})


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(", "unclosed group (at character 1)."),
        ("ab(c", "unclosed group (at character 3)."),
        ("\n\t\r/(", "unclosed group (at character 5)."),
        ("a\\/(", "unclosed group (at character 4)."),
        ("\\\n\\\\\n(", "unclosed group (at character 6)."),
        ("中é😀(", "unclosed group (at character 4)."),
        ("a" * 300 + "[", "unclosed character class (at character 301)."),
        ("a)", "unopened group (at character 2)."),
        ("a)|(b", "unopened group (at character 2)."),
        ("(?i", "expected flag but got end of regex (at its end)."),
        ("(?<a>x)(?<a>y)", "duplicate capture group name (at character 11)."),
        (r"\1", "backreferences are not supported (at character 1)."),
        ("a(?=b)", "look-around, including look-ahead and look-behind, is not supported (at character 2)."),
        (r"\ba", r"\b and \B are not supported; write the characters around the word, such as a space."),
        (r"a\B", r"\b and \B are not supported; write the characters around the word, such as a space."),
        (
            r"\b{start}a",
            r"\b and \B are not supported; write the characters around the word, such as a space.",
        ),
        ("(?m)^a$", r"^ and $ within a text are not supported; write \n for a line break."),
        ("\\", r"it ends with a backslash; write \\ for a backslash."),
        ("a\\\\\\", r"it ends with a backslash; write \\ for a backslash."),
        ("\ud800", "it contains half of a character (a surrogate)."),
    ],
)
def test_an_invalid_pattern_is_explained_with_its_place(model, pattern, reason):
    with pytest.raises(UserError) as raised:
        model.stream("", match=pattern)
    assert str(raised.value) == f"cannot use the pattern {pattern[:80]!r}: {reason}"


@pytest.mark.parametrize("pattern", [r"[^\s\S]", "[a&&b]", r"a[^\s\S]"])
def test_a_pattern_that_matches_nothing_is_an_error(model, pattern):
    with pytest.raises(UserError, match=r"no text matches it\.$|no token is allowed"):
        model.generate("", match=pattern, seed=1)


@pytest.mark.parametrize("pattern", ["a{99999}{99999}", "(a{1000}){1000}", "(a{200}){1000}"])
def test_a_pattern_that_is_too_complex_says_so_soon(model, capfd, pattern):
    """Until then, it keeps all others waiting."""
    begin = time.process_time()
    with pytest.raises(UserError) as raised:
        model.generate(
            "", match=pattern if model.tokenizer.kind == "char" else f"a{pattern.replace('a', ' a')}"
        )
    assert time.process_time() - begin < 3  # without limits: 4 to 40 s
    assert "too complex" in str(raised.value) and not INTERNAL.search(str(raised.value))
    assert capfd.readouterr() == ("", "")  # llguidance logs nothing


def test_backslashes_at_the_end_come_in_pairs():
    torch.manual_seed(1)
    tokenizer = train_tokenizer("char", iter(["ab\\ " * 20]), 60)
    network = RecurrentLM(ModelConfig(cell="gru", hidden_size=4), tokenizer.vocab_size)
    model = LanguageModel(network, tokenizer, {"trained_on": {"documents": 1}})
    assert model.generate("", match="ab\\\\", seed=1)[0].text == "ab\\"


@pytest.mark.parametrize(
    "pattern", ["^b$", r"\Ab\z", "(?i)^B", "(?:^b|^b b)$", "^b|b b", "(?x) ^b # comment"]
)
def test_a_pattern_can_name_the_start_and_end_of_the_text(model, pattern):
    assert model.generate("a ", match=pattern, seed=1)[0].text in ("b", "b b")
