"""`lm.score_texts`: many texts at once, each as `model.score` scores it alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

import lm
from lm.evaluation import text_losses as batched
from lm.insight.pairs import score_pairs
from lm.tokenization.vocabulary import KINDS
from tests.insight.networks import SHAPES, make
from tests.model.rounding import rows_are_independent

# Empty texts, unknown characters, line ends of Windows, and texts longer than a window.
TEXTS = ["the sea", "", "\r\nЖ был 中\r\n", "the sea was calm. " * 15, "a", " ", "<eos>", "boat"]


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    cell=st.sampled_from(["rnn", "gru", "lstm"]),
    kind=st.sampled_from(KINDS),
    implementation=st.sampled_from(["fused", "reference"]),
    shape=SHAPES,
    data=st.data(),
)
def test_each_text_has_the_scores_of_model_score(cell, kind, implementation, shape, data):
    # In float64: a network with random weights can be chaotic, and then it multiplies what float32 rounds.
    model = make(kind, cell, dtype=torch.float64, cell_implementation=implementation, **shape)
    texts = data.draw(st.permutations(TEXTS))
    for text, scored in zip(texts, lm.score_texts(model, texts), strict=True):
        alone = model.score(text)
        assert scored.token_texts == [score.text for score in alone]
        assert scored.logprobs == pytest.approx([score.logprob for score in alone], abs=1e-6)
        assert scored.bits.sum() == pytest.approx(-sum(s.logprob for s in alone) / np.log(2), abs=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not rows_are_independent(torch.float32), reason="products round differently")
@pytest.mark.parametrize(("units", "direction"), [(32, "forward"), (33, "forward"), (33, "backward")])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_other_texts_do_not_change_a_bit(cell, direction, units):
    model = make("char", cell, dtype=torch.float32, hidden_size=units, layers=2, direction=direction)
    texts = [text * (1 + number % 3) for number, text in enumerate(TEXTS * 5)]
    alone = {text: lm.score_texts(model, [text])[0] for text in set(texts)}
    for text, scored in zip(texts, lm.score_texts(model, texts), strict=True):
        assert np.array_equal(alone[text].losses, scored.losses)
    for text in TEXTS:
        assert [score.logprob for score in model.score(text)] == alone[text].logprobs.tolist()


def test_batches_and_progress(monkeypatch):
    model, fractions = make("char"), []
    together = lm.score_texts(model, TEXTS)
    monkeypatch.setattr(batched, "_ROWS", 3)
    apart = lm.score_texts(model, TEXTS, progress=fractions.append)
    assert [a.losses for a in apart] == [pytest.approx(t.losses) for t in together]
    assert fractions == sorted(fractions) and fractions[-1] == 1 and len(fractions) > 2


def test_empty_texts_have_empty_tables():
    model = make("bpe")
    assert lm.score_texts(model, []) == []
    first, second = lm.score_texts(model, ["", ""])
    assert len(first.tokens) == len(second.bits) == len(first.per_token()["token"]) == 0
    assert first.per_word()["word"] == []
    with pytest.raises(lm.UserError, match="the text is empty"):
        _ = first.metrics


def test_texts_may_come_from_an_iterator():
    model, texts = make("char"), ["the sea", "boat"]
    scored = lm.score_texts(model, iter(texts))
    assert [each.text for each in scored] == [b"the sea", b"boat"]
    assert [each.logprobs.tolist() for each in scored] == [
        each.logprobs.tolist() for each in lm.score_texts(model, texts)
    ]
    assert lm.evaluate(model, iter(texts)) == lm.evaluate(model, texts)
    pairs = score_pairs(model, iter(["the sea", "a boat"]), iter(["sea the", "boat a"]))
    assert [each.text for each in (*pairs.good, *pairs.bad)] == [
        b" the sea",
        b" a boat",
        b" sea the",
        b" boat a",
    ]


def test_no_pairs_have_no_accuracy():
    model = make("char")
    for scored, chosen in (
        (score_pairs(model, [], []), None),
        (score_pairs(model, ["the"], ["sea"]), np.zeros(1, bool)),
    ):
        with pytest.raises(lm.UserError, match="no pairs to compute an accuracy from"):
            _ = scored.accuracy(chosen).estimate


def test_half_of_a_character_is_a_question_mark():
    model = make("char")
    (scored,) = lm.score_texts(model, ["a\udcffb\ud800"])
    assert scored.text == b"a?b?"
    assert scored.tokens.tolist() == model.tokenizer.encode("a?b?").tolist()
    assert scored.per_token()["document"].tolist() == [1] * 4


def test_a_single_text_is_no_list():
    for wrong in ("the sea", {"the": "sea"}, [1], ["a", b"b"]):
        with pytest.raises(lm.UserError, match=r"a list of texts"):
            lm.score_texts(make("char"), wrong)
        with pytest.raises(lm.UserError, match=r"two lists of sentences"):
            score_pairs(make("char"), wrong, wrong)


@pytest.mark.gpu
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_scores_on_a_gpu(cell):
    model = make("char", cell, dtype=torch.float32, hidden_size=32, layers=2)
    with torch.no_grad():
        for weight in model.network.recurrent.parameters():
            weight.mul_(0.2)  # with larger weights, the network can be chaotic and multiply what is rounded
    expected = lm.score_texts(model, TEXTS)
    on_gpu = lm.LanguageModel(model.network.to("cuda"), model.tokenizer)
    for text, scored in zip(expected, lm.score_texts(on_gpu, TEXTS), strict=True):
        assert scored.losses == pytest.approx(text.losses, abs=1e-3)
