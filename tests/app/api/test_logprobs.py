"""`logprobs` has an entry for each token that `usage` counts: the score of the token, at its position."""

import codecs
import json
import math
import re

import pytest
import tokenizers
import torch
from hypothesis import given, settings, strategies as st
from starlette.testclient import TestClient
from tokenizers import decoders, models, pre_tokenizers

import lm
from app.api.completions import Choices, Chunk, CompletionStream, Part, TokenLogprob
from app.api.request import CompletionRequest, Limits
from app.api.responses import encode_json
from app.api.server import Api
from app.registry import ModelRegistry
from lm.config.schema import ModelConfig
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import load_external, train_tokenizer
from tests.app.conftest import LIMITS, complete, rejected
from tests.conftest import some_text

PIECES = ["▁", "▁the", "the", "s", "e", "a"]
TEXT = some_text(3000) + "naïve 中文 \U0001f642 " * 9


def sentence_piece(folder):
    """An external tokenizer: pieces of words that include the space before them, and bytes for the rest."""
    characters = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = ["<unk>", "<eos>", *characters, *PIECES]
    vocabulary = [(piece, -float(i)) for i, piece in enumerate(pieces)]
    backend = tokenizers.Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence(steps)
    return external(backend, folder)


def word_pieces(folder):
    """An external tokenizer that loses case and spaces."""
    names = ["[UNK]", "the", "sea", "##s", "a", "##a", "t", "##e", "."]
    vocabulary = {name: i for i, name in enumerate(names)}
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = tokenizers.normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece()
    return external(backend, folder)


def external(backend, folder):
    folder.mkdir()
    backend.save(str(folder / "tokenizer.json"))
    return load_external(folder / "tokenizer.json")[0]


def without_line_feed(folder):
    """Of a text with line ends of every kind but "\\r", so that a Windows line end is a single token."""
    return train_tokenizer("char", iter([TEXT]), 300)


def with_carriage_return(folder):
    return train_tokenizer("char", iter([TEXT + "\r\n"]), 300)


KINDS = {
    "char": without_line_feed,
    "char with \\r": with_carriage_return,
    "bpe": lambda folder: train_tokenizer("bpe", iter([TEXT]), 300),
    "unigram": lambda folder: train_tokenizer("unigram", iter([TEXT]), 300),
    "byte": lambda folder: train_tokenizer("byte", iter([])),
    "word": lambda folder: train_tokenizer("word", iter([TEXT])),
    "sentence piece": sentence_piece,
    "word pieces": word_pieces,
}


def untrained(tokenizer, documents=2):
    torch.manual_seed(1)
    config = ModelConfig(cell="gru", layers=1, hidden_size=24, embedding_size=16)
    facts = {"trained_on": {"dataset": "x", "characters": 1, "documents": documents}}
    return LanguageModel(RecurrentLM(config, tokenizer.vocab_size), tokenizer, facts)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, make in KINDS.items():
        tokenizer = make(tmp_path_factory.mktemp("tokenizer") / "external")
        untrained(tokenizer).save(folder / name)
        untrained(tokenizer, documents=1).save(folder / f"single {name}")
    return folder


@pytest.fixture(scope="module")
def loaded(runs):
    return {path.name: lm.load(path, device="cpu") for path in runs.iterdir()}


@pytest.fixture(scope="module")
def client(runs):
    with TestClient(Api(ModelRegistry([runs]), LIMITS).app()) as client:
        yield client


CHARACTERS = st.sampled_from("the sea. \n\r\t\x1c\x0c\x85 ïn中文🙂\u2028E€\ufffd\x00<s>")
SPECIAL = ["", "\r\n", "a\r\n\r\nb", "<eos>", "\n<eos> the", "the sea\r\nthe 中", "🙂", "bytes:\\xe4"]
TEXTS = st.text(CHARACTERS, max_size=12) | st.sampled_from(SPECIAL)


