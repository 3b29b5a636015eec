"""The loss curve is well-formed SVG that shows the metrics."""

import math
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

from hypothesis import given, strategies as st

from lm.training.plot import MAX_POINTS, loss_curve, round_numbers

SVG = "{http://www.w3.org/2000/svg}"
LOSSES = st.lists(st.floats(0.01, 12), min_size=1, max_size=1500)


def lines(svg):
    root = ElementTree.fromstring(svg)
    return {
        line.get("class"): [tuple(map(float, p.split(","))) for p in line.get("points").split()]
        for line in root.iter(SVG + "polyline")
    }


@given(losses=LOSSES, every=st.integers(1, 50))
def test_points_are_inside_the_plot_and_in_order(losses, every):
    records = [{"step": 25 * i, "train_loss": loss} for i, loss in enumerate(losses, start=1)]
    for record in records[::every]:
        record["validation_loss"] = record["train_loss"] + 0.1
    drawn = lines(loss_curve(records, "a <title> & more"))
    assert len(drawn["train"]) <= MAX_POINTS
    assert len(drawn["validation"]) == len(records[::every])
    for points in drawn.values():
        assert [x for x, _ in points] == sorted(x for x, _ in points)
        assert all(0 <= x <= 560 and 0 <= y <= 350 for x, y in points)


def test_no_line_runs_backward_whatever_the_order_of_the_records():
    train = [{"step": n, "train_loss": 4 - n / 10, "learning_rate": 0.1 / n} for n in range(1, 21)]
    validation = [{"step": n, "validation_loss": 3.5, "learning_rate": 0.1 / n} for n in (5, 15, 10)]
    for points in lines(loss_curve([*train[10:], *train[:10], *validation], "t")).values():
        assert [x for x, _ in points] == sorted(x for x, _ in points)


def test_a_lower_loss_is_drawn_lower():
    records = [{"step": i, "train_loss": 4.0 - i / 10} for i in range(1, 21)]
    heights = [y for _, y in lines(loss_curve(records, "t"))["train"]]
    assert heights[1:] == sorted(heights[1:])


def test_the_last_validation_of_a_step_counts():
    records = [{"step": 5, "validation_loss": 2.0}, {"step": 5, "validation_loss": 1.5}]
    assert "best 1.500" in loss_curve(records, "t")


def test_the_validation_of_the_whole_text_is_drawn_as_a_ring():
    records = [{"step": n, "validation_loss": 3 - n / 10, "validation_tokens": 512} for n in range(1, 4)]
    whole = {"step": 2, "validation_loss": 2.9, "validation_tokens": 4096}
    curve, last = (
        loss_curve([*records, whole], "t"),
        loss_curve([*records, {**whole, "validation_tokens": 512}], "t"),
    )
    assert len(lines(curve)["validation"]) == len(lines(last)["validation"]) == 3
    assert "all of it: 2.900" in curve and "ring" in curve.partition("</style>")[2]
    assert "best 2.700" in last and "ring" not in last.partition("</style>")[2]
    heights = [y for _, y in lines(curve)["validation"]]
    assert heights == sorted(heights) and len(set(heights)) == 3


def test_no_metrics_still_give_a_plot():
    assert ElementTree.fromstring(loss_curve([], "empty")) is not None


@given(low=st.floats(-5, 5), width=st.floats(0.001, 1e6))
def test_ticks_are_few_and_inside(low, width):
    ticks = round_numbers(low, low + width)
    assert 2 <= len(ticks) <= 8
    assert all(low - 1e-6 <= t <= low + width + 1e-6 for t in ticks)
    assert all(
        math.isclose(b - a, ticks[1] - ticks[0], rel_tol=1e-6, abs_tol=1e-9) for a, b in pairwise(ticks)
    )
