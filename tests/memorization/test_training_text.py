"""Where the training text of a model is found, and the reason where it is not."""

import json
import shutil
import tracemalloc

import numpy as np
import pytest

import lm
from lm.data.cache import cache_folder
from lm.data.find_source import python_library
from lm.errors import DataError, UserError
from lm.memorization.search import BREAK, find_copied
from lm.memorization.training_text import DecodedText, find_training_text
from lm.storage.model_folder import PRETRAINED
from lm.tokenization.vocabulary import char_tokenizer, train_tokenizer
from tests.conftest import some_text


@pytest.fixture
def run(tmp_path, trained_run, monkeypatch):
    """A copy of a run, with a cache that holds its token stream and nothing else: other tests may have cached
    the same text."""
    shutil.copytree(trained_run, tmp_path / "run")
    key = json.loads((trained_run / "training" / "checkpoint" / "progress.json").read_text())["corpus"]
    shutil.copytree(cache_folder() / key, tmp_path / "cache" / key)
    monkeypatch.setenv("LM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "run"


@pytest.fixture
def saved(run, tmp_path):
    """The model of that run, saved without its training folder."""
    lm.load(run, "cpu").save(tmp_path / "saved")
    return tmp_path / "saved"


def check(folder, text_file):
    """The training split is found, all of it and nothing else."""
    blocks, text = find_training_text(folder), text_file.read_text()
    assert find_copied(text[:27_000], blocks) == ([(0, 27_000)], 1.0)
    spans, _ = find_copied(text[26_900:27_100], blocks)
    assert spans[0] == (0, 100)  # the rest is the validation split


def edit_config(folder, **trained_on):
    config = json.loads((folder / "config.json").read_text())
    config["trained_on"] |= trained_on
    (folder / "config.json").write_text(json.dumps(config))


def test_the_text_of_a_run_is_found_in_the_cache(run, text_file):
    check(run, text_file)


def test_the_checkpoint_names_the_stream_of_a_run_whatever_its_dataset_was_called(run, text_file):
    edit_config(run, dataset="-")
    check(run, text_file)


def test_a_model_without_a_checkpoint_is_recognized_by_its_name_counts_and_tokenizer(run, saved, text_file):
    assert not (saved / "training").exists()
    check(saved, text_file)
    shutil.rmtree(run / "training" / "checkpoint")
    check(run, text_file)


def test_a_damaged_stream_with_the_same_name_is_skipped(saved, tmp_path, text_file):
    for name in ("boat-1", "boat-2.partial"):
        (tmp_path / "cache" / name).mkdir()
    (tmp_path / "cache" / "boat-1" / "info.json").write_text("{")
    check(saved, text_file)


@pytest.mark.parametrize("count", ["tokens", "characters", "documents", "dataset"])
def test_the_stream_of_another_text_does_not_match(saved, count):
    trained_on = json.loads((saved / "config.json").read_text())["trained_on"]
    edit_config(saved, **{count: "ship.txt" if count == "dataset" else trained_on[count] + 1})
    with pytest.raises(DataError, match=r"is not in the cache .*: train on it again on this machine"):
        find_training_text(saved)


def test_a_stream_with_another_tokenizer_does_not_match(saved):
    char_tokenizer(dict.fromkeys("ab", 1)).save(saved / "tokenizer.json")
    with pytest.raises(DataError, match="is not in the cache"):
        find_training_text(saved)


def test_with_an_empty_cache_the_error_names_the_dataset_and_nothing_is_written(run, tmp_path):
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(DataError, match=r"boat.txt, is not in the cache"):
        find_training_text(run)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("key", ["../secret", "/secret", "..", "", 7, None, ["x"]])
def test_no_checkpoint_leads_out_of_the_cache(run, tmp_path, key, text_file):
    progress = run / "training" / "checkpoint" / "progress.json"
    saved = json.loads(progress.read_text())
    stream = tmp_path / "cache" / saved["corpus"]
    progress.write_text(json.dumps({**saved, "corpus": key}))
    shutil.copytree(stream, tmp_path / "secret")
    check(run, text_file)  # by its name and counts
    shutil.rmtree(stream)
    with pytest.raises(DataError, match="is not in the cache"):
        find_training_text(run)


@pytest.mark.parametrize("trained_on", [None, [], "x", {}, {"dataset": None}])
def test_a_model_that_does_not_say_what_it_was_trained_on_has_no_text(saved, trained_on):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "trained_on": trained_on}))
    with pytest.raises(UserError, match="does not say what it was trained on"):
        find_training_text(saved)


@pytest.mark.slow
def test_the_text_of_the_shipped_model_is_the_library_of_this_python(run):
    with open(python_library()[0], encoding="utf-8") as file:
        text = file.read()[:2000]
    blocks = find_training_text(PRETRAINED)
    assert find_copied(text, blocks) == ([(0, len(text))], 1.0)
    end = "\x00" + some_text(100)
    assert find_copied(text + end, blocks)[0] == [(0, len(text))]


def test_the_library_is_cut_to_the_length_trained_on(saved):
    edit_config(saved, dataset="python", characters=10_000, documents=3)
    whole = "".join(find_training_text(saved))
    assert len(whole) == 10_002
    edit_config(saved, characters="x")  # someone else's file
    assert len("".join(find_training_text(saved))) > 1_000_000


def test_documents_are_separated_and_white_space_kept():
    for kind in ("char", "byte", "bpe", "unigram"):
        tokenizer = train_tokenizer(kind, ["the boat é 中\n" * 40], 300)
        tokens = tokenizer.encode_bytes(b"the boat\n\n\xc3\xa9 a\xffthe boat")
        expected = f"the boat\n\né a{BREAK}the boat"
        assert "".join(DecodedText(tokenizer, tokens)) == expected, kind


@pytest.mark.slow
def test_memory_does_not_grow_with_the_training_text():
    text = some_text(500_000)
    tokenizer = train_tokenizer("byte", [text])
    tokens = np.tile(tokenizer.encode(text), 20)
    tracemalloc.start()
    assert find_copied(text[5000:7000], DecodedText(tokenizer, tokens)) == ([(0, 2000)], 1.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20  # the text takes 10 million bytes
