"""The cache: safe when a process is killed or the disk is full, and easy to clear."""

import io
import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lm.cli.data import main
from lm.config.schema import DataConfig
from lm.console.progress import no_progress
from lm.data import cache
from lm.data.corpus import open_corpus
from lm.data.eval_text import read_whole
from lm.data.find_source import find_sources
from lm.errors import UserError
from tests.conftest import ROOT, script, some_text


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.skipif(sys.platform != "linux", reason="the user's cache folder is another one")
def test_empty_variables_count_as_unset(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LM_CACHE", "")
    for name in ("", str(tmp_path / ".cache")):
        monkeypatch.setenv("XDG_CACHE_HOME", name)
        assert cache.cache_folder() == tmp_path / ".cache" / "lm"
    monkeypatch.setenv("LM_CACHE", "~/another")
    assert cache.cache_folder() == tmp_path / "another"


def test_stream_is_rebuilt_after_a_kill(tmp_path, own_cache):
    (tmp_path / "t.txt").write_text(some_text(3_000_000))
    code = f"""
import time
from lm.config.schema import DataConfig
from lm.data.corpus import open_corpus
def progress(task, fraction):
    if task.startswith("Tokenizing the validation"):
        print("here", flush=True)
        time.sleep(60)
open_corpus(DataConfig(dataset={str(tmp_path / "t.txt")!r}), progress)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    builder = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
    assert builder.stdout.readline() == b"here\n"
    (partial,) = own_cache.glob("*.partial")
    assert (partial / "train.tokens").stat().st_size
    os.kill(builder.pid, signal.SIGKILL)
    builder.wait()
    builder.stdout.close()
    assert partial.exists()
    corpus = open_corpus(DataConfig(dataset=str(tmp_path / "t.txt")))
    assert corpus.train.counts.characters == 2_700_000
    assert [entry.path.name for entry in cache.entries()] == [corpus.key]


@pytest.mark.slow
def test_full_disk_is_a_one_line_error_and_leaves_nothing(tmp_path, own_cache):
    """The system limits the size of files here, as a quota would."""
    (tmp_path / "t.txt").write_text(some_text(400_000))
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))  # noqa: E731
    result = script("train.py", "--dataset", "t.txt", "--quiet", cwd=tmp_path, preexec_fn=limit)
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert "no space left in" in result.stderr
    assert "python -m lm data clear" in result.stderr
    assert not cache.entries()


def test_cache_can_be_listed_and_cleared(tmp_path, own_cache, capsys):
    for name in ("boat", "ship"):
        (tmp_path / f"{name}.txt").write_text(some_text(2000) + name)
        open_corpus(DataConfig(dataset=str(tmp_path / f"{name}.txt")))
    assert main(["info"]) == 0
    listed = capsys.readouterr().out
    assert "boat-" in listed
    assert "last used 20" in listed
    assert main(["info", "boat"]) == 0
    shown = capsys.readouterr().out
    assert "1,803 characters for training" in shown
    assert "Most common" in shown
    assert main(["clear", "boat"]) == 0
    assert [entry.path.name[:5] for entry in cache.entries()] == ["ship-"]
    assert main(["clear"]) == 0
    assert " KB freed" in capsys.readouterr().out
    assert not cache.entries()


def test_an_empty_name_does_not_mean_every_stream():
    for action in ("clear", "info"):
        with pytest.raises(UserError, match="NAME must not be empty: leave it out for all streams"):
            main([action, ""])


def test_most_recently_used_stream_is_listed_first(tmp_path):
    keys = []
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(some_text(200) + name)
        keys.append(open_corpus(DataConfig(dataset=str(tmp_path / f"{name}.txt"))).key)
        time.sleep(0.02)
    assert [entry.path.name for entry in cache.entries()] == keys[::-1]
    open_corpus(DataConfig(dataset=str(tmp_path / "a.txt")))
    assert [entry.path.name for entry in cache.entries()] == keys
    assert main(["info", "b"]) == 0  # which does not use it
    assert [entry.path.name for entry in cache.entries()] == keys


def test_what_is_in_use_is_not_deleted(own_cache, capsys):
    def clear_meanwhile(path):
        assert main(["clear"]) == 0
        assert "is in use and was not deleted" in capsys.readouterr().err
        assert path.exists()

    def build(folder):
        for name in ("info.json", "train.tokens"):
            (folder / name).write_text("")
        clear_meanwhile(folder)

    key = f"key-{'0' * 16}"
    cache.build_once(key, build)
    assert [entry.path.name for entry in cache.entries()] == [key]
    with cache.temporary("text") as path:
        path.write_text("text")
        clear_meanwhile(path)
    assert not path.exists() and not list(own_cache.glob("locks/text*"))


def test_clearing_deletes_nothing_but_streams(tmp_path, own_cache):
    (tmp_path / "t.txt").write_text(some_text(2000))
    open_corpus(DataConfig(dataset=str(tmp_path / "t.txt")))
    (own_cache / "letters").mkdir()
    names = {"thesis.txt", "thesis.partial", "letters", "link"}
    for name in ("thesis.txt", "thesis.partial", "letters/info.json"):
        (own_cache / name).write_text("mine")
    (own_cache / "link").symlink_to(tmp_path)
    assert main(["clear"]) == 0
    assert names <= set(os.listdir(own_cache)) <= names | {"known", "locks"}
    assert (tmp_path / "t.txt").exists() and (own_cache / "letters/info.json").exists()


def test_processes_of_the_same_number_do_not_share_their_standard_input(own_cache, monkeypatch):
    """As in two containers, where both are often process 1."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    sources, texts = [], [some_text(200, seed).encode() for seed in (1, 2)]
    for text in texts:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
        sources += find_sources(DataConfig(dataset="-"))
    assert [b"".join(source.read("train")) for source in sources] == texts
    for source in sources:
        source.forget()
    assert not list(own_cache.glob("stdin*"))


def test_a_read_that_fails_leaves_no_file(tmp_path, own_cache):
    (tmp_path / "t.txt").write_bytes(b"caf\xe9 au lait " * 9)
    with pytest.raises(UserError, match="is not UTF-8"):
        read_whole(DataConfig(dataset=str(tmp_path / "t.txt")), None, no_progress)
    assert [path for path in own_cache.rglob("*") if path.parent.name != "known"] == [own_cache / "locks"]


def test_a_text_is_read_by_many_threads(tmp_path, own_cache):
    (tmp_path / "t.txt").write_text(some_text(2000))
    config = DataConfig(dataset=str(tmp_path / "t.txt"))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: read_whole(config, None, no_progress).text.decode(), range(16)))
    assert found == [some_text(2000)] * 16
    assert not list(own_cache.glob("text*"))


def test_a_stream_whose_deletion_was_interrupted_is_built_again(tmp_path, own_cache, monkeypatch):
    (tmp_path / "t.txt").write_text(some_text(2000))
    config = DataConfig(dataset=str(tmp_path / "t.txt"))
    folder = own_cache / open_corpus(config).key
    real = os.unlink

    def interrupted(*arguments, **options):
        real(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "unlink", interrupted)
        cache.remove(folder)
    (left,) = (entry.path for entry in cache.entries())
    assert os.listdir(left) and left != folder
    assert open_corpus(config).key == folder.name and cache.remove(folder)
    assert cache.entries() == []


def test_unknown_name_is_a_one_line_error(tmp_path):
    result = script("-m lm data", "info", "nothing", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error: no stream in ")
    assert result.stderr.count("\n") == 1
