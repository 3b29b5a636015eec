"""Odd values of every flag of every command: the command works, or ends with one line."""

import contextlib
import io
import re
import sys

import pytest
import torch

from app.command_line import listen, parse_app, parse_serve
from lm.cli import evaluate, generate, train
from lm.config.schema import ModelConfig, TrainingConfig
from lm.config.settings import settings_of
from lm.errors import UserError
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import train_tokenizer
from tests.conftest import called, some_text

NUMBERS = [
    *(
        "0",
        "-0.0",
        "-1",
        "1",
        "1.5",
        "nan",
        "inf",
        "-inf",
        "5e-324",
        "1e-45",
        "1e-40",
        "1e-7",
        "0.9999999999",
    ),
    *("1e20", "1e38", "1e39", "-1e39", "1e308", "1e400", "2147483648", "9223372036854775807", "9" * 25),
]
FLOATS = ("5e-324", "1e-45", "1e-7", "0.9999", "0.99999999999", "1e20", "3e38", "1e39")
TEXTS = ["", " ", "\n", "é中", "\udcff", "-", "=", "a=nan", "|", ":", "x" * 5000, "9" * 5000, "./no/where"]
MODEL = "model"
PROGRESS = ("Reading ", "Scoring ", "warning: ", "Counting ", "Tokenizing ", "  ", "▏")
NEEDS = {  # other flags without which a flag is an error
    "--length-penalty": ["--beams=2"],
    "--repetition-window": ["--frequency-penalty=1"],
    "--encoding": ["--prompt-file=new.txt"],
    "--backward-model": ["--infill=a|b"],
}


def flags(parse):
    """The flags in the help of a command, with whether they take a value."""
    with contextlib.redirect_stdout(io.StringIO()) as shown, pytest.raises(SystemExit):
        parse(["--help"])
    found = re.findall(r"^  (?:-\w, )?(--[\w-]+)(?:, --no-[\w-]+)?( \S+)?", shown.getvalue(), re.MULTILINE)
    return {flag: bool(value) for flag, value in found if flag != "--help"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a text and a tiny model."""
    torch.manual_seed(0)
    text = some_text(1500)
    (tmp_path / "new.txt").write_text(text)
    tokenizer = train_tokenizer("char", iter([text]))
    network = RecurrentLM(ModelConfig(cell="gru", hidden_size=4, layers=1), tokenizer.vocab_size)
    LanguageModel(network, tokenizer).save(tmp_path / MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    return tmp_path


@pytest.fixture(params=[8, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"])
def odd(request):
    """Some or all of the odd values of a flag; together, the flags get each of them."""

    def values(number, has_value=True, among=(*NUMBERS, *TEXTS)):
        return among[number % request.param :: request.param] if has_value else ["", "x"]

    return values


def check(command, arguments):
    """Run a command in this process: it succeeds, or ends with one line."""
    result = called(command, *arguments)
    errors = [line for line in result.stderr.splitlines() if not line.startswith(PROGRESS)]
    assert "Traceback" not in result.stderr and result.returncode in (0, 2), (arguments, result.stderr)
    if result.returncode:
        assert len(errors) == 1 and errors[0].startswith("error: "), (arguments, result.stderr)
        assert len(errors[0]) < 700
    return result


def test_odd_values_of_the_flags_of_generate(folder, odd):
    for number, (flag, has_value) in enumerate(flags(generate.parse).items()):
        for value in odd(number, has_value):
            check("generate", [MODEL, "--length=3", *NEEDS.get(flag, []), f"{flag}={value}"])


@pytest.mark.slow
def test_odd_values_of_the_flags_of_evaluate(folder, odd):
    for number, (flag, has_value) in enumerate(flags(evaluate.parse).items()):
        for value in odd(number, has_value):
            usual = [MODEL, "--dataset=new.txt", "--max-chars=80", "--dynamic", "--cache"]
            result = check("evaluate", [*usual, f"{flag}={value}"])
            metrics = re.findall(r"^(?:Nats|Perplexity|Bits).*", result.stdout, re.MULTILINE)
            assert not re.search(r"\b(nan|inf)\b", " ".join(metrics)), (flag, value)


@pytest.mark.slow
def test_odd_values_of_the_flags_of_train(folder, odd):
    for number, (flag, has_value) in enumerate(flags(train.parse).items()):
        for value in odd(number, has_value):
            check("train", ["--print-config", f"{flag}={value}"])


@pytest.mark.slow
def test_odd_values_of_the_numbers_of_a_training(folder, odd):
    usual = "--dataset=new.txt --hidden-size=4 --layers=1 --batch-size=2 --bptt=8 --out=run --overwrite"
    for config_class in (ModelConfig, TrainingConfig):
        for number, setting in enumerate(settings_of(config_class).values()):
            if setting.type is float and setting.name not in ("epochs", "max_time"):
                for value in odd(number, among=FLOATS):
                    check("train", [*usual.split(), "--steps=2", f"{setting.flag}={value}"])


def test_odd_values_of_the_names_of_token_streams(folder):
    for value in NUMBERS + TEXTS:
        check("data", ["info", value] if not value.startswith("-") else ["info", "--", value])


def test_odd_files_and_precisions_of_an_export(folder):
    for value in TEXTS:
        if "\udcff" not in value:  # printed by the real standard output only
            check("export", [MODEL, f"./{value}.onnx"])
            check("export", [MODEL, "model.onnx", f"--precision={value}"])


@pytest.mark.parametrize("parse", [parse_app, parse_serve])
def test_odd_values_of_the_flags_of_the_servers(parse, capsys):
    found = flags(parse)
    for flag, has_value in found.items():
        for value in NUMBERS + TEXTS if has_value else ["", "x"]:
            with contextlib.suppress(SystemExit):
                parse([f"{flag}={value}"])
            assert capsys.readouterr().err.count("\n") <= 1


@pytest.mark.parametrize("host", ["", "x" * 300, "a..b", "\udcff", "256.1.1.1", "é" * 70])
def test_odd_hosts_are_one_line(host):
    with contextlib.suppress(UserError):
        listen(host, 0).close()
