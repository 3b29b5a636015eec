"""The page as the browser tests use it."""

import time

import pytest

PHONE = {"width": 390, "height": 844}
LAPTOP = {"width": 1366, "height": 768}
DESKTOP = {"width": 1440, "height": 900}
PROMPT = "The sea was "
# The colored pieces of the text, each with its level.
LEVELS = (
    "[...document.querySelectorAll('#backdrop [data-level]')].map(e => [e.textContent, +e.dataset.level])"
)
SET_CURSOR = """([position]) => {
    const text = document.querySelector("#text textarea");
    text.focus(); text.setSelectionRange(position, position);
}"""
# A test for each of these sizes; by default, only for the first.
sizes = pytest.mark.parametrize(
    "size",
    [DESKTOP, *(pytest.param(size, marks=pytest.mark.slow) for size in (LAPTOP, PHONE))],
    ids=["desktop", "laptop", "phone"],
)
# A test for each of these looks of the page; by default, only for the last.
looks = pytest.mark.parametrize(
    ("size", "theme"),
    [
        pytest.param(DESKTOP, "light", marks=pytest.mark.slow),
        pytest.param(DESKTOP, "dark", marks=pytest.mark.slow),
        pytest.param(PHONE, "light", marks=pytest.mark.slow),
        (PHONE, "dark"),
    ],
    ids=["desktop, light", "desktop, dark", "phone, light", "phone, dark"],
)


class Page:
    """What a user sees and does on a page."""

    def __init__(self, tab, troubles=None):
        self.tab, self.troubles = tab, [] if troubles is None else troubles
        self.generate, self.stop = tab.locator("#generate"), tab.locator("#stop")
        self.undo, self.regenerate = tab.locator("#undo"), tab.locator("#regenerate")
        self.editor = tab.get_by_role("textbox", name="Text", exact=True)

    @property
    def text(self):
        return self.editor.input_value()

    def reload(self):
        """Reload the page. That Gradio's requests are aborted is no trouble."""
        before = len(self.troubles)
        self.tab.reload()
        del self.troubles[before:]

    @property
    def status(self):
        return self.tab.locator("#status").inner_text().strip()

    def go_to(self, tab):
        """Open a tab; on a phone, some are in a menu."""
        if self.tab.get_by_role("tab", name=tab, exact=True).count():
            return self.tab.get_by_role("tab", name=tab, exact=True).click()
        self.tab.get_by_role("button", name="More tabs").first.click()  # Look inside has one, too
        self.tab.locator(".overflow-dropdown").get_by_role("button", name=tab, exact=True).click()

    def choose_model(self, name, dropdown="#model"):
        """Select a model, whose label begins with its name."""
        self.tab.locator(f"{dropdown} input").click()
        option = self.tab.get_by_role("listbox").locator(f'[role=option][aria-label^="{name} · "]')
        option.click()
        self.wait_for(lambda: not option.count())  # the list takes a moment to close

    def chosen_model(self, dropdown="#model"):
        return self.tab.locator(f"{dropdown} input").input_value().split(" · ")[0]

    def set(self, **fields):
        names = {"Top_p": "number input for Top-p"}
        for field, value in fields.items():
            self.tab.get_by_label(names.get(field, field), exact=True).fill(str(value))

    def wait_for(self, condition, seconds=30.0):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, (self.status, self.messages())
            self.tab.wait_for_timeout(40)

    def at_rest(self):
        self.wait_for(lambda: self.generate.is_enabled() and not self.stop.is_enabled())
        return self.text

    def write(self, button=None):
        """Press a button (Generate by default), wait until generation is finished, return the text."""
        before = self.text
        (button or self.generate).click()
        self.wait_for(lambda: self.text != before)
        return self.at_rest()

    def start_long_generation(self):
        """Start a generation that takes longer than a test, and wait for its first tokens."""
        self.set(Length=20_000, Top_p=0.9)
        self.editor.fill(PROMPT)
        self.generate.click()
        self.wait_for(lambda: len(self.text) > len(PROMPT))

    def look_into(self, text):
        """Analyze a text in the Look inside tab, which is open."""
        self.tab.locator("#inside-view [data-index]").first.wait_for()  # the example
        self.tab.locator("#inside-edit").click()
        self.tab.locator("#inside-text textarea").fill(text)
        self.tab.locator("#inside-look").click()

    def messages(self):
        return " ".join(self.tab.locator(".toast-body").all_inner_texts())

    def wait_for_message(self, part, seconds=30.0):
        self.wait_for(lambda: part in self.messages(), seconds)
