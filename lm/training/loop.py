"""Training from top to bottom: `train` sets up or resumes, `_fit` is the loop, `_finish` the end."""

from __future__ import annotations

import dataclasses
import shlex
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from lm.config.schema import DEFAULT_TIME, RunConfig
from lm.data import report
from lm.data.batches import Windows
from lm.data.corpus import Corpus, cached_corpus, open_corpus
from lm.data.streaming import DocumentStream, StreamedWindows
from lm.distributed import ALONE, Ranks, share_of
from lm.errors import UserError
from lm.evaluation.losses import Validation
from lm.invocation import command
from lm.model.cells import State
from lm.model.device import PRECISIONS, autocast, choose_device, choose_precision, widest_float
from lm.model.network import RecurrentLM
from lm.run_folder import Run, checkpoint_of, create_run
from lm.training import record, rollback
from lm.training.auto import recurrent_weights, sized
from lm.training.checkpoint import Progress, Snapshot, load_checkpoint, read_progress, seed_of
from lm.training.disk import Disk
from lm.training.facts import Facts
from lm.training.finetune import start_from
from lm.training.optimizer import Optimizer, learning_rate, make_optimizer
from lm.training.out_of_memory import telling_what_to_lower
from lm.training.progress import Display, Reading, duration, plural
from lm.training.signals import listening
from lm.training.tracking import Tracker

_LOG_EVERY = 25  # steps
_SAVE_EVERY = 30.0  # seconds
_MAX_SCORING_SHARE = 0.25  # of a time budget, for the final evaluation
_EMPTIED = 0.01  # share of the windows before which a stream's state is emptied


@dataclass
class Trainer:
    """Everything a running training holds."""

    config: RunConfig
    corpus: Corpus
    network: RecurrentLM
    optimizer: Optimizer
    windows: Windows | StreamedWindows
    device: torch.device
    precision: torch.dtype
    display: Display
    progress: Progress
    disk: Disk
    loss_sum: torch.Tensor  # of the training loss since the last line of metrics, on the device
    ranks: Ranks = ALONE
    run: Run | None = None  # its folder
    tracker: Tracker | None = None
    state: State | None = None  # the streams' recurrent state after the last window
    good: Snapshot | None = None  # to which the guard goes back
    validation: Validation | None = None
    earlier_seconds: float = 0.0  # on the clock before this process took over
    started: float = field(default_factory=time.perf_counter)
    saved: float = 0.0  # when, on the clock
    agreed: float = 0.0  # what the first rank's clock showed at the last step

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
        return self.now / (budget - scoring_time(budget, self.progress.reserve))

    @property
    def share_scored(self) -> float:
        """Which share of the validation and test text there is time for at the end."""
        if self.total_steps or not self.progress.reserve:
            return 1.0
        budget = self.config.training.max_time or DEFAULT_TIME
        return scoring_time(budget, self.progress.reserve) / self.progress.reserve

    @property
    def seconds(self) -> float:
        """On the clock since the first step, evaluations and saving included, pauses left out."""
        return self.earlier_seconds + time.perf_counter() - self.started

    @property
    def now(self) -> float:
        """The same for all ranks, who shall decide the same."""
        return self.seconds if self.ranks.alone else self.agreed


def scoring_time(budget: float, full: float) -> float:
    """Seconds of a time budget that are reserved for the final evaluation, if evaluating the whole
    validation and test text takes `full` seconds."""
    return min(full, _MAX_SCORING_SHARE * budget)


def train(
    config: RunConfig,
    display: Display,
    corpus: Corpus | None = None,
    *,
    resume: Run | None = None,
    overwrite: bool = False,
    ranks: Ranks = ALONE,
) -> int:
    """Train a model on `corpus`, or go on with a stopped run; the exit status of the script. Each of
    several ranks calls it.

    Raises UserError for whatever a person can mend.
    """
    stopped = resume and ranks.from_first(lambda: dataclasses.asdict(read_progress(checkpoint_of(resume))))
    if stopped and stopped["finished"]:
        display.say(f"{resume.folder} has finished. Generate with: {command('generate')} {resume.folder}")
        return 0
    if corpus is None:
        # A resumed run needs the tokens, not the text: that may have moved, or was standard input.
        corpus = cached_corpus(stopped["corpus"]) if stopped else None
    if corpus is None:
        with display.progress() as progress:
            corpus = ranks.one_on_each_machine(lambda: open_corpus(config.data, progress))
    ranks.check_same({"the text": corpus.key}, "give all of them the same text.")
    trainer: Trainer | None = None

    def saved() -> Path | None:
        return trainer.run.folder if trainer and trainer.progress.best_step else None

    with telling_what_to_lower(config, corpus.tokenizer.vocab_size, saved):
        trainer = _set_up(config, corpus, resume, overwrite, display, ranks)
        return _run(trainer)


