"""LanguageModel: streams, samples, scores; forward and backward."""

import copy
import math
import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

import lm
from lm.config.schema import ModelConfig
from lm.console.escaping import printable
from lm.errors import UserError
from lm.generation.detokenize import ForwardDetokenizer
from lm.insight.surprisal import score_text
from lm.insight.trace import trace_text
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import train_tokenizer

COPIED = ["bf16", "int8", "ensemble", "clamped"]


@pytest.fixture(scope="module", params=["char", "bpe"])
def model(request):
    torch.manual_seed(1)
    tokenizer = train_tokenizer(request.param, iter(["the sea was calm.\nnaïve 中文 " * 20]), 300)
    network = RecurrentLM(ModelConfig(cell="gru", hidden_size=24), tokenizer.vocab_size)
    return LanguageModel(network, tokenizer)


def streamed(model, *args, **options):
    return "".join(piece.text for piece in model.stream(*args, **options))


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


def test_logprobs_of_a_stream_equal_the_scores_of_its_text(model):
    pieces = list(model.stream("", max_new_tokens=40, seed=1))
    text = model.tokenizer.decode([p.token for p in pieces])
    if model.tokenizer.encode(text).tolist() == [p.token for p in pieces]:
        scores = model.score(text)
        assert [s.logprob for s in scores] == pytest.approx([p.logprob for p in pieces], abs=1e-4)


def test_scores(model):
    scores = model.score("the sea")
    assert [s.token for s in scores] == model.tokenizer.encode("the sea").tolist()
    for score in scores:
        assert score.logprob < 0
        assert 1 <= score.rank <= model.tokenizer.vocab_size
        assert 0 < score.entropy <= math.log(model.tokenizer.vocab_size) + 1e-6
    assert model.score("") == []


def test_alternatives_come_with_each_piece(model):
    for piece in model.stream("the", max_new_tokens=5, seed=1, alternatives=3):
        assert len(piece.alternatives) == 3
        assert piece.alternatives[0][1] >= piece.alternatives[1][1] >= piece.alternatives[2][1]


def test_unknown_characters():
    tokenizer = train_tokenizer("char", iter(["abc"]))
    model = LanguageModel(RecurrentLM(ModelConfig(hidden_size=4), tokenizer.vocab_size), tokenizer)
    with pytest.raises(lm.UserError, match="does not know '日'"):
        streamed(model, "a日", unknown="error")
    assert streamed(model, "a日b", unknown="skip", seed=1) == streamed(model, "ab", seed=1)
    assert [s.token for s in model.score("a日")][1] == tokenizer.unk
    assert "<unk>" not in streamed(model, "日", max_new_tokens=500, temperature=3.0, seed=1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.stream("", top_p=7), "--top-p"),
        (lambda model: model.stream("", temperature=-1), "--temperature"),
        (lambda model: model.generate("", num_samples=0), "num_samples must be at least 1, got 0"),
        (lambda model: model.generate("", num_samples=1.5), "num_samples must be a whole number, got 1.5"),
        (lambda model: model.generate("", max_new_tokens=0), "max_new_tokens must be at least 1"),
        (lambda model: model.generate("", max_new_tokens=1.5), "max_new_tokens must be a whole number"),
        (lambda model: model.generate("", alternatives=-1), "alternatives must be at least 0"),
        (lambda model: model.generate("", seed=2**64), "seed must be at most"),
        (lambda model: model.generate("", seed="1"), "seed must be a whole number, got '1'"),
        (lambda model: model.generate("", unknown="no"), "unknown must be one of error, skip, replace"),
        (lambda model: model.generate("", stop=3), "stop must be a string or a list of strings, got 3"),
        (lambda model: model.generate("", ban=["a", 3]), "ban must be a string or a list of strings"),
        (lambda model: model.generate("", match=3), "match must be a string, got 3"),
        (lambda model: model.generate("", logit_bias=[1]), "logit_bias must map token ids"),
        (lambda model: model.generate("", logit_bias={"1": 1.0}), "logit_bias must map token ids"),
        (lambda model: model.generate("", logit_bias={1.0: 1.0}), "logit_bias must map token ids"),
        (lambda model: model.generate("", logit_bias={1: "1"}), "logit_bias must map token ids"),
        (lambda model: model.generate(5), "a string or a list of token ids, got 5"),
        (lambda model: model.generate(None), "a string or a list of token ids, got None"),
        (lambda model: model.generate([1, 2]), "a string or a list of token ids, got 1"),
        (lambda model: model.generate({"a": 1}), "a string or a list of token ids, got {'a': 1}"),
        (lambda model: model.generate("", temprature=3), "unknown setting 'temprature'; did you mean"),
        (
            lambda model: model.generate("", max_tokens=3),
            "'max_tokens'; did you mean 'max_new_tokens'?",
        ),
        (lambda model: model.encode("the", "no"), "unknown must be one of"),
        (lambda model: model.score([1.5]), "a string or a list of token ids"),
        (lambda model: model.score("the", alternatives=-1), "alternatives must be at least 0"),
        (lambda model: lm.evaluate(model, ["the", 1]), "a text or a list of texts"),
        (lambda model: lm.evaluate(model, None), "a text or a list of texts"),
        (lambda model: lm.evaluate(model, {"the": "sea"}), "a text or a list of texts"),
        (lambda model: lm.score_texts(model, None), "a list of texts"),
        (lambda model: lm.score_texts(model, {"the": "sea"}), "a list of texts"),
        (lambda model: lm.score_texts(model, ["the", 1]), "a list of texts"),
        (lambda model: model.clamped(lm.Clamp(0, 1.5, 0)), "unit of a clamp must be a whole number"),
        (lambda model: model.score(5), "a string or a list of token ids, got 5"),
        (lambda model: model.mixed_with([(model, "0.3")]), "models with their weights, such as"),
        (lambda model: model.mixed_with((model, 0.3)), "models with their weights, such as"),
        (lambda model: model.mixed_with([(model, 0.3, 1)]), "models with their weights, such as"),
        (lambda model: model.mixed_with(model), "models with their weights, such as"),
        (lambda model: model.clamped(lm.Clamp(0, 1, "a")), "value of a clamp must be a finite number"),
    ],
)
def test_invalid_arguments_are_user_errors(model, call, message):
    with pytest.raises(UserError, match=re.escape(message)):
        call(model)


