"""A LanguageModel that reads right to left."""

import re

import pytest
import torch

import lm


@pytest.mark.slow
def test_a_backward_model_generates_what_leads_up_to_the_prompt(backward):
    """The log-probabilities of its tokens are those of scoring the whole text."""
    encode = backward.tokenizer.encode
    for seed, prompt in enumerate(["the sea", "中文 calm.", ""] * 3):
        (sample,) = backward.generate(prompt, max_new_tokens=12, seed=seed)
        tokens = [token for token in sample.tokens if token != backward.tokenizer.end]
        whole = backward.tokenizer.decode([*tokens, *encode(prompt).tolist()])
        assert sample.text + prompt == whole
        if encode(whole).tolist() == [*tokens, *encode(prompt).tolist()] and tokens == sample.tokens:
            logprobs = [score.logprob for score in backward.score(whole)[: len(tokens)]]
            assert logprobs == pytest.approx(sample.logprobs, abs=1e-4)
    assert backward.generate("sea", num_samples=3, seed=4)[1] == backward.generate("sea", seed=5)[0]


def test_scores_of_a_backward_model_are_in_text_order(backward):
    scores = backward.score("the sea was")
    assert [score.token for score in scores] == backward.tokenizer.encode("the sea was").tolist()
    mirrored = [backward.start_token, *(score.token for score in reversed(scores))]
    logits, _ = backward.network(torch.tensor([mirrored[:-1]]))
    logprobs = logits[0].log_softmax(-1)[range(len(scores)), mirrored[1:]].tolist()
    assert [score.logprob for score in reversed(scores)] == pytest.approx(logprobs, abs=1e-4)


def test_a_backward_text_starts_after_a_stop_string(backward):
    options = {"max_new_tokens": 300, "seed": 2, "temperature": 1.5}
    (whole,) = backward.generate("calm.", **options)
    found = re.findall("[a-z]{1,2}", whole.text)
    stop = found[len(found) // 2]
    (stopped,) = backward.generate("calm.", stop=[stop, "@@"], **options)
    assert stopped.text == whole.text.rpartition(stop)[2]
    assert len(stopped.tokens) < len(whole.tokens)


@pytest.mark.slow
def test_choices_and_bans_apply_to_a_backward_model(backward):
    choices = ["the sea", "calm.", "naïve"] if backward.tokenizer.kind == "word" else ["the s", "ca", "naï"]
    texts = {backward.generate("was", seed=s, choices=choices)[0].text.strip() for s in range(12)}
    assert len(texts) > 1 and texts <= set(choices)
    options = {"max_new_tokens": 80, "seed": 3, "temperature": 1.5}
    (free,) = backward.generate("sea was", **options)
    letter = max(filter(str.isalpha, free.text), key=free.text.count)
    (text,) = backward.generate("sea was", ban=[letter, "e s"], **options)
    assert letter in free.text and letter not in text.text
    assert "e s" not in text.text + "sea"
    (best,) = backward.generate("was", beams=8, choices=choices)
    assert best.text.strip() in choices


def test_a_backward_model_cannot_continue_a_text(backward):
    with pytest.raises(lm.UserError, match="reads right to left"):
        backward.stream("the")
    with pytest.raises(lm.UserError, match="reads right to left cannot match a pattern"):
        backward.generate("the", match="[a-z]+")
