"""Datasets and tokenizers on the Hub: the real scripts and client libraries against tests/hub/."""

import json
import zipfile

import pytest

from lm.console.invocation import pip_install
from lm.tokenization.vocabulary import train_tokenizer
from tests.conftest import script, some_text
from tests.data.test_reading import WITHOUT_DATASETS
from tests.end_to_end.hub import (
    OFFLINE,
    TINY,
    all_documents,
    documents,
    left_behind,
    lines,
    put,
    put_dataset,
    several,
    statuses,
)


@pytest.mark.slow
def test_word_in_the_name_of_a_book_does_not_make_it_a_split(hub):
    names = ["emma", "the-test-of-time", "zadig [2]"]
    books = {name: some_text(500, seed) for seed, name in enumerate(names)}
    for name, text in books.items():
        put(hub, f"org/books/{name}.txt", text)
        put(hub, f"org/declared/{name}.txt", text)
    put(hub, "org/books/.hidden/a.txt", "hidden")
    files = "- split: train\n    path: emma.txt\n  - split: test\n    path: the-test-of-time.txt"
    readme = f"---\nconfigs:\n- config_name: default\n  data_files:\n  {files}\n---\n"
    put(hub, "org/declared/README.md", readme)
    books_only, declared = (
        ["--dataset", f"org/{name}", "--tokenizer", "byte"] for name in ("books", "declared")
    )
    assert statuses(several(hub, books_only, [*declared, "--test-split", "test"])) == [0, 0]
    read = documents(hub, "books") + documents(hub, "books", "validation")
    assert "".join(read) == "".join(books.values())
    assert documents(hub, "declared", "test") == [books["the-test-of-time"]]
    listed = script("-m lm train", *books_only, *TINY[:-2], "--steps", 2, "--overwrite", cwd=hub.root)
    assert "3 for training (emma.txt, the-test-of-time.txt, zadig [2].txt)" in listed.stdout


@pytest.mark.slow
def test_dataset_and_tokenizer_are_downloaded_once_and_then_need_no_network(hub):
    texts = put_dataset(hub)
    tokenizer = train_tokenizer("bpe", iter([some_text(20_000)]), 400)
    put(hub, "org/tok/tokenizer.json", tokenizer.backend.to_str(), "models")
    run = ["--dataset", "org/set", "--test-split", "test"]
    assert statuses(several(hub, [*run, "--tokenizer", "org/tok"], run)) == [0, 0]
    assert documents(hub, "set") == texts
    assert documents(hub, "set", "validation") == lines(90)
    assert documents(hub, "set", "test") == lines(91)

    hub.requests.clear()
    # With another tokenizer, the text is read again from the library's cache.
    assert statuses(several(hub, run, [*run, "--tokenizer", "byte"], **OFFLINE)) == [0, 0]
    assert not hub.requests
    assert documents(hub, "set") == texts

    hub.stop()
    commands = [[*run, "--tokenizer", name] for name in ("char", "word", "org/other", "org/tok")]
    char, word, other, tok, missing = results = several(hub, *commands, ["--dataset", "org/other"])
    assert statuses([char, word, tok]) == [0, 0, 0]
    assert [other.status, missing.status] == [2, 2]
    assert "tokenizer.json of org/other is not on this disk, and the Hub cannot be reached" in other.error
    assert "there is no file or folder 'org/other', and the Hub cannot be reached" in missing.error
    assert max(result.seconds for result in results) < 10
    file = json.loads((hub.root / "run/tokenizer.json").read_text())
    assert file["model"] == json.loads(tokenizer.backend.to_str())["model"]


@pytest.mark.slow
def test_configurations_revisions_formats_and_columns(hub):
    put(hub, "org/book/train.parquet", lines(0))
    old = put(hub, "org/book@v1/train.parquet", lines(1))
    put(hub, "org/languages/en/train.parquet", lines(2))
    german = put(hub, "org/languages/de/train.parquet", lines(3))
    configs = "".join(f"- config_name: {name}\n  data_files: {name}/*\n" for name in ("en", "de"))
    put(hub, "org/languages/README.md", f"---\nconfigs:\n{configs}---\n")
    rows = [json.dumps({"title": t[:9] + " x", "body": t, "n": 1}) for t in lines(4)]
    put(hub, "org/jsonl/train.jsonl", "\n".join(rows))
    put(hub, "org/csv/train.csv", "\n".join(["n,kind,story", *(f"1,tale,{t}" for t in lines(5))]))
    put(hub, "org/texts/train/a.txt", "one\ntwo\n" * 99)
    put(hub, "org/texts/train/b.txt", "three\n\nfour" * 99)
    put(hub, "org/old/train.parquet", lines(6))
    (hub.root / "datasets/old").symlink_to("org/old")  # a name from before there were organizations
    book = ["--dataset", "org/book", "--validation-split", "train"]
    whole = book[2:]
    commands = [
        [*book, "--dataset-revision", "v1"],
        ["--dataset", "org/languages", "--dataset-config", "de", *whole],
        ["--dataset", "org/jsonl", "--text-column", "body", *whole],
        ["--dataset", "org/csv", *whole],
        ["--dataset", "org/texts", *whole],
        ["--dataset", "old", *whole],
    ]
    assert statuses(several(hub, *commands)) == [0] * 6
    assert documents(hub, "book") == old
    assert documents(hub, "languages") == german
    assert documents(hub, "jsonl") == lines(4)
    assert documents(hub, "csv") == lines(5)  # the only column with more than single words
    assert documents(hub, "texts") == ["one\ntwo\n" * 99, "three\n\nfour" * 99]
    assert documents(hub, "old") == lines(6)

    commit = hub.sha("org/book", "v1")
    hub.stop()
    assert statuses(several(hub, [*book, "--dataset-revision", commit, "--seed", "2"], **OFFLINE)) == [0]
    assert documents(hub, "book") == old


