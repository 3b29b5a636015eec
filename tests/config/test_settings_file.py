"""Files of settings: which YAML is read, and what hostile YAML costs."""

import os
import threading
import time

import pytest

from lm.cli.train import main
from lm.config.settings_file import read_settings
from lm.errors import UserError

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
    "sexagesimal digits": ("seed: 1" + ":1" * 100_000, "a number has more than 1,000 digits"),
    "digits": (f"seed: {'9' * 100_000}", "a number has more than 1,000 digits"),
    "digits of a fraction": (f"lr: 0.{'9' * 100_000}", "a number has more than 1,000 digits"),
    "a large file": ("# comment\n" * 500_000, "more than 4,194,304 bytes|has 5,000,000 bytes; the limit is"),
    "an impossible date": ("seed: 2001-99-99", "month must be in 1..12"),
    "no date": ("seed: !!timestamp x", "cannot be read"),
    "no boolean": ("tie: !!bool x", "cannot be read"),
    "no number": ("seed: !!int x", "cannot be read"),
    "an object": ("seed: !!python/object/apply:os.abort []", "could not determine a constructor"),
    "a list as a name": ("? [a, b]\n: c", "found unhashable key"),
    "an escape sequence": ("a: [\x9b31m", "special characters are not allowed"),
}


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
    assert read_settings(tmp_path / "pipe") == {"seed": 3}
    writer.join()


def test_thousands_of_texts_and_aliases_of_values_are_read(tmp_path):
    file = tmp_path / "a.yaml"
    names = [f"texts/{'x' * 50}-{n}.txt" for n in range(15_000)]
    file.write_text(
        "dropout: &share 0.25\ninput-dropout: *share\ndataset:\n" + "".join(f"- {n}\n" for n in names)
    )
    assert read_settings(file) == {"dropout": 0.25, "input_dropout": 0.25, "dataset": names}
