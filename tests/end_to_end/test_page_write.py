"""The Write tab in a real browser: colors, alternatives, candidates, versions and sampling controls."""

import math
import re

import pytest

import lm
from tests.end_to_end.page import DESKTOP, LAPTOP, PHONE, PROMPT, sizes

pytestmark = pytest.mark.browser

LEVELS = (
    "[...document.querySelectorAll('#backdrop [data-level]')].map(e => [e.textContent, +e.dataset.level])"
)
ALIGNED = """() => {
    const text = document.querySelector("#text textarea"), backdrop = document.querySelector("#backdrop");
    const last = backdrop.lastElementChild, padding = parseFloat(getComputedStyle(text).paddingBottom);
    const end = () => last.offsetTop + last.offsetHeight + padding;
    return backdrop.innerText.replace(/\\n$/, "") === text.value.replace(/\\n$/, "")
        && (text.scrollHeight === text.clientHeight || Math.abs(end() - text.scrollHeight) < 2)
        && backdrop.scrollTop === text.scrollTop;
}"""
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
SET_CURSOR = """([position]) => {
    const text = document.querySelector("#text textarea");
    text.focus(); text.setSelectionRange(position, position);
}"""


@pytest.fixture(scope="module")
def model(trained_run):
    return lm.load(trained_run, device="cpu")


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


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_generated_characters_are_colored_by_surprisal(open_page, server, model, size):
    page = open_page(server, size=size)
    page.set(Length=300, Seed=5)
    page.editor.fill(PROMPT)
    text = page.write()
    scores = model.score(text)[len(PROMPT) :]
    # Line breaks have no width to color.
    levels = [min(9, int(-s.logprob / math.log(2))) for s in scores if s.text != "\n"]

    def painted():
        return [level for part, level in page.tab.evaluate(LEVELS) for _ in part]

    page.wait_for(lambda: len(painted()) == len(levels))
    assert (
        sum(a != b for a, b in zip(painted(), levels, strict=True)) <= 2
    )  # rounding at the boundary between two levels
    assert len(set(painted())) > 3
    page.wait_for(lambda: page.tab.evaluate(ALIGNED))
    page.editor.evaluate("e => e.scrollTop = 40")
    page.wait_for(lambda: page.tab.evaluate(ALIGNED))


def test_typing_removes_the_colors_after_it_and_a_checkbox_all_of_them(page):
    page.set(Length=100, Seed=5)
    page.editor.fill(PROMPT)
    page.write()
    page.tab.evaluate(SET_CURSOR, [len(PROMPT) + 40])
    page.editor.press("x")
    kept = len(page.text[len(PROMPT) : len(PROMPT) + 40].replace("\n", ""))
    page.wait_for(lambda: len("".join(t for t, _ in page.tab.evaluate(LEVELS))) == kept)
    first = "document.querySelector('#backdrop [data-level]:not([data-level=\"0\"])')"
    color = f"getComputedStyle({first}).backgroundColor"
    assert page.tab.evaluate(color) != "rgba(0, 0, 0, 0)"
    page.tab.get_by_label("Highlight unlikely tokens").uncheck()
    page.wait_for(lambda: page.tab.evaluate(color) == "rgba(0, 0, 0, 0)")


def test_a_click_shows_alternatives_with_their_probabilities_and_where_they_lead(page, model):
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


def test_choosing_an_alternative_continues_from_there_and_undo_restores_the_text(page):
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


@pytest.mark.parametrize(
    "size", [DESKTOP, pytest.param(LAPTOP, marks=pytest.mark.slow)], ids=["desktop", "laptop"]
)
def test_candidates_are_side_by_side_and_the_chosen_one_becomes_the_text(open_page, server, size):
    page = open_page(server, size=size)
    page.set(Length=40, Seed=7, Candidates=3)
    page.editor.fill(PROMPT)
    page.generate.click()
    boxes = page.tab.locator("#candidates textarea:visible")
    page.wait_for(lambda: boxes.count() == 3 and all(len(b.input_value()) == 40 for b in boxes.all()))
    page.at_rest()
    assert page.text == PROMPT
    texts = [box.input_value() for box in boxes.all()]
    assert len(set(texts)) == 3
    bottom = page.tab.viewport_size["height"]
    for part in (*boxes.all(), *page.tab.locator(".candidate button").all()):
        box = part.bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= bottom
    page.tab.locator("#take-2").click()
    page.wait_for(lambda: page.text == PROMPT + texts[1])
    page.at_rest()
    assert not boxes.count()
    page.set(Candidates=1, Seed=8)
    page.write(page.undo)
    assert page.write() == PROMPT + texts[1]  # generated with the second seed


def test_undo_and_redo_keys_apply_to_generated_and_typed_text(page):
    page.set(Length=20, Seed=7)
    page.editor.fill(PROMPT)
    first = page.write()
    page.tab.evaluate(SET_CURSOR, [len(first)])
    page.tab.keyboard.type("!")
    page.editor.press("Control+z")  # the browser undoes typing
    page.wait_for(lambda: page.text == first)
    page.editor.press("Control+z")
    page.wait_for(lambda: page.text == PROMPT)
    page.wait_for(lambda: page.tab.locator("#redo").is_enabled())
    page.editor.press("Control+Shift+z")
    page.wait_for(lambda: page.text == first)


