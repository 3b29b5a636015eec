"""How well a model predicts a text: loss, perplexity, bits per character and byte."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lm.data.corpus import Counts
from lm.distributed import ALONE, Ranks
from lm.evaluation.metrics import perplexity
from lm.model.cells import State
from lm.model.device import Precision, widest_float
from lm.model.inference import After, decoding, inference
from lm.model.loss import cross_entropies
from lm.model.network import RecurrentLM

# Tokens that warm up the state of a stream that begins inside the text. The state before them changes the
# mean loss by less than a thousandth, but that of single tokens by more: see token_losses.py.
CONTEXT = 256
WINDOW = 128  # tokens per forward pass; divides CONTEXT


@dataclass(frozen=True)
class Validation:
    """The result of an evaluation; `loss` is in nats per token."""

    loss: float  # nats per token
    perplexity: float
    bits_per_character: float
    bits_per_byte: float
    tokens: int  # number of tokens scored


def validate(
    network: RecurrentLM,
    tokens: np.ndarray,
    counts: Counts,
    start: int,
    *,
    limit: int = 0,
    streams: int | None = None,
    precision: Precision = Precision.FP32,
    ranks: Ranks = ALONE,
) -> Validation:
    """Evaluate the network on `tokens` (tokens,), predicting each exactly once. The text begins after the
    token `start`.

    With `streams=1`, the state is carried from the first token to the last. More streams read consecutive
    parts of the text in parallel, each warmed up on the `CONTEXT` tokens before its part; the default is as
    many as keep that overhead small. A `limit` scores only about `limit` tokens, spread evenly over the text.
    Each of several `ranks` reads a share of the streams.
    """
    device = network.device
    total, scored = torch.zeros((), dtype=widest_float(device), device=device), 0
    for losses in windows_of_losses(network, tokens, start, streams, limit, precision, ranks):
        total += losses.sum()
        scored += len(losses)
    total_nats, count = ranks.all_reduce(torch.tensor([total.item(), scored], dtype=torch.float64)).tolist()
    loss = total_nats / count
    bits = loss / math.log(2) * counts.tokens
    return Validation(
        loss=loss,
        perplexity=perplexity(loss),
        bits_per_character=bits / max(counts.characters, 1),
        bits_per_byte=bits / max(counts.bytes, 1),
        tokens=int(count),
    )


def default_streams(tokens: int, limit: int) -> int:
    """The number of streams in which a text is read: up to 64 if each has at least 4 times the `CONTEXT` that
    warms it up, and up to 192 if each scores at least 32 times as much. With more rows in each product,
    threads wait less for Python."""
    return max(min(64, tokens // (4 * CONTEXT)), min(192, (limit or tokens) // (32 * CONTEXT)))


@torch.inference_mode()
def windows_of_losses(
    network: RecurrentLM,
    tokens: np.ndarray,
    start: int,
    streams: int | None,
    limit: int,
    precision: Precision,
    ranks: Ranks = ALONE,
) -> Iterator[Tensor]:
    """Yield, window by window, the losses (n,) of the scored tokens, which stay on the device. Arguments
    as in `validate`; each of the `ranks` yields those of its own streams."""
    tokens = network.direction.reorder(tokens)
    if streams is None:
        streams = default_streams(len(tokens), limit)
    streams = max(1, min(streams, len(tokens) // CONTEXT))
    device = network.device
    bounds = np.arange(streams + 1) * len(tokens) // streams
    lengths = np.diff(bounds)
    if limit:
        lengths = np.minimum(lengths, max(1, limit // streams))
    context = CONTEXT if streams > 1 else 0
    own = ranks.share(streams)
    lengths, first = lengths[own], bounds[:-1][own] - context
    if not len(first):
        return
    steps = context + int(lengths.max())
    state: State | None = None
    decode = decoding(network, precision)
    with inference(network, precision, independent=False) as read:
        for begin in range(0, steps, WINDOW):
            end = min(begin + WINDOW, steps)
            # The offset of the token that each stream (row) reads at each step; `start` precedes the text.
            offsets = first[:, None] + np.arange(begin - 1, end)[None, :]
            ids = np.where(offsets < 0, start, tokens[offsets.clip(0, len(tokens) - 1)]).astype(np.int64)
            batch = torch.from_numpy(ids).to(device)
            if state is not None and begin == context and own.start == 0:
                # Nothing comes before the first stream: reset its state.
                state = tuple(part.index_fill(1, torch.tensor([0], device=device), 0) for part in state)
            step = np.arange(begin, end)[None, :] - context
            scored = (step >= 0) & (step < lengths[:, None])
            inputs, targets = batch.t()[:-1], batch.t()[1:]
            mask = torch.from_numpy(scored).to(device)
            losses, after = block_losses(decode, network.vocab_size, targets, mask.t())
            state = read(inputs, state, after)
            if scored.any():
                yield losses.t()[mask]


def block_losses(
    decode: Callable[[Tensor], Tensor], vocab_size: int, targets: Tensor, scored: Tensor
) -> tuple[Tensor, After]:
    """The losses (time, rows) of those `targets` (time, rows) int64 that are `scored` (time, rows), and the
    function that computes them, block by block, while `Read` reads."""
    losses = torch.empty(targets.shape, device=targets.device)

    @torch.inference_mode()
    def after(steps: slice, rows: slice, hidden: Tensor) -> None:
        mask, of_block = scored[steps, rows], targets[steps, rows]
        if mask.all():  # indexing would copy the hidden states, which takes 2% of the time
            found = cross_entropies(decode, vocab_size, hidden.flatten(0, 1), of_block.flatten())
            losses[steps, rows] = found.view(mask.shape)
        elif mask.any():
            losses[steps, rows][mask] = cross_entropies(decode, vocab_size, hidden[mask], of_block[mask])

    return losses, after
