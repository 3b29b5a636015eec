"""The error names the settings that make what takes the memory smaller."""

import pytest

from lm.config.schema import RunConfig
from lm.errors import UserError
from lm.training.out_of_memory import explaining_out_of_memory, training_memory


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


def test_micro_batches_store_less():
    whole, half = (
        training_memory(RunConfig.from_flat({"hidden_size": 64, "accumulate": n}), 100) for n in (1, 2)
    )
    assert (half[0], half[1]) == (whole[0], whole[1] / 2)
