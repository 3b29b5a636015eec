"""How well a model predicts a text: loss, perplexity, bits per character and per byte, and the
scores of each token."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lm.data.corpus import Counts
from lm.distributed import ALONE, Ranks
from lm.model.cells import State
from lm.model.device import autocast, widest_float
from lm.model.loss import top_logprobs
from lm.model.network import RecurrentLM

# A stream that starts inside the text first reads this many tokens without being scored. After
# so many, what the state was before makes no difference that a loss of five digits could show.
CONTEXT = 256
_MOST_STREAMS = 64
_WINDOW = 256  # divides CONTEXT


@dataclass(frozen=True)
class Validation:
    """The figures of one evaluation."""

    loss: float  # nats per token
    perplexity: float
    bits_per_character: float
    bits_per_byte: float
    tokens: int  # that were scored


def validate(
    network: RecurrentLM,
    tokens: np.ndarray,
    counts: Counts,
    eos: int,
    *,
    limit: int = 0,
    streams: int | None = None,
    precision: torch.dtype = torch.float32,
    ranks: Ranks = ALONE,
) -> Validation:
    """Predict every one of `tokens` (tokens,) exactly once.

    With `streams=1` the state is carried from the first token to the last. More streams share
    the text out and run side by side, each brought into the right state by reading the `CONTEXT`
    tokens before its share; by default there are as many as keep that overhead small. A `limit`
    scores only about so many tokens, spread evenly over the text. Several `ranks` read a share of
    the streams each.
    """
    device = next(network.parameters()).device
    total, scored = torch.zeros((), dtype=widest_float(device), device=device), 0
    for places, losses in _losses(network, tokens, eos, streams, limit, precision, ranks):
        total += losses.sum()
        scored += len(places)
    total, scored = ranks.sum(torch.tensor([total.item(), scored], dtype=torch.float64)).tolist()
    loss = total / scored
    bits = loss / math.log(2) * counts.tokens
    return Validation(
        loss=loss,
        perplexity=math.exp(min(loss, 700.0)),
        bits_per_character=bits / max(counts.characters, 1),
        bits_per_byte=bits / max(counts.bytes, 1),
        tokens=int(scored),
    )


def token_losses(
    network: RecurrentLM,
    tokens: np.ndarray,
    start: int,
    *,
    precision: torch.dtype = torch.float32,
    progress: Callable[[float], None] = lambda fraction: None,
) -> np.ndarray:
    """The loss (tokens,) in nats of each of `tokens` (tokens,), as `validate` computes it; the
    first one that is read is predicted after the token `start`."""
    result = np.zeros(len(tokens), np.float64)
    done = 0
    for places, losses in _losses(network, tokens, start, None, 0, precision):
        result[places] = losses.cpu().numpy()
        done += len(places)
        progress(done / len(tokens))
    return result


@torch.inference_mode()
def _losses(
    network: RecurrentLM,
    tokens: np.ndarray,
    start: int,
    streams: int | None,
    limit: int,
    precision: torch.dtype,
    ranks: Ranks = ALONE,
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Window by window the places (n,) of tokens and their losses (n,), left on the device; with
    several `ranks` those of this one's share of the streams."""
    backward = network.config.backward
    tokens = tokens[::-1] if backward else tokens  # in the order in which they are read
    if streams is None:
        streams = min(_MOST_STREAMS, len(tokens) // (4 * CONTEXT))
    streams = max(1, min(streams, len(tokens) // max(CONTEXT, 1)))
    device = next(network.parameters()).device
    bounds = np.arange(streams + 1) * len(tokens) // streams
    shares = np.diff(bounds)
    if limit:
        shares = np.minimum(shares, max(1, limit // streams))
    context = CONTEXT if streams > 1 else 0
    # Column j of a stream is the token at place first + j; places before the text are `start`.
    mine = ranks.share(streams)
    shares, first = shares[mine], bounds[:-1][mine] - context
    if not len(first):
        return
    state: State | None = None
    was_training = network.training
    network.eval()
    for begin in range(0, context + int(shares.max()), _WINDOW):
        end = min(begin + _WINDOW, context + int(shares.max()))
        places = first[:, None] + np.arange(begin - 1, end)[None, :]
        inside = places.clip(0, len(tokens) - 1)
        batch = np.where(places < 0, start, tokens[inside]).astype(np.int64)
        batch = torch.from_numpy(batch).to(device)
        if begin == context and streams > 1 and mine.start == 0:
            # The first stream has no text before it: it begins with an empty state.
            state = tuple(part.index_fill(1, torch.tensor([0], device=device), 0) for part in state)
        columns = np.arange(begin, end)[None, :] - context
        scored = (columns >= 0) & (columns < shares[:, None])
        with autocast(device, precision):
            logits, state = network(batch[:, :-1], state)
        if scored.any():
            wanted = torch.from_numpy(scored).to(device)
            losses = F.cross_entropy(logits[wanted].float(), batch[:, 1:][wanted], reduction="none")
            at = inside[:, 1:][scored]
            yield (len(tokens) - 1 - at if backward else at), losses
    network.train(was_training)


@dataclass(frozen=True)
class Score:
    """What a model thought of one token of a text."""

    text: str
    token: int
    logprob: float  # nats
    rank: int  # 1: the model's first choice
    entropy: float  # nats; how undecided the model was before it
    alternatives: tuple[tuple[str, float], ...] = ()  # the likeliest tokens with their logprobs


@torch.inference_mode()
def score_tokens(
    network: RecurrentLM, tokens: np.ndarray, start: int, alternatives: int = 0
) -> Iterator[tuple[float, int, float, list[tuple[int, float]]]]:
    """Yield log-probability (nats), rank, entropy (nats) and that many likeliest `alternatives` of each
    of `tokens` (tokens,) in the order in which the network reads them, the first one predicted after
    the token `start`."""
    tokens = tokens[::-1] if network.config.backward else tokens
    device = next(network.parameters()).device
    ids = torch.from_numpy(np.concatenate([[start], tokens]).astype(np.int64)).to(device)
    state: State | None = None
    for begin in range(0, len(tokens), _WINDOW):
        window = ids[begin : begin + _WINDOW + 1]
        logits, state = network(window[None, :-1], state)
        logprobs = F.log_softmax(logits[0].float(), dim=-1)
        chosen = logprobs.gather(1, window[1:, None])
        ranks = (logprobs > chosen).sum(dim=1) + 1
        entropies = _entropy(logprobs)
        others = top_logprobs(logprobs, alternatives)
        yield from zip(chosen[:, 0].tolist(), ranks.tolist(), entropies.tolist(), others, strict=True)


def _entropy(logprobs: Tensor) -> Tensor:
    """logprobs (..., vocab) -> entropy (...,) in nats."""
    return -(logprobs.exp() * logprobs).nan_to_num(0.0).sum(dim=-1)