@pytest.mark.parametrize("call", [lm.evaluate, lm.score_texts, score_text, trace_text])
def test_a_name_is_no_model(call):
    message = r"^a model is needed, such as lm\.load\('runs/mine'\), got 'runs/a'\.$"
    with pytest.raises(UserError, match=message):
        call("runs/a", "the")


@pytest.mark.parametrize("name", [None, [], ["runs/a"], 5])
def test_a_model_has_a_name(name):
    with pytest.raises(UserError, match=r"^lm\.load takes the folder or the Hub id of a model, got "):
        lm.load(name)


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


class Letters:
    """A tokenizer whose tokens are letters."""

    end = 0

    def decode_stream(self, after):
        return self

    def step(self, token):
        return chr(token)


@given(text=st.text("ab<>", max_size=30), stops=st.lists(st.text("ab<>", min_size=1, max_size=4), max_size=3))
@settings(deadline=None)
def test_a_stop_string_ends_the_text_and_no_part_of_it_is_displayed(text, stops):
    detokenizer, displayed = ForwardDetokenizer(Letters(), stops, context=[]), ""
    for number, letter in enumerate(text, start=1):
        displayed += detokenizer.add(ord(letter), last=number == len(text))
        if detokenizer.ended:
            break
    # The first stop string to be completed ends the text where it starts.
    ends = [text.find(s) + len(s) for s in stops if s in text]
    if not ends:
        assert displayed == text
    else:
        seen = text[: min(ends)]
        assert displayed == seen[: min(seen.find(s) for s in stops if s in seen)]


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


@pytest.fixture(scope="module", params=["char", "byte", "bpe", "word"])
def backward(request):
    torch.manual_seed(1)
    tokenizer = train_tokenizer(request.param, iter(["the sea was calm.\nnaïve 中文 " * 20]), 300)
    config = ModelConfig(cell="gru", hidden_size=24, direction="backward")
    return LanguageModel(RecurrentLM(config, tokenizer.vocab_size), tokenizer)


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


def test_int8_runs_on_the_cpu_even_next_to_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert lm.load("pretrained", precision="int8").device.type == "cpu"


def test_token_ids_are_a_text(model):
    ids = model.encode("the naïve 中")
    assert model.score(ids) == model.score("the naïve 中") == model.score(torch.tensor(ids).numpy())
    assert streamed(model, ids, seed=3) == streamed(model, "the naïve 中", seed=3)
    prompts = ([ids], "the naïve 中", [iter(ids)])
    beams = [model.generate(one, beams=2, max_new_tokens=5) for one in prompts]
    assert beams[0] == beams[1] == beams[2]
    assert model.score(iter(ids)) == model.score(ids)
    for convert in (list, np.array, torch.tensor, iter):
        found = model.generate([convert(ids), convert(ids[:-1])], num_samples=2, max_new_tokens=5, seed=3)
        assert found == model.generate([ids, ids[:-1]], num_samples=2, max_new_tokens=5, seed=3)
    with pytest.raises(UserError, match=f"between 0 and {model.tokenizer.vocab_size - 1}, got -1"):
        model.score([1, -1])
    with pytest.raises(UserError, match=", got a number with hundreds of digits"):
        model.score([1, 10**4000])


