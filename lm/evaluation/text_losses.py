"""Losses of many texts that are read side by side, each from the zero state."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from lm.evaluation.validation import WINDOW, block_losses
from lm.model.cells import State
from lm.model.device import Precision
from lm.model.inference import decoding, inference
from lm.model.network import RecurrentLM

_ROWS = 256  # texts at a time


@torch.inference_mode()
def losses_of_texts(
    network: RecurrentLM,
    tokens: np.ndarray,
    bounds: np.ndarray,
    start: int,
    *,
    precision: Precision = Precision.FP32,
    progress: Callable[[float], None] = lambda fraction: None,
) -> np.ndarray:
    """The loss (tokens,) float64 of each of `tokens` (tokens,) in nats.

    Text i has the tokens from `bounds[i]` to `bounds[i + 1]` of `bounds` (texts + 1,) and is read from the
    zero state, after the token `start`. Texts of similar length are read together; the result for a text
    does not depend on the others, to the last bit where `onednn.rows_are_independent`.
    """
    lengths = np.diff(bounds)
    longest_first = np.argsort(-lengths, kind="stable")
    longest_first = longest_first[lengths[longest_first] > 0]
    result, done = np.zeros(len(tokens), np.float64), 0
    device, decode = network.device, decoding(network, precision)
    with inference(network, precision) as read:
        for first in range(0, len(longest_first), _ROWS):
            rows = longest_first[first : first + _ROWS]
            state: State | None = None
            for begin in range(0, int(lengths[rows[0]]), WINDOW):
                rows = rows[lengths[rows] > begin]  # those that have not ended
                length = lengths[rows]
                step = np.arange(begin, min(begin + WINDOW, int(length[0])))[:, None]
                scored = step < length  # (time, rows)
                offsets = bounds[rows] + network.direction.position(np.minimum(step, length - 1), length)
                targets = tokens[offsets].astype(np.int64)
                before = bounds[rows] + network.direction.position(np.maximum(begin - 1, 0), length)
                entry = tokens[before].astype(np.int64) if begin else np.full(len(rows), start)
                inputs = torch.from_numpy(np.concatenate([entry[None], targets[:-1]])).to(device)
                if state is not None:
                    state = tuple(part[:, : len(rows)].contiguous() for part in state)
                wanted, mask = torch.from_numpy(targets).to(device), torch.from_numpy(scored).to(device)
                losses, after = block_losses(decode, network.vocab_size, wanted, mask)
                state = read(inputs, state, after)
                result[offsets[scored]] = losses.cpu().numpy()[scored]
                done += int(scored.sum())
                progress(done / len(tokens))
    return result
