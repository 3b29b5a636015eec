"""Sessions: feeding, sampling, branching, rewinding, saving."""

from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings, strategies as st

from lm.config.schema import ModelConfig
from lm.errors import ModelError, UserError
from lm.files.tensor_files import read_metadata, read_tensors, write_tensors
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.session import Session
from lm.tokenization.vocabulary import train_tokenizer

FACTS = {"trained_on": {"documents": 1}}  # texts never end early


def make(seed=1, direction="forward", kind="char"):
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(kind, iter(["the sea was calm.\nnaïve 中文 " * 20]), 300)
    config = ModelConfig(hidden_size=24, direction=direction)
    return LanguageModel(RecurrentLM(config, tokenizer.vocab_size), tokenizer, FACTS)


MODELS = {kind: make(kind=kind) for kind in ("char", "byte", "bpe", "word")}
MODEL = MODELS["char"]


def sampled(session, **options):
    return "".join(piece.text for piece in session.sample(**options))


def test_a_sample_equals_what_the_model_streams():
    session = MODEL.session()
    session.feed("the sea")
    options = {"max_new_tokens": 50, "seed": 4, "temperature": 1.1, "repetition_penalty": 1.2}
    text = sampled(session, **options)
    assert text == "".join(piece.text for piece in MODEL.stream("the sea", **options))
    assert session.text == "the sea" + text
    assert len(session) == len("the sea") + 50


def test_a_session_shows_how_its_text_begins():
    session = MODEL.session()
    assert repr(session) == "Session(0 tokens, '')"
    session.feed("the sea\nwas calm " * 9)
    assert repr(session) == f"Session(153 tokens, '{'the sea was calm ' * 3}the sea …')"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["char", "byte", "bpe", "word"])
def test_an_outlook_is_the_most_likely_text_after_each_token(kind):
    model = make(kind=kind)
    session = model.session()
    session.feed("the sea was calm")
    before, tokens = list(session.tokens), [token for _, token, _ in session.next(6)]
    found = session.outlook(tokens, 10)
    assert session.tokens == before
    for token, ahead in zip(tokens, found, strict=True):
        branch = session.fork()
        branch.add(token)
        written = "".join(piece.text for piece in branch.sample(greedy=True, max_new_tokens=40))
        assert ahead == written[:10]
    assert len(set(found)) > 1 and any(len(ahead) == 10 for ahead in found)


@pytest.mark.slow
@given(steps=st.lists(st.tuples(st.sampled_from("fsarb"), st.integers(1, 30)), max_size=12))
@settings(deadline=None, max_examples=40)
def test_the_state_always_belongs_to_the_text(steps):
    """Feed, sample, add a token, rewind and branch in any order, then compare the next tokens."""
    session = MODEL.session()
    for action, count in steps:
        if action == "f":
            session.feed("the sea was calm."[:count])
        elif action == "s":
            sampled(session, max_new_tokens=count, seed=count)
        elif action == "a":
            session.add(session.next(3)[count % 3][1])
        elif action == "r":
            session.rewind(min(count, len(session)))
        else:
            branch = session.fork()
            sampled(branch, max_new_tokens=count, seed=1)
    fresh = MODEL.session()
    fresh.feed(session.text)
    assert fresh.tokens == session.tokens
    ours, theirs = session.next(50), fresh.next(50)
    assert {t: p for _, t, p in ours} == pytest.approx({t: p for _, t, p in theirs}, abs=1e-5)


def test_small_integers_of_numpy_count_tokens():
    session = MODEL.session()
    session.feed("the sea" * 60)
    session.rewind(np.uint8(250))
    assert session.text == ("the sea" * 60)[:-250]
    session.add(np.uint8(session.next(1)[0][1]))
    assert all(type(token) is int for token in session.tokens)


