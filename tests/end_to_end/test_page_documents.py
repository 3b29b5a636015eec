"""Documents in a real browser: nothing written is lost, and no tab overwrites the text of another."""

import pytest

from tests.end_to_end.conftest import free_port, serving, until_ready
from tests.end_to_end.documents import COLORS, IN_DATABASE, note, stored, write_some
from tests.end_to_end.page import PROMPT, Page, sizes

pytestmark = pytest.mark.browser

# Random steps; after each of them, every text that was displayed is still one of the versions.
KEEPS_TEXTS = """() => {
    let seed = 1;
    const random = (n) => (seed = (seed * 48271) % 2147483647) % n;
    for (let round = 0; round < 200; round++) {
        const versions = new lm.Versions(), texts = new Set();
        let shown = "";
        for (let step = 0; step < 30; step++) {
            const action = ["type", "write", "undo", "redo", "go"][random(5)], before = shown;
            if (action === "type") { shown += step; continue; }
            if (action === "write") {
                versions.record(shown, "");
                versions.add({ text: `${shown}<${step}>`, bits: "", start: shown.length, seed: step });
            } else if (action === "go") versions.goTo(random(10), shown, "");
            else versions[action](shown, "");
            if (versions.byId.size > 1) texts.add(before);
            shown = versions.current.text;
            const kept = new Set(versions.list.map(({ text }) => text));
            for (const text of texts) if (text && !kept.has(text)) return [round, step, action, text];
        }
    }
    return null;
}"""

# Close the page before a long name, a long text, a setting and another version have been stored. Then
# open the document twice.
KEPT = """async () => {
    const { whole } = lm.documents, name = "n".repeat(195) + " (copy)", text = "x".repeat(4_000_001);
    lm.storage.keep({ ...whole, name, text, bits: "", settings: { length: 50 }, current: 7 });
    await lm.storage.take(whole.id, true);
    const found = await lm.storage.take(whole.id, false);
    return [found.name.length, found.text.length, found.settings.length, found.current];
}"""


@sizes
def test_the_tour_leaves_the_text_and_its_undo_history_alone(open_page, server, size):
    page = open_page(server, size=size)
    text = write_some(page)
    page.tab.locator("#tour").get_by_text("Quick tour").click()
    page.tab.locator("#tour-write").click()
    page.wait_for(lambda: page.text.startswith("def read_config") and len(page.text) > 80)
    page.at_rest()
    page.tab.get_by_role("button", name="Back to my text").click()
    page.wait_for(lambda: page.text == text)
    assert page.write(page.undo) == PROMPT


def test_a_reload_during_the_tour_returns_to_the_text(page):
    text = write_some(page)
    page.tab.locator("#tour").get_by_text("Quick tour").click()
    page.tab.locator("#tour-write").click()
    page.wait_for(lambda: page.text.startswith("def read_config") and "30 tokens" in page.status)
    page.reload()
    page.wait_for(lambda: page.text == text)


def test_documents_are_stored_again_after_the_database_was_deleted(page):
    page.editor.fill("The first text")
    stored(page)
    page.tab.evaluate("new Promise((done) => (indexedDB.deleteDatabase('lm').onsuccess = () => done()))")
    page.editor.fill("The second text")
    stored(page)
    page.reload()
    page.wait_for(lambda: page.text == "The second text")


@sizes
def test_two_tabs_have_documents_of_their_own(open_page, server, size):
    first, second = open_page(server, size=size), open_page(server, size=size)
    first.editor.fill("The first text")
    stored(first)
    second.editor.fill("The second text")
    stored(second)
    for page in (first, second):
        page.reload()
    first.wait_for(lambda: first.text == "The first text")
    second.wait_for(lambda: second.text == "The second text")


def test_a_document_that_is_open_in_another_tab_is_opened_as_a_copy(open_page, server):
    first, second = open_page(server), open_page(server)
    first.editor.fill("Written in the first tab")
    stored(first)
    second.tab.locator("#document-open").click()
    item = second.tab.locator("#documents li").filter(has_text="Written in the first tab")
    assert "open in another tab" in item.inner_text()
    assert item.get_by_role("button", name="Delete").is_disabled()
    item.locator(".document").click()
    second.wait_for(lambda: second.text == "Written in the first tab")
    second.editor.fill("Changed in the second tab")
    stored(second)
    first.reload()
    first.wait_for(lambda: first.text == "Written in the first tab")


def test_a_document_that_another_tab_has_taken_over_goes_on_as_a_copy(open_page, server):
    """As if the first tab had been frozen, so that it could not answer."""
    first, second = open_page(server), open_page(server)
    first.editor.fill("Written in the first tab")
    stored(first)
    document = first.tab.evaluate("lm.documents.facts.id")
    second.tab.evaluate(
        "(id) => lm.storage.take(id, true).then((found) => lm.documents.open(found))", document
    )
    second.editor.fill("Changed in the second tab")
    stored(second)
    first.editor.fill("Changed in the first tab")
    stored(first)
    assert "continues here as a copy" in note(first)
    for page, text in ((first, "Changed in the first tab"), (second, "Changed in the second tab")):
        page.reload()
        page.wait_for(lambda page=page, text=text: page.text == text)


