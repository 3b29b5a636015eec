"""Datasets, tokenizers and models on the Hugging Face Hub: the real scripts and client libraries against
tests/hub_server.py, with broken connections, dead servers and invalid repositories."""

import json
import random
import re
import shutil
import subprocess
import time
import zipfile
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import ModelCard

from lm.config.schema import DataConfig
from lm.data import streaming
from lm.data.corpus import cached_corpus
from lm.invocation import pip_install
from lm.model_folder import PRETRAINED
from lm.tokenization.vocabulary import train_tokenizer
from tests.conftest import script, some_text, started
from tests.data.test_reading import WITHOUT_DATASETS
from tests.end_to_end.test_resume import kill_while_training, outcome, step_of
from tests.hub_server import HubServer

TINY = ["--hidden-size", "8", "--layers", "1", "--batch-size", "4", "--bptt", "8", "--quiet", "--overwrite"]
OFFLINE = {"HF_HUB_OFFLINE": "1"}
# Several command lines of train.py in one process: most of the time of a short run goes into imports.
SEVERAL = """
import json, sys, time
from lm.cli import train
from lm.cli.parser import run
for command in json.loads(sys.argv[1]):
    start = time.monotonic()
    status = run(lambda: train.main(command))
    print(f"\\0{status} {time.monotonic() - start}", file=sys.stderr, flush=True)
"""


class Result(NamedTuple):
    """How a run of train.py ended, and what it wrote to standard error."""

    status: int
    error: str
    seconds: float


def several(hub, *commands, **environment) -> list[Result]:
    """Run train.py with each command line, all in one new process."""
    (hub.root / "several.py").write_text(SEVERAL)
    lines = [[*map(str, command), *TINY, "--steps", "2", "--out", "run"] for command in commands]
    done = script(str(hub.root / "several.py"), json.dumps(lines), cwd=hub.root, env=environment)
    results = re.findall(r"([^\0]*)\0(\d+) (\S+)\n", done.stderr)
    assert len(results) == len(commands), done.stderr
    return [Result(int(status), error, float(seconds)) for error, status, seconds in results]


def statuses(results) -> list[int]:
    assert all(not result.error for result in results), results
    return [result.status for result in results]


def documents(hub, name: str, split: str = "train") -> list[str]:
    """The documents of the most recent token stream of a dataset."""
    folder = max((hub.root / "cache").glob(f"{name}-*"), key=lambda path: path.stat().st_mtime_ns)
    return all_documents(folder.name, [split])


def all_documents(key: str, splits: list[str]) -> list[str]:
    """The documents of a token stream's splits."""
    corpus = cached_corpus(key)
    texts = []
    for split in splits:
        tokens = getattr(corpus, split).tokens
        ends = np.flatnonzero(tokens == corpus.tokenizer.eos)
        texts += [corpus.tokenizer.decode(ids[ids != corpus.tokenizer.eos]) for ids in np.split(tokens, ends)]
    return texts


def use(hub, monkeypatch) -> None:
    """Make all processes that the test starts use this Hub and a cache of its own."""
    settings = {**hub.environment(hub.root / "hf"), "LM_CACHE": str(hub.root / "cache")}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with HubServer(tmp_path) as hub:
        use(hub, monkeypatch)
        yield hub


def put(hub, path: str, texts: list[str] | str, kind: str = "datasets") -> list[str] | str:
    """Put a file into a repository: documents as Parquet, or a text as it is."""
    file = hub.root / kind / path
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        pq.write_table(pa.table({"id": range(len(texts)), "text": texts}), file)
    else:
        file.write_text(texts)
    return texts


def lines(seed: int, count: int = 40) -> list[str]:
    return some_text(50 * count, seed).splitlines()[:count]


def put_dataset(hub, repo: str = "org/set", shards: int = 3) -> list[str]:
    """Create a typical Hub dataset with shards and three splits; returns its training documents."""
    put(hub, f"{repo}/data/validation-00000-of-00001.parquet", lines(90))
    put(hub, f"{repo}/data/test-00000-of-00001.parquet", lines(91))
    of = f"{shards:05}.parquet"
    files = [put(hub, f"{repo}/data/train-{i:05}-of-{of}", lines(i)) for i in range(shards)]
    return [text for file in files for text in file]


