"""The state of a training run: what one step changes, what a run adds, and what a checkpoint stores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lm.config.resolved import ResolvedConfig
from lm.config.schema import BUDGETS, RunConfig
from lm.data.batches import Windows
from lm.data.corpus import Corpus
from lm.data.streaming import StreamedWindows
from lm.distributed import ALONE, Ranks
from lm.evaluation.validation import Validation
from lm.model.cells import CELLS, State
from lm.model.device import Precision
from lm.model.network import RecurrentLM
from lm.storage.run_folder import Run
from lm.training.callbacks import NONE, Callbacks
from lm.training.clock import Clock
from lm.training.disk import Disk
from lm.training.display import Display
from lm.training.optimizer import Optimizer, make_optimizer
from lm.training.tracking import Tracker

_MAX_SCORING_SHARE = 0.25  # of a time budget, reserved for scoring the validation and test text at the end


@dataclass
class Progress:
    """The position of a run, stored as progress.json in its checkpoint."""

    corpus: str  # key of the token stream
    step: int = 0
    seconds: float = 0.0  # since the first step
    tenth: int = 0  # tenths of the budget spent; by default, each new one triggers a validation
    loss_sum: float = 0.0  # training loss since the last line of metrics
    loss_count: int = 0
    best_loss: float = float("inf")
    best_step: int = 0
    worse: int = 0  # validations in a row without improvement
    reserve: float = 0.0  # seconds that the last validation and the final scoring are expected to take
    losses: list[float] = field(default_factory=list)  # recent ones, for the rollback
    undone: int = 0  # rollbacks so far
    rate: float = 1.0  # factor on the learning rate, lowered by each rollback
    finished: bool = False
    # The budget that `tenth` counts tenths of. None: saved before this field existed.
    budget: dict[str, float | None] | None = None
    extended: list[int] = field(default_factory=list)  # the steps at which it got another budget
    start_loss: float | None = None  # validation loss before the first step, if it started from a model
    base_model: str | None = None  # the Hub id of that model, if it is on the Hub
    lengths: dict[str, int] = field(default_factory=dict)  # bytes of the files that grow, by name
    place: dict[str, Any] = field(default_factory=dict)  # position in a streamed text
    tokenizer: str = ""  # the `tokenizer_id` of the token stream
    settings: dict[str, Any] = field(default_factory=dict)  # as in config.yaml; empty in earlier versions

    @property
    def has_best(self) -> bool:
        """Whether the best weights so far are saved."""
        return self.best_loss < float("inf")

    def forget_best(self) -> None:
        """Choose the best weights from the rest of the training: those so far are gone."""
        self.best_loss, self.best_step = float("inf"), 0


@dataclass
class Snapshot:
    """A training at one step; `lm.training.checkpoint.restore` returns to it."""

    progress: Progress
    tensors: dict[str, Tensor]

    def copy(self, buffers: dict[str, Tensor]) -> Snapshot:
        """A copy that later steps do not change, written into `buffers` where they fit."""
        copies = {}
        for name, tensor in self.tensors.items():
            buffer = buffers.get(name)
            if buffer is None or _kind(buffer) != _kind(tensor):
                buffer = torch.empty_like(tensor)
            copies[name] = buffer.copy_(tensor)
        return Snapshot(self.progress, copies)


def _kind(tensor: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return tensor.shape, tensor.dtype, tensor.device


@dataclass
class Learner:
    """What a training step reads and changes."""

    config: ResolvedConfig
    corpus: Corpus
    network: RecurrentLM
    optimizer: Optimizer
    windows: Windows | StreamedWindows
    device: torch.device
    precision: Precision
    state: State  # recurrent state after the last window, (layers, rows, hidden), overwritten by each step
    ranks: Ranks = ALONE

    @classmethod
    def create(
        cls,
        config: ResolvedConfig,
        corpus: Corpus,
        windows: Windows | StreamedWindows,
        device: torch.device,
        precision: Precision,
        ranks: Ranks = ALONE,
    ) -> Learner:
        """A learner with a new network, whose weights come from torch's random state."""
        model = config.model
        network = RecurrentLM(model, corpus.tokenizer.vocab_size).to(device)
        optimizer = make_optimizer(network, config.training, precision, ranks)
        shape = model.layers, windows.row_count, model.hidden_size
        state = tuple(torch.zeros(shape, device=device) for _ in CELLS[model.cell].states)
        return cls(config, corpus, network, optimizer, windows, device, precision, state, ranks)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors that a step changes, except the position in the text and random states, by name."""
        tensors = {}
        for name, weight in self.network.named_parameters():
            tensors[f"network.{name}"] = weight.detach()
            for key, value in self.optimizer.state[weight].items():
                tensors[f"optimizer.{name}.{key}"] = value
        for index, part in enumerate(self.state):
            tensors[f"state.{index}"] = part
        if scale := self.optimizer.scale:
            tensors |= {f"scale.{name}": tensor for name, tensor in scale.tensors().items()}
        return tensors


@dataclass(frozen=True)
class Unsaved:
    """The weights after a step that could not be saved, although they were the best so far."""

    step: int
    result: Validation


@dataclass
class Trainer:
    """A training run: a learner, the run's folder, and its position in the budget."""

    learner: Learner
    run: Run
    tracker: Tracker
    display: Display
    disk: Disk
    progress: Progress
    loss_sum: Tensor  # training loss since the last line of metrics, on the device
    good: Snapshot  # the rollback's copy of the last good state; without tensors before the first step
    validation: Validation | None = None
    unsaved: Unsaved | None = None  # better weights than the saved ones
    # The step and the loss of the saved model, while the checkpoint that was resumed does not know it.
    newer: tuple[int, float] | None = None
    callbacks: Callbacks = NONE
    clock: Clock = field(default_factory=Clock)
    last_save_time: float = 0.0  # `now` at the last checkpoint
    agreed_seconds: float = 0.0  # rank 0's clock at the last step

    @property
    def ranks(self) -> Ranks:
        """The processes that train together."""
        return self.learner.ranks

    @property
    def fraction_done(self) -> float:
        """The share of the budget spent, from 0 to slightly above 1."""
        return share_spent(self.learner, self.progress, self.now)

    @property
    def share_scored(self) -> float:
        """The share of the validation and test text that the budget leaves time to score at the end."""
        training = self.learner.config.training
        if total_steps(self.learner) or not training.eval_tokens or not self.progress.reserve:
            return 1.0
        return scoring_time(training.time_budget, self.progress.reserve) / self.progress.reserve

    @property
    def seconds(self) -> float:
        """Time since the first step, including evaluations and saving, excluding pauses."""
        return self.clock.seconds()

    @property
    def now(self) -> float:
        """Elapsed time, as agreed by all ranks."""
        return self.seconds if self.ranks.is_single_process else self.agreed_seconds


def total_steps(learner: Learner) -> int | None:
    """The budget in steps; None for a time budget."""
    training, per_epoch = learner.config.training, learner.windows.steps_per_epoch
    if training.epochs and per_epoch:
        return max(1, round(training.epochs * per_epoch))
    return training.steps


def share_spent(learner: Learner, progress: Progress, seconds: float) -> float:
    """The share of the budget spent at this position after `seconds` of training."""
    if steps := total_steps(learner):
        return progress.step / steps
    budget = learner.config.training.time_budget
    return seconds / (budget - scoring_time(budget, progress.reserve))


def budget_of(config: RunConfig) -> dict[str, float | None]:
    """The budget in the settings, by the name of its setting; all None for the default."""
    return {name: getattr(config.training, name) for name in BUDGETS}


def scoring_time(budget: float, whole: float) -> float:
    """The seconds of a time budget reserved for the last validation and the final scoring, if they take
    `whole`."""
    return min(whole, _MAX_SCORING_SHARE * budget)