@sizes
def test_text_colors_versions_model_and_settings_survive_a_reload(open_page, server, size):
    page = open_page(server, size=size)
    page.tab.locator("#model input").click()
    page.tab.get_by_role("option", name="other").click()
    page.set(Seed=5)
    page.tab.get_by_label("Creative").click()
    first = write_some(page)
    second = page.write()
    colors = page.tab.evaluate(COLORS)
    page.reload()
    page.wait_for(lambda: page.text == second and page.undo.is_enabled())
    assert page.tab.evaluate(COLORS) == colors and colors
    assert "other" in page.tab.locator("#model input").input_value()
    assert page.tab.get_by_label("Seed", exact=True).input_value() == "5"
    assert page.tab.get_by_label("Creative").is_checked()
    assert page.generate.inner_text() == "Continue"
    another = page.write(page.regenerate)
    assert another.startswith(first) and another != second
    assert page.write(page.undo) == second
    assert page.write(page.undo) == first
    assert page.write(page.tab.locator("#redo")) == second


def test_everything_is_there_after_the_server_was_killed_while_writing(context, tmp_path, trained_run):
    port = free_port()
    arguments = ("--models", trained_run.parent, "--port", port)
    with serving(tmp_path, *arguments) as server:
        page = Page(context.new_page())  # not `open_page`: a server that is gone is an error in the console
        page.tab.goto(until_ready(server).address)
        page.tab.locator("#facts table").first.wait_for()
        first = write_some(page)
        page.set(Length=20_000, Top_p=0.9)
        page.generate.click()
        page.wait_for(lambda: len(page.text) > len(first) + 200)
        server.process.kill()
        server.process.wait(timeout=10)
        page.wait_for_message("The server does not answer. This page reloads as soon as it does.")
        written = page.text
        page.tab.evaluate("window.isOld = true")
    with serving(tmp_path, *arguments) as server:
        until_ready(server)
        page.tab.wait_for_function("!window.isOld")  # it has reloaded
        page.wait_for(lambda: page.text == written and page.undo.is_enabled())
        page.set(Length=20)
        assert page.write().startswith(written)
        page.write(page.undo)
        assert page.write(page.undo) == first
    page.tab.close()


def test_a_document_that_was_deleted_elsewhere_is_stored_with_all_its_versions(page):
    first = write_some(page)
    stored(page)
    page.tab.evaluate("lm.storage.delete(lm.documents.facts.id)")
    second = page.write()
    stored(page)
    page.reload()
    page.wait_for(lambda: page.text == second and page.undo.is_enabled())
    assert page.write(page.undo) == first


def test_all_that_was_typed_just_before_closing_is_kept(page):
    page.editor.fill("A text")
    stored(page)
    assert page.tab.evaluate(KEPT) == [200, 4_000_001, 50, 0]


def test_a_damaged_document_gives_a_new_one_and_one_line(page):
    page.editor.fill("A text that will be damaged")
    stored(page)
    page.tab.evaluate(
        IN_DATABASE, "for (const id of [lm.documents.facts.id]) stores[0].put({ links: 5, text: [] }, id)"
    )
    page.reload()
    page.wait_for(lambda: note(page) == "The stored document is damaged, so this is a new one.")
    assert page.text == ""
    assert write_some(page)
    stored(page)


def test_a_browser_that_does_not_store_anything_says_so_and_works(open_page, server):
    page = open_page(server)
    page.tab.add_init_script(
        "for (const name of ['indexedDB', 'localStorage', 'sessionStorage'])"
        " Object.defineProperty(window, name, { get() { throw new DOMException('no', 'SecurityError'); } });"
        "BroadcastChannel = class { constructor() { throw new DOMException('no', 'SecurityError'); } };"
    )
    page.reload()
    page.tab.locator("#facts table").first.wait_for()
    text = write_some(page)
    page.wait_for(lambda: "does not store documents" in note(page))
    page.set(Top_p=0.5)
    page.wait_for(page.tab.get_by_label("Custom").is_checked)
    assert page.write(page.undo) == PROMPT and page.write(page.tab.locator("#redo")) == text


@sizes
def test_the_list_of_documents(open_page, server, size):
    page = open_page(server, size=size)
    page.editor.fill("The first line\nand a second")
    page.tab.locator("#document-create").click()
    page.wait_for(lambda: page.text == "")
    page.editor.fill("Another text")
    page.tab.get_by_label("Name of the document").fill("My novel")
    page.wait_for(lambda: page.tab.evaluate("lm.documents.facts.name") == "My novel")
    page.tab.locator("#document-open").click()
    items = page.tab.locator("#documents li")
    item = items.filter(has_text="The first line")
    assert (
        "27 characters" in item.inner_text() and "open here" in items.filter(has_text="My novel").inner_text()
    )
    page.tab.keyboard.press("Control+Enter")
    page.tab.wait_for_timeout(100)
    assert page.stop.is_disabled()  # the model does not write behind the list
    item.get_by_role("button", name="Delete").click()
    item.get_by_role("button", name="Undo").click()
    item.locator(".document").click()
    page.wait_for(lambda: page.text == "The first line\nand a second")
    page.tab.locator("#document-open").click()
    items.filter(has_text="My novel").get_by_role("button", name="Delete").click()
    items.get_by_text("Deleted: My novel").wait_for()
    page.tab.keyboard.press("Escape")
    page.tab.locator("#document-open").click()
    page.wait_for(lambda: not items.filter(has_text="My novel").count())
    assert items.filter(has_text="The first line").count() == 1


def test_no_displayed_text_is_missing_from_the_versions(page):
    assert page.tab.evaluate(KEEPS_TEXTS) is None


def test_a_long_story_continues(page):
    story = "The sea was calm and the boat went home.\n" * 1500
    page.tab.evaluate("(text) => { lm.editor.set(text, ''); }", story)
    page.set(Length=20)
    assert page.write().startswith(story)
    again = page.write()
    page.reload()
    page.wait_for(lambda: page.text == again)
    assert page.write().startswith(again)
    page.tab.evaluate("lm.editor.set('x'.repeat(1_000_001), '')")
    page.generate.click()
    page.wait_for_message("more than the maximum of 1,000,000")
