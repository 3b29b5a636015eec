"""Short trainings, of `lm train` and of `lm.train`, and what they have saved."""

import json

import yaml

from tests.conftest import SMALL, metrics

_CLOCK = ("seconds", "tokens_per_second")
COMMAND = ["--dataset", "boat.txt", *SMALL, "--lr", "0.01", "--quiet"]
SETTINGS = {
    "layers": 1,
    "hidden_size": 16,
    "batch_size": 4,
    "bptt": 16,
    "steps": 40,
    "quiet": True,
    "sample_every": 0,
    "cell": "gru",
}


def as_flags(settings):
    """Settings of `lm.train` as `lm train` takes them."""
    given = {"--" + name.replace("_", "-"): value for name, value in settings.items() if value is not False}
    return [
        part for flag, value in given.items() for part in ([flag] if value is True else [flag, str(value)])
    ]


def progress(run):
    """The progress.json of a run's checkpoint."""
    return json.loads((run / "training/checkpoint/progress.json").read_text())


def outcome(run):
    """The weights, and the metrics except those of the clock."""
    records = [{k: v for k, v in record.items() if k not in _CLOCK} for record in metrics(run)]
    return (run / "model.safetensors").read_bytes(), records


def edit_config(run, **changes):
    """Change settings in a run's config.yaml."""
    path = run / "training/config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes, sort_keys=False))
