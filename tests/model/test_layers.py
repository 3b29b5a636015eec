"""The regularizers against plain references, and the three ways to compute a layer."""

import copy
import warnings
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from lm.config.schema import ModelConfig
from lm.model import layers as module
from lm.model.cells import CELLS, RecurrentStack
from lm.model.cpu_kernels import cpu_layer
from lm.model.device import Precision, autocast, choose_precision
from lm.model.layers import cudnn_layer, drop, one_buffer, reference_layer
from lm.model.network import RecurrentLM


def network(cell="lstm", residual=False, **settings):
    torch.manual_seed(0)
    config = ModelConfig(cell=cell, hidden_size=6, embedding_size=5, residual=residual, **settings)
    return RecurrentLM(config, 11).double()


TOKENS = torch.randint(0, 11, (3, 8), generator=torch.Generator().manual_seed(1))


def reference(model, weights, x):
    """The hidden states of the readable cells for x (time, batch, input) with these recurrent weights."""
    stack = RecurrentStack(model.config.cell, 5, 6, 2).double()
    stack.load_state_dict(weights)
    return stack(x.transpose(0, 1))[0].transpose(0, 1)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("implementation", ["fused", "reference"])
def test_residual_connections_surround_every_layer_but_the_first(cell, implementation):
    model = network(cell, residual=True, layers=3, cell_implementation=implementation)
    x = model.embedding(TOKENS.t())
    for layer in range(3):
        alone = RecurrentStack(cell, x.shape[2], 6).double()
        names = alone.state_dict()
        alone.load_state_dict({n: getattr(model.recurrent, n.replace("l0", f"l{layer}")) for n in names})
        output = alone(x.transpose(0, 1))[0].transpose(0, 1)
        x = x + output if layer else output
    torch.testing.assert_close(model.hidden_states(TOKENS)[0], x)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("implementation", ["fused", "reference"])
def test_weight_dropout_uses_one_mask_for_all_steps(cell, implementation):
    model = network(cell, weight_dropout=0.4, cell_implementation=implementation)
    torch.manual_seed(5)
    hidden, _ = model.hidden_states(TOKENS)
    torch.manual_seed(5)
    weights = dict(model.recurrent.state_dict())
    for name in ("weight_hh_l0", "weight_hh_l1"):
        weights[name] = F.dropout(weights[name], 0.4)
    assert (weights["weight_hh_l0"] == 0).double().mean() > 0.2
    torch.testing.assert_close(hidden, reference(model, weights, model.embedding(TOKENS.t())))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("has_kernels", [True, False])
def test_bf16_is_close_to_float32_on_every_cpu(cell, has_kernels, monkeypatch):
    model = network(cell).float().eval()
    exact, _ = model(TOKENS)
    if not has_kernels:  # as without AVX-512, where torch's LSTM raises an error
        monkeypatch.setattr("lm.model.onednn.supports", lambda dtype: False)
        monkeypatch.setattr("lm.model.layers.fused_kernel", lambda cell: pytest.fail)
    with torch.autocast("cpu", torch.bfloat16):
        rough, _ = model(TOKENS)
        model.loss(TOKENS, TOKENS)[0].backward()
    torch.testing.assert_close(rough.float(), exact, rtol=0, atol=0.03)
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


@pytest.mark.parametrize("cell", CELLS)
def test_without_the_private_kernels_of_torch_a_network_computes_the_same(cell, monkeypatch):
    model = network(cell)
    expected, _ = model(TOKENS)
    monkeypatch.delattr(torch, "_VF")
    monkeypatch.setattr("lm.model.onednn.packed_linear", lambda weight, bias, rows: None)
    torch.testing.assert_close(model(TOKENS)[0], expected)


@pytest.mark.parametrize(("hidden", "only_avx2", "ours"), [(40, False, 0), (512, False, 1), (512, True, 0)])
def test_only_a_large_lstm_with_avx512_is_not_left_to_onednn(hidden, only_avx2, ours, monkeypatch):
    calls = []
    monkeypatch.setattr(module, "_ONLY_AVX2", only_avx2)
    monkeypatch.setattr(module, "cpu_layer", lambda *given: calls.append(1) or cpu_layer(*given))
    torch.manual_seed(0)
    model = RecurrentLM(ModelConfig(hidden_size=hidden, embedding_size=5, layers=1), 11)
    found = model.hidden_states(TOKENS)[0]
    assert len(calls) == ours
    model.recurrent.config = replace(model.config, cell_implementation="reference")
    torch.testing.assert_close(found, model.hidden_states(TOKENS)[0])


