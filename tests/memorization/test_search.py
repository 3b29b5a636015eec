"""What is copied from the training text: all of it, nothing else, and as long as it is."""

import json
import shutil
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import lm
from lm import saving
from lm.data.cache import cache_folder
from lm.data.sources import python_library
from lm.errors import DataError, UserError
from lm.memorization import search
from lm.memorization.search import LEAST, CopiesOfGrowing, TrainingText
from lm.memorization.training_text import MARGIN, UNKNOWN, written
from lm.tokenization.documents import SEPARATOR
from lm.tokenization.vocabulary import KINDS, char_tokenizer, train_tokenizer
from tests.conftest import some_text
from tests.tokenization.test_positions import lower_case_pieces

# é and © share their second byte, as do many of the others; 😀 is a surrogate pair elsewhere.
LETTERS = "ab é©中丮😀🙀\n"
SAMPLE = "the boat ab é ©中 丮\n😀🙀 a b\n" * 40
TOKENIZERS = {kind: train_tokenizer(kind, [SAMPLE], 300) for kind in KINDS} | {"other": lower_case_pieces()}


def training_text(tokenizer, documents, block=7):
    """Documents as a token stream holds them, written out."""
    tokens = tokenizer.encode_bytes(SEPARATOR.join(document.encode() for document in documents))
    blocks = (tokens[begin : begin + block] for begin in range(0, len(tokens), block))
    text = b"".join(written(tokenizer, blocks))
    ends = SEPARATOR * MARGIN
    return TrainingText("it", np.frombuffer(ends + text + ends + SEPARATOR * (-len(text) % 8), np.uint8))


def by_definition(text, documents, least):
    """The longest spans that stand in a document, found by trying all."""
    spans, last = [], 0
    for start in range(len(text)):
        end = start
        while end < len(text) and any(text[start : end + 1] in document for document in documents):
            end += 1
        if end - start >= least and end > last:
            spans.append((start, end))
        last = max(last, end)
    return spans


@st.composite
def documents_and_text(draw, units=LETTERS):
    """Documents, and a text of parts of them and of something else."""
    some = st.lists(st.sampled_from(units), min_size=1, max_size=50).map("".join)
    pieces = draw(st.lists(some, min_size=1, max_size=3))
    document = st.lists(st.sampled_from(pieces), min_size=1, max_size=4).map("".join)
    documents = draw(st.lists(document, min_size=1, max_size=4))
    parts = []
    for source in draw(st.lists(st.sampled_from(documents), min_size=1, max_size=4)):
        begin = draw(st.integers(0, max(0, len(source) - LEAST)))
        parts.append(source[begin : begin + draw(st.integers(LEAST - 1, 60))])
        parts.append(draw(st.sampled_from(["", "?", *units])))
    return documents, "".join(parts)


@pytest.mark.parametrize("kind", ["char", "byte", "bpe", "unigram"])
@given(drawn=documents_and_text(), least=st.integers(LEAST, 40))
@settings(deadline=None, max_examples=100)
def test_copies_are_those_of_the_definition(kind, drawn, least):
    documents, text = drawn
    found = training_text(TOKENIZERS[kind], documents).copied_spans(text, least)
    assert found == by_definition(text, documents, least)


@pytest.mark.parametrize("kind", ["word", "other"])
@given(
    drawn=documents_and_text(["the ", "the\n", "boat ", "hat ", "中 ", "😀", "unknown ", "\n", "  ", "\t"])
)
@settings(deadline=None, max_examples=150)
def test_where_a_model_writes_its_own_white_space_its_copies_are_those_of_such_a_text(kind, drawn):
    documents, text = drawn
    tokenizer = TOKENIZERS[kind]
    if kind == "word":  # of which the documents end as lines do
        joined = SEPARATOR.join(document.encode() for document in documents)
        wholes = [tokenizer.decode(tokenizer.encode_bytes(joined))]
    else:
        wholes = [tokenizer.decode(tokenizer.encode(document)) for document in documents]
    known = [part for whole in wholes for part in whole.split("<unk>")]
    text = tokenizer.decode(tokenizer.encode(text))
    found = training_text(tokenizer, documents).copied_spans(text, LEAST)
    assert found == by_definition(text, known, LEAST)


