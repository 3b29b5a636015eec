"""For the tests of the training jobs: a way to upload a text."""

import pytest


@pytest.fixture(scope="module")
def upload(tmp_path_factory):
    """A function that uploads `text` as a file with this name."""
    folder = tmp_path_factory.mktemp("files")

    def add(uploads, text, name="boat.txt"):
        (folder / name).write_text(text, encoding="utf-8")
        return uploads.add(folder / name)

    return add