def _run(trainer: Trainer) -> int:
    display = trainer.display
    with (
        listening(trainer.ranks) as interruptions,
        record.telling_how_to_go_on(trainer),
        closing(trainer.tracker),
    ):
        try:
            display.start()
            interrupted = _fit(trainer, interruptions)
        finally:
            display.stop()
            trainer.windows.close()
        if interrupted:
            saved = "saved" if record.save(trainer) else "not saved, but the last checkpoint is there"
            if not trainer.disk.worked:
                raise record.nothing_saved(trainer)
            folder = shlex.quote(str(trainer.run.folder))
            display.say(f"\nStopped and {saved}. Go on with: {command('train')} --resume {folder}")
            return 128 + interrupted
        record.finish(trainer)
    return 0


def build(config: RunConfig, corpus: Corpus, display: Display, ranks: Ranks = ALONE) -> Trainer:
    """All that a training needs but the folder of a run. Raises UserError for settings that do not
    fit the text or the machine."""
    device = choose_device(config.training.device)
    ranks.take_device(device)
    precision = choose_precision(config.training.precision, device)
    ranks.check_same(
        {"--device": device.type, "--precision": str(precision)}, "name them, so that all can do the same."
    )
    windows = _windows(config, corpus, device, ranks)
    vocab_size = corpus.tokenizer.vocab_size
    config = RunConfig.from_flat(ranks.from_first(lambda: sized(config, windows, vocab_size, device).flat()))
    training = config.training
    torch.manual_seed(training.seed)
    network = RecurrentLM(config.model, vocab_size).to(device)
    return Trainer(
        config=config,
        corpus=corpus,
        network=network,
        optimizer=make_optimizer(network, training, ranks),
        windows=windows,
        device=device,
        precision=precision,
        display=display,
        progress=Progress(corpus=corpus.key),
        disk=Disk(display.say, display.warn),
        loss_sum=torch.zeros((), dtype=widest_float(device), device=device),
        ranks=ranks,
    )


def _set_up(
    config: RunConfig, corpus: Corpus, resume: Run | None, overwrite: bool, display: Display, ranks: Ranks
) -> Trainer:
    trainer = build(config, corpus, display, ranks)
    config, init_from = trainer.config, trainer.config.training.init_from
    network, device = trainer.network, trainer.device
    if resume:
        trainer.run, trainer.disk.worked = resume, True
        load_checkpoint(Path(ranks.from_first(lambda: str(checkpoint_of(resume)))), trainer)
        if trainer.progress.corpus != corpus.key:
            raise UserError(f"{resume.folder} cannot be resumed: the text of {corpus.name} has changed.")
        trainer.earlier_seconds = trainer.progress.seconds
        if ranks.first:
            resume.cut(trainer.progress.lengths)
        beginning = f"Going on from step {trainer.progress.step:,}.\n"
    else:
        beginning = start_from(init_from, network, corpus.tokenizer) if init_from else ""
        make = lambda: str(create_run(config, corpus.name, corpus.tokenizer, overwrite).folder)  # noqa: E731
        trainer.run = Run(Path(ranks.from_first(make)))
        ranks.copy_from_first(network.parameters())
        if not ranks.first:
            torch.manual_seed(seed_of(trainer, 0))
    compute = device.type
    if device.type == "cpu":
        compute += f" ({plural(torch.get_num_threads(), 'thread')}{'' if ranks.alone else ' a rank'})"
    if not ranks.alone:
        compute += f", {ranks.size} ranks"
    compute += f", {PRECISIONS[trainer.precision]}"
    _record_facts(trainer, compute)
    if beginning:
        display.say(beginning)
    if not ranks.first:
        config = dataclasses.replace(config, training=dataclasses.replace(config.training, track="none"))
    trainer.tracker = Tracker(trainer.run, config, trainer.progress.step, display.warn)
    return trainer


