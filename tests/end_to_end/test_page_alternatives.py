"""The alternatives at a position of the text, in a real browser."""

import pytest

from tests.end_to_end.page import LEVELS, PROMPT, SET_CURSOR, sizes

pytestmark = pytest.mark.browser

OPTIONS = """[...document.querySelectorAll("#alternatives [role=option]")]
    .filter(option => option.checkVisibility())
    .map(option => [...option.children].map(part => part.textContent))"""
# Whether the popover is inside the window and does not cover the line of the marked token.
IS_PLACED_WELL = """() => {
    const box = document.querySelector("#alternatives .popover").getBoundingClientRect();
    const line = document.querySelector("#marked mark").getClientRects()[0];
    return box.height > 100 && box.left >= 0 && box.right <= innerWidth && box.top >= 0
        && box.bottom <= innerHeight && (box.top >= line.bottom || box.bottom <= line.top)
        && line.top >= 0 && line.bottom <= innerHeight;
}"""


def options(page):
    """The displayed alternatives: [(token, probability, continuation), ...]"""
    return page.tab.evaluate(OPTIONS)


def alternatives_at(page, position):
    """The alternatives at a position, requested by keyboard, once they have their continuations."""
    page.tab.evaluate(SET_CURSOR, [position])
    page.editor.press("Control+Space")
    page.wait_for(lambda: is_open_at(page, position))
    return options(page)


def is_open_at(page, position):
    """Whether the popover shows the alternatives at a position with their continuations."""
    start = page.tab.locator("#alternatives .popover").get_attribute("data-start")
    shown = options(page)
    return start == str(position) and shown and all(ahead != "…" for *_, ahead in shown)


@sizes
def test_a_click_shows_alternatives_and_where_they_lead(open_page, server, model, size):
    page = open_page(server, size=size)
    page.editor.fill("The sea was calm")
    page.editor.click(position={"x": 15, "y": 12})
    page.wait_for(lambda: options(page))
    assert page.editor.evaluate("e => e === document.activeElement")
    shown = alternatives_at(page, 4)
    session = model.session()
    session.feed("The ")
    best = session.next(10)
    ahead = session.outlook([token for _, token, _ in best], 15)
    assert shown == [
        [name.replace(" ", "␣"), f"{p:.1%}" if p >= 0.001 else "<0.1%", text.replace("\n", "↵")]
        for (name, _, p), text in zip(best, ahead, strict=True)
    ]
    listbox = page.tab.get_by_role("listbox", name="Instead of “s”, the model considered:")
    assert listbox.evaluate("e => e === document.activeElement")
    assert page.tab.get_by_role("option", selected=True).count() == 1


@sizes
def test_the_popover_is_next_to_the_line_of_the_cursor(open_page, server, size):
    page = open_page(server, size=size)
    text = "The sea was calm and the boat was small. " * 60
    page.editor.fill(text)
    for position in (4, 300, len(text) - 5, 600):
        alternatives_at(page, position)
        assert page.tab.evaluate(IS_PLACED_WELL)
    for distance in (-20, -40):
        page.editor.evaluate("(e, distance) => e.scrollBy(0, distance)", distance)
        page.tab.wait_for_timeout(100)
        assert page.tab.evaluate(IS_PLACED_WELL)
    page.editor.evaluate("e => e.scrollTo(0, e.scrollHeight)")
    page.wait_for(lambda: not options(page))


def test_the_popover_closes_and_the_text_gets_the_focus(page):
    page.editor.fill("The sea was calm")
    focused = "document.activeElement.matches('#text textarea')"
    alternatives_at(page, 4)
    page.tab.keyboard.press("Escape")
    assert not options(page) and page.tab.evaluate(focused)
    alternatives_at(page, 5)
    page.tab.keyboard.press("x")
    page.wait_for(lambda: page.text == "The sxea was calm" and not options(page))
    alternatives_at(page, 4)
    page.tab.locator("#status").click()
    assert not options(page)
    page.editor.click(position={"x": 15, "y": 12})
    page.wait_for(lambda: options(page))
    page.tab.keyboard.press("End")
    page.wait_for(lambda: not options(page))
    page.tab.keyboard.press("Enter")
    page.tab.wait_for_timeout(100)
    assert page.text == "The sxea was calm\n" and not options(page)


@sizes
def test_choosing_an_alternative_continues_from_there_and_undo_restores_the_text(open_page, server, size):
    page = open_page(server, size=size)
    page.set(Length=30, Seed=3)
    page.editor.fill(PROMPT)
    first = page.write()
    position = len(PROMPT) + 10
    names = [name for name, *_ in alternatives_at(page, position)]
    number = next(n for n, name in enumerate(names) if name not in (first[position], "␣", "↵"))
    for _ in range(number):
        page.tab.keyboard.press("ArrowDown")
    page.tab.keyboard.press("Enter")
    page.wait_for(lambda: page.text != first and len(page.text) == position + 31)
    picked = page.at_rest()
    assert picked[: position + 1] == first[:position] + names[number]
    assert not options(page)
    again = page.write(page.regenerate)
    assert again != picked and again[: position + 1] == picked[: position + 1]
    colored = again[len(PROMPT) :].replace("\n", "")
    page.wait_for(lambda: "".join(text for text, _ in page.tab.evaluate(LEVELS)) == colored)
    alternatives_at(page, len(PROMPT) + 5)
    rolled = page.write(page.tab.get_by_role("button", name="Re-roll from here"))
    assert rolled != again and rolled[: len(PROMPT) + 5] == again[: len(PROMPT) + 5]
    for _ in range(3):
        page.write(page.undo)
    assert page.text == first


def test_tokens_are_appended_one_by_one_at_the_end_of_the_text(page):
    page.editor.fill("The se")
    shown = alternatives_at(page, 6)
    title = page.tab.locator("#alternatives-title")
    assert title.inner_text() == "Most likely to come next:"
    assert not page.tab.get_by_role("button", name="Re-roll from here").count()
    assert shown[0][0] == "a"
    for length in (7, 8, 9):
        page.tab.keyboard.press("Enter")
        page.wait_for(lambda length=length: len(page.text) == length)
        page.at_rest()
        page.wait_for(lambda length=length: is_open_at(page, length))
    assert page.text.startswith("The sea ")
    assert page.write(page.undo) == page.text and len(page.text) == 8
    assert not options(page)


def test_markup_and_control_characters_are_shown_as_text(page):
    markup = "<script>alert(1)</script><img src=x onerror=alert(2)> ${alert(3)} {{value}} \x1b[31m"
    page.set(Length=20)
    page.editor.fill(markup)
    page.write()
    assert page.text.startswith(markup)
    alternatives_at(page, 3)
    page.wait_for(lambda: "script" in page.tab.locator("#backdrop").inner_text())
    assert not page.tab.locator("#backdrop script, #backdrop img").count()
