"""The registry lists, loads, renames and deletes the right models, and no others."""

import gc
import os
import re
import shutil
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

import lm
from app.registry import SHIPPED, ModelRegistry
from lm.errors import UserError
from lm.storage import model_folder


@pytest.fixture
def runs(tmp_path, trained_run, monkeypatch):
    """A folder with two models, a broken model and an empty folder; there is no shipped model."""
    monkeypatch.setattr(model_folder, "PRETRAINED", tmp_path / "none")
    runs = tmp_path / "runs"
    for age, name in enumerate(("newer", "older")):
        shutil.copytree(trained_run, runs / name)
        os.utime(runs / name / "model.safetensors", (1e9 - age, 1e9 - age))
    shutil.copytree(trained_run, runs / "broken")
    (runs / "broken" / "config.json").write_text("{")
    (runs / "empty").mkdir()
    return runs


def test_models_are_listed_newest_first_without_broken_ones(runs):
    assert list(ModelRegistry([runs]).folders()) == ["newer", "older"]


def test_a_model_added_later_is_listed(runs, trained_run):
    registry = ModelRegistry([runs])
    registry.folders()
    shutil.copytree(trained_run, runs / "latest")
    assert "latest" in registry.folders()


def test_models_with_the_same_name_in_two_folders_are_both_listed(runs, tmp_path, trained_run):
    shutil.copytree(trained_run, tmp_path / "old" / "newer")
    found = ModelRegistry([runs, tmp_path / "old"]).folders()
    assert found["newer"] == runs / "newer"
    assert found[str(tmp_path / "old" / "newer")] == tmp_path / "old" / "newer"


def test_a_root_that_is_a_model_is_listed_itself(runs):
    assert ModelRegistry([runs / "older"]).folders() == {"older": runs / "older"}


def test_models_trained_into_a_root_that_is_a_model_are_listed(runs, trained_run):
    shutil.copytree(trained_run, runs / "older" / "finer")
    registry = ModelRegistry([runs / "older"])
    assert registry.folders() == {"older": runs / "older", "finer": runs / "older" / "finer"}
    assert registry.is_editable("finer") and not registry.is_editable("older")


def test_the_shipped_model_is_listed_last(runs, monkeypatch, trained_run):
    monkeypatch.setattr(model_folder, "PRETRAINED", trained_run)
    assert list(ModelRegistry([runs]).folders()) == ["newer", "older", SHIPPED]
    own = shutil.copytree(trained_run, runs / SHIPPED)  # a run of the same name does not hide it, or get lost
    folders = ModelRegistry([runs]).folders()
    assert (folders[SHIPPED], folders[str(own)]) == (trained_run, own)


@pytest.mark.parametrize("name", ["../runs/newer", "/etc", "someone/model", "broken", "empty", "NEWER"])
def test_only_listed_models_are_loaded(runs, name):
    with pytest.raises(UserError, match="no model"):
        ModelRegistry([runs]).load(name)


def test_without_any_model_the_message_says_how_to_train_one(tmp_path, runs):
    with pytest.raises(UserError, match=r"no model yet: train one with `.*lm train`"):
        ModelRegistry([tmp_path / "absent"]).load(None)


def test_a_model_is_loaded_once_until_it_is_trained_further(runs):
    registry = ModelRegistry([runs])
    first = registry.load("newer")
    assert registry.load("newer") is first
    os.utime(runs / "newer" / "model.safetensors")
    assert registry.load("newer") is not first


def test_other_weights_of_the_same_size_and_time_are_loaded(runs):
    registry, weights = ModelRegistry([runs]), runs / "newer" / "model.safetensors"
    first, fingerprint = registry.load("newer"), registry.fingerprint("newer")
    time.sleep(0.02)  # the resolution of the time at which a file has changed
    weights.write_bytes(weights.read_bytes())
    os.utime(weights, (1e9, 1e9))
    assert registry.load("newer") is not first and registry.fingerprint("newer") != fingerprint


def test_a_model_that_loads_slowly_does_not_keep_the_others_waiting(runs, monkeypatch):
    registry, started, go_on = ModelRegistry([runs]), threading.Event(), threading.Event()
    load = lm.load

    def load_slowly(folder):
        if folder.name == "older":
            started.set()
            assert go_on.wait(60)
        return load(folder)

    monkeypatch.setattr(lm, "load", load_slowly)
    with ThreadPoolExecutor(3) as pool:
        slow = [pool.submit(registry.load, "older") for _ in range(2)]
        assert started.wait(60)
        assert pool.submit(registry.load, "newer").result(60).generate("The ", max_new_tokens=1)
        assert registry.fingerprint("older") and list(registry.folders()) == ["newer", "older"]
        go_on.set()
        assert slow[0].result(60) is slow[1].result(60)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/passwd", path)])
def test_a_folder_that_cannot_be_read_is_skipped(runs, name, make):
    (runs / "older" / name).unlink()
    make(runs / "older" / name)
    assert list(ModelRegistry([runs]).folders()) == ["newer"]


