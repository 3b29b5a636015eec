"""Shared by the tests of `lm evaluate`: a way to call it, small models with random weights, and a table."""

import csv
import io
from functools import cache, partial

import pytest

from tests.conftest import called
from tests.insight.networks import make

ITEMS = (
    'id,"item, nr",condition,sentence\n'
    "a,1,plain,the sea was calm\n"
    "b,1,,\n"
    'c,2,"x ""y""\t#z",the boat # was naïve Ж\n'
    "d,2,#1,#the sea\n"
)
SENTENCES = {1: "the sea was calm", 3: "the boat # was naïve Ж", 4: "#the sea"}


def rows_of(text):
    """The rows of a table in TSV."""
    return list(csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.fixture
def evaluate(monkeypatch, tmp_path):
    """Calls `lm evaluate` in the folder `tmp_path`, without starting a process."""
    monkeypatch.chdir(tmp_path)
    return partial(called, "evaluate")


@pytest.fixture(scope="package")
def saved(tmp_path_factory):
    """Saves a model with this kind of tokenizer, once, and returns its folder."""

    @cache
    def save(kind):
        folder = tmp_path_factory.mktemp(kind)
        make(kind).save(folder)
        return folder

    return save


@pytest.fixture(scope="package")
def char(saved):
    return saved("char")


@pytest.fixture(scope="module", params=["char", "bpe", "word"])
def model(request, saved):
    return saved(request.param)


@pytest.fixture
def items(tmp_path):
    (tmp_path / "items.csv").write_text(ITEMS, encoding="utf-8")
