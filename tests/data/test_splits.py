"""Splits: named ones, and fractions of the training text."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lm.config.schema import DataConfig
from lm.console.progress import no_progress
from lm.data.find_source import find_source
from lm.data.splits import fraction_of, read_splits
from lm.errors import DataError, UserError


def splits_of(tmp_path, **settings):
    config = DataConfig(dataset=str(tmp_path / "texts"), **settings)
    texts, _ = read_splits([find_source(config.dataset[0], config)], config, tmp_path, no_progress)
    return {
        name: b"".join(text.blocks()).decode("utf-8", "surrogateescape") for name, (text,) in texts.items()
    }


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


LONG, SHORT = "the sea was calm and warm {}", "calm{}"


def write_table(path, columns, count=30):
    """A table of rows with texts by their columns, each with the number of its row."""
    rows = [{name: text.format(number) for name, text in columns.items()} for number in range(count)]
    if path.suffix == ".csv":
        lines = [",".join(columns), *(",".join(row.values()) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(params=[".csv", ".jsonl", ".parquet"])
def tables(request, tmp_path):
    """A function that writes the table of a split."""
    (tmp_path / "texts").mkdir()
    return lambda split, columns: write_table(tmp_path / "texts" / f"{split}{request.param}", columns)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    "held_out",
    [
        {"source": SHORT, "target": LONG},
        {"source": SHORT, "text": LONG},
        {"target": LONG, "source": SHORT},
        {"source": LONG, "text": SHORT, "note": LONG},
    ],
)
def test_every_split_is_read_from_the_column_of_the_training_split(tmp_path, tables, held_out, streaming):
    tables("train", {"source": LONG, "target": SHORT})
    tables("valid", held_out)
    tables("test", held_out)
    splits = splits_of(tmp_path, test_split="test", streaming=streaming)
    assert list(splits) == ["train", "validation", "test"]
    for split in ("validation", "test"):
        assert splits[split].split("\udcff") == [held_out["source"].format(number) for number in range(30)]


@pytest.mark.parametrize("settings", [{}, {"text_column": "source"}, {"streaming": True}])
@pytest.mark.parametrize(
    ("split", "name", "wanted"), [("valid", "validation", None), ("test", "test", "test")]
)
def test_a_split_without_the_column_of_the_training_split_is_an_error(
    tmp_path, tables, settings, split, name, wanted
):
    tables("train", {"source": LONG, "target": SHORT})
    tables(split, {"target": LONG, "id": "{}"})
    with pytest.raises(DataError) as raised:
        splits_of(tmp_path, test_split=wanted, **settings)
    message = str(raised.value)
    assert message.startswith(f"in the split '{name}', texts has no column 'source'; it has target, id. The")
    assert "\n" not in message
    assert "read from that column: rename one there" in message
    assert (f"hold out training text with --{name}-split 0.1." in message) is (not settings.get("streaming"))


def test_the_named_column_holds_for_every_split(tmp_path, tables):
    tables("train", {"source": LONG, "target": SHORT})
    tables("valid", {"text": LONG, "target": SHORT})
    splits = splits_of(tmp_path, text_column="target")
    assert splits["train"].startswith("calm0")
    assert splits["validation"].startswith("calm0")


def test_the_splits_of_each_dataset_have_their_own_column(tmp_path):
    for folder, column in (("a", "source"), ("b", "target")):
        (tmp_path / folder).mkdir()
        for split in ("train", "valid"):
            write_table(tmp_path / folder / f"{split}.csv", {column: f"{folder} {LONG}", "id": "{}"})
    config = DataConfig(dataset=(str(tmp_path / "a"), str(tmp_path / "b")))
    texts, _ = read_splits(
        [find_source(name, config) for name in config.dataset], config, tmp_path, no_progress
    )
    first = [b"".join(text.blocks()).split(b"\xff")[0].decode() for text in texts["validation"]]
    assert first == ["a the sea was calm and warm 0", "b the sea was calm and warm 0"]
