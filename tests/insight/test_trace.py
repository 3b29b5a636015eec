"""A trace equals the readable cells, computed step by step, and maps steps to the text."""

from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from lm.errors import UserError
from lm.insight import trace as module
from lm.insight.spans import pieces, token_spans
from lm.insight.trace import trace_text
from lm.language_model import load
from lm.model.cells import CELLS
from lm.tokenization.documents import SEPARATOR
from lm.tokenization.vocabulary import KINDS
from tests.insight.networks import SHAPES, TEXTS, make
from tests.tokenization.test_positions import DOCUMENTS, joined

CLOSE = {"rtol": 1e-7, "atol": 1e-10}


@torch.no_grad()
def by_the_readable_cells(model, tokens):
    """For each layer, the states and gates at each token, in text order."""
    network, tokens = model.network, tokens.tolist()
    config = network.config
    cells, states = [], []
    for layer in range(config.layers):
        w_ih, w_hh, b_ih, b_hh = network.recurrent.weights(layer)
        cell = CELLS[config.cell](w_ih.shape[1], w_hh.shape[1]).double()
        names = ["input_map.weight", "hidden_map.weight", "input_map.bias", "hidden_map.bias"]
        cell.load_state_dict(dict(zip(names, (w_ih, w_hh, b_ih, b_hh), strict=True)))
        cells.append(cell)
        states.append((torch.zeros(1, config.hidden_size).double(),) * len(cell.states))
    rows = [[] for _ in cells]
    for token in [model.start_token, *(tokens[::-1] if model.backward else tokens)]:
        x = network.embedding.weight[[token]]
        for layer, cell in enumerate(cells):
            from_x, from_h = cell.input_map(x), cell.hidden_map(states[layer][0])
            states[layer] = cell(x, states[layer])
            found = dict(zip("hc", states[layer], strict=False))
            if config.cell == "lstm":
                gates = (from_x + from_h).chunk(4, dim=1)
                squash = [torch.sigmoid, torch.sigmoid, torch.tanh, torch.sigmoid]
                found |= {n: f(g) for n, f, g in zip("ifgo", squash, gates, strict=True)}
            if config.cell == "gru":
                (xr, xz, xn), (hr, hz, hn) = from_x.chunk(3, dim=1), from_h.chunk(3, dim=1)
                r = torch.sigmoid(xr + hr)
                found |= {"r": r, "z": torch.sigmoid(xz + hz), "n": torch.tanh(xn + r * hn)}
            rows[layer].append({name: value[0].numpy() for name, value in found.items()})
            x = states[layer][0] + x if config.residual and layer else states[layer][0]
    order = slice(None, 0, -1) if model.backward else slice(1, None)
    return [{n: np.array([row[n] for row in layer[order]]) for n in layer[0]} for layer in rows]


@pytest.mark.parametrize("cell", CELLS)
@given(shape=SHAPES, text=TEXTS, kind=st.sampled_from(KINDS), window=st.sampled_from([2, 5, 4096]))
@settings(deadline=None, max_examples=40)
def test_states_and_gates_equal_the_readable_cells(cell, shape, text, kind, window):
    model = make(kind, cell, **shape)
    with mock.patch.object(module, "_WINDOW", window):
        trace = trace_text(model, text)
        expected = by_the_readable_cells(model, model.tokenizer.encode(trace.text))
        for layer, states in enumerate(expected):
            assert set(trace.names) == set(states)
            for name, values in states.items():
                np.testing.assert_allclose(trace.values(layer, name), values, **CLOSE)
                unit = trace.units - 1
                np.testing.assert_allclose(trace.values(layer, name, unit), values[:, unit], **CLOSE)


@pytest.mark.parametrize("cell", CELLS)
@given(shape=SHAPES, text=TEXTS)
@settings(deadline=None, max_examples=20)
def test_the_output_of_the_last_layer_equals_the_network(cell, shape, text):
    model = make("char", cell, **shape)
    trace = trace_text(model, text)
    tokens = trace.tokens[::-1] if model.backward else trace.tokens
    with torch.no_grad():
        ids = torch.tensor([[model.start_token, *tokens.tolist()]])
        hidden, state = model.network.hidden_states(ids)
    np.testing.assert_allclose(trace.inputs(trace.layers), hidden[:, 0].numpy(), **CLOSE)
    for layer in range(trace.layers):
        np.testing.assert_allclose(trace.hidden[layer][-1], state[0][layer, 0].numpy(), **CLOSE)
        if cell == "lstm":
            np.testing.assert_allclose(trace.cell_state(layer)[-1], state[1][layer, 0].numpy(), **CLOSE)


