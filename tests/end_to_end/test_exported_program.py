"""The programs of pages that `lm export` writes: in a browser, they read and write what the model does."""

import json
import random
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer as Backend

import lm
from lm.config.schema import ModelConfig
from lm.export import export
from lm.generation.samplers import top_p
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.tokenizer import Tokenizer
from lm.tokenization.vocabulary import train_tokenizer
from tests.conftest import some_text
from tests.end_to_end.exported import Program, model_in

pytestmark = pytest.mark.browser

# Other scripts, whitespace of many kinds, contractions, and names of special tokens.
STRANGE = (
    " \t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u1680\u180e\u2003\u2028\u3000\ufeff\u200d\u0301\x00"
    "'sdtmrvel.,!?_-<eos>unkaZéßДжא\u0627ل日本语ひ한ไ\u0e31²½Ⅷ٣१😀🇩🇪\U0001f469\U000e0041\U0010ffff"
)
TRAINING_TEXT = (
    some_text(3000) + STRANGE * 3 + "\nI don't know; we'll see, they've 123 boats.\n  aaaa ----\n" * 20
)
# Every cell, tokenizer and direction; tied, projected, residual and of sizes that fill no vector register.
MODELS = {
    "char": {"cell": "rnn", "hidden_size": 50, "embedding_size": 7, "layers": 1},
    "byte": {
        "cell": "gru",
        "hidden_size": 33,
        "embedding_size": 12,
        "tie": True,
        "layers": 2,
        "residual": False,
    },
    "bpe": {"cell": "lstm", "hidden_size": 24, "tie": True, "layers": 3},
    "unigram": {"cell": "gru", "hidden_size": 40, "embedding_size": 16, "layers": 1},
    "word": {"cell": "lstm", "hidden_size": 20, "embedding_size": 9, "layers": 2},
}


@pytest.fixture(scope="module")
def tab(offline):
    """An empty tab, in which programs run one after the other."""
    tab = offline.new_page()
    tab.set_default_timeout(30_000)
    yield tab
    tab.close()


@pytest.fixture(scope="module")
def pretrained():
    return lm.load("pretrained", device="cpu")


def exported(model: LanguageModel, folder: Path, precision: str = "auto") -> str:
    export(model, folder / "boat.html", precision)
    return (folder / "boat.html").read_text(encoding="utf-8")


def small_model(kind: str, direction: str = "forward") -> LanguageModel:
    torch.manual_seed(1)
    tokenizer = train_tokenizer(kind, [TRAINING_TEXT], 400)
    network = RecurrentLM(ModelConfig(direction=direction, **MODELS[kind]), tokenizer.vocab_size)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "bias" in name:
                weight += 0.3 * torch.randn_like(weight)
        network.decoder.weight *= 4  # as certain as a trained model
        if tokenizer.unk is not None:
            network.decoder.bias[tokenizer.unk] += 9  # which the model must not write
    return LanguageModel(network.eval(), tokenizer)


def strange_texts(count: int) -> list[str]:
    choose = random.Random(3)
    texts = ["", " ", "\n", "<eos>", "<unk>", "\r\n", TRAINING_TEXT]
    for _ in range(count):
        start, length = choose.randrange(len(TRAINING_TEXT)), choose.randrange(80)
        texts.append(TRAINING_TEXT[start : start + length])
        texts.append("".join(choose.choices(STRANGE, k=choose.randrange(30))))
        texts.append("".join(choose.choices(["<eos>", " ", "\n", "sea", "don't", "  ", "\r\n", "日本"], k=9)))
        texts.append(choose.choice(" ae-9日") * choose.randrange(9))
        # Any character but half ones.
        codes = [choose.randrange(choose.choice([0x300, 0x3000, 0x10F800])) for _ in range(20)]
        texts.append("".join(chr(code if code < 0xD800 else code + 0x800) for code in codes))
    return texts


@pytest.mark.parametrize("kind", MODELS)
def test_prompts_become_the_tokens_that_the_model_encodes(tab, tmp_path, kind):
    model = small_model(kind)
    texts = strange_texts(250)
    program = Program(tab, exported(model, tmp_path))
    answers = program.encode(texts)
    for text, answer in zip(texts, answers, strict=True):
        assert answer["tokens"] == model.encode(text), text
        assert answer["unknown"] == model.tokenizer.unknown_in(text), text
    assert program.loaded["labels"] == [
        model.tokenizer.token_name(token).removeprefix("bytes:")
        for token in range(model.tokenizer.vocab_size)
    ]


