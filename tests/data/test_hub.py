"""Hub datasets that may not be downloaded; tests/end_to_end/test_hub_datasets.py has a local Hub."""

from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError

from lm.console.progress import no_progress
from lm.data import hub
from lm.errors import DataError


def test_a_file_of_a_dataset_with_terms_is_not_tried_again(monkeypatch):
    tries = []

    def refuse(repo, path, **options):
        tries.append(path)
        raise GatedRepoError("403 Client Error.", response=SimpleNamespace(headers={}, request=None))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(DataError, match=r"^the Hub dataset 'org/set' requires you to accept its terms: do"):
        hub.fetch("hf://datasets/org/set@main/data/train.parquet", no_progress)
    assert tries == ["data/train.parquet"]
