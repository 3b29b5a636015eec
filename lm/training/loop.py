"""Training from top to bottom: `train` sets up or resumes, `_fit` is the loop, `_finish` the end."""

from __future__ import annotations

import copy
import dataclasses
import math
import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional as F

from lm.cells import State
from lm.config import RunConfig
from lm.data.batches import Windows
from lm.data.stream import Corpus, cached_corpus, open_corpus
from lm.errors import UserError
from lm.evaluation import Validation, validate
from lm.files import write_text
from lm.hub import load_weights, read_tensors, save_model
from lm.language_model import LanguageModel
from lm.network import RecurrentLM, autocast, choose_device, choose_precision, widest_float
from lm.training.checkpoint import Progress, load_checkpoint, read_progress, save_checkpoint
from lm.training.optimizer import learning_rate, make_optimizer
from lm.training.plot import loss_curve
from lm.training.progress import Display, Reading, duration, plural
from lm.training.run import Run, checkpoint_of, create_run, read_metrics

DEFAULT_TIME = 120.0  # seconds, if no budget is named
_LOG_EVERY = 25  # steps
_SAVE_EVERY = 30.0  # seconds
_SAMPLE_LENGTH = 160  # tokens
_EMPTIED = 0.01  # share of the windows before which a stream's state is emptied


@dataclass
class Trainer:
    """Everything a running training holds."""

    config: RunConfig
    run: Run
    corpus: Corpus
    network: RecurrentLM
    optimizer: torch.optim.Optimizer
    windows: Windows
    device: torch.device
    precision: torch.dtype
    display: Display
    progress: Progress
    loss_sum: torch.Tensor  # of the training loss since the last line of metrics, on the device
    state: State | None = None  # the streams' recurrent state after the last window
    validation: Validation | None = None
    earlier_seconds: float = 0.0  # on the clock before this process took over
    started: float = field(default_factory=time.perf_counter)
    saved: float = field(default_factory=time.perf_counter)

    @property
    def total_steps(self) -> int | None:
        """The budget in steps; None: it is one of time."""
        training = self.config.training
        if training.epochs:
            return max(1, round(training.epochs * self.windows.steps_per_epoch))
        return training.steps

    @property
    def done(self) -> float:
        """The share of the budget that is spent, 0 to 1 and a little over."""
        if self.total_steps:
            return self.progress.step / self.total_steps
        budget = self.config.training.max_time or DEFAULT_TIME
        return self.seconds / max(budget - self.progress.reserve, 0.5 * budget)

    @property
    def seconds(self) -> float:
        """On the clock since the first step, evaluations and saving included, pauses left out."""
        return self.earlier_seconds + time.perf_counter() - self.started


def train(config: RunConfig, *, resume: Run | None = None, overwrite: bool = False) -> int:
    """Train a model, or go on with a stopped run; the exit status of the script.

    Raises UserError for whatever a person can mend.
    """
    display = Display(config.training.quiet)
    if resume and read_progress(checkpoint_of(resume)).finished:
        display.say(f"{resume.folder} has finished; sample from it with python generate.py {resume.folder}")
        return 0
    trainer = _set_up(config, resume, overwrite, display)
    with _interruptions() as interruptions:
        try:
            display.start()
            _fit(trainer, interruptions)
        finally:
            display.stop()
        if interruptions:
            _save(trainer)
            folder = shlex.quote(str(trainer.run.folder))
            display.say(f"\nStopped and saved. Go on with: python train.py --resume {folder}")
            return 128 + interruptions[0]
        _finish(trainer)
    return 0


def _set_up(config: RunConfig, resume: Run | None, overwrite: bool, display: Display) -> Trainer:
    training = config.training
    device = choose_device(training.device)
    precision = choose_precision(training.precision, device)
    # A resumed run needs the tokens, not the text: that may have moved, or was standard input.
    corpus = cached_corpus(read_progress(checkpoint_of(resume)).corpus) if resume else None
    corpus = corpus or open_corpus(config.data, display.say)
    windows = Windows(corpus.train.tokens, training.batch_size, training.bptt, corpus.tokenizer.eos, device)
    torch.manual_seed(training.seed)
    network = RecurrentLM(config.model, corpus.tokenizer.vocab_size).to(device)
    optimizer = make_optimizer(network, training)
    progress, state = Progress(corpus=corpus.key), None
    run = resume
    if resume:
        progress, state = load_checkpoint(checkpoint_of(resume), network, optimizer)
        if progress.corpus != corpus.key:
            raise UserError(f"{resume.folder} cannot be resumed: the text of {corpus.name} has changed.")
        resume.cut(progress.lengths)
    else:
        run = create_run(config, corpus.name, overwrite)
        corpus.tokenizer.save(run.folder / "tokenizer.json")
    trainer = Trainer(
        config=config,
        run=run,
        corpus=corpus,
        network=network,
        optimizer=optimizer,
        windows=windows,
        device=device,
        precision=precision,
        display=display,
        progress=progress,
        loss_sum=torch.tensor(progress.loss_sum, dtype=widest_float(device), device=device),
        state=state,
        earlier_seconds=progress.seconds,
    )
    compute = device.type
    if device.type == "cpu":
        compute += f" ({plural(torch.get_num_threads(), 'thread')})"
    compute += ", bf16" if precision == torch.bfloat16 else ", fp32"
    display.facts(corpus, network, compute, _budget(trainer), run.folder)
    if resume:
        display.say(f"Going on from step {progress.step:,}.\n")
    return trainer