def test_pieces_of_equal_scores_are_chosen_as_the_model_chooses_them(tab, tmp_path):
    tokenizer = train_tokenizer("unigram", [TRAINING_TEXT], 400)
    spec = json.loads(tokenizer.backend.to_str())
    for piece in spec["model"]["vocab"]:
        piece[1] = -1.0
    tokenizer = Tokenizer(Backend.from_str(json.dumps(spec)))
    config = ModelConfig(hidden_size=4, embedding_size=4, layers=1)
    model = LanguageModel(RecurrentLM(config, tokenizer.vocab_size), tokenizer)
    texts = strange_texts(50)
    answers = Program(tab, exported(model, tmp_path)).encode(texts)
    assert [answer["tokens"] for answer in answers] == [model.encode(text) for text in texts]


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("kind", MODELS)
def test_the_most_likely_text_is_that_of_the_model(tab, tmp_path, kind, direction):
    model = small_model(kind, direction)
    html = exported(model, tmp_path)
    rounded = model_in(html, model)
    for prompt, simd in (("The sea ", True), ("light", False)):
        (expected,) = rounded.generate(prompt, greedy=True, max_new_tokens=300)
        program = Program(tab, html, simd)
        assert program.loaded["simd"] == simd
        written = program.write(prompt, length=300)
        assert rounded.direction.reorder([token["token"] for token in written]) == expected.tokens
        assert "".join(rounded.direction.reorder([token["text"] for token in written])) == expected.text
        logprobs = rounded.direction.reorder([token["logprob"] for token in written])
        assert logprobs == pytest.approx(expected.logprobs, abs=1e-4)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("kind", MODELS)
def test_random_tokens_are_decoded_as_the_model_decodes_them(tab, tmp_path, kind, direction):
    model = small_model(kind, direction)
    program = Program(tab, exported(model, tmp_path))
    choose = random.Random(4)
    for prompt in ("", "The sea", "The\n", "日本", "<eos>"):
        # The model has hardly any say: partial characters and line ends occur at any place.
        given = [choose.randrange(model.tokenizer.vocab_size) for _ in range(150)]
        written = program.write(prompt, given=given, length=150)
        tokens = [token["token"] for token in written]
        detokenizer = model.generator.detokenizer(prompt, model.encode(prompt))
        text = "".join(detokenizer.add(token, last=token == tokens[-1]) for token in tokens)
        assert "".join(model.direction.reorder([t["text"] for t in written])) == text + detokenizer.rest()


def test_the_shipped_model_writes_the_same_in_float32_and_in_the_default_precision(tab, tmp_path, pretrained):
    html = exported(pretrained, tmp_path)
    assert len(html.encode()) < 3_000_000
    program = Program(tab, html)
    for prompt in ("", "def read(self, ", "import os\n", "class Reader:\n    "):
        (expected,) = pretrained.generate(prompt, greedy=True, max_new_tokens=400)
        assert "".join(token["text"] for token in program.write(prompt, length=400)) == expected.text


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_other_precisions_write_what_their_rounded_weights_do(tab, tmp_path, pretrained, precision):
    html = exported(pretrained, tmp_path, precision)
    (expected,) = model_in(html, pretrained).generate("def ", greedy=True, max_new_tokens=300)
    assert "".join(token["text"] for token in Program(tab, html).write("def ", length=300)) == expected.text


@pytest.mark.parametrize(("temperature", "share"), [(1.3, 0.6), (0.6, 0.8)])
def test_sampled_tokens_are_among_the_most_likely_and_a_seed_repeats_them(
    tab, tmp_path, pretrained, temperature, share
):
    html = exported(pretrained, tmp_path)
    program, model = Program(tab, html), model_in(html, pretrained)
    settings = {"length": 300, "temperature": temperature, "topP": share}
    written = program.write("def ", seed=5, **settings)
    assert written == program.write("def ", seed=5, **settings) != program.write("def ", seed=6, **settings)
    tokens = [token["token"] for token in written]
    prompt = [model.start_token, *model.encode("def ")]
    with torch.no_grad():
        logits = model.network(torch.tensor([prompt + tokens]))[0][0, len(prompt) - 1 : -1]
    allowed = logits.clone()
    allowed[:, model.generator.suppressed_tokens] = -torch.inf
    allowed = top_p(allowed / temperature, share).isfinite()
    assert all(allowed[range(300), tokens])
    # The least likely of several allowed tokens is chosen, too, but less often.
    several = allowed.sum(dim=1) > 1
    least = logits.masked_fill(~allowed, torch.inf).argmin(dim=1) == torch.tensor(tokens)
    assert 0.05 < least[several].float().mean() < 0.4
    best = logits.log_softmax(dim=1).topk(8)
    for token, ids, logprobs in zip(written, best.indices.tolist(), best.values.tolist(), strict=True):
        assert token["alternatives"] == ids
        assert token["logprobs"] == pytest.approx(logprobs, abs=1e-3)
