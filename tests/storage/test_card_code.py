"""Model cards: commands that can be pasted and code that runs."""

from __future__ import annotations

import json
import shlex

import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file
from torch import nn

import lm
from lm.cli.train import parse
from lm.config.schema import CELL_NAMES, RunConfig
from lm.storage.model_card import model_card
from lm.storage.model_folder import PRETRAINED
from tests.storage.cards import blocks, make


@pytest.mark.slow
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


def test_a_command_for_too_many_files_to_name_has_a_placeholder(plain):
    names = [f"{number}.txt" for number in range(100)]
    for dataset, expected in [
        ([*names, "1,234 more"], "lm train --dataset FILES --steps 7\n"),
        (["a.txt", "more"], "lm train --dataset a.txt --dataset more --steps 7\n"),
        (["12 more"], "lm train --dataset '12 more' --steps 7\n"),
    ]:
        settings_ = {"dataset": dataset, "steps": 7}
        card = model_card("boat", plain | {"trained_on": {"settings": settings_}})
        assert blocks(card, "bash")[1] == expected
        assert ("Replace `FILES`" in card) == ("FILES" in expected)


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


def test_the_pretrained_model_has_a_card_of_this_version(tmp_path, monkeypatch, capsys):
    facts = json.loads((PRETRAINED / "config.json").read_text())
    assert (PRETRAINED / "README.md").read_text() == model_card("pretrained", facts)
    usage, _ = blocks((PRETRAINED / "README.md").read_text(), "python")
    monkeypatch.chdir(tmp_path)
    exec(usage.replace("max_new_tokens=400", "max_new_tokens=5, seed=1"), {})
    assert capsys.readouterr().out