def checked_choice(client, body, prompt_tokens):
    """The only choice of a response, whose lists have as many entries as there are tokens."""
    response = complete(client, n=1, **body)
    (choice,) = response["choices"]
    usage, lists = response["usage"], choice["logprobs"]
    assert usage["prompt_tokens"] == prompt_tokens
    echoed = prompt_tokens if body.get("echo") else 0
    assert {len(entries) for entries in lists.values()} == {echoed + usage["completion_tokens"]}
    offsets = lists["text_offset"]
    assert offsets == sorted(offsets) and all(0 <= offset <= len(choice["text"]) for offset in offsets)
    return choice


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None)
@given(text=TEXTS, single=st.booleans(), request=st.tuples(*[st.integers(0, top) for top in (9, 3, 99)]))
def test_echo_scores_a_text_as_score_does(client, loaded, kind, text, single, request):
    max_tokens, logprobs, seed = request
    name = f"single {kind}" if single else kind
    model = loaded[name]
    scores = model.score(text, alternatives=1)
    body = {"model": name, "prompt": text, "max_tokens": max_tokens, "logprobs": logprobs, "seed": seed}
    choice = checked_choice(client, body | {"echo": True}, len(scores))
    lists, count = choice["logprobs"], len(scores)
    assert choice["text"].startswith(text)
    assert lists["token_logprobs"][:count] == [score.logprob for score in scores]
    assert lists["tokens"][:count] == [score.text for score in scores]
    if logprobs:  # how lm-eval finds out whether a token is the most likely one
        best = [max(top.values()) for top in lists["top_logprobs"]]
        greedy = [logprob == most for logprob, most in zip(lists["token_logprobs"], best, strict=True)]
        assert greedy[:count] == [score.rank == 1 for score in scores]
    # Ids in place of the text.
    ids = model.encode(text)
    if ids[:1] != [model.tokenizer.eos]:
        by_ids = checked_choice(client, body | {"echo": True, "prompt": ids}, count)
        assert by_ids["logprobs"]["token_logprobs"] == lists["token_logprobs"]
        assert by_ids["logprobs"]["tokens"] == lists["tokens"]
    # Without echo, the same tokens.
    if max_tokens:
        alone = checked_choice(client, body, count)
        assert alone["logprobs"]["token_logprobs"] == lists["token_logprobs"][count:]
        offsets = [offset - len(text) for offset in lists["text_offset"][count:]]
        assert alone["text"] == choice["text"][len(text) :] and alone["logprobs"]["text_offset"] == offsets


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None)
@given(data=st.data(), max_tokens=st.integers(0, 4), single=st.booleans())
def test_ids_are_scored_as_they_are(client, loaded, kind, data, max_tokens, single):
    """Even if the tokenizer would never produce them."""
    name = f"single {kind}" if single else kind
    model = loaded[name]
    last = model.tokenizer.vocab_size - 1
    ids = data.draw(st.lists(st.integers(0, last) | st.just(model.tokenizer.eos), max_size=9))
    body = {"model": name, "prompt": [ids], "echo": True, "logprobs": 1, "max_tokens": max_tokens, "seed": 1}
    lists = checked_choice(client, body, len(ids))["logprobs"]
    rest = ids
    if ids[:1] == [model.tokenizer.eos]:  # read as the start of the text
        assert lists["token_logprobs"][0] == 0.0
        rest = ids[1:]
    inputs = torch.tensor([[model.start_token, *rest]])
    logits, _ = model.network(inputs)
    expected = logits[0].log_softmax(-1)[range(len(rest)), rest].tolist()
    found = lists["token_logprobs"][len(ids) - len(rest) : len(ids)]
    assert found == pytest.approx(expected, abs=1e-4)
    assert lists["token_logprobs"][: len(ids)] == [score.logprob for score in model.score(ids)]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*KINDS, *(f"single {kind}" for kind in KINDS)])
def test_a_text_after_the_eos_token_has_the_score_of_the_text(client, loaded, name):
    """As lm-eval begins a text, also for a model whose texts start after a line break."""
    model = loaded[name]
    text = "the sea. the naïve 中文\nsea"
    scores = [score.logprob for score in model.score(text)]
    ids = [model.tokenizer.eos, *model.encode(text)]
    body = {"model": name, "prompt": ids, "echo": True, "logprobs": 1, "max_tokens": 1}
    found = checked_choice(client, body, len(ids))["logprobs"]["token_logprobs"]
    assert found[1:-1] == scores and found[0] == 0.0
    whole = [complete(client, model=name, prompt=p, seed=3, max_tokens=30) for p in (ids, ids[1:], text)]
    assert len({one["choices"][0]["text"] for one in whole}) == 1


