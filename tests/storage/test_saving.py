"""Models on disk: saved, loaded, and rejected if damaged."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save, save_file

import lm
from lm.config.schema import CELL_NAMES, ModelConfig
from lm.errors import ModelError, UserError
from lm.files.tensor_files import write_tensors
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.storage.model_folder import PRETRAINED, default_model, find_model, is_model, models_in
from lm.storage.saving import without_paths
from lm.tokenization.vocabulary import train_tokenizer


def make(text="the sea was calm\n", hidden_size=8, **options):
    torch.manual_seed(0)
    tokenizer = train_tokenizer("char", iter([text]))
    network = RecurrentLM(ModelConfig(hidden_size=hidden_size, **options), tokenizer.vocab_size)
    facts = {"trained_on": {"dataset": "x", "characters": 17, "documents": 3}}
    return LanguageModel(network, tokenizer, facts)


@pytest.fixture
def saved(tmp_path):
    make().save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("cell", CELL_NAMES)
@pytest.mark.parametrize("options", [{}, {"tie": True}, {"tie": True, "embedding_size": 5, "layers": 1}])
@pytest.mark.parametrize("implementation", ["fused", "reference"])
def test_a_loaded_model_generates_what_the_saved_one_did(tmp_path, cell, options, implementation):
    model = make(cell=cell, cell_implementation=implementation, **options)
    model.save(tmp_path / "m")
    again = lm.load(tmp_path / "m", device="cpu")
    assert again.generate("sea", seed=1)[0] == model.generate("sea", seed=1)[0]
    assert again.facts["trained_on"] == model.facts["trained_on"]


def test_a_model_folder_has_the_documented_files(saved):
    files = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"}
    assert {path.name for path in saved.iterdir()} == files
    assert json.loads((saved / "tokenizer_config.json").read_text())["eos_token"] == "<eos>"
    config = json.loads((saved / "config.json").read_text())
    assert (config["format_version"], config["lm_version"]) == (1, lm.__version__)
    assert (saved / "README.md").read_text().startswith("---\nlibrary_name: lm\n")


def test_a_folder_without_a_configuration_for_transformers_loads(saved):
    """As older ones are."""
    (saved / "tokenizer_config.json").unlink()
    assert lm.load(saved, device="cpu").generate("sea", seed=1) == make().generate("sea", seed=1)


def test_paths_in_the_facts_of_earlier_versions_are_not_saved(tmp_path):
    model = make()
    model.facts["trained_on"] |= {
        "dataset": "/home/ann/a.txt + ../b/ + org/set",
        "init_from": "~/models/base",
    }
    model.save(tmp_path / "model")
    trained_on = json.loads((tmp_path / "model" / "config.json").read_text())["trained_on"]
    assert (trained_on["dataset"], trained_on["init_from"]) == ("a.txt + b + org/set", "base")
    assert "ann" not in (tmp_path / "model" / "README.md").read_text()
    assert model.facts["trained_on"]["init_from"] == "~/models/base"


@pytest.mark.parametrize(
    ("dataset", "shown"),
    [
        ("python", "python"),
        ("./python", "./python"),
        ("/usr/lib/python", "./python"),
        ("org/python", "org/python"),
        ("imdb", "imdb"),
        ("-", "-"),
        ("C:\\Users\\Ann\\my text.txt", "my text.txt"),
        ("\\\\server\\share\\a.txt", "a.txt"),
        ("../*.txt", "*.txt"),
        ("~/a.txt + /b/c/ + d.txt", "a.txt + c + d.txt"),
    ],
)
def test_only_the_names_of_paths_are_shown(dataset, shown):
    assert without_paths(dataset) == shown


def truncated_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def other_shape(folder):
    facts = json.loads((folder / "config.json").read_text())
    facts["model"]["hidden_size"] = 9
    (folder / "config.json").write_text(json.dumps(facts))


def newer(folder):
    facts = json.loads((folder / "config.json").read_text()) | {"format_version": 99}
    (folder / "config.json").write_text(json.dumps(facts))


def missing_weight(folder):
    weights = load_file(folder / "model.safetensors")
    weights.pop("decoder.bias")
    save_file(weights, folder / "model.safetensors")


def infinite_half(folder):
    weights = {name: weight.half() for name, weight in load_file(folder / "model.safetensors").items()}
    weights["decoder.bias"][0] = float("inf")
    save_file(weights, folder / "model.safetensors")


def settings_out_of_range(folder):
    facts = json.loads((folder / "config.json").read_text())
    facts["model"]["hidden_size"] = 0
    (folder / "config.json").write_text(json.dumps(facts))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncated_weights, "model.safetensors is damaged or truncated"),
        (other_shape, "do not match its config.json"),
        (missing_weight, "do not match its config.json: decoder.bias"),
        (infinite_half, "decoder.bias has numbers that are not finite, or too large"),
        (newer, "format version 99"),
        (settings_out_of_range, "does not describe a model"),
        (lambda f: (f / "config.json").write_text("{"), "config.json is damaged"),
        (lambda f: (f / "config.json").write_text("{}"), "has no format_version"),
        (lambda f: (f / "config.json").unlink(), "not a model folder"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer"),
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (shutil.rmtree, "there is no model folder"),
    ],
)
def test_a_damaged_model_is_rejected_in_one_line(saved, damage, message):
    damage(saved)
    with pytest.raises(ModelError, match=message) as error:
        lm.load(saved)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("my.txt", "cannot write my.txt: it is a file; choose an existing, writable folder."),
        ("my.txt/x", "cannot write my.txt/x: Not a directory; choose an existing, writable folder."),
    ],
)
def test_where_a_model_cannot_be_saved_the_error_says_why(tmp_path, monkeypatch, path, error):
    monkeypatch.chdir(tmp_path)
    Path("my.txt").write_text("mine")
    with pytest.raises(UserError) as raised:
        make().save(path)
    assert str(raised.value) == error
    assert Path("my.txt").read_text() == "mine"


@pytest.mark.posix
@pytest.mark.parametrize(("hidden_size", "dataset"), [(64, "x"), (2, "x" * 9000)], ids=["weights", "config"])
def test_a_model_that_does_not_fit_on_the_disk_leaves_the_previous_one(saved, hidden_size, dataset):
    files, larger = {path.name for path in saved.iterdir()}, make("a boat", hidden_size)
    larger.facts["trained_on"]["dataset"] = dataset
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (7000, limits[1]))
    try:
        with pytest.raises(UserError, match="File too large"):
            larger.save(saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name for path in saved.iterdir()} == files
    assert lm.load(saved, device="cpu").generate("sea", seed=1) == make().generate("sea", seed=1)


def test_weights_that_float16_cannot_represent_are_not_saved_as_such(tmp_path):
    model = make()
    with torch.no_grad():
        model.network.decoder.weight[0, 0] = 70_000.0  # the largest float16 is 65,504
    with pytest.raises(UserError, match=r"^decoder\.weight has numbers that float16 cannot represent: save "):
        model.save(tmp_path / "half", half=True)
    assert not (tmp_path / "half").exists()
    model.save(tmp_path / "whole")
    assert lm.load(tmp_path / "whole", device="cpu").network.decoder.weight[0, 0] == 70_000


@pytest.mark.posix
def test_weights_in_a_folder_whose_name_is_not_utf_8_are_not_called_damaged(saved, tmp_path):
    folder = tmp_path / "caf\udce9"
    shutil.copytree(saved, folder)
    with pytest.raises(ModelError, match=r"cannot be read: its path has a name that is not UTF-8; rename it"):
        lm.load(folder)


def test_a_file_is_not_a_model_folder(saved):
    with pytest.raises(ModelError, match="is a file"):
        find_model(saved / "config.json")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        *(("runs/haml", "runs/hamlet-lstm-20260101"), ("hamlet-lstm-20260102", "runs/hamlet-lstm-20260101")),
        *(("mine/boot", "mine/boat"), ("Boat", "boat"), ("runs/nope", None), ("nowhere/at/all", None)),
    ],
)
def test_a_mistyped_model_is_answered_with_a_similar_one(tmp_path, monkeypatch, given, meant):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for folder in ("runs/hamlet-lstm-20260101", "mine/boat", "boat"):
        make().save(folder)
    with pytest.raises(ModelError, match="there is no") as error:
        find_model(given)
    assert str(error.value).endswith(f"; did you mean '{meant}'?" if meant else ".")
    assert ("did you mean" in str(error.value)) == (meant is not None)


def test_the_newest_run_is_the_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_model() == PRETRAINED
    make().save("runs/a")
    make().save("runs/b")
    (tmp_path / "runs" / "no-model").mkdir()
    assert default_model().name == "b"
    assert [path.name for path in models_in(tmp_path / "runs")] == ["b", "a"]


def test_a_pretrained_model_ships_with_the_package():
    assert is_model(PRETRAINED)
    assert sum(path.stat().st_size for path in PRETRAINED.iterdir()) <= 2_000_000
    text = "".join(p.text for p in lm.load("pretrained").stream("def ", max_new_tokens=300, seed=1))
    assert "self" in text or "return" in text or "(" in text


def test_a_folder_takes_precedence_over_the_pretrained_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_model("pretrained") == PRETRAINED
    make().save("pretrained")
    assert find_model("pretrained") == Path("pretrained")


def test_tensors_are_written_as_safetensors_writes_them(tmp_path):
    dtypes = ["int64", "float64", "float32", "int32", "bfloat16", "float16", "uint8"]
    shapes = {"empty": (0, 2), "number": (), "matrix": (3, 2)}
    tensors = {
        f"{shape}.{dtype}": torch.randint(0, 9, shapes[shape]).to(getattr(torch, dtype))
        for shape in shapes
        for dtype in dtypes
    }
    tensors["transposed"] = torch.randn(3, 4).t()
    tensors["strides of zero"] = torch.ones(1, dtype=torch.int64).as_strided((1,), (0,))
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    for metadata in (None, {"format": "pt"}):
        write_tensors(tmp_path / "t.safetensors", tensors, metadata)
        assert (tmp_path / "t.safetensors").read_bytes() == save(contiguous, metadata)
