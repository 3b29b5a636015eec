"""The Look inside tab in a browser: surprisal, units, similar contexts, equations, and the tour."""

import math
from xml.etree import ElementTree

import pytest

import lm
from lm.insight.properties import PROPERTIES
from lm.insight.trace import trace_text
from lm.insight.units import find_units
from lm.insight.walkthrough import walk_through
from tests.end_to_end.page import DESKTOP, LAPTOP, PHONE

pytestmark = pytest.mark.browser

TEXT = (
    "The sea was calm. A small boat went out to find where light comes from at night, and 12 more. <b>☃</b>\n"
)


@pytest.fixture(scope="module")
def model(trained_run):
    return lm.load(trained_run, device="cpu")


@pytest.fixture
def page(open_page, server):
    page = open_page(server, tab_name="Look inside")
    page.look_into(TEXT * 3)
    page.wait_for(lambda: len(levels(page)) == len(TEXT * 3))
    return page


def section(page, name):
    tabs = page.tab.locator("#inside-sections")
    if not tabs.get_by_role("tab", name=name, exact=True).count():  # on a phone, some are in a menu
        tabs.locator(".overflow-menu > button").click()
        return tabs.locator(".overflow-dropdown").get_by_role("button", name=name, exact=True).click()
    tabs.get_by_role("tab", name=name, exact=True).click()


def levels(page):
    """[(text, level, tooltip), ...] of the tokens in the view."""
    script = """() => [...document.querySelectorAll("#inside-view [data-index]")].map(
        (e) => [e.textContent, Number(e.dataset.level || 0), e.title])"""
    return page.tab.evaluate(script)


def test_tokens_are_colored_by_surprisal(page, model):
    scores = model.score(TEXT * 3)
    shown = levels(page)
    assert "".join(text for text, _, _ in shown) == TEXT * 3
    bits = [-score.logprob / math.log(2) for score in scores]
    assert sum(level != min(9, int(b)) for (_, level, _), b in zip(shown, bits, strict=True)) <= 2
    totals = page.tab.locator("#inside-totals").inner_text()
    assert f"{sum(bits):,.0f} bits" in totals
    surprising = page.tab.locator("#inside-places tr")
    assert surprising.count() == 10 and f"{max(bits):.1f} bits" in surprising.first.inner_text()
    pairs = zip(TEXT * 3, model.encode(TEXT * 3), strict=True)
    unknown = [character for character, token in pairs if token == model.tokenizer.unk]
    assert "☃" in unknown
    assert page.tab.locator("#inside-view .unknown").all_inner_texts() == unknown
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


def test_a_unit_and_a_gate_color_the_text_by_their_values(page, model):
    trace = trace_text(model, TEXT * 3)
    page.tab.locator("#inside-unit input").fill("5")
    page.tab.locator("#inside-unit input").press("Tab")

    def shown(name):
        values = trace.values(0, name, 5)
        return lambda: (
            [tooltip for _, _, tooltip in levels(page)] == [f"{name} = {value:+.3f}" for value in values]
        )

    page.wait_for(shown("h"))
    assert page.tab.get_by_label("Hidden unit").is_checked()
    page.tab.get_by_label("State or gate").click()
    page.tab.get_by_role("option", name="f (forget gate)").click()
    page.wait_for(shown("f"))
    assert min(level for _, level, _ in levels(page)) >= 0  # a gate is never negative


def find_units_for_whitespace(page):
    section(page, "Unit")
    page.tab.get_by_label("Find units that track").click()
    page.tab.get_by_role("option", name="Whitespace").click()
    page.tab.locator("#inside-find").click()


def test_units_that_track_a_property_are_found_and_shown(page):
    find_units_for_whitespace(page)
    units = page.tab.locator("#inside-found label")
    page.wait_for(lambda: units.count() == 10)
    assert float(units.first.inner_text().split(": ")[1].split(" ")[0]) > 0.9
    assert "chance" in page.tab.locator("#inside-measure").inner_text()
    page.wait_for(lambda: page.tab.get_by_label("Hidden unit").is_checked())
    before = levels(page)
    units.nth(1).click()
    page.wait_for(lambda: levels(page) != before)


