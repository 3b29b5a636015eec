"""What a training leaves behind: metrics, samples, checkpoints, the best weights, the final figures."""

from __future__ import annotations

import copy
import dataclasses
import math
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lm.data.corpus import Split
from lm.distributed import RankLost
from lm.errors import UserError
from lm.evaluation.losses import Validation, validate
from lm.files import folder_or_previous, write_text
from lm.invocation import command
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.run_folder import read_metrics
from lm.saving import load_weights, read_tensors, save_model
from lm.training.checkpoint import capture, of_all_ranks, save_checkpoint
from lm.training.plot import loss_curve
from lm.training.progress import Reading

if TYPE_CHECKING:
    from lm.training.loop import Trainer

_SAMPLE_LENGTH = 160  # characters, about


def validate_now(trainer: Trainer) -> None:
    """Validate on a sample of the text and keep the weights if they are the best so far."""
    begin = time.perf_counter()
    split, progress = trainer.corpus.validation, trainer.progress
    limit = trainer.config.training.eval_tokens
    trainer.validation = _figures(trainer, trainer.network, split, limit)
    share = trainer.validation.tokens / _tokens_to_score(trainer)
    if share < 1:
        whole = trainer.ranks.from_first(lambda: (time.perf_counter() - begin) / share + 0.5)
        progress.reserve = min(progress.reserve or whole, whole)
    progress.worse = 0 if trainer.validation.loss < progress.best_loss else progress.worse + 1
    if not progress.worse:
        before = progress.best_loss, progress.best_step
        progress.best_loss, progress.best_step = trainer.validation.loss, progress.step
        figures = {"validation": trainer.validation}
        if not trainer.ranks.from_first(lambda: _save_model(trainer, trainer.network, figures)):
            progress.best_loss, progress.best_step = before


def log(trainer: Trainer, now: Reading, validated: bool) -> None:
    """One line of metrics; with a validation also the picture."""
    if not trainer.ranks.first:
        return
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
        record["validation_tokens"] = now.validation.tokens
    trainer.disk.attempt("the metrics", lambda: trainer.run.log(record))
    trainer.tracker.log(record)
    if validated:
        _draw(trainer)


def sample(trainer: Trainer) -> None:
    """Show what the model writes now, and keep it."""
    if not trainer.ranks.first:
        return
    facts = {"trained_on": _trained_on(trainer)}
    model = LanguageModel(trainer.network, trainer.corpus.tokenizer, facts)
    prompt = trainer.config.training.sample_prompt
    if prompt is None:
        prompt = "def " if trainer.config.data.dataset == ("python",) else ""
    counts = trainer.corpus.train.counts
    length = max(24, round(_SAMPLE_LENGTH * counts.tokens / counts.characters))
    (written,) = model.generate(prompt, max_new_tokens=length, seed=trainer.config.training.seed)
    text = written.text + prompt if model.backward else prompt + written.text
    trainer.disk.attempt("the sample", lambda: trainer.run.add_sample(trainer.progress.step, text))
    trainer.tracker.sample(text, trainer.progress.step)
    trainer.display.sample(text)


def save(trainer: Trainer) -> bool:
    """Save everything that `--resume` needs; whether there was room for it."""
    now, good = of_all_ranks(trainer, capture(trainer)), trainer.good
    good = good and of_all_ranks(trainer, good)
    saved = not trainer.ranks.first or trainer.disk.attempt(
        "the checkpoint", lambda: save_checkpoint(trainer.run.checkpoint, now, good)
    )
    trainer.disk.worked |= saved
    trainer.saved = trainer.now
    return saved


def nothing_saved(trainer: Trainer) -> UserError:
    """The error for a person where there was never room for what they wanted."""
    folder = trainer.run.folder
    again = f" and go on by --resume {shlex.quote(str(folder))}" if trainer.disk.worked else ""
    return UserError(
        f"the model could not be saved in {folder}: {trainer.disk.trouble}. Make room{again}, or name"
        " another folder with --out."
    )


@contextmanager
def telling_how_to_go_on(trainer: Trainer) -> Iterator[None]:
    """Say what to do where another rank has ended."""
    try:
        yield
    except RankLost as error:
        raise RankLost(_how_to_go_on(trainer)) from error


def _how_to_go_on(trainer: Trainer) -> str:
    folder = trainer.run.folder
    again = f"go on from its last checkpoint by --resume {shlex.quote(str(folder))}, on any number of ranks"
    if folder_or_previous(trainer.run.checkpoint) is None:
        again = f"start again with --overwrite, since {folder} has no checkpoint yet"
    return f"another rank has ended, and so does this training by step {trainer.progress.step:,}: {again}."