def _record_facts(trainer: Trainer, compute: str) -> None:
    """Write what is about to be trained to facts.json, with the warnings that come later, and print it."""
    run, corpus, config, disk = trainer.run, trainer.corpus, trainer.config, trainer.disk
    model, counts = config.model, corpus.train.counts
    notes = " (readable cells)" if model.cell_implementation == "reference" else ""
    notes += ", right to left" if model.backward else ""
    facts = Facts(
        text=report.rows(corpus, config.data.data_report),
        model=f"{model.cell.upper()}, {plural(model.layers, 'layer')} of {model.hidden_size} units,"
        f" {trainer.network.parameter_count():,} parameters{notes}",
        compute=compute,
        budget=_budget(trainer),
        total_steps=trainer.total_steps,
        characters_per_token=counts.characters / max(counts.tokens, 1),
        settings=config.flat(),
        warnings=report.warnings(corpus, recurrent_weights(model), model),
    )

    def add(warning: str) -> None:
        if warning not in facts.warnings:
            facts.warnings.append(warning)
            disk.attempt("facts.json", lambda: facts.save(run))

    if trainer.ranks.first:
        trainer.display.on_warning = add
        disk.attempt("facts.json", lambda: facts.save(run))
    trainer.display.facts(facts, run.folder)


def _windows(
    config: RunConfig, corpus: Corpus, device: torch.device, ranks: Ranks
) -> Windows | StreamedWindows:
    size, bptt, backward = config.training.batch_size, config.training.bptt, config.model.backward
    parts = config.training.accumulate
    if size < ranks.size * parts:
        raise UserError(
            f"--batch-size {size} is too few streams for {plural(ranks.size, 'rank')} with --accumulate"
            f" {parts}: name at least {ranks.size * parts}."
        )
    rows = ranks.share(size)
    if config.data.streaming:
        documents = DocumentStream(config.data, corpus.held_out, config.training.seed)
        return StreamedWindows(documents, corpus.tokenizer, size, bptt, device, backward, rows)
    tokens, eos = corpus.train.tokens, corpus.tokenizer.eos
    windows = Windows(tokens, size, bptt, eos, device, corpus.parts, config.data.mix, backward, rows)
    if windows.shortest < bptt:
        raise UserError(
            f"--bptt {bptt} is longer than a stream: {len(tokens):,} tokens for {size} streams leave the"
            f" shortest {windows.shortest}. Lower --bptt to that, or read fewer streams by --batch-size."
        )
    return windows


def _fit(trainer: Trainer, interruptions: list[int]) -> int:
    """The loop: one window after the other until the budget is spent or someone interrupts; the
    number of the signal, else 0."""
    training, ranks = trainer.config.training, trainer.ranks
    trainer.started = since = time.perf_counter()
    trainer.saved = trainer.agreed = trainer.earlier_seconds
    if not trainer.good:  # else it came with the checkpoint
        rollback.remember(trainer)
    steps_since = 0
    trainer.network.train()
    spent = trainer.done >= 1 or _out_of_patience(trainer)
    interrupted = 0
    while not spent and not interrupted:
        agreement = ranks.agreeing(trainer.seconds, interruptions)
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.progress.rate * learning_rate(trainer.done, training)
        trainer.loss_sum += step(trainer)
        trainer.agreed, interrupted = agreement()
        progress = trainer.progress
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
        if rollback.went_back(trainer, now.train_loss, complete=log_due):
            spent, since, steps_since = False, time.perf_counter(), 0
            continue
        if validation_due:
            record.validate_now(trainer)
            now = dataclasses.replace(now, validation=trainer.validation)
            trainer.display.milestone(now)
            if not spent and (spent := _out_of_patience(trainer)):
                trainer.display.say(
                    f"{plural(progress.worse, 'validation')} in a row brought nothing better than"
                    f" {progress.best_loss:.4f} at step {progress.best_step:,}: ending here."
                )
        if log_due:
            record.log(trainer, now, validation_due)
            trainer.loss_sum.zero_()
            progress.loss_count = 0
        if sample_due:
            record.sample(trainer)
        if log_due:
            rollback.remember(trainer)
        if save_due:
            record.save(trainer)
        trainer.display.update(dataclasses.replace(now, done=trainer.done, seconds=trainer.seconds))
        since, steps_since = time.perf_counter(), 0
    return ranks.agreeing(trainer.seconds, interruptions)()[1]


