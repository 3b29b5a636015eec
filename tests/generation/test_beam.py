"""Beam search against exhaustive search."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer as Backend, decoders, models

from lm.config.schema import ModelConfig
from lm.errors import UserError
from lm.generation.beam import beam_search
from lm.generation.constraints import Banned, NoRepeat, OneOf, Vocabulary
from lm.generation.decoder import NetworkDecoder
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.tokenizer import Tokenizer
from lm.tokenization.vocabulary import train_tokenizer
from tests.generation.streams import LogitsOfGPU, network_of
from tests.model import recorded


def all_texts(network, prompt, length, end, suppressed, penalty):
    """Every text of up to `length` tokens with its score."""
    texts = {}
    tokens = [t for t in range(13) if t not in suppressed]
    for size in range(1, length + 1):
        for text in itertools.product(tokens, repeat=size):
            if end in text[:-1] or (size < length and text[-1] != end):
                continue
            with torch.no_grad():
                logprobs = network(torch.tensor([[*prompt, *text]]))[0][0].log_softmax(-1)
            positions = range(len(prompt) - 1, len(prompt) - 1 + size)
            total = sum(logprobs[i, token].item() for i, token in zip(positions, text, strict=True))
            texts[text] = total / size**penalty
    return texts


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_a_wide_search_finds_the_best_of_all_texts(cell, penalty):
    network, prompt, end, suppressed = network_of(cell), [1, 2], 3, [0, *range(6, 13)]
    texts = all_texts(network, prompt, 3, end, suppressed, penalty)
    best = sorted(texts, key=lambda text: -texts[text])[:4]
    found = beam_search(
        NetworkDecoder(network), prompt, 40, 3, length_penalty=penalty, end=end, suppressed=suppressed
    )  # as many beams as partial texts
    assert [tuple(one.tokens) for one in found[:4]] == best
    for one in found:
        assert one.score == pytest.approx(texts[tuple(one.tokens)], abs=1e-4)
        assert sum(one.logprobs) / len(one.tokens) ** penalty == pytest.approx(one.score, abs=1e-4)


def plain_search(network, prompt, beams, limit, end, penalty):
    """Beam search without a batch, a bound or early stopping."""
    alive, finished = [([], 0.0)], []
    for size in range(1, limit + 1):
        longer = []
        for text, total in alive:
            with torch.no_grad():
                logprobs = network(torch.tensor([[*prompt, *text]]))[0][0, -1].log_softmax(-1).tolist()
            longer += [([*text, token], total + logprob) for token, logprob in enumerate(logprobs)]
        longer.sort(key=lambda one: -one[1])
        alive = []
        for text, total in longer[: 2 * beams]:
            if len(alive) == beams:
                break
            if text[-1] == end or size == limit:
                finished.append((total / size**penalty, text))
            else:
                alive.append((text, total))
    return [text for _, text in sorted(finished, key=lambda one: -one[0])[:beams]]


@pytest.mark.slow
@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.5])
@pytest.mark.parametrize("beams", [1, 2, 3, 5])
def test_a_narrow_search_keeps_as_many_partial_texts_as_it_has_beams(beams, penalty):
    for seed in range(4):
        network = network_of("gru", seed=seed)
        network.decoder.bias.data[3] += 1.5  # so that texts often end early
        found = beam_search(NetworkDecoder(network), [1], beams, 6, length_penalty=penalty, end=3)
        assert [one.tokens for one in found] == plain_search(network, [1], beams, 6, 3, penalty)


def allowed_texts(network, prompt, allowed, complete, limit):
    """Every allowed text with its score; a `complete` text can also end early."""
    texts = {}

    def extend(text, total):
        with torch.no_grad():
            logprobs = network(torch.tensor([[*prompt, *text]]))[0][0, -1].log_softmax(-1).tolist()
        possible = [token for token in range(13) if allowed((*text, token))]
        if complete(text):
            others = sum(math.exp(logprobs[token]) for token in range(13) if token not in possible)
            texts[text] = (total + math.log(others)) / max(len(text), 1)
        for token in possible:
            longer = (*text, token)
            if len(longer) == limit:
                texts[longer] = (total + logprobs[token]) / limit
            else:
                extend(longer, total + logprobs[token])

    extend((), 0.0)
    return texts


LETTERS = Vocabulary([bytes([97 + token]) for token in range(13)])  # a to m


def test_a_search_finds_the_best_of_the_choices():
    network = network_of("gru")
    choices = [b"abc", b"ab", b"kk", b"", b"cdefg"]
    texts = allowed_texts(
        network,
        [1, 2],
        allowed=lambda text: any(choice.startswith(bytes(97 + t for t in text)) for choice in choices),
        complete=lambda text: bytes(97 + t for t in text) in choices,
        limit=4,
    )
    found = beam_search(NetworkDecoder(network), [1, 2], 40, 4, constraints=[OneOf(LETTERS, choices)])
    assert [tuple(one.tokens) for one in found] == sorted(texts, key=lambda text: -texts[text])
    assert [one.score for one in found] == pytest.approx(sorted(texts.values(), reverse=True), abs=1e-4)


def test_each_text_of_a_search_has_its_own_constraints():
    network, banned, no_repeat = network_of("lstm"), Banned(LETTERS, [b"ca", b"k"]), NoRepeat(13, 2, [1, 2])

    def allowed(text):
        letters, bigrams = bytes(97 + t for t in text), list(itertools.pairwise([1, 2, *text]))
        return b"ca" not in letters and b"k" not in letters and len(set(bigrams)) == len(bigrams)

    texts = allowed_texts(network, [1, 2], allowed, lambda text: False, 3)
    found = beam_search(NetworkDecoder(network), [1, 2], 150, 3, constraints=[banned, no_repeat])
    best = sorted(texts, key=lambda text: -texts[text])[:20]
    assert [tuple(one.tokens) for one in found[:20]] == best


def test_a_search_applies_the_logit_bias():
    decoder = NetworkDecoder(network_of("gru"))
    (always,) = beam_search(decoder, [4], 1, 5, bias={7: 100.0})
    assert always.tokens == [7] * 5 and always.score == pytest.approx(0.0)
    assert sum(always.logprobs) < -1.0  # the model itself finds it less likely
    assert beam_search(decoder, [4], 1, 5, bias={7: Fraction(100)}) == [always]
    with pytest.raises(UserError, match="logit bias"):
        beam_search(decoder, [4], 1, 5, bias={13: 1.0})


def test_a_search_on_a_gpu_finds_the_same_texts(monkeypatch):
    monkeypatch.setattr("lm.model.cuda_graph.capture", recorded.record)
    network = network_of("lstm")
    expected, found = (
        beam_search(kind(network), [1, 2], 4, 6, end=3, suppressed=[0], bias={5: 1.0})
        for kind in (NetworkDecoder, LogitsOfGPU)
    )
    assert [one.tokens for one in found] == [one.tokens for one in expected]


def test_a_search_without_any_allowed_text_is_an_error():
    with pytest.raises(UserError, match="no token is allowed after the first 0"):
        beam_search(NetworkDecoder(network_of("gru")), [4], 3, 5, constraints=[OneOf(LETTERS, [b"xyz"])])


def test_a_search_in_which_the_bias_excludes_every_token_is_an_error():
    bias = dict.fromkeys(range(13), -math.inf)
    with pytest.raises(UserError, match="no token is allowed after the first 0"):
        beam_search(NetworkDecoder(network_of("gru")), [4], 3, 5, bias=bias)


def test_one_beam_is_greedy_and_more_are_no_worse():
    network = network_of("gru")
    tokens = [4]
    for _ in range(12):
        tokens.append(int(network(torch.tensor([tokens]))[0][0, -1].argmax()))
    (greedy,) = beam_search(NetworkDecoder(network), [4], 1, 12)
    assert greedy.tokens == tokens[1:]
    assert beam_search(NetworkDecoder(network), [4], 6, 12)[0].score >= greedy.score


KEPT = {  # tokenizer -> the text that its vocabulary is trained on, and a few of its tokens, to search in
    "char": ("abc. ", ["a", "b", ".", " ", "<eos>"]),
    "byte": ("é.è ", ["Ã", "©", "¨", ".", "<eos>"]),
    "bpe": ("ab ab. ab. b.a ", ["a", "b", ".", "ab", "Ġab", "<eos>"]),
    "unigram": ("ab ab. ab. b.a ", ["a", "b", ".", "ab", "Ġab", "<eos>"]),
    "word": ("ab b. a .a ", ["ab", "b.", "a", ".a", "<eos>"]),
    "sentencepiece": ("", ["▁", "▁ab", "a", "b", "."]),
}


def sentence_piece(tokens):
    """An existing tokenizer like Llama's, of which each text starts without a space."""
    names = {name: i for i, name in enumerate(["<eos>", *tokens])}
    backend = Backend(models.BPE(names, [], byte_fallback=True))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return Tokenizer(backend)


