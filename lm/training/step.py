"""One training step: a window of text in, a weight update out.

Each step learns from one window per stream (truncated backpropagation through time). The recurrent state
carries over to the next window; the gradient does not.

Everything that varies from step to step is in tensors that keep their address: the number of the window, the
learning rate, the streams to reset, the recurrent state. So the same code runs directly on a CPU and as a
CUDA graph on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lm.data.batches import Windows, to_device
from lm.distributed import share_of
from lm.model import cuda_graph
from lm.model.cells import State
from lm.model.device import autocast
from lm.model.loss import TypeSample
from lm.training.sampled_softmax import TypeSampler
from lm.training.state import Learner

_RESET_SHARE = 0.01  # share of the windows that start from the zero state


class Step:
    """The training step of a learner.

    It runs `as_graph`, by default on a CUDA GPU, if that is possible. Otherwise `notify` gets one line that
    says why not.
    """

    def __init__(self, learner: Learner, notify: Callable[[str], None], as_graph: bool | None = None):
        self._learner, self._notify = learner, notify
        self._as_graph = learner.device.type == "cuda" if as_graph is None else as_graph
        # The graph, captured at the first step, when there is a window to try. Never `_compute` itself: a
        # step that refers to itself would keep its network in memory for long.
        self._run: cuda_graph.Compute | None = None
        windows, device = learner.windows, learner.device
        rows = windows.row_count
        self._number = torch.zeros((), dtype=torch.int64, device=device)
        self._kept = torch.ones(rows, device=device)  # 0 for streams whose state is reset, else 1
        self._loss = torch.zeros((), device=device)
        self._window = torch.zeros(2, rows, windows.bptt, dtype=torch.int64, device=device)
        self._sampler = _sampler_of(learner)
        self._sample: TypeSample | None = None
        if self._sampler:
            self._sample = TypeSample(*(part.to(device) for part in self._sampler.draw(0)))
        self._weights = list(learner.network.parameters())
        # Several ranks sum their gradients and losses in a single operation: the time goes into waiting for
        # each other, not into adding.
        sizes = [] if learner.ranks.is_single_process else [*map(torch.numel, self._weights), 1]
        self._sums = torch.zeros(sum(sizes), device=device)
        self._parts = self._sums.split(sizes) if sizes else ()

    def __call__(self, number: int, rate: float) -> Tensor:
        """Learn from window `number` with this learning rate. Returns the mean loss over all streams (nats
        per token), on the device; the next step overwrites it."""
        learner = self._learner
        learner.optimizer.set_rate(rate)
        self._kept.copy_(to_device(self._draw_kept(number), learner.device))
        if self._sampler and self._sample:
            for ours, drawn in zip(self._sample, self._sampler.draw(number), strict=True):
                ours.copy_(to_device(drawn, learner.device))
        if learner.windows.on_device:
            self._number.fill_(number)
        else:
            for ours, part in zip(self._window, learner.windows.window(number), strict=True):
                ours.copy_(part)
        if self._run is None and self._as_graph:
            self._run = self._try_graph()
            self._as_graph = self._run is not None
        return self._run() if self._run else self._compute()

    def _draw_kept(self, number: int) -> Tensor:
        """Zeros for a few random streams: a network that never sees the zero state would start every
        generated text with nonsense."""
        # Drawn for all streams from the step alone, so that the number of ranks makes no difference.
        training = self._learner.config.training
        drawn = np.random.default_rng([training.seed, number]).random(training.batch_size)
        return torch.from_numpy(drawn[self._learner.windows.rows] >= _RESET_SHARE)

    def _try_graph(self) -> cuda_graph.Compute | None:
        """The step as a CUDA graph, or None, after a warning, if that is not possible."""
        learner = self._learner
        if learner.network.config.cell_implementation == "reference":
            graph, reason = None, "the readable cells are computed step by step"
        else:
            graph, reason = cuda_graph.capture_and_verify(
                self._compute,
                self._trial,
                self._state,
                learner.precision,
                self._capture,
                learner.ranks.all_true,
            )
        if reason:
            self._notify(f"The training step does not run as a CUDA graph and is therefore slower: {reason}.")
            return None
        return graph

    def _capture(self) -> cuda_graph.Compute:
        if self._learner.ranks.is_single_process:
            return cuda_graph.capture(self._compute)
        # The ranks meet between two graphs.
        gradients, update = cuda_graph.capture(self._gradients), cuda_graph.capture(self._update)

        def run() -> Tensor:
            gradients()
            self._learner.ranks.all_reduce(self._sums)
            return update()

        return run

    def _trial(self, run: cuda_graph.Compute) -> None:
        rate = self._learner.optimizer.rate
        for factor in (1.0, 0.5):
            self._learner.optimizer.set_rate(factor * rate)
            run()
        self._learner.optimizer.set_rate(rate)

    def _state(self) -> dict[str, Tensor]:
        return {**self._learner.tensors(), "loss": self._loss}

    def _compute(self) -> Tensor:
        self._gradients()
        self._learner.ranks.all_reduce(self._sums)
        return self._update()

    def _gradients(self) -> Tensor:
        """The gradients of this rank's streams, and their recurrent state after the window."""
        learner = self._learner
        training, network = learner.config.training, learner.network
        inputs, targets = learner.windows.window(self._number) if learner.windows.on_device else self._window
        before = tuple(part * self._kept[None, :, None] for part in learner.state)
        after: list[tuple[slice, State]] = []
        total = torch.zeros_like(self._loss)
        learner.optimizer.zero_grad()
        for part in range(training.accumulate):
            # One micro-batch of this rank's streams, weighted by its number of streams.
            rows = share_of(len(inputs), part, training.accumulate)
            weight = (rows.stop - rows.start) / training.batch_size
            with autocast(learner.device, learner.precision):
                state = tuple(tensor[:, rows] for tensor in before)
                loss, penalty, state = network.loss(inputs[rows], targets[rows], state, self._sample)
            learner.optimizer.scaled((loss + penalty) * weight).backward()
            total = total + loss.detach() * weight
            after.append((rows, state))
        with torch.no_grad():
            # The state carries over to the next window; the gradient stops here.
            for rows, state in after:
                for whole, own in zip(learner.state, state, strict=True):
                    whole[:, rows].copy_(own)
            self._loss.copy_(total)
            if self._parts:
                gradients = [weight.grad.flatten() for weight in self._weights if weight.grad is not None]
                torch.cat([*gradients, total.reshape(1)], out=self._sums)
        return self._loss

    def _update(self) -> Tensor:
        """Update the weights from the gradients of all ranks; the loss over all streams."""
        learner = self._learner
        if self._parts:
            for weight, part in zip(self._weights, self._parts[:-1], strict=True):
                weight.grad = part.view_as(weight)
            self._loss.copy_(self._parts[-1][0])
        learner.optimizer.unscale()
        if clip := learner.config.training.clip:
            torch.nn.utils.clip_grad_norm_(self._weights, clip)
        learner.optimizer.step()
        return self._loss


def _sampler_of(learner: Learner) -> TypeSampler | None:
    """The sampler of the softmax; None if it is computed over all token types."""
    training, windows = learner.config.training, learner.windows
    if not training.sampled_softmax or not isinstance(windows, Windows):
        return None
    return TypeSampler(windows.tokens, learner.network.vocab_size, training.sampled_softmax, training.seed)
