"""The token stream: built once, split as documented, counted correctly."""

import io
import json
import os
import sys
from multiprocessing import get_context

import numpy as np
import pytest

from lm.cli.data import main as data
from lm.config.schema import DataConfig
from lm.data import cache
from lm.data.cache import cache_folder, entries
from lm.data.corpus import cached_corpus, open_corpus, read_corpus
from lm.errors import DataError, UserError

pytestmark = pytest.mark.usefixtures("empty_cache")


def write_rows(path, rows):
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    return str(path)


def test_last_tenth_of_the_characters_is_the_validation_split(tmp_path):
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


@pytest.mark.slow
@pytest.mark.parametrize("between", ["\n", "\t", "\r\n", "\xa0"])
def test_no_word_is_cut_wherever_the_text_is(tmp_path, between):
    words = [f"word{number % 97}x{number % 89}" for number in range(100_000)]
    (tmp_path / "t").mkdir()
    write_rows(tmp_path / "t" / "train.jsonl", [between.join(words)])
    write_rows(tmp_path / "t" / "valid.jsonl", ["word1x1 word2x2"])
    corpus = open_corpus(DataConfig(dataset=str(tmp_path / "t"), tokenizer="word"))
    assert corpus.tokenizer.vocab_size == 2 + len(set(words))
    assert corpus.tokenizer.decode(corpus.train.tokens).split() == words


def test_vocabulary_comes_from_the_training_split_only(tmp_path):
    corpus = open_corpus(DataConfig(dataset=write_rows(tmp_path / "r.jsonl", ["ab" * 45, "zz" * 5])))
    assert corpus.tokenizer.unknown_in("abz") == ["z"]
    assert corpus.validation.counts.unknown == 10


def test_named_validation_split_replaces_the_last_tenth(tmp_path):
    (tmp_path / "train.txt").write_text("abab")
    (tmp_path / "valid.txt").write_text("ba")
    corpus = open_corpus(DataConfig(dataset=str(tmp_path)))
    assert corpus.train.counts.tokens == 4
    assert corpus.validation.counts.tokens == 2


def test_names_that_are_not_utf_8_are_described(tmp_path):
    folder = os.fsencode(tmp_path)
    for name in (b"caf\xe9.txt", b"b.txt"):
        with open(os.path.join(folder, name), "wb") as opened:
            opened.write("déjà vu\n".encode("utf-8" if b"\xe9" in name else "cp1252") * 9)
    corpus = open_corpus(DataConfig(dataset=str(tmp_path), encoding="cp1252"))
    assert set(corpus.tokenizer.decode(corpus.train.tokens)) == set("déjà vu\n")
    assert "caf\ufffd.txt" in str(corpus.facts["own_encoding"])


def test_second_run_reports_no_progress_because_nothing_is_read(tmp_path):
    (tmp_path / "t.txt").write_text("some text to read " * 10)
    config = DataConfig(dataset=str(tmp_path / "t.txt"))
    tasks = []
    open_corpus(config, lambda task, fraction: tasks.append(task))
    assert tasks
    tasks.clear()
    corpus = open_corpus(config, lambda task, fraction: tasks.append(task))
    assert not tasks
    assert isinstance(corpus.train.tokens, np.memmap)
    assert corpus.train.tokens.dtype == np.uint16


@pytest.mark.parametrize("change", [{"tokenizer": "bpe", "vocab_size": 300}, {"max_chars": 50}])
def test_other_settings_build_another_stream(tmp_path, change):
    (tmp_path / "t.txt").write_text("some text to read " * 10)
    config = DataConfig(dataset=str(tmp_path / "t.txt"))
    assert open_corpus(config).key != open_corpus(DataConfig(dataset=config.dataset, **change)).key


DAMAGES = {
    "empty info": ("info.json", lambda content: b""),
    "cut info": ("info.json", lambda content: content[:-20]),
    "list": ("info.json", lambda content: b"[]"),
    "null": ("info.json", lambda content: b"null"),
    "deep": ("info.json", lambda content: b"[" * 100_000),
    "other info": ("info.json", lambda content: content.replace(b"commonest", b"commonesT")),
    "no info": ("info.json", None),
    "empty tokens": ("train.tokens", lambda content: b""),
    "odd tokens": ("validation.tokens", lambda content: content + b"a"),
    "fewer tokens": ("train.tokens", lambda content: content[:100]),
    "more tokens": ("train.tokens", lambda content: content + b"ab"),
    "no tokens": ("train.tokens", None),
    "cut tokenizer": ("tokenizer.json", lambda content: content[:-20]),
    "other tokenizer": ("tokenizer.json", lambda content: content.replace(b"\n", b" ", 1)),
    "no tokenizer": ("tokenizer.json", None),
    "empty digests": ("digests.json", lambda content: b""),
    "digests that are a list": ("digests.json", lambda content: b"[]"),
}


def damage(key, name, change):
    path = cache_folder() / key / name
    if change:
        path.write_bytes(change(path.read_bytes()))
    else:
        path.unlink()


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_stream_is_named_and_built_again(tmp_path, kind, capsys):
    """As after a power failure."""
    (tmp_path / "t.txt").write_text("some text to read " * 100)
    config = DataConfig(dataset=str(tmp_path / "t.txt"))
    key, before = (corpus := open_corpus(config)).key, corpus.train.tokens.tolist()
    damage(key, *DAMAGES[kind])
    assert cached_corpus(key) is None
    with pytest.raises(DataError, match=rf"{key} is damaged: delete it with `.* data clear {key}`\.$"):
        read_corpus(key)
    assert data(["info", key]) == 0
    assert f"data clear {key}`" in capsys.readouterr().out
    again = open_corpus(config)
    assert again.train.tokens.tolist() == before
    assert again.facts["warnings"] == ["the cached tokens of t were damaged, and have been built again."]
    assert not open_corpus(config).facts["warnings"]
    damage(key, *DAMAGES[kind])
    assert data(["clear", key]) == 0 and not entries()


