"""A draft follows edits as if it had read the text from the start, and knows the alternatives anywhere."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from app.draft import GOES_ON, NO_BITS, Draft, marked_bits, restore_controls
from lm.config.schema import ModelConfig
from lm.console.escaping import printable
from lm.errors import UserError
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import train_tokenizer
from tests.conftest import some_text

KINDS = ("char", "byte", "bpe", "word", "unigram")


@pytest.fixture(scope="module")
def models():
    models = {}
    for kind in KINDS:
        torch.manual_seed(1)
        tokenizer = train_tokenizer(kind, iter([some_text(3000) + "naïve 中文 😀 \x1b\n" * 9]), 300)
        config = ModelConfig(cell="gru", layers=1, hidden_size=16, embedding_size=16)
        network = RecurrentLM(config, tokenizer.vocab_size)
        with torch.no_grad():
            network.decoder.weight *= 4  # some tokens become likely
        models[kind] = LanguageModel(network, tokenizer, {"trained_on": {"documents": 1}})
    return models


TEXTS = st.text(st.sampled_from("The sea was calm\n,. ï中😀␛x"), max_size=25)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(edits=st.lists(st.tuples(TEXTS, st.integers(0, 30), st.booleans()), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_an_edited_draft_equals_a_draft_of_the_text(models, kind, edits):
    model, draft = models[kind], Draft(models[kind])
    for part, at, write in edits:
        draft = draft.with_text(draft.text[:at] + part + draft.text[at + 2 :])
        if write:
            list(draft.write(seed=at, max_new_tokens=5))
        assert len(draft.bits) == len(draft.text) and len(draft.starts) == len(draft.session)
        assert draft.starts == sorted(draft.starts)
    # The session predicts what a fresh one does after the same tokens.
    fresh = model.session()
    for token in draft.session.tokens[1:]:
        fresh.add(token)
    assert [n[1] for n in fresh.next(3)] == [n[1] for n in draft.session.next(3)]
    for edited, expected in zip(draft.session.next(3), fresh.next(3), strict=True):
        assert edited[2] == pytest.approx(expected[2], abs=1e-4)
    if kind == "char":  # the only kind for which each text has a single tokenization
        assert draft.session.tokens[1:] == model.encode(restore_controls(model, draft.text))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        *(("é", "eé"), ("a 😀", "a"), ("a 😀 b", "a the b"), ("中中", "文中")),  # several tokens each
        *((" sea", "sea"), (" sea", "The sea"), (" ", "\n"), ("  ", " sea")),  # spaces before the first token
    ],
)
def test_an_edit_leaves_nothing_of_the_old_text_behind(models, kind, old, new):
    draft, fresh = Draft(models[kind]).with_text(old).with_text(new), Draft(models[kind]).with_text(new)
    assert (draft.text, draft.starts) == (new, fresh.starts)
    assert draft.session.tokens == fresh.session.tokens
    assert draft.alternatives(0).current != ""


def test_a_byte_that_was_chosen_is_no_part_of_what_is_typed_instead_of_its_character(models):
    model = models["byte"]
    draft = Draft(model).with_text("a").with_token(1, model.encode("中")[0])
    assert draft.text == "a" and len(draft.session) == 2
    assert draft.with_text("ax").session.tokens == Draft(model).with_text("ax").session.tokens


@pytest.mark.parametrize("kind", KINDS)
def test_new_drafts_leave_the_original_unchanged(models, kind):
    draft = Draft(models[kind]).with_text("The sea was calm")
    tokens, text = list(draft.session.tokens), draft.text
    draft.with_text("The sky")
    draft.alternatives(4)
    draft.with_token(4, draft.alternatives(4).tokens[0][1])
    assert draft.session.tokens == tokens and draft.text == text


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_alternatives_are_the_predictions_after_the_text_before(models, kind):
    model = models[kind]
    draft = Draft(model).with_text("The sea was calm and naïve 中文")
    for position in (0, 4, 9, 12, 25, len(draft.text)):
        found = draft.alternatives(position, 5)
        before = draft.session.fork()
        while before.tokens and (len(before) and draft.starts[len(before) - 1] >= found.start):
            before.rewind(1)
        assert [token for _, token, _ in found.tokens] == [token for _, token, _ in before.next(5)]
        assert found.start <= position
        if position == len(draft.text):
            assert found.current is None
        else:
            assert position < found.start + max(len(found.current), 1)
            assert draft.text[found.start :].startswith(found.current)


def test_an_inserted_token_replaces_the_rest_of_the_text(models):
    draft = Draft(models["char"]).with_text("The sea was calm")
    token = models["char"].encode("n")[0]
    changed = draft.with_token(4, token)
    assert changed.text == "The n" and changed.bits[:4] == NO_BITS * 4
    score = models["char"].score("The n")[-1]
    assert marked_bits(changed.bits[4]) == pytest.approx(-score.logprob / math.log(2), abs=0.01)
    assert changed.session.tokens[1:] == models["char"].encode("The n")
    for invalid in (-1, 10**9, models["char"].tokenizer.unk):
        with pytest.raises(UserError, match="no such token"):
            draft.with_token(4, invalid)


@pytest.mark.parametrize("kind", KINDS)
def test_bits_are_the_surprisals_of_generated_text_only(models, kind):
    model, prompt = models[kind], "The sea"
    draft = Draft(model).with_text(prompt)
    before = len(draft.session)
    pieces = list(model.stream(prompt, seed=3, max_new_tokens=40, temperature=1.5))
    list(draft.write(seed=3, max_new_tokens=40, temperature=1.5))
    assert draft.text == prompt + "".join(printable(piece.text) for piece in pieces)
    assert draft.bits[: len(prompt)] == NO_BITS * len(prompt)
    shown = [marked_bits(mark) for mark in draft.bits[len(prompt) :] if mark != GOES_ON]
    scores = model.score(draft.session.tokens[1:])[before:]
    last = max(number for number, piece in enumerate(pieces) if piece.text)
    expected = [-score.logprob / math.log(2) for score in scores[: last + 1]]
    if kind in ("char", "word"):
        assert shown == pytest.approx(expected, abs=0.01)
    # A character of several tokens has the sum of their bits.
    assert sum(shown) == pytest.approx(sum(expected), abs=0.01 * len(shown))
    assert len(set(shown)) > 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_string_is_in_neither_text_nor_session(models, kind):
    model = models[kind]
    whole = Draft(model).with_text("The sea")
    list(whole.write(seed=8, max_new_tokens=60))
    generated = "".join(piece.text for piece in model.stream("The sea", seed=8, max_new_tokens=60))
    parts = [generated[at : at + 2] for at in range(4, len(generated) - 2)]
    stop = next(part for part in parts if "\ufffd" not in part)  # not part of a character
    draft = Draft(model).with_text("The sea")
    list(draft.write(seed=8, max_new_tokens=60, stop=[stop]))
    assert whole.text.startswith(draft.text) and len(draft.text) < len(whole.text)
    assert stop not in restore_controls(model, draft.text[len("The sea") :])
    assert len(draft.starts) == len(draft.session) and len(draft.bits) == len(draft.text)


def test_an_edit_reads_only_what_changed(models, monkeypatch):
    model = models["char"]
    draft = Draft(model).with_text("The sea was calm. " * 100)
    read = []
    original = type(draft.session).read
    monkeypatch.setattr(type(draft.session), "read", lambda s, text: read.append(text) or original(s, text))
    assert draft.with_text(draft.text[:-3] + "new").text.endswith("new")
    assert read == ["new"]


@pytest.mark.parametrize("text", ["The sea ", "The sea", "The sea \n", "The  ", " ", ""])
@pytest.mark.parametrize("kind", KINDS)
def test_a_draft_is_continued_as_a_prompt(models, kind, text):
    first = models[kind].generate(text, seed=3, max_new_tokens=1)[0].text
    for stop in ("sea", f" {first.strip()}"):  # what could be the stop string is held back
        draft = Draft(models[kind]).with_text(text)
        expected = models[kind].generate(text, seed=3, max_new_tokens=8, stop=stop)[0].text
        list(draft.write(seed=3, max_new_tokens=8, stop=stop))
        assert draft.text == text + printable(expected)
        assert len(draft.bits) == len(draft.text) and len(draft.starts) == len(draft.session)


def test_a_word_chosen_after_a_space_follows_it(models):
    draft, token = Draft(models["word"]).with_text("The sea "), models["word"].encode("was")[0]
    for text in ("The sea", "The sea "):
        assert draft.with_text(text).with_token(len(text), token).text == "The sea was"