@pytest.mark.parametrize(
    "size",
    [DESKTOP, *(pytest.param(size, marks=pytest.mark.slow) for size in (LAPTOP, PHONE))],
    ids=["desktop", "laptop", "phone"],
)
def test_the_gallery_shows_a_unit_for_each_property_and_saves_images(open_page, server, size, model):
    page = open_page(server, size=size, tab_name="Look inside")
    page.look_into(TEXT * 3)
    page.wait_for(lambda: len(levels(page)) == len(TEXT * 3))
    section(page, "Gallery")
    rows = page.tab.locator("#inside-gallery .row")
    page.wait_for(lambda: rows.count() >= 5)
    row = rows.filter(has_text="Whitespace")
    row.focus()
    page.tab.keyboard.press("Enter")
    page.wait_for(lambda: page.tab.get_by_label("Hidden unit").is_checked())
    found = find_units(trace_text(model, TEXT * 3), PROPERTIES["white_space"](TEXT * 3)).units[0]
    assert f"Layer {found.layer + 1}, unit {found.unit}, {found.name}: {found.score:.2f}" in row.inner_text()
    assert page.tab.locator("#inside-unit input").input_value() == str(found.unit)
    assert row.get_attribute("aria-pressed") == "true"
    for kind, start in (("SVG", b"<svg "), ("PNG", b"\x89PNG")):
        with page.tab.expect_download() as download:
            page.tab.locator("#inside-image").get_by_role("button", name=kind).click()
        assert download.value.path().read_bytes().startswith(start)
        assert download.value.suggested_filename.endswith(
            f"layer {found.layer + 1} unit {found.unit} {found.name}.{kind.lower()}"
        )
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= size["width"]
    page.look_into(TEXT * 2)  # the rows are those of the new text
    before = rows.first.inner_text()
    page.wait_for(lambda: len(levels(page)) == len(TEXT * 2))
    page.tab.locator("#inside-image").scroll_into_view_if_needed()
    page.wait_for(lambda: rows.count() >= 5 and rows.first.inner_text() != before)
    assert not page.messages()


@pytest.mark.parametrize(
    "size",
    [DESKTOP, *(pytest.param(size, marks=pytest.mark.slow) for size in (LAPTOP, PHONE))],
    ids=["desktop", "laptop", "phone"],
)
def test_a_unit_can_be_switched_off_or_stuck_and_the_model_writes_again(open_page, server, size):
    page = open_page(server, size=size, tab_name="Look inside")
    page.look_into(TEXT * 3)
    page.wait_for(lambda: len(levels(page)) == len(TEXT * 3))
    section(page, "What if")
    run, texts = page.tab.locator("#inside-clamp"), page.tab.locator("#inside-clamped .text")
    run.click()
    page.wait_for(lambda: texts.count() == 2)
    first = texts.all_inner_texts()
    assert first[0] != first[1] and page.tab.locator("#inside-clamped mark").count() == 2
    page.tab.get_by_label("The unit is").click()
    page.tab.get_by_role("option", name="stuck at a value").click()
    page.tab.get_by_label("Value", exact=True).fill("-1")
    run.click()
    page.wait_for(lambda: "h = -1" in page.tab.locator("#inside-clamped").inner_text())
    second = texts.all_inner_texts()
    assert second[0] == first[0] and second[1] != first[1]  # the same random numbers
    if size != PHONE:
        box = texts.first.bounding_box()
        assert box["y"] + box["height"] <= size["height"]
    page.tab.get_by_label("Value", exact=True).fill("7")
    run.click()
    page.wait_for_message("cannot be clamped to 7")


@pytest.mark.slow
def test_units_can_track_a_regular_expression_and_an_invalid_one_is_an_error(page):
    section(page, "Unit")
    page.tab.get_by_label("Find units that track").click()
    page.tab.get_by_role("option", name="Regular expression").click()
    page.tab.locator("#inside-pattern :is(input, textarea)").fill("(unclosed")
    page.tab.locator("#inside-find").click()
    page.wait_for_message("is invalid")
    page.tab.locator("#inside-pattern :is(input, textarea)").fill("[aeiou]")
    page.tab.locator("#inside-find").click()
    page.wait_for(lambda: page.tab.locator("#inside-found label").count() == 10)


def drawn(page):
    """The numbers in the drawn cell: the values on its wires and those of its gates, by name."""
    return page.tab.evaluate("""() => Object.fromEntries([...document.querySelectorAll(
        "#inside-cell [data-name]:not([data-name=sum]), #inside-cell [data-gate-value]")].map(
        (e) => [e.dataset.name ?? e.dataset.gateValue, e.textContent]))""")


