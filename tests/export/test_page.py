"""What can be exported as a page, and what a page contains. End-to-end tests run pages in a browser."""

import json

import pytest
import torch
from tokenizers import Tokenizer as Backend, decoders, models, normalizers, pre_tokenizers

from lm.config.schema import ModelConfig
from lm.errors import UserError
from lm.export import export
from lm.export.page import write_page
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.tokenizer import Tokenizer
from lm.tokenization.vocabulary import KINDS, load_external, train_tokenizer
from tests.conftest import called, some_text
from tests.end_to_end.exported import model_in, parts

TEXT = some_text(2000)


def model(
    tokenizer: Tokenizer | None = None, hidden_size: int = 8, embedding_size: int = 4, **facts
) -> LanguageModel:
    tokenizer = tokenizer or train_tokenizer("char", [TEXT])
    config = ModelConfig(hidden_size=hidden_size, embedding_size=embedding_size, layers=1)
    return LanguageModel(RecurrentLM(config, tokenizer.vocab_size), tokenizer, facts)


def foreign(name: str) -> Backend:
    """A tokenizer that differs from one of ours in a single rule."""
    kind = "word" if "words" in name else {"lower case": "char"}.get(name, "bpe")
    backend = train_tokenizer(kind, [TEXT], 300).backend
    if name == "added pieces":
        backend.add_tokens(["the sea"])
    elif name == "special words":
        backend.add_special_tokens(["<name>"])
    elif name == "prefix space":
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    elif name == "digits apart":
        bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(), bytes_])
    elif name == "lower case":
        backend.normalizer = normalizers.Lowercase()
    elif name == "few bytes":
        spec = json.loads(backend.to_str())
        del spec["model"]["vocab"]["Ā"]
        backend = Backend.from_str(json.dumps(spec))
    elif name == "dropout":
        backend.model.dropout = 0.1
    elif name == "words with spaces":
        backend.decoder = decoders.WordPiece(prefix="##")
    elif name == "word pieces":
        backend = Backend(models.WordPiece({"[UNK]": 0, "<eos>": 1, "a": 2}, unk_token="[UNK]"))
    return backend


FOREIGN = [
    "added pieces",
    "prefix space",
    "digits apart",
    "lower case",
    "few bytes",
    "dropout",
    "words with spaces",
    "word pieces",
    "special words",
]


@pytest.mark.parametrize("name", FOREIGN)
def test_tokenizers_with_other_rules_are_rejected(tmp_path, name):
    tokenizer = Tokenizer(foreign(name))
    with pytest.raises(UserError, match=r"^the tokenizer of this model \(\w+\) has rules that a page .*\.$"):
        write_page(model(tokenizer), tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_tokenizers_that_lm_trains_are_accepted_also_as_files(tmp_path, kind):
    train_tokenizer(kind, [TEXT], 300).save(tmp_path / "tokenizer.json")
    external, _ = load_external(tmp_path / "tokenizer.json")
    write_page(model(external), tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size > 10_000


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_browsers_can_read_each_tensor_where_it_is(tmp_path, precision):
    """Float32Array needs an offset that is a multiple of 4, whatever the sizes; and a row may be zero."""
    ours = model(hidden_size=7, embedding_size=5)
    with torch.no_grad():
        ours.network.embedding.weight[0] = 0
    write_page(ours, tmp_path / "page.html", precision)
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    config = json.loads(parts(html)["config"])
    assert [tensor["offset"] % 4 for tensor in config["tensors"]] == [0] * 7
    assert len({tensor["offset"] for tensor in config["tensors"]}) == 7
    for name, weight in model_in(html, ours).network.named_parameters():
        expected = ours.network.get_parameter(name)
        rounded_by = expected.abs().max().item() / 253  # int8: half of 1/127 of the largest number
        torch.testing.assert_close(weight, expected, rtol=0.01, atol=rounded_by)


def test_the_text_of_a_program_is_shown_in_monospace(tmp_path):
    for dataset, monospace in (("python", True), ("./python", False)):
        write_page(model(trained_on={"dataset": dataset}), tmp_path / "page.html")
        config = parts((tmp_path / "page.html").read_text(encoding="utf-8"))["config"]
        assert json.loads(config)["monospace"] == monospace


def test_an_ensemble_is_rejected(tmp_path):
    one = model()
    with pytest.raises(UserError, match="an ensemble can only generate, not be exported"):
        write_page(one.mixed_with([(model(), 0.5)]), tmp_path / "page.html")


def test_weights_beyond_fp16_are_rejected_but_fit_into_other_precisions(tmp_path):
    large = model()
    with torch.no_grad():
        large.network.decoder.weight[0, 0] = 1e6
    with pytest.raises(
        UserError, match=r"decoder\.weight has numbers that fp16 cannot represent: choose bf16"
    ):
        write_page(large, tmp_path / "page.html")
    for precision in ("bf16", "int8"):
        write_page(large, tmp_path / "page.html", precision)


def test_more_weights_than_browsers_can_read_are_rejected(tmp_path, monkeypatch):
    monkeypatch.setattr("lm.export.page._MAX_WEIGHTS", 1000)
    with pytest.raises(UserError, match=r"MB of weights are too many for a page.*: choose --precision int8"):
        write_page(model(), tmp_path / "page.html")


def test_a_page_has_facts_but_no_paths_of_the_machine(tmp_path):
    for dataset in ("/home/me/secret/boat.txt", "C:\\Users\\me\\secret\\boat.txt"):
        facts = {
            "trained_on": {"dataset": dataset, "characters": 12345},
            "validation": {"bits_per_character": 1.234},
        }
        export(model(**facts), tmp_path / "page.html")
        html = (tmp_path / "page.html").read_text(encoding="utf-8")
        assert "boat.txt" in html and "12,345 characters" in html and "1.23" in html
        assert "secret" not in html and str(tmp_path) not in html


def test_the_command_writes_a_page_and_names_the_precisions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = called("export", "pretrained", "page.html", "--precision", "int8")
    assert result.returncode == 0 and result.stdout == "page.html: 1.4 MB\n", result.stderr
    result = called("export", "pretrained", "page.html", "--precision", "fp32")
    assert result.returncode == 2 and "choose fp16 or bf16 or int8" in result.stderr


def test_the_command_warns_of_large_pages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lm.cli.export._LARGE_PAGE", 1000)
    result = called("export", "pretrained", "page.html")
    assert result.returncode == 0 and result.stderr.startswith("warning: phones may lack the memory")
    assert result.stderr.count("\n") == 1
