"""Text to score: a whole split, or what a run held out."""

from dataclasses import replace

import pytest

from lm.config.schema import DataConfig
from lm.console.progress import no_progress
from lm.data.cache import cache_folder
from lm.data.corpus import open_corpus
from lm.data.eval_text import read_held_out, read_whole
from lm.errors import UserError
from lm.tokenization.documents import SEPARATOR


@pytest.fixture
def split_folder(tmp_path):
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.txt").write_text(f"the {name} text\r\n" * 20, newline="")
    return tmp_path


def test_default_is_the_test_split_else_the_validation_split_else_everything(split_folder):
    config = DataConfig(dataset=str(split_folder))
    assert read_whole(config, None, no_progress) == (split_folder.name, b"the test text\n" * 20, [], [], {})
    assert read_whole(config, "train", no_progress)[1] == b"the train text\n" * 20
    (split_folder / "test.txt").unlink()
    assert read_whole(config, None, no_progress)[1] == b"the valid text\n" * 20
    (split_folder / "valid.txt").unlink()
    assert read_whole(config, None, no_progress)[1] == b"the train text\n" * 20
    assert not list(cache_folder().glob("text.*"))


def test_fraction_is_the_end_of_the_text(tmp_path):
    (tmp_path / "a.txt").write_text("0123456789é")
    config = DataConfig(dataset=str(tmp_path / "a.txt"))
    assert read_whole(config, "0.3", no_progress)[1].decode() == "789é"
    assert read_whole(replace(config, max_chars=4), None, no_progress)[1] == b"0123"


def test_several_datasets_are_joined_as_documents(split_folder, tmp_path):
    (tmp_path / "b.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    files = (str(split_folder / "test.txt"), str(tmp_path / "b.jsonl"))
    name, text, *_ = read_whole(DataConfig(dataset=files), None, no_progress)
    assert name == "test+b"
    assert text.split(SEPARATOR)[1:] == [b"one", b"two"]


@pytest.mark.parametrize("settings", [{}, {"validation_split": "0.25", "test_split": "0.2"}])
def test_held_out_text_encodes_to_the_tokens_of_its_split(tmp_path, settings):
    (tmp_path / "a.txt").write_text("the sea was calm. " * 30)
    (tmp_path / "b.txt").write_text("a small boat went out\n" * 20)
    config = DataConfig(dataset=(str(tmp_path / "a.txt"), str(tmp_path / "b.txt")), **settings)
    corpus = open_corpus(config)
    for split in ("validation", "test"):
        if built := getattr(corpus, split):
            _, text, *_ = read_held_out(config, split, no_progress)
            assert corpus.tokenizer.encode_bytes(text).tolist() == built.tokens.tolist()
        else:
            with pytest.raises(UserError, match="without a test split, only with validation"):
                read_held_out(config, split, no_progress)


def test_a_text_that_has_changed_is_not_the_held_out_text(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("the sea was calm. " * 30)
    config = DataConfig(dataset=str(file))
    fingerprint = open_corpus(config).fingerprint
    assert read_held_out(config, "validation", no_progress, trained_on={"fingerprint": fingerprint}).text
    moved = file.rename(tmp_path / "b.txt")
    elsewhere = DataConfig(dataset=str(moved))
    assert read_held_out(elsewhere, "validation", no_progress, trained_on={"fingerprint": fingerprint}).text
    file.write_text("the sea was calm. " * 20)
    with pytest.raises(UserError, match=r"a.txt is not the text that the model was trained on: it has"):
        read_held_out(config, "validation", no_progress, trained_on={"fingerprint": fingerprint})


def test_standard_input_cannot_be_read_again():
    with pytest.raises(UserError, match="trained on standard input: name a text"):
        read_held_out(DataConfig(dataset="-"), "validation", no_progress)


def test_warnings_about_a_table_are_passed_on(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one two"}\n{"text": 3}\n')
    _, text, warnings, *_ = read_whole(DataConfig(dataset=str(tmp_path / "a.jsonl")), None, no_progress)
    assert text == b"one two" + SEPARATOR + b"3"
    (warning,) = warnings
    assert warning.endswith("rather than text in 1 of 2 rows: they are read as they are written.")