def left_behind(hub) -> list[str]:
    """The token streams and unfinished files in the caches."""
    cache = [p.name for p in (hub.root / "cache").iterdir() if p.name not in ("known", "locks")]
    return cache + [p.name for p in (hub.root / "hf").rglob("*.incomplete")]


@pytest.fixture(scope="module", autouse=True)
def dead_server(tmp_path_factory):
    """A run whose server dies for good during a download. The library retries for half a minute, so this
    starts before the other tests and is checked after them."""
    with HubServer(tmp_path_factory.mktemp("dead_server")) as hub, pytest.MonkeyPatch.context() as patch:
        use(hub, patch)
        put_dataset(hub)
        hub.interrupt("train-00001-of-00003.parquet", after=100)
        command = ["--dataset", "org/set", "--steps", 2, "--out", "run", *TINY]
        process = started("train.py", *command, cwd=hub.root, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 60
        while not any("cdn" in r.path and "train-00001" in r.path for r in hub.requests):
            if time.monotonic() > deadline or process.poll() is not None:
                break  # the last test shows its error
            time.sleep(0.01)
        hub.stop()
        patch.undo()
        try:
            yield hub, process
        finally:
            process.kill()


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
def test_interrupted_download_resumes(hub):
    """It resumes at the last whole mebibyte; after a TCP reset, the library restarts the file."""
    digits = random.Random(0)
    texts = [f"{digits.getrandbits(80_000):x}" for _ in range(80)]
    put(hub, "org/set/train-0.parquet", texts)
    put(hub, "org/set/train-1.parquet", lines(1))
    put(hub, "org/set/validation.parquet", lines(2))
    hub.interrupt("train-0.parquet", after=1_200_000)
    hub.interrupt("train-1.parquet", after=500, reset=True)
    assert statuses(several(hub, ["--dataset", "org/set"])) == [0]
    requested = [(r.path[-15:], r.range) for r in hub.requests if "/cdn/" in r.path]
    assert requested[:2] == [("train-0.parquet", None), ("train-0.parquet", f"bytes={1 << 20}-")]
    assert requested[2:4] == [("train-1.parquet", None)] * 2
    assert documents(hub, "set") == [*texts, *lines(1)]


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


@pytest.mark.slow
def test_interrupted_killed_and_resumed_stream_trains_the_same_model(hub):
    put_dataset(hub)
    put_dataset(hub, "org/more", shards=2)
    settings = ["--dataset", "org/set", "--dataset", "org/more", "--mix", "0.7,0.3"]
    settings += ["--streaming", "--shuffle-buffer", "10", "--steps", "150", "--save-every", "10", *TINY]
    whole = script("train.py", *settings, "--out", "whole", cwd=hub.root)
    assert whole.returncode == 0, whole.stderr

    hub.requests.clear()
    hub.interrupt("train-00002-of-00003.parquet", after=100)
    run = hub.root / "killed"
    kill_while_training([*settings, "--out", "killed"], hub.root, lambda: step_of(run) >= 20)
    assert [interruption.times for interruption in hub.interruptions] == [0]
    # The dataset moves on to another commit; the run does not.
    folder = hub.root / "datasets/org/set"
    folder.rename(f"{folder}@before")
    put_dataset(hub, shards=1)
    resumed = script("train.py", "--resume", "killed", cwd=hub.root)
    assert resumed.returncode == 0, resumed.stderr
    assert outcome(run) == outcome(hub.root / "whole")


def test_stream_retries_while_the_hub_is_unreachable(tmp_path, monkeypatch):
    (tmp_path / "boats.jsonl").write_text(
        "".join(json.dumps({"text": f"boat {i}"}) + "\n" for i in range(40))
    )

    def read_documents(interrupted: bool) -> list[str]:
        config = DataConfig(dataset=(str(tmp_path / "boats.jsonl"),), streaming=True, shuffle_buffer=8)
        stream = streaming.DocumentStream(config, [0], seed=1)
        read, errors = stream._read, [ConnectionError, TimeoutError] if interrupted else []

        def failing(*arguments):
            if errors:
                next(stream._iterator)  # a row that gets lost with the connection
                raise errors.pop()
            return read(*arguments)

        stream._read = failing
        texts = [next(stream) for _ in range(80)]
        stream.close()
        return texts

    monkeypatch.setattr(streaming, "RETRY_WAITS", (0, 0, 0))
    assert read_documents(interrupted=True) == read_documents(interrupted=False)


def test_pushed_model_loads_and_generates_the_same_text(hub):
    (hub.root / "push.py").write_text(
        "import lm\n"
        "from lm.model_folder import PRETRAINED\n"
        "model = lm.load(PRETRAINED, device='cpu')\n"
        "model.push_to_hub('org/model')\n"
        "print(model.generate('def ', max_new_tokens=40, seed=7)[0].text)\n"
        "print(lm.load('org/model', device='cpu').generate('def ', max_new_tokens=40, seed=7)[0].text)\n"
    )
    pushed = script(str(hub.root / "push.py"), cwd=hub.root)
    assert pushed.returncode == 0, pushed.stderr
    size = len(pushed.stdout) // 2
    assert pushed.stdout[:size] == pushed.stdout[size:] != ""
    hub.stop()  # a model that was downloaded once needs no network
    arguments = ["org/model", "--prompt", "def ", "--length", "40", "--seed", "7", "--device", "cpu"]
    result = script("generate.py", *arguments, cwd=hub.root)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "def " + pushed.stdout[:size]


def test_run_names_the_dataset_and_the_model_that_it_started_from(hub):
    put(hub, "org/set/README.md", "---\nlanguage: [en, fr]\nlicense: cc-by-4.0\n---\n")
    put_dataset(hub)
    shutil.copytree(PRETRAINED, hub.root / "models" / "org" / "base")
    fresh = ["--dataset", "org/set"]
    tuned = [*fresh, "--init-from", "org/base", "--out", "tuned", "--quiet", "--overwrite"]
    budget = ["--batch-size", "4", "--bptt", "8", "--steps", "2", "--sample-every", "0"]
    result = script("train.py", *tuned, *budget, cwd=hub.root)
    assert result.returncode == 0, result.stderr
    resumed = script("train.py", "--resume", "tuned", "--steps", "4", cwd=hub.root, env=OFFLINE)
    assert resumed.returncode == 0, resumed.stderr
    config = json.loads((hub.root / "tuned" / "config.json").read_text())
    trained_on, revision = config["trained_on"], hub.sha("org/set")
    facts = {"id": "org/set", "revision": revision, "config": "default"}
    facts |= {"language": ["en", "fr"], "license": "cc-by-4.0"}
    assert (trained_on["dataset"], trained_on["hub_datasets"]) == ("org/set", [facts])
    assert (trained_on["init_from"], trained_on["base_model"]) == ("org/base", "org/base")
    settings = trained_on["settings"]
    assert (settings["dataset"], settings["dataset_revision"]) == (["org/set"], revision)
    assert (settings["init_from"], settings["steps"], "tokenizer" in settings) == ("org/base", 4, False)
    card = ModelCard.load(hub.root / "tuned" / "README.md")
    data = card.data
    assert (data.datasets, data.base_model, data.language) == (["org/set"], "org/base", ["en", "fr"])
    assert data.license is None  # that of the dataset is not that of the model
    assert {one.dataset_revision for one in data.eval_results} == {revision}
    assert "[org/set](https://huggingface.co/datasets/org/set), license `cc-by-4.0`." in card.text
    assert "Fine-tuned from [org/base](https://huggingface.co/org/base)." in card.text


@pytest.mark.slow
def test_server_that_dies_during_a_download_ends_the_run_and_the_next_run_succeeds(dead_server, monkeypatch):
    hub, process = dead_server
    assert process.wait(timeout=60) == 2
    error = process.stderr.read()
    assert re.fullmatch(r"error: .*train-00001-of-00003\.parquet of org/set .*\n", error)
    assert left_behind(hub) == []
    hub.start()
    use(hub, monkeypatch)
    assert statuses(several(hub, ["--dataset", "org/set"])) == [0]
