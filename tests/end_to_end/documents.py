"""What the tests of documents in a browser share."""

from tests.end_to_end.page import PROMPT

COLORS = "[...document.querySelectorAll('#backdrop [data-level]')].map(e => e.textContent + e.dataset.level)"
# Run a function on all stores of the browser's database in one transaction.
IN_DATABASE = """(steps) => new Promise((done, failed) => {
    const request = indexedDB.open("lm");
    request.onerror = failed;
    request.onsuccess = () => {
        const stores = [...request.result.objectStoreNames];
        const transaction = request.result.transaction(stores, "readwrite");
        new Function("stores", steps)(stores.map((name) => transaction.objectStore(name)));
        transaction.oncomplete = () => { request.result.close(); done(); };
    };
})"""


def note(page):
    return page.tab.locator("#document-note").inner_text()


def stored(page):
    """Wait until the document of the page is stored as it is."""
    page.tab.evaluate("() => lm.documents.saveNow()")


def write_some(page, length=30):
    page.set(Length=length)
    page.editor.fill(PROMPT)
    return page.write()
