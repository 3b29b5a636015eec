"""A good model folder, which hostile ones are made from, and texts that models are used with."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from lm.config.schema import ModelConfig
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import train_tokenizer
from tests.hostile.damage import edited

TEXT = "the sea was calm and a small boat went out\n" * 20
# What programs send to a model: its run of a letter is what some patterns cannot match in time.
PROMPT = "the sea " + "a" * 40 + "b"


def make_good(folder: Path) -> None:
    """A run of a tiny model, with everything that the page shows."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer("char", iter([TEXT]))
    network = RecurrentLM(ModelConfig(hidden_size=8), tokenizer.vocab_size)
    metrics = {"loss": 2.5, "perplexity": 12.2, "bits_per_character": 3.6, "bits_per_byte": 3.6}
    facts = {"trained_on": {"dataset": "x", "characters": 17, "documents": 3}, "validation": metrics}
    LanguageModel(network, tokenizer, facts).save(folder)
    # Without digests, as an attacker can write matching ones.
    edited("config.json", lambda values: values.pop("sha256", None))(folder)
    training = folder / "training"
    (training / "checkpoint").mkdir(parents=True)
    records = [
        {"step": step, "tokens": 100 * step, "seconds": step, "validation_loss": 3 - step / 4}
        for step in range(1, 4)
    ]
    (training / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (training / "loss.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    (training / "checkpoint" / "progress.json").write_text('{"corpus": "x", "finished": true}')
