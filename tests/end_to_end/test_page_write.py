"""The Write tab in a real browser: colors, candidates, versions and sampling controls."""

import math
import re

import pytest

from tests.end_to_end.page import DESKTOP, LAPTOP, LEVELS, PHONE, PROMPT, SET_CURSOR

pytestmark = pytest.mark.browser

ALIGNED = """() => {
    const text = document.querySelector("#text textarea"), backdrop = document.querySelector("#backdrop");
    const last = backdrop.lastElementChild, padding = parseFloat(getComputedStyle(text).paddingBottom);
    const end = () => last.offsetTop + last.offsetHeight + padding;
    return backdrop.innerText.replace(/\\n$/, "") === text.value.replace(/\\n$/, "")
        && (text.scrollHeight === text.clientHeight || Math.abs(end() - text.scrollHeight) < 2)
        && backdrop.scrollTop === text.scrollTop;
}"""

# A long text of short and long lines, all of it written by a model.
SET_COLORED = """(length) => {
    const line = "The sea was calm and the boat went on its way home, ";
    let text = "";
    for (let lines = 0; text.length < length; lines++) text += line.repeat(1 + (lines % 40)) + "\\n";
    const bits = Array.from({ length }, (_, index) => String.fromCharCode(0xe000 + ((index * 71) % 1000)));
    lm.editor.set(text.slice(0, length), bits.join(""));
}"""
# Lengthen the text several times, by an insertion as a user makes it or as a model does: the median number of
# elements that are made for one.
LENGTHEN = """async ([added, times, isTyped]) => {
    const field = document.querySelector("#text textarea"), counts = [];
    const more = Array.from(added, (_, index) => String.fromCharCode(0xe000 + 110 * (index % 9))).join("");
    let count = 0;
    const observer = new MutationObserver((changes) => {
        for (const { addedNodes } of changes) count += addedNodes.length;
    });
    observer.observe(document.querySelector("#backdrop"), { childList: true, subtree: true });
    if (!isTyped) lm.editor.lock();
    for (let time = 0; time < times; time++) {
        const { text, bits } = lm.editor;
        count = 0;
        if (isTyped) {
            field.focus();
            field.setSelectionRange(text.length, text.length);
            document.execCommand("insertText", false, added);
        } else {
            lm.editor.set(text + added, bits.padEnd(text.length) + more);
        }
        await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
        counts.push(count);
    }
    if (!isTyped) lm.editor.unlock();
    observer.disconnect();
    return counts.sort((a, b) => a - b)[times >> 1];
}"""
# Where the backdrop has each letter, and where a copy of the text in one element has it, like the text box.
LETTERS = """() => {
    const backdrop = document.querySelector("#backdrop"), whole = backdrop.cloneNode(false);
    whole.textContent = document.querySelector("#text textarea").value;
    backdrop.before(whole);
    const places = [backdrop, whole].map((copy) => {
        const found = [], nodes = document.createTreeWalker(copy, NodeFilter.SHOW_TEXT), range = new Range();
        while (nodes.nextNode())
            [...nodes.currentNode.data].forEach((letter, index) => {
                if (letter === "\\n") return;
                range.setStart(nodes.currentNode, index);
                range.setEnd(nodes.currentNode, index + 1);
                const { x, y } = range.getBoundingClientRect();
                found.push([x, y]);
            });
        return found;
    });
    whole.remove();
    return places;
}"""
# The lower ends of elements, in pixels from the top of the window.
BOTTOMS = """(selectors) =>
    selectors.map((selector) => document.querySelector(selector).getBoundingClientRect().bottom)"""


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


def test_what_is_typed_while_the_page_loads_stays(open_page, server):
    """The settings of the document are set last. This one has none of its own."""
    page = open_page(server)
    page.tab.add_init_script("""const waiting = setInterval(() => {
        const { documents } = window.lm ?? {};
        if (!documents?.updates) return;
        clearInterval(waiting);
        const updates = documents.updates;
        documents.updates = (...values) => {
            const found = updates(...values), field = document.querySelector("#length input");
            field.value = 17;
            field.dispatchEvent(new Event("input", { bubbles: true }));
            window.typed = true;
            return found;
        };
    });""")
    page.reload()
    page.tab.wait_for_function("window.typed")
    page.tab.wait_for_timeout(500)
    page.write()
    assert "17 tokens" in page.status
    assert page.tab.locator("#length input").first.input_value() == "17"


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