def test_returning_to_another_branch(page):
    page.set(Length=20, Seed=7)
    page.editor.fill(PROMPT)
    first = page.write()
    second = page.write(page.regenerate)
    page.tab.get_by_role("button", name="Versions").click()
    branches = page.tab.locator("#version label")
    page.wait_for(lambda: branches.count() == 2)
    branches.filter(has_text=" ".join(first[-40:].split())).first.click()
    page.wait_for(lambda: page.text == first)
    assert page.at_rest() == first != second


def test_the_text_survives_a_reload(page):
    page.set(Length=20)
    page.editor.fill(PROMPT)
    text = page.write()
    page.editor.press("End")
    page.tab.keyboard.type(" and more")
    text = page.text
    page.reload()
    page.wait_for(lambda: page.text == text)
    page.set(Length=5)
    assert page.write().startswith(text)


def test_presets_set_the_controls_and_custom_settings_are_stored(page):
    temperature = page.tab.get_by_label("number input for Temperature", exact=True)
    page.tab.get_by_label("Creative").click()
    page.wait_for(lambda: temperature.input_value() == "1.2")
    page.tab.get_by_label("Precise").click()
    page.wait_for(lambda: temperature.input_value() == "0.5")
    temperature.fill("0.35")
    temperature.press("Tab")
    page.wait_for(lambda: page.tab.get_by_label("Custom").is_checked())
    page.reload()
    page.wait_for(lambda: page.tab.get_by_label("Balanced").is_checked())
    page.tab.get_by_label("Custom").click()
    page.wait_for(lambda: temperature.input_value() == "0.35")


def test_every_control_reaches_the_sampler(page):
    page.tab.get_by_role("button", name="More controls").click()
    page.set(Length=200)
    page.tab.get_by_label("Must match").fill("[!%]+")  # the model has no such characters
    page.editor.fill(PROMPT)
    page.generate.click()
    page.wait_for_message("No token is allowed")
    page.at_rest()
    page.tab.get_by_label("Must match").fill("(calm|find){50}")
    assert re.fullmatch(r"(calm|find){50}", page.write()[len(PROMPT) :])
    page.write(page.undo)
    page.tab.get_by_label("Never write").fill("f")
    page.tab.get_by_label("Stop at").fill("mc")
    assert page.write() == PROMPT + "cal"


def test_markup_and_control_characters_are_shown_as_text(page):
    markup = "<script>alert(1)</script><img src=x onerror=alert(2)> ${alert(3)} {{value}} \x1b[31m"
    page.set(Length=20)
    page.editor.fill(markup)
    page.write()
    assert page.text.startswith(markup)
    alternatives_at(page, 3)
    page.wait_for(lambda: "script" in page.tab.locator("#backdrop").inner_text())
    assert not page.tab.locator("#backdrop script, #backdrop img").count()


def test_a_chinese_browser_shows_chinese(open_page, server):
    page = open_page(server, locale="zh-CN")
    button = page.tab.get_by_role("button", name="生成", exact=True)
    button.wait_for()
    page.tab.locator("#length input").fill("20")
    page.editor = page.tab.locator("#text textarea")
    page.editor.fill(PROMPT)
    button.click()
    page.wait_for(lambda: "20 个词元" in page.status)
    page.wait_for(lambda: page.generate.inner_text() == "继续")
    page.editor.fill(PROMPT + "☃")
    page.generate.click()
    page.wait_for_message("模型不认识")
    page.at_rest()


def test_the_first_tokens_come_quickly(page):
    """With a wide margin, since other tests share the machine; docs/benchmarks.md has measurements."""
    page.set(Length=20_000)
    page.editor.fill(PROMPT)
    seconds = page.tab.evaluate("""() => new Promise((done) => {
        const text = document.querySelector("#text textarea"), before = text.value;
        const begin = performance.now(), seconds = () => (performance.now() - begin) / 1000;
        document.querySelector("#generate").click();
        const look = () => text.value !== before ? done(seconds()) : setTimeout(look, 1);
        look();
    })""")
    page.stop.click()
    page.at_rest()
    assert seconds < 3


def test_invalid_stored_settings_are_ignored(page):
    page.tab.evaluate("localStorage.setItem('lm.own', '{\"nonsense')")
    page.reload()
    page.tab.get_by_label("Custom").click()
    page.set(Length=5)
    page.editor.fill(PROMPT)
    assert len(page.write()) > len(PROMPT)


def test_text_copied_from_the_training_data_is_underlined(page, text_file):
    copied = text_file.read_text()[1000:1060]
    page.editor.fill(f"The sea ☃{copied}☃ was calm")
    page.tab.get_by_label("Underline text copied from the training data").check()
    marked = page.tab.locator("#backdrop .copied")
    page.wait_for(lambda: "".join(marked.all_inner_texts()) == copied.replace("\n", ""))
    page.tab.get_by_label("Underline text copied from the training data").uncheck()
    page.wait_for(lambda: marked.count() == 0)