def text_of(name):
    """The bytes of a token in `tokens`."""
    if not name.startswith("bytes:"):
        return name.encode()
    return re.sub(rb"\\x(..)", lambda match: bytes.fromhex(match[1].decode()), name[6:].encode())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["char", "char with \\r", "bpe", "unigram", "byte"])
@settings(max_examples=20, deadline=None)
@given(data=st.data(), max_tokens=st.integers(1, 12), seed=st.integers(0, 99))
def test_an_offset_is_the_position_of_the_tokens_first_byte(client, loaded, kind, data, max_tokens, seed):
    """Where decoding all bytes at once puts it, even if they form no characters."""
    model = loaded[kind]
    ids = data.draw(st.lists(st.integers(0, model.tokenizer.vocab_size - 1), max_size=9))
    body = {"model": kind, "prompt": ids, "max_tokens": max_tokens, "logprobs": 0, "seed": seed}
    choice = checked_choice(client, body | {"echo": True}, len(ids))
    names, offsets = choice["logprobs"]["tokens"], choice["logprobs"]["text_offset"]
    pieces = [b"" if name == "<eos>" else text_of(name) for name in names]
    text = b"".join(pieces)
    if "<eos>" not in names:  # at which an incomplete character ends
        whole = text.decode("utf-8", "replace")
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        assert choice["text"] == decoder.decode(text)
        for number, (piece, offset) in enumerate(zip(pieces, offsets, strict=True)):
            if piece and piece.decode("utf-8", "ignore").encode() == piece:
                assert choice["text"][offset:].startswith(piece.decode())
            elif piece:
                before = b"".join(pieces[:number])
                assert offset <= len((before + piece).decode("utf-8", "replace")) - 1 and whole[offset:]


@pytest.mark.parametrize("kind", ["word", "sentence piece", "word pieces"])
def test_offsets_of_words_and_pieces(client, loaded, kind):
    text, tokenizer = "the sea the\nthe sea", loaded[kind].tokenizer
    body = {"model": kind, "prompt": text, "max_tokens": 40, "logprobs": 0, "seed": 1, "echo": True}
    if kind == "sentence piece":  # without bytes that form no characters
        body["logit_bias"] = {str(tokenizer.backend.token_to_id(piece)): 50 for piece in PIECES}
    choice = checked_choice(client, body, len(loaded[kind].score(text)))
    lists = choice["logprobs"]
    for token, offset in zip(lists["tokens"], lists["text_offset"], strict=True):
        if not token.startswith(("bytes:", "<", "[", "##")):
            assert choice["text"][offset:].startswith(token), (token, offset)


def test_incomplete_characters_are_shown_as_bytes(client):
    for model in ("byte", "sentence piece"):
        body = {"model": model, "prompt": "ä", "echo": True, "logprobs": 1, "max_tokens": 0}
        logprobs = checked_choice(client, body, 2)["logprobs"]
        assert logprobs["tokens"] == ["bytes:\\xc3", "bytes:\\xa4"]
        assert logprobs["text_offset"] == [0, 0]


@pytest.mark.parametrize("kind", ["bpe", "byte", "char"])
def test_the_end_token_and_a_stop_string_have_entries(client, loaded, kind):
    model = loaded[kind]
    body = {"model": kind, "prompt": "The", "logprobs": 1, "max_tokens": 9}
    bias = {"logit_bias": {str(model.tokenizer.end): 100}}
    choice = checked_choice(client, body | bias, len(model.encode("The")))
    assert (choice["text"], choice["finish_reason"]) == ("", "stop")
    assert choice["logprobs"]["tokens"] == ["<eos>"] and choice["logprobs"]["text_offset"] == [0]
    bias = {"logit_bias": {str(token): 100 for token in model.encode("s")}}
    choice = checked_choice(client, body | bias | {"stop": "ss", "echo": True}, len(model.encode("The")))
    assert choice["text"] == "The" and choice["logprobs"]["tokens"][-2:] == ["s", "s"]
    assert choice["logprobs"]["text_offset"][-2:] == [3, 3]


def test_a_prompt_of_ids_may_end_inside_a_character(client):
    body = {"model": "byte", "prompt": [0xE4, 0xB8], "max_tokens": 1, "logit_bias": {str(0xAD): 100}}
    assert complete(client, **body)["choices"][0]["text"] == "中"
    assert complete(client, **body, echo=True)["choices"][0]["text"] == "中"
    body["max_tokens"] = 0
    assert complete(client, **body, echo=True)["choices"][0]["text"] == "\ufffd"


