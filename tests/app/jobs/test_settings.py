"""What a browser may train: every setting within its limits, and never a file of this machine."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from app.jobs.settings import RANGES, SETTINGS, check_dataset, check_settings, with_dataset_path
from app.jobs.uploads import Uploads
from lm.config.schema import RunConfig
from lm.errors import UserError
from lm.tokenization.vocabulary import KINDS
from tests.conftest import some_text

ABSOLUTE = ["/etc/passwd", "~/.ssh/id_rsa", "file:///etc/passwd", "/proc/self/environ", "zip://x::/etc/a.zip"]
RELATIVE = ["../../etc/passwd", "a/..", "../b", "./b", "a//b", "a/b/c", "a\\b", "python/..", "etc/hosts.json"]
HIDDEN = [".git/config", "a/.b", "-a/b", "a/b.txt", "a/b.txt.gz"]
UPLOADS = ["text:../../../etc/passwd", "text:/etc/passwd", "text:"]
OTHERS = [
    "-",
    "*",
    "[a]/b",
    "a/b c",
    "a/b\nc",
    "a/b\0",
    "Ａ/ｂ",
    "hf://datasets/a/b",
    "https://example.org/a",
]
FORBIDDEN = [*ABSOLUTE, *RELATIVE, *HIDDEN, *UPLOADS, *OTHERS]


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    return Uploads(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def text(uploads, upload):
    return upload(uploads, some_text(2000))


@pytest.mark.parametrize("dataset", FORBIDDEN)
def test_paths_are_rejected(uploads, dataset):
    with pytest.raises(UserError) as caught:
        check_settings({"dataset": dataset}, uploads)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@given(
    st.one_of(
        st.text(max_size=40),
        st.text(alphabet="ab/.-_~:*\\ \0", max_size=12),
        st.sampled_from(FORBIDDEN).flatmap(lambda name: st.text(max_size=3).map(lambda end: name + end)),
        st.sampled_from(
            [str(path) for path in Path(__file__).parents] + [__file__, os.path.relpath(__file__)]
        ),
        st.sampled_from(
            [None, 5, 1.5, True, [], ["/etc/passwd"], ["a/b", "c/d"], {"path": "/etc/passwd"}, b"a"]
        ),
    )
)
@example("tests/conftest.py")
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_dataset_becomes_a_path(uploads, text, dataset):
    try:
        flat = with_dataset_path(check_settings({"dataset": dataset}, uploads), uploads)
    except UserError as error:
        assert "\n" not in str(error)
        return
    (checked,) = flat["dataset"]
    # It is the default, or an id that could only be a file in a folder that contains folders.
    owner, _, name = checked.partition("/")
    assert checked == "python" or (owner and name and "/" not in name)
    assert ".." not in checked and checked.isascii()
    assert not checked.startswith((".", "-", "~", "/")) and not set(checked) & set("*?[]\\:\0\n ")


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.text("\n\r5m\0", max_size=5),
    st.lists(st.integers(), max_size=2),
    st.sampled_from(["auto", "lstm", "1e400", "nan", "10m", "1" * 5000, 10**5000, -1e300]),
)


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from(list(SETTINGS)), VALUES, max_size=4))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_settings_are_valid_or_rejected(uploads, text, values):
    try:
        flat = check_settings({**values, "dataset": text.dataset}, uploads)
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert RunConfig.from_flat(with_dataset_path(flat, uploads)).data.dataset == (str(text.path),)
    assert flat["out"] is flat["init_from"] is None and flat["track"] == "none"
    assert flat["tokenizer"] in KINDS
    for name, (least, most) in RANGES.items():
        assert not isinstance(flat[name], (int, float)) or least <= flat[name] <= most or name not in values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layers": 5}, r"--layers must be in \[1, 4\], got 5"),
        ({"layers": 1.5}, "must be an integer"),
        ({"layers": "1\n2"}, "must be an integer, got '1 2'"),
        ({"max_time": "a\nwhile"}, "--max-time must be a duration such as 90s, 10m or 2h, got 'a while'"),
        ({"hidden_size": 4096}, r"in \[16, 2,048\]"),
        ({"hidden_size": 8}, r"in \[16, 2,048\]"),
        ({"max_time": "5s"}, r"--max-time must be in \[10s, 24h\], got 5s\.$"),
        ({"max_time": "25h"}, r"--max-time must be in \[10s, 24h\], got 25h\.$"),
        ({"max_time": "24h30s"}, r"got 86430s\.$"),
        ({"max_time": float("nan")}, "finite"),
        ({"max_time": [600]}, "--max-time must be text or a number"),
        ({"layers": 10**5000}, "of reasonable size"),
        ({"batch_size": 10_000}, "--batch-size"),
        ({"tokenizer": "/etc/tokenizer.json"}, "--tokenizer must be one of"),
        ({"tokenizer": "owner/model"}, "--tokenizer must be one of"),
        ({"cell": "transformer"}, "--cell must be one of"),
        ({"out": "/tmp/x"}, "unknown setting 'out'"),
        ({"init_from": "/etc"}, "unknown setting 'init_from'"),
        ({"track": "wandb"}, "unknown setting 'track'"),
        ({"steps": 10, "max_time": "1m"}, "--steps and --max-time"),
        ({"sample_prompt": "x" * 501}, "at most 500 characters"),
        ({"encoding": "cp1525"}, "'cp1525' is not an encoding that Python knows; did you mean"),
        ({"encoding": "no\nsuch"}, "'no such' is not an encoding"),
        ({"encoding": "../cp1252"}, "is not an encoding"),
        ({"encoding": "x" * 41}, "--encoding can have at most 40 characters"),
        ({"encoding": 99}, "'99' is not an encoding"),
        ({"encoding_errors": "ignore"}, "--encoding-errors must be one of strict, replace"),
        ({"header": "maybe"}, "--header"),
        ({"text_column": "x" * 101}, "--text-column can have at most 100 characters"),
        ({"text_column": ["a"]}, "--text-column must be text"),
        ({"json_field": "x" * 101}, "--json-field can have at most 100 characters"),
        ({"document_separator": "x" * 101}, "--document-separator can have at most 100 characters"),
        ({"dataset": ["python", "a/b"]}, "choose exactly one text"),
    ],
)
def test_errors_are_one_line(uploads, values, message):
    with pytest.raises(UserError, match=message) as caught:
        check_settings(values, uploads)
    assert "\n" not in str(caught.value)


def test_values_of_form_fields_are_converted(uploads, text):
    values = {"layers": 2.0, "hidden_size": "256", "max_time": "10m", "lr": "", "cell": None, "epochs": ""}
    flat = check_settings({**values, "dataset": text.dataset, "dropout": "0.1"}, uploads)
    assert (flat["layers"], flat["hidden_size"], flat["max_time"]) == (2, 256, 600.0)
    assert (flat["lr"], flat["cell"], flat["dropout"]) == ("auto", "lstm", 0.1)
    assert check_settings({"hidden_size": "auto"}, uploads)["dataset"] == ["python"]
    reading = {"encoding": " GBK ", "header": False, "document_separator": " ", "text_column": "a\ud800"}
    flat = check_settings({**reading, "encoding_errors": "replace"}, uploads)
    assert (flat["encoding"], flat["header"], flat["encoding_errors"]) == ("GBK", False, "replace")
    assert (flat["document_separator"], flat["text_column"]) == (" ", "a?")
    for dataset in ("Salesforce/wikitext", "a-b_c.d/E.f-1", " owner/name "):
        assert check_dataset(dataset, uploads) == dataset.strip()
