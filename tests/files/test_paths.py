"""A leading ~ is the home folder, unless no user has that name."""

from pathlib import Path

import pytest

from app.command_line import model_folders
from lm.data.cache import cache_folder
from lm.data.sources import find_tokenizer
from lm.errors import UserError
from lm.export import exporter
from lm.files.atomic import check_output
from lm.files.paths import expanded
from lm.insight.table_files import write_table
from lm.storage.model_folder import find_model
from lm.storage.run_folder import find_run
from tests.data.conftest import documents, found

NOBODY = "~$nobody"  # names of temporary files of office programs begin like this


@pytest.fixture(autouse=True)
def here(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here / "home"))
    return here


def test_a_tilde_is_the_home_folder(here):
    assert expanded("~") == here / "home"
    assert expanded(Path("~/a.txt")) == here / "home" / "a.txt"


def test_a_name_that_is_no_user_stays_as_it_is():
    assert expanded(NOBODY) == expanded(Path(NOBODY)) == Path(NOBODY)
    assert expanded("a/~") == Path("a/~")


def test_files_with_such_names_are_read_and_written(here):
    Path(NOBODY + ".txt").write_text("the sea")
    assert documents(found(NOBODY + ".txt")) == ["the sea"]
    Path(NOBODY).mkdir()
    assert model_folders([NOBODY]) == [Path(NOBODY)] and find_model(NOBODY) == Path(NOBODY)
    check_output(NOBODY + ".csv")
    write_table(NOBODY + ".csv", iter(["a\n"]))
    assert Path(NOBODY + ".csv").read_text() == "a\n"
    assert callable(exporter(NOBODY + ".html"))


@pytest.mark.parametrize("find", [find_model, find_run, find_tokenizer, found])
def test_missing_ones_are_errors_of_one_line(find):
    with pytest.raises(UserError, match=r"~\$nobody") as raised:
        find(NOBODY)
    assert "\n" not in str(raised.value)


def test_the_cache_may_be_in_one(monkeypatch):
    monkeypatch.delenv("LM_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", NOBODY)
    assert cache_folder() == Path(NOBODY) / "lm"