def tiny_model(kind, direction="forward", documents=2):
    """A model whose texts consist of a few tokens."""
    torch.manual_seed(3)
    text, kept = KEPT[kind]
    tokenizer = train_tokenizer(kind, iter([text * 20]), 300) if text else sentence_piece(kept)
    network = RecurrentLM(ModelConfig(cell="gru", hidden_size=8, direction=direction), tokenizer.vocab_size)
    for weight in network.parameters():
        weight.data *= 3
    model = LanguageModel(network, tokenizer, {"trained_on": {"documents": documents}})
    names = tokenizer.backend.get_vocab()
    assert len(names.keys() & set(kept)) >= 4, sorted(names)
    tokens = [names[name] for name in kept if name in names]
    model.generator.suppressed_tokens = [t for t in range(tokenizer.vocab_size) if t not in tokens]
    return model, tokens


def texts_up_to_stops(model, tokens, prompt, limit, stop):
    """Every text with (logprob, tokens) of each sequence of tokens that writes it."""
    generator = model.generator
    encoded = generator.encode(prompt)
    found = {}

    def extend(sequence, total, row):
        for token in tokens:
            longer, logprob = [*sequence, token], total + row[token]
            detokenizer, text = generator.detokenizer(prompt, encoded, stop), ""
            for count, each in enumerate(longer, start=1):
                text += detokenizer.add(each, last=count == limit)
            if detokenizer.ended:
                found.setdefault(text + detokenizer.rest(), []).append((logprob, len(longer)))
            else:
                extend(longer, logprob, logprobs_after(longer))

    def logprobs_after(sequence):
        with torch.no_grad():
            read = torch.tensor([[generator.start_token, *model.direction.reorder(encoded), *sequence]])
            return model.network(read)[0][0, -1].log_softmax(-1).tolist()

    extend([], 0.0, logprobs_after([]))
    return found


