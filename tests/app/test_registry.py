"""Which models the page offers, that it loads no others, and how they are renamed and deleted."""

import gc
import os
import shutil
import threading
import time
import weakref

import pytest

import app.registry
from app.registry import NO_MODEL, SHIPPED, ModelRegistry
from lm import saving
from lm.errors import UserError


@pytest.fixture
def runs(tmp_path, trained_run, monkeypatch):
    """A folder with two models, an empty folder and a broken model; no model ships."""
    monkeypatch.setattr(saving, "PRETRAINED", tmp_path / "none")
    runs = tmp_path / "runs"
    for age, name in enumerate(("newer", "older")):
        shutil.copytree(trained_run, runs / name)
        os.utime(runs / name / "model.safetensors", (1e9 - age, 1e9 - age))
    shutil.copytree(trained_run, runs / "broken")
    (runs / "broken" / "config.json").write_text("{")
    (runs / "empty").mkdir()
    return runs


def test_models_are_listed_newest_first_without_the_broken_ones(runs):
    assert list(ModelRegistry([runs]).folders()) == ["newer", "older"]


def test_a_model_that_appears_later_is_listed(runs, trained_run):
    models = ModelRegistry([runs])
    models.folders()
    shutil.copytree(trained_run, runs / "latest")
    assert "latest" in models.folders()


def test_models_of_one_name_in_two_folders_are_both_listed(runs, tmp_path, trained_run):
    shutil.copytree(trained_run, tmp_path / "old" / "newer")
    found = ModelRegistry([runs, tmp_path / "old"]).folders()
    assert found["newer"] == runs / "newer"
    assert found[str(tmp_path / "old" / "newer")] == tmp_path / "old" / "newer"


def test_a_folder_that_is_a_model_is_listed_itself(runs):
    assert ModelRegistry([runs / "older"]).folders() == {"older": runs / "older"}


def test_the_shipped_model_is_listed_last(runs, monkeypatch, trained_run):
    monkeypatch.setattr(saving, "PRETRAINED", trained_run)
    assert list(ModelRegistry([runs]).folders()) == ["newer", "older", SHIPPED]


@pytest.mark.parametrize("name", ["../runs/newer", "/etc", "someone/model", "broken", "empty", "NEWER"])
def test_only_what_is_listed_is_loaded(runs, name):
    with pytest.raises(UserError, match="no model"):
        ModelRegistry([runs]).load(name)


def test_without_any_model_the_message_says_what_to_do(tmp_path, runs):
    with pytest.raises(UserError) as caught:
        ModelRegistry([tmp_path / "absent"]).load(None)
    assert str(caught.value) == NO_MODEL and "lm train" in NO_MODEL


def test_a_model_is_read_once_until_it_is_trained_further(runs):
    models = ModelRegistry([runs])
    first = models.load("newer")
    assert models.load("newer") is first
    os.utime(runs / "newer" / "model.safetensors")
    assert models.load("newer") is not first


def test_a_model_whose_weights_are_cut_short_is_refused_in_one_line(runs):
    weights = runs / "older" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match="cut short") as caught:
        ModelRegistry([runs]).load("older")
    assert "\n" not in str(caught.value)