def step(trainer: Trainer) -> torch.Tensor:
    """Learn from one window; its loss, that of all streams, left on the device."""
    training, network, ranks = trainer.config.training, trainer.network, trainer.ranks
    inputs, targets = trainer.windows.window(trainer.progress.step)
    before, after, total = _sometimes_emptied(trainer), [], 0.0
    trainer.optimizer.zero_grad()
    for number in range(training.accumulate):
        # Of all streams those of this rank, of these one part, which counts as much as it has streams.
        rows = share_of(len(inputs), number, training.accumulate)
        weight = (rows.stop - rows.start) / training.batch_size
        with autocast(trainer.device, trainer.precision):
            state = before and tuple(part[:, rows] for part in before)
            loss, penalty, state = network.loss(inputs[rows], targets[rows], state)
        trainer.optimizer.scaler.scale((loss + penalty) * weight).backward()
        total += loss.detach() * weight
        after.append(state)
    total = ranks.sum_gradients(network.parameters(), total)
    trainer.optimizer.unscale()
    if training.clip:
        torch.nn.utils.clip_grad_norm_(network.parameters(), training.clip)
    trainer.optimizer.step()
    # The state goes on into the next window, the gradient stops here.
    trainer.state = tuple(torch.cat(parts, dim=1).detach() for parts in zip(*after, strict=True))
    return total


def _sometimes_emptied(trainer: Trainer) -> State | None:
    """The state (layers, rows, hidden), now and then with zeros for a stream: a network that never
    saw the empty state, with which every text it is to write begins, would begin with nonsense."""
    state, training = trainer.state, trainer.config.training
    if state is None:
        return None
    # Drawn for all streams and by the step alone, so that it does not matter how many ranks there are.
    drawn = np.random.default_rng([training.seed, trainer.progress.step]).random(training.batch_size)
    kept = torch.from_numpy(drawn[trainer.windows.rows] >= _EMPTIED)
    if kept.all():
        return state
    return tuple(part * kept.to(part.device)[None, :, None] for part in state)


def _validation_due(trainer: Trainer) -> bool:
    progress, every = trainer.progress, trainer.config.training.eval_every
    tenth, progress.tenth = progress.tenth, int(trainer.done * 10)
    return progress.step % every == 0 if every else progress.tenth > tenth


def _out_of_patience(trainer: Trainer) -> bool:
    patience = trainer.config.training.patience
    return patience is not None and trainer.progress.worse >= patience


def _sample_due(trainer: Trainer, validation_due: bool) -> bool:
    every = trainer.config.training.sample_every
    if every is None:
        return validation_due
    return every > 0 and trainer.progress.step % every == 0


def _save_due(trainer: Trainer) -> bool:
    every = trainer.config.training.save_every
    if every:
        return trainer.progress.step % every == 0
    # Best where the guard has just made its copy, which is saved too if it is of another step.
    patience = _SAVE_EVERY if trainer.progress.step % _LOG_EVERY == 0 else 2 * _SAVE_EVERY
    return trainer.now - trainer.saved > patience


def _reading(trainer: Trainer, steps: int, seconds: float) -> Reading:
    progress = trainer.progress
    loss = trainer.loss_sum.item() / progress.loss_count
    rate = steps * trainer.windows.tokens_per_step / max(seconds, 1e-9)
    return Reading(trainer.done, progress.step, trainer.seconds, loss, rate, trainer.validation)


def _budget(trainer: Trainer) -> str:
    training = trainer.config.training
    if trainer.total_steps:
        text = f"{trainer.total_steps:,} steps"
    else:
        text = duration(training.max_time or DEFAULT_TIME)
    text += f", {training.batch_size} streams × {training.bptt} tokens a step"
    if trainer.config.data.mix and not trainer.config.data.streaming:
        text += f" ({', '.join(map(str, trainer.windows.streams))} of them in each text)"
    per_epoch = trainer.windows.steps_per_epoch
    return f"{text}, {per_epoch:,.0f} steps an epoch" if per_epoch else text
