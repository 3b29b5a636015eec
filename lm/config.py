"""Every setting there is: its default, its range and the line of help that `--help` shows.

The dataclasses below are the only list. The command line, the YAML file and the saved run are
all read into them, and all of them are checked here.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lm.errors import UserError

CELLS = ("rnn", "gru", "lstm")
RUNS = Path("runs")  # where runs are, unless another place is named


def setting(
    default: Any,
    help: str,
    *,
    choices: Iterable[str] | None = None,
    minimum: float | None = None,
    below: float | None = None,
    maximum: float | None = None,
    positive: bool = False,
    parse: typing.Callable[[str], Any] | None = None,
    metavar: str | None = None,
) -> Any:
    """A dataclass field that carries its help line and its range."""
    return field(
        default=default,
        metadata={
            "help": help,
            "choices": tuple(choices) if choices else None,
            "minimum": minimum,
            "below": below,
            "maximum": maximum,
            "positive": positive,
            "parse": parse,
            "metavar": metavar,
        },
    )


def parse_duration(text: str | float) -> float:
    """Seconds in '90s', '10m', '2h', '1h30m' or a plain number of seconds."""
    if isinstance(text, (int, float)):
        return float(text)
    match = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s?)?", text.strip().lower())
    try:
        parts = [float(part or 0) for part in match.groups()]
        seconds = parts[0] * 3600 + parts[1] * 60 + parts[2]
    except (AttributeError, ValueError):
        seconds = 0.0
    if seconds <= 0:
        raise UserError(f"'{text}' is not a length of time: write it like 90s, 10m or 2h.")
    return seconds


def parse_mix(text: str | Iterable[float]) -> tuple[float, ...]:
    """Shares that sum to one in '0.7,0.3' or in a list of numbers."""
    try:
        shares = tuple(map(float, text.split(",") if isinstance(text, str) else text))
    except (TypeError, ValueError):
        raise UserError(f"--mix takes shares such as 0.7,0.3, not '{text}'.") from None
    if not all(0 < share <= 1 for share in shares):
        raise UserError(f"each share of --mix lies above 0 and at most at 1, not so in '{text}'.")
    if abs(sum(shares) - 1) > 1e-6:
        raise UserError(f"the shares of --mix must sum to 1; {text} sums to {sum(shares):g}.")
    return shares


@dataclass(frozen=True)
class DataConfig:
    """Where the text comes from and how it becomes tokens."""

    dataset: tuple[str, ...] = setting(
        ("python",),
        "a Hub id, a file, a folder, a glob, '-' for standard input, or 'python': the source of"
        " Python's own standard library; repeat it to read several",
        metavar="X",
    )
    mix: tuple[float, ...] | None = setting(
        None,
        "the share of each --dataset in what is trained on, such as 0.7,0.3; default: all of each",
        parse=parse_mix,
        metavar="SHARES",
    )
    dataset_config: str | None = setting(None, "which configuration of a Hub dataset", metavar="NAME")
    dataset_revision: str | None = setting(
        None, "which commit, branch or tag of a Hub dataset", metavar="NAME"
    )
    text_column: str | None = setting(
        None, "the column that holds the text; default: found by itself", metavar="NAME"
    )
    train_split: str = setting("train", "the split to train on", metavar="NAME")
    validation_split: str | None = setting(
        None,
        "a split's name, or a fraction such as 0.1; default: the set's own, else the last 10%",
        metavar="SPLIT",
    )
    test_split: str | None = setting(
        None,
        "a split's name, or a fraction that is left out of training; scored once, at the end",
        metavar="SPLIT",
    )
    streaming: bool = setting(
        False, "read while training, for a text that does not fit on the disk: nothing is kept of it"
    )
    shuffle_buffer: int = setting(
        1000, "documents among which --streaming chooses the next one", minimum=1, metavar="N"
    )
    max_chars: int | None = setting(
        None, "use only the first N characters of each split", minimum=2, metavar="N"
    )
    encoding_errors: str = setting(
        "strict", "what to do with bytes that are not UTF-8", choices=("strict", "replace")
    )
    tokenizer: str = setting(
        "char",
        "what a token is: char, byte, bpe, unigram, word, or a ready one: a tokenizer.json or a Hub id",
        metavar="T",
    )
    vocab_size: int | None = setting(
        None,
        "token types; default: 4096 for bpe and unigram, 65536 for word, all for char",
        minimum=3,
        metavar="N",
    )
    min_frequency: int = setting(
        1, "rarer characters or words become <unk>; rarer pairs are not merged by bpe", minimum=1, metavar="N"
    )
    data_report: bool = setting(False, "show more of the text: its commonest and rarest characters")

    def __post_init__(self) -> None:
        if isinstance(self.dataset, str):  # so that Python can write DataConfig(dataset="my.txt")
            object.__setattr__(self, "dataset", (self.dataset,))


@dataclass(frozen=True)
class ModelConfig:
    """The shape of the network."""

    cell: str = setting("lstm", "the recurrent cell", choices=CELLS)
    layers: int = setting(2, "recurrent layers on top of each other", minimum=1, metavar="N")
    hidden_size: int = setting(256, "units in each layer", minimum=1, metavar="N")
    embedding_size: int | None = setting(
        None, "length of a token's vector; default: the hidden size", minimum=1, metavar="N"
    )
    tie: bool = setting(False, "share one matrix between the embedding and the decoder")
    dropout: float = setting(
        0.0, "share of the units dropped between layers while training", minimum=0, below=1
    )
    cell_implementation: str = setting(
        "fused",
        "'fused': torch's fast layers; 'reference': the readable cells of lm/cells.py",
        choices=("fused", "reference"),
    )


@dataclass(frozen=True)
class TrainingConfig:
    """The recipe and its budget."""

    batch_size: int = setting(32, "streams read in parallel", minimum=1, metavar="N")
    bptt: int = setting(64, "steps of truncated back-propagation through time", minimum=1, metavar="N")
    steps: int | None = setting(None, "budget: this many updates", minimum=1, metavar="N")
    epochs: float | None = setting(None, "budget: passes over the training text", positive=True, metavar="N")
    max_time: float | None = setting(
        None,
        "budget: time from the first step on, such as 90s, 10m or 2h; default, if none is named: 2m",
        positive=True,
        parse=parse_duration,
        metavar="TIME",
    )
    lr: float = setting(3e-3, "the highest learning rate", positive=True)
    warmup: float = setting(0.02, "share of the budget over which the rate rises to it", minimum=0, below=1)
    schedule: str = setting(
        "cosine", "how the rate falls after that", choices=("cosine", "linear", "constant")
    )
    clip: float = setting(1.0, "largest norm of the gradient; 0: no limit", minimum=0)
    weight_decay: float = setting(0.1, "AdamW's decay of the weight matrices", minimum=0)
    device: str = setting("auto", "where to compute", choices=("auto", "cpu", "cuda", "mps"))
    precision: str = setting(
        "auto",
        "auto: bf16 where the hardware multiplies it fast, else fp32",
        choices=("auto", "fp32", "bf16"),
    )
    out: str | None = setting(
        None, "folder of the run; default: runs/<dataset>-<cell>-<date-time>", metavar="DIR"
    )
    eval_every: int | None = setting(
        None, "validate every N steps; default: ten times in all", minimum=1, metavar="N"
    )
    eval_tokens: int = setting(
        32768,
        "tokens, spread over the validation text, that a validation in between looks at;"
        " the last one looks at all; 0: always all",
        minimum=0,
        metavar="N",
    )
    save_every: int | None = setting(
        None,
        "save the state for --resume every N steps; default: every 30 s and at each validation",
        minimum=1,
        metavar="N",
    )
    sample_every: int | None = setting(
        None,
        "show a sample every N steps; 0: never; default: at each validation",
        minimum=0,
        metavar="N",
    )
    sample_prompt: str | None = setting(
        None, "what the samples begin with; default: nothing, or 'def ' in Python", metavar="TEXT"
    )
    seed: int = setting(
        1, "of the weights, the dropout and the samples", minimum=0, maximum=2**63 - 1, metavar="N"
    )
    quiet: bool = setting(False, "print nothing but errors")


@dataclass(frozen=True)
class SamplingConfig:
    """How the next token is chosen."""

    temperature: float = setting(
        0.8, "above 1: more surprising, below 1: more likely text; 0: greedy", minimum=0
    )
    top_k: int = setting(0, "choose among the K likeliest tokens; 0: all", minimum=0, metavar="K")
    top_p: float = setting(
        1.0,
        "choose among the likeliest tokens that together have this probability",
        positive=True,
        maximum=1,
    )
    greedy: bool = setting(False, "always take the likeliest token")


GROUPS = {"data": DataConfig, "model": ModelConfig, "training": TrainingConfig}


@dataclass(frozen=True)
class RunConfig:
    """All settings of one training run."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()

    @classmethod
    def from_flat(cls, values: Mapping[str, Any], where: str = "the settings") -> RunConfig:
        """Build and check the settings from {'hidden_size': 256, ...}; absent ones are defaults.

        Raises UserError for an unknown name, a wrong type or a value out of range.
        """
        known = {name: group for group, c in GROUPS.items() for name in settings_of(c)}
        groups: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
        for name, value in values.items():
            if name not in known:
                raise UserError(f"{where}: there is no setting '{name}'{_did_you_mean(name, known)}.")
            groups[known[name]][name] = value
        config = cls(**{group: build(GROUPS[group], groups[group]) for group in GROUPS})
        if config.data.mix and len(config.data.mix) != len(config.data.dataset):
            raise UserError(
                f"--mix names {len(config.data.mix)} shares, but there are {len(config.data.dataset)} of"
                " --dataset: name one share for each."
            )
        if config.data.streaming and (config.data.max_chars or config.training.epochs):
            flag = "--max-chars" if config.data.max_chars else "--epochs"
            raise UserError(f"{flag} needs the whole text, which --streaming never sees: leave it out.")
        budgets = [n for n in ("steps", "epochs", "max_time") if getattr(config.training, n)]
        if len(budgets) > 1:
            named = " and ".join(flag_of(name) for name in budgets)
            raise UserError(f"{named} contradict each other: name one budget.")
        return config

    def flat(self) -> dict[str, Any]:
        """The settings as one flat dictionary, in the order of the groups."""
        return {k: v for group in GROUPS for k, v in dataclasses.asdict(getattr(self, group)).items()}


