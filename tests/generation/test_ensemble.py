"""Several models that generate as one."""

import pytest
import torch

from lm.config.schema import ModelConfig
from lm.errors import ModelError, UserError
from lm.generation.decoder import NetworkDecoder
from lm.generation.ensemble import Ensemble
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.session import Session
from lm.tokenization.vocabulary import train_tokenizer
from tests.generation.streams import network_of


def test_probabilities_are_the_weighted_mean():
    networks = [network_of("lstm", seed=1), network_of("gru", layers=1, seed=2), network_of("rnn", seed=3)]
    weights = [0.5, 0.3, 0.2]
    ensemble = Ensemble([NetworkDecoder(network) for network in networks], weights)
    tokens = torch.randint(0, 13, (2, 9), generator=torch.Generator().manual_seed(0))
    batch = ensemble.batch()
    for row in tokens:
        batch.add(ensemble.prefill(row[:4], ensemble.initial_state()))
    for i in range(4, 9):
        logits = batch.step(tokens[:, i].contiguous())
        with torch.no_grad():
            each = [n(tokens[:, : i + 1])[0][:, -1].softmax(-1) for n in networks]
        mean = sum(weight * p for weight, p in zip(weights, each, strict=True))
        torch.testing.assert_close(logits.softmax(dim=-1), mean, atol=1e-5, rtol=1e-4)
    expected = batch.state(1)
    batch.remove(0)
    assert batch.count == 1
    assert all(map(torch.equal, batch.state(0), expected))
    batch.select([0, 0])
    assert batch.count == 2


FACTS = {"trained_on": {"documents": 1}}  # texts never end early


def model(text="abc\n", seed=0):
    torch.manual_seed(seed)
    tokenizer = train_tokenizer("char", iter([text]))
    return LanguageModel(RecurrentLM(ModelConfig(hidden_size=8), tokenizer.vocab_size), tokenizer, FACTS)


def test_mixed_models_generate_like_one_model():
    first, second = model(seed=1), model(seed=2)
    mixed = first.mixed_with([(second, 0.4)])
    text = mixed.generate("ab", seed=1, max_new_tokens=50)[0].text
    assert text == mixed.generate("ab", seed=1, max_new_tokens=50)[0].text
    assert text not in (m.generate("ab", seed=1, max_new_tokens=50)[0].text for m in (first, second))
    # A model mixed with itself does not change.
    for penalty in (1.0, 2.0):
        settings = {"seed": 1, "max_new_tokens": 50, "repetition_penalty": penalty}
        same = first.mixed_with([(first, 0.5)]).generate("ab", **settings)[0].text
        assert same == first.generate("ab", **settings)[0].text


def test_an_ensemble_has_sessions_but_cannot_score_or_be_saved(tmp_path):
    mixed = model(seed=1).mixed_with([(model(seed=2), 0.4)])
    session = mixed.session()
    session.feed("ab")
    session.save(tmp_path / "s")
    assert Session.load(mixed, tmp_path / "s").next(3) == session.next(3)
    for other in (model(seed=1), model(seed=1).mixed_with([(model(seed=2), 0.5)])):
        with pytest.raises(ModelError, match="another model"):
            Session.load(other, tmp_path / "s")
    with pytest.raises(UserError, match="an ensemble can only generate, not score"):
        mixed.score("ab")
    with pytest.raises(UserError, match="an ensemble can only generate, not be saved"):
        mixed.save(tmp_path / "m")


def test_models_that_cannot_be_mixed_are_reported():
    with pytest.raises(UserError, match="the same vocabulary"):
        model().mixed_with([(model("xyz"), 0.5)])
    for weight in (0, 1, -0.5):
        with pytest.raises(UserError, match="weights"):
            model().mixed_with([(model(), weight)])
