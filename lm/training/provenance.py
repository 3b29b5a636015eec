"""What config.json says about the training of a model: its text, where it started from, and its settings.

Others may read it, so it has the names of files and folders without their paths.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lm.config.schema import ModelConfig, RunConfig
from lm.config.settings import settings_of
from lm.files.paths import expanded
from lm.storage.model_folder import PRETRAINED
from lm.storage.saving import name_of_path
from lm.tokenization.vocabulary import KINDS
from lm.training.state import Trainer

_MAX_NAMES = 100
# Settings that do not affect the model: only the machine, the output and the files.
_INCIDENTAL = {
    *("out", "device", "quiet", "track", "data_report"),
    *("save_every", "sample_every", "sample_prompt"),
}


def trained_on(trainer: Trainer) -> dict[str, Any]:
    """The object `trained_on` of config.json."""
    learner, progress = trainer.learner, trainer.progress
    config, counts, steps = learner.config, learner.corpus.train.counts, progress.best_step
    characters, tokens, documents = counts.characters, counts.tokens, counts.documents
    if config.data.streaming:  # the counts are those of a sample
        share = steps * learner.windows.tokens_per_step / tokens
        characters, tokens, documents = (round(share * n) for n in (characters, tokens, documents))
    settings, hub_datasets = _settings(trainer), list(learner.corpus.facts.get("hub", {}).values())
    facts: dict[str, Any] = {"dataset": " + ".join(_dataset_names(trainer))}
    if learner.corpus.fingerprint:
        facts["fingerprint"] = learner.corpus.fingerprint
    if hub_datasets:
        facts["hub_datasets"] = hub_datasets
    if config.training.init_from:
        facts["init_from"] = settings["init_from"]
    if progress.base_model:
        facts["base_model"] = progress.base_model
    if progress.extended:
        facts["extended_at_steps"] = progress.extended
    if progress.start_loss is not None:
        facts["validation_loss_before"] = progress.start_loss
        facts["validation_loss_after"] = progress.best_loss
    return facts | {
        "characters": characters,
        "tokens": tokens,
        "documents": documents,
        "steps": steps,
        "seconds": round(trainer.seconds, 1),
        "settings": settings,
    }


def _dataset_names(trainer: Trainer) -> list[str]:
    """The names of the texts; of thousands, only the first: the model card repeats them several times."""
    hub = trainer.learner.corpus.facts.get("hub", {})
    given = trainer.learner.config.data.dataset
    names = [hub[name]["id"] if name in hub else name_of_path(name) for name in given[:_MAX_NAMES]]
    return names + [f"{len(given) - _MAX_NAMES:,} more"] * (len(given) > _MAX_NAMES)


def _settings(trainer: Trainer) -> dict[str, Any]:
    """The settings that train the model again, without those at their defaults. The defaults of a fine-tuned
    model are the settings of the model it started from."""
    config, defaults = trainer.learner.config, RunConfig().flat()
    names, hub = _dataset_names(trainer), trainer.learner.corpus.facts.get("hub", {})
    only = hub.get(config.data.dataset[0]) if len(names) == 1 else None
    flat = config.flat() | {"dataset": tuple(names)}
    if only:
        flat["dataset_revision"] = only["revision"]
    if config.training.init_from:
        if not trainer.progress.base_model:
            flat["init_from"] = name_of_path(config.training.init_from)
        if _is_of_first_model(trainer):
            del flat["tokenizer"]
        defaults |= dict.fromkeys(settings_of(ModelConfig))
    if flat.get("tokenizer", "char") not in KINDS and _is_local(config.data.tokenizer):
        flat["tokenizer"] = name_of_path(config.data.tokenizer)
    return {
        name: value for name, value in flat.items() if name not in _INCIDENTAL and value != defaults[name]
    }


def _is_of_first_model(trainer: Trainer) -> bool:
    """Whether the tokenizer is that of the model that fine-tuning started from, which is the default. A run
    that resumes reads its own copy."""
    config, base = trainer.learner.config, trainer.progress.base_model
    path, start = Path(config.data.tokenizer), config.training.init_from or ""
    folders = {expanded(start), trainer.run.folder}
    if start == PRETRAINED.name:
        folders.add(PRETRAINED)
    in_cache = base is not None and f"models--{base.replace('/', '--')}" in path.parts
    return path.name == "tokenizer.json" and (in_cache or path.parent in folders)


def _is_local(tokenizer: str) -> bool:
    path = expanded(tokenizer)
    return path.suffix == ".json" or path.is_absolute() or path.exists()
