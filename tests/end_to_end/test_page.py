"""The Write tab in a real browser, served by the real process."""

import json
import re
import shutil
import time

import pytest

from tests.end_to_end.page import PHONE, PROMPT, sizes

pytestmark = pytest.mark.browser


def announced(page):
    """What screen readers say."""
    return page.tab.locator("#announcer").get_by_role("status").text_content()


def test_text_is_streamed(page):
    page.set(Length=20_000, Top_p=0.9)
    page.editor.fill(PROMPT)
    page.generate.click()
    seen = set()
    page.wait_for(lambda: seen.add(page.text) or len(seen) > 6)
    page.stop.click()
    final = page.at_rest()
    assert len(final) < len(PROMPT) + 20_000
    assert all(final.startswith(text) and text.startswith(PROMPT) for text in seen)


def test_the_length_is_respected_and_the_speed_shown(page):
    page.set(Length=1000, Top_p=0.9)
    page.editor.fill(PROMPT)
    text = page.write()
    assert text.startswith(PROMPT) and len(text) == len(PROMPT) + 1000
    assert re.fullmatch(r"seed \d+ · 1,000 tokens · [\d,]+ tokens/s", page.status)
    page.wait_for(lambda: announced(page) == f"The model has stopped writing. {page.status}")


def test_stop_ends_the_computation_within_a_second(page, server):
    before = len(server.ended())
    page.start_long_generation()
    page.stop.click()
    page.wait_for(lambda: len(server.ended()) > before, seconds=1)
    tokens = int(re.match(r"(\d+) tokens in .*: stopped", server.ended()[-1])[1])
    assert 0 < tokens < 20_000
    text = page.at_rest()
    busy = server.cpu_seconds()
    page.tab.wait_for_timeout(1000)
    assert server.cpu_seconds() - busy < 0.3
    assert page.text == text and len(text) <= len(PROMPT) + tokens
    assert re.match(r"seed \d+ · [\d,]+ tokens", page.status)


def test_closing_the_page_ends_its_computation(open_page, server):
    page, before = open_page(server), len(server.ended())
    page.start_long_generation()
    page.tab.close()
    deadline = time.monotonic() + 1
    while len(server.ended()) == before:
        assert time.monotonic() < deadline, "the computation continues"
        time.sleep(0.02)
    assert server.ended()[-1].endswith("stopped")


def test_the_text_stays_as_it_is_after_a_stop_that_does_not_reach_the_server(page):
    page.start_long_generation()
    with page.tab.expect_event("requestfailed"):
        page.tab.route("**/cancel", lambda route: route.abort())
        page.stop.click()
    page.at_rest()
    page.tab.wait_for_timeout(1500)
    text = page.text
    page.tab.wait_for_timeout(1500)
    assert page.text == text
    page.troubles.clear()


def test_ctrl_enter_generates_and_escape_stops(page, server):
    page.set(Length=20_000, Top_p=0.9)
    page.editor.fill(PROMPT)
    before = len(server.ended())
    page.editor.press("Control+Enter")
    page.wait_for(lambda: len(page.text) > len(PROMPT))
    page.editor.press("Escape")
    page.wait_for(lambda: len(server.ended()) > before, seconds=1)
    assert server.ended()[-1].endswith("stopped")
    text = page.at_rest()
    page.set(Length=20)
    page.tab.get_by_label("Length").press("Control+Enter")  # works anywhere on the page
    page.wait_for(lambda: len(page.text) > len(text))
    page.at_rest()


def test_the_text_is_read_only_while_the_model_writes(page):
    page.start_long_generation()
    assert announced(page) == "The model is writing."
    assert not page.editor.is_editable()
    page.stop.click()
    page.at_rest()
    assert page.editor.is_editable()


def test_the_end_of_the_text_stays_in_view_unless_the_user_scrolls_back(page):
    page.start_long_generation()
    distance = "e => e.scrollHeight - e.clientHeight - e.scrollTop"
    page.wait_for(lambda: len(page.text) > 2000)
    page.wait_for(lambda: page.editor.evaluate(distance) < 5, seconds=1)
    page.editor.evaluate("e => e.scrollTop = 0")
    length = len(page.text)
    page.wait_for(lambda: len(page.text) > length + 500)
    assert page.editor.evaluate("e => e.scrollTop") == 0
    page.stop.click()
    page.at_rest()