def finish(trainer: Trainer) -> None:
    """Score the whole validation text once with the best weights, and tell how to go on. Raises
    UserError if no model could ever be saved."""
    run, progress = trainer.run, trainer.progress
    best = copy.deepcopy(trainer.network)
    if progress.best_step:  # else there was no room for any
        if trainer.ranks.first:
            load_weights(best, read_tensors(run.folder / "model.safetensors"), run.folder)
        trainer.ranks.copy_from_first(best.parameters())
    else:
        progress.best_step = progress.step
    share, splits = trainer.share_scored, _splits(trainer).items()
    limits = {name: math.ceil(share * split.counts.tokens) if share < 1 else 0 for name, split in splits}
    figures = {name: _figures(trainer, best, split, limits[name]) for name, split in splits}
    if share < 1:
        trainer.display.say(
            f"the last figures are of {share:.0%} of the text that is scored, spread over it: the"
            f" whole would take too much of the budget. {command('evaluate')} {shlex.quote(str(run.folder))}"
            " scores all of it."
        )
    elif trainer.validation and trainer.validation.tokens < figures["validation"].tokens:
        trainer.display.say(
            f"the last figures are of the whole text, those on the way were of {trainer.validation.tokens:,}"
            " tokens of it."
        )
    if trainer.ranks.first:
        _conclude(trainer, best, figures)
    progress.finished, trainer.good = True, None
    save(trainer)
    trainer.display.finish(figures, trainer.seconds, run.folder, run.plot)


def _splits(trainer: Trainer) -> dict[str, Split]:
    """What is scored at the end."""
    splits = {"validation": trainer.corpus.validation, "test": trainer.corpus.test}
    return {name: split for name, split in splits.items() if split}


def _tokens_to_score(trainer: Trainer) -> int:
    return sum(split.counts.tokens for split in _splits(trainer).values())


def _conclude(trainer: Trainer, best: RecurrentLM, figures: dict[str, Validation]) -> None:
    run, progress = trainer.run, trainer.progress
    if not _save_model(trainer, best, figures) and not (run.folder / "model.safetensors").exists():
        raise nothing_saved(trainer)
    last = {
        "step": progress.best_step,
        "tokens": progress.best_step * trainer.windows.tokens_per_step,
        "seconds": round(trainer.seconds, 3),
        "validation_loss": figures["validation"].loss,
        "validation_tokens": figures["validation"].tokens,
    }
    trainer.disk.attempt("the metrics", lambda: run.log(last))
    trainer.tracker.log({"step": progress.step + 1, "final_validation_loss": last["validation_loss"]})
    _draw(trainer)


def _figures(trainer: Trainer, network: RecurrentLM, split: Split, limit: int = 0) -> Validation:
    return validate(
        network,
        split.tokens,
        split.counts,
        trainer.corpus.tokenizer.eos,
        limit=limit,
        precision=trainer.precision,
        ranks=trainer.ranks,
    )


def _save_model(trainer: Trainer, network: RecurrentLM, figures: dict[str, Validation]) -> bool:
    facts = {"trained_on": _trained_on(trainer)}
    facts |= {split: dataclasses.asdict(validation) for split, validation in figures.items()}
    saved = trainer.disk.attempt(
        "the model", lambda: save_model(trainer.run.folder, network, trainer.corpus.tokenizer, facts)
    )
    trainer.disk.worked |= saved
    return saved


def _trained_on(trainer: Trainer) -> dict[str, Any]:
    counts, steps = trainer.corpus.train.counts, trainer.progress.best_step
    characters, tokens, documents = counts.characters, counts.tokens, counts.documents
    if trainer.config.data.streaming:  # of which the counts are those of a sample
        share = steps * trainer.windows.tokens_per_step / tokens
        characters, tokens, documents = (round(share * n) for n in (characters, tokens, documents))
    return {
        "dataset": " + ".join(trainer.config.data.dataset),
        **({"init_from": trainer.config.training.init_from} if trainer.config.training.init_from else {}),
        "characters": characters,
        "tokens": tokens,
        "documents": documents,
        "steps": steps,
        "seconds": round(trainer.seconds, 1),
    }


def _draw(trainer: Trainer) -> None:
    title = f"{trainer.corpus.name}, {trainer.config.model.cell.upper()}"
    picture = loss_curve(read_metrics(trainer.run), title)
    trainer.disk.attempt("the picture", lambda: write_text(trainer.run.plot, picture))
