"""Model cards: valid metadata for the Hub, code that runs, and no names that break out of either."""

from __future__ import annotations

import ast
import json
import math
import re
import shlex

import pytest
import torch
from huggingface_hub import ModelCard
from hypothesis import example, given, settings, strategies as st
from markdown_it import MarkdownIt
from safetensors.torch import load_file
from torch import nn

import lm
from lm.cli.train import parse
from lm.config.schema import CELL_NAMES, ModelConfig, RunConfig
from lm.errors import UserError, one_line
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.storage.model_card import model_card, renamed
from lm.storage.model_folder import PRETRAINED
from lm.tokenization.vocabulary import train_tokenizer

LOSSES = {"loss": 1.25, "perplexity": 3.4903, "bits_per_character": 1.8034, "bits_per_byte": 1.7}
HUB_DATASET = {
    "id": "org/set",
    "revision": "a" * 40,
    "config": "default",
    "language": ["fr"],
    "license": "mit",
}
TRAINED_ON = {
    "dataset": "org/set",
    "hub_datasets": [HUB_DATASET],
    "init_from": "me/base@v1",
    "base_model": "me/base",
    "characters": 17,
    "documents": 3,
    "settings": {"dataset": ["org/set"], "cell": "gru", "steps": 7, "residual": False},
}
HOSTILE = [
    *("a: b", "'", '"', "- x", "# x", "{a}", "[a]", "*a", "&a", "!x", "%x", "@x", "`x`", "``", "a\n---\nb"),
    *("a\n\n# b", "\u2028", "\x85", "\t", "\x00", "🌊 海", "null", "yes", "1e3", "~", "---", "...", "|", ">"),
    *("<script>alert(1)</script>", "[x](javascript:alert(1))", "```\nrm -rf /\n```", "$(reboot)", "a" * 500),
]
texts = st.one_of(st.sampled_from(HOSTILE), st.text(min_size=1), st.text("`'\":#-\n \\$", min_size=1))
names = texts.filter(str.strip)  # whitespace is not a name


def make(facts=None, **options) -> LanguageModel:
    torch.manual_seed(0)
    tokenizer = train_tokenizer("char", iter(["the sea was calm\n"]))
    network = RecurrentLM(ModelConfig(**{"hidden_size": 8, **options}), tokenizer.vocab_size)
    return LanguageModel(network, tokenizer, facts)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """config.json of a model of which nothing is known."""
    make().save(tmp_path_factory.mktemp("plain"))
    return json.loads((next(tmp_path_factory.getbasetemp().glob("plain*")) / "config.json").read_text())


def blocks(card: str, language: str) -> list[str]:
    """The blocks of code in a card, as Markdown has them."""
    tokens = MarkdownIt("commonmark").parse(ModelCard(card).text)
    return [token.content for token in tokens if token.type == "fence" and token.info == language]


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


@given(
    st.fixed_dictionaries(
        {
            "dataset": st.lists(
                st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), min_size=1
            )
        },
        optional={
            "document_separator": st.sampled_from(["---", "-x", "\\n***\\n", "line"]),
            "mix": st.just([0.25, 0.75]),
            "tie": st.just(True),
            "residual": st.just(False),
            "lr": st.floats(1e-9, 1.0),
            "hidden_size": st.integers(1, 9),
            "max_time": st.sampled_from([90.0, 0.5]),
        },
    )
)
@settings(max_examples=60, deadline=None)
def test_the_training_command_gives_the_settings(plain, values):
    card = model_card("boat", plain | {"trained_on": {"settings": values}})
    _, command = blocks(card, "bash")
    program, subcommand, *arguments = shlex.split(command)
    assert (program, subcommand) == ("lm", "train")
    if "" not in values["dataset"]:
        given = vars(parse(arguments))
        expected = {k: tuple(v) if k == "mix" else v for k, v in values.items()}
        assert given == expected
    if len(values["dataset"]) == 2 or "mix" not in values:
        assert RunConfig.from_flat(given).data.dataset == tuple(values["dataset"])


def test_settings_that_anyone_may_have_written_give_a_command_that_can_be_shown(plain):
    values = {"cell": "gru", "steps": 7, "a b": 1, "": 2, "out": "a\x1b[0m\nb"}
    _, command = blocks(model_card("boat", plain | {"trained_on": {"settings": values}}), "bash")
    assert command == "lm train --cell gru --steps 7 --out 'a\u241b[0m\nb'\n"


def test_a_command_for_too_many_files_to_name_stands_for_all_of_them(plain):
    names = [f"{number}.txt" for number in range(100)]
    for dataset, expected in [
        ([*names, "1,234 more"], "lm train --dataset FILES --steps 7\n"),
        (["a.txt", "more"], "lm train --dataset a.txt --dataset more --steps 7\n"),
        (["12 more"], "lm train --dataset '12 more' --steps 7\n"),
    ]:
        settings_ = {"dataset": dataset, "steps": 7}
        card = model_card("boat", plain | {"trained_on": {"settings": settings_}})
        assert blocks(card, "bash")[1] == expected
        assert ("`FILES` stands for all files" in card) == ("FILES" in expected)


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


