"""Models exported to ONNX, as onnxruntime computes them."""

import errno
import io
import json
import os
import re
import sys
from contextlib import redirect_stdout

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings, strategies as st

import lm
from lm.config.schema import ModelConfig
from lm.errors import UserError
from lm.export import export
from lm.export.onnx import onnx_model
from lm.language_model import LanguageModel
from lm.model.cells import CELLS
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import train_tokenizer
from tests.conftest import ROOT, called, script, some_text

TOKENIZER = train_tokenizer("char", iter([some_text(1000)]))


def model(noise: float = 0.3, tokenizer=TOKENIZER, **config) -> LanguageModel:
    """A small model whose weights, biases included, are random."""
    torch.manual_seed(0)
    network = RecurrentLM(ModelConfig(**config), tokenizer.vocab_size)
    with torch.no_grad():
        for weight in network.parameters():
            weight += noise * torch.randn_like(weight)
    return LanguageModel(network.eval(), tokenizer)


def session(exported: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(exported.SerializeToString())


def run(runtime, tokens, state):
    """What onnxruntime computes: logits, final state."""
    logits, *final = runtime.run(None, {"tokens": tokens, **dict(zip("hc", state, strict=False))})
    return logits, final


def random_state(network: RecurrentLM, batch: int) -> list[np.ndarray]:
    shape = (network.config.layers, batch, network.config.hidden_size)
    generator = np.random.default_rng(0)
    return [generator.normal(size=shape).astype("f") for _ in CELLS[network.config.cell].states]


@given(
    cell=st.sampled_from(list(CELLS)),
    layers=st.integers(1, 3),
    tie=st.booleans(),
    residual=st.booleans(),
    hidden_size=st.integers(1, 9),
    embedding_size=st.integers(1, 9),
    shapes=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 12)), min_size=2, max_size=3),
)
@settings(max_examples=30, deadline=None)
def test_onnxruntime_computes_our_logits_and_states_for_any_batch_and_length(shapes, **config):
    ours = model(**config)
    runtime = session(onnx_model(ours, "fp32"))
    for batch, length in shapes:
        tokens = np.random.default_rng(0).integers(TOKENIZER.vocab_size, size=(batch, length))
        state = random_state(ours.network, batch)
        logits, final = run(runtime, tokens, state)
        with torch.no_grad():
            expected = ours.network(torch.tensor(tokens), tuple(map(torch.tensor, state)))
        np.testing.assert_allclose(logits, expected[0], atol=1e-5)
        for part, expected_part in zip(final, expected[1], strict=True):
            np.testing.assert_allclose(part, expected_part, atol=1e-5)


def test_a_text_can_be_fed_in_pieces_with_the_state_carried():
    ours = model(cell="lstm", layers=2, hidden_size=8, embedding_size=5)
    runtime, state = session(onnx_model(ours, "fp32")), [np.zeros((2, 3, 8), "f")] * 2
    tokens = np.random.default_rng(0).integers(TOKENIZER.vocab_size, size=(3, 20))
    pieces = []
    for piece in np.split(tokens, [1, 2, 9], axis=1):
        logits, state = run(runtime, piece, state)
        pieces.append(logits)
    with torch.no_grad():
        expected, _ = ours.network(torch.tensor(tokens))
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), expected, atol=1e-5)


@pytest.mark.parametrize("tie", [True, False])
def test_each_matrix_is_stored_once_by_native_operators(tie):
    ours = model(cell="gru", layers=2, hidden_size=32, embedding_size=24, tie=tie)
    graph = onnx_model(ours, "fp32").graph
    numbers = sum(int(np.prod(weight.dims)) for weight in graph.initializer if len(weight.dims) > 1)
    biases = 4 * 3 * 32  # (1, 6 * hidden) for each layer, in one matrix
    assert numbers - biases == sum(p.numel() for p in ours.network.parameters() if p.dim() > 1)
    assert [node.op_type for node in graph.node if node.op_type in ("GRU", "Loop", "Scan")] == ["GRU"] * 2