@given(drawn=documents_and_text("ab中 "))
@settings(deadline=None, max_examples=60)
def test_it_does_not_matter_how_much_is_looked_at_together(drawn):
    documents, text = drawn
    training = training_text(TOKENIZERS["byte"], documents)
    expected = by_definition(text, documents, LEAST)
    for words, places, rows in ((1, 1, 1), (3, 1, 2), (2, 1 << 20, 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(search, "_WORDS", words)
            patch.setattr(search, "_MOST_PLACES", places)
            patch.setattr(search, "_ROWS", rows)
            assert training.copied_spans(text, LEAST) == expected


def test_it_does_not_matter_how_the_stream_is_cut():
    for kind, tokenizer in TOKENIZERS.items():
        tokens = tokenizer.encode_bytes(b"the boat\n\nab \xc3\xa9 a\xffthe b\n" + SAMPLE[:99].encode())
        whole = b"".join(written(tokenizer, [tokens]))
        one_by_one = [part for token in tokens for part in (np.array([token]), np.array([], tokens.dtype))]
        assert b"".join(written(tokenizer, one_by_one)) == whole, kind
        if kind != "other":
            end = b"\n" if kind == "word" else SEPARATOR
            assert whole.startswith(b"the boat\n\nab \xc3\xa9 a" + end + b"the b\n")


def letters(number, seed=0):
    """Letters of which no three in a row come twice soon."""
    return "".join(map(chr, np.random.default_rng(seed).integers(0x61, 0x7B, number)))


@pytest.mark.parametrize("least", [23, 30, 31, 47, 200])
def test_a_copy_is_found_wherever_it_lies_and_one_character_less_is_none(least):
    body, other = letters(400), letters(300, 1)
    tokenizer = train_tokenizer("char", ["".join(map(chr, range(0x61, 0x7B))) + "AB中"])
    for offset in range(17):
        training = training_text(tokenizer, ["A" * offset + body, other])
        for begin in (0, 1, 100, 400 - least):
            for size in (least - 1, least):
                copy = body[begin : begin + size]
                expected = [(1, 1 + size), (2 + size, 302 + size)][size < least :]
                assert training.copied_spans(f"B{copy}B{other}", least) == expected
                assert training.copied_spans(f"中{copy}中{other}", least) == expected


def test_of_several_examples_the_longest_counts_wherever_it_stands():
    body, rest = letters(80), letters(50, 1)
    tokenizer = TOKENIZERS["byte"]
    examples = [body[:40], body[:60], body[10:50], body[:35]]
    for turn in range(4):
        documents = [example + rest[n:] for n, example in enumerate(examples[turn:] + examples[:turn])]
        found = training_text(tokenizer, documents).search(body)
        assert found.spans == [(0, 60)]


def test_overlapping_copies_are_told_apart_and_marked_as_one():
    body = letters(120)
    training = training_text(TOKENIZERS["byte"], [body[:70], body[30:100] + "."])
    found = training.search(body)
    assert found.spans == [(0, 70), (30, 100)]
    assert found.marked == [(0, 100)]


def test_no_copy_goes_on_from_one_document_to_the_next_nor_over_what_is_unknown():
    body = letters(80)
    byte, char = TOKENIZERS["byte"], char_tokenizer(dict.fromkeys(body, 1))
    assert training_text(byte, [body[:35], body[35:]]).copied_spans(body) == [(0, 35), (35, 80)]
    assert training_text(byte, [body]).copied_spans(body) == [(0, 80)]
    with_unknown = body[:35] + "Ω" + body[35:]
    assert training_text(char, [with_unknown]).copied_spans(with_unknown) == [(0, 35), (36, 81)]
    assert training_text(char, [body[:50] + "Ω" * 60]).copied_spans("Ω" * 60) == []
    for mark in ("<unk>", "<eos>", "\ufffd", "\xff", "\xfe", "\udcff", "\udcfe", "\ud83d"):
        text = body[:35] + mark + body[35:]
        end = 35 + len(mark)
        assert training_text(byte, [body[:35], body[35:]]).copied_spans(text) == [(0, 35), (end, end + 45)]


def test_part_of_a_character_is_not_copied():
    body = letters(40)
    training = training_text(TOKENIZERS["byte"], ["é" + body + "中"])
    (copy,) = training.search("©" + body + "丮").copies
    assert (copy.start, copy.end) == (1, 41)
    assert training.around(copy, "©" + body + "丮") == ("é", "中")
    cjk = "".join(chr(0x4E00 + 7 * n) for n in range(60))
    training = training_text(TOKENIZERS["byte"], [cjk])
    assert training.copied_spans("a" + cjk[:29] + "a") == []  # of 87 bytes
    assert training.copied_spans("a" + cjk[:30] + "a") == [(1, 31)]


def test_long_runs_of_one_character_take_no_long_time():
    """Each place of the one run is a place of the other: pairs that must not all be looked at."""
    training = training_text(TOKENIZERS["byte"], ["-" * n + letters(9, n) for n in range(1, 900)], 999)
    found = training.search("-" * 3000, seconds=5)
    assert found.searched == 1
    assert found.spans == [(start, start + 899) for start in range(3000 - 898)]
    assert found.marked == [(0, 3000)]


def test_an_example_of_each_copy_is_shown_with_what_stands_around_it():
    body = letters(100)
    tokenizer = char_tokenizer(dict.fromkeys(body + "中", 1))
    training = training_text(tokenizer, ["中" + body[60:], body[:50] + "中Ω" + body[50:], body[55:]])
    text = "Ω" + body[5:45] + "Ω" + body[62:]
    first, second = training.search(text).copies
    assert training.around(first, text) == (body[:5], body[45:50] + "中")
    assert training.around(first, text, characters=2) == (body[3:5], body[45:47])
    assert training.around(second, text) == ("中" + body[60:62], "")


def test_when_the_time_is_over_it_is_said_how_much_was_looked_through(monkeypatch):
    monkeypatch.setattr(search, "_WORDS", 16)
    monkeypatch.setattr(search, "_TOGETHER", 2)
    body = letters(4000)
    training = training_text(TOKENIZERS["byte"], [body], 5000)
    now = training.search(body[:40] + body[-40:], seconds=0)
    assert now.searched == 0
    assert now.spans == []
    clock = iter(range(1000))
    monkeypatch.setattr(search.time, "monotonic", lambda: next(clock))
    some = training.search(body[:40] + body[-40:], seconds=16)
    assert 0 < some.searched < 1
    assert some.spans == [(0, 40)]
    monkeypatch.undo()
    whole = training.search(body[:40] + body[-40:], seconds=60)
    assert whole.searched == 1
    assert whole.spans == [(0, 40), (40, 80)]


def test_memory_does_not_grow_with_the_training_text():
    text = some_text(2_000_000)
    training = training_text(TOKENIZERS["byte"], [text], 1 << 18)
    large = TrainingText("it", np.tile(training.text, 20))
    tracemalloc.start()
    assert large.copied_spans(text[5000:7000]) == [(0, 2000)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20


EDITS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 40), st.sampled_from(["", "", "?"])), max_size=8
)