def test_lists_of_ids_and_empty_lists(client, loaded):
    ids = [loaded["bpe"].encode(text) for text in ("The sea", "A boat")]
    body = {"model": "bpe", "seed": 1, "max_tokens": 9}
    texts = complete(client, **body, prompt=["The sea", "A boat"])
    assert complete(client, **body, prompt=ids)["choices"] == texts["choices"]
    assert complete(client, **body, prompt=ids[0])["choices"] == texts["choices"][:1]
    for empty in ([], [[]]):
        assert complete(client, **body, prompt=empty)["choices"] == complete(client, **body)["choices"]


def test_ids_are_limited_in_number_and_range(client, loaded):
    complete(client, model="bpe", prompt=[5] * LIMITS.prompt_characters)
    error = rejected(client, model="bpe", prompt=[[1], [5] * (LIMITS.prompt_characters + 1)])
    assert error["code"] == "context_length_exceeded" and "501 tokens" in error["message"]
    size = loaded["bpe"].tokenizer.vocab_size
    for wrong in (size, -1):
        error = rejected(client, model="bpe", prompt=[[1], [2, wrong]])
        assert error["param"] == "prompt" and f"between 0 and {size - 1}, got {wrong}" in error["message"]


def test_a_probability_of_zero_is_a_number_in_json():
    token = TokenLogprob("a", -math.inf, {"a": -math.inf, "b": 0.0}, 0)
    choices = Choices(with_logprobs=True)
    choices.add(Chunk(0, Part.of("a", [token])))
    (choice,) = choices.objects()
    logprobs = json.loads(b"".join(choice))["logprobs"]
    assert logprobs["token_logprobs"] == [-9999.0]
    assert logprobs["top_logprobs"] == [{"a": -9999.0, "b": 0.0}]


TOKENS = st.builds(
    TokenLogprob,
    st.text(),
    st.floats(-1e5, 0),
    st.dictionaries(st.text(), st.floats(-1e5, 0)),
    st.integers(0),
)
PARTS = st.lists(st.tuples(st.integers(0, 2), st.text(), st.lists(TOKENS), st.integers(1, 400)), max_size=6)


@pytest.mark.slow
@given(parts=PARTS, with_logprobs=st.booleans())
def test_choices_are_the_json_of_all_parts_at_once(parts, with_logprobs):
    """Byte for byte, however the text is divided, and whether parts are short or long."""
    choices, expected = Choices(with_logprobs), {}
    for index, text, tokens, repeat in [*parts, *((index, "", [], 1) for index in range(3))]:
        tokens = tokens if with_logprobs else []
        choices.add(Chunk(index, Part.of(text * repeat, tokens), "stop" if repeat == 1 else None))
        columns = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        new = {"text": "", "index": index, "logprobs": columns if with_logprobs else None}
        choice = expected.setdefault(index, new)
        choice["text"] += text * repeat
        for token in tokens:
            columns = choice["logprobs"]
            columns["tokens"].append(token.token)
            columns["token_logprobs"].append(max(-9999.0, token.logprob))
            columns["top_logprobs"].append({n: max(-9999.0, p) for n, p in token.top.items()})
            columns["text_offset"].append(token.offset)
        choice["finish_reason"] = "stop"
    found = [b"".join(choice) for choice in choices.objects()]
    assert found == [encode_json(expected[index]) for index in range(3)]


@pytest.mark.parametrize("read", [0, 1, 2])  # chunks
def test_a_canceled_request_scores_no_more_tokens(loaded, monkeypatch, read):
    model, scored = loaded["char"], []
    stream_scores = model.stream_scores

    def counted(*prompt, **settings):
        for score in stream_scores(*prompt, **settings):
            scored.append(score)
            yield score

    monkeypatch.setattr(model, "stream_scores", counted)
    body = {"model": "char", "prompt": some_text(3000), "echo": True, "logprobs": 0, "max_tokens": 0}
    stream = CompletionStream(model, CompletionRequest.parse(body, Limits()), lambda: None)
    chunks = stream.chunks()
    for _ in range(read):
        next(chunks)
    before = len(scored)
    stream.cancel()
    assert len([*chunks]) == 2 and len(scored) == before < 1500  # what was scored already, and the last chunk