STOPS = [[], ["."], [".", " "], ["b.", ".a"], ["aab"], [" ab", "b"], ["é", "è"], ["ab a"]]


@pytest.mark.slow
@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("kind", KEPT)
def test_a_wide_search_finds_the_most_likely_texts_up_to_the_stop(kind, stop):
    """Whatever tokens write them, and whatever ends them."""
    for direction, prompt, penalty in (("forward", "a", 1.0), ("backward", "b", -0.5), ("forward", "", 0.0)):
        if kind in ("word", "sentencepiece") and direction == "backward":
            continue  # its spaces depend on the words around them
        model, tokens = tiny_model(kind, direction)
        scores = {
            text: np.logaddexp.reduce([logprob for logprob, _ in ways]) / max(ways)[1] ** penalty
            for text, ways in texts_up_to_stops(model, tokens, prompt, 3, stop).items()
        }
        texts = model.generate(
            prompt, beams=2000, num_samples=2000, stop=stop, length_penalty=penalty, max_new_tokens=3
        )
        assert {one.text for one in texts} == scores.keys()
        in_order = [scores[one.text] for one in texts]
        assert in_order == pytest.approx(sorted(in_order, reverse=True), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("kind", KEPT)
def test_a_narrow_search_returns_different_texts_without_a_stop_string(kind, stop):
    model, _ = tiny_model(kind)
    for beams, count in ((2, 2), (4, 3), (3, 8)):
        found = model.generate("a", beams=beams, num_samples=count, stop=stop, max_new_tokens=12)
        texts = [one.text for one in found]
        assert 1 <= len(texts) == len(set(texts)) <= count
        assert not any(string in text for string in stop for text in texts)


def test_the_stop_string_is_part_of_the_tokens_but_not_of_the_text():
    model, _ = tiny_model("char", documents=1)
    for one in model.generate("a", beams=8, num_samples=4, stop=["b"], max_new_tokens=12):
        decoded = model.tokenizer.decode(one.tokens)
        assert decoded == one.text + ("b" if len(one.tokens) < 12 else decoded[len(one.text) :])
        assert len(one.tokens) == len(one.logprobs)
