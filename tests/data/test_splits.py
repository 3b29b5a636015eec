"""Splits: named ones, and fractions of the training text."""

import pytest

from lm.config.schema import DataConfig
from lm.console.progress import no_progress
from lm.data.sources import find_source
from lm.data.splits import fraction_of, read_splits
from lm.errors import DataError, UserError


def splits_of(tmp_path, **settings):
    config = DataConfig(dataset=str(tmp_path / "texts"), **settings)
    texts, _ = read_splits([find_source(config.dataset[0], config)], config, tmp_path, no_progress)
    return {name: b"".join(text.blocks()).decode() for name, (text,) in texts.items()}


@pytest.fixture
def texts(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "train.txt").write_text("0123456789ab")
    return tmp_path


def test_fraction_or_name():
    assert fraction_of("0.25", "--split") == 0.25
    assert fraction_of("test", "--split") is None
    assert fraction_of(None, "--split") is None


@pytest.mark.parametrize("split", ["0", "1", "-0.1", "nan", "2"])
def test_fraction_outside_0_to_1_is_an_error(split):
    with pytest.raises(UserError, match=rf"--split must be .* between 0 and 1, got {split}\."):
        fraction_of(split, "--split")


def test_validation_and_test_fractions_are_the_end_of_the_text(texts):
    splits = splits_of(texts, validation_split="0.25", test_split="0.25")
    assert splits == {"train": "012345", "validation": "678", "test": "9ab"}


@pytest.mark.parametrize(
    ("text", "held_out"), [("123456789", "89"), ("1234", "34"), ("123", "23"), ("12", "2")]
)
def test_a_tiny_text_holds_out_enough_to_predict_a_token(texts, text, held_out):
    (texts / "texts" / "train.txt").write_text(text)
    assert splits_of(texts) == {"train": text.removesuffix(held_out), "validation": held_out}


def test_named_split_is_used_next_to_a_fraction(texts):
    (texts / "texts" / "test.txt").write_text("test")
    assert splits_of(texts, test_split="test") == {"train": "0123456789", "validation": "ab", "test": "test"}


def test_fractions_that_leave_nothing_are_an_error(texts):
    with pytest.raises(UserError, match="leave nothing to train on"):
        splits_of(texts, validation_split="0.5", test_split="0.5")


def test_missing_split_is_an_error(texts):
    with pytest.raises(DataError, match="no split 'dev'; it has train"):
        splits_of(texts, validation_split="dev")
