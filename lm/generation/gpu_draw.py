"""Draws the next token of each row with operations of torch, and checks that a kernel draws the same."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from lm.config.schema import SamplingConfig
from lm.generation.gpu_kernels import Kernels
from lm.generation.gpu_tables import Draw, DrawArguments, Window
from lm.generation.samplers import SamplingTensors, apply_penalties, draw_without_waiting

_ROWS = 64  # of the check
_ALIKE = 0.9  # share of rows with the same tokens; rounding rarely changes one
_TOLERANCE = 0.01  # relative; bfloat16 rounds by up to 0.004


def draw_with_torch(logits: Tensor, arguments: DrawArguments) -> None:
    """Draw the next token of each row from logits (rows, vocab)."""
    suppressed, sampling, window, step, uniforms, temperatures, last, tokens, logprobs = arguments
    penalized, temperature = logits, sampling.temperature
    if window is not None:
        penalized = apply_penalties(logits, window.counts[:, :-1], sampling)
    if temperatures is not None:
        temperature = temperatures.index_select(0, step).t()
    allowed = torch.addcdiv(suppressed, penalized, temperature)
    drawn = draw_without_waiting(allowed, uniforms.index_select(0, step)[0], sampling)
    tokens.index_copy_(0, step, drawn[None])
    logprobs.index_copy_(0, step, logits.log_softmax(dim=-1).gather(1, drawn[:, None]).t())
    if window is not None:
        window.append(drawn)
    last.copy_(drawn)


@functools.cache  # each sample during training is generated with a new copy of the weights
def kernel_draws_alike(kernels: Kernels, vocab_size: int, device: torch.device) -> bool:
    """Whether the kernel that draws tokens does what `draw_with_torch` does."""
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
    numbers = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(_ROWS, vocab_size, generator=numbers).to(device)
    suppressed = torch.randn(vocab_size, generator=numbers).to(device)
    sampling = SamplingTensors.stack(configs, vocab_size, device)
    arguments, window = DrawArguments.create(2, _ROWS, suppressed, sampling), None
    if strength:
        window = Window(4, _ROWS, vocab_size, device)
        for row in range(_ROWS):
            window.fill(row, [row % vocab_size, 0][: row % 3], 2 + row % 3)
        arguments = arguments._replace(window=window, temperatures=arguments.uniforms.float() + 0.5)
    for _ in range(2):
        draw(logits, arguments)
        arguments.step.add_(1)
    outcome = {"last": arguments.last, "tokens": arguments.tokens.t(), "logprobs": arguments.logprobs.t()}
    if window is not None:
        outcome |= {"counts": window.counts, "ring": window.ring.t(), "next": window.next}
    return outcome


def are_close(found: Tensor, expected: Tensor) -> bool:
    """Whether two results differ by no more than rounding."""
    difference = (found.double() - expected.double()).norm()
    return bool(difference <= _TOLERANCE * expected.double().norm())  # not if there is NaN
