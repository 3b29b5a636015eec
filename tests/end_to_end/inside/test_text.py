"""The text of the Look inside tab: surprisal, tables, similar places, pages, and what is stale."""

import math

import pytest

from tests.end_to_end.inside.tab import TEXT, find_units_for_whitespace, levels, wait_until_in_view
from tests.end_to_end.page import PHONE, sizes

pytestmark = pytest.mark.browser


def test_tokens_are_colored_by_surprisal(page, model):
    scores = model.score(TEXT * 3)
    shown = levels(page)
    assert "".join(text for text, _, _ in shown) == TEXT * 3
    bits = [-score.logprob / math.log(2) for score in scores]
    assert sum(level != min(9, int(b)) for (_, level, _), b in zip(shown, bits, strict=True)) <= 2
    totals = page.tab.locator("#inside-totals").inner_text()
    assert float(totals.partition(" bits")[0].replace(",", "")) == pytest.approx(sum(bits), abs=0.06)
    surprising = page.tab.locator("#inside-places tr")
    assert surprising.count() == 10 and f"{max(bits):.1f} bits" in surprising.first.inner_text()
    pairs = zip(TEXT * 3, model.encode(TEXT * 3), strict=True)
    unknown = [character for character, token in pairs if token == model.tokenizer.unk]
    assert "☃" in unknown
    assert page.tab.locator("#inside-view .tokens .unknown").all_inner_texts() == unknown
    assert not page.tab.locator("#inside-view b, #inside-places b").count()  # the text is not HTML


def test_words_are_colored_too_and_both_tables_can_be_downloaded(page):
    page.tab.get_by_label("Word surprisal").click()
    page.wait_for(lambda: len({tip for _, _, tip in levels(page)[12:17]}) == 1)  # "calm."
    for kind, first, row in (("tokens", "token", "T\t"), ("words", "word", "The\t")):
        with page.tab.expect_download() as download:
            page.tab.get_by_role("button", name=f"Download {kind} (TSV)").click()
        lines = download.value.path().read_text().splitlines()
        assert download.value.suggested_filename == f"boat {kind}.tsv"  # named after the model
        assert lines[0].split("\t")[0] == first and lines[1].startswith(row) and len(lines) > 50


def test_without_a_text_the_keyboard_stops_at_no_table(open_page, servers):
    page = open_page(servers[1], tab_name="Look inside")
    buttons = page.tab.locator("#inside-tables button")
    assert buttons.evaluate_all("all => all.map((button) => button.checkVisibility())") == [False, False]


def test_contexts_similar_to_a_selection_are_found_by_mouse_and_keyboard(page):
    page.tab.evaluate("""() => {
        const tokens = document.querySelectorAll("#inside-view [data-index]");
        document.getSelection().setBaseAndExtent(tokens[4].firstChild, 0, tokens[6].firstChild, 1);
        tokens[6].click();
    }""")
    similar = page.tab.locator("#inside-similar")
    page.wait_for(lambda: similar.locator("tr").count() >= 2)
    assert "“sea”" in similar.inner_text()
    assert similar.locator("mark").first.inner_text() == "sea"  # the text repeats a sentence
    page.tab.locator("#inside-view .tokens").focus()
    for _ in range(8):
        page.tab.keyboard.press("ArrowRight")
    for _ in range(3):
        page.tab.keyboard.press("Shift+ArrowRight")
    page.tab.keyboard.press("Enter")
    page.wait_for(lambda: "“sea”" not in similar.inner_text())


def test_what_is_stale_is_marked_and_another_model_analyzes_again(page):
    inside = page.tab.locator("#inside")
    page.tab.locator("#inside-edit").click()
    assert page.tab.evaluate("document.activeElement.closest('#inside-text') !== null")
    page.tab.keyboard.type("One more line. ")
    assert "stale" in inside.get_attribute("class")
    page.tab.keyboard.press("Control+Enter")
    page.wait_for(lambda: "stale" not in inside.get_attribute("class"))
    assert "".join(text for text, _, _ in levels(page)) == "One more line. " + TEXT * 3
    before = levels(page)
    page.tab.get_by_label("Model", exact=True).first.click()
    page.tab.get_by_role("option", name="pretrained").click()
    page.wait_for(lambda: levels(page) != before and "stale" not in inside.get_attribute("class"))


def test_the_text_survives_a_reload_but_an_example_goes_with_its_model(page, open_page, server):
    page.reload()
    page.wait_for(lambda: len(levels(page)) == len(TEXT * 3))
    page = open_page(server, tab_name="Look inside")
    page.wait_for(lambda: levels(page))
    example = [text for text, _, _ in levels(page)]
    page.reload()
    page.wait_for(lambda: [text for text, _, _ in levels(page)] == example)
    page.choose_model("pretrained")
    page.wait_for(lambda: levels(page) and [text for text, _, _ in levels(page)] != example)


