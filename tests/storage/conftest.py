"""For the tests of model cards: the facts of a model."""

from __future__ import annotations

import json

import pytest

from tests.storage.cards import make


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """config.json of a model of which nothing is known."""
    folder = tmp_path_factory.mktemp("plain")
    make().save(folder)
    return json.loads((folder / "config.json").read_text())
