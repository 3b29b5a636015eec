"""The text that a model was trained on is found again when the model has changed."""

import json
import os
import shutil

import pytest

from app.tabs.write.copied_text import copied_spans
from lm.errors import UserError


def test_the_training_text_of_a_model_that_was_replaced_is_not_used(trained_run, text_file, tmp_path):
    run, text = shutil.copytree(trained_run, tmp_path / "run"), text_file.read_text()[:200]
    os.utime(run / "config.json", (0, 0))
    assert copied_spans(run, text) == ([(0, 200)], 1.0)
    shutil.rmtree(run / "training")
    config = json.loads((run / "config.json").read_text())
    config["trained_on"]["dataset"] = "elsewhere.txt"
    (run / "config.json").write_text(json.dumps(config))
    os.utime(run / "config.json", (0, 0))
    with pytest.raises(UserError, match="elsewhere"):
        copied_spans(run, text)
