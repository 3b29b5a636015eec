"""Clamped units have the given values, and everything else is computed as before."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from lm.config.schema import CELL_NAMES, ModelConfig
from lm.errors import UserError
from lm.generation.clamp import Clamp, ClampedDecoder
from lm.generation.decoder import NetworkDecoder
from lm.generation.gpu_batch import GPUBatch
from lm.insight.trace import trace_text
from lm.language_model import LanguageModel
from lm.model import cells
from lm.model.network import RecurrentLM
from lm.session import Session
from lm.tokenization.vocabulary import train_tokenizer
from tests.generation.streams import VOCAB, network_of
from tests.model import recorded

UNITS = 24


class OnGPU(NetworkDecoder):
    """The arithmetic of the batch for GPUs, computed on a CPU."""

    def batch(self, after_layer=None):
        return GPUBatch(self._gpu_weights, after_layer)


def states_of(cell):
    return cells.CELLS[cell].states


def tokens_of(seed, count=12):
    return torch.randint(0, VOCAB, (count,), generator=torch.Generator().manual_seed(seed))


def by_the_equations(network, tokens, clamps):
    """The logits after each token, with the readable cells."""
    config = network.config
    stack = []
    for layer in range(config.layers):
        weights = network.recurrent.weights(layer)
        stack.append(cells.CELLS[config.cell](weights[0].shape[1], UNITS))
        for parameter, weight in zip(stack[-1].parameters(), _in_order(weights), strict=True):
            parameter.data = weight.detach()
    states = [tuple(torch.zeros(1, UNITS) for _ in states_of(config.cell)) for _ in stack]
    logits = []
    for token in tokens:
        x = network.embedding.weight[token][None]
        for layer, one in enumerate(stack):
            before, new = states[layer], one(x, states[layer])
            for clamp in clamps:
                if clamp.layer == layer and clamp.state == "c":
                    gates = one.input_map(x) + one.hidden_map(before[0])
                    o = cells.split_gates("lstm", gates)["o"][0, clamp.unit].sigmoid()
                    new[1][0, clamp.unit] = clamp.value
                    new[0][0, clamp.unit] = o * torch.tensor(clamp.value).tanh()
            for clamp in clamps:
                if clamp.layer == layer and clamp.state == "h":
                    new[0][0, clamp.unit] = clamp.value
            states[layer] = new
            x = new[0] + x if config.residual and layer > 0 else new[0]
        logits.append(network.decode(x)[0])
    return torch.stack(logits)


def _in_order(weights):
    w_ih, w_hh, b_ih, b_hh = weights
    return w_ih, b_ih, w_hh, b_hh  # as nn.Module lists those of input_map and hidden_map


def stepped(decoder, tokens, prefilled=0):
    batch, state = decoder.batch(), decoder.initial_state()
    batch.add(decoder.prefill(tokens[:prefilled], state) if prefilled else state)
    return torch.stack([batch.step(token[None])[0] for token in tokens[prefilled:]])


def clamps_of(cell, layers):
    one = st.builds(
        Clamp,
        layer=st.integers(0, layers - 1),
        unit=st.integers(0, UNITS - 1),
        value=st.sampled_from([0.0, 1.0, -0.7, 0.25]),
        state=st.sampled_from(states_of(cell)),
    )
    return st.lists(one, max_size=5, unique_by=lambda clamp: (clamp.layer, clamp.unit, clamp.state))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [NetworkDecoder, OnGPU])
@pytest.mark.parametrize("cell", CELL_NAMES)
@given(data=st.data(), layers=st.integers(1, 3), residual=st.booleans(), prefilled=st.integers(0, 4))
@settings(max_examples=12, deadline=None)
def test_clamped_steps_equal_the_equations(cell, kind, data, layers, residual, prefilled):
    network = network_of(cell, layers, residual=residual, embedding_size=5)
    clamps, tokens = data.draw(clamps_of(cell, layers)), tokens_of(data.draw(st.integers(0, 50)))
    with torch.no_grad():
        expected = by_the_equations(network, tokens, clamps)
        logits = stepped(ClampedDecoder(kind(network), clamps), tokens, prefilled)
    torch.testing.assert_close(logits, expected[prefilled:], atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [NetworkDecoder, OnGPU])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_clamping_to_the_value_that_a_unit_has_changes_no_bit(cell, kind, monkeypatch):
    monkeypatch.setattr("lm.model.cuda_graph.capture", recorded.record)
    decoder = kind(network_of(cell, layers=3))
    plain = decoder.batch()
    plain.add(decoder.initial_state())
    for token in tokens_of(1):
        before = plain.state(0)
        logits, after = plain.step(token[None]), plain.state(0)
        for name, part in zip(states_of(cell), after, strict=True):
            clamps = [
                Clamp(layer, unit, part[layer, 0, unit].item(), name)
                for layer, unit in ((0, 3), (0, 23), (1, 0), (2, 7), (2, 8), (2, 9))
            ]
            batch = ClampedDecoder(decoder, clamps).batch()
            batch.add(before)
            assert torch.equal(batch.step(token[None]), logits)
            assert all(map(torch.equal, batch.state(0), after))


@pytest.mark.slow
@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_a_unit_that_is_switched_off_is_one_without_outgoing_weights(cell, layer):
    network = network_of(cell, layers=3, residual=False, embedding_size=5)
    switched_off, tokens = ClampedDecoder(NetworkDecoder(network), [Clamp(layer, 5, 0.0)]), tokens_of(2)
    plain, clamped = stepped(NetworkDecoder(network), tokens), stepped(switched_off, tokens)
    with torch.no_grad():
        network.recurrent.weights(layer)[1][:, 5] = 0  # to the next step
        above = network.recurrent.weights(layer + 1)[0] if layer < 2 else _first_map(network)
        above[:, 5] = 0
    expected = stepped(NetworkDecoder(network), tokens)
    torch.testing.assert_close(clamped, expected, atol=1e-5, rtol=1e-4)
    assert (clamped - plain).abs().max() > 1e-3


def _first_map(network):
    return (network.decoder if network.projection is None else network.projection).weight


def model(cell="lstm"):
    torch.manual_seed(3)
    tokenizer = train_tokenizer("char", iter(["abcdefgh\n"]))
    network = RecurrentLM(ModelConfig(cell=cell, hidden_size=8), tokenizer.vocab_size)
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(4)
    return LanguageModel(network, tokenizer, {"trained_on": {"documents": 1}})


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_the_same_seed_gives_the_same_text_and_the_clamp_changes_it(cell):
    plain = model(cell)
    clamped = plain.clamped(Clamp(1, 2, 1.0), Clamp(0, 0, 0.0))

    def text(which, seed=1):
        return which.generate("abc", seed=seed, max_new_tokens=60)[0].text

    before = text(plain)
    assert (
        text(clamped)
        == text(clamped)
        == "".join(piece.text for piece in clamped.stream("abc", seed=1, max_new_tokens=60))
    )
    assert text(clamped) != before == text(plain)  # and the model itself is as it was
    assert text(plain.clamped()) == before
    assert "2 clamped units" in repr(clamped)


def test_sessions_read_and_continue_with_the_clamp(tmp_path):
    clamped = model().clamped(Clamp(1, 2, 0.5), Clamp(0, 1, -2.0, "c"))
    session = clamped.session()
    session.feed("abcabc")
    sampled = "".join(piece.text for piece in session.sample(seed=4, max_new_tokens=30))
    assert sampled == clamped.generate("abcabc", seed=4, max_new_tokens=30)[0].text
    session.rewind(5)
    h, c = session._states[len(session)]
    assert h[1, 0, 2] == 0.5 and c[0, 0, 1] == -2.0
    session.save(tmp_path / "one.session")
    assert Session.load(clamped, tmp_path / "one.session").text == session.text
    with pytest.raises(UserError, match="of another model"):
        Session.load(model(), tmp_path / "one.session")


def test_numbers_of_numpy_are_those_of_python():
    lstm = model()
    clamped = [
        lstm.clamped(Clamp(0, 1, 0.5), Clamp(0, 2, 0, "c")),
        lstm.clamped(Clamp(np.int64(0), np.int32(1), np.float32(0.5)), Clamp(0, 2, Fraction(0), "c")),
    ]
    first, second = (one.generator.decoder.fingerprint() for one in clamped)
    assert first == second


def test_clamps_that_do_not_fit_and_what_clamped_models_cannot_do_are_one_line_errors(tmp_path):
    lstm = model()
    for clamps, message in (
        ([Clamp(2, 0, 0.0)], "layer of a clamp must be between 0 and 1, got 2"),
        ([Clamp(0, 8, 0.0)], "unit of a clamp must be between 0 and 7, got 8"),
        ([Clamp(0, -1, 0.0)], "unit of a clamp must be between 0 and 7, got -1"),
        ([Clamp(0, 0, 1.5)], "h is always between -1 and 1 and cannot be clamped to 1.5"),
        ([Clamp(0, 0, float("nan"), "c")], "finite number, got nan"),
        ([Clamp(0, 0, 10**400, "c")], "finite number, got 1000"),
        ([Clamp(0, 0, 0.0, "z")], "the lstm cell has no state 'z' to clamp: choose h or c"),
        ([Clamp(0, 0, 0.0), Clamp(0, 0, 1.0)], "h of unit 0 in layer 0 is clamped twice"),
    ):
        with pytest.raises(UserError, match=message):
            lstm.clamped(*clamps)
    with pytest.raises(UserError, match="the gru cell has no state 'c'"):
        model("gru").clamped(Clamp(0, 0, 0.0, "c"))
    clamped = lstm.clamped(Clamp(0, 0, 0.0))
    for action in (
        lambda: clamped.score("abc"),
        lambda: clamped.save(tmp_path / "saved"),
        lambda: trace_text(clamped, "abc"),
    ):
        with pytest.raises(UserError, match="a model with clamped units can only generate"):
            action()
    for other in (clamped, lstm.mixed_with([(lstm, 0.5)])):
        with pytest.raises(UserError, match="units can be clamped only in a single model"):
            other.clamped(Clamp(0, 0, 0.0))
