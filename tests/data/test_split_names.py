"""Splits by the names of files: whole names, in a folder and on the Hub."""

import pytest

from lm.data.split_names import by_split, by_split_on_hub


@pytest.mark.parametrize(
    ("names", "misleading"),
    [
        ({"train": ["the-test-of-time.txt", "emma.txt"]}, True),
        ({"train": ["train.txt", "the-test-of-time.txt"], "validation": ["dev.txt"]}, True),
        ({"train": ["The Test of Time.txt"]}, True),
        ({"train": ["training of dogs/a.txt"]}, True),
        ({"train": ["contest.txt", "devil.txt", "strain.txt", "a/latest/b.txt"]}, False),
        ({"train": ["train_en.json"], "test": ["test_en.json"]}, False),
        ({"train": ["train_en.json", "test_fr.json"]}, True),
        ({"train": ["train-v1.1.json"], "validation": ["dev-v1.1.json"]}, False),
        ({"train": ["squad_train_1.csv", "squad_train_2.csv"], "test": ["squad_test_3.csv"]}, False),
        ({"train": ["train data/a.txt"], "test": ["test data/b.txt"]}, False),
        (
            {"train": ["data/train-00000-of-00001.parquet"], "test": ["data/test-00000-of-00001.parquet"]},
            False,
        ),
        ({"test": ["test/a.txt", "test/the-training-of-dogs.txt"]}, False),
    ],
)
def test_words_within_names_on_the_hub(names, misleading):
    files = [name for group in names.values() for name in group]
    assert by_split_on_hub(files) == (names, misleading)


def test_words_within_names_in_a_folder():
    names = ["the-test-of-time.txt", "train_en.json", "test_en.json", "dev.txt"]
    assert by_split(names) == {"train": names[:3], "validation": names[3:]}
