"""Shared by the tests of `lm evaluate`: a way to call it, and folders of small models with random weights."""

from functools import cache, partial

import pytest

from tests.conftest import called
from tests.insight.networks import make


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
