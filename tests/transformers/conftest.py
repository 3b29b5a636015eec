"""Shared by the tests of lm.transformers: transformers without its messages, and one model in both forms."""

import pytest

from tests.transformers.models import make, saved


@pytest.fixture(scope="package", autouse=True)
def quiet_transformers():
    import transformers

    import lm.transformers  # noqa: F401 - registers the models

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


@pytest.fixture(scope="package")
def ours():
    return make()


@pytest.fixture(scope="package")
def theirs(ours, tmp_path_factory):
    return saved(ours, tmp_path_factory.mktemp("model"))
