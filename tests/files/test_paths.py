"""A leading ~ is the home folder, unless no user has that name."""

import re
from pathlib import Path

import pytest

import lm
from app.command_line import model_folders
from lm.cli.train import main
from lm.data.cache import cache_folder
from lm.data.find_source import find_tokenizer
from lm.errors import UserError
from lm.export import exporter
from lm.files.atomic import check_output
from lm.files.paths import expanded
from lm.insight.table_files import write_table
from lm.storage.model_folder import find_model
from lm.storage.run_folder import find_run
from tests.data.conftest import documents, found
from tests.test_session import make

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
@pytest.mark.parametrize("name", [NOBODY, f"{'a' * 300}.txt"], ids=["tilde", "long"])
def test_missing_ones_are_errors_of_one_line(find, name):
    with pytest.raises(UserError, match=re.escape(name)) as raised:
        find(name)
    assert "\n" not in str(raised.value)


def test_a_name_that_is_too_long_for_the_disk_is_an_error_of_one_line(here):
    (here / "a.txt").write_text("the sea was calm\n" * 9)
    with pytest.raises(UserError, match="is too long: choose a shorter one with --out"):
        lm.train("a.txt", out="a" * 300)
    check_output(f"{'a' * 300}.csv")  # writing it will be an error


def test_models_sessions_and_settings_may_be_in_the_home_folder(here, capsys):
    (here / "home").mkdir()
    model = make()
    model.save("~/model")
    assert lm.load("~/model").generate(seed=1) == model.generate(seed=1)
    session = model.session()
    session.feed("the sea")
    session.save("~/scene")
    assert lm.Session.load(model, "~/scene").text == "the sea"
    (here / "home" / "a.yaml").write_text("steps: 17")
    assert main(["--config", "~/a.yaml", "--print-config"]) == 0
    assert "\nsteps: 17\n" in capsys.readouterr().out
    assert [path.name for path in here.iterdir()] == ["home"]


def test_the_cache_may_be_in_one(monkeypatch):
    monkeypatch.delenv("LM_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", NOBODY)
    assert cache_folder() == Path(NOBODY) / "lm"
