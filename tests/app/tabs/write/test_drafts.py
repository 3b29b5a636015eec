"""What models have read is found again, and dropped when there is too much of it."""

import pytest

import lm
from app.draft import Draft
from app.tabs.write import drafts as module
from app.tabs.write.drafts import Drafts


@pytest.fixture(scope="module")
def model(trained_run):
    return lm.load(trained_run, device="cpu")


def read(model, text):
    return Draft(model).with_text(text)


def test_the_draft_with_most_of_the_beginning_is_found(model):
    drafts, first, second = Drafts(), read(model, "The sea was calm"), read(model, "The boat")
    drafts.keep("a", [first])
    drafts.keep("a", [second])
    assert drafts.closest("a", "The sea", model) is first
    assert drafts.closest("a", "The boat sank", model) is second
    assert drafts.closest("b", "The sea", model).text == ""


def test_a_draft_of_another_model_is_not_used(model, trained_run):
    drafts = Drafts()
    drafts.keep("a", [read(lm.load(trained_run, device="cpu"), "The sea")])
    assert drafts.closest("a", "The sea", model).text == ""


def test_the_older_drafts_of_a_session_and_the_least_recently_used_sessions_are_dropped(model):
    drafts, first = Drafts(), read(model, "The sea")
    drafts.keep("a", [first])
    drafts.keep("a", [read(model, "a boat") for _ in range(4)])
    assert drafts.closest("a", "The sea", model) is first
    drafts.keep("a", [read(model, "a boat")])
    assert drafts.closest("a", "The sea", model).text == "a boat" and drafts.characters == 30
    for number in range(300):
        drafts.keep(f"session {number}", [first])
    assert len(drafts) == 256 and drafts.closest("a", "a boat", model).text == ""
    drafts.forget("session 299")
    assert len(drafts) == 255


def test_the_characters_of_all_drafts_are_limited(model, monkeypatch):
    monkeypatch.setattr(module, "_MAX_CHARACTERS", 20)
    drafts = Drafts()
    for session in "abc":
        drafts.keep(session, [read(model, "The sea was")])
    assert len(drafts) == 1 and drafts.characters == 11
