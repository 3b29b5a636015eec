"""The learning-rate finder suggests a rate that learns, and plots why."""

import xml.etree.ElementTree as ElementTree

import pytest

from lm.cli.train import main
from lm.errors import UserError
from lm.training.find_lr import suggestion
from tests.conftest import SMALL


@pytest.mark.slow
def test_it_writes_one_plot_and_nothing_else(tmp_path, monkeypatch, text_file, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--dataset", str(text_file), *SMALL, "--find-lr", "--out", "r"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["find-lr.svg"]
    shown = capsys.readouterr().out
    rate = float(shown.split("Try --lr ")[1].split(". ")[0])
    assert 3e-3 < rate < 0.1
    drawn = ElementTree.parse("find-lr.svg").getroot()
    (curve,) = drawn.iter("{http://www.w3.org/2000/svg}polyline")
    heights = [float(point.split(",")[1]) for point in curve.get("points").split()]
    assert max(heights) > heights[0] + 50  # y grows downwards: a lower loss
    assert heights[-1] < heights[0]  # it exploded at the end


def test_it_starts_from_the_weights_of_init_from(tmp_path, monkeypatch, text_file):
    """A new network guesses; the pretrained one knows English."""
    monkeypatch.chdir(tmp_path)
    begins = []
    monkeypatch.setattr(
        "lm.training.find_lr.rate_curve", lambda losses, *_: begins.append(losses[0][1]) or ""
    )
    monkeypatch.setattr("lm.training.find_lr._STEPS", 1)
    for start in (SMALL, ["--init-from", "pretrained", "--batch-size", "8", "--bptt", "32"]):
        assert main(["--dataset", str(text_file), *start, "--find-lr", "--quiet"]) == 0
    assert begins[1] < begins[0] - 0.5


def test_a_plot_that_cannot_be_written_is_found_before_the_text_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "find-lr.svg").mkdir()
    with pytest.raises(
        UserError, match=r"^cannot write find-lr\.svg: run the command in a writable folder\.$"
    ):
        main(["no-text.txt", "--find-lr"])


def test_the_suggestion_stays_away_from_exploding_rates():
    losses = [(1e-4, 3.0), (1e-3, 2.9), (1e-2, 2.0), (1e-1, 1.5), (1.0, 1.4), (2.0, 9.0)]
    assert suggestion(losses) == pytest.approx(0.1)