def _fit(trainer: Trainer, interruptions: list[int]) -> None:
    """The loop: one window after the other until the budget is spent or someone interrupts."""
    training, progress = trainer.config.training, trainer.progress
    trainer.started = trainer.saved = since = time.perf_counter()
    steps_since = 0
    trainer.network.train()
    spent = trainer.done >= 1
    while not spent and not interruptions:
        for group in trainer.optimizer.param_groups:
            group["lr"] = learning_rate(trainer.done, training)
        trainer.loss_sum += _step(trainer)
        progress.step += 1
        progress.loss_count += 1
        steps_since += 1

        # Asked once a step: the validation below makes a better guess of what the end will take,
        # by which a budget of time that was spent might no longer be.
        spent = trainer.done >= 1
        validation_due = spent or _validation_due(trainer)
        sample_due = _sample_due(trainer, validation_due)
        save_due = validation_due or _save_due(trainer)
        log_due = validation_due or progress.step % _LOG_EVERY == 0
        if not (log_due or sample_due or save_due):
            continue  # without ever waiting for the device
        now = _reading(trainer, steps_since, time.perf_counter() - since)
        if validation_due:
            _validate(trainer)
            now = dataclasses.replace(now, validation=trainer.validation)
            trainer.display.milestone(now)
        if log_due:
            _log(trainer, now, validation_due)
            trainer.loss_sum.zero_()
            progress.loss_count = 0
        if sample_due:
            _sample(trainer)
        if save_due:
            _save(trainer)
        trainer.display.update(dataclasses.replace(now, done=trainer.done, seconds=trainer.seconds))
        since, steps_since = time.perf_counter(), 0


def _step(trainer: Trainer) -> torch.Tensor:
    """Learn from one window; its loss, left on the device."""
    training, network = trainer.config.training, trainer.network
    inputs, targets = trainer.windows.window(trainer.progress.step)
    with autocast(trainer.device, trainer.precision):
        logits, state = network(inputs, _sometimes_emptied(trainer.state))
        loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
    trainer.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if training.clip:
        torch.nn.utils.clip_grad_norm_(network.parameters(), training.clip)
    trainer.optimizer.step()
    # The state goes on into the next window, the gradient stops here.
    trainer.state = tuple(part.detach() for part in state)
    return loss.detach()


def _sometimes_emptied(state: State | None) -> State | None:
    """The state (layers, batch, hidden), now and then with zeros for a stream: a network that never
    saw the empty state, with which every text it is to write begins, would begin with nonsense."""
    if state is None:
        return None
    kept = torch.rand(state[0].shape[1]) >= _EMPTIED  # drawn on the CPU: no waiting for a GPU
    if kept.all():
        return state
    return tuple(part * kept.to(part.device)[None, :, None] for part in state)


def _validation_due(trainer: Trainer) -> bool:
    progress, every = trainer.progress, trainer.config.training.eval_every
    tenth, progress.tenth = progress.tenth, int(trainer.done * 10)
    return progress.step % every == 0 if every else progress.tenth > tenth


def _sample_due(trainer: Trainer, validation_due: bool) -> bool:
    every = trainer.config.training.sample_every
    if every is None:
        return validation_due
    return every > 0 and trainer.progress.step % every == 0


def _save_due(trainer: Trainer) -> bool:
    every = trainer.config.training.save_every
    if every:
        return trainer.progress.step % every == 0
    return time.perf_counter() - trainer.saved > _SAVE_EVERY


def _reading(trainer: Trainer, steps: int, seconds: float) -> Reading:
    training, progress = trainer.config.training, trainer.progress
    loss = trainer.loss_sum.item() / progress.loss_count
    if not math.isfinite(loss):
        kept = f" {trainer.run.folder} keeps the best weights so far." if progress.best_step else ""
        raise UserError(
            f"the loss is no longer a number at step {progress.step:,}: lower --lr (now"
            f" {training.lr:g}) or --clip.{kept}"
        )
    rate = steps * trainer.windows.tokens_per_step / max(seconds, 1e-9)
    return Reading(trainer.done, progress.step, trainer.seconds, loss, rate, trainer.validation)


