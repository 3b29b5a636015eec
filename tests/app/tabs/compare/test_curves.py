"""The image of several loss curves shows the right values and survives odd ones."""

import json
import math
import shutil
from xml.etree import ElementTree

import pytest

from app.tabs.compare.curves import Curve, read_curve, render_svg

LABELS = {"bits": "bits per character", "characters": "characters read", "seconds": "seconds"}
SVG = "{http://www.w3.org/2000/svg}"


def a_curve(name="boat", bits=(3.0, 2.0, 1.5), result=1.5):
    steps = range(len(bits))
    return Curve(name, [1e6 * (n + 1) for n in steps], [5.0 * n for n in steps], [*bits], result)


def render(*curves, by_time=False):
    return ElementTree.fromstring(render_svg(curves, by_time, LABELS))


def texts(svg):
    return [text.text for text in svg.iter(f"{SVG}text")]


def points(svg):
    lines = [line.get("points").split() for line in svg.iter(f"{SVG}polyline")]
    return [[tuple(map(float, point.split(","))) for point in line] for line in lines]


def test_a_curve_has_the_runs_validations_in_bits_per_character(trained_run):
    curve = read_curve("boat", trained_run)
    records = [json.loads(line) for line in (trained_run / "training/metrics.jsonl").read_text().splitlines()]
    validations = {r["step"]: r for r in records if "validation_loss" in r}
    assert curve.name == "boat" and len(curve.bits) == len(validations) > 1
    assert curve.bits == pytest.approx([r["validation_loss"] / math.log(2) for r in validations.values()])
    # Each token is a character.
    assert curve.characters == pytest.approx([r["tokens"] for r in validations.values()])
    assert curve.seconds == [r["seconds"] for r in validations.values()]


def test_tokens_of_several_characters_are_converted_to_characters(trained_run, tmp_path):
    run = shutil.copytree(trained_run, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["validation"] |= {"loss": 2.0, "bits_per_character": 1.0}
    (run / "config.json").write_text(json.dumps(config))
    line = '{"step": %d, "tokens": %d, "seconds": %d, "validation_loss": %f}\n'
    metrics = "".join(line % (n, 1000 * n, n, 4.0 / n) for n in (1, 2))
    (run / "training/metrics.jsonl").write_text(metrics)
    curve = read_curve("run", run)
    assert curve.bits == pytest.approx([2.0, 1.0])
    assert curve.result == 1.0
    assert curve.characters == pytest.approx([1000 * 2 / math.log(2), 2000 * 2 / math.log(2)])


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("training/metrics.jsonl", None),
        ("training/metrics.jsonl", ""),
        ("training/metrics.jsonl", '{"step": 1, "validation_loss": "x"}\n[]\n'),
        ("training/metrics.jsonl", '{"step": 1, "tokens": 1, "seconds": 1, "validation_loss": NaN}\n' * 3),
        ("config.json", "{}"),
        ("config.json", '{"validation": {"loss": 0, "bits_per_character": 0}}'),
        ("config.json", '{"validation": []}'),
        ("config.json", "{"),
    ],
)
def test_a_model_with_missing_or_damaged_metrics_has_no_curve(trained_run, tmp_path, file, content):
    run = shutil.copytree(trained_run, tmp_path / "run")
    (run / file).unlink()
    if content is not None:
        (run / file).write_text(content)
    assert read_curve("run", run) is None


def test_all_curves_are_in_one_image_with_their_names_and_results():
    svg = render(a_curve("one"), a_curve("two", (2.5, 2.25), 2.252))
    assert {"one · 1.500", "two · 2.252", "bits per character", "characters read", "2 M"} <= set(texts(svg))
    one, two = points(svg)
    assert len(one) == 3 and len(two) == 2
    assert one[1][0] == two[1][0]  # the same number of characters
    assert one[2][1] > two[1][1]  # fewer bits are lower in the image
    assert len({line.get("stroke-dasharray") for line in svg.iter(f"{SVG}polyline")}) == 2


def test_the_horizontal_axis_can_show_seconds():
    by_characters, by_time = render(a_curve()), render(a_curve(), by_time=True)
    (characters,), (seconds,) = points(by_characters), points(by_time)
    assert characters[0][0] > seconds[0][0] and characters[-1] == seconds[-1]
    assert {"seconds", "10"} <= set(texts(by_time))


def test_names_are_escaped():
    svg = render(a_curve('</text><script>alert(1)</script>&"\x00'))
    assert not list(svg.iter(f"{SVG}script"))
    assert any("<script>" in (text or "") for text in texts(svg))


@pytest.mark.parametrize("bits", [(2.0, 2.0), (1e-9, 1e-9, 1e-9), (900.0, 1.0)])
def test_unusual_values_can_be_drawn(bits):
    svg = render(a_curve(bits=bits), Curve("nothing", [0.0, 0.0], [0.0, 0.0], [1.0, 1.0], 1.0))
    assert all(math.isfinite(value) for line in points(svg) for point in line for value in point)


@pytest.mark.parametrize(("first", "is_shown"), [(2.6, True), (9.0, False)])
def test_only_a_steep_fall_after_the_first_validation_leaves_the_plot(first, is_shown):
    (line,) = points(render(a_curve(bits=(first, 2.0, 1.5))))
    heights = [y for _, y in line]
    assert (heights[0] > 0) == is_shown
    assert heights[0] < heights[1] < heights[2]