def test_settings_of_a_beam_search_may_be_text(model):
    written = model.generate("the", beams="3", length_penalty="0.5", max_new_tokens=5)
    assert written == model.generate("the", beams=3, length_penalty=0.5, max_new_tokens=5)
    with pytest.raises(UserError, match="--beams must be an integer, got 'many'"):
        model.generate("the", beams="many")


@pytest.mark.slow
def test_an_eos_that_ids_start_with_is_the_start_of_the_text(model, backward):
    eos, end = model.tokenizer.eos, backward.tokenizer.eos
    ids, other = model.encode("the sea"), backward.encode("the sea")
    given, *scores = model.score([eos, *ids], alternatives=2)
    assert scores == model.score(ids, alternatives=2)
    assert (given.token, given.logprob, given.rank, given.entropy) == (eos, 0.0, 1, 0.0)
    assert streamed(model, [eos, *ids], seed=3) == streamed(model, ids, seed=3)
    # A model that reads right to left begins at the other end.
    *scores, given = backward.score([*other, end])
    assert scores == backward.score(other) and (given.token, given.logprob) == (end, 0.0)
    # Anywhere else it is a token like any other.
    assert model.score([*ids, eos])[-1].logprob < 0


def test_repr_says_what_the_model_is_in_one_line():
    tokenizer = train_tokenizer("char", iter(["the sea"]), 300)
    config = ModelConfig(cell="gru", layers=2, hidden_size=600, embedding_size=8)
    facts = {"validation": {"bits_per_character": 1.8959}}
    model = LanguageModel(RecurrentLM(config, tokenizer.vocab_size), tokenizer, facts)
    start = "gru, 2 layers of 600 units, 3.3M parameters, char"
    assert model.network.parameter_count() == 3_266_472
    assert repr(model) == f"LanguageModel({start}, 1.90 bits per character)"
    small = LanguageModel(RecurrentLM(ModelConfig(hidden_size=8, layers=1), 5), tokenizer)
    assert "1 layer of 8 units, 661 parameters" in repr(small)
    assert repr(lm.load("pretrained")).startswith("LanguageModel('pretrained', lstm, ")
    mixed, clamped = model.mixed_with([(model, 0.5)]), model.clamped(lm.Clamp(0, 0, 0.0))
    assert repr(mixed) == f"LanguageModel(ensemble, {start})"  # without the bits of a single model
    assert repr(clamped) == f"LanguageModel({start}, 1 clamped unit)"


def pretrained(kind):
    model = lm.load("pretrained", precision=kind if kind in ("bf16", "int8") else "fp32")
    if kind == "ensemble":
        return model.mixed_with([(lm.load("pretrained"), 0.3)])
    return model.clamped(lm.Clamp(0, 1, 0.5)) if kind == "clamped" else model


def texts_of(models):
    return [model.generate("def ", seed=3, max_new_tokens=20)[0].text for model in models]


@pytest.mark.parametrize("kind", COPIED)
def test_a_copy_generates_the_same_text_with_weights_of_its_own(kind):
    model = pretrained(kind)
    texts = texts_of([model])
    other = copy.deepcopy(model)
    with torch.no_grad():
        model.network.embedding.weight.neg_()
    assert repr(other) == repr(model)
    assert texts_of([other]) == texts
    assert texts_of([copy.deepcopy(model)]) != texts


@pytest.mark.slow
def test_models_can_be_sent_to_another_process():
    models = [pretrained(kind) for kind in COPIED]
    texts = texts_of(models)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(texts_of, models).result() == texts


def test_a_stream_prints_itself_as_it_is_generated_in_a_notebook(model, capsys):
    """The last line of a cell is displayed by this method."""
    model.stream(iter(model.encode("the")), seed=3, max_new_tokens=30)._ipython_display_()
    assert capsys.readouterr().out == printable("the" + streamed(model, "the", seed=3, max_new_tokens=30))
    stream = model.stream("the", seed=3)
    next(stream)
    stream.close()
    assert list(stream) == []


def test_dir_lists_the_public_names():
    assert dir(lm) == sorted(["__version__", *lm.__all__])
    assert {"load", "train", "evaluate", "LanguageModel", "Session", "UserError"} < set(dir(lm))
    assert all(getattr(lm, name) for name in dir(lm))
