"""The page for those who do not see it, or have no mouse: axe-core on every tab, the keyboard, contrast."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.end_to_end.page import DESKTOP, PHONE, PROMPT

TABS = ("Write", "Look inside", "Compare", "Train", "Models")
# What axe finds in Gradio's own markup: the head of a message is a button, to fold it, and holds the one
# that closes it. It goes by itself, and Tab reaches both.
KNOWN = {("nested-interactive", ".toast-header")}
# A colour that is on its way to another has the contrast of neither.
AT_ONCE = "*, *::before, *::after { transition: none !important }"


def axe():
    return (Path(find_spec("axe_playwright_python").origin).parent / "axe.min.js").read_text()


def looked_at(page, tab):
    """Open a tab, and let something be there to look at."""
    page.go_to(tab)
    if tab == "Write":
        page.set(Length=60)
        page.editor.fill(PROMPT)
        page.write()
        page.editor.click()
        page.tab.locator("#alternatives button").first.wait_for()
    elif tab == "Look inside":
        page.tab.locator("#inside-text textarea").fill(PROMPT)
        page.tab.locator(".lm-go:visible").click()
        page.tab.locator(".token-view:visible .tokens span").first.wait_for()
    page.tab.wait_for_timeout(400)  # what a tab shows when it is opened


@pytest.mark.parametrize(
    "theme, size",
    [
        ("light", DESKTOP),
        pytest.param("dark", PHONE, marks=pytest.mark.slow),
        pytest.param("light", PHONE, marks=pytest.mark.slow),
        pytest.param("dark", DESKTOP, marks=pytest.mark.slow),
    ],
    ids=["light, desktop", "dark, phone", "light, phone", "dark, desktop"],
)
def test_axe_finds_nothing_serious_on_any_tab(open_page, server, theme, size):
    page = open_page(server, f"?__theme={theme}", size=size)
    page.tab.add_style_tag(content=AT_ONCE)
    page.tab.evaluate(axe())
    found, checked = [], set()
    for tab in TABS:
        looked_at(page, tab)
        result = page.tab.evaluate("axe.run(document)")
        checked |= {rule["id"] for rule in result["passes"]}
        for rule in result["violations"]:
            for node in rule["nodes"]:
                place = str(node["target"][-1])
                if rule["impact"] in ("serious", "critical") and (rule["id"], place) not in KNOWN:
                    found.append((tab, rule["id"], place, node["html"][:200]))
    assert not found
    assert {"color-contrast", "label", "button-name", "aria-required-attr", "html-has-lang"} <= checked


def test_axe_would_find_what_is_wrong(open_page, server):
    page = open_page(server)
    page.tab.evaluate(axe())
    page.tab.evaluate(
        """() => {
            document.querySelector("#status").insertAdjacentHTML(
                "beforeend", '<p style="color:#999;background:#fff">pale</p><input><button></button>');
        }"""
    )
    rules = {rule["id"] for rule in page.tab.evaluate("axe.run(document)")["violations"]}
    assert {"color-contrast", "label", "button-name"} <= rules


REACHABLE = """() => {
    const kinds = 'button, input, select, textarea, a[href], summary, [tabindex="0"]';
    const there = [...document.querySelectorAll(kinds)].filter((e) =>
        e.offsetParent && !e.disabled && e.tabIndex >= 0 && !e.closest(".toast-wrap"));
    return there.map((e, number) => {
        e.dataset.number = number;
        const look = getComputedStyle(e);
        e.dataset.look = [look.outline, look.boxShadow, look.borderColor].join();
        // Of a group of radio buttons Tab reaches the one that is chosen; the arrows reach the others.
        const grouped = e.type === "radio" && !e.checked;
        const other = grouped && document.querySelector(`[name="${e.name}"]:checked`);
        return other ? null : e.outerHTML.slice(0, 150);
    });
}"""
FOCUSED = """() => {
    const e = document.activeElement, look = getComputedStyle(e);
    const outlined = look.outlineStyle !== "none" && parseFloat(look.outlineWidth) > 0;
    const seen = outlined || [look.outline, look.boxShadow, look.borderColor].join() !== e.dataset.look;
    return [e.dataset.number ?? null, seen];
}"""


def test_tab_reaches_every_control_of_every_tab_and_shows_where_it_is(open_page, server):
    page = open_page(server)
    for tab in TABS:
        looked_at(page, tab)
        page.tab.mouse.click(2, 2)
        controls = dict(enumerate(page.tab.evaluate(REACHABLE)))
        unreached = {number: html for number, html in controls.items() if html}
        assert len(unreached) > 8
        for _ in range(len(controls) + 10):
            page.tab.keyboard.press("Tab")
            number, seen = page.tab.evaluate(FOCUSED)
            if number is not None:
                assert seen, f"{tab}: no focus is seen on {controls[int(number)]}"
                unreached.pop(int(number), None)
        assert not unreached, tab


def test_the_language_of_the_page_is_told(open_page, server):
    for locale, language in (("en-GB", "en"), ("zh-CN", "zh")):
        tab = open_page(server, locale=locale).tab
        assert tab.evaluate("document.documentElement.lang") == language
        shown = tab.locator("#generate").inner_text()
        assert shown == {"en": "Generate", "zh": "生成"}[language]


COLOURS = """() => {
    const shown = [], inside = document.querySelector(".gradio-container");
    const view = document.createElement("div");
    view.className = "token-view";
    view.innerHTML = '<div class="tokens"></div>';
    inside.append(view);
    const text = document.querySelector("#text textarea"), backdrop = document.querySelector("#backdrop");
    const ground = (e) => {
        const colour = getComputedStyle(e).backgroundColor;
        return /^rgb\\(/.test(colour) || !e.parentElement ? colour : ground(e.parentElement);
    };
    for (const [place, written] of [[view.firstChild, view.firstChild], [backdrop, text]])
        for (let level = -9; level <= 9; level++) {
            const token = document.createElement("span");
            token.dataset.level = level;
            place.append(token);
            shown.push([level, getComputedStyle(written).color,
                getComputedStyle(token).backgroundColor, ground(place)]);
            token.remove();
        }
    view.remove();
    return shown;
}"""


def rgba(colour):
    red, green, blue, alpha = [*map(float, re.findall(r"[\d.]+", colour)), 1.0][:4]
    return (red, green, blue), alpha


def luminance(colour):
    """WCAG 2.2, relative luminance."""
    parts = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read_on_every_level_of_colour(open_page, server, theme):
    page = open_page(server, f"?__theme={theme}")
    page.tab.locator("#backdrop").wait_for(state="attached")
    shown = page.tab.evaluate(COLOURS)
    assert len(shown) == 2 * 19
    for level, colour, over, ground in shown:
        (text, opaque), (tint, alpha), (below, solid) = rgba(colour), rgba(over), rgba(ground)
        assert opaque == solid == 1 and (alpha > 0) == (level != 0), (level, colour, over, ground)
        mixed = [alpha * t + (1 - alpha) * b for t, b in zip(tint, below, strict=True)]
        dark, bright = sorted((luminance(text), luminance(mixed)))
        assert (bright + 0.05) / (dark + 0.05) >= 4.5, (level, colour, over, ground)