def test_what_is_wrong_with_a_skipped_folder_is_logged_in_one_line(runs, caplog):
    (runs / "older" / "config.json").write_text("[" * 200_000)
    (runs / "a\nb\x1b[31m").mkdir()
    for file in ("config.json", "model.safetensors"):
        (runs / "a\nb\x1b[31m" / file).write_text("1")
    os.rename(runs / "newer", os.fsencode(runs) + b"/\xff")
    assert list(ModelRegistry([runs]).folders()) == []
    found = "\n".join(caplog.messages)
    assert "older/config.json is damaged: it is nested too deeply" in found
    assert "b\ufffd[31m/config.json is damaged: it does not contain a JSON object" in found
    assert "\ufffd: its name is not UTF-8" in found
    assert all(message.isprintable() for message in caplog.messages)


def test_truncated_weights_are_a_one_line_error(runs):
    weights = runs / "older" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match="truncated") as caught:
        ModelRegistry([runs]).load("older")
    assert "\n" not in str(caught.value)


def contents(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*"))


def rename(registry, name, new, **options):
    return registry.rename(name, new, registry.fingerprint(name), **options)


def delete(registry, name, **options):
    registry.delete(name, registry.fingerprint(name), **options)


def test_renaming_moves_the_whole_folder(runs):
    registry = ModelRegistry([runs])
    before, loaded = contents(runs / "older"), registry.load("older")
    assert rename(registry, "older", "  the sea, 海 2 ") == "the sea, 海 2"
    assert list(registry.folders()) == ["newer", "the sea, 海 2"]
    assert contents(runs / "the sea, 海 2") == before and not (runs / "older").exists()
    assert registry.load("the sea, 海 2").generate("The ", seed=1) == loaded.generate("The ", seed=1)
    with pytest.raises(UserError, match="no model"):
        registry.load("older")


def test_the_card_gets_the_new_name(runs, trained_run):
    card = (trained_run / "README.md").read_text()
    assert "# boat\n" in card and 'lm.load("boat")' in card
    shutil.move(runs / "older", runs / "boat")
    rename(ModelRegistry([runs]), "boat", "ship")
    new = (runs / "ship" / "README.md").read_text()
    for old in ("# boat", 'load("boat")', "- name: boat"):
        card = card.replace(old, old.replace("boat", "ship"))
    assert new == card


@pytest.mark.parametrize(
    "new",
    [
        *("", "  ", None, ".", "..", ".hidden", "../up", "a/b", "/tmp/x", "a\\b", "C:x", "a\nb", "a\x00b"),
        *("-rf", "end.", "x" * 81, "海" * 81, "a\u202eb", SHIPPED, "newer", "empty", "a file"),
    ],
)
def test_invalid_names_are_rejected_and_change_nothing(runs, new):
    registry = ModelRegistry([runs])
    (runs / "a file").touch()
    before = contents(runs.parent)
    with pytest.raises(UserError) as caught:
        rename(registry, "older", new)
    assert "\n" not in str(caught.value)
    assert contents(runs.parent) == before


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        ("a/b", "contains '/': use letters"),
        ("-x", "begins with '-': begin it with a letter or a digit"),
        (".hid", "begins with '.'"),
        ("end.", "ends with '.'"),
        ("con", "'con' is reserved: choose another"),
        (SHIPPED, f"'{SHIPPED}' is reserved"),
        ("海" * 80, "is too long"),
    ],
)
def test_the_message_says_why_a_name_is_invalid(runs, new, reason):
    with pytest.raises(UserError, match=re.escape(reason)):
        rename(ModelRegistry([runs]), "older", new)


def test_a_name_used_in_another_folder_is_taken(runs, tmp_path, trained_run):
    shutil.copytree(trained_run, tmp_path / "old" / "ship")
    with pytest.raises(UserError, match="already"):
        rename(ModelRegistry([runs, tmp_path / "old"]), "older", "ship")


def test_deleting_removes_the_whole_folder(runs):
    registry = ModelRegistry([runs])
    kept = contents(runs / "newer")
    writing = registry.load("older")
    delete(registry, "older")
    assert sorted(p.name for p in runs.iterdir()) == ["broken", "empty", "newer"]
    assert contents(runs / "newer") == kept and list(registry.folders()) == ["newer"]
    assert writing.generate("The ")  # requests in progress continue
    with pytest.raises(UserError, match="no model"):
        registry.load("older")


def test_a_model_disappears_from_the_list_before_its_files_are_deleted(runs, monkeypatch):
    registry, seen = ModelRegistry([runs]), []
    monkeypatch.setattr(
        shutil, "rmtree", lambda path, **options: seen.append((path, list(registry.folders())))
    )
    delete(registry, "older")
    ((hidden, found),) = seen
    assert found == ["newer"] and (hidden / "model" / "config.json").is_file()
    monkeypatch.undo()
    # If the process is killed here, the next deletion cleans up, but leaves recent deletions alone.
    recent = runs / f"{hidden.name}-recent"
    recent.mkdir()
    os.utime(hidden, (time.time() - 7200,) * 2)
    delete(registry, "newer")
    assert not hidden.exists() and recent.exists()


