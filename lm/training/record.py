"""What a training run writes: metrics, samples, checkpoints, the best weights, the final results."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager

from lm.config.schema import RunConfig
from lm.console.invocation import command, quoted, resume_command
from lm.data.corpus import Split
from lm.distributed import RankLost
from lm.errors import ModelError, UserError
from lm.evaluation.validation import Validation, validate as score_split
from lm.files.atomic import folder_or_previous, write_text
from lm.files.tensor_files import read_tensors
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.storage.loading import check_weights, load_weights
from lm.storage.model_folder import WEIGHTS, hub_id, read_config
from lm.storage.run_folder import read_metrics
from lm.storage.run_lock import check_own
from lm.storage.saving import save_model
from lm.tokenization.special_tokens import start_token
from lm.training.callbacks import Row
from lm.training.checkpoint import of_all_ranks, save_checkpoint, take_snapshot
from lm.training.disk import CHECKPOINT
from lm.training.display import StepMetrics
from lm.training.plot import loss_curve
from lm.training.provenance import trained_on
from lm.training.state import Learner, Snapshot, Trainer, Unsaved

_SAMPLE_LENGTH = 160  # characters, about


def validate(trainer: Trainer) -> Validation:
    """Score part of the validation text."""
    begin = trainer.seconds
    learner, progress = trainer.learner, trainer.progress
    limit = learner.config.training.eval_tokens
    result = score(learner, learner.network, learner.corpus.validation, limit)
    share = result.tokens / sum(split.counts.tokens for split in _splits(trainer).values())
    if share < 1 or not limit:  # otherwise, the text is so short that scoring it takes no time
        taken = trainer.ranks.broadcast_object(lambda: trainer.seconds - begin)
        whole = taken + taken / share + 0.5  # the last validation comes before the final scoring
        progress.reserve = min(progress.reserve or whole, whole)
    return result


def keep_if_best(trainer: Trainer, result: Validation) -> None:
    """Save the weights if this validation of them is the best so far."""
    progress, trainer.validation = trainer.progress, result
    progress.worse = 0 if result.loss < progress.best_loss else progress.worse + 1
    if not progress.worse:
        _save_best(trainer, result)


def newer_model(trainer: Trainer) -> tuple[int, float] | None:
    """The step and the loss of the model in the run's folder if the checkpoint does not know it: a kill came
    between the two, or there was space for only one."""
    folder = trainer.run.folder

    def look() -> tuple[int, float] | None:
        try:
            facts = read_config(folder) if (folder / WEIGHTS).exists() else {}
            return int(facts["trained_on"]["steps"]), float(facts["validation"]["loss"])
        except (ModelError, KeyError, TypeError, ValueError, OverflowError):
            return None

    step, loss = trainer.ranks.broadcast_object(look) or (trainer.progress.best_step, 0.0)
    return (step, loss) if step != trainer.progress.best_step else None


def begin_fine_tuning(trainer: Trainer, result: Validation) -> None:
    """Make the weights that the training starts from the first candidate for the best ones."""
    trainer.progress.start_loss = result.loss
    trainer.progress.base_model = hub_id(trainer.learner.config.training.init_from or "")
    _save_best(trainer, result)
    record = {
        "step": 0,
        "tokens": 0,
        "seconds": 0.0,
        **_validation_row(result),
    }
    if trainer.ranks.is_main_process:
        trainer.disk.attempt("the metrics", lambda: trainer.run.log(record))
        trainer.tracker.log(record)
    trainer.display.say(f"  0%  before fine-tuning: validation {result.loss:.3f}")


def _save_best(trainer: Trainer, result: Validation) -> None:
    """Save the current weights as the best ones, if there is space for them and no better ones are there."""
    progress = trainer.progress
    before = progress.best_loss, progress.best_step
    progress.best_loss, progress.best_step = result.loss, progress.step
    network, results = trainer.learner.network, {"validation": result}
    if trainer.newer and trainer.newer[1] < result.loss:
        return
    if not trainer.ranks.broadcast_object(lambda: _save_model(trainer, network, results)):
        progress.best_loss, progress.best_step = before
        trainer.unsaved = Unsaved(progress.step, result)
    else:
        trainer.unsaved = trainer.newer = None


def metrics(trainer: Trainer, train_loss: float) -> Row:
    """The metrics that are known after every step."""
    learner, step = trainer.learner, trainer.progress.step
    return {
        "step": step,
        "tokens": step * learner.windows.tokens_per_step,
        "seconds": round(trainer.seconds, 3),
        "train_loss": train_loss,
        "learning_rate": learner.optimizer.rate,
    }


def log(trainer: Trainer, now: StepMetrics, validated: bool) -> Row:
    """Write one line of metrics, and redraw the loss curve after a validation, in a notebook more often.
    Returns the line."""
    record = metrics(trainer, now.train_loss)
    record["tokens_per_second"] = round(now.tokens_per_second, 1)
    if validated and now.validation:
        record |= _validation_row(now.validation)
    if trainer.ranks.is_main_process:
        trainer.disk.attempt("the metrics", lambda: trainer.run.log(record))
        trainer.tracker.log(record)
        if validated or trainer.display.curve_due(now.step):
            _draw_curve(trainer)
    return record


def _validation_row(result: Validation) -> Row:
    """What a validation adds to a line of metrics."""
    return {"validation_loss": result.loss, "validation_tokens": result.tokens}


def sample(trainer: Trainer) -> None:
    """Generate a short text, print it and append it to samples.txt."""
    if not trainer.ranks.is_main_process:
        return
    learner, config = trainer.learner, trainer.learner.config
    model = LanguageModel(learner.network, learner.corpus.tokenizer, {"trained_on": trained_on(trainer)})
    prompt = config.training.sample_prompt
    if prompt is None:
        prompt = "def " if config.data.dataset == ("python",) else ""
    counts = learner.corpus.train.counts
    length = max(24, round(_SAMPLE_LENGTH * counts.tokens / counts.characters))
    (written,) = model.generate(prompt, max_new_tokens=length, seed=config.training.seed)
    text = model.direction.join(prompt, written.text)
    trainer.disk.attempt("the sample", lambda: trainer.run.add_sample(trainer.progress.step, text))
    trainer.tracker.sample(text, trainer.progress.step)
    trainer.display.sample(text)


def keep_folder(trainer: Trainer) -> None:
    """Begin a new run in place of a run folder that has been moved or deleted. Raises UserError if another
    process has."""
    run, progress = trainer.run, trainer.progress

    def look() -> tuple[bool, bool]:
        check_own(run.folder)
        return run.config.exists(), (run.folder / WEIGHTS).exists()

    def create() -> None:
        run.training.mkdir(parents=True, exist_ok=True)
        trainer.learner.corpus.tokenizer.save(run.folder / "tokenizer.json")
        run.write_config(RunConfig.from_flat(progress.settings))

    is_there, has_model = trainer.ranks.broadcast_object(look)
    if is_there:
        return
    if not has_model:
        trainer.newer = None
        for each in (progress, trainer.good.progress):
            each.forget_best()
    if trainer.ranks.is_main_process and trainer.disk.attempt("the run", create):
        trainer.display.warn_even_if_quiet(
            f"{run.folder} was moved or deleted: a new run in its place continues, without what was saved"
            " before."
        )


def save(trainer: Trainer) -> bool:
    """Save a checkpoint. Returns whether there was space for it."""
    now, good = of_all_ranks(trainer, take_snapshot(trainer)), of_all_ranks(trainer, trainer.good)
    saved = not trainer.ranks.is_main_process or trainer.disk.attempt(
        CHECKPOINT, lambda: save_checkpoint(trainer.run.checkpoint, now, good)
    )
    trainer.disk.ever_saved |= saved
    trainer.last_save_time = trainer.now
    return saved


def nothing_saved(trainer: Trainer) -> UserError:
    """The error if neither a model nor a checkpoint could ever be saved."""
    folder = trainer.run.folder
    resume = f" and continue with `{resume_command(folder)}`" if trainer.disk.ever_saved else ""
    return UserError(
        f"the model could not be saved in {folder}: {trainer.disk.last_error}. Free some space{resume}, or"
        " name another folder with --out."
    )


@contextmanager
def explaining_lost_ranks(trainer: Trainer) -> Iterator[None]:
    """Say how to continue if another rank ends."""
    try:
        yield
    except RankLost as error:
        folder = trainer.run.folder
        remedy = f"continue from its last checkpoint with --resume {quoted(folder)}, on any number of ranks"
        if folder_or_previous(trainer.run.checkpoint) is None:
            remedy = f"start again with --overwrite, since {folder} has no checkpoint yet"
        raise RankLost(
            f"another rank has ended, so this training ends by step {trainer.progress.step:,}: {remedy}."
        ) from error


def finish(trainer: Trainer) -> None:
    """Score the validation and test text once with the best weights, and print what to do next.

    Raises UserError if no model could ever be saved.
    """
    run, progress, ranks = trainer.run, trainer.progress, trainer.ranks
    keep_folder(trainer)
    if trainer.unsaved and trainer.unsaved.step == progress.step:
        _save_best(trainer, trainer.unsaved.result)
    if trainer.newer:  # still better than all since the checkpoint
        progress.best_step, progress.best_loss = trainer.newer
    best = copy.deepcopy(trainer.learner.network)
    if progress.has_best:  # otherwise there was no space for any model
        if ranks.is_main_process:
            load_weights(best, read_tensors(run.folder / WEIGHTS), run.folder)
            check_weights(run.folder)
        ranks.broadcast(best.parameters())
    else:
        progress.best_step = progress.step
    share, splits = trainer.share_scored, _splits(trainer)
    results = {}
    for name, split in splits.items():
        limit = math.ceil(share * split.counts.tokens) if share < 1 else 0
        results[name] = score(trainer.learner, best, split, limit)
    if share < 1:
        trainer.display.say(
            f"The final results cover an evenly spread {share:.0%} of the text, because scoring all of it"
            f" would take too much of the budget. `{command('evaluate')} {quoted(run.folder)}`"
            " scores all of it."
        )
    elif trainer.validation and trainer.validation.tokens < results["validation"].tokens:
        trainer.display.say(
            "The final results cover the whole text; earlier validations covered"
            f" {trainer.validation.tokens:,} tokens of it."
        )
    if ranks.is_main_process and trainer.unsaved and progress.has_best:
        trainer.display.warn_even_if_quiet(
            f"the model is that of step {progress.best_step:,}: the better weights of step"
            f" {trainer.unsaved.step:,} could not be saved."
        )
    progress.finished, progress.lengths = True, run.lengths()
    if ranks.is_main_process:
        _conclude(trainer, best, results)
    trainer.good = Snapshot(progress, {})
    save(trainer)
    trainer.display.finish(results, _change(trainer), trainer.seconds, run.folder, run.plot)


def _conclude(trainer: Trainer, best: RecurrentLM, results: dict[str, Validation]) -> None:
    """Save the final model and the last line of metrics."""
    run, progress = trainer.run, trainer.progress
    if not _save_model(trainer, best, results) and not (run.folder / WEIGHTS).exists():
        raise nothing_saved(trainer)
    last = {
        "step": progress.best_step,
        "tokens": progress.best_step * trainer.learner.windows.tokens_per_step,
        "seconds": round(trainer.seconds, 3),
        **_validation_row(results["validation"]),
    }
    trainer.disk.attempt("the metrics", lambda: run.log(last))
    trainer.tracker.final({"final_validation_loss": last["validation_loss"]}, progress.step)
    _draw_curve(trainer)


def _splits(trainer: Trainer) -> dict[str, Split]:
    """The splits that are scored at the end."""
    corpus = trainer.learner.corpus
    splits = {"validation": corpus.validation, "test": corpus.test}
    return {name: split for name, split in splits.items() if split}


def _change(trainer: Trainer) -> str:
    """What fine-tuning has changed: 'validation loss 1.784, 0.016 better than before fine-tuning (1.800)'."""
    progress, validation = trainer.progress, trainer.learner.corpus.validation
    before, after = progress.start_loss, progress.best_loss
    if before is None:
        return ""
    limit = trainer.learner.config.training.eval_tokens
    part = f", on {limit:,} tokens" if 0 < limit < validation.counts.tokens else ""
    if after < before:
        better = f"{before - after:.3f} better than before fine-tuning"
        return f"validation loss {after:.3f}, {better} ({before:.3f}){part}"
    return f"no better than before: the model keeps its initial weights (validation loss {before:.3f}{part})"


def score(learner: Learner, network: RecurrentLM, split: Split, limit: int) -> Validation:
    """The loss of `network` on a split, or on about `limit` of its tokens, unless that is 0."""
    streamed = learner.config.data.streaming
    single_document = learner.corpus.train.counts.documents == 1 and not streamed
    return score_split(
        network,
        split.tokens,
        split.counts,
        start_token(learner.corpus.tokenizer, single_document),
        limit=limit,
        precision=learner.precision,
        ranks=learner.ranks,
    )


def _save_model(trainer: Trainer, network: RecurrentLM, results: dict[str, Validation]) -> bool:
    facts = {"trained_on": trained_on(trainer)}
    splits = _splits(trainer)
    for name, result in results.items():
        # Unknown tokens make bits per character look better than they are.
        unknown = splits[name].counts.unknown / splits[name].counts.tokens
        facts[name] = {**dataclasses.asdict(result), "unknown_fraction": round(unknown, 6)}
    tokenizer = trainer.learner.corpus.tokenizer
    saved = trainer.disk.attempt(
        "the model", lambda: save_model(trainer.run.folder, network, tokenizer, facts)
    )
    trainer.disk.ever_saved |= saved
    return saved


def _draw_curve(trainer: Trainer) -> None:
    title = f"{trainer.learner.corpus.name}, {trainer.learner.config.model.cell.upper()}"
    svg = loss_curve(read_metrics(trainer.run), title)
    trainer.disk.attempt("the loss curve", lambda: write_text(trainer.run.plot, svg))
    trainer.display.curve(svg, trainer.progress.step)
