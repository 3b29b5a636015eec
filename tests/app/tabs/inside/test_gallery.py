"""The gallery shows the best unit of each property, and images of a unit the whole text in its colors."""

import xml.etree.ElementTree as ElementTree

import pytest

from app.tabs.inside.analysis import AnalysisCache, file_name
from app.tabs.inside.gallery import rows, unit_title
from app.tabs.inside.image import render_svg
from app.ui.token_view import MAX_LEVEL, on_one_line
from lm.language_model import load
from tests.app.tabs.inside.example import EXAMPLE

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def model():
    return load("pretrained", device="cpu")


@pytest.fixture(scope="module")
def analysis(model):
    return AnalysisCache().get(model, EXAMPLE)


def test_every_property_has_a_row_with_its_best_unit_or_is_named_as_missing(analysis):
    value = rows(analysis)
    shown = {row["property"]: row for row in value["rows"]}
    assert set(shown) == set(analysis.best_units) and "quotes" in shown
    assert "Too rare in this text: Inside comments." in value["note"]
    best = analysis.best_units["quotes"].units[0]
    row = shown["quotes"]
    assert row["unit"].startswith(f"Layer {best.layer + 1}, unit {best.unit}, {best.name}: {best.score:.2f}")
    assert row["share"] == pytest.approx(2 * best.score - 1, abs=1e-3)
    shares = [row["share"] for row in value["rows"]]
    assert shares == sorted(shares, reverse=True)
    for name, row in shown.items():
        best = analysis.best_units[name].units[0]
        colored = analysis.color_by_unit(best.layer, best.name, best.unit)
        strip = "".join(row["tokens"])
        begin = on_one_line(EXAMPLE).index(strip)
        assert row["levels"] == colored["levels"][begin : begin + len(strip)]
    assert '"' in "".join(shown["quotes"]["tokens"])  # the part in which the property varies


def drawn(svg):
    """{(x, top): text} and {(x, top): (width, fill, opacity)} below the title and the legend."""
    root = ElementTree.fromstring(svg)
    body = root.findall(f"{SVG}g")[1]
    texts = {(float(t.get("x")), float(t.get("y"))): t.text for t in body.findall(f"{SVG}text")}
    boxes = {
        (float(r.get("x")), float(r.get("y"))): (r.get("width"), r.get("fill"), float(r.get("fill-opacity")))
        for r in body.findall(f"{SVG}rect")
    }
    return root, texts, boxes


def test_the_image_has_every_character_in_its_color_with_title_model_and_legend(analysis):
    title = unit_title(analysis, 1, 161, "c")
    assert title.startswith("Inside quotes · Layer 2, unit 161, c: 1.00")
    root, texts, boxes = drawn(render_svg(analysis, "my <model>", 1, 161, "c", title))
    words = " ".join(root.itertext())
    assert title in words and "model: my <model>" in words
    colored = analysis.color_by_unit(1, "c", 161)
    assert colored["legend"]["low"] in words and colored["legend"]["high"] in words
    assert "".join("".join(texts.values()).split()) == "".join(EXAMPLE.split())
    levels, at = dict(zip(range(len(EXAMPLE)), colored["levels"], strict=True)), EXAMPLE.index("Ada Love")
    (x, y), _ = next(item for item in texts.items() if "Lovelace" in item[1] or "Ada" in item[1])
    _, fill, opacity = boxes[x, y - 16]
    assert opacity == pytest.approx(abs(levels[at]) * 0.54 / MAX_LEVEL)
    assert fill == "rgb(234,88,12)" if levels[at] > 0 else "rgb(37,99,235)"


def test_long_lines_are_wrapped_long_texts_end_and_wide_characters_take_two_columns(model):
    text = "x" * 200 + "\n" + "中" * 50 + "a\u0301\n" + "line\n" * 100
    analysis = AnalysisCache().get(model, text)
    root, texts, boxes = drawn(render_svg(analysis, "m", 0, 0, "h", "unit"))
    assert float(root.get("height")) < 1100 and float(root.get("width")) == 760
    assert [t for (_, y), t in sorted(texts.items(), key=lambda item: item[0][::-1])][-1] == "…"
    assert all(x + float(width) <= 740 for (x, _), (width, _, _) in boxes.items())


def test_any_text_is_well_formed_xml_and_any_model_name_a_file_name(model):
    text = "a\x00b\x1b[0m </text> & \ufffe \U0001f600 \ud7ff\n" * 3
    root, _, _ = drawn(render_svg(AnalysisCache().get(model, text), "\x07", 0, 0, "h", "<&>"))
    assert root.find(f"{SVG}title").text == "<&>"
    assert file_name("me/my: model", "unit 161 c.svg") == "me-my- model unit 161 c.svg"