def test_the_file_is_all_that_the_program_in_the_documentation_needs(trained_run, tmp_path, monkeypatch):
    result = script("-m lm", "export", trained_run, "hamlet.onnx", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(r"hamlet\.onnx: \d+ KB\n", result.stdout)
    page = (ROOT / "docs" / "export.md").read_text()
    (program,) = re.findall(r"^```python\n(import json.*?)^```", page, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    with redirect_stdout(io.StringIO()) as printed:
        exec(program.replace("HAMLET:", "The sea"), {})
    expected = lm.load(trained_run).generate("The sea", max_new_tokens=200, temperature=0)[0].text
    assert printed.getvalue() == expected + "\n"


@pytest.mark.parametrize("cell", list(CELLS))
@pytest.mark.parametrize("tie", [True, False])
def test_int8_takes_a_quarter_of_the_space_and_changes_little(cell, tie, tmp_path, caplog):
    ours = model(cell=cell, layers=2, hidden_size=128, embedding_size=100, tie=tie, noise=0.02)
    with torch.no_grad():
        ours.network.recurrent.weight_ih_l0[5] = 0  # has no scale
    tokens = np.random.default_rng(0).integers(TOKENIZER.vocab_size, size=(2, 30))
    sizes, found = [], []
    for precision in ("fp32", "int8"):
        path = tmp_path / f"{precision}.onnx"
        export(ours, path, precision)
        sizes.append(path.stat().st_size)
        runtime = onnxruntime.InferenceSession(path)
        found.append(run(runtime, tokens, [np.zeros((2, 2, 128), "f")] * len(CELLS[cell].states))[0])
    assert sizes[1] < 0.3 * sizes[0]
    logprobs = [torch.tensor(logits).log_softmax(-1) for logits in found]
    divergence = (logprobs[0].exp() * (logprobs[0] - logprobs[1])).sum(-1)
    assert 0 < divergence.mean() < 1e-3  # nats
    assert not caplog.records  # no advice of the quantizer


def test_int8_matrices_of_an_lstm_have_7_bits_and_a_scale_for_each_row(tmp_path):
    export(model(cell="lstm", layers=1, hidden_size=40, embedding_size=24), tmp_path / "a.onnx", "int8")
    graph = onnx.load(tmp_path / "a.onnx").graph
    stored = {weight.name: onnx.numpy_helper.to_array(weight) for weight in graph.initializer}
    for name, rows in (("input_map_0", 160), ("hidden_map_0", 160), ("decoder", TOKENIZER.vocab_size)):
        assert abs(stored[f"{name}_quantized"].astype(int)).max() == 64
        assert stored[f"{name}_scale"].size == rows


def test_the_metadata_names_the_direction_and_the_end():
    facts = {
        prop.key: prop.value
        for prop in onnx_model(model(hidden_size=4, direction="backward"), "fp32").metadata_props
    }
    assert (facts["direction"], facts["tokenizer"]) == ("backward", "char")
    assert facts["eos_token_id"] == facts["start_token_id"] == str(TOKENIZER.eos)
    assert json.loads(facts["suppress_tokens"]) == [TOKENIZER.unk]


def test_texts_of_words_have_no_end():
    words = train_tokenizer("word", iter([some_text(1000)]))
    exported = onnx_model(model(hidden_size=4, tokenizer=words), "fp32")
    facts = {prop.key: prop.value for prop in exported.metadata_props}
    assert (facts["eos_token_id"], facts["start_token_id"]) == ("", str(words.eos))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("pretrained model.txt", "cannot export to model.txt: name a file that ends in .onnx"),
        ("pretrained model", "cannot export to model: name a file that ends in .onnx"),
        ("pretrained no/such/model.onnx", "choose a file in an existing, writable folder"),
        ("pretrained folder.onnx", "choose a file in an existing, writable folder"),
        ("no-model model.onnx", "there is no model folder 'no-model'"),
        ("pretrained model.onnx --precision int4", "invalid choice: 'int4'"),
    ],
)
def test_what_cannot_be_exported_is_one_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.onnx").mkdir()
    result = called("export", *arguments.split())
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr and result.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == ["folder.onnx"]


@pytest.mark.parametrize("file", ["no/where.onnx", "no/where.html"])
@pytest.mark.parametrize("precision", ["auto", "int8"])
def test_a_file_that_cannot_be_written_is_an_error_of_one_line(file, precision):
    with pytest.raises(
        UserError, match=f"^cannot write {file}: No such file or directory; choose an existing"
    ):
        export(model(hidden_size=4, layers=1), file, precision)


@pytest.mark.parametrize("file", ["m.onnx", "m.html"])
def test_a_full_disk_is_one_line_that_names_the_file(file, tmp_path, monkeypatch):
    def fill(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lm.files.atomic.flush_to_disk", fill)
    result = called("export", "pretrained", file)
    assert (result.returncode, os.listdir(tmp_path)) == (2, [])
    assert result.stderr.startswith(
        f"error: cannot write {file}: No space left on device; free some space, or"
    )


@pytest.mark.parametrize("package", ["onnx", "onnxruntime.quantization"])
def test_without_the_packages_the_error_says_how_to_install_them(package, monkeypatch):
    monkeypatch.delitem(sys.modules, "lm.export.onnx")
    monkeypatch.setitem(sys.modules, package, None)  # cannot be imported
    result = called("export", "pretrained", "model.onnx")
    assert result.returncode == 2
    assert result.stderr.endswith("pip install 'recurrent-lm[export]'\n") and result.stderr.count("\n") == 1


def test_a_model_that_is_too_large_for_the_format_is_rejected_in_one_line(tmp_path):
    config = ModelConfig(cell="lstm", hidden_size=8000, layers=2)
    ours = LanguageModel(RecurrentLM.without_weights(config, TOKENIZER.vocab_size), TOKENIZER)
    with pytest.raises(UserError, match=r"less than 2 GB, too little for the 1,\d+,\d+,\d+ parameters"):
        export(ours, tmp_path / "large.onnx")


def test_an_ensemble_is_rejected_and_an_existing_file_stays(tmp_path):
    path, ours = tmp_path / "model.onnx", model(hidden_size=4)
    path.write_text("before")
    with pytest.raises(UserError, match="an ensemble can only generate, not be exported"):
        export(ours.mixed_with([(ours, 0.5)]), path)
    assert path.read_text() == "before"
    export(ours, path)
    onnx.checker.check_model(path, full_check=True)
    assert os.listdir(tmp_path) == ["model.onnx"]
