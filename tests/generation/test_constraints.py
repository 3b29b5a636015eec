"""What may be written: patterns, choices, banned strings; for every kind of token."""

import re

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from lm.config.schema import ModelConfig
from lm.errors import UserError
from lm.generation.constraints import Banned, NoRepeat, OneOf, Vocabulary
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import train_tokenizer

TEXT = "the sea was calm. 12 boats, 7 ports; naïve 中文 (a) [b] {c} a+b=c\n"


@pytest.fixture(scope="module", params=["char", "byte", "bpe", "unigram", "word"])
def model(request):
    torch.manual_seed(1)
    tokenizer = train_tokenizer(request.param, iter([TEXT * 20]), 400)
    network = RecurrentLM(ModelConfig(cell="gru", hidden_size=24), tokenizer.vocab_size)
    return LanguageModel(network, tokenizer, {"trained_on": {"documents": 1}})


def text_of(model, prompt="the ", **options):
    (sample,) = model.generate(prompt, **{"max_new_tokens": 40, "temperature": 1.5, **options})
    return sample.text


QUIET = settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


PATTERNS = ["[0-9]{3,5}", "(sea|boats)( was){1,3}", "a{7}", "中{1,4}文"]
OF_WORDS = ["(sea|boats,)( was| calm.){1,3}", "12|naïve 中文"]


@given(seed=st.integers(0, 1000), which=st.integers(0, 3))
@QUIET
def test_the_text_matches_the_pattern(model, seed, which):
    pattern = OF_WORDS[which % 2] if model.tokenizer.kind == "word" else PATTERNS[which]
    assert re.fullmatch(pattern, text_of(model, seed=seed, match=pattern, max_new_tokens=60))


def test_where_the_length_ends_before_the_match_the_text_is_its_beginning(model):
    if model.tokenizer.kind != "word":
        assert text_of(model, seed=1, match="(sea ){50}", max_new_tokens=10) in "sea " * 50


@given(seed=st.integers(0, 1000))
@QUIET
def test_the_text_is_one_of_the_choices(model, seed):
    choices = ["sea was", "boats,"] if model.tokenizer.kind == "word" else ["(a) [b]", "a+b=c", "naïve 中"]
    assert text_of(model, seed=seed, choices=choices) in choices


@given(
    seed=st.integers(0, 1000),
    banned=st.lists(st.sampled_from(["e", "th", "sea", " ", "文", "as c", "the w", "the t"])),
)
@QUIET
def test_a_banned_string_is_never_written(model, seed, banned):
    if model.tokenizer.kind == "word":
        banned = [string for string in banned if string != " "]
    prompt = "the " if model.tokenizer.kind == "word" else "the t"  # in which a banned string may begin
    text = text_of(model, prompt, seed=seed, ban=banned, max_new_tokens=150)
    for string in banned:
        assert string not in text
        assert string not in (prompt + text)[len(prompt) - len(string) + 1 :]


@given(
    strings=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
    pieces=st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=5, unique=True),
    before=st.text("abc", max_size=5),
    choose=st.lists(st.integers(0, 4), max_size=8),
)
@settings(deadline=None, max_examples=300)
def test_just_the_tokens_are_banned_with_which_a_string_would_stand_there(strings, pieces, before, choose):
    vocabulary = Vocabulary([piece.encode() for piece in pieces])
    banned = Banned(vocabulary, [string.encode() for string in strings], before.encode())
    text = before
    for number in [*choose, 0]:
        # A string that ends in the new token; those that the prompt held already are no fault of it.
        expected = [
            not any(s in (text + piece)[max(len(text) - len(s) + 1, 0) :] for s in strings)
            for piece in pieces
        ]
        assert banned.allowed().tolist() == expected
        banned.accept(number % len(pieces))
        text += pieces[number % len(pieces)]


@given(
    strings=st.lists(st.text("ab", max_size=5), min_size=1, max_size=4),
    pieces=st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=5),
    choose=st.lists(st.integers(0, 4), max_size=5),
)
@settings(deadline=None, max_examples=300)
def test_just_the_tokens_may_come_that_lead_to_one_of_the_strings(strings, pieces, choose):
    one_of = OneOf(Vocabulary([piece.encode() for piece in pieces]), [string.encode() for string in strings])
    text = ""
    for number in [*choose, 0]:
        assert one_of.complete == (text in strings)
        allowed = [any(string.startswith(text + piece) for string in strings) for piece in pieces]
        assert one_of.allowed().tolist() == allowed
        if not allowed[number % len(pieces)]:
            break
        before = one_of.fork()
        one_of.accept(number % len(pieces))
        assert before.allowed().tolist() == allowed  # a fork goes on by itself
        text += pieces[number % len(pieces)]


@given(
    size=st.integers(1, 4),
    written=st.lists(st.integers(0, 2), max_size=8),
    more=st.lists(st.integers(0, 2), max_size=8),
)
@settings(deadline=None, max_examples=300)
def test_just_the_tokens_may_come_that_end_a_new_run(size, written, more):
    no_repeat, text = NoRepeat(3, size, written), list(written)
    for token in [*more, 0]:
        runs = {tuple(text[at : at + size]) for at in range(len(text) - size + 1)}
        allowed = [(*text[len(text) - size + 1 :], t) not in runs or len(text) < size - 1 for t in range(3)]
        assert no_repeat.allowed().tolist() == allowed
        before = no_repeat.fork()
        no_repeat.accept(token)
        assert before.allowed().tolist() == allowed
        text.append(token)


def test_a_constraint_changes_nothing_where_it_asks_for_nothing(model):
    free = text_of(model, seed=3)
    assert text_of(model, seed=3, ban=["@@@"]) == free
    if model.tokenizer.kind in ("char", "word"):  # bytes by an untrained model make no characters
        assert text_of(model, seed=3, match="(?s:.)*") == free


def test_what_cannot_be_is_told_in_one_line(model):
    with pytest.raises(UserError, match=r"cannot use the pattern '\('"):
        model.stream("", match="(")
    with pytest.raises(UserError, match="contradict each other"):
        model.stream("", match="a", choices=["b"])
    with pytest.raises(UserError, match="no token is allowed"):
        text_of(model, match="[0-9]+", ban=list("0123456789"))


def test_a_pattern_that_turns_out_too_large_ends_that_text_alone(model):
    if model.tokenizer.kind != "char":
        return
    expected = text_of(model, seed=4)
    streams = model.stream_all(["the ", "the "], [4, 5], max_new_tokens=40, temperature=1.5)
    with pytest.raises(UserError, match="cannot use the pattern"):
        text_of(model, match="a{99999}{99999}", max_new_tokens=2000)
    assert "".join(piece.text for number, piece in streams if number == 0) == expected
    with pytest.raises(UserError, match="at least 1"):
        text_of(model, max_new_tokens=0)
