"""Sentences and minimal pairs in the Look inside tab."""

import math

import pytest

from tests.end_to_end.inside.tab import section, wait_until_in_view
from tests.end_to_end.page import sizes

pytestmark = pytest.mark.browser


@sizes
def test_sentences_are_scored_one_by_one_and_minimal_pairs_side_by_side(open_page, server, size, model):
    page = open_page(server, size=size, tab_name="Look inside")
    page.tab.locator("#inside-view [data-index]").first.wait_for()
    section(page, "Sentences")
    sentences = page.tab.locator("#inside-sentences textarea")
    result = page.tab.locator("#inside-scored")

    def scored():  # Gradio may fill in the example once more, just after the section has been opened
        sentences.fill("The sea was calm.\n\nThe ☃ sea.")
        page.tab.locator("#inside-score").click()
        result.locator("tbody tr").nth(1).wait_for()
        return "calm" in result.inner_text()

    page.wait_for(scored)
    values = [float(value) for value in result.locator("tbody tr").first.locator("rt").all_inner_texts()]
    assert len(values) == 4  # one for each word
    assert result.locator(".legend").inner_text().startswith("0 bits")
    bits = sum(-score.logprob for score in model.score("The sea was calm.")) / math.log(2)
    assert f"{bits:.1f}" in result.locator("tbody tr").first.inner_text() and 0 < sum(values) < bits + 0.2
    assert result.locator("code .unknown").inner_text() == "☃"
    with page.tab.expect_download() as download:
        result.get_by_role("link", name="Words (CSV)").click()
    lines = [line for line in download.value.path().read_text().splitlines() if line[0] != "#"]
    assert "unknown" in lines[0].split(",") and download.value.suggested_filename.endswith(" words.csv")
    assert download.value.suggested_filename != " words.csv" and lines[6].startswith("☃,3,")
    good, bad = " ".join(["The sea was calm."] * 9), " ".join(["Was sea the calm."] * 9)
    table = f"UID,sentence_good,sentence_bad\na,{good},{bad}\n".encode()
    file = {"name": "pairs.csv", "mimeType": "text/csv", "buffer": table}
    page.tab.locator("#inside-csv input").set_input_files(file)
    page.wait_for(lambda: "Accuracy" in result.inner_text())
    assert page.tab.get_by_role("radio", name="Minimal pairs").is_checked()
    assert result.locator("tbody tr").count() == 1 and "correct" in result.locator("tbody").inner_text()
    wait_until_in_view(page, result.locator("tbody tr"), 40)
    heights = result.locator("ruby").evaluate_all("words => words.map((word) => word.offsetHeight)")
    assert len(heights) == 72 and len(set(heights)) == 1  # no word and no number is broken
    latin = {"name": "latin.csv", "mimeType": "text/csv", "buffer": "text\nCafé\n".encode("cp1252")}
    page.tab.locator("#inside-csv input").set_input_files(latin)
    page.wait_for_message("The file is not in UTF-8")
    assert result.locator("tbody tr").count() == 1  # still the pair
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= size["width"]
    page.choose_model("pretrained")  # what another model scored is dimmed until it is scored again
    page.wait_for(lambda: "stale" in result.get_attribute("class"))
    page.tab.locator("#inside-score").click()
    page.wait_for(lambda: "stale" not in result.get_attribute("class"))
