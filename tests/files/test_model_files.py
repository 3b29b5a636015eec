"""Files of a model are opened only if they are regular, small enough and inside the folder."""

import json
import os
import shutil

import pytest

from lm.errors import ModelError
from lm.files.model_files import (
    MAX_JSON,
    is_readable,
    open_file,
    parse_json,
    read_bytes,
    read_json,
    version_of,
)


@pytest.fixture
def folder(tmp_path):
    """A model folder with a file `a` and a file next to it."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a").write_text("content")
    return tmp_path / "model"


def test_a_regular_file_is_read(folder):
    assert read_bytes(folder / "a", folder, 7) == b"content"


def test_links_inside_the_folder_are_followed(folder):
    (folder / "training").mkdir()
    (folder / "training" / "b").symlink_to("../a")
    assert read_bytes(folder / "training" / "b", folder, 100) == b"content"


def test_a_folder_can_be_a_link_itself(folder):
    folder.with_name("link").symlink_to(folder)
    assert read_bytes(folder.with_name("link") / "a", folder.with_name("link"), 100) == b"content"


@pytest.mark.parametrize(
    "target", ["../secret", "/etc/passwd", "/dev/zero", "/proc/self/environ", "/nowhere"]
)
def test_links_that_leave_the_folder_are_not_followed(folder, target):
    (folder / "b").symlink_to(target)
    with pytest.raises(ModelError, match="b is a link that leaves its folder: replace it with the file"):
        open_file(folder / "b", folder)
    assert not is_readable(folder / "b", folder)


def test_a_linked_subfolder_is_not_followed(folder):
    (folder / "training").symlink_to("..")
    with pytest.raises(ModelError, match="leaves its folder"):
        open_file(folder / "training" / "secret", folder)


def test_a_folder_with_the_beginning_of_its_name_is_another_folder(folder):
    other = folder.with_name("model-2")
    other.mkdir()
    (other / "a").write_text("other")
    (folder / "b").symlink_to(other / "a")
    with pytest.raises(ModelError, match="leaves its folder"):
        open_file(folder / "b", folder)


def in_cache(root, name="models--me--hamlet"):
    """The snapshot of a model in the cache of the Hub, with a blob."""
    snapshot = root / name / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (root / name / "blobs").mkdir()
    (root / name / "blobs" / "89ab").write_text("{}")
    return snapshot


def test_links_of_the_hub_cache_are_followed(tmp_path):
    snapshot = in_cache(tmp_path)
    (snapshot / "config.json").symlink_to("../../blobs/89ab")
    assert read_json(snapshot / "config.json", snapshot) == {}


@pytest.mark.parametrize("target", ["../../secret", "../../../secret", "../../blobs/../secret", "../89ab"])
def test_other_links_in_the_hub_cache_are_not_followed(tmp_path, target):
    snapshot = in_cache(tmp_path)
    for path in (tmp_path, snapshot.parents[1]):
        (path / "secret").write_text("secret")
    (snapshot / "config.json").symlink_to(target)
    with pytest.raises(ModelError, match="leaves its folder"):
        open_file(snapshot / "config.json", snapshot)


def test_blobs_that_are_a_link_themselves_are_not_followed(tmp_path):
    snapshot = in_cache(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "passwd").write_text("secret")
    blobs = snapshot.parents[1] / "blobs"
    blobs.rename(snapshot.parents[1] / "old")
    blobs.symlink_to(tmp_path / "elsewhere")
    (snapshot / "README.md").symlink_to("../../blobs/passwd")
    with pytest.raises(ModelError, match="leaves its folder"):
        open_file(snapshot / "README.md", snapshot)


def test_only_a_hub_cache_has_blobs(tmp_path):
    snapshot = in_cache(tmp_path, "runs")
    (snapshot / "config.json").symlink_to("../../blobs/89ab")
    with pytest.raises(ModelError, match="leaves its folder"):
        open_file(snapshot / "config.json", snapshot)


def test_a_pipe_is_not_waited_for(folder):
    os.mkfifo(folder / "b")
    with pytest.raises(ModelError, match=r"b is not a regular file: replace it with one\."):
        open_file(folder / "b", folder)


def test_a_folder_is_no_file(folder):
    with pytest.raises(ModelError, match="not a regular file"):
        open_file(folder / "..", folder.parent.parent)


def test_large_files_are_rejected_unread(folder):
    with pytest.raises(ModelError, match=r"a has 7 bytes; the limit is 6\."):
        open_file(folder / "a", folder, 6)
    os.truncate(folder / "a", 1 << 40)
    with pytest.raises(ModelError, match=f"the limit is {MAX_JSON:,}"):
        read_json(folder / "a", folder)


def test_missing_files_are_named(folder):
    with pytest.raises(ModelError, match="model is incomplete: b is missing"):
        open_file(folder / "b", folder)
    with pytest.raises(ModelError, match=r"is not a model folder: it has no config\.json"):
        read_json(folder / "config.json", folder)


@pytest.mark.parametrize(
    "value", [{"a": [1, -1.5, None, True, "é 海 \x1b", {}]}, 2**63 - 1, -(2**63) + 1, [[[]]], float("inf")]
)
def test_json_is_read_as_it_was_written(value):
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 200_000, "nested too deeply"),
        ('{"a":' * 200_000, "nested too deeply"),
        ("[" * 40 + "]" * 40, "nested too deeply"),
        ("1" + "0" * 400, "the number 1000.*is out of range"),
        ("-9223372036854775808", "out of range"),
        ("9" * 10_000, "out of range"),
        (r'{"a": "\ud800"}', "surrogate"),
        (r'{"\udc00": 1}', "surrogate"),
        ("{", "Expecting"),
    ],
)
def test_json_that_nobody_needs_is_rejected(text, message):
    with pytest.raises(ValueError, match=message):
        parse_json(text.encode())


@pytest.mark.parametrize("bits", [64, 129])
def test_numbers_may_have_as_many_bits_as_allowed(bits):
    for number in (2 ** (bits - 1) - 1, 1 - 2 ** (bits - 1)):
        assert parse_json(str(number).encode(), bits) == number
        with pytest.raises(ValueError, match="out of range"):
            parse_json(str(2 * number).encode(), bits)


def test_depth_within_the_limit_is_fine():
    assert parse_json(b"[" * 30 + b"]" * 30)


def test_a_file_replaced_by_one_of_the_same_size_and_time_has_another_version(folder):
    before = version_of(folder / "a")
    assert version_of(folder / "a") == before
    shutil.copy2(folder / "a", folder / "b")
    os.replace(folder / "b", folder / "a")
    assert version_of(folder / "a") != before