def test_deleting_a_symbolic_link_leaves_its_target(runs, tmp_path, trained_run):
    elsewhere = shutil.copytree(trained_run, tmp_path / "elsewhere")
    (runs / "link").symlink_to(elsewhere)
    before = contents(elsewhere)
    delete(ModelRegistry([runs]), "link")
    assert not (runs / "link").is_symlink() and contents(elsewhere) == before


@pytest.mark.parametrize("change", [lambda registry, name: rename(registry, name, "new"), delete])
def test_models_outside_the_roots_cannot_be_changed(runs, tmp_path, trained_run, monkeypatch, change):
    monkeypatch.setattr(model_folder, "PRETRAINED", shutil.copytree(trained_run, tmp_path / "shipped"))
    registry = ModelRegistry([runs / "older", tmp_path / "other"])
    before = contents(tmp_path)
    for name in ("older", SHIPPED):
        assert not registry.is_editable(name)
        with pytest.raises(UserError, match="cannot be changed"):
            change(registry, name)
    assert contents(tmp_path) == before
    registry = ModelRegistry([runs])
    assert registry.is_editable("older") and not registry.is_editable("../runs/older")


@pytest.mark.parametrize("name", ["../runs/newer", "/etc", "broken", "empty", "", None])
def test_only_listed_models_are_changed(runs, name):
    registry, before = ModelRegistry([runs]), contents(runs)
    for change in (lambda: registry.rename(name, "new", ""), lambda: registry.delete(name, "")):
        with pytest.raises(UserError):
            change()
    assert contents(runs) == before


def test_a_model_in_training_cannot_be_changed(runs):
    registry, before = ModelRegistry([runs]), contents(runs)
    checked = []

    def is_busy(folder):
        checked.append(folder)
        return True

    for change in (
        lambda: rename(registry, "older", "new", is_busy=is_busy),
        lambda: delete(registry, "older", is_busy=is_busy),
    ):
        with pytest.raises(UserError, match="being trained"):
            change()
    assert checked == [runs / "older"] * 2 and contents(runs) == before


def test_a_model_replaced_in_the_meantime_cannot_be_changed(runs):
    registry = ModelRegistry([runs])
    seen = registry.fingerprint("older")
    shutil.rmtree(runs / "older")
    shutil.move(runs / "newer", runs / "older")  # by another server
    for change in (lambda: registry.delete("older", seen), lambda: registry.rename("older", "new", seen)):
        with pytest.raises(UserError, match="changed in the meantime"):
            change()
    assert registry.folders() == {"older": runs / "older"}
    seen = registry.fingerprint("older")
    os.utime(runs / "older" / "model.safetensors")  # trained further
    with pytest.raises(UserError, match="changed in the meantime"):
        registry.delete("older", seen)


def test_of_two_simultaneous_renames_one_fails(runs):
    def rename_at(start, server, *arguments):
        start.wait()
        return server.rename(*arguments)

    for attempt in range(20):
        servers = ModelRegistry([runs]), ModelRegistry([runs])  # with a lock each
        name = next(iter(servers[0].folders()))
        fingerprint, start = servers[0].fingerprint(name), threading.Barrier(2)
        with ThreadPoolExecutor(2) as pool:
            futures = [
                pool.submit(rename_at, start, server, name, f"{n}-{attempt}", fingerprint)
                for n, server in enumerate(servers)
            ]
        failed, succeeded = sorted(futures, key=lambda future: future.exception() is None)
        folders = ModelRegistry([runs]).folders()
        assert succeeded.result() in folders and len(folders) == 2
        with pytest.raises(UserError, match=r"no longer exists|no model"):
            failed.result()


@pytest.mark.parametrize(
    "change", [lambda registry, name, **busy: rename(registry, name, "new", **busy), delete]
)
def test_a_model_deleted_at_the_last_moment_is_a_one_line_error(runs, change):
    with pytest.raises(UserError, match="'older' no longer exists"):
        change(ModelRegistry([runs]), "older", is_busy=shutil.rmtree)
    assert sorted(path.name for path in runs.iterdir()) == ["broken", "empty", "newer"]


def test_renamed_and_deleted_models_are_freed(runs):
    registry = ModelRegistry([runs])
    loaded = [weakref.ref(registry.load(name)) for name in ("older", "newer")]
    rename(registry, "older", "new")
    delete(registry, "newer")
    gc.collect()
    assert [model() for model in loaded] == [None, None]


def test_a_read_only_folder_is_a_one_line_error(runs, monkeypatch):
    registry, before = ModelRegistry([runs]), contents(runs)

    def fail(*paths):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "rename", fail)
    for change in (lambda: rename(registry, "older", "new"), lambda: delete(registry, "older")):
        with pytest.raises(UserError, match=r"cannot change 'older': Permission denied\."):
            change()
    assert contents(runs) == before
