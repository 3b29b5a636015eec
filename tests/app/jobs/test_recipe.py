"""What a browser may have trained: every setting in its limits, and never a file of this machine."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from app.jobs import recipe
from app.jobs.recipe import check_text, checked, resolved
from app.jobs.uploads import Texts
from lm.config.schema import RunConfig
from lm.errors import UserError
from tests.conftest import some_text

NASTY = (
    "/etc/passwd", "../../etc/passwd", "~/.ssh/id_rsa", "file:///etc/passwd", "-", "*", "/proc/self/environ",
    "text:../../../etc/passwd", "text:/etc/passwd", "text:", "a/..", "../b", "./b", "a//b", "a/b/c", "a\\b",
    "hf://datasets/a/b", "https://example.org/a", "a/b.txt", "a/b.txt.gz", "zip://x::/etc/a.zip",
    "a/b\nc", "a/b\0", "etc/hosts.json", ".git/config", "a/.b", "-a/b", "Ａ/ｂ", "a/b c", "python/..",
    "[a]/b",
)  # fmt: skip


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return Texts(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def text(texts):
    return texts.add(some_text(2000), "boat.txt")


@pytest.mark.parametrize("dataset", NASTY)
def test_paths_of_this_machine_are_no_texts(texts, dataset):
    with pytest.raises(UserError) as caught:
        checked({"dataset": dataset}, texts)
    assert "\n" not in str(caught.value)


@given(
    st.one_of(
        st.text(max_size=40),
        st.text(alphabet="ab/.-_~:*\\ \0", max_size=12),
        st.sampled_from(NASTY).flatmap(lambda name: st.text(max_size=3).map(lambda end: name + end)),
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
def test_whatever_a_browser_names_no_path_comes_out(texts, text, dataset):
    try:
        flat = resolved(checked({"dataset": dataset}, texts), texts)
    except UserError as error:
        assert "\n" not in str(error)
        return
    (named,) = flat["dataset"]
    # It is the default, or an id that is a file only where there are folders: not where it is read.
    owner, _, name = named.partition("/")
    assert named == "python" or (owner and name and "/" not in name and ".." not in named and named.isascii())
    assert not named.startswith((".", "-", "~", "/")) and not set(named) & set("*?[]\\:\0\n ")


@given(
    st.dictionaries(
        st.sampled_from(list(recipe.SETTINGS)),
        st.one_of(
            st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
            st.text("\n\r5m\0", max_size=5),
            st.lists(st.integers(), max_size=2),
            st.sampled_from(["auto", "lstm", "1e400", "nan", "10m", "1" * 5000, 10**5000, -1e300]),
        ),
        max_size=4,
    )
)  # fmt: skip
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_settings_are_checked_whatever_comes(texts, text, values):
    try:
        flat = checked({**values, "dataset": text.dataset}, texts)
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert RunConfig.from_flat(resolved(flat, texts)).data.dataset == (str(text.path),)
    assert flat["out"] is flat["init_from"] is None and flat["track"] == "none"
    assert flat["tokenizer"] in recipe.TOKENIZERS
    for name, (least, most) in recipe._RANGES.items():
        assert not isinstance(flat[name], (int, float)) or least <= flat[name] <= most or name not in values


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"layers": 5}, "Layers lies between 1 and 4"),
        ({"layers": 1.5}, "an integer"),
        ({"layers": "1\n2"}, "an integer, got '1 2'"),
        ({"max_time": "a\nwhile"}, "'a while' is not a duration"),
        ({"hidden_size": 4096}, "between 16 and 2,048"),
        ({"hidden_size": 8}, "between 16 and 2,048"),
        ({"max_time": "5s"}, "Max time lies between 10 and 86,400"),
        ({"max_time": "25h"}, "Max time"),
        ({"max_time": float("nan")}, "finite"),
        ({"max_time": [600]}, "Max time is a word or a number"),
        ({"layers": 10**5000}, "of a sensible size"),
        ({"batch_size": 10_000}, "Batch size"),
        ({"tokenizer": "/etc/tokenizer.json"}, "A token is one of"),
        ({"tokenizer": "owner/model"}, "A token is one of"),
        ({"cell": "transformer"}, "--cell must be one of"),
        ({"out": "/tmp/x"}, "no setting 'out'"),
        ({"init_from": "/etc"}, "no setting 'init_from'"),
        ({"track": "wandb"}, "no setting 'track'"),
        ({"steps": 10, "max_time": "1m"}, "choose one budget"),
        ({"sample_prompt": "x" * 501}, "at most 500 characters"),
        ({"dataset": ["python", "a/b"]}, "Choose one text"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(texts, values, says):
    with pytest.raises(UserError, match=says) as caught:
        checked(values, texts)
    assert "\n" not in str(caught.value)


def test_values_come_as_browsers_have_them(texts, text):
    values = {"layers": 2.0, "hidden_size": "256", "max_time": "10m", "lr": "", "cell": None, "epochs": ""}
    flat = checked({**values, "dataset": text.dataset, "dropout": "0.1"}, texts)
    assert (flat["layers"], flat["hidden_size"], flat["max_time"]) == (2, 256, 600.0)
    assert (flat["lr"], flat["cell"], flat["dropout"]) == ("auto", "lstm", 0.1)
    assert checked({"hidden_size": "auto"}, texts)["dataset"] == ["python"]
    for dataset in ("Salesforce/wikitext", "a-b_c.d/E.f-1", " owner/name "):
        assert check_text(dataset, texts) == dataset.strip()