def settings_of(config_class: type) -> dict[str, dataclasses.Field]:
    """The settings of a class above by name."""
    return {f.name: f for f in dataclasses.fields(config_class)}


def flag_of(name: str) -> str:
    """'hidden_size' -> '--hidden-size'."""
    return "--" + name.replace("_", "-")


def build(config_class: type, values: Mapping[str, Any]) -> Any:
    """An instance of `config_class` with each value of `values` converted and checked."""
    kinds, settings = value_types(config_class), settings_of(config_class)
    for name in values:
        if name not in settings:
            raise UserError(f"there is no setting '{name}'{_did_you_mean(name, settings)}.")
    return config_class(**{n: check(settings[n], kinds[n], value) for n, value in values.items()})


def value_types(config_class: type) -> dict[str, tuple[type, bool]]:
    """For each setting the type of its value and whether it may be None."""
    result = {}
    for name, hint in typing.get_type_hints(config_class).items():
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        (kind,) = (typing.get_origin(o) or o for o in options if o is not type(None))
        result[name] = (kind, type(None) in options)
    return result


def check(setting: dataclasses.Field, kind: tuple[type, bool], value: Any) -> Any:
    """`value` as the setting's type. Raises UserError where it does not fit."""
    (wanted, optional), rule, flag = kind, setting.metadata, flag_of(setting.name)
    if value is None and optional:
        return None
    if rule["parse"]:
        value = rule["parse"](value)
    elif wanted is tuple:
        values = value if isinstance(value, (list, tuple)) else [value]
        if not values:
            raise UserError(f"{flag} needs at least one value.")
        return tuple(check(setting, (str, False), one) for one in values)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if wanted is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise UserError(f"{flag} takes {_A_KIND[wanted]}, not '{value}'.")
    if isinstance(value, str) and re.search("[\ud800-\udfff]", value):  # bytes of no known meaning
        raise UserError(f"{flag} {value!r} is not UTF-8; it is written into files that are: rename it.")
    if rule["choices"] and value not in rule["choices"]:
        raise UserError(f"{flag} is one of {', '.join(rule['choices'])}, not '{value}'.")
    if isinstance(value, float) and not abs(value) < float("inf"):
        raise UserError(f"{flag} must be a finite number, not {value}.")
    if rule["minimum"] is not None and value < rule["minimum"]:
        raise UserError(f"{flag} must be at least {rule['minimum']}, not {value}.")
    if rule["below"] is not None and value >= rule["below"]:
        raise UserError(f"{flag} must be below {rule['below']}, not {value}.")
    if rule["maximum"] is not None and value > rule["maximum"]:
        raise UserError(f"{flag} must be at most {rule['maximum']}, not {value}.")
    if rule["positive"] and value <= 0:
        raise UserError(f"{flag} must be above 0, not {value}.")
    return value


_A_KIND = {
    int: "a whole number",
    float: "a number",
    str: "a word",
    bool: "true or false",
    tuple: "several values",
}


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