def test_the_value_of_a_token_is_shown_for_fingers_and_keyboards(page):
    readout = page.tab.locator("#inside-view .readout")
    page.tab.locator("#inside-view .tokens").focus()
    for _ in range(2):
        page.tab.keyboard.press("ArrowRight")
    assert readout.inner_text().endswith(levels(page)[2][2]) and "bits" in readout.inner_text()
    legend = page.tab.locator("#inside-view .legend").inner_text().split("\n")
    assert legend == ["0 bits", "9 bits or more", "unknown, scored as <unk>"]


def test_the_value_of_a_token_follows_it_in_every_direction(page):
    page.look_into("the שלום")
    page.tab.locator("#inside-view [data-index='4']").click()
    readout = page.tab.locator("#inside-view .readout")
    page.wait_for(lambda: "ש" in readout.inner_text())
    places = readout.evaluate("""(element) => {
        const node = element.firstChild, range = new Range();
        return ["“", "ש", "”", "bits"].map((part) => {
            range.setStart(node, node.data.indexOf(part));
            range.setEnd(node, node.data.indexOf(part) + 1);
            return range.getBoundingClientRect().x;
        });
    }""")
    assert places == sorted(places)


def test_the_last_of_two_quick_analyses_is_shown(page):
    page.tab.evaluate("""async () => {
        const text = document.querySelector("#inside-text textarea");
        const look = document.querySelector("#inside-look");
        for (const each of ["The first text", "Another text"]) {
            await lm.fill(text, each);
            look.click();
        }
    }""")
    view = page.tab.locator("#inside-view .tokens")
    page.wait_for(lambda: "Another text" in (view.text_content() or ""))


def test_values_and_their_legend_are_in_the_language_of_the_browser(open_page, server):
    page = open_page(server, locale="zh-CN")
    page.go_to("透视模型")
    view = page.tab.locator("#inside-view")
    page.wait_for(lambda: "比特" in view.locator(".readout").inner_text())
    view.locator(".legend").wait_for()
    assert view.locator(".legend").inner_text().split("\n") == ["0 比特", "9 比特或更多"]
    assert "bits" not in view.locator(".readout").inner_text()


def test_unknown_and_empty_texts_are_errors(page):
    page.look_into("☃☃☃")
    page.wait_for_message("knows none of the characters")
    page.tab.locator("#inside-text textarea").fill("")
    page.tab.locator("#inside-look").click()
    page.wait_for_message("The text is empty")


@sizes
def test_nothing_that_a_press_shows_is_below_the_fold(open_page, server, size):
    page = open_page(server, tab_name="Look inside", size=size)

    def wait_for(selector):
        # A phone shows where the result begins.
        wait_until_in_view(page, page.tab.locator(selector), 100 if size is PHONE else None)

    page.tab.locator("#inside:not(.editing, .stale)").wait_for()
    wait_for("#inside-view .tokens")
    page.tab.locator("#inside-view [data-index='30']").click()
    page.tab.locator("#inside-cell svg").wait_for()
    wait_for("#inside-cell svg")
    if size is not PHONE:
        wait_for("#inside-cell .formulas")
        wait_for("#inside-tables")
    find_units_for_whitespace(page)  # every text has some, but not every text has quotes
    page.tab.locator("#inside-found label").nth(9).wait_for()
    wait_for("#inside-found")
    wait_for("#inside-measure")
    page.tab.evaluate("""() => {
        const tokens = document.querySelectorAll("#inside-view [data-index]");
        document.getSelection().setBaseAndExtent(tokens[4].firstChild, 0, tokens[6].firstChild, 1);
        tokens[6].click();
    }""")
    page.tab.locator("#inside-similar tr").nth(1).wait_for()
    wait_for("#inside-similar .scroll")


def test_a_long_text_is_shown_page_by_page(page):
    text = "The sea was calm.\n" * 600
    page.look_into(text)
    page.wait_for(lambda: page.tab.locator("#inside-pages").is_visible())
    first = "".join(token for token, _, _ in levels(page))
    page.tab.get_by_role("button", name="Next page").click()
    page.wait_for(lambda: "".join(token for token, _, _ in levels(page)) == text[len(first) :])
    assert text.startswith(first) and page.tab.locator("#inside-page input").input_value() == "Page 2 of 2"
    page.tab.locator("#inside-edit").click()
    assert page.tab.locator("#inside-text textarea").input_value() == text


def test_a_text_goes_from_write_to_look_inside_and_back(open_page, server):
    page = open_page(server)
    page.editor.fill("The sea was calm.")
    page.tab.locator("#look-inside").click()
    page.wait_for(lambda: "".join(text for text, _, _ in levels(page)) == "The sea was calm.")
    page.tab.locator("#inside-edit").click()
    page.tab.keyboard.type("Look! ")
    page.tab.locator("#inside-write").click()
    page.wait_for(lambda: page.text == "Look! The sea was calm.")
    page.tab.keyboard.press("Control+z")
    page.wait_for(lambda: page.text == "The sea was calm.")  # nothing is lost
