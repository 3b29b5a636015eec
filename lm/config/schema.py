"""Every setting there is: its default, its range and the line of help that `--help` shows.

The dataclasses below are the only list. The command line, the YAML file and the saved run are
all read into them, and all of them are checked here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm.config.settings import (
    Auto,
    build,
    did_you_mean,
    flag_of,
    parse_duration,
    parse_mix,
    parse_temperature,
    setting,
    settings_of,
)
from lm.errors import UserError

CELLS = ("rnn", "gru", "lstm")
DEFAULT_TIME = 120.0  # seconds of training, if no budget is named
AUTOMATIC_DROPOUTS = ("dropout", "output_dropout", "input_dropout", "weight_dropout")
RUNS = Path("runs")  # where runs are, unless another place is named


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
    hidden_size: int | Auto = setting(
        "auto",
        "units in each layer; auto: as many as the text and the budget can teach",
        minimum=1,
        metavar="N",
    )
    embedding_size: int | Auto = setting(
        "auto", "length of a token's vector; auto: by the number of token types", minimum=1, metavar="N"
    )
    residual: bool = setting(True, "add to what each further layer shows what it read")
    tie: bool = setting(False, "share one matrix between the embedding and the decoder")
    dropout: float | Auto = setting(
        "auto",
        "share of the units dropped between layers while training; auto: by how often the text is read",
        minimum=0,
        below=1,
    )
    input_dropout: float | Auto = setting(
        "auto", "share of the units dropped of what the first layer reads; auto: likewise", minimum=0, below=1
    )
    output_dropout: float | Auto = setting(
        "auto",
        "share of what the decoder reads dropped while training; auto: likewise",
        minimum=0,
        below=1,
    )
    embedding_dropout: float = setting(
        0.0, "share of the token types whose vectors are dropped in a window", minimum=0, below=1
    )
    weight_dropout: float | Auto = setting(
        "auto",
        "share of the recurrent matrices' entries dropped in a window; auto: likewise",
        minimum=0,
        below=1,
    )
    locked_dropout: bool = setting(True, "drop the same units at every step of a window")
    activation_reg: float = setting(0.0, "penalty on the square of the last layer's activations", minimum=0)
    temporal_activation_reg: float = setting(
        0.0, "penalty on the square of their change from step to step", minimum=0
    )
    direction: str = setting(
        "forward",
        "'backward': read right to left, for text that must end in a given way and for two-sided scores",
        choices=("forward", "backward"),
    )
    cell_implementation: str = setting(
        "fused",
        "'fused': torch's fast layers; 'reference': the readable cells of lm/model/cells.py",
        choices=("fused", "reference"),
    )

    @property
    def backward(self) -> bool:
        """Whether the network reads right to left."""
        return self.direction == "backward"


@dataclass(frozen=True)
class NetworkConfig(ModelConfig):
    """A ModelConfig with a number in place of every `auto`: what a network is built from."""

    hidden_size: int = 0
    embedding_size: int = 0
    dropout: float = 0.0
    input_dropout: float = 0.0
    output_dropout: float = 0.0
    weight_dropout: float = 0.0

    @classmethod
    def of(cls, config: ModelConfig) -> NetworkConfig:
        """`config` with its `auto` dropouts at 0 and an `auto` embedding as wide as the hidden state.

        Raises UserError if the hidden size is still `auto`; lm/training/auto.py chooses it.
        """
        if config.hidden_size == "auto":
            raise UserError("--hidden-size auto is chosen when a training starts; name a number here.")
        values = {name: getattr(config, name) for name in settings_of(ModelConfig)}
        values |= {name: 0.0 for name in AUTOMATIC_DROPOUTS if values[name] == "auto"}
        if values["embedding_size"] == "auto":
            values["embedding_size"] = values["hidden_size"]
        return cls(**values)


@dataclass(frozen=True)
class TrainingConfig:
    """The recipe and its budget."""

    batch_size: int = setting(
        32, "streams read in parallel, by all processes together", minimum=1, metavar="N"
    )
    accumulate: int = setting(
        1,
        "go through a step's streams in N parts, one after the other: takes less memory, learns the same",
        minimum=1,
        metavar="N",
    )
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
    lr: float | Auto = setting(
        "auto", "the highest learning rate; auto: by the cell and its size", positive=True
    )
    warmup: float = setting(0.02, "share of the budget over which the rate rises to it", minimum=0, below=1)
    schedule: str = setting(
        "cosine", "how the rate falls after that", choices=("cosine", "linear", "constant")
    )
    optimizer: str = setting(
        "muon",
        "muon: orthogonalised updates of the recurrent matrices, AdamW for the rest; adamw: for all",
        choices=("muon", "adamw"),
    )
    clip: float = setting(1.0, "largest norm of the gradient; 0: no limit", minimum=0)
    patience: int | None = setting(
        None, "end early when N validations in a row brought nothing better", minimum=1, metavar="N"
    )
    weight_decay: float = setting(0.1, "decoupled decay of the weight matrices", minimum=0)
    device: str = setting("auto", "where to compute", choices=("auto", "cpu", "cuda", "mps"))
    precision: str = setting(
        "auto",
        "auto: bf16 where the hardware multiplies it fast, fp16 on GPUs that lack it, else fp32",
        choices=("auto", "fp32", "bf16", "fp16"),
    )
    init_from: str | None = setting(
        None,
        "begin with the weights of a run, a model folder or a Hub model, in its shape and, unless"
        " --tokenizer names one, with its tokenizer",
        metavar="MODEL",
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
    track: str = setting(
        "none",
        "show the figures in a tracker as well: trackio, tensorboard or wandb",
        choices=("none", "trackio", "tensorboard", "wandb"),
    )
    quiet: bool = setting(False, "print nothing but errors")


@dataclass(frozen=True)
class RecipeConfig(TrainingConfig):
    """A TrainingConfig with a number in place of every `auto`."""

    lr: float = 0.0


@dataclass(frozen=True)
class SamplingConfig:
    """How the next token is chosen."""

    temperature: float | tuple[float, float] = setting(
        0.8,
        "above 1: more surprising, below 1: more likely text; 0: greedy; 0.3:1.0 rises over the length",
        parse=parse_temperature,
        metavar="T",
    )
    top_k: int = setting(0, "choose among the K likeliest tokens; 0: all", minimum=0, metavar="K")
    top_p: float = setting(
        1.0,
        "choose among the likeliest tokens that together have this probability",
        positive=True,
        maximum=1,
        metavar="P",
    )
    min_p: float = setting(
        0.0,
        "choose among the tokens that are at least this many times as likely as the likeliest",
        minimum=0,
        maximum=1,
        metavar="P",
    )
    typical_p: float = setting(
        1.0,
        "choose among the tokens of the most usual surprisal that together have this probability",
        positive=True,
        maximum=1,
        metavar="P",
    )
    repetition_penalty: float = setting(
        1.0, "above 1: tokens that occur in the window become less likely", positive=True, metavar="R"
    )
    presence_penalty: float = setting(
        0.0, "taken from the logits of the tokens that occur in the window", metavar="R"
    )
    frequency_penalty: float = setting(
        0.0, "taken from a token's logit for each time that it occurs in the window", metavar="R"
    )
    repetition_window: int = setting(
        64, "how many of the last tokens, the prompt's too, the penalties look at", minimum=1, metavar="N"
    )
    no_repeat_ngram: int = setting(
        0, "never write N tokens that stood in this order before; 0: no limit", minimum=0, metavar="N"
    )
    greedy: bool = setting(False, "always take the likeliest token")


@dataclass(frozen=True)
class EvaluationConfig:
    """Which text is scored."""

    dataset: tuple[str, ...] | None = setting(
        None,
        "a Hub id, a file, a folder, a glob, or '-' for standard input; repeat it to read several;"
        " default: the text that the training held out",
        metavar="X",
    )
    split: str | None = setting(
        None,
        "a split's name, or a fraction: 0.1 is the last tenth; default: test, else validation, else all",
        metavar="SPLIT",
    )


@dataclass(frozen=True)
class DynamicConfig:
    """Dynamic evaluation: how fast a model learns from the text that it is scored on."""

    dynamic_rate: float = setting(1e-3, "how far a weight moves after a segment", positive=True)
    dynamic_decay: float = setting(
        0.003, "share of the way back to the trained weights after a segment", minimum=0, maximum=1
    )
    dynamic_segment: int = setting(20, "tokens after each of which it learns", minimum=1, metavar="N")


@dataclass(frozen=True)
class CacheConfig:
    """The neural cache: how much a model is led by what it has just read."""

    cache_window: int = setting(2000, "tokens that it holds", minimum=1, metavar="N")
    cache_theta: float = setting(
        0.5, "how much more the places count whose hidden states are alike", minimum=0
    )
    cache_lambda: float = setting(0.2, "its share in the prediction", positive=True, below=1)


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
                raise UserError(f"{where}: there is no setting '{name}'{did_you_mean(name, known)}.")
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


@dataclass(frozen=True)
class ResolvedConfig(RunConfig):
    """A RunConfig with a number in place of every `auto`: what a training runs with."""

    model: NetworkConfig = NetworkConfig()
    training: RecipeConfig = RecipeConfig()

    @classmethod
    def of(cls, config: RunConfig) -> ResolvedConfig:
        """`config`, in which no `auto` is left."""
        recipe = {name: getattr(config.training, name) for name in settings_of(TrainingConfig)}
        return cls(config.data, NetworkConfig.of(config.model), RecipeConfig(**recipe))
