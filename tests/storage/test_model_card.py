"""Model cards: valid metadata for the Hub, and no names that break out of it."""

from __future__ import annotations

import ast
import json
import math
import re

import pytest
from huggingface_hub import ModelCard
from hypothesis import example, given, settings, strategies as st
from markdown_it import MarkdownIt

import lm
from lm.errors import UserError, one_line
from lm.storage.model_card import model_card, renamed
from tests.storage.cards import HUB_DATASET, LOSSES, TRAINED_ON, blocks, make

HOSTILE = [
    *("a: b", "'", '"', "- x", "# x", "{a}", "[a]", "*a", "&a", "!x", "%x", "@x", "`x`", "``", "a\n---\nb"),
    *("a\n\n# b", "\u2028", "\x85", "\t", "\x00", "🌊 海", "null", "yes", "1e3", "~", "---", "...", "|", ">"),
    *("<script>alert(1)</script>", "[x](javascript:alert(1))", "```\nrm -rf /\n```", "$(reboot)", "a" * 500),
]


texts = st.one_of(st.sampled_from(HOSTILE), st.text(min_size=1), st.text("`'\":#-\n \\$", min_size=1))


names = texts.filter(str.strip)  # whitespace is not a name


def heading(card: str) -> str:
    """The text of the title of a card, with its Markdown, if any, between < and >."""
    _, inline, *_ = MarkdownIt("commonmark").parse(ModelCard(card).text)
    shown = (
        child.content if child.type in ("text", "text_special") else f"<{child.type}>"
        for child in inline.children
    )
    return "".join(shown)


def inline_code(card: str) -> list[str]:
    """The pieces of inline code in a card."""
    tokens = MarkdownIt("commonmark").parse(ModelCard(card).text)
    children = (child for token in tokens for child in token.children or [])
    return [child.content for child in children if child.type == "code_inline"]


def test_the_metadata_is_what_the_hub_expects(tmp_path):
    facts = {"trained_on": TRAINED_ON, "validation": LOSSES | {"tokens": 4}, "test": {"loss": 2, "tokens": 9}}
    make(facts, cell="gru").save(tmp_path / "boat", license="apache-2.0", language=["en", "code"])
    card = ModelCard.load(tmp_path / "boat" / "README.md")
    metadata = card.data.to_dict()
    index = metadata.pop("model-index")
    assert metadata == {
        "library_name": "lm",
        "pipeline_tag": "text-generation",
        "license": "apache-2.0",
        "language": ["en", "code"],
        "datasets": ["org/set"],
        "base_model": "me/base",
        "tags": ["gru", "recurrent", "language-model", "char-level"],
    }
    ((entry),) = index
    assert entry["name"] == "boat"
    validation, test = entry["results"]
    assert validation["task"] == {"type": "text-generation", "name": "Language modeling"}
    assert validation["dataset"] == {
        **{"name": "org/set", "type": "org/set", "config": "default"},
        **{"split": "validation", "revision": "a" * 40},
    }
    assert {metric["type"]: metric["value"] for metric in validation["metrics"]} == LOSSES
    assert test["dataset"]["split"] == "test"
    assert [(metric["type"], metric["value"]) for metric in test["metrics"]] == [("loss", 2.0)]
    assert len(card.data.eval_results) == 5


def test_what_is_not_known_is_left_out(tmp_path):
    make().save(tmp_path / "boat")
    card = ModelCard.load(tmp_path / "boat" / "README.md")
    assert card.data.to_dict() == {
        "library_name": "lm",
        "pipeline_tag": "text-generation",
        "tags": ["lstm", "recurrent", "language-model", "char-level"],
    }
    for heading in ("Results", "Training", "Trained on", "Fine-tuned"):
        assert heading not in card.text
    for heading in ("## Use", "## Limitations", "## Weights"):
        assert heading in card.text


def test_the_language_is_what_the_user_or_else_the_dataset_says(tmp_path):
    def language(facts, **options):
        make(facts).save(tmp_path, **options)
        return ModelCard.load(tmp_path / "README.md").data.get("language")

    assert language({"trained_on": TRAINED_ON}) == ["fr"]
    assert language({"trained_on": TRAINED_ON}, language="de") == ["de"]
    assert language({"trained_on": {"dataset": "python"}}) == ["code"]
    assert language({"trained_on": {"dataset": "./python"}}) is None
    assert language({"trained_on": {"dataset": "my.txt"}}) is None


def test_license_and_language_stay_with_the_model(tmp_path):
    make().save(tmp_path / "a", license="mit", language="en")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert (config["license"], config["language"]) == ("mit", ["en"])
    lm.load(tmp_path / "a").save(tmp_path / "b", language=["en", "yue"])
    data = ModelCard.load(tmp_path / "b" / "README.md").data
    assert (data.license, data.language) == ("mit", ["en", "yue"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"license": "MIT License"},
            "license must be an identifier of the Hub such as 'mit' .*'MIT License'",
        ),
        ({"license": ""}, "license must be an identifier"),
        ({"language": "English"}, "language must be a code such as 'en' .*'English'"),
        ({"language": ["en", "x\n"]}, r"language must be a code such as 'en' .*'x\\n'"),
    ],
)
def test_a_license_or_language_that_is_none_is_an_error(tmp_path, options, message):
    with pytest.raises(UserError, match=message) as error:
        make().save(tmp_path / "m", **options)
    assert "\n" not in str(error.value) and not (tmp_path / "m").exists()


