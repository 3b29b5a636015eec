"""Streams and samples of a LanguageModel: prompts, seeds, stop strings, beams."""

import pytest
import torch

from lm.config.schema import ModelConfig
from lm.console.escaping import printable
from lm.errors import UserError
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import train_tokenizer
from tests.language_model.conftest import streamed


def test_the_same_seed_gives_the_same_text(model):
    assert streamed(model, "the", seed=3) == streamed(model, "the", seed=3)
    assert streamed(model, "the", seed=3) != streamed(model, "the", seed=4)
    assert streamed(model, "the") != streamed(model, "the")


def test_samples_of_a_batch_equal_single_streams(model):
    samples = model.generate("the ", num_samples=11, max_new_tokens=60, seed=5)
    for i in (0, 10):
        assert samples[i].text == streamed(model, "the ", max_new_tokens=60, seed=5 + i)
        assert samples[i].seed == 5 + i
        assert len(samples[i].tokens) == len(samples[i].logprobs) <= 60


def test_a_text_can_be_continued_in_two_calls(model):
    """Continuing a generated text gives what the model would have generated at once."""
    first = streamed(model, "the", max_new_tokens=30, greedy=True)
    assert streamed(model, "the" + first, max_new_tokens=30, greedy=True)
    pieces = list(model.stream("the", max_new_tokens=31, greedy=True))
    text = "".join(piece.text for piece in pieces[:30])
    if model.tokenizer.encode("the" + text).tolist()[-30:] == [p.token for p in pieces[:30]]:
        (next_piece,) = model.stream("the" + text, max_new_tokens=1, greedy=True)
        assert next_piece.token == pieces[30].token


def test_alternatives_come_with_each_piece(model):
    for piece in model.stream("the", max_new_tokens=5, seed=1, alternatives=3):
        assert len(piece.alternatives) == 3
        assert piece.alternatives[0][1] >= piece.alternatives[1][1] >= piece.alternatives[2][1]


def test_a_single_string_is_a_list_of_one(model):
    text = streamed(model, "the", max_new_tokens=60, seed=1)
    stop = text[1:3]
    assert len(stop) == 2
    assert streamed(model, "the", max_new_tokens=60, seed=1, stop=stop) == text.split(stop)[0]
    assert streamed(model, "the", choices="calm", max_new_tokens=60) == "calm"


def test_negative_seeds_are_seeds_of_their_own(model):
    one, other = (model.generate("the", seed=seed, max_new_tokens=30)[0] for seed in (1, -1))
    assert one.text != other.text
    assert other.seed == 2**64 - 1
    assert model.generate("the", seed=other.seed, max_new_tokens=30)[0].text == other.text


def test_the_seed_after_the_last_is_zero(model):
    samples = model.generate("the", num_samples=3, seed=-2, max_new_tokens=30)
    assert [sample.seed for sample in samples] == [2**64 - 2, 2**64 - 1, 0]
    for sample in samples:
        assert sample.text == streamed(model, "the", seed=sample.seed, max_new_tokens=30)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("limit", [{"presence_penalty": 1000.0}, {"no_repeat_ngram": 1}])
def test_the_token_that_precedes_every_text_is_not_repeated_by_it(direction, limit):
    tokenizer = train_tokenizer("char", iter(["the sea was calm.\n"]))
    network = RecurrentLM(ModelConfig(hidden_size=8, direction=direction), tokenizer.vocab_size)
    model = LanguageModel(network, tokenizer, {"trained_on": {"documents": 1}})
    settings = {"logit_bias": {model.start_token: 100.0}, "max_new_tokens": 1, **limit}
    assert model.generate(**settings)[0].text == "\n"
    assert model.generate("\n", **settings)[0].text != "\n"
    if "no_repeat_ngram" in limit:
        assert model.generate(beams=2, **settings)[0].text == "\n"
        assert model.generate("\n", beams=2, **settings)[0].text != "\n"
    if direction == "forward":
        session = model.session()
        texts = ["".join(piece.text for piece in session.sample(**settings)) for _ in range(2)]
        assert texts[0] == "\n" != texts[1]


def test_a_model_of_one_document_starts_at_a_line_break_and_never_ends():
    tokenizer = train_tokenizer("char", iter(["ab\n"]))
    torch.manual_seed(0)
    network = RecurrentLM(ModelConfig(hidden_size=4, layers=1), tokenizer.vocab_size)
    one = LanguageModel(network, tokenizer, {"trained_on": {"documents": 1}})
    many = LanguageModel(network, tokenizer, {"trained_on": {"documents": 2}})
    pieces = list(one.stream(max_new_tokens=200, temperature=3.0, seed=1))
    assert len(pieces) == 200
    assert tokenizer.eos not in {piece.token for piece in pieces}
    assert len(list(many.stream(max_new_tokens=200, temperature=3.0, seed=1))) < 200


def test_settings_of_a_beam_search_may_be_text(model):
    written = model.generate("the", beams="3", length_penalty="0.5", max_new_tokens=5)
    assert written == model.generate("the", beams=3, length_penalty=0.5, max_new_tokens=5)
    with pytest.raises(UserError, match="--beams must be an integer, got 'many'"):
        model.generate("the", beams="many")


def test_a_stream_prints_itself_as_it_is_generated_in_a_notebook(model, capsys):
    """The last line of a cell is displayed by this method."""
    model.stream(iter(model.encode("the")), seed=3, max_new_tokens=30)._ipython_display_()
    assert capsys.readouterr().out == printable("the" + streamed(model, "the", seed=3, max_new_tokens=30))
    stream = model.stream("the", seed=3)
    next(stream)
    stream.close()
    assert list(stream) == []