def test_continue_extends_the_text_and_undo_restores_the_previous_one(page):
    page.set(Length=50, Top_p=0.9)
    page.editor.fill(PROMPT)
    assert page.generate.inner_text() == "Generate" and not page.undo.is_enabled()
    first = page.write()
    assert page.generate.inner_text() == "Continue"
    second = page.write()
    assert second.startswith(first) and len(second) == len(first) + 50
    assert page.write(page.undo) == first
    assert page.write(page.undo) == PROMPT
    page.wait_for(lambda: page.generate.inner_text() == "Generate")
    assert not page.undo.is_enabled() and not page.regenerate.is_enabled()


def test_regenerate_replaces_the_end_and_undo_restores_it(page):
    page.set(Length=50, Top_p=0.9, Seed=7)
    page.editor.fill(PROMPT)
    first = page.write()
    another = page.write(page.regenerate)
    assert another != first and another.startswith(PROMPT) and len(another) == len(first)
    assert not page.status.startswith("seed 7 ")
    assert page.write(page.undo) == first
    assert page.write(page.undo) == PROMPT


def test_regenerate_after_an_edit_says_so_and_undo_restores_the_edit(page):
    page.set(Length=50, Top_p=0.9)
    page.editor.fill(PROMPT)
    page.write()
    page.editor.fill("Another beginning")
    assert page.write(page.regenerate).startswith(PROMPT)
    page.wait_for(lambda: "Undo restores them" in page.tab.locator("#document-note").inner_text())
    assert page.write(page.undo) == "Another beginning"


def test_the_same_seed_gives_the_same_text(page):
    page.set(Length=200)
    page.editor.fill(PROMPT)
    first = page.write()
    page.tab.get_by_role("button", name="Reuse this seed").click()
    shown = re.match(r"seed (\d+) ", page.status)[1]
    page.wait_for(lambda: page.tab.get_by_label("Seed", exact=True).input_value() == shown)
    page.write(page.undo)
    assert page.write() == first
    page.write(page.undo)
    page.set(Seed="")  # an empty seed is a random one
    assert page.write() != first


def _delay(route):
    """Simulate a slow network."""
    time.sleep(0.3)
    route.continue_()


def test_a_generation_right_after_undo_can_be_stopped(page):
    """The end of Undo, arriving after the start of the generation, once disabled Stop."""
    page.set(Length=5)
    page.editor.fill(PROMPT)
    page.write()
    page.set(Length=20_000, Top_p=0.9)
    page.tab.route("**/queue/join*", _delay)
    page.undo.click()
    page.generate.click()
    page.tab.unroute("**/queue/join*", _delay)
    page.wait_for(lambda: len(page.text) > len(PROMPT) + 50)
    assert page.stop.is_enabled() and not page.generate.is_enabled()
    page.stop.click()
    page.at_rest()


def test_unknown_characters_are_named(page):
    page.set(Length=5)
    page.editor.fill("The <b>sea</b> ☃")
    text = page.write()
    page.wait_for_message("The model does not know '<', '>', '/', '☃' and reads <unk> instead.")
    assert text.startswith("The <b>sea</b> ☃")


SCROLL = """(distance) => {
    window.scrollTo(0, distance);
    window.inView = [...document.querySelectorAll("button, input, textarea, [role=tab], [tabindex='0']")]
        .filter(control => control.offsetHeight && control.getBoundingClientRect().top >= 0);
    return scrollY;
}"""
COVERED = """() => {
    const bar = document.querySelector(".toast-wrap").getBoundingClientRect();
    return inView.filter(control => control.isConnected)
        .filter(control => control.getBoundingClientRect().top < bar.bottom - 1)
        .map(control => control.outerHTML);
}"""