def walked(model, token, layer=0, unit=0):
    """What should be in the drawn cell."""
    step = walk_through(trace_text(model, TEXT * 3), token, layer, unit)
    states = {"h'": step.h} | ({"c": step.c_before, "c'": step.c} if step.c is not None else {})
    values = {gate.name: gate.value for gate in step.gates} | step.products | states
    return {name: f"{value:+.3f}" for name, value in values.items()}


def test_a_click_draws_the_cell_and_arrow_keys_move_it_through_the_text(page, model):
    page.tab.locator("#inside-view [data-index='30']").click()
    cell = page.tab.locator("#inside-cell")
    page.wait_for(lambda: walked(model, 30).items() <= drawn(page).items())
    step = walk_through(trace_text(model, TEXT * 3), 30, 0, 0)
    for equation in step.equations:
        for part in equation.numbers.split(" = "):
            assert f"= {part.replace(chr(39), '′')}" in cell.locator(".formulas").inner_text()
    cell.locator(".diagram").focus()
    for token in (31, 32):
        page.tab.keyboard.press("ArrowRight")
        assert walked(model, token).items() <= drawn(page).items()
    for _ in range(100):  # beyond the steps that the browser has
        page.tab.keyboard.press("ArrowRight")
    page.wait_for(lambda: walked(model, 132).items() <= drawn(page).items())
    assert page.tab.locator("#inside-view .pointed").get_attribute("data-index") == "132"
    gate = cell.locator("[data-gate].selected").get_attribute("data-gate")
    page.tab.keyboard.press("ArrowDown")
    assert cell.locator("[data-gate].selected").get_attribute("data-gate") != gate
    page.tab.locator("#inside-unit input").fill("5")
    page.tab.locator("#inside-unit input").press("Tab")
    page.wait_for(lambda: walked(model, 132, unit=5).items() <= drawn(page).items())
    with page.tab.expect_download() as download:
        page.tab.get_by_role("button", name="Download SVG").click()
    assert download.value.suggested_filename.startswith("layer-1-unit-5")
    svg = ElementTree.parse(download.value.path()).getroot()
    assert svg.tag == "{http://www.w3.org/2000/svg}svg"
    assert walked(model, 132, unit=5)["h'"] in "".join(svg.itertext())


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
    page.tab.get_by_role("option", name="shipped with lm").click()
    page.wait_for(lambda: levels(page) != before and "stale" not in inside.get_attribute("class"))


def test_the_value_of_a_token_is_shown_for_fingers_and_keyboards(page):
    readout = page.tab.locator("#inside-view .readout")
    page.tab.locator("#inside-view .tokens").focus()
    for _ in range(2):
        page.tab.keyboard.press("ArrowRight")
    assert readout.inner_text().endswith(levels(page)[2][2]) and "bits" in readout.inner_text()
    assert page.tab.locator("#inside-view .legend").inner_text().split("\n") == ["0 bits", "9 bits or more"]


def test_unknown_and_empty_texts_are_errors(page):
    page.look_into("☃☃☃")
    page.wait_for_message("knows none of the characters")
    page.tab.locator("#inside-text textarea").fill("")
    page.tab.locator("#inside-look").click()
    page.wait_for_message("The text is empty")


@pytest.mark.parametrize(
    "size",
    [
        DESKTOP,
        pytest.param({"width": 1366, "height": 768}, marks=pytest.mark.slow),
        pytest.param(PHONE, marks=pytest.mark.slow),
    ],
    ids=["desktop", "laptop", "phone"],
)
def test_nothing_that_a_press_shows_is_below_the_fold(open_page, server, size):
    page = open_page(server, tab_name="Look inside", size=size)

    def is_in_view(selector):
        box = page.tab.locator(selector).bounding_box()
        whole = size is not PHONE  # a phone shows where the result begins
        page.wait_for(lambda: page.tab.locator(selector).bounding_box()["y"] >= 0)
        return box["y"] + (box["height"] if whole else 100) <= size["height"]

    page.tab.locator("#inside:not(.editing, .stale)").wait_for()
    assert is_in_view("#inside-view .tokens")
    page.tab.locator("#inside-view [data-index='30']").click()
    page.tab.locator("#inside-cell svg").wait_for()
    page.wait_for(lambda: is_in_view("#inside-cell svg"))
    if size is not PHONE:
        assert is_in_view("#inside-cell .formulas") and is_in_view("#inside-tables")
        find_units_for_whitespace(page)  # every text has some, but not every text has quotes
        page.tab.locator("#inside-found label").nth(9).wait_for()
        assert is_in_view("#inside-found") and is_in_view("#inside-measure")
    page.tab.evaluate("""() => {
        const tokens = document.querySelectorAll("#inside-view [data-index]");
        document.getSelection().setBaseAndExtent(tokens[4].firstChild, 0, tokens[6].firstChild, 1);
        tokens[6].click();
    }""")
    page.tab.locator("#inside-similar tr").nth(1).wait_for()
    page.wait_for(lambda: is_in_view("#inside-similar table"))


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