@pytest.mark.slow
@given(name=names, dataset=names, revision=names, loss=st.floats())
@example(name="a: b", dataset="a`b\n---\n- c: 'd", revision="\u2028", loss=math.inf)
@example(name="`_x_` **[y](z)** <b> &amp; ![i](j) \\#", dataset="x", revision="x", loss=1.0)
@settings(max_examples=60, deadline=None)
def test_hostile_names_stay_names(plain, name, dataset, revision, loss):
    trained_on = {
        "dataset": dataset,
        "init_from": dataset,
        "hub_datasets": [HUB_DATASET | {"config": revision}],
    }
    facts = plain | {"trained_on": trained_on, "validation": LOSSES | {"loss": loss}}
    card = model_card(name, facts)
    parsed = ModelCard(card)
    (entry,) = parsed.data.to_dict()["model-index"]
    assert entry["name"] == one_line(name).split("/")[-1]
    assert entry["results"][0]["dataset"]["name"] == one_line(dataset)
    metrics = {metric["type"]: metric["value"] for metric in entry["results"][0]["metrics"]}
    assert metrics["bits_per_byte"] == 1.7
    assert ("loss" in metrics) == math.isfinite(loss)
    assert parsed.text.startswith("# ") or parsed.text.startswith("\n# ")
    assert inline_code(card)[:3] == [one_line(dataset), "mit", one_line(dataset)]  # data, base model
    assert heading(card) == entry["name"].strip()
    _, usage, weights = ["", *blocks(card, "python")]
    assert ast.literal_eval(re.search(r"^model = lm\.load\((.*)\)$", usage, re.MULTILINE)[1]) == name
    assert len(re.findall("^## ", card, re.MULTILINE)) == 4
    compile(usage, "usage", "exec"), compile(weights, "weights", "exec")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


KEYS = [
    *("dataset", "hub_datasets", "init_from", "base_model", "characters", "documents", "settings"),
    *("id", "config", "revision", "language", "license", "loss", "perplexity"),
]


@given(
    st.dictionaries(
        st.sampled_from(["trained_on", "validation", "test", "license", "language"]),
        st.dictionaries(st.sampled_from(KEYS), json_values) | json_values,
    )
)
@settings(max_examples=60, deadline=None)
def test_facts_of_any_type_give_a_valid_card(plain, facts):
    card = model_card("boat", plain | facts)
    assert ModelCard(card).data.library_name == "lm"


def test_ids_that_are_none_are_not_links_or_metadata(plain):
    trained_on = TRAINED_ON | {
        "base_model": "](javascript:x)",
        "hub_datasets": [{"id": "a b/c"}, {"id": 3}, 4],
    }
    card = model_card("boat", plain | {"trained_on": trained_on})
    assert not {"datasets", "base_model"} & ModelCard(card).data.to_dict().keys()
    assert "javascript" not in card


def test_a_card_says_if_the_budget_depends_on_the_machine(plain):
    for settings_, timed in [({"steps": 7}, False), ({"epochs": 1}, False), ({"max_time": 9}, True)]:
        card = model_card("boat", plain | {"trained_on": {"settings": {"cell": "gru", **settings_}}})
        assert ("how many steps it allows depends on the machine" in card) == timed
    both = {"trained_on": {"settings": {"steps": 7, "max_time": 9}}}
    assert "depends on the machine" in model_card("boat", plain | both)


def test_results_that_are_no_numbers_are_left_out(plain):
    card = model_card("boat", plain | {"validation": {"loss": True, "perplexity": "2", "bits_per_byte": 1}})
    assert [line for line in card.splitlines() if line.startswith("| ")] == [
        "| metric | validation |",
        "| bits per byte | 1.0000 |",
    ]


@pytest.mark.parametrize(
    ("fraction", "shown"), [(0.1734, ["17.34%"]), (0.0, []), (None, []), ("1", []), (True, [])]
)
def test_a_card_says_how_many_tokens_are_unknown(plain, fraction, shown):
    card = model_card("boat", plain | {"validation": {**LOSSES, "unknown_fraction": fraction}})
    rows = [line.split("|")[2].strip() for line in card.splitlines() if line.startswith("| tokens that are")]
    assert rows == shown


def test_a_card_is_renamed_everywhere(plain):
    facts = plain | {"trained_on": TRAINED_ON, "validation": LOSSES, "auto_map": {}}
    for old, new in [("boat", "ship"), ("it's: 1", 'a "b"'), ("海 " * 40, "x")]:
        assert renamed(model_card(old, facts), old, new) == model_card(new, facts)


def test_the_card_describes_the_model(tmp_path):
    facts = {"trained_on": {"dataset": "x", "characters": 17, "documents": 3, "init_from": "base"}}
    make(facts | {"validation": LOSSES}).save(tmp_path / "boat")
    card = (tmp_path / "boat" / "README.md").read_text()
    for line in (
        "\n# boat\n",
        "LSTM language model with 2 layers of 8 units",
        "Trained on `x`: 17 characters in 3 documents.",
        "Fine-tuned from `base`.",
        "pip install recurrent-lm",
        "| loss (nats per token) | 1.2500 |",
        "| perplexity | 3.49 |",
        "as 32 numbers, its recurrent state",
        "Characters that are not in its vocabulary become `<unk>`.",
        "The gates are in torch's order: i, f, g, o.",
    ):
        assert line in card