@sizes
def test_messages_cover_no_control_and_can_be_closed(open_page, server, size):
    page = open_page(server, size=size)
    page.editor.fill(PROMPT)
    page.set(Length=30_000)
    for distance in (0, 100):
        scrolled = page.tab.evaluate(SCROLL, distance)
        page.generate.evaluate("button => button.click()")  # without scrolling
        page.wait_for_message("The length must be between 1 and 20,000 tokens")
        page.wait_for(lambda: page.tab.evaluate("parseFloat(document.body.style.paddingTop)") > 20)
        assert page.tab.evaluate("scrollY") == scrolled
        assert page.tab.evaluate(COVERED) == []
        page.tab.get_by_role("button", name="Close").click()
        page.wait_for(lambda: page.tab.evaluate("document.body.style.paddingTop") == "0px")


def test_an_empty_prompt_is_explained_and_continued(page):
    page.set(Length=5, Top_p=0.9)
    assert page.write()
    page.wait_for_message("Empty prompt: the model starts from scratch.")


def test_settings_out_of_range_are_a_message_and_the_page_still_works(page):
    page.editor.fill(PROMPT)
    page.set(Length=30_000)
    page.generate.click()
    page.wait_for_message("The length must be between 1 and 20,000 tokens, got 30,000.")
    assert page.at_rest() == PROMPT and "Waiting" not in page.status
    page.set(Length=5, Top_p=0.9)
    assert len(page.write()) > len(PROMPT)


def test_facts_and_curve_follow_the_selected_model(page, trained_run):
    config = json.loads((trained_run / "config.json").read_text())
    facts = page.tab.locator("#facts")
    for part in (
        "LSTM, 1 × 32 units",
        f"{config['parameters']:,}",
        "boat.txt",
        f"{config['validation']['bits_per_byte']:.3f}",
    ):
        assert part in facts.inner_text()
    curve = facts.get_by_role("img", name="Loss curve")
    assert curve.is_visible() and curve.evaluate("e => e.complete && e.naturalWidth > 0")
    page.tab.locator("#model input").click()
    page.tab.keyboard.type("oth")
    page.wait_for(lambda: page.tab.get_by_role("option").count() == 1)
    page.tab.keyboard.press("Enter")
    page.wait_for(lambda: page.chosen_model() == "other")
    page.wait_for(lambda: "<img src=x onerror=alert(1)>${alert(2)}" in facts.inner_text())


def test_users_generate_at_the_same_time(page, open_page, server):
    page.start_long_generation()
    other = open_page(server)
    other.set(Length=20, Top_p=0.9)
    assert other.write()
    assert page.stop.is_enabled()
    page.stop.click()
    page.at_rest()


def test_a_page_without_models_says_what_to_do(open_page, servers, trained_run):
    bare = servers[1]
    page = open_page(bare)
    assert "python train.py" in page.tab.locator("#facts").inner_text()
    page.editor.fill(PROMPT)
    page.generate.click()
    page.wait_for_message("python train.py")
    assert page.at_rest() == PROMPT
    assert "Traceback" not in bare.log.read_text()
    # Following the message works.
    shutil.copytree(trained_run, bare.log.parent / "runs" / "boat")
    page = open_page(bare)
    page.set(Length=5, Top_p=0.9)
    page.editor.fill(PROMPT)
    assert len(page.write()) > len(PROMPT)


ON_TOP = """(button) => {
    const { left, top, width, height } = button.getBoundingClientRect();
    return button.contains(document.elementFromPoint(left + width / 2, top + height / 2));
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_everything_fits_on_a_phone_without_horizontal_scrolling(open_page, server, theme):
    page = open_page(server, f"?__theme={theme}", size=PHONE)
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for part in (page.editor, page.generate, page.stop, page.undo, page.regenerate):
        box = part.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"] and box["height"] >= 32
    for end in ("0", "document.body.scrollHeight"):  # Generate and Stop stay in view
        page.tab.evaluate(f"window.scrollTo(0, {end})")
        for part in (page.generate, page.stop):
            assert part.evaluate(ON_TOP)


def test_the_page_prints_only_its_address(server):
    assert re.fullmatch(r"The page is at http://127\.0\.0\.1:\d+/\n", server.output.read_text())
    assert "Traceback" not in server.log.read_text()
