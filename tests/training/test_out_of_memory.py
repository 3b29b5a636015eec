"""The error names the settings that make what takes the memory smaller."""

import time
from pathlib import Path

import pytest

from lm.cli.train import main
from lm.config.schema import RunConfig
from lm.errors import UserError
from lm.training.out_of_memory import explaining_out_of_memory, training_memory
from tests.conftest import some_text


def message(vocab_size, **settings):
    with (
        pytest.raises(UserError) as error,
        explaining_out_of_memory(RunConfig.from_flat(settings), vocab_size),
    ):
        raise MemoryError
    return str(error.value)


def test_many_words_are_a_matter_of_the_vocabulary():
    """Neither smaller batches nor --accumulate make the network smaller."""
    assert message(65_536, tokenizer="word", hidden_size=128, embedding_size=768) == (
        "there is not enough memory: lower --vocab-size (now 65,536), --embedding-size (now 768),"
        " --hidden-size (now 128) or --layers (now 2), or use --tie."
    )
    assert "--tie" not in message(65_536, tokenizer="word", tie=True)
    assert "--vocab-size" not in message(65_536, tokenizer="other/tokenizer.json")


def test_long_windows_are_a_matter_of_the_batch():
    assert message(100, hidden_size=500, batch_size=400, bptt=64) == (
        "there is not enough memory: lower --batch-size (now 400), --bptt (now 64), --hidden-size (now 500)"
        " or --layers (now 2), or raise --accumulate."
    )


def test_both_are_named_where_both_matter():
    both = message(20_000, tokenizer="word", hidden_size=512, embedding_size=512, batch_size=256)
    assert "--batch-size (now 256)" in both and "--vocab-size (now 20,000)" in both
    assert both.endswith("or raise --accumulate, or use --tie.")


@pytest.mark.parametrize(("run", "named"), [("my run", "'my run'"), ("-run", "./-run"), ("r", "r")])
def test_the_command_that_continues_from_the_best_weights_can_be_pasted(run, named):
    out_of_memory = explaining_out_of_memory(RunConfig(), 100, lambda: Path(run))
    with (
        pytest.raises(UserError, match=rf"{run} has the best .*; --init-from {named} continues"),
        out_of_memory,
    ):
        raise MemoryError


def test_micro_batches_store_less():
    whole, half = (
        training_memory(RunConfig.from_flat({"hidden_size": 64, "accumulate": n}), 100) for n in (1, 2)
    )
    assert (half[0], half[1]) == (whole[0], whole[1] / 2)


@pytest.mark.parametrize("name", ["--hidden-size", "--embedding-size", "--bptt", "--batch-size", "--layers"])
@pytest.mark.parametrize("value", [2**31, 2**62, 2**63 - 1, 10**30])
def test_impossible_sizes_are_errors_that_name_them(tmp_path, monkeypatch, name, value):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "boat.txt").write_text(some_text(20_000))
    others = {"--hidden-size": 8, "--layers": 1, "--batch-size": 4, "--bptt": 16, name: value}
    command = [str(part) for flag in others.items() for part in flag]
    begin = time.perf_counter()
    with pytest.raises(UserError, match=rf"{name} (\(now )?{value}|{name} must be") as error:
        main(["--dataset", "boat.txt", "--steps", "2", *command])
    assert "\n" not in str(error.value) and time.perf_counter() - begin < 20