@given(drawn=documents_and_text("ab中 "), edits=EDITS)
@settings(deadline=None, max_examples=150)
def test_a_text_that_grows_and_is_taken_back_has_the_copies_of_one_that_is_new(drawn, edits):
    documents, text = drawn
    training = training_text(TOKENIZERS["byte"], documents)
    so_far, now = CopiesOfGrowing(training, LEAST), ""
    for taken, added, other in [*edits, (0, 25, ""), (3, 0, ""), (0, 200, "")]:
        now = now[: max(0, len(now) - taken)]
        now += other + text[len(now) :][:added]
        assert so_far.of(now).spans == training.search(now, LEAST).spans


def test_a_growing_text_is_looked_for_anew_where_the_time_was_over():
    body = letters(100)
    so_far = CopiesOfGrowing(training_text(TOKENIZERS["byte"], [body]))
    assert so_far.of(body[:50], seconds=0).spans == []
    assert so_far.of(body[:50] + "?").spans == [(0, 50)]


def test_shorter_copies_than_can_be_found_are_refused():
    with pytest.raises(UserError, match="from 23 characters on, not from 22"):
        training_text(TOKENIZERS["byte"], ["a" * 50]).copied_spans("a" * 50, 22)


# Where the training text of a model is found.


@pytest.fixture
def run(tmp_path, trained_run, monkeypatch):
    """A run of its own, with a cache of its own that holds its stream."""
    for place in ("run", "cache"):
        shutil.copytree({"run": trained_run, "cache": cache_folder()}[place], tmp_path / place)
    monkeypatch.setenv("LM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "run"


def saved(run, tmp_path):
    lm.load(run, "cpu").save(tmp_path / "saved")
    return tmp_path / "saved"


def check(training, text_file):
    """It is the training part of the text and all of it."""
    text = text_file.read_text()
    assert training.copied_spans(text[100:2000]) == [(0, 1900)]
    assert training.copied_spans(text)[0] == (0, 27_000)
    assert (27_000 - 29, 30_000) not in training.copied_spans(text)
    assert training.copied_spans(text[26_900:27_100])[0] == (0, 100)  # the rest validates
    assert training.exact


def test_the_text_of_a_run_is_found_in_the_cache_and_stays_there(run, text_file, tmp_path):
    check(TrainingText.of(run), text_file)
    streams = [p for p in (tmp_path / "cache").glob("boat-*") if not p.name.endswith("-text")]
    assert streams
    for stream in streams:  # what was written out is enough
        shutil.rmtree(stream)
    check(TrainingText.of(str(run)), text_file)


def test_a_model_without_its_checkpoint_is_known_by_what_it_was_trained_on(run, text_file, tmp_path):
    folder = saved(run, tmp_path)
    assert not (folder / "training").exists()
    check(TrainingText.of(folder), text_file)
    check(TrainingText.of(lm.load(folder, "cpu")), text_file)
    shutil.rmtree(run / "training" / "checkpoint")
    check(TrainingText.of(run), text_file)


@pytest.mark.parametrize("count", ["tokens", "characters", "documents", "dataset"])
def test_a_stream_of_another_text_is_not_taken_for_it(run, tmp_path, count):
    folder = saved(run, tmp_path)
    told = json.loads((folder / "config.json").read_text())
    told["trained_on"][count] = "ship.txt" if count == "dataset" else told["trained_on"][count] + 1
    (folder / "config.json").write_text(json.dumps(told))
    with pytest.raises(DataError, match=r"is not in the cache .*; train on that text once more"):
        TrainingText.of(folder)


def test_a_stream_of_another_tokenizer_is_not_taken_for_it(run, tmp_path):
    folder = saved(run, tmp_path)
    char_tokenizer(dict.fromkeys("ab", 1)).save(folder / "tokenizer.json")
    with pytest.raises(DataError, match="is not in the cache"):
        TrainingText.of(folder)


def test_without_the_cache_it_is_said_or_the_text_is_read_again(run, text_file, tmp_path):
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(DataError, match=r"boat.txt, is not in the cache .*cache was emptied; train on"):
        TrainingText.of(run)
    assert not (tmp_path / "cache").exists()
    tasks = []
    check(TrainingText.of(run, make=True, progress=lambda task, fraction: tasks.append(task)), text_file)
    assert "Writing out the training text" in tasks


def test_a_text_that_has_changed_since_is_refused(run, tmp_path):
    other = tmp_path / "boat.txt"
    other.write_text(some_text(20_000, seed=5))
    config = run / "training" / "config.yaml"
    lines = [f"dataset: [{other}]" if n == "dataset" else n for n in config.read_text().splitlines()]
    lines = [f"dataset: [{other}]" if line.startswith("dataset:") else line for line in lines]
    config.write_text("\n".join(line for line in lines if not line.startswith("- ")))
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(DataError, match="has changed since"):
        TrainingText.of(run, make=True)


def test_a_streamed_text_is_not_to_be_had(run):
    config = run / "training" / "config.yaml"
    config.write_text(config.read_text().replace("streaming: false", "streaming: true"))
    with pytest.raises(UserError, match="--streaming, which keeps nothing"):
        TrainingText.of(run)


@pytest.mark.parametrize("key", ["../secret", "/secret", "..", "", 7, None, ["x"]])
def test_a_run_names_no_folder_outside_the_cache(run, tmp_path, key, text_file):
    secret = tmp_path / "secret-text"
    secret.mkdir()
    progress = run / "training" / "checkpoint" / "progress.json"
    progress.write_text(json.dumps({**json.loads(progress.read_text()), "corpus": key}))
    check(TrainingText.of(run), text_file)  # by its counts


@pytest.mark.parametrize(
    "told", [None, [], "x", {}, {"dataset": None}, {"dataset": "python", "characters": "x"}]
)
def test_what_someone_else_wrote_into_a_config_is_no_error_of_ours(run, told, tmp_path):
    folder = saved(run, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "trained_on": told}))
    if isinstance(told, dict) and told.get("dataset"):
        assert not TrainingText.of(folder).exact
    else:
        with pytest.raises(UserError, match="does not tell what text"):
            TrainingText.of(folder)


def test_the_shipped_model_was_trained_on_the_library_of_this_python():
    training = TrainingText.of(saving.PRETRAINED)
    assert training.name == "python"
    trained_on = json.loads((saving.PRETRAINED / "config.json").read_text())["trained_on"]
    raw = training.text.tobytes()
    assert UNKNOWN not in raw
    read = raw.strip(SEPARATOR).decode("utf-8", "surrogateescape")
    assert len(read.replace("\udcff", "")) <= trained_on["characters"]
    # Python 3.11.2 is what it was trained with; on another one it is nearly so.
    counts = {"documents": read.count("\udcff") + 1, "tokens": len(read)}
    assert training.exact == all(trained_on[name] == count for name, count in counts.items())
    with open(python_library()[0], encoding="utf-8") as file:
        text = file.read()[:2000]
    assert training.copied_spans(text) == [(0, len(text))]
    assert training.copied_spans(text + "\x00" + letters(100)) == [(0, len(text))]