@pytest.mark.parametrize("cell", CELLS)
def test_dropped_weights_get_no_gradient(cell):
    model = network(cell, weight_dropout=0.4)
    torch.manual_seed(5)
    model.loss(TOKENS, TOKENS)[0].backward()
    torch.manual_seed(5)
    mask = F.dropout(torch.ones_like(model.recurrent.weight_hh_l0), 0.4) > 0
    gradient = model.recurrent.weight_hh_l0.grad
    assert (gradient[~mask] == 0).all()
    assert (gradient[mask] != 0).all()


def test_locked_dropout_drops_the_same_units_at_every_step():
    torch.manual_seed(0)
    x = torch.ones(50, 4, 30)
    locked = drop(x, 0.3, locked=True, training=True)
    assert (locked == locked[0]).all()
    assert locked.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert not (locked[0, 0] == locked[0, 1]).all()  # each stream has its own mask
    free = drop(x, 0.3, locked=False, training=True)
    assert not (free == free[0]).all()
    assert drop(x, 0.3, locked=True, training=False) is x


def test_embedding_dropout_drops_whole_token_types():
    model = network(embedding_dropout=0.5)
    torch.manual_seed(3)
    mask = F.dropout(torch.ones(11, 1, dtype=torch.float64), 0.5)
    torch.manual_seed(3)
    hidden, _ = model.hidden_states(TOKENS)
    x = F.embedding(TOKENS.t(), model.embedding.weight * mask)
    torch.testing.assert_close(hidden, reference(model, model.recurrent.state_dict(), x))


@pytest.mark.parametrize("where", ["input_dropout", "dropout", "output_dropout"])
def test_each_dropout_applies_where_its_name_says_and_only_in_training(where):
    model = network(**{where: 0.5})
    torch.manual_seed(1)
    hidden, _ = model.hidden_states(TOKENS)
    logits, _ = model(TOKENS)
    clean = network().hidden_states(TOKENS)[0]
    assert torch.equal(hidden, clean) == (where == "output_dropout")
    assert not torch.equal(logits, network()(TOKENS)[0])
    model.eval()
    torch.testing.assert_close(model(TOKENS)[0], network()(TOKENS)[0])


def test_activation_penalties_match_their_definitions():
    model = network(activation_reg=2.0, temporal_activation_reg=3.0, output_dropout=0.4)
    torch.manual_seed(1)
    _, penalty, _ = model.loss(TOKENS, TOKENS)
    torch.manual_seed(1)
    hidden, _ = model.hidden_states(TOKENS)
    dropped = drop(hidden, 0.4, locked=True, training=True)
    size = torch.stack([step.square().mean() for step in dropped]).mean()
    change = torch.stack([(b - a).square().mean() for a, b in pairwise(hidden)]).mean()
    torch.testing.assert_close(penalty, 2 * size + 3 * change, check_dtype=False)


@pytest.mark.parametrize("tie", [True, False])
def test_the_loss_is_the_cross_entropy_of_the_logits(tie):
    model = network(tie=tie).eval()
    loss, penalty, state = model.loss(TOKENS[:, :-1], TOKENS[:, 1:])
    logits, end = model(TOKENS[:, :-1])
    torch.testing.assert_close(loss, F.cross_entropy(logits.flatten(0, 1), TOKENS[:, 1:].flatten()))
    assert penalty == 0
    torch.testing.assert_close(state, end)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("limit", [2048, 3])  # steps at a time: all, or 3 + 3 + 2
