"""A text in an empty folder."""

import pytest

from tests.conftest import some_text


@pytest.fixture
def boat(here):
    (here / "boat.txt").write_text(some_text(20_000))