@pytest.mark.slow
def test_cells_of_tables_are_text_as_it_is_written(hub):
    texts = ["None", "007", "1.50", "café, crème", *lines(7)]
    put(hub, "org/jsonl/train.jsonl", "\n".join(json.dumps({"text": t, "n": 1}) for t in [*texts, 7]))
    put(hub, "org/csv/train.csv", "id;body\n" + "\n".join(f"1;{t}" for t in texts))
    put(hub, "org/tsv/train.tsv", "id\tbody\n" + "\n".join(f'1\t"{t}' for t in texts))
    rows = {"version": "1.0", "data": [{"pair": {"en": t, "de": "ja"}} for t in texts]}
    put(hub, "org/json/train.json", json.dumps(rows))
    (hub.root / "datasets/org/zip").mkdir(parents=True)
    with zipfile.ZipFile(hub.root / "datasets/org/zip/train.zip", "w") as archive:
        for number, text in enumerate(texts[:20]):
            archive.writestr(f"rows/{number:03}.jsonl", json.dumps({"text": text, "n": 1}))
    expected = {
        "zip": texts[:20],
        "jsonl": [*texts, "7"],
        "csv": texts,
        "tsv": [f'"{t}' for t in texts],
        "json": texts,
    }
    commands, streamed = [], ("csv", "zip")
    for name in expected:
        command = ["--dataset", f"org/{name}", "--tokenizer", "byte"]
        command += ["--text-column", "pair.en"] if name == "json" else []
        commands += [[*command, "--validation-split", "train"]]
        commands += [[*command, "--streaming"]] if name in streamed else []
    assert statuses(several(hub, *commands)) == [0] * len(commands)
    streamed_parts = [r.range for r in hub.requests if r.path.endswith("train.zip") and r.range]
    assert 0 < len(streamed_parts) < 20  # the archive is not opened for each of its files
    for name, documents_of_it in expected.items():
        cached = sorted((hub.root / "cache").glob(f"{name}-*"), key=lambda p: p.stat().st_mtime_ns)
        assert len(cached) == (2 if name in streamed else 1)
        assert all_documents(cached[0].name, ["train"]) == documents_of_it
        if name in streamed:  # the first documents of a stream are validated on
            assert all_documents(cached[1].name, ["validation", "train"]) == documents_of_it


@pytest.mark.slow
def test_errors_are_one_line(hub):
    put_dataset(hub)
    for name in ("en", "de"):
        put(hub, f"org/languages/{name}/train.parquet", lines(2))
    configs = "".join(f"- config_name: {name}\n  data_files: {name}/*\n" for name in ("en", "de"))
    put(hub, "org/languages/README.md", f"---\nconfigs:\n{configs}---\n")
    put(hub, "org/empty/README.md", "# Nothing yet\n")
    put(hub, "org/weights/model.safetensors", "not a text")
    put(hub, "org/short/train.parquet", lines(3))
    file = hub.root / "datasets/org/short/train.parquet"
    file.write_bytes(file.read_bytes()[:-50])
    put(hub, "org/bare/config.json", "{}", "models")
    put(hub, "org/broken/tokenizer.json", '{"version": "1.0", "mod', "models")
    (hub.root / "boat.txt").write_text(some_text(3000))
    online = {
        "there is no file, folder or Hub dataset 'org/sett'": "--dataset org/sett",
        "has several configurations; choose one with --dataset-config: en, de.": "--dataset org/languages",
        "has no configuration 'fr'; choose one with --dataset-config: en, de.": (
            "--dataset org/languages --dataset-config fr"
        ),
        "'org/set' has no revision 'v9'": "--dataset org/set --dataset-revision v9",
        "set has no split 'tain'; it has train, validation, test.": "--dataset org/set --train-split tain",
        "'org/empty' has no files of a supported kind": "--dataset org/empty",
        "'org/weights' has no files of a supported kind": "--dataset org/weights",
        "train.parquet is damaged or truncated": "--dataset org/short",
        "set has no column 'body'; it has id, text.": "--dataset org/set --text-column body",
        "no file, folder or Hub model 'org/tok'": "--dataset boat.txt --tokenizer org/tok",
        "the Hub model 'org/bare' has no tokenizer.json": "--dataset boat.txt --tokenizer org/bare",
        "tokenizer.json is not a readable tokenizer": "--dataset boat.txt --tokenizer org/broken",
    }
    results = several(hub, *map(str.split, online.values()))
    offline = {
        "HF_HUB_OFFLINE is set": "--dataset org/languages",
        "tokenizer.json of org/tok is not on this disk, and HF_HUB_OFFLINE is set": (
            "--dataset boat.txt --tokenizer org/tok"
        ),
        "parquet of org/set is not on this disk, and HF_HUB_OFFLINE is set": "--dataset org/set",
    }
    results += several(hub, *map(str.split, offline.values()), **OFFLINE)
    for message, result in zip([*online, *offline], results, strict=True):
        assert result.status == 2
        assert message in result.error
        assert result.error.startswith("error: ") and result.error.count("\n") == 1, result.error
        assert result.seconds < 10
    assert left_behind(hub) == []


def test_hub_dataset_without_the_datasets_library_is_a_one_line_error(hub):
    put_dataset(hub)
    (hub.root / "without_datasets.py").write_text(WITHOUT_DATASETS)
    done = script(str(hub.root / "without_datasets.py"), "--dataset", "org/set", cwd=hub.root)
    assert done.returncode == 2
    expected = f"reading a Hub dataset needs the `datasets` library: {pip_install('data')}"
    assert done.stderr == f"error: {expected}\n"
