"""Folders of `save_to_disk`, and folders whose README.md declares configurations."""

import json
import os

import datasets
import pytest

from lm.errors import DataError, UserError
from tests.conftest import some_text
from tests.data.conftest import found, read

pytestmark = pytest.mark.usefixtures("empty_cache")
LINES = some_text(6000).splitlines()[:30]


def table(lines):
    return datasets.Dataset.from_dict({"id": range(len(lines)), "body": lines})


def test_saved_dataset_is_read(tmp_path):
    table(LINES).save_to_disk(tmp_path / "saved", num_shards=3)
    (tmp_path / "saved" / "cache-0123456789abcdef.arrow").write_bytes(b"not of the dataset")
    source = found(tmp_path / "saved")
    assert (source.kind, list(source.files)) == ("arrow", ["train"])
    assert read(tmp_path / "saved") == LINES
    assert read(tmp_path / "saved", text_column="id") == [str(i) for i in range(len(LINES))]


def test_saved_splits_are_read_under_their_names(tmp_path):
    parts = {"train": LINES[:20], "en": LINES[20:25], "test": LINES[25:]}
    datasets.DatasetDict({name: table(lines) for name, lines in parts.items()}).save_to_disk(
        tmp_path / "saved"
    )
    assert list(found(tmp_path / "saved").files) == list(parts)
    for name, lines in parts.items():
        assert read(tmp_path / "saved", train_split=name) == lines


def test_caches_of_a_saved_dataset_are_not_read_with_the_folder_around_it(tmp_path):
    table(LINES).save_to_disk(tmp_path / "data" / "saved")
    saved = datasets.load_from_disk(str(tmp_path / "data" / "saved"))
    saved.map(lambda row: {"body": row["body"].upper()})
    assert any((tmp_path / "data" / "saved").glob("cache-*.arrow"))
    source = found(tmp_path / "data")
    assert read(tmp_path / "data") == LINES
    assert "skipped 1 cache file (cache-" in source.listing.row()


@pytest.mark.parametrize("name", ["../data.arrow", "missing.arrow", None, "state.json/.."])
def test_saved_dataset_with_other_files_is_an_error(tmp_path, name):
    table(LINES).save_to_disk(tmp_path / "saved")
    os.rename(tmp_path / "saved" / "data-00000-of-00001.arrow", tmp_path / "data.arrow")
    (tmp_path / "saved" / "other.arrow").touch()
    (tmp_path / "saved" / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(DataError, match=r"is not a whole dataset .*: it has no file .*; save it again"):
        found(tmp_path / "saved")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"splits": 1}', '{"splits": [1]}', '{"splits": ["a"]}'])
def test_damaged_list_of_splits_is_an_error(tmp_path, content):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_dict.json").write_text(content)
    with pytest.raises(DataError, match=r"is not a whole dataset .*; save it again"):
        found(tmp_path / "saved")


@pytest.fixture
def languages(tmp_path):
    """A folder with two configurations, one of them with a test split."""
    folder = tmp_path / "languages"
    folder.mkdir()
    for name, word in (("en", "word"), ("fr", "mot"), ("fr_more", "autre mot"), ("left", "not read")):
        (folder / f"{name}.csv").write_text("id;text\n" + "".join(f"{i};{word} {i}\n" for i in range(3)))
    configs = """configs:
- config_name: en
  sep: ';'
  data_files: en.csv
- config_name: fr
  sep: ';'
  data_files:
  - split: train
    path: fr.csv
  - split: test
    path: fr_more.csv
"""
    (folder / "README.md").write_text(f"---\nlicense: mit\n{configs}---\n# About it\n")
    return folder


def test_configurations_of_a_readme_are_read_as_on_the_hub(languages):
    assert read(languages, dataset_config="en") == ["word 0", "word 1", "word 2"]
    assert read(languages, dataset_config="fr") == ["mot 0", "mot 1", "mot 2"]
    source = found(languages, dataset_config="fr")
    assert {split: list(map(os.path.basename, files)) for split, files in source.files.items()} == {
        "train": ["fr.csv"],
        "test": ["fr_more.csv"],
    }
    assert source.options["sep"] == ";"
    assert read(languages, dataset_config="fr", train_split="test") == [f"autre mot {i}" for i in range(3)]
    assert found(languages, dataset_config="en").identity != source.identity