def test_a_card_is_renamed_everywhere(plain):
    facts = plain | {"trained_on": TRAINED_ON, "validation": LOSSES, "auto_map": {}}
    for old, new in [("boat", "ship"), ("it's: 1", 'a "b"'), ("海 " * 40, "x")]:
        assert renamed(model_card(old, facts), old, new) == model_card(new, facts)


def test_a_model_with_remote_code_says_how_transformers_loads_it(tmp_path):
    make().save(tmp_path / "boat", remote_code=True)
    _, code, _ = blocks((tmp_path / "boat" / "README.md").read_text(), "python")
    assert 'model = AutoModelForCausalLM.from_pretrained("boat", trust_remote_code=True)' in code


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_the_code_in_a_card_generates(tmp_path, monkeypatch, capsys, direction):
    model = make(direction=direction)
    model.save(tmp_path / 'a "boat"')
    (sample,) = model.generate(max_new_tokens=5, seed=1)
    monkeypatch.chdir(tmp_path)
    usage, _ = blocks((tmp_path / 'a "boat"' / "README.md").read_text(), "python")
    exec(usage.replace("max_new_tokens=400", "max_new_tokens=5, seed=1"), {})
    assert capsys.readouterr().out.removesuffix("\n") == sample.text


@pytest.mark.parametrize("cell", CELL_NAMES)
@pytest.mark.parametrize(
    "options",
    [
        {"layers": 3},
        {"layers": 2, "residual": False, "embedding_size": 5},
        {"layers": 1, "tie": True},
        {"layers": 2, "tie": True, "embedding_size": 5, "direction": "backward"},
    ],
)
def test_the_code_in_a_card_computes_the_logits(tmp_path, monkeypatch, cell, options):
    model = make(cell=cell, dropout=0.5, **options)
    with torch.no_grad():  # biases are zero at first
        for name, bias in model.network.named_parameters():
            if "bias" in name:
                bias += torch.randn(bias.shape)
    model.save(tmp_path)
    monkeypatch.chdir(tmp_path)
    card = (tmp_path / "README.md").read_text()
    _, weights = blocks(card, "python")
    exec(weights, found := {})
    tokens = torch.tensor(model.encode("the sea was calm"))
    expected, _ = model.network.eval()(tokens[None])
    torch.testing.assert_close(found["logits"](tokens), expected[0])
    if not model.backward:
        ids = model.tokenizer.encode("the sea was calm").tolist()
        start = json.loads((tmp_path / "config.json").read_text())["start_token_id"]
        logprobs = found["logits"](torch.tensor([start, *ids[:-1]])).log_softmax(-1)
        scores = [score.logprob for score in model.score("the sea was calm")]
        assert logprobs[range(len(ids)), ids].tolist() == pytest.approx(scores, abs=1e-5)
    layers, residual = options["layers"], options.get("residual", True) and options["layers"] > 1
    assert ("no residual connections" in card) == residual
    assert ("shares its weight" in card) == options.get("tie", False)
    assert f"with {layers} layer" in card


@pytest.mark.parametrize("cell", CELL_NAMES)
@pytest.mark.parametrize("residual", [True, False])
def test_the_names_load_into_torch_s_modules(tmp_path, cell, residual):
    """And without residual connections, these compute the same."""
    model = make(cell=cell, layers=2, embedding_size=5, residual=residual)
    model.save(tmp_path, half=True)
    weights = load_file(tmp_path / "model.safetensors")
    module = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[cell](5, 8, 2)
    names = {
        name.removeprefix("recurrent."): weight
        for name, weight in weights.items()
        if name.startswith("recurrent.")
    }
    module.load_state_dict(names)  # raises if a name or shape differs
    embedding, decoder = nn.Embedding(model.network.vocab_size, 5), nn.Linear(8, model.network.vocab_size)
    embedding.load_state_dict({"weight": weights["embedding.weight"]})
    decoder.load_state_dict({"weight": weights["decoder.weight"], "bias": weights["decoder.bias"]})
    tokens = torch.tensor(model.encode("the sea was calm"))
    expected, _ = lm.load(tmp_path, "cpu").network(tokens[None])
    same = torch.allclose(decoder(module(embedding(tokens))[0]), expected[0], atol=1e-5)
    assert same == (not residual)


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


def test_the_pretrained_model_has_a_card_of_this_version(tmp_path, monkeypatch, capsys):
    facts = json.loads((PRETRAINED / "config.json").read_text())
    assert (PRETRAINED / "README.md").read_text() == model_card("pretrained", facts)
    usage, _ = blocks((PRETRAINED / "README.md").read_text(), "python")
    monkeypatch.chdir(tmp_path)
    exec(usage.replace("max_new_tokens=400", "max_new_tokens=5, seed=1"), {})
    assert capsys.readouterr().out