@pytest.mark.slow
def test_sampling_again_after_a_rewind_gives_the_same_text(monkeypatch):
    monkeypatch.setattr("lm.session.RECENT", 10)  # so that most states are recomputed
    session = MODEL.session()
    session.feed("the")
    first = sampled(session, max_new_tokens=200, seed=1)
    branch = session.fork()
    continuation = sampled(branch, max_new_tokens=30, seed=7)
    branch.rewind(30 + 77)
    assert branch.text == "the" + first[: 200 - 77]
    fresh = MODEL.session()
    fresh.feed(branch.text)
    ours, theirs = ({token: p for _, token, p in one.next(50)} for one in (branch, fresh))
    assert ours == pytest.approx(theirs, abs=1e-5)
    other = sampled(branch, max_new_tokens=77, seed=9)
    assert other != first[-77:]
    branch.rewind(77)
    branch.feed(first[-77:])
    assert sampled(branch, max_new_tokens=30, seed=7) == continuation
    assert session.text == "the" + first  # the branch did not change it


def test_an_interrupted_sample_keeps_what_was_yielded():
    session = MODEL.session()
    pieces = session.sample(max_new_tokens=1000, seed=1)
    yielded = "".join(next(pieces).text for _ in range(7))
    pieces.close()
    assert session.text == yielded
    assert not MODEL.generator.scheduler.running or MODEL.generator.scheduler.running[0].ended
    sampled(session, max_new_tokens=3, seed=1)
    assert len(session) == 10


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["char", "byte", "bpe", "word"])
@given(count=st.integers(1, 40), seed=st.integers(0, 5), size=st.integers(1, 6))
@example(count=9, seed=5, size=1)  # the last bpe token ends one character and begins a held one
@settings(deadline=None, max_examples=20)
def test_whenever_the_caller_stops_the_text_is_what_was_yielded(kind, count, seed, size):
    model = MODELS[kind]
    session = model.session()
    session.feed("the sea")
    text = sampled(session, max_new_tokens=60, seed=seed)
    session = model.session()
    session.feed("the sea")
    # Strings that begin like the text, so that their starts are held back.
    stops = [text[i : i + size] + "@" for i in range(0, len(text), 2)]
    pieces = session.sample(max_new_tokens=60, seed=seed, stop=stops)
    yielded = "".join(piece.text for piece in islice(pieces, count))
    pieces.close()
    whole = "the sea" + yielded
    assert whole.startswith(session.text) if kind == "word" else session.text == whole
    fresh = model.session()
    fresh.feed(session.text)
    if fresh.tokens == session.tokens:
        ours, theirs = ({t: p for _, t, p in one.next(400)} for one in (session, fresh))
        assert ours == pytest.approx(theirs, abs=1e-5)


@pytest.mark.slow
@given(count=st.integers(0, 6), seed=st.integers(0, 1000), stop=st.sampled_from([[], ["v@", "a@", "the"]]))
@settings(deadline=None, max_examples=40)
def test_a_sample_completes_or_replaces_a_character_that_was_begun(count, seed, stop):
    model = MODELS["byte"]
    session = model.session()
    session.feed("the sea ж")
    session.rewind(1)
    assert session.text == "the sea \ufffd"
    pieces = session.sample(max_new_tokens=20, seed=seed, stop=stop)
    yielded = "".join(piece.text for piece in islice(pieces, count))
    pieces.close()
    assert session.text == ("the sea " + yielded if yielded else "the sea \ufffd")


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_a_stop_string_is_left_out_of_the_text(kind):
    model = make(kind=kind)
    free = model.session()
    free.feed("the sea")
    text = sampled(free, max_new_tokens=60, seed=3)
    for stop in {text[9:10], text[20:22], text[-1:]}:
        session = model.session()
        session.feed("the sea")
        text_before_stop = sampled(session, max_new_tokens=60, seed=3, stop=[stop])
        assert text_before_stop == text.split(stop)[0]
        assert session.text == "the sea" + text_before_stop
        fresh = model.session()
        fresh.feed(session.text)
        ours, theirs = ({t: p for _, t, p in s.next(400)} for s in (session, fresh))
        if session.tokens == fresh.tokens:
            assert ours == pytest.approx(theirs, abs=1e-5)


def test_the_possible_start_of_a_stop_string_is_yielded_at_the_end():
    session = MODEL.session()
    text = sampled(session, max_new_tokens=1, seed=1)
    session.rewind(1)
    assert sampled(session, max_new_tokens=1, seed=1, stop=[text + "@@"]) == text
    session.rewind(1)
    choices = [text + "a", text + "b"]
    assert sampled(session, choices=choices, seed=1, stop=["a@", "b@"]) in choices


