"""Draws the next token of each row on a GPU: by one kernel, or by operations of torch."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from lm.config.schema import SamplingConfig
from lm.errors import one_line
from lm.generation.gpu_batch import GPUWeights
from lm.generation.gpu_kernels import Kernels, are_close, warn_once
from lm.generation.gpu_tables import Tables, Window
from lm.generation.samplers import SamplingTensors, apply_penalties, draw_without_waiting

_ROWS = 64  # of the check of the kernel
_ALIKE = 0.9  # share of them; rounding hardly ever makes another token the first above a random number


# Called with logits (rows, vocab), what is added to them (vocab,), the settings of the rows, the window if a
# row has a penalty, the tables, and the last token of each row.
Draw = Callable[[Tensor, Tensor, SamplingTensors, Window | None, Tables, Tensor], None]


def draw_with_torch(
    logits: Tensor,
    suppressed: Tensor,
    sampling: SamplingTensors,
    window: Window | None,
    tables: Tables,
    last: Tensor,
) -> None:
    """Draw the next token of each row, and write it to the tables, the window and `last`."""
    penalized, temperature = logits, sampling.temperature
    if window is not None:
        penalized = apply_penalties(logits, window.counts[:, :-1], sampling)
    if tables.temperatures is not None:
        temperature = tables.temperatures.index_select(0, tables.number).t()
    allowed = torch.addcdiv(suppressed, penalized, temperature)
    tokens = draw_without_waiting(allowed, tables.uniforms.index_select(0, tables.number)[0], sampling)
    logprobs = logits.log_softmax(dim=-1).gather(1, tokens[:, None])
    tables.tokens.index_copy_(0, tables.number, tokens[None])
    tables.logprobs.index_copy_(0, tables.number, logprobs.t())
    if window is not None:
        window.append(tokens)
    last.copy_(tokens)


def chosen_draw(weights: GPUWeights) -> Draw:
    """The kernel that draws tokens, if there is one and it works; else `draw_with_torch`."""
    kernels = weights.kernels
    if kernels is None:
        return draw_with_torch
    try:
        works = _works(kernels, weights.vocab_size, weights.device)
        reason = "" if works else "it draws other tokens than torch"
    except Exception as error:
        reason = one_line(error)
    if reason:
        warn_once(f"generation does not use its kernel for drawing and is therefore slower: {reason}")
        return draw_with_torch
    return kernels.draw


@functools.cache  # a training writes each of its samples with a new copy of the weights
def _works(kernels: Kernels, vocab_size: int, device: torch.device) -> bool:
    return all(draws_alike(kernels.draw, strength, vocab_size, device) for strength in (0.0, 1.0))


def draws_alike(draw: Draw, strength: float, vocab_size: int, device: torch.device) -> bool:
    """Whether `draw` does what `draw_with_torch` does, with all settings at a strength from 0 to 1."""
    found, expected = (_outcome(compute, strength, vocab_size, device) for compute in (draw, draw_with_torch))
    same = (found["tokens"] == expected["tokens"]).all(dim=1)
    return int(same.sum()) >= _ALIKE * _ROWS and all(
        are_close(found[name][same], expected[name][same]) for name in expected
    )


def _outcome(draw: Draw, strength: float, vocab_size: int, device: torch.device) -> dict[str, Tensor]:
    """What `draw` writes in two steps, each with its rows first."""
    configs = [
        SamplingConfig(
            temperature=1.0,
            greedy=strength * (row % 8) > 6,
            top_k=int(strength * (row % (vocab_size + 1))),
            typical_p=1 - 0.2 * strength * (row % 3),
            top_p=1 - 0.3 * strength * (row % 4),
            min_p=0.02 * strength * (row % 5),
            repetition_penalty=1 + strength * (row % 2),
            presence_penalty=0.3 * strength,
            frequency_penalty=-0.2 * strength,
        )
        for row in range(_ROWS)
    ]
    sampling = SamplingTensors.stack(configs, vocab_size, device)
    tables = Tables.create(2, _ROWS, device)
    window = None
    if strength:
        tables = tables._replace(temperatures=tables.uniforms.float() + 0.5)
        window = Window(4, _ROWS, vocab_size, device)
        for row in range(_ROWS):
            window.fill(row, [row % vocab_size, 0][: row % 3], 2 + row % 3)
    numbers = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(_ROWS, vocab_size, generator=numbers).to(device)
    suppressed = torch.randn(vocab_size, generator=numbers).to(device)
    last = torch.zeros(_ROWS, dtype=torch.long, device=device)
    for _ in range(2):
        draw(logits, suppressed, sampling, window, tables, last)
        tables.number.add_(1)
    outcome = {"last": last, "tokens": tables.tokens.t(), "logprobs": tables.logprobs.t()}
    if window is not None:
        outcome |= {"counts": window.counts, "ring": window.ring.t(), "next": window.next}
    return outcome
