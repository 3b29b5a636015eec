"""Model folders that both lm and transformers read and write, with remote code or without."""

import ast
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import lm
from lm.config.schema import CELL_NAMES
from lm.errors import UserError
from lm.storage.model_folder import PRETRAINED
from lm.storage.remote_code import REMOTE_CODE, remote_code
from tests.hub.server import HubServer
from tests.transformers.models import loaded, logprobs, make, saved, scores


@pytest.mark.parametrize("settings", [{}, {"tie": True}, {"tie": True, "embedding_size": 16}])
def test_a_folder_saved_by_transformers_loads_in_both(tmp_path, settings):
    model = make(**settings)
    theirs, tokenizer = saved(model, tmp_path / "ours")
    with torch.no_grad():
        for weight in theirs.parameters():
            weight += 0.01  # as after more training
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer.save_pretrained(tmp_path / "theirs")
    again, tokenizer = loaded(tmp_path / "theirs")
    back = lm.load(tmp_path / "theirs", device="cpu")
    assert back.tokenizer.kind == "char"
    tokens = torch.randint(2, model.tokenizer.vocab_size, (2, 20))
    with torch.no_grad():
        expected = theirs(tokens).logits
        assert torch.equal(again(tokens).logits, expected)
        assert torch.equal(back.network(tokens)[0], expected)
    assert tokenizer("The sea").input_ids == [tokenizer.bos_token_id, *back.encode("The sea")]
    batch = tokenizer("The", return_tensors="pt")
    found = again.generate(**batch, do_sample=False, max_new_tokens=20)[0, batch.input_ids.shape[1] :]
    completion = back.generate("The", greedy=True, max_new_tokens=20)[0]
    assert found[: len(completion.tokens)].tolist() == completion.tokens


def test_a_folder_of_an_older_version_loads(tmp_path):
    from lm.transformers import RecurrentLMForCausalLM

    model = make(residual=False)
    model.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    ours = ("format_version", "model", "tokenizer", "vocab_size", "parameters", "trained_on", "sha256")
    del config["model"]["residual"], config["model"]["cell_implementation"]
    (tmp_path / "config.json").write_text(json.dumps({name: config[name] for name in ours}))
    (tmp_path / "tokenizer_config.json").unlink()
    theirs = RecurrentLMForCausalLM.from_pretrained(tmp_path)
    tokens = torch.randint(0, model.tokenizer.vocab_size, (2, 20))
    with torch.no_grad():
        assert torch.equal(theirs(tokens).logits, model.network(tokens)[0])


def test_the_keys_of_transformers_decide_nothing_in_lm(tmp_path):
    model = make()
    model.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    keys = set(config) - {"format_version", "model", "tokenizer", "vocab_size", "parameters", "sha256"}
    for value in (None, -1, 1e99, "x", [[]], {"a": {}}):
        hostile = dict.fromkeys(keys - {"trained_on"}, value)
        (tmp_path / "config.json").write_text(json.dumps({**config, **hostile}))
        assert lm.load(tmp_path, device="cpu").score("The sea") == model.score("The sea")


def test_config_json_has_the_keys_that_other_programs_look_for(tmp_path):
    model = make(tie=True)
    model.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    eos = model.tokenizer.eos
    expected = {
        "model_type": "recurrent_lm",
        "architectures": ["RecurrentLMForCausalLM"],
        "vocab_size": model.tokenizer.vocab_size,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "tie_word_embeddings": True,
        **{"bos_token_id": eos, "eos_token_id": eos, "pad_token_id": eos},
    }
    assert {name: config.get(name) for name in expected} == expected


def test_a_model_that_reads_right_to_left_is_rejected_in_one_line(tmp_path):
    model = make(direction="backward")
    with pytest.raises(UserError, match="right to left: leave out `remote_code`"):
        model.save(tmp_path, remote_code=True)
    model.save(tmp_path)
    with pytest.raises(ValueError, match="reads right to left") as error:
        loaded(tmp_path)
    assert "\n" not in str(error.value)


def test_the_pretrained_model_is_readable_by_transformers(tmp_path):
    theirs, tokenizer = loaded(PRETRAINED)
    model = lm.load(PRETRAINED, device="cpu")
    model.save(tmp_path)  # in float32, at addresses that torch would not choose
    again, _ = loaded(tmp_path)
    assert {weight.data_ptr() % 64 for weight in again.parameters()} == {0}
    text = "def main(args):\n    return 0\n"
    tokens = tokenizer(text).input_ids
    torch.testing.assert_close(logprobs(theirs, tokens), scores(model, text), rtol=0, atol=2e-5)
    ids = torch.tensor([tokens])
    with torch.no_grad():
        expected = model.network(ids)[0]
        assert torch.equal(theirs(ids).logits, expected) and torch.equal(again(ids).logits, expected)


def test_the_remote_code_needs_only_torch_and_transformers():
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for node in ast.walk(ast.parse(remote_code()))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert imported - sys.stdlib_module_names == {"torch", "transformers"}


# Loads the models of the Hub's user org, and writes the logits of some tokens, and texts.
WITHOUT_LM = """
import json, sys, torch
from safetensors.torch import load_file, save_file
sys.modules["lm"] = None  # importing it fails
from transformers import AutoModelForCausalLM, AutoTokenizer
for name in sys.argv[1:]:
    model = AutoModelForCausalLM.from_pretrained("org/" + name, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained("org/" + name, trust_remote_code=True)
    with torch.no_grad():
        save_file(dict(logits=model(**load_file("tokens")).logits), name + ".logits")
    batch = tokenizer(["The sea", "A"], return_tensors="pt", padding=True)
    found = model.generate(**batch, do_sample=False, max_new_tokens=9)[:, batch.input_ids.shape[1]:]
    with open(name + ".texts", "w") as file:
        json.dump(found.tolist(), file)
    model.save_pretrained(name)
    tokenizer.save_pretrained(name)
"""


@pytest.mark.slow
def test_remote_code_on_the_hub_computes_the_logits_of_lm_without_lm(tmp_path):
    models = {cell: make(cell=cell, tie=cell == "lstm") for cell in CELL_NAMES}
    tokens = torch.randint(2, 20, (2, 20))
    save_file({"input_ids": tokens}, tmp_path / "tokens")
    with HubServer(tmp_path / "hub") as hub:
        for cell, model in models.items():
            model.save(hub.root / "models" / "org" / cell, remote_code=True)
        environment = {
            **{name: value for name, value in os.environ.items() if name != "HF_TOKEN"},
            "HF_HOME": str(tmp_path / "home"),
            "HF_ENDPOINT": hub.url,
            "HF_HUB_DISABLE_XET": "1",
        }
        command = [sys.executable, "-c", WITHOUT_LM, *models]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    for cell, model in models.items():
        with torch.no_grad():
            logits = load_file(tmp_path / f"{cell}.logits")["logits"]
            assert torch.equal(logits, model.network(tokens)[0])
        texts = json.loads((tmp_path / f"{cell}.texts").read_text())
        expected = model.generate(["The sea", "A"], greedy=True, max_new_tokens=9)
        for text, completion in zip(texts, expected, strict=True):
            assert text[: len(completion.tokens)] == completion.tokens
        assert (tmp_path / cell / REMOTE_CODE).exists()
        assert lm.load(tmp_path / cell, device="cpu").score("The sea") == model.score("The sea")