def test_save_and_load(tmp_path):
    session = MODEL.session()
    session.feed("the sea")
    sampled(session, max_new_tokens=20, seed=2)
    session.save(tmp_path / "scene.session")
    loaded = Session.load(MODEL, tmp_path / "scene.session")
    assert loaded.text == session.text
    assert loaded.next(5) == session.next(5)
    assert sampled(loaded, max_new_tokens=20, seed=3) == sampled(session, max_new_tokens=20, seed=3)
    loaded.rewind(30)
    with pytest.raises(ModelError, match="another model"):
        Session.load(make(seed=2), tmp_path / "scene.session")
    content = (tmp_path / "scene.session").read_bytes()
    for damaged in (content[:50], b"", b"x" * 200):
        (tmp_path / "cut").write_bytes(damaged)
        with pytest.raises(ModelError, match="not a readable session"):
            Session.load(MODEL, tmp_path / "cut")


def test_a_session_that_cannot_be_written_is_an_error_of_one_line(tmp_path):
    with pytest.raises(
        UserError, match=r"^cannot write no/a: No such file or directory; choose an existing, "
    ):
        MODEL.session().save("no/a")


def test_an_empty_session_can_be_saved(tmp_path):
    MODEL.session().save(tmp_path / "empty")
    loaded = Session.load(MODEL, tmp_path / "empty")
    assert loaded.text == "" and loaded.next(5) == MODEL.session().next(5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tokens", torch.tensor([0, 10**6])),
        ("tokens", torch.tensor([0, -1])),
        ("tokens", torch.tensor([], dtype=torch.int64)),
        ("tokens", torch.tensor([[0], [1]])),
        ("tokens", torch.tensor([0.5])),
        ("state.0", torch.zeros(1, 1, 7)),
        ("state.1", torch.zeros(2, 1, 24, dtype=torch.float64)),
        ("state.1", None),
        ("state.2", torch.zeros(2, 1, 24)),
        ("more", torch.zeros(1)),
    ],
)
def test_a_damaged_session_is_a_model_error(tmp_path, name, value):
    path = tmp_path / "scene.session"
    MODEL.session().save(path)
    tensors, metadata = read_tensors(path), read_metadata(path)
    tensors = {key: tensor for key, tensor in {**tensors, name: value}.items() if tensor is not None}
    damaged = tmp_path / "damaged.session"  # tensors that were read use their file
    write_tensors(damaged, tensors, metadata)
    with pytest.raises(ModelError, match=r"damaged|not a readable session"):
        Session.load(MODEL, damaged)


@pytest.mark.parametrize("session", ["", "1", "[]", "{}", '{"model": 1}', "[" * 10_000, None])
def test_metadata_of_another_kind_is_a_model_error(tmp_path, session):
    path = tmp_path / "scene.session"
    MODEL.session().save(path)
    damaged = tmp_path / "damaged.session"
    write_tensors(damaged, read_tensors(path), {"other": "a"} if session is None else {"session": session})
    with pytest.raises(ModelError, match="not a readable session"):
        Session.load(MODEL, damaged)


def test_invalid_calls_are_user_errors():
    session = MODEL.session()
    session.feed("the")
    with pytest.raises(UserError, match="cannot remove 4 tokens: the text has 3"):
        session.rewind(4)
    with pytest.raises(UserError, match=r"^this model reads right to left and cannot continue a text: use"):
        make(direction="backward").session()
    with pytest.raises(UserError, match="does not know"):
        session.feed("ß", unknown="error")
    with pytest.raises(UserError, match="unknown must be one of"):
        session.feed("the", unknown="no")
    for count in ("a", 1.0):
        with pytest.raises(UserError, match="count must be a whole number"):
            session.rewind(count)
        with pytest.raises(UserError, match="count must be a whole number"):
            session.next(count)
    with pytest.raises(UserError, match="count must be at least 0"):
        session.next(-1)
    for token in (MODEL.tokenizer.vocab_size, -1, 1.5):
        with pytest.raises(UserError, match="token must be"):
            session.add(token)
    assert session.text == "the" and session.next(1)


def test_constraints_apply_in_a_session():
    session = MODEL.session()
    session.feed("the ")
    assert sampled(session, choices=["calm", "sea"], seed=1, max_new_tokens=20) in ("calm", "sea")
