"""The picture of several runs' loss curves: the right figures, and nothing that breaks it."""

import json
import math
import shutil
from xml.etree import ElementTree

import pytest

from app.tabs.compare.curves import Curve, curve_of, picture

WORDS = {"bits": "bits per character", "characters": "characters read", "seconds": "seconds"}
SVG = "{http://www.w3.org/2000/svg}"


def a_curve(name="boat", bits=(3.0, 2.0, 1.5)):
    return Curve(
        name, [1e6 * (n + 1) for n in range(len(bits))], [5.0 * n for n in range(len(bits))], [*bits]
    )


def drawn(*curves, by_time=False):
    return ElementTree.fromstring(picture(curves, by_time, WORDS))


def points(svg):
    lines = [line.get("points").split() for line in svg.iter(f"{SVG}polyline")]
    return [[tuple(map(float, point.split(","))) for point in line] for line in lines]


def test_a_curve_has_the_validations_of_the_run_in_bits_per_character(trained_run):
    curve = curve_of("boat", trained_run)
    records = [json.loads(line) for line in (trained_run / "training/metrics.jsonl").read_text().splitlines()]
    validations = {r["step"]: r for r in records if "validation_loss" in r}
    assert curve.name == "boat" and len(curve.bits) == len(validations) > 1
    assert curve.bits == pytest.approx([r["validation_loss"] / math.log(2) for r in validations.values()])
    # With a character a token they are as many.
    assert curve.characters == pytest.approx([r["tokens"] for r in validations.values()])
    assert curve.seconds == [r["seconds"] for r in validations.values()]


def test_tokens_of_several_characters_are_counted_in_characters(trained_run, tmp_path):
    run = shutil.copytree(trained_run, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["validation"] |= {"loss": 2.0, "bits_per_character": 1.0}
    (run / "config.json").write_text(json.dumps(config))
    line = '{"step": %d, "tokens": %d, "seconds": %d, "validation_loss": %f}\n'
    metrics = "".join(line % (n, 1000 * n, n, 4.0 / n) for n in (1, 2))
    (run / "training/metrics.jsonl").write_text(metrics)
    curve = curve_of("run", run)
    assert curve.bits == pytest.approx([2.0, 1.0])
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
def test_a_model_without_metrics_or_with_damaged_ones_has_no_curve(trained_run, tmp_path, file, content):
    run = shutil.copytree(trained_run, tmp_path / "run")
    (run / file).unlink()
    if content is not None:
        (run / file).write_text(content)
    assert curve_of("run", run) is None


def test_all_curves_are_in_one_picture_each_with_its_name_and_best_figure():
    svg = drawn(a_curve("one"), a_curve("two", (2.5, 2.25)))
    texts = [text.text for text in svg.iter(f"{SVG}text")]
    assert "one · 1.500" in texts and "two · 2.250" in texts
    assert "bits per character" in texts and "characters read" in texts and "2 M" in texts
    one, two = points(svg)
    assert len(one) == 3 and len(two) == 2
    assert one[1][0] == two[1][0]  # after the same number of characters
    assert one[2][1] > two[1][1]  # fewer bits stand lower
    assert len({line.get("stroke-dasharray") for line in svg.iter(f"{SVG}polyline")}) == 2


def test_over_the_time_the_places_are_seconds():
    (over_text,), (over_time,) = points(drawn(a_curve())), points(drawn(a_curve(), by_time=True))
    assert over_text[0][0] > over_time[0][0] and over_text[-1] == over_time[-1]
    texts = [text.text for text in drawn(a_curve(), by_time=True).iter(f"{SVG}text")]
    assert "seconds" in texts and "10" in texts


def test_a_name_is_data():
    name = '</text><script>alert(1)</script>&"\x00'
    svg = drawn(a_curve(name))
    assert not list(svg.iter(f"{SVG}script"))
    assert any("<script>" in (text.text or "") for text in svg.iter(f"{SVG}text"))


@pytest.mark.parametrize("bits", [(2.0, 2.0), (1e-9, 1e-9, 1e-9), (900.0, 1.0)])
def test_odd_figures_can_be_drawn(bits):
    svg = drawn(a_curve(bits=bits), Curve("nothing", [0.0, 0.0], [0.0, 0.0], [1.0, 1.0]))
    assert all(math.isfinite(value) for line in points(svg) for point in line for value in point)