def test_colors_and_underlines_are_behind_their_letters_in_every_direction(page):
    page.tab.evaluate("""() => {
        const text = "the sea שלום\\n" + "שלום 4.4 sea, ".repeat(20) + "\\n\\nمرحبا";
        const bits = Array.from(text, (_, at) => String.fromCharCode(0xe000 + 250 * (at % 3)));
        lm.editor.set(text, bits.join(""));
        lm.editor.underline([[10, 30]]);
    }""")
    colored, written = page.tab.evaluate(LETTERS)
    assert colored == [pytest.approx(place, abs=2) for place in written]  # pixels
    assert len({y for _, y in written}) > 4
    assert page.tab.locator("#backdrop .copied").count() > 10


def test_only_the_end_of_a_long_text_is_colored_again(page):
    page.tab.evaluate(SET_COLORED, 127_900)
    text = page.text
    # A line has up to 2,000 characters, and a level of its own for almost each; only its end is made again.
    assert len(text) - text.rindex("\n") > 1500
    assert 0 < page.tab.evaluate(LENGTHEN, ["x", 15, True]) < 1100
    assert 0 < page.tab.evaluate(LENGTHEN, ["and so on", 15, False]) < 1100
    assert len(page.text) == len(text) + 15 + 15 * 9
    assert page.tab.evaluate(LEVELS)[-1] == ["n", 8]
    page.editor.fill("")
    pasted = text[:40_000]
    assert page.tab.evaluate(LENGTHEN, [pasted, 3, True]) == 0  # what a user writes has no colors
    assert page.text == pasted * 3


def test_buttons_look_like_buttons_with_space_around_their_labels(open_page, server):
    page = open_page(server, size={"width": 683, "height": 600})  # a laptop at 200%
    for button in (page.regenerate, page.tab.locator("#look-inside")):
        room, background = button.evaluate("""(button) => {
            const range = new Range();
            range.selectNodeContents(button);
            const space = button.getBoundingClientRect().width - range.getBoundingClientRect().width;
            return [space, getComputedStyle(button).backgroundColor];
        }""")
        assert room >= 12 and background not in ("rgba(0, 0, 0, 0)", "transparent")


def test_a_message_that_comes_again_is_shown_once(page):
    page.set(Length=2)
    page.editor.fill("☃")
    page.write()
    page.wait_for_message("The model does not know")
    page.editor.fill("☃")
    page.write()
    shown = page.tab.locator(".toast-message-item")
    page.wait_for(lambda: shown.count() == 2)
    page.wait_for(lambda: page.messages().count("does not know") == 1)


@pytest.mark.parametrize(
    "size",
    [LAPTOP, pytest.param(DESKTOP, marks=pytest.mark.slow), PHONE],
    ids=["laptop", "desktop", "phone"],
)
def test_everything_is_in_view_next_to_a_message(open_page, server, size):
    page = open_page(server, size=size)
    page.set(Length=30)
    page.editor.fill(PROMPT + "☃")
    page.write()
    page.write(page.regenerate)
    page.wait_for_message("The model does not know")
    if size == PHONE:
        parts, limit = ["#status", "#versions"], page.generate.bounding_box()["y"]
    else:
        parts, limit = ["#status", "#versions", "#facts table", "#facts .curve"], size["height"]
        assert page.tab.evaluate("scrollY") == 0
    bottoms = page.tab.evaluate(BOTTOMS, parts)
    assert max(bottoms) <= limit, bottoms
    page.tab.get_by_role("button", name="Versions").click()
    last = "#version label:last-child"
    page.tab.locator(last).wait_for()
    page.wait_for(lambda: page.tab.evaluate(BOTTOMS, [last])[0] <= limit)
