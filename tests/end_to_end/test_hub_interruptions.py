"""Broken connections and dead servers: downloads and streams of Hub datasets go on, or end in one line."""

import json
import random
import re
import subprocess
import time

import pytest

from lm.config.schema import DataConfig
from lm.data import streaming
from lm.data.source import Source
from tests.conftest import script, started
from tests.end_to_end.hub import TINY, documents, left_behind, lines, put, put_dataset, several, statuses, use
from tests.end_to_end.test_resume import kill_while_training, outcome, step_of
from tests.hub.server import HubServer


@pytest.fixture(scope="module")
def dead_server(tmp_path_factory):
    """A run whose server dies for good during a download. The library retries for half a minute, so this
    starts before the other slow tests and is checked after them."""
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


@pytest.mark.slow
@pytest.mark.usefixtures("dead_server")
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


@pytest.mark.slow
@pytest.mark.usefixtures("dead_server")
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

    whole, errors = Source._rows, []

    def interrupted(*arguments):
        for number, row in enumerate(whole(*arguments)):
            if errors and number == 20:
                raise errors.pop()
            yield row

    def read_documents(*interruptions: OSError) -> list[str]:
        config = DataConfig(dataset=(str(tmp_path / "boats.jsonl"),), streaming=True, shuffle_buffer=8)
        stream = streaming.DocumentStream(config, [0], seed=1)
        errors.extend(interruptions)
        texts = [next(stream) for _ in range(80)]
        stream.close()
        return texts

    monkeypatch.setattr(streaming, "RETRY_WAITS", (0, 0, 0))
    monkeypatch.setattr(Source, "_rows", interrupted)
    assert read_documents(ConnectionError(), TimeoutError()) == read_documents()
    assert not errors


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
