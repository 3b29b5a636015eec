"""Accessibility of the page: axe-core on every tab, keyboard navigation, contrast."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.end_to_end.inside.tab import section
from tests.end_to_end.page import DESKTOP, PHONE, PROMPT

pytestmark = pytest.mark.browser

TABS = ("Write", "Look inside", "Compare", "Train", "Models")
SECTIONS = ("Surprises", "Gallery", "Unit", "What if", "Similar places", "Sentences")  # Cell is open
# What axe finds in Gradio's own markup: the header of a message is a button that contains the close button.
# Messages close automatically, and Tab reaches both buttons.
KNOWN = {("nested-interactive", ".toast-header")}
# Colors in transition do not have their final contrast.
NO_TRANSITIONS = "*, *::before, *::after { transition: none !important }"


def axe():
    return (Path(find_spec("axe_playwright_python").origin).parent / "axe.min.js").read_text()


def open_tab(page, tab):
    """Open a tab and fill it with content."""
    page.go_to(tab)
    if tab == "Write":
        page.set(Length=60)
        page.editor.fill(PROMPT)
        page.write()
        page.editor.click()
        page.tab.locator("#alternatives button").first.wait_for()
    elif tab == "Look inside":
        page.look_into(PROMPT)
        page.tab.locator("#inside:not(.editing, .stale)").wait_for()
        page.tab.locator("#inside-view [data-index='3']").click()
        page.tab.locator("#inside-cell svg").wait_for()
    elif tab == "Models":
        page.tab.locator("#models-card table").wait_for()
        page.tab.locator("#models-table summary").first.click()
    page.tab.wait_for_timeout(400)  # until the tab has loaded its content


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
def test_axe_finds_nothing_on_any_tab(open_page, server, theme, size):
    page = open_page(server, f"?__theme={theme}", size=size)
    page.tab.add_style_tag(content=NO_TRANSITIONS)
    page.tab.evaluate(axe())
    found, checked = [], set()

    def check(part, selector="html"):
        result = page.tab.evaluate(f"axe.run('{selector}')")
        checked.update(rule["id"] for rule in result["passes"])
        for rule in result["violations"]:
            for node in rule["nodes"]:
                target = str(node["target"][-1])
                if (rule["id"], target) not in KNOWN:
                    found.append((part, rule["id"], target, node["html"][:200]))

    for tab in TABS:
        open_tab(page, tab)
        check(tab)
        if tab == "Look inside":
            for name in SECTIONS:
                section(page, name)
                page.tab.wait_for_timeout(300)
                check(name, "#inside-sections")
    assert not found
    assert {"color-contrast", "label", "button-name", "aria-required-attr", "html-has-lang"} <= checked


def test_axe_detects_violations(open_page, server):
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
    const controls = [...document.querySelectorAll(kinds)].filter((e) =>
        e.checkVisibility() && !e.disabled && e.tabIndex >= 0 && !e.closest(".toast-wrap"));
    return controls.map((e, number) => {
        e.dataset.number = number;
        const look = getComputedStyle(e);
        e.dataset.look = [look.outline, look.boxShadow, look.borderColor].join();
        // In a group of radio buttons, Tab reaches the checked one and the arrow keys the others.
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


def test_the_tab_key_reaches_every_control_with_a_visible_focus(open_page, server):
    page = open_page(server)
    for tab in TABS:
        open_tab(page, tab)
        page.tab.mouse.click(2, 2)
        controls = dict(enumerate(page.tab.evaluate(REACHABLE)))
        unreached = {number: html for number, html in controls.items() if html}
        assert len(unreached) > 8
        for _ in range(len(controls) + 10):
            page.tab.keyboard.press("Tab")
            number, seen = page.tab.evaluate(FOCUSED)
            if number is not None:
                assert seen, f"{tab}: no visible focus on {controls[int(number)]}"
                unreached.pop(int(number), None)
        assert not unreached, tab


def test_the_language_of_the_page_is_declared(open_page, server):
    for locale, language in (("en-GB", "en"), ("zh-CN", "zh")):
        tab = open_page(server, locale=locale).tab
        assert tab.evaluate("document.documentElement.lang") == language
        shown = tab.locator("#generate").inner_text()
        assert shown == {"en": "Generate", "zh": "生成"}[language]


COLORS = """() => {
    const shown = [], inside = document.querySelector(".gradio-container");
    const view = document.createElement("div");
    view.className = "token-view";
    view.innerHTML = '<div class="tokens"></div>';
    inside.append(view);
    const text = document.querySelector("#text textarea"), backdrop = document.querySelector("#backdrop");
    const background = (e) => {
        const color = getComputedStyle(e).backgroundColor;
        return /^rgb\\(/.test(color) || !e.parentElement ? color : background(e.parentElement);
    };
    for (const [parent, colored] of [[view.firstChild, view.firstChild], [backdrop, text]])
        for (let level = -9; level <= 9; level++) {
            const token = document.createElement("span");
            token.dataset.level = level;
            parent.append(token);
            shown.push([level, getComputedStyle(colored).color,
                getComputedStyle(token).backgroundColor, background(parent)]);
            token.remove();
        }
    view.remove();
    return shown;
}"""


def rgba(color):
    red, green, blue, alpha = [*map(float, re.findall(r"[\d.]+", color)), 1.0][:4]
    return (red, green, blue), alpha


def luminance(color):
    """Relative luminance as defined in WCAG 2.2."""
    parts = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_is_readable_on_every_color_level(open_page, server, theme):
    page = open_page(server, f"?__theme={theme}")
    page.tab.locator("#backdrop").wait_for(state="attached")
    shown = page.tab.evaluate(COLORS)
    assert len(shown) == 2 * 19
    for level, color, overlay, background in shown:
        (text, opaque), (tint, alpha), (below, solid) = rgba(color), rgba(overlay), rgba(background)
        assert opaque == solid == 1 and (alpha > 0) == (level != 0), (level, color, overlay, background)
        mixed = [alpha * t + (1 - alpha) * b for t, b in zip(tint, below, strict=True)]
        dark, bright = sorted((luminance(text), luminance(mixed)))
        assert (bright + 0.05) / (dark + 0.05) >= 4.5, (level, color, overlay, background)
