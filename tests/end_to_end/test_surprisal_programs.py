"""minicons and surprisal, which measure surprisal with transformers: the numbers of `model.score`."""

import math
import random

import pytest
import torch

from lm.evaluation.scores import Score
from lm.insight.surprisal import score_texts
from lm.storage.model_folder import PRETRAINED
from tests.conftest import some_text
from tests.transformers.models import make

pytestmark = pytest.mark.lm_eval

TEXTS = ["The sea was calm.", "A boat <eos>", "naïve Ω"]


@pytest.fixture(scope="module", params=["char", "bpe", "single", "pretrained"])
def model(request, tmp_path_factory):
    """A model, and the folder from which the programs load it."""
    import lm.transformers  # slow: not where every run of pytest reads it

    folder = tmp_path_factory.mktemp("model")
    if request.param == "pretrained":
        model = lm.load(PRETRAINED, device="cpu")
    elif request.param == "single":
        model = make(documents=1)
    else:
        model = make(request.param)
    model.save(folder)
    return model, folder


def logprobs(scores: list[Score]) -> list[float]:
    return [score.logprob for score in scores]


def test_minicons_returns_the_numbers_of_score(model):
    from minicons.scorer import IncrementalLMScorer

    model, folder = model
    scorer = IncrementalLMScorer(str(folder), "cpu")
    for text, found in zip(TEXTS, scorer.token_score(TEXTS, rank=True), strict=True):
        names, values, _ = zip(*found, strict=True)
        assert names[0] == "<eos>"
        assert values[1:] == pytest.approx(logprobs(model.score(text)), abs=1e-4)
    totals = scorer.sequence_score(TEXTS, reduction=lambda values: values.sum().item())
    assert totals == pytest.approx([sum(logprobs(model.score(text))) for text in TEXTS], abs=1e-3)


def test_minicons_agrees_on_200_sentences_to_four_decimals(model):
    from minicons.scorer import IncrementalLMScorer

    model, folder = model
    generator = random.Random(0)
    words = [*sorted(set(some_text(2000).split())), "naïve", "Ω", "<eos>", "x = f(y)", "1,000"]
    sentences = [" ".join(generator.choices(words, k=generator.randint(1, 12))) for _ in range(200)]
    scorer = IncrementalLMScorer(str(folder), "cpu")
    theirs = [
        found
        for first in range(0, 200, 40)
        for found in scorer.token_score(sentences[first : first + 40], surprisal=True, base_two=True)
    ]
    for ours, found in zip(score_texts(model, sentences), theirs, strict=True):
        values = [value for _, value in found][1:]  # without the <eos> before the text
        assert values == pytest.approx(ours.bits.tolist(), abs=5e-5, rel=0)


@pytest.mark.parametrize("use_bos_token", [True, False])
def test_surprisal_returns_the_numbers_of_score_without_its_padding(model, use_bos_token):
    """surprisal pads with <eos> and gives it no probability, which the other tokens then share."""
    from surprisal import AutoHuggingFaceModel

    model, folder = model
    program = AutoHuggingFaceModel.from_pretrained(str(folder), model_class="causal")
    for text, found in zip(TEXTS, program.surprise(TEXTS, use_bos_token=use_bos_token), strict=True):
        ids = torch.tensor([[model.start_token, *model.encode(text)]])
        with torch.no_grad():
            end = model.network(ids)[0][0].softmax(dim=-1)[:, model.tokenizer.eos].tolist()
        expected = [
            -score.logprob + math.log1p(-p) for score, p in zip(model.score(text), end[:-1], strict=True)
        ]
        values = found.surprisals[1 : len(expected) + 1]
        assert values == pytest.approx(expected, abs=1e-4)
        whole = found[0 : len(text), "char"]
        if model.tokenizer.kind == "char":
            assert float(whole) == pytest.approx(sum(expected), abs=1e-3)
