"""Links and globs: a link out of a folder is not followed, and what cannot be found or read is never skipped
silently."""

import glob
import os
import re
import tempfile
from pathlib import Path

import pytest

from lm.config.schema import DataConfig, ModelConfig
from lm.console.progress import no_progress
from lm.data.corpus import open_corpus
from lm.data.eval_text import read_whole
from lm.data.find_source import find_sources
from lm.data.listing import files_matching
from lm.data.report import rows, warnings
from lm.errors import DataError
from tests.data.conftest import found, read


@pytest.fixture
def elsewhere(tmp_path):
    (tmp_path / "elsewhere/deep").mkdir(parents=True)
    (tmp_path / "elsewhere/deep/a.txt").write_text("a secret")
    (tmp_path / "folder/sub").mkdir(parents=True)
    return tmp_path / "elsewhere"


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("link", "../elsewhere"),
        ("sub/link", "../../elsewhere/deep"),
        ("link.txt", "../elsewhere/deep/a.txt"),
        ("sub/link.txt", "/etc/passwd"),
        ("up", ".."),
        ("link", "/proc/self"),
        ("link.txt", ".chain"),
        ("sibling.txt", "../folder-2/a.txt"),
    ],
)
def test_a_link_out_of_a_folder_is_skipped_and_counted(tmp_path, elsewhere, link, target):
    folder = tmp_path / "folder"
    (tmp_path / "folder-2").mkdir()
    (tmp_path / "folder-2" / "a.txt").write_text("a secret")
    (folder / ".hidden").symlink_to(elsewhere)
    (folder / ".chain").symlink_to(elsewhere / "deep" / "a.txt")
    (folder / link).symlink_to(target)
    with pytest.raises(DataError, match=r"no text: skipped 1 outside file .*to read an outside file, pass"):
        read(folder)
    (folder / "good.txt").write_text("good")
    assert read(folder) == ["good"]
    name = os.path.basename(link)
    assert found(folder).listing.row() == f"1 for training (good.txt); skipped 1 outside file ({name})"


def test_folders_behind_given_links_and_globs_are_read(tmp_path, elsewhere):
    (tmp_path / "folder/link").symlink_to(elsewhere)
    (tmp_path / "folder/link.txt").symlink_to(elsewhere / "deep" / "a.txt")
    (tmp_path / "folder/within").symlink_to("sub")
    (tmp_path / "folder/sub/b.txt").write_text("b")
    assert read(tmp_path / "folder") == ["b"]
    assert read(tmp_path / "folder/link") == ["a secret"]
    assert read(tmp_path / "folder/link.txt") == ["a secret"]
    assert read(f"{tmp_path}/folder/*.txt") == ["a secret"]
    assert read(f"{tmp_path}/elsewhere/**/*.txt") == ["a secret"]


def test_links_of_the_hub_cache_are_read(tmp_path):
    repository = tmp_path / "datasets--me--books"
    snapshot = repository / "snapshots" / "0123"
    (snapshot / "data").mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs" / "89ab").write_text("a text")
    (snapshot / "data" / "a.txt").symlink_to("../../../blobs/89ab")
    (snapshot / "data" / "b.txt").symlink_to("/etc/passwd")
    assert read(snapshot) == read(snapshot / "data") == ["a text"]


def test_linked_files_are_read_once_and_loops_end(tmp_path):
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("one")
    (folder / "deep" / "b.txt").write_text("two")
    os.link(folder / "a.txt", folder / "hard.txt")
    os.symlink(folder / "a.txt", folder / "soft.txt")
    os.symlink(folder, folder / "deep" / "loop")
    os.symlink(folder / "deep", folder / "again")
    os.symlink(tmp_path / "nowhere", folder / "broken.txt")
    assert sorted(read(folder)) == ["one", "two"]
    assert "2 repeated files (hard.txt, soft.txt)" in found(folder).listing.row()


