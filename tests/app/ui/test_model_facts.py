"""The facts shown for a model, and that nothing in its files becomes part of the page."""

import base64
import json
import re
import shutil

import pytest

from app.ui.model_facts import describe, facts
from lm.files.model_files import read_json


@pytest.fixture
def run(tmp_path, trained_run):
    return shutil.copytree(trained_run, tmp_path / "run")


def test_facts_come_from_config_json(run):
    config = read_json(run / "config.json", run)
    shown = dict(facts(config))
    assert shown["Cell"] == "LSTM, 1 × 32 units"
    assert shown["Parameters"] == f"{config['parameters']:,}"
    assert shown["Tokenizer"] == f"char, {config['vocab_size']} tokens"
    assert shown["Trained on"] == f"boat.txt, {config['trained_on']['characters']:,} characters"
    validation = config["validation"]
    assert shown["Validation loss"] == f"{validation['loss']:.3f} nats per token"
    assert shown["Perplexity"] == f"{validation['perplexity']:.2f}"
    assert shown["Bits per character"] == f"{validation['bits_per_character']:.3f}"
    assert shown["Bits per byte"] == f"{validation['bits_per_byte']:.3f}"


def test_a_fine_tuned_model_shows_its_loss_before(run):
    config = read_json(run / "config.json", run)
    assert "Before fine-tuning" not in dict(facts(config))
    config["trained_on"]["validation_loss_before"] = 1.8002
    assert dict(facts(config))["Before fine-tuning"] == "1.800 nats per token"


def test_the_curve_is_the_svg_of_the_run_as_an_image(run):
    (data,) = re.findall(r'<img [^>]*src="data:image/svg\+xml;base64,([^"]+)">', describe(run))
    assert base64.b64decode(data) == (run / "training" / "loss.svg").read_bytes()


def test_a_model_without_a_curve_is_described(run):
    shutil.rmtree(run / "training")
    assert "No loss curve" in describe(run)
    assert "LSTM, 1 × 32 units" in describe(run)


def test_html_in_config_json_is_escaped(run):
    config = json.loads((run / "config.json").read_text())
    config["trained_on"]["dataset"] = "<script>alert(1)</script>"
    (run / "config.json").write_text(json.dumps(config))
    page = describe(run)
    assert "&lt;script&gt;" in page and "<script" not in page


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"model": "lstm", "trained_on": [], "validation": None},
        {"model": {"cell": 3, "layers": "two"}, "parameters": None, "tokenizer": {}},
        {"validation": {"loss": "low", "perplexity": None}, "trained_on": {"dataset": None}},
        {"trained_on": {"validation_loss_before": "high"}},
    ],
)
def test_unexpected_values_in_config_json_are_tolerated(run, config):
    (run / "config.json").write_text(json.dumps(config))
    assert "<img" in describe(run)


def test_a_missing_config_json_is_a_message(run):
    (run / "config.json").unlink()
    assert "config.json" in describe(run)