def test_the_cudnn_layer_equals_the_readable_cells(cell, limit, monkeypatch):
    monkeypatch.setattr("lm.model.layers.CUDNN_STEPS", limit)
    results = []
    for compute in (cudnn_layer, reference_layer):
        torch.manual_seed(0)
        rows = 6 * len(CELLS[cell].gates)
        shapes = [(8, 3, 5), *[(3, 6)] * len(CELLS[cell].states), (rows, 5), (rows, 6), (rows,), (rows,)]
        x, *state, w_ih, w_hh, b_ih, b_hh = inputs = [
            torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes
        ]
        out, final = compute(cell, x, tuple(state), [w_ih, w_hh, b_ih, b_hh])
        loss = (out.square() * torch.arange(8.0)[:, None, None]).sum() + sum(s.sum() for s in final)
        results.append((out, final, torch.autograd.grad(loss, inputs)))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_weights_of_a_cudnn_layer_follow_each_other_in_memory(dtype):
    weights = network().float().recurrent.weights(1)
    copies = one_buffer(weights, dtype)
    torch.testing.assert_close(copies, [weight.to(dtype) for weight in weights], rtol=0, atol=0)
    size, place = copies[0].element_size(), copies[0].untyped_storage().data_ptr()
    for weight in copies:
        assert weight.is_contiguous()
        assert weight.data_ptr() == place
        place += weight.numel() * size
    assert copies[0].untyped_storage().nbytes() == sum(weight.numel() for weight in copies) * size


def test_the_cudnn_layer_uses_the_precision_of_matrix_products():
    model = network("gru").float()
    x, state = torch.randn(8, 3, 5), (torch.zeros(3, 6),) * 2
    with torch.autocast("cpu", torch.bfloat16):  # with a GRU, because some CPUs have no LSTM in bfloat16
        out, final = cudnn_layer("gru", x, state[:1], model.recurrent.weights(0))
    assert {out.dtype, *(part.dtype for part in final)} == {torch.bfloat16}


def results_of(model, device, name):
    """Hidden states (time, batch, hidden) and gradients of a loss, computed on `device` in this precision."""
    model, tokens = copy.deepcopy(model).to(device), TOKENS.to(device)
    with autocast(device, choose_precision(name, device)):
        loss, _, _ = model.loss(tokens[:, :-1], tokens[:, 1:])
        hidden, _ = model.hidden_states(tokens)
    loss.backward()
    return hidden.double().cpu(), torch.cat([w.grad.double().flatten().cpu() for w in model.parameters()])


def assert_close(found, exact, eps):
    """Compare results of `results_of`. Products round their operands to half of `eps`; a few steps and layers
    add up. The functions of a GPU are exact to about six digits."""
    tolerance = max(4 * eps, 1e-5)
    torch.testing.assert_close(found[0], exact[0], rtol=0, atol=tolerance)
    assert (found[1] - exact[1]).norm() < tolerance * exact[1].norm()


@pytest.mark.parametrize("cell", CELLS)
def test_bf16_is_as_close_to_the_readable_cells_as_its_eps_allows(cell):
    exact = results_of(network(cell, cell_implementation="reference"), torch.device("cpu"), "fp32")
    assert_close(results_of(network(cell).float(), torch.device("cpu"), "bf16"), exact, 2**-7)


@pytest.mark.gpu
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("precision", Precision)
def test_cudnn_is_as_close_to_the_readable_cells_as_the_precision_allows(cell, precision):
    exact = results_of(network(cell, cell_implementation="reference"), torch.device("cpu"), "fp32")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # above all: that the weights must be copied again
        found = results_of(network(cell).float(), torch.device("cuda"), precision.value)
    assert_close(found, exact, precision.eps)


@pytest.mark.gpu
@pytest.mark.parametrize("cell", CELLS)
def test_cudnn_reads_long_texts(cell):
    model, tokens = network(cell).float(), torch.randint(0, 11, (1, 120_000))
    choose_precision("fp32", torch.device("cuda"))
    with torch.inference_mode():
        end = model.hidden_states(tokens[:, -500:])[0][-1]  # it has long forgotten what came before
        on_gpu = model.cuda().hidden_states(tokens.cuda())[0][-1]
    torch.testing.assert_close(on_gpu.cpu(), end, rtol=0, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("cell", CELLS)
def test_cudnn_computes_gradients_without_training_mode(cell):
    model = network(cell, dropout=0.5).float().eval()
    exact = results_of(model, torch.device("cpu"), "fp32")
    assert_close(results_of(model, torch.device("cuda"), "fp32"), exact, 0.0)