@pytest.mark.parametrize("pattern", ["**", "**/*.txt", "a/**/b.txt", "*/**", "**/a/**/*.txt", "[ab]/**/b.*"])
@pytest.mark.parametrize("absolute", [False, True])
def test_globs_match_what_python_matches(tmp_path, monkeypatch, pattern, absolute):
    monkeypatch.chdir(tmp_path)
    for name in ("b.txt", "a/b.txt", "a/a/b.txt", "a/.b.txt", "b/c[1]/b.txt", "b/.d/b.txt", "b/b.md"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("text")
    pattern = str(tmp_path / pattern) if absolute else pattern
    expected = sorted(set(filter(os.path.isfile, glob.glob(pattern, recursive=True))))
    assert files_matching(pattern)[0] == expected
    assert expected


def test_a_glob_over_links_that_lead_back_ends(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    for name in "xyz":  # Python's own glob would follow 3^40 paths
        (tmp_path / name).symlink_to(tmp_path)
    assert read(tmp_path / "**" / "*.txt") == ["one"]


@pytest.mark.parametrize("dataset", ["a", "a/secret", "a/**/*.txt"])
def test_a_folder_that_cannot_be_read_is_an_error(dataset):
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is for its user only
        secret = Path(folder) / "a" / "secret"
        secret.mkdir(parents=True)
        (secret / "y.txt").write_text("hidden")
        (Path(folder) / "a" / "x.txt").write_text("one")
        secret.chmod(0)
        os.chmod(folder, 0o755)
        user = os.geteuid()
        try:
            if user == 0:  # root may read everything
                os.seteuid(65534)
            with pytest.raises(DataError, match=r"the folder .*secret cannot be read: Permission denied"):
                find_sources(DataConfig(dataset=str(Path(folder) / dataset)))
        finally:
            os.seteuid(user)
            secret.chmod(0o755)


@pytest.fixture
def annexed(tmp_path):
    folder = tmp_path / "annexed"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").symlink_to(".git/annex/objects/a")
    (folder / "sub" / "b.txt").symlink_to("/gone/b")
    (folder / "loop.txt").symlink_to("loop.txt")
    (folder / ".hidden").symlink_to("/gone/c")
    return folder


def test_links_to_missing_files_are_counted_with_a_warning(annexed, tmp_path, monkeypatch):
    monkeypatch.setenv("LM_CACHE", str(tmp_path / "cache"))
    (annexed / "here.txt").write_text("a text")
    skipped = "3 missing files (a.txt, loop.txt, b.txt)"
    for dataset in (str(annexed), f"{annexed}/**/*.txt"):
        assert found(dataset).listing.row() == f"1 for training (here.txt); skipped {skipped}"
        corpus = open_corpus(DataConfig(dataset=dataset))
        assert rows(corpus)["Files"].endswith(skipped)
        assert warnings(corpus, 1, ModelConfig())[0].startswith("skipped 3 links to missing files (a.txt, l")
        text = read_whole(DataConfig(dataset=dataset), None, no_progress)
        assert text.warnings[0].startswith("skipped 3 links to missing files (a.txt, loop.txt, b.txt): fetch")
    (annexed / "loop.txt").unlink()
    (annexed / "a.txt").unlink()
    (annexed / "sub" / "b.txt").unlink()
    assert not any(
        "missing" in w for w in warnings(open_corpus(DataConfig(dataset=dataset)), 1, ModelConfig())
    )


@pytest.mark.parametrize("names", ["", "/*", "/*.txt"])
def test_nothing_but_links_to_missing_files_is_an_error(annexed, names):
    with pytest.raises(DataError, match=r"no text: skipped [23] missing files \(.*; fetch the files"):
        read(f"{annexed}{names}")


@pytest.mark.parametrize("name", ["a.txt", "loop.txt", "sub/b.txt", "c.csv", "d", "e[1].txt"])
def test_a_link_to_a_missing_file_says_so(annexed, monkeypatch, name):
    if not os.path.islink(annexed / name):
        (annexed / name).symlink_to("nowhere")
    target = re.escape(os.readlink(annexed / name))
    monkeypatch.chdir(annexed)
    with pytest.raises(DataError, match=rf"^the link {re.escape(name)} leads to a missing file, {target}: "):
        read(name)
