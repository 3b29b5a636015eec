"""Reads many texts at once without gradients, for evaluation.

On a CPU this differs from the forward pass of lm/model/layers.py in speed only:

- What each token contributes to the gates of the first layer is looked up in a table.
- Nothing is stored for a backward pass, and hidden states are kept for only a few steps, so memory is reused
  while it is still in the cache.
- A lower precision applies to the products only. The state and its arithmetic are at least float32.
- Each core reads its own share of the texts and scores it. Within one operation, cores would wait for each
  other at every step.

Where oneDNN's products allow it (`onednn.rows_are_independent`), the results for a text are the same to
the last bit whatever other texts are read with it, and in whatever windows it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional as F

from lm.distributed import share_of
from lm.model.cell_step import Functions, Gates, advance, gate_views, group_gates
from lm.model.cells import CELLS, State
from lm.model.device import Precision, autocast
from lm.model.layers import LARGE
from lm.model.network import RecurrentLM
from lm.model.onednn import ROWS, linear

# Called with a slice of the steps, a slice of the rows and the hidden states of the last layer there (steps,
# rows, hidden), on the core that read them.
After = Callable[[slice, slice, Tensor], None]


class Read(Protocol):
    """A function that reads tokens."""

    def __call__(self, tokens: Tensor, state: State | None, after: After) -> State:
        """tokens (time, rows) int64, the state before them -> the state after them. `after` gets the hidden
        states of each block of steps and rows, in the order of the steps."""


_STEPS = 16  # whose hidden states are kept
_MIN_ROWS = 8  # for a core of its own
MAX_TABLE = 2**25  # numbers in a table of what each token adds to the gates of the first layer
_VECTOR = 32  # numbers that torch computes together: twice as many as AVX-512 has in a register
# torch would convert a Python number at each call.
_ONE, _TWO = (torch.tensor(number, dtype=torch.float32, device="cpu") for number in (1.0, 2.0))


def _tanh(x: Tensor, out: Tensor) -> None:
    """tanh(x) = 2 σ(2x) - 1, with an absolute error of 2e-7 in float32: torch.tanh takes three times as long.

    torch computes σ in vectors, and rounds the rest differently. So that each row has the same result in any
    tensor, rows have to be full vectors.
    """
    if x.shape[-1] % _VECTOR:
        torch.tanh(x, out=out)
    else:
        torch.mul(x, _TWO, out=out).sigmoid_().mul_(_TWO).sub_(_ONE)


_FUNCTIONS = Functions(Tensor.sigmoid_, _tanh)


@contextmanager
def inference(network: RecurrentLM, precision: Precision, *, independent: bool = True) -> Iterator[Read]:
    """Yield the function `read`, which uses the weights that the network has now.

    On other devices than a CPU, or with the readable cells, `read` is the network's own forward pass. For a
    small LSTM that is faster: it is used unless the results for a text have to be `independent` of the other
    texts.
    """
    was_training, config = network.training, network.config
    is_faster = config.cell != "lstm" or config.hidden_size >= LARGE  # than the forward pass
    network.eval()
    try:
        if _has_own_reader(network) and (independent or is_faster):
            weights = _packed(network, precision, keep=not was_training)
            with ThreadPoolExecutor(torch.get_num_threads()) as pool:
                yield _CPUReader(weights, pool).read
        else:
            yield partial(_forward, network, precision)
    finally:
        network.train(was_training)


def decoding(network: RecurrentLM, precision: Precision) -> Callable[[Tensor], Tensor]:
    """A function from hidden states (rows, hidden), as `read` returns them, to logits (rows, vocab).

    As above, the logits of a row depend on this row alone. In the network's own decoder, products of few rows
    are rounded differently.
    """
    device = network.device
    if not _has_own_reader(network):

        def decode(hidden: Tensor) -> Tensor:
            with autocast(device, precision):
                return network.decode(hidden)

        return decode
    return _packed(network, precision, keep=not network.training).decode


def _has_own_reader(network: RecurrentLM) -> bool:
    """Whether this file reads for the network: on a CPU, except with the readable cells."""
    on_cpu = network.device.type == "cpu"
    return on_cpu and network.config.cell_implementation != "reference"


@torch.inference_mode()
def _forward(
    network: RecurrentLM,
    precision: Precision,
    tokens: Tensor,
    state: State | None,
    after: After,
) -> State:
    with autocast(tokens.device, precision):
        hidden, state = network.hidden_states(tokens.t(), state)
    after(slice(len(tokens)), slice(tokens.shape[1]), hidden)
    return state


class _Weights:
    """The weights of a network, packed for products in `dtype`."""

    def __init__(self, network: RecurrentLM, dtype: torch.dtype):
        self.config, self.dtype = network.config, dtype
        self.embedding = network.embedding.weight.detach().to(dtype)
        self.layers = [
            _Layer(self.config.cell, network.recurrent.weights(layer), dtype)
            for layer in range(self.config.layers)
        ]
        self.table: Tensor | None = None  # the contribution of each token to the gates of the first layer
        projection, decoder = network.projection, network.decoder
        self._project = projection and linear(projection.weight.detach().to(dtype), None, ROWS)
        self._to_logits = linear(decoder.weight.detach().to(dtype), decoder.bias.detach().to(dtype), ROWS)

    def prepare(self, tokens: int) -> None:
        """Compute the table if reading this many tokens is worth it."""
        vocab, width = len(self.embedding), len(CELLS[self.config.cell].gates) * self.config.hidden_size
        if self.table is None and vocab <= tokens and vocab * width <= MAX_TABLE:
            self.table = self.layers[0].from_input(self.embedding).to(_wide(self.dtype))

    def decode(self, hidden: Tensor) -> Tensor:
        """hidden (rows, hidden) -> logits (rows, vocab)."""
        return self._to_logits(self._project(hidden) if self._project else hidden)


# Packing takes longer than scoring a short text: the packed weights of a network are kept until it changes.
_kept: WeakKeyDictionary[RecurrentLM, tuple[object, _Weights]] = WeakKeyDictionary()


def _packed(network: RecurrentLM, precision: Precision, keep: bool) -> _Weights:
    dtype = network.embedding.weight.dtype if precision is Precision.FP32 else precision.dtype
    weights = [*network.parameters()]
    if not keep or any(weight.is_inference() for weight in weights):  # whose changes torch does not count
        return _Weights(network, dtype)
    version = dtype, [(weight.data_ptr(), weight._version) for weight in weights]
    kept = _kept.get(network)
    if kept is None or kept[0] != version:
        kept = _kept[network] = version, _Weights(network, dtype)
    return kept[1]


class _CPUReader:
    """Reads with the threads of `pool`."""

    def __init__(self, weights: _Weights, pool: ThreadPoolExecutor):
        self._weights, self._pool, self._cores = weights, pool, torch.get_num_threads()

    @torch.inference_mode()
    def read(self, tokens: Tensor, state: State | None, after: After) -> State:
        """See `Read`."""
        rows, config, dtype = tokens.shape[1], self._weights.config, self._weights.dtype
        if state is None:
            zeros = torch.zeros(config.layers, rows, config.hidden_size, dtype=_wide(dtype))
            state = (zeros,) * len(CELLS[config.cell].states)
        self._weights.prepare(tokens.numel())
        parts = tuple(part.clone() for part in state)
        shares = max(1, min(self._cores, rows // _MIN_ROWS))
        if shares == 1:
            self._read(slice(rows), tokens, parts, after)
            return parts
        started = [
            self._pool.submit(self._read_on_one_core, share_of(rows, share, shares), tokens, parts, after)
            for share in range(shares)
        ]
        for each in started:
            each.result()
        torch.set_num_threads(self._cores)  # with which later threads start
        return parts

    @torch.inference_mode()
    def _read_on_one_core(self, rows: slice, tokens: Tensor, state: State, after: After) -> None:
        torch.set_num_threads(1)  # of this thread
        self._read(rows, tokens[:, rows].contiguous(), tuple(part[:, rows] for part in state), after)

    def _read(self, rows: slice, tokens: Tensor, state: State, after: After) -> None:
        """Read the tokens of some rows, and update their state in place."""
        for begin in range(0, len(tokens), _STEPS):
            block = tokens[begin : begin + _STEPS]
            after(slice(begin, begin + len(block)), rows, self._hidden_states(block, state))

    def _hidden_states(self, tokens: Tensor, state: State) -> Tensor:
        """The hidden states (time, rows, hidden) of the last layer; updates `state` in place."""
        weights, x = self._weights, torch.empty(0)
        for number, layer in enumerate(weights.layers):
            look_up = None
            if number > 0:
                from_input = layer.from_input(x)
            elif weights.table is not None:
                # All steps share memory, which stays in the cache.
                gates = weights.table.new_empty(tokens.shape[1], weights.table.shape[1])
                from_input = gates.expand(len(tokens), -1, -1)
                look_up = partial(_look_up, weights.table, tokens, gates)
            else:
                from_input = layer.from_input(F.embedding(tokens, weights.embedding))
            below, x = x, torch.empty(*tokens.shape, weights.config.hidden_size, dtype=weights.dtype)
            layer.run(from_input, look_up, [part[number] for part in state], x)
            if weights.config.residual and number > 0:
                x += below
        return x


class _Layer:
    """One recurrent layer; its gates are grouped as lm/model/cell_step.py needs them."""

    def __init__(self, cell: str, weights: list[Tensor], dtype: torch.dtype):
        w_ih, w_hh, b_ih, b_hh = (torch.cat(group_gates(cell, weight.detach())) for weight in weights)
        self._cell = cell
        # Gates that are the sum of what input and hidden state contribute. The reset gate of a GRU multiplies
        # the hidden state's part of the candidate.
        summed = len(w_ih) * 2 // 3 if cell == "gru" else len(w_ih)
        b_ih[:summed] += b_hh[:summed]
        b_hh[:summed] = 0
        self.from_input = linear(w_ih.to(dtype), b_ih.to(dtype), ROWS)
        self._from_hidden = linear(w_hh.to(dtype), b_hh.to(dtype) if cell == "gru" else None, ROWS)

    def run(
        self, gates: Tensor, look_up: Callable[[int], object] | None, state: list[Tensor], out: Tensor
    ) -> None:
        """Write the hidden states (time, rows, hidden) to `out`, and update the parts of `state` (rows,
        hidden) in place. `gates` (time, rows, gates * hidden) are overwritten: the contribution of each
        step's input, which `look_up` writes before the step if there is such a function."""
        wide, size = state[0].dtype, state[0].shape[1]
        before, gates = state[0].to(out.dtype), gates.to(wide)
        # All cells but the GRU only write their hidden state: to `out`, unless it is rounded there.
        directly = self._cell != "gru" and out.dtype == wide
        steps = zip(gates.unbind(), _views(self._cell, gates), out.unbind(), strict=True)
        for step, (together, views, hidden) in enumerate(steps):
            if look_up:
                look_up(step)
            from_hidden, candidate_input = self._from_hidden(before).to(wide), None
            if self._cell == "gru":
                views.sigmoids.add_(from_hidden[:, :-size])
                candidate_input, views = views.candidate, views._replace(candidate=from_hidden[:, -size:])
            else:
                together.add_(from_hidden)
            h = hidden if directly else state[0]
            advance(self._cell, views, candidate_input, [h, *state[1:]], _FUNCTIONS)
            before = hidden.copy_(h)
        if directly:
            state[0].copy_(before)


def _look_up(table: Tensor, tokens: Tensor, out: Tensor, step: int) -> None:
    torch.index_select(table, 0, tokens[step], out=out)


def _views(cell: str, gates: Tensor) -> list[Gates[Tensor]]:
    """gates (time, rows, gates * hidden) -> the views of each step."""
    views = gate_views(cell, gates)
    each = [gate.unbind() for gate in views.each]
    both = zip(views.sigmoids.unbind(), views.candidate.unbind(), strict=True)
    return [
        Gates(sigmoids, tuple(gate[step] for gate in each), candidate)
        for step, (sigmoids, candidate) in enumerate(both)
    ]


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The type of the state where products are computed in `dtype`."""
    return torch.promote_types(dtype, torch.float32)
