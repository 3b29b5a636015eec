"""Files of settings: which YAML is read, and what hostile YAML costs."""

import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings, strategies as st

from lm.cli.train import main
from lm.config.schema import RunConfig, checked
from lm.config.settings_file import as_yaml, read_settings
from lm.errors import UserError
from lm.storage.run_folder import Run

LISTS = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: y}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 9)}]}}\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "lists of aliases": (LISTS, r"an alias \(\*\) can only repeat a single value, not a list"),
    "merged aliases": (MERGES, r"an alias \(\*\) can only repeat a single value, not a list"),
    "a list in itself": ("a: &a [*a]", r"an alias \(\*\) can only repeat|recursive"),
    "a long text many times": (f"a: &a {'x' * 9000}\nb: [{'*a, ' * 300}]", "more than 2,097,152 characters"),
    "deep lists": ("a: " + "[" * 200_000, "nested more than 10 levels"),
    "deep lists on lines": ("- " * 200_000, "nested more than 10 levels"),
    "deep mappings": ("a: " + "{a: " * 200_000, "nested more than 10 levels"),
    "deep keys": ("? " * 200_000, "nested more than 10 levels"),
    "deep by indentation": ("\n".join(" " * n + "a:" for n in range(1000)), "nested more than 10 levels"),
    "many values": (f"a: [{'a, ' * 300_000}]", "more than 20,000 values"),
    "many names": ("".join(f"a{n}: b\n" for n in range(60_000)), "more than 20,000 values"),
    "sexagesimal digits": ("seed: 1" + ":1" * 100_000, "--seed must be an integer"),
    "digits": (f"seed: {'9' * 100_000}", "--seed must be an integer"),
    "digits of a fraction": (f"seed: 0.{'5' * 1_000_000}", "--seed must be an integer"),
    "digits of a duration": (f"max_time: {'9' * 1_000_000}x", "--max-time must be a duration"),
    "a large file": ("# comment\n" * 500_000, "more than 4,194,304 bytes|has 5,000,000 bytes; the limit is"),
    "an impossible date": ("seed: 2001-99-99", "--seed must be an integer"),
    "no date": ("seed: !!timestamp x", "--seed must be an integer"),
    "no boolean": ("tie: !!bool x", "cannot be read"),
    "no number": ("seed: !!int x", "--seed must be an integer"),
    "a list as a number": ("seed: !!int [1]", "expected a scalar node, but found sequence"),
    "an object": ("seed: !!python/object/apply:os.abort []", "could not determine a constructor"),
    "a list as a name": ("? [a, b]\n: c", "found unhashable key"),
    "an escape sequence": ("a: [\x9b31m", "special characters are not allowed"),
}


@pytest.mark.slow
@pytest.mark.parametrize("content, message", HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_settings_are_rejected_quickly_in_one_line(tmp_path, content, message):
    file = tmp_path / "training" / "config.yaml"
    file.parent.mkdir()
    file.write_text(content)
    for flags in (["--resume", str(tmp_path)], ["--config", str(file), "--print-config"]):
        began = time.process_time()
        with pytest.raises(UserError, match=message) as error:
            main(flags)
        assert time.process_time() - began < 5
        assert str(error.value).startswith(str(file))
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory"),
        ("seed: 1\n lr: 2", "mapping values are not allowed here in line 2, column 4"),
        ("quiet: !!bool x", "found 'x' as !!bool in line 1, column 8"),
        ("a: [1,\n2", "expected ',' or ']', but got '<stream end>' in line 2, column 2"),
        ("a: \x9b", "unacceptable character #x009b: special characters are not allowed, position 3"),
    ],
)
def test_an_error_says_once_what_is_wrong_and_where(tmp_path, content, message):
    file = tmp_path / "a.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError) as error:
        read_settings(file)
    assert str(error.value) == f"{file} cannot be read: {message}."


@pytest.mark.posix
def test_a_link_or_a_pipe_as_settings_of_a_run_is_rejected(tmp_path):
    (tmp_path / "secret.yaml").write_text("seed: 1")
    (tmp_path / "run/training").mkdir(parents=True)
    file = tmp_path / "run/training/config.yaml"
    file.symlink_to(tmp_path / "secret.yaml")
    with pytest.raises(UserError, match="is a link that leaves its folder"):
        read_settings(file, file.parent)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(UserError, match="is not a regular file"):
        read_settings(file, file.parent)