@pytest.mark.parametrize("shape", [{}, {"tie": True, "embedding_size": 3}, {"direction": "backward"}])
def test_predictions_are_the_alternatives_of_the_model(shape):
    model = make("bpe", **shape)
    trace = trace_text(model, "the sea was calm")
    for token, score in enumerate(model.score(trace.text, alternatives=4)):
        names, logprobs = zip(*score.alternatives, strict=True)
        found = dict(trace.predictions(token, 4))
        assert list(found) == list(names)
        assert list(found.values()) == pytest.approx(np.exp(logprobs), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@given(documents=DOCUMENTS)
@settings(deadline=None, max_examples=40)
def test_tokens_span_their_characters(kind, documents):
    text = joined(documents)
    tokenizer = make(kind, hidden_size=1).tokenizer
    tokens = tokenizer.encode_bytes(text)
    starts, ends = token_spans(tokenizer, text, tokens)
    characters = text.decode("utf-8", "replace")
    assert (starts <= ends).all() and (np.diff(starts) >= 0).all() and (ends <= len(characters)).all()
    assert "".join(pieces(characters, starts)) == characters
    for token, start, end in zip(tokens.tolist(), starts.tolist(), ends.tolist(), strict=True):
        part = characters[start:end]
        if token == tokenizer.eos:
            assert part in ("\n", "\ufffd", "<eos>", "\n\ufffd")
        elif kind == "word":
            assert part.split() == [part]
            assert token == tokenizer.unk or part == tokenizer.backend.id_to_token(token)
        elif token != tokenizer.unk:
            assert tokenizer.bytes_of(token) in part.encode()
            assert kind != "char" or len(part) == 1


@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_bytes_of_one_character_span_it_and_the_last_one_shows_it(kind):
    text = "a中b"
    trace = trace_text(make(kind), text)
    assert [text[s:e] for s, e in zip(trace.starts, trace.ends, strict=True)][-1] == "b"
    if kind == "byte":
        assert trace.starts.tolist() == [0, 1, 1, 1, 2] and trace.ends.tolist() == [1, 2, 2, 2, 3]
        assert pieces(text, trace.starts) == ["a", "", "", "中", "b"]
        assert trace.token_at(1) == 3


def test_windows_line_ends_and_lone_surrogates_are_normalized_as_in_training():
    trace = trace_text(make(), "the\r\nsea\ud800")
    assert trace.text == "the\nsea?"
    assert trace_text(make(), "the\nsea?").hidden[0] == pytest.approx(trace.hidden[0])


def test_a_trained_model_reads_without_dropout(trained_run, text_file):
    model = load(trained_run, device="cpu")
    text = text_file.read_text()[:300]
    fractions = []
    before = trace_text(model, text, progress=fractions.append)
    assert fractions[-1] == 1
    model.network.train()
    assert np.array_equal(trace_text(model, text).hidden[0], before.hidden[0])
    assert model.network.training


def test_layers_units_and_characters_out_of_range_raise_a_user_error():
    with pytest.raises(UserError, match="the text is empty"):
        trace_text(make(), "")
    with pytest.raises(UserError, match="knows none of the characters"):
        trace_text(make(), "ЖЩ")
    trace = trace_text(make("char", "gru", layers=2, hidden_size=3), "the")
    for layer, name, unit, message in (
        (2, "h", None, "layer must be between 0 and 1, got 2"),
        (-1, "h", None, "layer must be .* got -1"),
        (0, "h", 3, "unit must be between 0 and 2, got 3"),
        (0, "h", 1.0, "unit must be a whole number, got 1.0"),
        (0, "c", 0, "the gru cell has no 'c': choose one of h, r, z, n"),
    ):
        with pytest.raises(UserError, match=message):
            trace.values(layer, name, unit)
    with pytest.raises(UserError, match="character must be between 0 and 2, got 3"):
        trace.token_at(3)


def test_a_separator_is_one_character():
    text = b"the" + SEPARATOR + b"sea"
    tokenizer = make("char").tokenizer
    starts, ends = token_spans(tokenizer, text, tokenizer.encode_bytes(text))
    assert starts.tolist() == list(range(7)) and ends.tolist() == list(range(1, 8))


def test_the_character_read_last_depends_on_the_direction():
    for direction, expected in (("forward", [2, 6, 10]), ("backward", [0, 3, 7])):
        trace = trace_text(make("bpe", direction=direction), "the sea the")
        assert trace.last_read.tolist() == expected
