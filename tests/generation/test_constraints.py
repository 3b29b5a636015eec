"""Constraints on generated text: patterns, choices, banned strings; for every kind of tokenizer."""

import random
import re
import time
import tracemalloc
from unittest import mock

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings, strategies as st
from tokenizers import Tokenizer as Backend, decoders, models, pre_tokenizers

from lm.config.schema import ModelConfig
from lm.errors import UserError
from lm.generation import constraints
from lm.generation.constraints import Banned, NoRepeat, OneOf, Vocabulary
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.tokenizer import Tokenizer
from lm.tokenization.vocabulary import train_tokenizer

TEXT = "the sea was calm. 12 boats, 7 ports; naïve 中文 (a) [b] {c} a+b=c\n"


def sentence_piece():
    """Llama's kind: a token contains the space before its word, and a byte can be a token."""
    names = [
        "<unk>",
        "<eos>",
        "▁",
        "▁the",
        "▁sea",
        "se",
        "s",
        "e",
        "a",
        "h",
        "t",
        *map("<0x{:02X}>".format, range(256)),
    ]
    backend = Backend(models.BPE({name: i for i, name in enumerate(names)}, [], byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return Tokenizer(backend)


def word_piece():
    """BERT's kind: a token says whether there is no space before it."""
    names = ["<unk>", "<eos>", "the", "sea", "##se", "##a", "t", "##h", "##e", "s"]
    backend = Backend(models.WordPiece({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
    return Tokenizer(backend)


EXISTING = {"sentencepiece": sentence_piece, "wordpiece": word_piece}


def make(kind, **shape):
    torch.manual_seed(1)
    tokenizer = EXISTING[kind]() if kind in EXISTING else train_tokenizer(kind, iter([TEXT * 20]), 400)
    network = RecurrentLM(ModelConfig(cell="gru", hidden_size=24, **shape), tokenizer.vocab_size)
    return LanguageModel(network, tokenizer, {"trained_on": {"documents": 1}})


@pytest.fixture(scope="module", params=["char", "byte", "bpe", "unigram", "word"])
def model(request):
    return make(request.param)


def text_of(model, prompt="the ", **options):
    (sample,) = model.generate(prompt, **{"max_new_tokens": 40, "temperature": 1.5, **options})
    return sample.text


COMMON = settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


PATTERNS = ["[0-9]{3,5}", "(sea|boats)( was){1,3}", "a{7}", "中{1,4}文"]
WORD_PATTERNS = ["(sea|boats,)( was| calm.){1,3}", "12|naïve 中文"]


@given(seed=st.integers(0, 1000), which=st.integers(0, 3))
@COMMON
def test_the_text_matches_the_pattern(model, seed, which):
    pattern = WORD_PATTERNS[which % 2] if model.tokenizer.kind == "word" else PATTERNS[which]
    assert re.fullmatch(pattern, text_of(model, seed=seed, match=pattern, max_new_tokens=60))


def test_a_text_cut_by_its_length_is_a_prefix_of_a_match(model):
    if model.tokenizer.kind != "word":
        assert text_of(model, seed=1, match="(sea ){50}", max_new_tokens=10) in "sea " * 50


@given(seed=st.integers(0, 1000))
@COMMON
def test_the_text_is_one_of_the_choices(model, seed):
    choices = ["sea was", "boats,"] if model.tokenizer.kind == "word" else ["(a) [b]", "a+b=c", "naïve 中"]
    assert text_of(model, seed=seed, choices=choices) in choices


@pytest.mark.slow
@given(
    seed=st.integers(0, 1000),
    banned=st.lists(st.sampled_from(["e", "th", "sea", " ", "文", "as c", "the w", "the t"])),
)
@COMMON
def test_a_banned_string_is_never_generated(model, seed, banned):
    if model.tokenizer.kind == "word":
        banned = [string for string in banned if string != " "]
    prompt = "the " if model.tokenizer.kind == "word" else "the t"  # a banned string can start in the prompt
    text = text_of(model, prompt, seed=seed, ban=banned, max_new_tokens=80)
    for string in banned:
        assert string not in text
        assert string not in (prompt + text)[len(prompt) - len(string) + 1 :]


@given(
    strings=st.lists(st.text("ab", min_size=1, max_size=7), max_size=3),
    pieces=st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=5, unique=True),
    before=st.text("ab", max_size=9),
    choose=st.lists(st.integers(0, 4), max_size=8),
)
@settings(deadline=None, max_examples=300)
def test_exactly_the_tokens_that_complete_a_banned_string_are_excluded(strings, pieces, before, choose):
    vocabulary = Vocabulary([piece.encode() for piece in pieces])
    banned = Banned(vocabulary, [string.encode() for string in strings], before.encode())
    text = before
    for number in [*choose, 0]:
        # Only strings that end in the new token count, not those already in the prompt.
        expected = [
            not any(s in (text + piece)[max(len(text) - len(s) + 1, 0) :] for s in strings)
            for piece in pieces
        ]
        assert banned.allowed().tolist() == expected
        banned.accept(number % len(pieces))
        text += pieces[number % len(pieces)]


def test_a_mask_takes_no_longer_because_banned_strings_overlap_everywhere():
    strings = [b"a" * (999 - i) + b"b" for i in range(64)]
    banned = Banned(Vocabulary([b"a", b"b"]), strings, b"a" * 2000)
    begin = time.thread_time()
    assert banned.allowed().tolist() == [True, False]
    assert time.thread_time() - begin < 0.1  # where all overlaps took half a second


@given(
    strings=st.lists(st.text("ab", max_size=5), min_size=1, max_size=4),
    pieces=st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=5),
    choose=st.lists(st.integers(0, 4), max_size=5),
)
@settings(deadline=None, max_examples=300)
def test_exactly_the_tokens_that_lead_to_a_choice_are_allowed(strings, pieces, choose):
    one_of = OneOf(Vocabulary([piece.encode() for piece in pieces]), [string.encode() for string in strings])

    def can_become_a_choice(text):
        begins = any(string.startswith(text) for string in strings)
        return text in strings or (begins and any(can_become_a_choice(text + piece) for piece in pieces))

    assert one_of.possible == can_become_a_choice("")
    text = ""
    for number in [*choose, 0]:
        assert one_of.complete == (text in strings)
        allowed = [can_become_a_choice(text + piece) for piece in pieces]
        assert one_of.allowed().tolist() == allowed
        if not allowed[number % len(pieces)]:
            break
        before = one_of.fork()
        one_of.accept(number % len(pieces))
        assert before.allowed().tolist() == allowed  # a fork is independent
        text += pieces[number % len(pieces)]


@pytest.mark.slow
@given(
    size=st.integers(1, 9),
    history=st.lists(st.integers(0, 2), max_size=12),
    more=st.lists(st.integers(0, 2), max_size=12),
    tokens=st.sampled_from([(0, 1, 2), (1, 256, 65536)]),  # as bytes, these overlap in other places
    unindexed=st.integers(0, 12),
)
@example(2, [], [0, 1, 2, 1], (1, 256, 65536), 12)  # the bytes of 256 are found within 1, 256 first
@settings(deadline=None, max_examples=300)
def test_exactly_the_tokens_that_repeat_an_ngram_are_excluded(size, history, more, tokens, unindexed):
    with mock.patch.object(constraints, "_UNINDEXED", 4 * unindexed):
        no_repeat, text = NoRepeat(65537, size, [tokens[i] for i in history]), list(history)
        for token in [*more, 0]:
            ngrams = {tuple(text[i : i + size]) for i in range(len(text) - size + 1)}
            before = tuple(text[len(text) - size + 1 :])
            allowed = [len(text) < size - 1 or (*before, t) not in ngrams for t in range(3)]
            mask = no_repeat.allowed()
            assert mask[list(tokens)].tolist() == allowed and mask.sum() == 65537 - allowed.count(False)
            fork = no_repeat.fork()
            no_repeat.accept(tokens[token])
            assert fork.allowed().equal(mask)
            text.append(token)


@pytest.mark.parametrize("size", [2, 1000])
def test_ngram_limit_takes_little_memory_which_all_texts_after_a_prompt_share(size):
    prompt = [random.Random(size).randrange(50) for _ in range(20_000)]
    tracemalloc.start()
    no_repeat = NoRepeat(100, size, prompt)
    _, most = tracemalloc.get_traced_memory()
    forks = [no_repeat.fork() for _ in range(64)]
    for fork in forks:
        fork.accept(1)
        fork.allowed()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used < 40 * len(prompt) + 64 * 10_000 and most < 150 * len(prompt)


def test_prompt_is_indexed_once_for_all_its_texts(model, monkeypatch):
    indexed = []
    monkeypatch.setattr(constraints, "_distinct_ngrams", lambda *args: indexed.append(1) or found(*args))
    model.generate("the sea was", num_samples=5, max_new_tokens=3, no_repeat_ngram=3)
    assert indexed == [1]


found = constraints._distinct_ngrams


@pytest.mark.parametrize(
    "limit", [{"match": "(sea|boats)( was){1,3}"}, {"choices": ["sea", "12"]}, {"ban": ["e"]}]
)
def test_several_texts_after_one_prompt_are_constrained_independently(model, limit):
    if model.tokenizer.kind == "word" and "match" in limit:
        limit = {"match": WORD_PATTERNS[0]}
    samples = model.generate("the ", num_samples=3, seed=5, max_new_tokens=20, temperature=1.5, **limit)
    alone = [text_of(model, seed=5 + number, max_new_tokens=20, **limit) for number in range(3)]
    assert [sample.text for sample in samples] == alone


def test_a_constraint_that_allows_everything_changes_nothing(model):
    free = text_of(model, seed=3)
    assert text_of(model, seed=3, ban=["@@@"]) == free
    if model.tokenizer.kind in ("char", "word"):  # the bytes of an untrained model are not valid UTF-8
        assert text_of(model, seed=3, match="(?s:.)*") == free


@pytest.mark.parametrize("kind", EXISTING)
def test_existing_tokenizers_keep_to_constraints_wherever_they_write_spaces(kind):
    model = make(kind)
    ids = model.tokenizer.backend.get_vocab()
    likely = {ids[name]: 9.0 for name in ("se", "##se", "a", "##a", "▁sea", "sea") if name in ids}
    options = {"num_samples": 12, "seed": 1, "max_new_tokens": 12, "logit_bias": likely}

    def texts(prompt, **more):
        return {sample.text for sample in model.generate(prompt, **options, **more)}

    for prompt in ("", "the") if kind == "sentencepiece" else ("the",):
        assert any("sea" in text for text in texts(prompt))
        assert not any("sea" in text or "ase" in text for text in texts(prompt, ban=["sea", "ase"]))
        assert texts(prompt, choices=["sea sea", "seasea"]) <= {"sea sea", "seasea"}
        assert all(re.fullmatch("s?(ea)+ sea", text) for text in texts(prompt, match="s?(ea)+ sea"))
    assert texts("the", choices=[" seasea"]) == {" seasea"}  # as the text is written, with its space


def test_a_character_of_several_byte_tokens_is_chosen_and_banned():
    model = make("sentencepiece")
    first, last = (model.tokenizer.backend.token_to_id(f"<0x{byte:02X}>") for byte in "é".encode())
    assert text_of(model, choices=["seé"], seed=1) == "seé"
    certain = {"logit_bias": {last: 100.0}, "max_new_tokens": 1, "seed": 1}
    assert model.generate([[first]], **certain)[0].tokens == [last]
    assert model.generate([[first]], ban="é", **certain)[0].tokens != [last]


def test_a_string_is_banned_whose_first_bytes_end_the_prompt():
    model = make("byte")
    *begun, last = model.encode("the 文")
    certain = {"logit_bias": {last: 100.0}, "max_new_tokens": 1, "seed": 1}
    assert model.generate([begun], **certain)[0].tokens == [last]
    for ban in ("文", "e 文"):
        assert model.generate([begun], ban=ban, **certain)[0].tokens != [last]
        assert model.generate([begun], ban=ban, beams=2, **{**certain, "seed": None})[0].tokens != [last]
        session = model.session()
        session.feed("the 文")
        session.rewind(1)
        assert [piece.token for piece in session.sample(ban=ban, **certain)] != [last]


def test_a_string_is_banned_whose_last_bytes_begin_the_prompt_of_a_backward_model():
    model = make("byte", direction="backward")
    first, *begun = model.encode("文 the")
    certain = {"logit_bias": {first: 100.0}, "max_new_tokens": 1, "seed": 1}
    assert model.generate([begun], **certain)[0].tokens == [first]
    assert model.generate([begun], ban="文 t", **certain)[0].tokens != [first]


@pytest.mark.parametrize("kind", ["char", "word"])
def test_a_choice_that_the_model_cannot_write_is_never_begun(kind):
    choices = {"char": ["sea日", "was"], "word": ["sea boats,日", "was  calm.", "was"]}[kind]
    samples = make(kind).generate("the ", choices=choices, num_samples=8, seed=1)
    assert {sample.text for sample in samples} == {"was"}


@pytest.mark.parametrize(
    ("kind", "choices", "lacking"),
    [
        ("char", ["sea日本", "月"], "'日', '本'"),
        ("word", "sea day", "'day'"),
        ("word", "was  calm.", "'was  calm.'"),
    ],
)
def test_choices_of_which_the_model_can_write_none_are_an_error_that_names_what_it_lacks(
    kind, choices, lacking
):
    with pytest.raises(
        UserError, match=f"^the model has no tokens for {lacking}: name a choice that it can "
    ):
        make(kind).generate("the ", choices=choices)


def test_impossible_constraints_are_reported(model):
    with pytest.raises(UserError, match=r"cannot use the pattern '\('"):
        model.stream("", match="(")
    with pytest.raises(UserError, match="contradict each other"):
        model.stream("", match="a", choices=["b"])
    with pytest.raises(UserError, match="no token is allowed"):
        text_of(model, match="[0-9]+", ban=list("0123456789"))


@pytest.mark.slow
def test_a_pattern_that_is_too_large_ends_only_its_own_text(model):
    if model.tokenizer.kind != "char":
        return
    expected = text_of(model, seed=4)
    streams = model.stream_all(["the ", "the "], [4, 5], max_new_tokens=40, temperature=1.5)
    with pytest.raises(UserError, match="cannot use the pattern"):
        text_of(model, match="a{99999}{99999}", max_new_tokens=2000)
    assert "".join(piece.text for number, piece in streams if number == 0) == expected
    with pytest.raises(UserError, match="at least 1"):
        text_of(model, max_new_tokens=0)
