"""train.py from the user's side: what it prints, what it writes, how it reports errors."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pexpect
import pytest
from safetensors import safe_open

from tests.conftest import ROOT, SMALL, called, edit_progress, metrics, script, some_text, started

pytestmark = pytest.mark.usefixtures("here")


def test_a_run_folder_has_the_documented_files(trained_run):
    names = {str(p.relative_to(trained_run)) for p in trained_run.rglob("*") if p.is_file()}
    assert names == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
        "training/config.yaml",
        "training/facts.json",
        "training/metrics.jsonl",
        "training/samples.txt",
        "training/loss.svg",
        "training/checkpoint/state.safetensors",
        "training/checkpoint/progress.json",
    }
    with safe_open(trained_run / "model.safetensors", "pt") as weights:
        assert "recurrent.weight_ih_l0" in weights.keys()  # noqa: SIM118
    config = json.loads((trained_run / "config.json").read_text())
    assert set(config["validation"]) >= {"loss", "perplexity", "bits_per_character", "bits_per_byte"}
    assert config["validation"]["tokens"] == 3000  # every validation character once
    records = metrics(trained_run)
    keys = {"step", "tokens", "seconds", "train_loss", "learning_rate", "tokens_per_second"}
    assert all(keys <= record.keys() for record in records[:-1])
    assert sum("validation_loss" in record for record in records) == 11
    assert records[-1]["validation_loss"] == config["validation"]["loss"]
    assert ElementTree.parse(trained_run / "training" / "loss.svg")
    samples = (trained_run / "training" / "samples.txt").read_text()
    assert samples.startswith("--- step 1\n") and samples.count("--- step") == 11


def test_the_validation_loss_falls(trained_run):
    losses = [r["validation_loss"] for r in metrics(trained_run) if "validation_loss" in r]
    assert losses[0] > 1.2 > 0.9 > losses[-1]


def test_output_to_a_file_is_plain_lines(here, text_file):
    result = script("train.py", "--dataset", text_file, *SMALL, "--steps", 40, "--out", "r", cwd=here)
    assert result.returncode == 0
    assert "\x1b" not in result.stdout and "\r" not in result.stdout
    assert re.search(r"1 document, 27,000 characters for training, 3,000 for validation", result.stdout)
    assert re.search(r"LSTM, 1 layer of 32 units, embeddings of \d+, [\d,]+ parameters", result.stdout)
    validation = r"step [\d,]+ .*ETA.*train [\d.]+ .*validation [\d.]+ .*bits/char.*char/s"
    assert len(re.findall(validation, result.stdout)) == 10
    assert "python generate.py r" in result.stdout
    assert "python -m app" in result.stdout


def test_a_terminal_gets_a_live_progress_line(here, text_file):
    command = [str(ROOT / "train.py"), "--dataset", str(text_file), *SMALL, "--steps", "200", "--out", "r"]
    # readline, which pytest imports, may have set this variable, unseen by os.environ.
    wide = {**os.environ, "COLUMNS": "120"}
    child = pexpect.spawn(
        sys.executable, command, dimensions=(40, 120), env=wide, timeout=60, encoding="utf-8"
    )
    child.expect(r"━.*\d+%  step \d+")
    child.expect(r"\x1b\[")
    child.expect("python -m app")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_quiet_prints_nothing(here, text_file):
    result = called("train", "--dataset", text_file, *SMALL, "--steps", 5, "--quiet", "--out", "r")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("cell", "implementation"),
    [
        *itertools.product(["rnn", "gru", "lstm"], ["fused"]),
        ("lstm", "reference"),
        *(pytest.param(cell, "reference", marks=pytest.mark.slow) for cell in ("rnn", "gru")),
    ],
)
def test_every_cell_trains_in_both_implementations(here, text_file, cell, implementation):
    network = ["--cell", cell, "--cell-implementation", implementation, "--hidden-size", 16, "--layers", 2]
    network += ["--dropout", 0.1, "--tie", "--precision", "fp32"]
    budget = ["--batch-size", 8, "--bptt", 16, "--steps", 30, "--eval-every", 30]
    result = called("train", "--dataset", text_file, *network, *budget, "--out", "r")
    assert result.returncode == 0, result.stderr
    records = metrics(here / "r")
    assert records[-1]["validation_loss"] < 3.3
    assert called("generate", here / "r", "--length", 20).returncode == 0


@pytest.mark.slow
def test_reference_and_fused_learn_the_same(here, text_file):
    """Without dropout and in float32 the two implementations follow the same curve."""
    curves = []
    for implementation in ("fused", "reference"):
        command = ["--dataset", text_file, "--cell", "gru", "--cell-implementation", implementation]
        command += [*SMALL, "--steps", 20, "--eval-every", 5, "--precision", "fp32"]
        called("train", *command, "--out", implementation)
        records = metrics(here / implementation)
        curves.append([r["validation_loss"] for r in records if "validation_loss" in r])
    assert curves[0] == pytest.approx(curves[1], abs=2e-3)


def test_bpe(here, text_file):
    command = ["--dataset", text_file, "--tokenizer", "bpe", "--vocab-size", 300, *SMALL, "--steps", 60]
    result = called("train", *command, "--eval-every", 60, "--out", "r")
    assert result.returncode == 0, result.stderr
    config = json.loads((here / "r" / "config.json").read_text())
    assert config["tokenizer"] == "bpe"
    validation = config["validation"]
    assert validation["bits_per_character"] < validation["loss"] / 0.693  # tokens are longer than characters


@pytest.mark.parametrize("budget", [("--epochs", "0.5"), ("--max-time", "2s")])
def test_other_budgets(here, text_file, budget):
    begin = time.perf_counter()
    command = ["--dataset", text_file, *SMALL, *budget]
    result = called("train", *command, "--out", "r")
    assert result.returncode == 0, result.stderr
    last = metrics(here / "r")[-1]
    if budget[0] == "--epochs":
        assert metrics(here / "r")[-2]["step"] == round(0.5 * 27_000 / (8 * 32))
    else:
        assert 1 < last["seconds"] < 4
        assert time.perf_counter() - begin < 60


@pytest.mark.slow
def test_a_long_validation_text_does_not_exceed_the_time_budget(here):
    (here / "long.txt").write_text(some_text(1_000_000))
    command = ["--dataset", "long.txt", "--validation-split", 0.6, "--hidden-size", 256, "--layers", 2]
    result = called("train", *command, "--max-time", "2s", "--eval-tokens", 2000, "--out", "r")
    assert result.returncode == 0, result.stderr
    assert "% of the text, because scoring all" in result.stdout and "lm evaluate r" in result.stdout
    config = json.loads((here / "r" / "config.json").read_text())
    assert 1000 < config["validation"]["tokens"] < 300_000  # of 600,000
    assert metrics(here / "r")[-1]["seconds"] < 6


def test_the_config_of_a_run_reproduces_the_run(here, text_file):
    arguments = ["--dataset", text_file, *SMALL, "--steps", 20, "--eval-every", 20, "--lr", 0.01]
    assert called("train", *arguments, "--out", "a").returncode == 0
    result = called("train", "--config", "a/training/config.yaml", "--out", "b")
    assert result.returncode == 0, result.stderr
    assert (here / "a/model.safetensors").read_bytes() == (here / "b/model.safetensors").read_bytes()
    printed = called("train", "--config", "a/training/config.yaml", "--lr", "0.5", "--print-config")
    assert "lr: 0.5\n" in printed.stdout
    assert "hidden_size: 32\n" in printed.stdout


def test_overwrite_replaces_only_runs(here, text_file):
    arguments = ["--dataset", text_file, *SMALL, "--steps", 1]
    (here / "mine").mkdir()
    (here / "mine" / "diary.txt").write_text("precious")
    result = called("train", *arguments, "--out", "mine", "--overwrite")
    assert result.returncode == 2
    assert (here / "mine" / "diary.txt").exists()
    assert called("train", *arguments, "--out", "r").returncode == 0
    assert called("train", *arguments, "--out", "r").returncode == 2
    assert called("train", *arguments, "--out", "r", "--overwrite").returncode == 0


@pytest.mark.slow
def test_training_does_not_import_the_compiler(here, text_file):
    code = (
        "import sys; from lm.cli.train import main; main(sys.argv[1:]); print('torch._dynamo' in sys.modules)"
    )
    command = [sys.executable, "-c", code, "--dataset", text_file, "--hidden-size", "auto", "--steps", "3"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True)
    assert result.stdout.endswith("\nFalse\n"), result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_and_says_how_to_resume(here, text_file, number):
    command = ["--dataset", text_file, *SMALL, "--steps", 100000, "--eval-every", 50, "--out", "r"]
    pipe = subprocess.PIPE
    process = started("train.py", *command, cwd=here, stdout=pipe, stderr=pipe)
    for line in process.stdout:
        if "step 50 " in line:
            break
    process.send_signal(number)
    assert process.wait(timeout=30) == 128 + number
    rest, errors = process.stdout.read(), process.stderr.read()
    assert "python train.py --resume r" in rest
    assert "Traceback" not in errors
    progress = json.loads((here / "r/training/checkpoint/progress.json").read_text())
    assert progress["step"] >= 50
    again = started("train.py", "--resume", "r", cwd=here, stdout=pipe)
    for line in again.stdout:
        if "Resuming from step" in line:
            assert int(line.split("step")[1].strip(" .\n").replace(",", "")) == progress["step"]
            break
    else:
        pytest.fail("it did not resume")
    again.terminate()
    again.wait(timeout=30)


@pytest.mark.slow
@pytest.mark.parametrize("lines", [0, 1, 9], ids=["at once", "while reading", "while training"])
def test_a_run_whose_output_is_closed_saves_and_says_how_to_resume(here, text_file, lines):
    """As by `| head -1`."""
    command = ["--dataset", text_file, *SMALL, "--steps", 100000, "--eval-every", 10, "--out", "r"]
    process = started("train.py", *command, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for _ in range(lines):
        process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == "Stopped and saved. Resume with: python train.py --resume r\n"
    step = json.loads((here / "r/training/checkpoint/progress.json").read_text())["step"]
    again = called("train", "--resume", "r", "--steps", step + 2)
    assert again.returncode == 0 and f"Resuming from step {step}." in again.stdout


def text(content, name="t.txt"):
    def write(folder):
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name).write_bytes(data)

    return write


TABLE = text('{"a": "x", "b": "y"}\n', "t.jsonl")
GOOD = text(some_text(5000))


def finished_run(folder):
    GOOD(folder)
    called("train", "--dataset", "t.txt", *SMALL, "--steps", 1, "--out", "r")


def cut_checkpoint(folder):
    finished_run(folder)
    edit_progress(folder / "r", finished=False)
    state = folder / "r/training/checkpoint/state.safetensors"
    state.write_bytes(state.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("prepare", "arguments", "message"),
    [
        (None, ["--dataset", "none.txt"], "there is no file or folder 'none.txt'"),
        (None, ["--dataset", "no/folder/here"], "there is no file or folder"),
        (text(""), ["--dataset", "t.txt"], "error: t.txt contains no text: choose another file."),
        (text("a"), ["--dataset", "t.txt"], "only one character"),
        (text("a" * 500), ["--dataset", "t.txt"], "only one distinct character, 'a'"),
        (text(b"ab\xffcd" * 100), ["--dataset", "t.txt"], "t.txt is not UTF-8: byte 0xff at position 2"),
        (TABLE, ["--dataset", "t.jsonl", "--text-column", "c"], "it has a, b"),
        (TABLE, ["--dataset", "t.jsonl"], "--text-column: a ('x'), b ('y')"),
        (text('{"a": \n', "t.jsonl"), ["--dataset", "t.jsonl"], "t.jsonl, line 1, is not JSON"),
        (GOOD, ["--dataset", "t.txt", "--tokenizer", "bpe", "--vocab-size", "10"], "10 is too small"),
        (GOOD, ["--dataset", "t.txt", "--hidden-size", "0"], "--hidden-size must be at least 1, got 0"),
        (
            GOOD,
            ["--dataset", "t.txt", "--max-time", "soon"],
            "--max-time must be a duration such as 90s, 10m or 2h, got 'soon'",
        ),
        (GOOD, ["--dataset", "t.txt", "--batch-size", "9000"], "use at most 4500"),
        (GOOD, ["--dataset", "t.txt", "--bptt", "600", "--batch-size", "8"], "the shortest with 562"),
        (GOOD, ["--dataset", "t.txt", "--steps", "5", "--epochs", "1"], "choose one budget"),
        (GOOD, ["--dataset", "t.txt", "--lr", "1e30", "--clip", "0", "--steps", "50"], "lower --lr"),
        (finished_run, ["--dataset", "t.txt", "--out", "r"], "r exists: name another with --out"),
        (finished_run, ["--resume", "r", "--lr", "0.5"], "leave out --lr"),
        (cut_checkpoint, ["--resume", "r"], "state.safetensors is damaged or truncated"),
        (None, ["--resume"], "there is no run to resume"),
        (None, ["--resume", "nowhere"], "nowhere is not a run"),
        (text("hidden_sise: 5", "c.yaml"), ["--config", "c.yaml"], "did you mean 'hidden_size'?"),
        (
            text("hidden_size: a", "c.yaml"),
            ["--config", "c.yaml"],
            "c.yaml: --hidden-size must be an integer",
        ),
        (None, ["--config", "c.yaml"], "error: c.yaml cannot be read: No such file or directory."),
        (GOOD, ["t.txt", "--out", "t.txt"], "t.txt is a file: name another folder with --out."),
        (None, ["--hiden-size", "12"], "unrecognized arguments: --hiden-size; did you mean '--hidden-size'?"),
    ],
)
def test_errors_are_one_line_and_leave_nothing_behind(here, prepare, arguments, message):
    if prepare:
        prepare(here)
    before = {p for p in here.rglob("*") if "training" not in p.parts}
    result = called("train", *arguments)
    assert result.returncode == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert message in lines[-1]
    assert "Traceback" not in result.stderr
    assert len(lines) == 1 or lines[0].startswith("usage:")
    if "1e30" not in arguments:  # found while training
        assert {p for p in here.rglob("*") if "training" not in p.parts} == before


class EmptyHub(BaseHTTPRequestHandler):
    """Answers like the real Hub does for a dataset that does not exist."""

    def do_GET(self):
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


def test_an_unknown_hub_id_is_reported_immediately(here):
    server = ThreadingHTTPServer(("127.0.0.1", 0), EmptyHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    begin = time.perf_counter()
    result = script("train.py", "--dataset", "nobody/nothing", cwd=here, env={"HF_ENDPOINT": address})
    server.shutdown()
    assert result.returncode == 2
    assert re.fullmatch(r"error: there is no file, folder or Hub dataset 'nobody/nothing'.*\n", result.stderr)
    assert time.perf_counter() - begin < 15


def test_a_missing_network_is_reported_immediately(here):
    begin = time.perf_counter()
    offline = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    result = script("train.py", "--dataset", "nobody/nothing", cwd=here, env=offline)
    assert result.returncode == 2
    expected = r"error: there is no file or folder 'nobody/nothing', and the Hub cannot be reached.*\n"
    assert re.fullmatch(expected, result.stderr)
    assert time.perf_counter() - begin < 15


@pytest.mark.slow
def test_training_on_standard_input_resumes_without_it(here, text_file):
    text = text_file.read_text()
    command = ["--dataset", "-", *SMALL, "--steps", 60, "--eval-every", 60, "--out", "r"]
    result = script("train.py", *command, cwd=here, input=text)
    assert result.returncode == 0, result.stderr
    assert "27,000 characters for training" in result.stdout
    edit_progress(here / "r", finished=False)
    result = script("train.py", "--resume", "r", cwd=here, input="")
    assert result.returncode == 0, result.stderr
    assert "Resuming from step 60" in result.stdout


@pytest.mark.gpu
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_on_a_gpu(here, text_file, cell):
    command = ["--dataset", text_file, "--cell", cell, *SMALL, "--steps", 100, "--lr", 1e-2, "--out", "r"]
    result = script("train.py", *command, "--device", "cuda", cwd=here)
    assert result.returncode == 0, result.stderr
    assert "cuda" in result.stdout
    assert metrics(here / "r")[-1]["validation_loss"] < 2.5
    assert {row["step"] for row in metrics(here / "r")} == {*range(10, 101, 10)}  # not every 25 steps
    first, second = (script("generate.py", "r", "--seed", 1, "--device", "cuda", cwd=here) for _ in range(2))
    assert first.returncode == 0
    assert first.stdout == second.stdout
    assert "Warning" not in result.stderr + first.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_every_precision_trains_and_generates_on_a_gpu(here, text_file, precision):
    where = ["--device", "cuda", "--precision", precision]
    command = ["--dataset", text_file, *SMALL, "--steps", 100, "--lr", 1e-2, "--out", "r", *where]
    result = script("train.py", *command, cwd=here)
    assert result.returncode == 0, result.stderr
    assert f"cuda, {precision}" in result.stdout  # unless cuDNN is older than 9.13
    assert "CUDA graph" not in result.stdout + result.stderr  # that the step could not be recorded
    assert metrics(here / "r")[-1]["validation_loss"] < 2.5
    generated = "fp32" if precision == "fp16" else precision  # a model in float16 is one on older GPUs
    text = script("generate.py", "r", "--device", "cuda", "--precision", generated, cwd=here)
    assert text.returncode == 0, text.stderr
    assert "Warning" not in result.stderr + text.stderr