@pytest.mark.posix
def test_given_settings_may_come_through_a_pipe(tmp_path):
    """As from `--config <(...)`."""
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=["seed: 3"])
    writer.start()
    assert read_settings(tmp_path / "pipe") == {"seed": "3"}
    writer.join()


def test_thousands_of_texts_and_aliases_of_values_are_read(tmp_path):
    file = tmp_path / "a.yaml"
    names = [f"texts/{'x' * 50}-{n}.txt" for n in range(15_000)]
    file.write_text(
        "dropout: &share 0.25\ninput-dropout: *share\ndataset:\n" + "".join(f"- {n}\n" for n in names)
    )
    assert read_settings(file) == {"dropout": "0.25", "input_dropout": "0.25", "dataset": names}


@pytest.mark.parametrize("again", ["hidden_size", "hidden-size"])
def test_a_setting_that_is_given_twice_is_an_error(tmp_path, again):
    file = tmp_path / "a.yaml"
    file.write_text(f"hidden_size: 8\n{again}: 9")
    with pytest.raises(UserError) as error:
        read_settings(file)
    assert str(error.value) == f"{file} cannot be read: found 'hidden_size' again in line 2, column 1."


NUMBERS = {
    "seed": "010",
    "lr": "1e-3",
    "clip": ".5",
    "patience": "1_0",
    "max_time": "1e2",
    "mix": "[.75, 0.25]",
}
TEXTS = {
    "out": "2024_10",
    "text_column": "010",
    "encoding": "1.10",
    "train_split": "1:30",
    "json_field": "0x10",
}
DATES = {"dataset": "[007, 1.0]", "dataset_revision": "2024-01-02"}


def test_numbers_and_texts_are_read_as_on_the_command_line(tmp_path):
    file = tmp_path / "a.yaml"
    given = {**NUMBERS, **TEXTS, **DATES}
    file.write_text("".join(f"{name}: {value}\n" for name, value in given.items()))
    numbers = {"seed": 10, "lr": 0.001, "clip": 0.5, "patience": 10, "max_time": 100.0, "mix": (0.75, 0.25)}
    expected = {**numbers, **TEXTS, "dataset": ("007", "1.0"), "dataset_revision": "2024-01-02"}
    assert checked(read_settings(file)) == expected


@pytest.mark.parametrize("value", ["0x10", "1:30", "0b1", ".inf", "2024-01-02"])
def test_what_is_not_a_number_on_the_command_line_is_not_one_in_a_file(tmp_path, value):
    (tmp_path / "a.yaml").write_text(f"seed: {value}")
    with pytest.raises(UserError, match=f"--seed must be an integer, got '{value}'"):
        checked(read_settings(tmp_path / "a.yaml"))


def test_written_settings_are_read_back(tmp_path):
    run = Run(tmp_path)
    run.training.mkdir()
    texts = {
        "out": "010",
        "text_column": "1:30",
        "encoding": "null",
        "json_field": "no",
        "dataset": ["1e3", "1_0"],
    }
    numbers = {"lr": 1e-5, "weight_decay": 1e16, "max_time": 1e-5, "seed": 2**63 - 1, "mix": [0.1, 0.9]}
    config = RunConfig.from_flat(texts | numbers)
    run.write_config(config)
    assert RunConfig.from_flat(run.settings()) == config


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="-"))  # a name has `_` instead


@pytest.mark.slow
@settings(max_examples=50)
@given(st.dictionaries(TEXT, TEXT))
@example({"document_separator": "\x85"})
@example({"a": "\u2028\u2029 \ufeff\x00\x7f\xa0", "b": " a\n\n b: # \t", "c": "'\"\\", "d": "🐟" * 99})
def test_every_text_is_read_as_it_was_written(tmp_path_factory, texts):
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(as_yaml(texts), encoding="utf-8", newline="")
    assert read_settings(file) == texts


def test_a_printed_separator_can_be_given_as_a_file(here, capsys):
    assert main(["--document-separator", "\x85", "--print-config"]) == 0
    Path("a.yaml").write_text(capsys.readouterr().out)
    assert checked(read_settings(Path("a.yaml")))["document_separator"] == "\x85"


def test_an_empty_text_in_a_file_is_an_error(tmp_path):
    file = tmp_path / "a.yaml"
    for content in ("dataset: ''", "dataset: [a, '']", "out: ''"):
        file.write_text(content)
        with pytest.raises(UserError, match=rf"a\.yaml: --{content[:3]}\w* must not be empty"):
            main(["--config", str(file), "--print-config"])
