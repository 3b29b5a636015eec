"""Documents that are saved as files, exported and opened again, in a real browser."""

import json
import math

import pytest

from tests.end_to_end.documents import COLORS, IN_DATABASE, note, stored, write_some
from tests.end_to_end.page import PROMPT, sizes

pytestmark = pytest.mark.browser


@sizes
def test_save_copy_and_export_and_what_was_exported_opens_again(open_page, server, tmp_path, size):
    page = open_page(server, size=size)
    text = write_some(page)
    page.set(Seed=11)
    colors = page.tab.evaluate(COLORS)
    with page.tab.expect_download() as saved:
        page.tab.locator("#document-save").click()
    assert saved.value.path().read_text() == text and saved.value.suggested_filename.endswith(".txt")
    page.tab.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    page.tab.locator("#document-copy").click()
    page.wait_for(lambda: note(page) == "Copied.")
    assert page.tab.evaluate("window.copied") == text
    session = tmp_path / "session.json"
    content = export_to(session, page)
    assert content["text"] == text and content["settings"]["seed"] == 11 and len(content["versions"]) == 2
    page.tab.locator("#document-create").click()
    page.wait_for(lambda: page.text == "")
    page.set(Seed=12)
    open_file(page, session)
    page.wait_for(lambda: page.text == text)
    page.wait_for(lambda: page.tab.get_by_label("Seed", exact=True).input_value() == "11")
    assert page.tab.evaluate(COLORS) == colors
    assert page.write(page.undo) == PROMPT


def export_to(path, page):
    with page.tab.expect_download() as exported:
        page.tab.locator("#document-export").click()
    exported.value.save_as(path)
    return json.loads(path.read_text())


def test_documents_keep_the_surprisal_of_each_token(page, model, tmp_path):
    text = write_some(page, 60)
    expected = [-score.logprob / math.log(2) for score in model.score(text)[len(PROMPT) :]]
    page.reload()
    page.wait_for(lambda: page.text == text)
    content = export_to(tmp_path / "session.json", page)
    for document in (content, content["versions"][-1]):
        bits = document["bits"]
        assert bits[: len(PROMPT)] == " " * len(PROMPT)
        exact = [(ord(mark) - 0xE000) / 100 for mark in bits[len(PROMPT) :]]
        assert exact == pytest.approx(expected, abs=0.006)


def test_documents_and_sessions_with_whole_bits_still_open(page, tmp_path):
    link = {"id": 0, "start": 12, "seed": 1, "model": "boat", "parent": None, "previous": None, "next": None}
    text, marks = "The sea was calm", " " * 12 + "\ue000\ue1f4\ue384\ue000"
    typed = {"text": text, "levels": " " * 12 + "0590"}
    content = json.dumps({**typed, "settings": {}, "links": [link], "current": 0})
    page.editor.fill("A document")
    stored(page)
    page.tab.evaluate(
        IN_DATABASE,
        f"const [contents, , texts] = stores, {{ id }} = lm.documents.facts; contents.put({content}, id);"
        f" texts.put({json.dumps(list(typed.values()))}, [id, 0]);",
    )
    page.reload()
    page.wait_for(lambda: page.text == text)
    assert page.tab.evaluate(COLORS) == ["c0", "a5", "l9", "m0"]
    path = tmp_path / "session.json"
    session = {"format": "lm document", "version": 1, **typed, "versions": [{**link, **typed}], "current": 0}
    path.write_text(json.dumps(session))
    page.tab.locator("#document-create").click()
    page.wait_for(lambda: page.text == "")
    open_file(page, path)
    page.wait_for(lambda: page.text == text)
    exported = export_to(path, page)
    assert exported["bits"] == exported["versions"][0]["bits"] == marks


def open_file(page, path):
    page.tab.locator("#document-open").click()
    page.tab.locator("#documents[open]").wait_for()
    page.tab.locator("#documents input[type=file]").set_input_files(path)


@pytest.mark.parametrize(
    "content",
    [
        '{"format": "lm document"',
        '{"format": "lm document", "version": 0, "text": ""}',
        '{"format": "lm document", "version": 1.5, "text": ""}',
        '{"format": "lm document", "version": "2", "text": ""}',
        '{"format": "lm document", "version": 1, "text": 5, "versions": []}',
        '{"format": "lm document", "version": 1, "text": "", "versions": [{"id": 0, "text": []}]}',
        "a\0b",
    ],
)
def test_a_file_that_is_not_a_document_is_one_line(page, tmp_path, content):
    path = tmp_path / "file.json"
    path.write_text(content)
    page.editor.fill("My text")
    open_file(page, path)
    page.wait_for(lambda: note(page) == "file.json is neither a text nor an exported session.")
    assert page.text == "My text"


def test_a_document_of_a_newer_version_is_one_line(page, tmp_path):
    (tmp_path / "file.json").write_text('{"format": "lm document", "version": 3, "text": ""}')
    page.editor.fill("My text")
    open_file(page, tmp_path / "file.json")
    page.wait_for(lambda: note(page) == "file.json is from a newer version of this page: update the server.")
    assert page.text == "My text"


def test_a_text_is_opened_as_it_is_or_not_at_all(page, tmp_path):
    for encoding in ("utf-16", "utf-8-sig"):
        (tmp_path / "story.txt").write_bytes("Café über 中\r\n".encode(encoding))
        open_file(page, tmp_path / "story.txt")
        page.wait_for(lambda: page.text == "Café über 中\n")
        page.tab.locator("#document-create").click()
        page.wait_for(lambda: page.text == "")
    (tmp_path / "story.txt").write_bytes("Café".encode("cp1252"))
    open_file(page, tmp_path / "story.txt")
    page.wait_for(lambda: note(page).startswith("story.txt is not in UTF-8"))
    (tmp_path / "long.txt").write_text("x" * 1_000_001)
    open_file(page, tmp_path / "long.txt")
    page.wait_for(lambda: note(page) == "long.txt has 1,000,001 characters; a document can have 1,000,000.")
    assert page.text == ""