def test_options_that_are_not_followed_are_named(languages):
    assert found(languages, dataset_config="fr").warnings == ()
    readme = languages / "README.md"
    readme.write_text(readme.read_text().replace("sep: ';'", "sep: ';'\n  skiprows: 1\n  header: null"))
    source = found(languages, dataset_config="fr")
    assert source.warnings == ("lm ignores header, skiprows in the README.md of languages.",)


def test_the_encoding_in_a_readme_is_used_for_text_files_too(tmp_path):
    (tmp_path / "a.txt").write_bytes("déjà vu".encode("cp1252"))
    declared = "- config_name: x\n  data_files: a.txt\n  encoding: cp1252\n  sample_by: paragraph\n"
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{declared}---\n")
    assert read(tmp_path) == ["déjà vu"]
    assert found(tmp_path).warnings == (f"lm ignores sample_by in the README.md of {tmp_path.name}.",)


def test_the_options_of_a_configuration_are_part_of_the_identity(languages):
    readme = languages / "README.md"
    before = found(languages, dataset_config="fr")
    readme.write_text(readme.read_text().replace("sep: ';'", "sep: ','"))
    after = found(languages, dataset_config="fr")
    assert after.files == before.files and after.identity != before.identity


def test_each_configuration_is_read_as_the_names_of_its_files_say(tmp_path):
    (tmp_path / "fr.csv").write_text("id;text\n1;un mot\n2;autre mot\n")
    (tmp_path / "en.jsonl").write_text("".join(f'{{"id": {i}, "text": "word {i}"}}\n' for i in range(3)))
    (tmp_path / "de.txt").write_text("ein Wort, noch eins\n")
    configs = (("fr", "fr.csv\n  sep: ';'"), ("en", "en.jsonl"), ("de", "de.txt"))
    declared = "".join(f"- config_name: {name}\n  data_files: {files}\n" for name, files in configs)
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{declared}---\n")
    assert read(tmp_path, dataset_config="fr") == ["un mot", "autre mot"]
    assert read(tmp_path, dataset_config="en") == ["word 0", "word 1", "word 2"]
    assert read(tmp_path, dataset_config="de") == ["ein Wort, noch eins\n"]


def test_configuration_with_files_of_several_kinds_is_an_error(languages):
    (languages / "en.jsonl").write_text('{"text": "word"}\n')
    readme = languages / "README.md"
    readme.write_text(readme.read_text().replace("data_files: en.csv", "data_files: 'en.*'"))
    with pytest.raises(DataError, match=r"languages contains files of several kinds \(csv, json\)"):
        found(languages, dataset_config="en")


@pytest.mark.parametrize(
    ("name", "problem"), [(None, "several configurations"), ("x", "no configuration 'x'")]
)
def test_configurations_to_choose_from_are_listed(languages, name, problem):
    with pytest.raises(
        DataError, match=rf"languages has {problem}.*; choose one with --dataset-config: en, fr\.$"
    ):
        found(languages, dataset_config=name)


@pytest.mark.parametrize("readme", ["# A\nconfigs: none", "---\na: b\n---\nconfigs:\n- a", "---\n"])
def test_other_readme_changes_nothing(languages, readme):
    (languages / "README.md").write_text(readme)
    assert len(found(languages).files["train"]) == 4
    with pytest.raises(UserError, match=r"--dataset-config applies only to .* for languages\.$"):
        found(languages, dataset_config="en")


def test_files_outside_of_the_folder_are_not_read(languages, tmp_path):
    (tmp_path / "secret.csv").write_text("text\na secret\n")
    for path in ("../secret.csv", str(tmp_path / "secret.csv")):
        (languages / "README.md").write_text(f"---\nconfigs:\n- config_name: a\n  data_files: {path}\n---\n")
        with pytest.raises(DataError, match=r"README\.md of .* names a file outside of the folder"):
            found(languages)
