"""The token stream: made once, split as promised, counted right."""

import json
from multiprocessing import get_context

import numpy as np
import pytest

from lm.config.schema import DataConfig
from lm.data.cache import entries
from lm.data.corpus import open_corpus
from lm.errors import DataError, UserError


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LM_CACHE", str(tmp_path / "cache"))


def write_rows(path, rows):
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    return str(path)


def test_the_last_tenth_of_the_characters_validates(tmp_path):
    text = "".join(chr(97 + i % 26) for i in range(1115))
    (tmp_path / "t.txt").write_text(text)
    corpus = open_corpus(DataConfig(dataset=str(tmp_path / "t.txt")))
    assert corpus.tokenizer.decode(corpus.train.tokens) == text[:1003]
    assert corpus.tokenizer.decode(corpus.validation.tokens) == text[1003:]
    assert corpus.train.counts.characters == corpus.train.counts.tokens == 1003


def test_documents_are_separated_by_one_eos(tmp_path):
    rows = ["ab", "", "cde", "fghi", "é" * 3]
    corpus = open_corpus(DataConfig(dataset=write_rows(tmp_path / "r.jsonl", rows), validation_split="0.25"))
    eos, tokenizer = corpus.tokenizer.eos, corpus.tokenizer
    documents = [[]]
    for token in corpus.train.tokens:
        if token == eos:
            documents.append([])
        else:
            documents[-1].append(token)
    assert [tokenizer.decode(d) for d in documents] == ["ab", "cde", "fghi"]
    counts = corpus.train.counts
    assert (counts.documents, counts.characters, counts.bytes, counts.tokens) == (3, 9, 9, 11)
    assert corpus.validation.counts.bytes == 6


def test_the_vocabulary_comes_from_the_training_text_alone(tmp_path):
    corpus = open_corpus(DataConfig(dataset=write_rows(tmp_path / "r.jsonl", ["ab" * 45, "zz" * 5])))
    assert corpus.tokenizer.unknown_in("abz") == ["z"]
    assert corpus.validation.counts.unknown == 10


def test_named_splits_win_over_the_last_tenth(tmp_path):
    (tmp_path / "train.txt").write_text("abab")
    (tmp_path / "valid.txt").write_text("ba")
    corpus = open_corpus(DataConfig(dataset=str(tmp_path)))
    assert corpus.train.counts.tokens == 4
    assert corpus.validation.counts.tokens == 2


def test_a_second_run_reads_nothing_again(tmp_path):
    (tmp_path / "t.txt").write_text("some text to read " * 10)
    config = DataConfig(dataset=str(tmp_path / "t.txt"))
    lines = []
    open_corpus(config, lambda task, fraction: lines.append(task))
    assert lines
    lines.clear()
    corpus = open_corpus(config, lambda task, fraction: lines.append(task))
    assert not lines
    assert isinstance(corpus.train.tokens, np.memmap)
    assert corpus.train.tokens.dtype == np.uint16


@pytest.mark.parametrize("change", [{"tokenizer": "bpe", "vocab_size": 300}, {"max_chars": 50}])
def test_other_settings_make_another_stream(tmp_path, change):
    (tmp_path / "t.txt").write_text("some text to read " * 10)
    config = DataConfig(dataset=str(tmp_path / "t.txt"))
    assert open_corpus(config).key != open_corpus(DataConfig(dataset=config.dataset, **change)).key


def make_in_another_process(config, queue):
    lines = []
    corpus = open_corpus(config, lambda task, fraction: lines.append(task))
    queue.put((len(lines), corpus.key))


def test_two_processes_make_it_once(tmp_path):
    (tmp_path / "t.txt").write_text("some text to read " * 1000)
    config = DataConfig(dataset=str(tmp_path / "t.txt"))
    context = get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=make_in_another_process, args=(config, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    results = sorted(queue.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert [lines > 0 for lines, _ in results] == [False, True]


def test_nothing_half_made_stays_behind(tmp_path):
    (tmp_path / "t.txt").write_bytes(b"good text " * 20 + b"\xff")
    with pytest.raises(DataError):
        open_corpus(DataConfig(dataset=str(tmp_path / "t.txt")))
    assert not entries()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'train' of t is empty"),
        ("a", "only one character"),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "only one distinct character, 'a'"),
        ("ab", "only one distinct character, 'a'"),
    ],
)
def test_text_that_teaches_nothing_is_refused(tmp_path, text, message):
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        open_corpus(DataConfig(dataset=str(tmp_path / "t.txt")))


def test_a_fraction_out_of_range(tmp_path):
    (tmp_path / "t.txt").write_text("some text")
    with pytest.raises(UserError, match="--validation-split"):
        open_corpus(DataConfig(dataset=str(tmp_path / "t.txt"), validation_split="1.5"))