def _validate(trainer: Trainer) -> None:
    """Validate on a sample of the text and keep the weights if they are the best so far."""
    begin = time.perf_counter()
    split, progress = trainer.corpus.validation, trainer.progress
    limit = trainer.config.training.eval_tokens
    trainer.validation = _validation_figures(trainer, trainer.network, limit)
    share = trainer.validation.tokens / split.counts.tokens
    if share < 1:
        whole = (time.perf_counter() - begin) / share + 0.5
        progress.reserve = min(progress.reserve or whole, whole)
    if trainer.validation.loss < progress.best_loss:
        progress.best_loss, progress.best_step = trainer.validation.loss, progress.step
        _save_model(trainer, trainer.network, trainer.validation)


def _validation_figures(trainer: Trainer, network: RecurrentLM, limit: int) -> Validation:
    split = trainer.corpus.validation
    return validate(
        network,
        split.tokens,
        split.counts,
        trainer.corpus.tokenizer.eos,
        limit=limit,
        precision=trainer.precision,
    )


def _save_model(trainer: Trainer, network: RecurrentLM, validation: Validation) -> None:
    facts = {"trained_on": _trained_on(trainer), "validation": dataclasses.asdict(validation)}
    save_model(trainer.run.folder, network, trainer.corpus.tokenizer, facts)


def _trained_on(trainer: Trainer) -> dict[str, Any]:
    counts = trainer.corpus.train.counts
    return {
        "dataset": trainer.config.data.dataset,
        "characters": counts.characters,
        "tokens": counts.tokens,
        "documents": counts.documents,
        "steps": trainer.progress.best_step,
        "seconds": round(trainer.seconds, 1),
    }


def _log(trainer: Trainer, now: Reading, validated: bool) -> None:
    """One line of metrics; with a validation also the picture."""
    record = {
        "step": now.step,
        "tokens": now.step * trainer.windows.tokens_per_step,
        "seconds": round(trainer.seconds, 3),
        "train_loss": now.train_loss,
        "learning_rate": trainer.optimizer.param_groups[0]["lr"],
        "tokens_per_second": round(now.tokens_per_second, 1),
    }
    if validated:
        record["validation_loss"] = now.validation.loss
    trainer.run.log(record)
    if validated:
        _draw(trainer)


def _sample(trainer: Trainer) -> None:
    """Show what the model writes now, and keep it."""
    facts = {"trained_on": _trained_on(trainer)}
    model = LanguageModel(trainer.network, trainer.corpus.tokenizer, facts)
    prompt = trainer.config.training.sample_prompt
    if prompt is None:
        prompt = "def " if trainer.config.data.dataset == "python" else ""
    pieces = model.stream(prompt, max_new_tokens=_SAMPLE_LENGTH, seed=trainer.config.training.seed)
    text = prompt + "".join(piece.text for piece in pieces)
    trainer.run.add_sample(trainer.progress.step, text)
    trainer.display.sample(text)


def _save(trainer: Trainer) -> None:
    """Everything that `--resume` needs."""
    progress = trainer.progress
    progress.seconds, progress.loss_sum = trainer.seconds, trainer.loss_sum.item()
    progress.lengths = trainer.run.lengths()
    save_checkpoint(trainer.run.checkpoint, progress, trainer.network, trainer.optimizer, trainer.state)
    trainer.saved = time.perf_counter()


def _finish(trainer: Trainer) -> None:
    """Score the whole validation text once with the best weights, and tell how to go on."""
    run, progress = trainer.run, trainer.progress
    best = copy.deepcopy(trainer.network)
    load_weights(best, read_tensors(run.folder / "model.safetensors"), run.folder)
    figures = _validation_figures(trainer, best, limit=0)
    _save_model(trainer, best, figures)
    run.log(
        {
            "step": progress.best_step,
            "tokens": progress.best_step * trainer.windows.tokens_per_step,
            "seconds": round(trainer.seconds, 3),
            "validation_loss": figures.loss,
        }
    )
    _draw(trainer)
    progress.finished = True
    _save(trainer)
    trainer.display.finish(figures, trainer.seconds, run.folder, run.plot)


def _draw(trainer: Trainer) -> None:
    title = f"{trainer.corpus.name}, {trainer.config.model.cell.upper()}"
    write_text(trainer.run.plot, loss_curve(read_metrics(trainer.run), title))


def _budget(trainer: Trainer) -> str:
    training = trainer.config.training
    if trainer.total_steps:
        text = f"{trainer.total_steps:,} steps"
    else:
        text = duration(training.max_time or DEFAULT_TIME)
    per_epoch = trainer.windows.steps_per_epoch
    window = f"{training.batch_size} streams × {training.bptt} tokens a step"
    return f"{text}, {window}, {per_epoch:,.0f} steps an epoch"


@contextmanager
def _interruptions() -> Iterator[list[int]]:
    """A list that Ctrl-C and SIGTERM write their number into; the second one kills as usual."""
    received: list[int] = []
    before = {}

    def remember(number: int, _frame: object) -> None:
        received.append(number)
        signal.signal(number, before[number])

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.getsignal(number)
        signal.signal(number, remember)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
