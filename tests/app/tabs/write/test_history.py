"""The versions of a text: nothing that was displayed is lost, and each version can be continued."""

import pytest
from hypothesis import given, settings, strategies as st

from app.draft import Draft
from app.tabs.write.history import Histories, History, Version
from lm.config.schema import ModelConfig
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import train_tokenizer


def generate(history, text, end, seed=1):
    """What a generation does to a history."""
    history.record(text)
    history.add(Version(typed=text + end, parent=history.current, seed=seed))


def test_undo_and_redo_step_through_the_versions():
    history = History()
    generate(history, "a", "b")
    generate(history, "ab", "c")
    assert [history.undo(history.current.text).text for _ in range(4)] == ["ab", "a", "a", "a"]
    assert [history.redo(history.current.text).text for _ in range(3)] == ["ab", "abc", "abc"]


def test_redo_restores_edits_after_a_generation():
    history = History()
    generate(history, "a", "b")
    assert history.undo("abX").text == "ab"
    assert history.redo("ab").text == "abX"


def test_continuing_an_earlier_version_makes_a_branch_to_return_to():
    history = History()
    generate(history, "a", "b")
    history.undo("ab")
    generate(history, "a", "c")
    assert [version.text for _, version in history.branches()] == ["ac", "ab"]
    number = next(n for n, version in history.branches() if version.text == "ab")
    assert history.go_to(number, "ac").text == "ab"
    assert history.go_to(10**6, "ab").text == "ab"


def test_a_generated_end_is_found_from_the_edits_after_it():
    history = History()
    history.record("a")
    assert history.last_generated() is None
    generate(history, "a", "b")
    generated = history.current
    history.record("abX")
    history.record("Y")
    assert history.last_generated() is generated


def test_a_text_that_replaces_an_end_is_a_branch_next_to_it():
    history = History()
    generate(history, "a", "b")
    generate(history, "ab", "c")
    history.add(Version(typed="aX", parent=history.beginning_of("aX"), seed=2))
    assert [version.text for _, version in history.branches()] == ["aX", "abc"]


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_a_version_starts_over_with_the_tokens_that_it_kept(kind):
    tokenizer = train_tokenizer(kind, iter(["the sea was calm " * 20]), 300)
    config = ModelConfig(hidden_size=8)
    model, other = (LanguageModel(RecurrentLM(config, tokenizer.vocab_size), tokenizer) for _ in range(2))
    draft = Draft(model).with_text("the sea was calm")
    list(draft.write(seed=1, max_new_tokens=5))
    start = draft.with_token(4, draft.alternatives(4).tokens[3][1])
    end = start.fork()
    list(end.write(seed=2, max_new_tokens=5))
    version = Version(end, seed=2, kept=len(start.session))
    assert version.start(model).session.tokens == start.session.tokens
    assert (version.start(model).text, version.start(model).levels) == (start.text, start.levels)
    assert version.start(other).text == start.text and version.start(other).model is other


@given(st.lists(st.tuples(st.sampled_from(["type", "generate", "undo", "redo", "go"]), st.integers(0, 9))))
@settings(max_examples=100, deadline=None)
def test_every_displayed_text_is_kept(steps):
    history, shown, texts = History(), "", {""}
    for action, n in steps:
        if action == "type":
            shown += str(n)
            continue
        if action == "generate":
            generate(history, shown, f"<{n}>")
        elif action == "go":
            history.go_to(n, shown)
        else:
            before = shown
            getattr(history, action)(shown)
            assert before in {version.text for version in history.versions}
        shown = history.current.text
        if len(history.versions) > 1:  # the first text typed has no earlier version
            texts.add(shown)
    assert texts - {""} <= {version.text for version in history.versions}
    assert all(v.previous is None or v.previous in history.versions for v in history.versions)


def test_a_long_history_keeps_its_end_and_a_forgotten_one_starts_over():
    histories = Histories()
    history = histories.of("a")
    for number in range(500):
        generate(history, history.current.text, "x", seed=number)
    assert len(history.versions) <= 100 and len(history.current.text) == 500
    assert histories.of("a") is history and histories.of("b") is not history
    histories.forget("a")
    assert histories.of("a").current.text == ""


def test_the_least_recently_used_histories_are_dropped():
    histories = Histories()
    first = histories.of("first")
    for number in range(1000):
        histories.of(f"session {number}")
    assert len(histories) <= 256 and histories.of("first") is not first