def contents(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*"))


def rename(models, name, new, **options):
    return models.rename(name, new, models.fingerprint(name), **options)


def delete(models, name, **options):
    models.delete(name, models.fingerprint(name), **options)


def test_a_model_is_renamed_with_all_that_it_has(runs):
    models = ModelRegistry([runs])
    before, loaded = contents(runs / "older"), models.load("older")
    assert rename(models, "older", "  the sea, 海 2 ") == "the sea, 海 2"
    assert list(models.folders()) == ["newer", "the sea, 海 2"]
    assert contents(runs / "the sea, 海 2") == before and not (runs / "older").exists()
    assert models.load("the sea, 海 2").generate("The ", seed=1) == loaded.generate("The ", seed=1)
    with pytest.raises(UserError, match="no model"):
        models.load("older")


def test_the_card_tells_the_new_name(runs, trained_run):
    card = (trained_run / "README.md").read_text()
    assert "# boat\n" in card and 'lm.load("boat")' in card
    shutil.move(runs / "older", runs / "boat")
    rename(ModelRegistry([runs]), "boat", "ship")
    new = (runs / "ship" / "README.md").read_text()
    assert new == card.replace("# boat", "# ship").replace('load("boat")', 'load("ship")')


@pytest.mark.parametrize(
    "new",
    ["", "  ", None, ".", "..", ".hidden", "../up", "a/b", "/tmp/x", "a\\b", "C:x", "a\nb", "a\x00b", "-rf",
     "end.",
     "x" * 81, "海" * 81, "a\u202eb", SHIPPED, "newer", "empty", "a file"],
)  # fmt: skip
def test_names_that_cannot_be_are_refused_and_nothing_changes(runs, new):
    models = ModelRegistry([runs])
    (runs / "a file").touch()
    before = contents(runs.parent)
    with pytest.raises(UserError) as caught:
        rename(models, "older", new)
    assert "\n" not in str(caught.value)
    assert contents(runs.parent) == before


def test_a_name_that_a_model_of_another_folder_has_is_taken(runs, tmp_path, trained_run):
    shutil.copytree(trained_run, tmp_path / "old" / "ship")
    with pytest.raises(UserError, match="already"):
        rename(ModelRegistry([runs, tmp_path / "old"]), "older", "ship")


def test_the_same_name_again_changes_nothing(runs):
    models = ModelRegistry([runs])
    assert rename(models, "older", "older") == "older"
    assert list(models.folders()) == ["newer", "older"]


def test_a_model_is_deleted_and_nothing_is_left_of_it(runs):
    models = ModelRegistry([runs])
    kept = contents(runs / "newer")
    writing = models.load("older")
    delete(models, "older")
    assert sorted(p.name for p in runs.iterdir()) == ["broken", "empty", "newer"]
    assert contents(runs / "newer") == kept and list(models.folders()) == ["newer"]
    assert writing.generate("The ")  # whoever writes with it goes on
    with pytest.raises(UserError, match="no model"):
        models.load("older")


def test_a_model_is_gone_before_its_files_are_deleted(runs, monkeypatch):
    models, seen = ModelRegistry([runs]), []
    monkeypatch.setattr(shutil, "rmtree", lambda path, **options: seen.append((path, list(models.folders()))))
    delete(models, "older")
    ((hidden, found),) = seen
    assert found == ["newer"] and (hidden / "model" / "config.json").is_file()
    monkeypatch.undo()
    # A kill has left it there: the next deletion clears it away, but not what another is just deleting.
    recent = runs / f"{app.registry._DELETED}recent"
    recent.mkdir()
    os.utime(hidden, (time.time() - 7200,) * 2)
    delete(models, "newer")
    assert not hidden.exists() and recent.exists()


def test_a_link_is_deleted_and_what_it_leads_to_stays(runs, tmp_path, trained_run):
    elsewhere = shutil.copytree(trained_run, tmp_path / "elsewhere")
    (runs / "link").symlink_to(elsewhere)
    before = contents(elsewhere)
    delete(ModelRegistry([runs]), "link")
    assert not (runs / "link").is_symlink() and contents(elsewhere) == before


@pytest.mark.parametrize("change", [lambda models, name: rename(models, name, "new"), delete])
def test_what_is_not_below_the_models_folders_stays(runs, tmp_path, trained_run, monkeypatch, change):
    monkeypatch.setattr(saving, "PRETRAINED", shutil.copytree(trained_run, tmp_path / "shipped"))
    models = ModelRegistry([runs / "older", tmp_path / "other"])
    before = contents(tmp_path)
    for name in ("older", SHIPPED):
        assert not models.is_editable(name)
        with pytest.raises(UserError, match="stays as it is"):
            change(models, name)
    assert contents(tmp_path) == before
    assert ModelRegistry([runs]).is_editable("older") and not ModelRegistry([runs]).is_editable(
        "../runs/older"
    )


@pytest.mark.parametrize("name", ["../runs/newer", "/etc", "broken", "empty", "", None])
def test_only_what_is_listed_is_changed(runs, name):
    models, before = ModelRegistry([runs]), contents(runs)
    for change in (lambda: models.rename(name, "new", ""), lambda: models.delete(name, "")):
        with pytest.raises(UserError):
            change()
    assert contents(runs) == before


def test_a_model_that_is_being_trained_stays(runs):
    models, before = ModelRegistry([runs]), contents(runs)
    asked = []
    busy = lambda folder: asked.append(folder) or True  # noqa: E731
    for change in (
        lambda: rename(models, "older", "new", busy=busy),
        lambda: delete(models, "older", busy=busy),
    ):
        with pytest.raises(UserError, match="being trained"):
            change()
    assert asked == [runs / "older"] * 2 and contents(runs) == before


def test_a_model_that_has_become_another_meanwhile_stays(runs):
    models = ModelRegistry([runs])
    seen = models.fingerprint("older")
    shutil.rmtree(runs / "older")
    shutil.move(runs / "newer", runs / "older")  # another page was quicker
    for change in (lambda: models.delete("older", seen), lambda: models.rename("older", "new", seen)):
        with pytest.raises(UserError, match="meanwhile"):
            change()
    assert models.folders() == {"older": runs / "older"}
    seen = models.fingerprint("older")
    os.utime(runs / "older" / "model.safetensors")  # trained further
    with pytest.raises(UserError, match="meanwhile"):
        models.delete("older", seen)


def test_of_two_who_rename_or_delete_one_model_at_once_one_is_told_that_it_is_gone(runs):
    for attempt in range(20):
        # Two servers on one folder: their locks know nothing of each other.
        pages, name = (
            [ModelRegistry([runs]), ModelRegistry([runs])],
            next(iter(ModelRegistry([runs]).folders())),
        )
        stamp, results, start = pages[0].fingerprint(name), [], threading.Barrier(2)

        def ask(models, new, name=name, stamp=stamp, results=results, start=start):
            start.wait()
            try:
                results.append(models.rename(name, new, stamp))
            except UserError as error:
                results.append(error)

        threads = [threading.Thread(target=ask, args=(m, f"{n}-{attempt}")) for n, m in enumerate(pages)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        done = [result for result in results if isinstance(result, str)]
        (refused,) = (str(result) for result in results if isinstance(result, UserError))
        assert (
            len(done) == 1
            and done[0] in ModelRegistry([runs]).folders()
            and len(ModelRegistry([runs]).folders()) == 2
        )
        assert "gone" in refused or "no model" in refused, refused


def test_a_model_that_goes_away_in_the_last_moment_is_told_to_be_gone(runs):
    models = ModelRegistry([runs])
    for name, change in (
        ("older", delete),
        ("newer", lambda models, name, **busy: rename(models, name, "new", **busy)),
    ):
        with pytest.raises(UserError, match=f"'{name}' is gone"):
            change(models, name, busy=shutil.rmtree)
    assert sorted(path.name for path in runs.iterdir()) == ["broken", "empty"]


def test_what_was_renamed_or_deleted_takes_no_memory(runs):
    models = ModelRegistry([runs])
    loaded = [weakref.ref(models.load(name)) for name in ("older", "newer")]
    rename(models, "older", "new")
    delete(models, "newer")
    gc.collect()
    assert [one() for one in loaded] == [None, None]


def test_a_folder_that_may_not_be_written_is_one_line(runs, monkeypatch):
    models, before = ModelRegistry([runs]), contents(runs)

    def refuse(*paths):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "rename", refuse)
    for change in (lambda: rename(models, "older", "new"), lambda: delete(models, "older")):
        with pytest.raises(UserError, match=r"'older' cannot be changed: Permission denied\."):
            change()
    assert contents(runs) == before