def test_a_stream_of_an_earlier_version_has_no_digests(tmp_path):
    (tmp_path / "t.txt").write_text("some text to read " * 100)
    config = DataConfig(dataset=str(tmp_path / "t.txt"))
    key = open_corpus(config).key
    (cache_folder() / key / "digests.json").unlink()
    assert not open_corpus(config).facts["warnings"]
    for name, change in (
        ("info.json", lambda content: content.replace(b'"tokens": ', b'"tokens": -')),
        ("info.json", lambda content: content.replace(b'"tokens"', b'"token"')),
    ):
        damage(key, name, change)
        assert cached_corpus(key) is None
        open_corpus(config)
        (cache_folder() / key / "digests.json").unlink()


def test_a_stream_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    (tmp_path / "t.txt").write_text("some text to read " * 100)
    flushed = []
    monkeypatch.setattr(cache, "flush_to_disk", lambda path: flushed.append(path.name))
    rename = cache.rename
    monkeypatch.setattr(cache, "rename", lambda *paths: flushed.append("renamed") or rename(*paths))
    open_corpus(DataConfig(dataset=str(tmp_path / "t.txt")))
    names = {"digests.json", "info.json", "tokenizer.json", "train.tokens", "validation.tokens"}
    assert set(flushed[:-1]) == names and flushed[-1] == "renamed"


def open_in_process(config, queue):
    tasks = []
    corpus = open_corpus(config, lambda task, fraction: tasks.append(task))
    queue.put((len(tasks), corpus.key))


@pytest.mark.parametrize("damaged", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_concurrent_processes_build_a_stream_once(tmp_path, damaged):
    (tmp_path / "t.txt").write_text("some text to read " * 1000)
    config = DataConfig(dataset=str(tmp_path / "t.txt"))
    if damaged:
        (cache_folder() / open_corpus(config).key / "info.json").write_text("")
    context = get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=open_in_process, args=(config, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    results = sorted(queue.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert [tasks > 0 for tasks, _ in results] == [False, True]


def test_a_text_that_changes_while_it_is_read_is_an_error(tmp_path):
    """Otherwise its tokens would be found in the cache when the change is undone."""
    path = tmp_path / "t.txt"
    path.write_text("version one\n" * 100)
    config = DataConfig(dataset=str(path))

    def edit(*_):
        path.write_text("version two\n" * 100)

    with pytest.raises(DataError, match=r"^t changed while it was read: run the command again\.$"):
        open_corpus(config, edit)
    path.write_text("version one\n" * 100)
    corpus = open_corpus(config)
    assert set(corpus.tokenizer.decode(corpus.train.tokens).split()) == {"version", "one"}


def test_failed_build_leaves_nothing_in_the_cache(tmp_path):
    (tmp_path / "t.txt").write_bytes(b"good text " * 20 + b"\xff")
    with pytest.raises(DataError):
        open_corpus(DataConfig(dataset=str(tmp_path / "t.txt")))
    assert not entries()


def test_a_vocabulary_that_could_not_be_read_again_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("lm.tokenization.tokenizer_json._MAX_TOKENS", 3)
    (tmp_path / "t.txt").write_text("the sea was calm " * 9)
    with pytest.raises(DataError) as raised:
        open_corpus(DataConfig(dataset=str(tmp_path / "t.txt"), tokenizer="word"))
    assert str(raised.value) == (
        "the vocabulary of this text cannot be stored: it has 7 tokens; the limit is 3. Choose a smaller"
        " --vocab-size or another --tokenizer."
    )
    assert not entries()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"t\.txt contains no text: choose another file\.$"),
        ("a", "only one character"),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "only one distinct character, 'a'"),
        ("ab", "only one distinct character, 'a'"),
    ],
)
def test_text_with_nothing_to_learn_is_an_error(tmp_path, text, message):
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        open_corpus(DataConfig(dataset=str(tmp_path / "t.txt")))


def test_standard_input_without_text_is_an_error(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    with pytest.raises(DataError, match=r"^standard input contains no text: check the command that writes"):
        open_corpus(DataConfig(dataset="-"))


@pytest.mark.parametrize("kind", ["char", "word"])
@pytest.mark.parametrize(
    ("settings", "fix"),
    [({"min_frequency": 1000}, "a smaller --min-frequency"), ({"vocab_size": 2}, "a larger --vocab-size")],
)
def test_a_vocabulary_without_tokens_of_text_is_an_error(tmp_path, kind, settings, fix):
    (tmp_path / "t.txt").write_text("some text")
    with pytest.raises(DataError, match=f"the vocabulary has no tokens for this text: choose {fix}"):
        open_corpus(DataConfig(dataset=str(tmp_path / "t.txt"), tokenizer=kind, **settings))
    assert not entries()


def test_fraction_outside_0_to_1_is_an_error(tmp_path):
    (tmp_path / "t.txt").write_text("some text")
    with pytest.raises(UserError, match="--validation-split"):
        open_corpus(DataConfig(dataset=str(tmp_path / "t.txt"), validation_split="1.5"))
