"""Streaming: every document once per epoch, in an order that resumes exactly."""

import itertools
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lm.config.schema import DataConfig, RunConfig
from lm.data.corpus import open_corpus
from lm.data.streaming import DocumentStream, StreamedWindows
from lm.errors import DataError, UserError
from lm.model.direction import Direction
from lm.tokenization.vocabulary import train_tokenizer

pytestmark = pytest.mark.usefixtures("empty_cache")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Three files of 40 documents each, and a folder of others."""
    folder = tmp_path_factory.mktemp("shards")
    for name in "abc":
        table = pa.table({"id": range(40), "text": [f"{name}{i} runs" for i in range(40)]})
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=15)
    (folder / "x").mkdir()
    pq.write_table(pa.table({"text": [f"x{i} sits" for i in range(400)]}), folder / "x" / "x.parquet")
    return folder


def stream(shards, held_out=0, seed=1, **settings):
    usual = {"dataset": f"{shards}/*.parquet", "shuffle_buffer": 16}
    config = DataConfig(streaming=True, **usual | settings)
    return DocumentStream(config, [held_out] * len(config.dataset), seed)


def take(documents, count):
    return [next(documents) for _ in range(count)]


ALL = {f"{name}{i} runs" for name in "abc" for i in range(40)}


def test_each_epoch_has_every_document_once_in_another_order(shards):
    documents = stream(shards)
    first, second = take(documents, 120), take(documents, 120)
    assert set(first) == set(second) == ALL
    assert first != second
    assert first != sorted(first)
    assert take(stream(shards), 120) == first
    assert take(stream(shards, seed=2), 120) != first


@pytest.mark.slow
@pytest.mark.parametrize("held_out", [0, 7])
@pytest.mark.parametrize("names", [["*.parquet"], ["[ab].parquet", "c.parquet"]])
@pytest.mark.parametrize("taken", [0, 1, 15, 16, 17, 119, 120, 130, 250])
def test_restored_stream_continues_exactly(shards, names, held_out, taken):
    dataset = tuple(f"{shards}/{name}" for name in names)
    documents = stream(shards, held_out, dataset=dataset)
    take(documents, taken)
    position = json.loads(json.dumps(documents.position))
    other = stream(shards, held_out, dataset=dataset)
    other.restore(position)
    assert take(other, 150) == take(documents, 150)


@pytest.mark.parametrize(
    ("names", "mix"),
    [
        (["*.parquet"], None),
        (["[ab].parquet", "c.parquet"], None),
        (["c.parquet", "[ab].parquet"], None),
        (["[ab].parquet", "c.parquet"], (0.5, 0.5)),
        (["c.parquet", "[ab].parquet"], (0.1, 0.9)),
    ],
)
def test_validation_documents_are_not_trained_on_in_any_epoch(shards, names, mix):
    dataset = tuple(f"{shards}/{name}" for name in names)
    config = DataConfig(dataset=dataset, mix=mix, streaming=True, shuffle_buffer=16)
    corpus = open_corpus(config)
    assert sum(corpus.held_out) == corpus.validation.counts.documents > 1
    validation = set(corpus.tokenizer.decode(corpus.validation.tokens).split("runs"))
    documents = DocumentStream(config, corpus.held_out, 1)
    epochs: dict[int, list[str]] = {}
    while len(epochs) < 4:
        document = next(documents)
        epochs.setdefault(documents.position["epoch"], []).append(document)
    for trained in epochs.values():
        assert not {document.removesuffix("runs") for document in trained} & validation
    if mix is None:
        for number in range(3):
            assert len(set(epochs[number])) == len(epochs[number]) == 120 - sum(corpus.held_out)


def test_mix_sets_the_fraction_of_each_dataset(shards):
    config = DataConfig(
        dataset=(f"{shards}/a.parquet", f"{shards}/x"), mix=(0.75, 0.25), streaming=True, shuffle_buffer=10
    )
    documents = DocumentStream(config, [0, 0], seed=1)
    sitting = sum(document.endswith("sits") for document in take(documents, 800))
    assert sitting == pytest.approx(200, abs=40)


def windows(shards, batch=4, bptt=8, rows=None):
    tokenizer = train_tokenizer("byte", [])
    return StreamedWindows(stream(shards), tokenizer, batch, bptt, torch.device("cpu"), rows=rows)


def test_windows_are_contiguous_and_contain_whole_documents(shards):
    streamed = windows(shards)
    inputs, targets = (torch.cat(part, dim=1) for part in zip(*map(streamed.window, range(60)), strict=True))
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert (inputs[:, 0] == streamed.tokenizer.eos).all()
    for row in targets:
        *whole, _ = [
            list(g) for end, g in itertools.groupby(row.tolist(), streamed.tokenizer.eos.__eq__) if not end
        ]
        assert {bytes(document).decode() for document in whole} <= ALL


def test_ranks_read_disjoint_streams_from_the_same_position(shards):
    whole, *shares = (windows(shards, rows=rows) for rows in (None, slice(0, 1), slice(1, 4)))
    for step in range(20):
        inputs, targets = (torch.cat(parts) for parts in zip(*(s.window(step) for s in shares), strict=True))
        for part, all_of_it in zip((inputs, targets), whole.window(step), strict=True):
            assert torch.equal(part, all_of_it)
    for share in shares:
        position, tensors = share.position()
        assert position == whole.position()[0]
        assert all(torch.equal(tensor, whole.position()[1][name]) for name, tensor in tensors.items())


@pytest.mark.parametrize("read", [0, 7, 50])
def test_restored_windows_continue_exactly(shards, read):
    streamed, other = windows(shards), windows(shards)
    for step in range(read):
        streamed.window(step)
    position, tensors = streamed.position()
    other.restore(json.loads(json.dumps(position)), tensors)
    for step in range(20):
        for a, b in zip(streamed.window(step), other.window(step), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation_split": "0.1"}, "must be the name of a split"),
        ({"train_split": "dev"}, "has no split 'dev'; it has train"),
        ({"text_column": "body"}, "has no column 'body'; it has id, text"),
        ({"text_column": "id.x"}, "has no column 'id.x'"),
    ],
)
def test_wrong_settings_are_errors(shards, settings, message):
    with pytest.raises(UserError, match=message):
        open_corpus(DataConfig(dataset=f"{shards}/*.parquet", streaming=True, **settings))


def test_an_error_names_the_dataset_that_it_is_about(shards, tmp_path):
    pq.write_table(pa.table({"text": ["the sea", "the boat"]}), tmp_path / "b.parquet")
    dataset = (f"{shards}/a.parquet", str(tmp_path / "b.parquet"))
    documents = stream(shards, dataset=dataset, shuffle_buffer=1)
    (tmp_path / "b.parquet").unlink()
    with pytest.raises(DataError, match=r"b\.parquet was deleted before it could be read"):
        take(documents, 42)


def test_too_few_documents_is_an_error(tmp_path):
    (tmp_path / "r.jsonl").write_text('{"text": "only one"}')
    with pytest.raises(DataError, match="too few documents to stream"):
        open_corpus(DataConfig(dataset=str(tmp_path / "r.jsonl"), streaming=True))


@pytest.mark.parametrize("other", [{"epochs": 2}, {"max_chars": 100}])
def test_settings_that_need_the_whole_text_are_errors(other):
    with pytest.raises(UserError, match="needs the whole text"):
        RunConfig.from_flat({"streaming": True, **other})


def test_text_column_is_detected(tmp_path):
    pq.write_table(pa.table({"id": [1, 2, 3, 4], "body": [None, "a b", None, "c d"]}), tmp_path / "t.parquet")
    config = DataConfig(dataset=str(tmp_path / "t.parquet"), streaming=True)
    assert set(take(DocumentStream(config, [0], 1), 2)) == {"a b", "c d"}
    corpus = open_corpus(config)
    # Rows without text count among the rows that are held out.
    assert corpus.held_out == [2]
    assert take(DocumentStream(config, corpus.held_out, 1), 1) == ["c d"]


@pytest.mark.parametrize("kind", ["char", "word"])
def test_backward_reads_each_document_from_its_end_with_eos_between(kind):
    tokenizer = train_tokenizer(kind, iter(["one two\nthree\n"]))
    texts = itertools.cycle(["one two\n", "three\n"] if kind == "word" else ["one", "two"])
    windows = StreamedWindows(texts, tokenizer, 1, 40, torch.device("cpu"), direction=Direction.BACKWARD)
    _, targets = windows.window(0)
    names = [tokenizer.backend.id_to_token(token) for token in targets[0].tolist()]
    if kind == "word":
        assert names[:6] == ["two", "one", "<eos>", "three", "<eos>", "two"]
    else:
        assert names[:9] == [*"eno", "<eos>", *"owt", "<eos>", "e"]


def as_before(state):
    """A position as versions saved it that read tables with the loaders of `datasets`: these counted the rows
    since the last part of a file that they had read as a whole."""
    if isinstance(state, list):
        return [as_before(item) for item in state]
    if not isinstance(state, dict):
        return state
    if "shard_idx" not in state:
        return {name: as_before(value) for name, value in state.items()}
    file = {"shard_idx": state["shard_idx"], "type": "ArrowExamplesIterable"}
    row, whole = state["shard_example_idx"], state["shard_example_idx"] // 15 * 15
    rebatched = {
        "examples_iterable": {**file, "shard_example_idx": whole + 15},
        "previous_state": {**file, "shard_example_idx": whole} if row else None,
        "batch_idx": row,
        "num_chunks_since_previous_state": row - whole,
        "cropped_chunk_length": 0,
        "type": "RebatchedArrowExamplesIterable",
    }
    if not row:
        rebatched["examples_iterable"]["shard_example_idx"] = 0
    return {"examples_iterable": rebatched, "previous_state": None, "type": "MappedExamplesIterable"}


@pytest.mark.parametrize("held_out", [0, 3])
def test_position_saved_by_an_older_version_is_understood(shards, held_out):
    documents = stream(shards, held_out)
    take(documents, 40)
    older = json.loads(json.dumps(documents.position))
    older["rows"] = as_before(older["rows"])
    other = stream(shards, held_out)
    other.restore(older)
    assert take(other, 150) == take(documents, 150)
