"""What `lm train` and `lm.train` do: start a new run, resume one, or look for a learning rate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lm.config.presets import preset
from lm.config.schema import BUDGETS, RunConfig, checked
from lm.config.settings import flag_of
from lm.config.settings_file import MAX_CHARACTERS, MAX_VALUES, as_yaml, read_settings
from lm.console.invocation import command, quoted, resume_command
from lm.console.terminal import Terminal
from lm.data.corpus import Corpus, cached_corpus, content_key, open_corpus
from lm.data.find_source import recorded_revisions
from lm.distributed import Ranks
from lm.errors import DataError, ModelError, UserError, one_line
from lm.files.atomic import check_output
from lm.files.paths import expanded
from lm.storage.model_folder import check_format, read_config
from lm.storage.run_folder import Run, check_out, checkpoint_of, find_run
from lm.storage.run_lock import claimed
from lm.training.callbacks import NONE, Callbacks
from lm.training.checkpoint import read_progress
from lm.training.find_lr import PLOT, find_rate
from lm.training.finetune import with_model_settings
from lm.training.loop import train
from lm.training.out_of_memory import explaining_out_of_memory
from lm.training.setup import new_trainer, resumed_trainer
from lm.training.state import Trainer, budget_of
from lm.training.tracking import check_installed

# Settings that may change when a run resumes. Only the budget changes the result; the text must be the same.
_FREE_ON_RESUME = {*BUDGETS, "dataset", "device", "accumulate", "save_every", "track", "quiet"}
# Settings that may differ between ranks, such as local paths. The text itself is compared later.
_FREE_BETWEEN_RANKS = {"dataset", "tokenizer", "init_from", "out", "quiet", "track"}


@dataclass(frozen=True)
class Ended:
    """A training that has ended."""

    run: Run
    device: str  # as in the settings
    signal: int = 0  # the signal that has interrupted it; 0: it has finished


def launch(options: dict[str, Any], ranks: Ranks, callbacks: Callbacks = NONE) -> Ended | None:
    """Carry out the given command-line options. Returns how the training has ended, or None if the options
    ask for no training. Every rank calls it. Raises UserError."""
    names = ("preset", "config", "print_config", "find_lr", "overwrite")
    actions = {name: options.pop(name, None) for name in names}
    if actions["find_lr"] and not ranks.is_single_process:
        raise UserError("--find-lr runs in a single process; start it without torchrun.")
    if "resume" in options:
        if actions["find_lr"]:
            raise UserError("--find-lr cannot be combined with --resume: a resumed run keeps its rate.")
        if given := [name for name in ("preset", "config") if actions[name]]:
            raise _settings_changed_error(given)
        if given := [name for name in ("print_config", "overwrite") if actions[name]]:
            raise UserError(f"{flag_of(given[0])} cannot be combined with --resume.")
        return _resume(options.pop("resume"), options, ranks, callbacks)
    if actions["find_lr"] and (given := [name for name in ("print_config", "overwrite") if actions[name]]):
        raise UserError(f"{flag_of(given[0])} cannot be combined with --find-lr.")
    config = _settings(actions["preset"], actions["config"], options)
    _check_effects(options, config, bool(actions["find_lr"]))
    _check_settings(config, ranks)
    if actions["print_config"]:
        if ranks.is_main_process:
            print(as_yaml(config.flat()), end="")
        return None
    if ranks.is_main_process:
        check_installed(config.training.track)
    if actions["find_lr"]:
        check_output(PLOT, "run the command in a writable folder")
        terminal, corpus = _open_text(config, ranks)
        find_rate(config, corpus, terminal)
        return None
    return _start(config, ranks, callbacks, overwrite=bool(actions["overwrite"]))


def _settings(preset_name: str | None, file: str | None, options: dict[str, Any]) -> RunConfig:
    """The settings of a new run: the command line overrides the file, which overrides the preset."""
    values = preset(preset_name) if preset_name else {}
    of_file = checked(read_settings(expanded(file)), where=str(file)) if file else {}
    values = _overridden(_overridden(values, of_file), options)
    if values.get("init_from"):
        values = with_model_settings(values)
    return RunConfig.from_flat(values)


def _overridden(values: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """The settings `values` with `options` in their place: a budget replaces one of any kind."""
    new_budget = any(options.get(name) is not None for name in BUDGETS)
    return {**values, **(dict.fromkeys(BUDGETS) if new_budget else {}), **options}


def _check_effects(options: dict[str, Any], config: RunConfig, find_lr: bool) -> None:
    """Raise UserError for flags that would have no effect. Files and runs may have such settings."""
    data, training = config.data, config.training
    learned = data.tokenizer in ("char", "bpe", "unigram", "word")  # from the text
    for name, matters, reason in (
        ("sampled_softmax", not data.streaming, "with --streaming"),
        ("shuffle_buffer", data.streaming, "without --streaming"),
        ("vocab_size", learned, f"on the tokenizer {data.tokenizer}"),
        ("min_frequency", learned and data.tokenizer != "unigram", f"on the tokenizer {data.tokenizer}"),
        ("sample_prompt", training.sample_every != 0, "with --sample-every 0"),
        ("data_report", not training.quiet, "with --quiet"),
        *((name, not find_lr, "with --find-lr") for name in ("lr", "warmup", "schedule")),
    ):
        given = options.get(name)
        if not matters and given not in (None, RunConfig().flat()[name]):
            raise UserError(f"{flag_of(name)} has no effect {reason}; leave it out.")


def _check_names(config: RunConfig) -> None:
    """Raise UserError if --dataset names more texts than a readable config.yaml can hold."""
    names = config.data.dataset
    size = sum(len(name.encode()) for name in names)
    if len(names) > MAX_VALUES * 3 // 4 or size > MAX_CHARACTERS * 3 // 4:
        raise UserError(
            f"--dataset names {len(names):,} texts, too many for the settings of a run: name their folder"
            " instead, or put the pattern in quotes."
        )


def _start(config: RunConfig, ranks: Ranks, callbacks: Callbacks, overwrite: bool) -> Ended:
    _check_names(config)
    if ranks.is_main_process:
        check_out(config, overwrite)
    terminal, corpus = _open_text(config, ranks)
    trainer: Trainer | None = None
    vocab_size = corpus.tokenizer.vocab_size
    with ExitStack() as claims, explaining_out_of_memory(config, vocab_size, lambda: _saved(trainer)):
        trainer = new_trainer(config, corpus, terminal, ranks, overwrite, claims)
        return _train(trainer, callbacks)


def _open_text(config: RunConfig, ranks: Ranks) -> tuple[Terminal, Corpus]:
    """The terminal to print on, and the text of a new training."""
    terminal = Terminal(quiet=config.training.quiet or not ranks.is_main_process)
    with terminal.progress() as progress:
        corpus = ranks.one_on_each_machine(lambda: open_corpus(config.data, progress))
    _check_text(corpus.key, ranks)
    return terminal, corpus


def _train(trainer: Trainer, callbacks: Callbacks) -> Ended:
    trainer.callbacks = callbacks
    return Ended(trainer.run, trainer.learner.config.training.device, train(trainer))


def _resume(folder: str | None, options: dict[str, Any], ranks: Ranks, callbacks: Callbacks) -> Ended:
    # With several machines, only the first one needs to have the run.
    run = Run(Path(ranks.broadcast_object(lambda: str(find_run(folder).folder))))
    with claimed(run.folder) if ranks.is_main_process else nullcontext("") as note:
        return _resume_own(run, options, ranks, callbacks, note)


def _resume_own(run: Run, options: dict[str, Any], ranks: Ranks, callbacks: Callbacks, note: str) -> Ended:
    """Resume a run that this process owns; `note` is for the user."""
    ranks.broadcast_object(lambda: check_format(run.folder))
    of_run = RunConfig.from_flat(ranks.broadcast_object(run.settings), where=str(run.config))
    saved = of_run.flat()
    config = RunConfig.from_flat(_overridden(saved, options))
    _check_settings(config, ranks)
    if changed := [n for n, value in config.flat().items() if n not in _FREE_ON_RESUME and saved[n] != value]:
        raise _settings_changed_error(changed)
    _check_names(config)
    kept = {name: value for name, value in options.items() if name in (*BUDGETS, "dataset")}
    update = RunConfig.from_flat(_overridden(saved, kept)) if kept else None
    if config.training.init_from and Path(config.data.tokenizer).name == "tokenizer.json":
        # The run holds the tokenizer too; the model it came from may be gone.
        tokenizer = str(run.folder / "tokenizer.json")
        config = replace(config, data=replace(config.data, tokenizer=tokenizer))
    if ranks.is_main_process:
        check_installed(config.training.track)
    terminal = Terminal(quiet=config.training.quiet or not ranks.is_main_process)
    if note:
        terminal.say(f"warning: {note}")
    stopped = ranks.broadcast_object(lambda: asdict(read_progress(checkpoint_of(run))))
    settings = checked(stopped["settings"], where=str(run.checkpoint))
    _check_unchanged(run, saved, settings)
    stopped["budget"] = stopped["budget"] or budget_of(of_run)
    # The name of the text may have been changed in the file.
    named = "dataset" in options or saved["dataset"] != settings.get("dataset", saved["dataset"])
    finished = stopped["finished"] and stopped["budget"] == budget_of(config)
    if finished and not named:
        return _say_finished(run, config, terminal)
    with _saying_how_to_name_moved_text("dataset" in options):
        # The tokens are enough: the text itself may have moved, or was standard input.
        corpus = None if named else cached_corpus(stopped["corpus"])
        if corpus is None:
            copy = run.folder / "tokenizer.json", stopped["tokenizer"]
            revisions = ranks.broadcast_object(lambda: _revisions(run, config))
            with terminal.progress() as progress:
                corpus = ranks.one_on_each_machine(
                    lambda: open_corpus(config.data, progress, of_run=True, copy=copy, revisions=revisions)
                )
        _check_text(corpus.key, ranks)
        if content_key(stopped["corpus"]) != content_key(corpus.key):
            raise UserError(
                f"{run.folder} cannot be resumed: the text of {corpus.name} has changed, or this version of"
                " lm reads it differently."
            )
        if finished:
            return _say_finished(run, config, terminal)
        trainer: Trainer | None = None
        vocab_size = corpus.tokenizer.vocab_size
        with explaining_out_of_memory(config, vocab_size, lambda: _saved(trainer)):
            trainer = resumed_trainer(run, config, corpus, terminal, ranks, of_run, update)
            return _train(trainer, callbacks)


def _revisions(run: Run, config: RunConfig) -> list[str | None]:
    """The commits of datasets on the Hub that a run has read: they may have changed since."""
    try:
        trained_on = read_config(run.folder).get("trained_on")
    except ModelError:  # it has no model yet
        trained_on = None
    return recorded_revisions(config.data, trained_on if isinstance(trained_on, dict) else {})


def _say_finished(run: Run, config: RunConfig, terminal: Terminal) -> Ended:
    generate = f"{command('generate')} {quoted(run.folder)}"
    terminal.say(
        f"{run.folder} has finished. Generate with: {generate}; train longer with:"
        f" {resume_command(run.folder)} and a larger --steps, --epochs or --max-time"
    )
    return Ended(run, config.training.device)


def _settings_changed_error(changed: list[str]) -> UserError:
    flags = ", ".join(map(flag_of, changed))
    return UserError(
        f"a resumed run keeps its settings; leave out {flags}, or start a new run. These may change: the"
        " budget (--steps, --epochs or --max-time), --dataset if the text is the same, --device, --accumulate"
        " (to save memory), --save-every, --track and --quiet."
    )


def _check_unchanged(run: Run, saved: dict[str, Any], stopped: dict[str, Any]) -> None:
    """Raise UserError if someone has changed settings in a run's config.yaml that the run keeps.

    `stopped`: the settings in the checkpoint, none if an earlier version has written it.
    """
    kept = [name for name in stopped if name not in _FREE_ON_RESUME and name != "out"]
    if changed := {name: stopped[name] for name in kept if stopped[name] != saved[name]}:
        lines = ", ".join(one_line(as_yaml({name: value})) for name, value in changed.items())
        raise UserError(
            f"{run.config} has been changed, but a resumed run keeps its settings: restore {lines}, or start"
            " a new run."
        )


@contextmanager
def _saying_how_to_name_moved_text(named: bool) -> Iterator[None]:
    """Say in errors about a text that was not `named` that it may have moved."""
    try:
        yield
    except DataError as error:
        if named:
            raise
        raise DataError(f"{error} If the text has moved, name its new place with --dataset.") from error


def _check_settings(config: RunConfig, ranks: Ranks) -> None:
    """Raise UserError if the ranks have different settings."""
    if "-" in config.data.dataset and not ranks.is_single_process:
        raise UserError("--dataset - can only be read by one process: write the text to a file first.")
    settings = config.flat().items()
    shared = {flag_of(name): value for name, value in settings if name not in _FREE_BETWEEN_RANKS}
    ranks.check_same(shared, "start all ranks with the same settings.")


def _check_text(key: str, ranks: Ranks) -> None:
    ranks.check_same({"the text": key}, "give all ranks the same text.")


def _saved(trainer: Trainer | None) -> Path | None:
    """The run folder, if it holds weights."""
    return trainer.run.folder if trainer and trainer.progress.has_best else None