@pytest.mark.parametrize(
    "size", [DESKTOP, pytest.param(PHONE, marks=pytest.mark.slow)], ids=["desktop", "phone"]
)
def test_the_tour_shows_each_tab_with_the_shipped_model(open_page, server, size):
    page = open_page(server, size=size)
    page.tab.get_by_role("button", name="Quick tour").click()
    page.set(Length=40)
    page.tab.get_by_role("button", name="1. Generate text").click()
    page.wait_for(lambda: "40 tokens" in page.status)
    assert page.chosen_model() == "shipped with lm"
    page.tab.get_by_role("button", name="2. See alternatives").click()
    page.wait_for(lambda: page.tab.locator("#alternatives [role=option]").count() == 10)
    page.tab.get_by_role("button", name="3. Find surprises").click()
    page.wait_for(lambda: page.tab.locator("#inside-places tr").count() == 10)
    page.tab.get_by_role("button", name="4. Find a quote detector").click()
    page.wait_for(lambda: page.tab.locator("#inside-found label").count() == 10)
    best = page.tab.locator("#inside-found label").first.inner_text()
    assert float(best.split(": ")[1].split(" ")[0]) > 0.95
    page.tab.get_by_role("button", name="5. Compare two settings").click()
    page.wait_for(
        lambda: page.tab.get_by_role("tab", name="Compare").get_attribute("aria-selected") == "true"
    )
    page.tab.get_by_role("button", name="6. Train your own model").click()
    page.wait_for(lambda: page.tab.get_by_role("button", name="Start training").is_visible())
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= size["width"]


@pytest.mark.parametrize(
    "size",
    [DESKTOP, *(pytest.param(size, marks=pytest.mark.slow) for size in (LAPTOP, PHONE))],
    ids=["desktop", "laptop", "phone"],
)
def test_sentences_are_scored_one_by_one_and_minimal_pairs_side_by_side(open_page, server, size, model):
    page = open_page(server, size=size, tab_name="Look inside")
    page.tab.locator("#inside-view [data-index]").first.wait_for()
    section(page, "Sentences")
    page.tab.locator("#inside-sentences textarea").fill("The sea was calm.\n\nThe ☃ sea.")
    page.tab.locator("#inside-score").click()
    result = page.tab.locator("#inside-scored")
    page.wait_for(lambda: result.locator("tbody tr").count() == 2)
    bits = sum(-score.logprob for score in model.score("The sea was calm.")) / math.log(2)
    assert f"{bits:.1f}" in result.locator("tbody tr").first.inner_text()
    assert result.locator("code .unknown").inner_text() == "☃"
    with page.tab.expect_download() as download:
        result.get_by_role("link", name="Words (CSV)").click()
    lines = [line for line in download.value.path().read_text().splitlines() if line[0] != "#"]
    assert "unknown" in lines[0].split(",") and download.value.suggested_filename.endswith(" words.csv")
    assert download.value.suggested_filename != " words.csv" and lines[6].startswith("☃,3,")
    table = b"UID,sentence_good,sentence_bad\na,The sea was calm.,Was sea the calm.\n"
    file = {"name": "pairs.csv", "mimeType": "text/csv", "buffer": table}
    page.tab.locator("#inside-csv input").set_input_files(file)
    page.wait_for(lambda: "Accuracy" in result.inner_text())
    assert page.tab.get_by_role("radio", name="Minimal pairs").is_checked()
    assert result.locator("tbody tr").count() == 1 and "correct" in result.locator("tbody").inner_text()
    if size != PHONE:
        box = result.locator("tbody tr").bounding_box()
        assert box["y"] + box["height"] <= size["height"]
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= size["width"]
