"""The panel of a training in a notebook, without the notebook."""

import re
from base64 import b64decode

import pytest

import lm
from lm.console.notebook import Output
from lm.training import display
from lm.training.panel import Panel

SVG, LATER = "<svg>é 1</svg>", "<svg>2</svg>"


@pytest.fixture
def shown(monkeypatch):
    """What is displayed, instead of displaying it."""
    contents = []
    monkeypatch.setattr(Output, "show", lambda self, **content: contents.append(content))
    return contents


def curve_in(html):
    found = re.search(r'src="data:image/svg\+xml;base64,([^"]*)"', html)
    return found and b64decode(found[1]).decode()


def test_the_bar_is_drawn_at_most_twice_a_second(shown, clock):
    shows = Panel()
    for now in (100.0, 100.1, 100.4, 100.6, 100.7):
        clock[0] = now
        shows.update(now - 100, f"step {now:g} <b>")
    assert [content["text_plain"] for content in shown] == ["  0%  step 100 <b>", " 60%  step 100.6 <b>"]
    assert '<progress value="0.6000"' in shown[1]["text_html"]
    assert "step 100.6 &lt;b&gt;" in shown[1]["text_html"] and curve_in(shown[1]["text_html"]) is None
    clock[0] = 200.0
    shows.update(1.03, "over the budget")
    assert '<progress value="1.0000"' in shown[2]["text_html"]
    assert "100%" in shown[2]["text_html"] and "100%" in shown[2]["text_plain"]


def test_the_curve_is_below_the_bar_and_stays_alone(shown, clock):
    shows = Panel()
    shows.curve(SVG, 4)
    assert shown == []  # until the next update
    shows.update(0.5, "step 5")
    assert curve_in(shown.pop()["text_html"]) == SVG
    shows.close()
    assert shown.pop() == {"text_plain": "the loss curve", "image_svg": SVG}
    shows.curve(LATER, 5)  # with the final validation
    assert shown.pop() == {"text_plain": "the loss curve", "image_svg": LATER}


def test_a_training_that_ends_before_its_first_curve_leaves_the_bar(shown, clock):
    shows = Panel()
    shows.update(0.5, "step 5")
    shows.close()
    assert len(shown) == 1


def test_the_curve_is_drawn_again_when_it_has_grown(shown, clock):
    shows = Panel()
    due = []
    for step in range(25, 3000, 25):
        clock[0] += 0.6
        if shows.curve_due(step):
            due.append(step)
            shows.curve(SVG, step)
    assert due[:3] == [25, 50, 75] and due[-1] - due[-2] == 75  # 2% of the steps
    clock[0] += 0.1
    assert not shows.curve_due(10_000)  # too soon after the last one


def test_a_training_draws_the_curve_between_validations(shown, monkeypatch, text_file, tmp_path):
    drawn = []
    monkeypatch.setattr(display, "in_notebook", lambda: True)
    monkeypatch.setattr(Panel, "curve", lambda panel, svg, step: drawn.append(step))
    settings = {"layers": 1, "hidden_size": 8, "batch_size": 4, "bptt": 8, "eval_every": 1000}
    lm.train(text_file, out=tmp_path / "r", steps=30, **settings)
    assert (drawn[0], drawn[-1]) == (25, 30)
