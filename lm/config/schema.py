"""All settings: defaults, valid ranges and the help lines that `--help` prints.

The command line, YAML files and saved runs are all read into these dataclasses and validated here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm.config.settings import (
    MAX_TEMPERATURE,
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
DEFAULT_TIME = 120.0  # seconds of training if no budget is set
AUTOMATIC_DROPOUTS = ("dropout", "output_dropout", "input_dropout", "weight_dropout")
BUDGETS = ("steps", "epochs", "max_time")  # of which a run has at most one
RUNS = Path("runs")  # default folder of the runs


@dataclass(frozen=True)
class DataConfig:
    """Where the text comes from and how it is tokenized."""

    dataset: tuple[str, ...] = setting(
        ("python",),
        "Hub id, file, folder, glob, '-' (standard input) or 'python' (the source code of Python's"
        " standard library); repeatable",
        metavar="X",
    )
    mix: tuple[float, ...] | None = setting(
        None,
        "proportion of each --dataset in the training data, such as 0.7,0.3; default: all of each",
        parse=parse_mix,
        metavar="SHARES",
    )
    dataset_config: str | None = setting(None, "configuration of a Hub dataset", metavar="NAME")
    dataset_revision: str | None = setting(None, "commit, branch or tag of a Hub dataset", metavar="NAME")
    text_column: str | None = setting(
        None,
        "column that contains the text, or a field of its objects such as translation.en; default: detected"
        " automatically",
        metavar="NAME",
    )
    json_field: str | None = setting(
        None,
        "where in a JSON file the list of rows is, such as data; default: detected automatically",
        metavar="NAME",
    )
    header: bool = setting(True, "the first row of CSV and TSV names the columns")
    train_split: str = setting("train", "split to train on", metavar="NAME")
    validation_split: str | None = setting(
        None,
        "split name or a fraction such as 0.1; default: the dataset's own split, else the last 10%",
        metavar="SPLIT",
    )
    test_split: str | None = setting(
        None,
        "split name or a fraction to hold out of training; scored once, at the end",
        metavar="SPLIT",
    )
    streaming: bool = setting(
        False, "stream the text while training and store none of it; for text that does not fit on the disk"
    )
    shuffle_buffer: int = setting(
        1000, "documents in the shuffle buffer of --streaming", minimum=1, metavar="N"
    )
    max_chars: int | None = setting(
        None, "use only the first N characters of each split", minimum=2, metavar="N"
    )
    encoding: str | None = setting(
        None,
        "encoding of text files and tables, such as cp1252 or gb18030; default: UTF-8, or UTF-16 and UTF-32"
        " where a file clearly is that",
        metavar="NAME",
    )
    encoding_errors: str = setting(
        "strict", "what to do with bytes that are not valid in the encoding", choices=("strict", "replace")
    )
    document_separator: str | None = setting(
        None,
        "what separates documents within a text file: line, blank-line, or a string such as '\\n***\\n' or"
        " '<|endoftext|>'; default: a file is one document",
        metavar="STRING",
    )
    tokenizer: str = setting(
        "char",
        "char, byte, bpe, unigram or word, or an existing tokenizer: a tokenizer.json or a Hub id",
        metavar="T",
    )
    vocab_size: int | None = setting(
        None,
        "maximum vocabulary size; default: 4096 for bpe and unigram, 65536 for word, no limit for char",
        minimum=3,
        maximum=10_000_000,
        metavar="N",
    )
    min_frequency: int = setting(
        1,
        "minimum number of occurrences: rarer characters and words become <unk>, rarer bpe pairs are not"
        " merged",
        minimum=1,
        metavar="N",
    )
    data_report: bool = setting(False, "print more about the text: its most and least common characters")

    def __post_init__(self) -> None:
        if isinstance(self.dataset, str):  # DataConfig(dataset="my.txt")
            object.__setattr__(self, "dataset", (self.dataset,))


@dataclass(frozen=True)
class ModelConfig:
    """The architecture of the network."""

    cell: str = setting("lstm", "type of the recurrent cell", choices=CELLS)
    layers: int = setting(2, "number of recurrent layers", minimum=1, maximum=1000, metavar="N")
    hidden_size: int | Auto = setting(
        "auto",
        "units per layer; auto: chosen from the size of the text and the training budget",
        minimum=1,
        metavar="N",
    )
    embedding_size: int | Auto = setting(
        "auto",
        "size of the token embeddings; auto: chosen from the vocabulary size",
        minimum=1,
        metavar="N",
    )
    residual: bool = setting(True, "residual connections around every layer but the first")
    tie: bool = setting(False, "tie the weights of the embedding and the decoder")
    dropout: float | Auto = setting(
        "auto",
        "dropout between layers; auto: chosen from the number of passes over the text",
        minimum=0,
        below=1,
    )
    input_dropout: float | Auto = setting(
        "auto", "dropout on the input of the first layer; auto: as for --dropout", minimum=0, below=1
    )
    output_dropout: float | Auto = setting(
        "auto", "dropout on the input of the decoder; auto: as for --dropout", minimum=0, below=1
    )
    embedding_dropout: float = setting(
        0.0, "fraction of the token types whose embedding is dropped in a window", minimum=0, below=1
    )
    weight_dropout: float | Auto = setting(
        "auto",
        "dropout on the recurrent weights, the same for a whole window; auto: as for --dropout",
        minimum=0,
        below=1,
    )
    locked_dropout: bool = setting(True, "use the same dropout mask at every step of a window")
    activation_reg: float = setting(
        0.0, "L2 penalty on the activations of the last layer", minimum=0, maximum=1000
    )
    temporal_activation_reg: float = setting(
        0.0, "L2 penalty on the change of these activations from step to step", minimum=0, maximum=1000
    )
    direction: str = setting(
        "forward",
        "'backward' reads right to left: for text with a given ending, and for two-sided scores",
        choices=("forward", "backward"),
    )
    cell_implementation: str = setting(
        "fused",
        "'fused': PyTorch's fast layers; 'reference': the readable cells of lm/model/cells.py",
        choices=("fused", "reference"),
    )

    @property
    def backward(self) -> bool:
        """Whether the network reads right to left."""
        return self.direction == "backward"


@dataclass(frozen=True)
class TrainingConfig:
    """The training recipe and its budget."""

    batch_size: int | Auto = setting(
        "auto",
        "number of parallel text streams, over all processes; auto: 32, on a CUDA GPU 64 or 128, for a short"
        " text fewer",
        minimum=1,
        metavar="N",
    )
    accumulate: int = setting(
        1,
        "compute each step in N micro-batches (gradient accumulation): less memory, same result",
        minimum=1,
        metavar="N",
    )
    bptt: int | Auto = setting(
        "auto",
        "window length of truncated backpropagation through time, in tokens; auto: 64, for a short text"
        " fewer",
        minimum=1,
        metavar="N",
    )
    steps: int | None = setting(None, "budget: number of optimizer steps", minimum=1, metavar="N")
    epochs: float | None = setting(
        None, "budget: number of passes over the training text", above=0, maximum=1_000_000, metavar="N"
    )
    max_time: float | None = setting(
        None,
        "budget: time from the first step, such as 90s, 10m or 2h; default if no budget is set: 2m",
        above=0,
        maximum=1_000_000_000,
        parse=parse_duration,
        metavar="TIME",
    )
    lr: float | Auto = setting("auto", "peak learning rate; auto: chosen from the cell and its size", above=0)
    warmup: float = setting(
        0.02, "fraction of the budget over which the learning rate rises to its peak", minimum=0, below=1
    )
    schedule: str = setting(
        "cosine", "learning rate decay after the warmup", choices=("cosine", "linear", "constant")
    )
    optimizer: str = setting(
        "muon",
        "muon: Muon (orthogonalized updates) for the recurrent matrices, AdamW for the rest; adamw: AdamW"
        " for everything",
        choices=("muon", "adamw"),
    )
    clip: float = setting(1.0, "maximum norm of the gradient; 0: no clipping", minimum=0)
    patience: int | None = setting(
        None, "stop early after N validations without improvement", minimum=1, metavar="N"
    )
    weight_decay: float = setting(0.1, "decoupled weight decay of the weight matrices", minimum=0)
    device: str = setting(
        "auto",
        "device to compute on; cuda:1 is the second GPU",
        choices=("auto", "cpu", "cuda", "cuda:N", "mps"),
        pattern=r"auto|cpu|cuda(:\d+)?|mps",
    )
    precision: str = setting(
        "auto",
        "auto: bf16 where the hardware is fast at it, fp16 on GPUs without bf16, else fp32; tf32: fp32 with"
        " faster, rougher products on a GPU",
        choices=("auto", "fp32", "tf32", "bf16", "fp16"),
    )
    init_from: str | None = setting(
        None,
        "start from the weights of a run, a model folder or a Hub model, with its architecture and, unless"
        " --tokenizer is given, its tokenizer",
        metavar="MODEL",
    )
    out: str | None = setting(
        None, "folder of the run; default: runs/<dataset>-<cell>-<date-time>", metavar="DIR"
    )
    eval_every: int | None = setting(
        None, "validate every N steps; default: ten times in total", minimum=1, metavar="N"
    )
    eval_tokens: int = setting(
        32768,
        "tokens per validation during training, spread over the validation text; the final validation uses"
        " the whole text; 0: always the whole text",
        minimum=0,
        metavar="N",
    )
    save_every: int | None = setting(
        None,
        "save a checkpoint for --resume every N steps; default: every 30 s and at each validation",
        minimum=1,
        metavar="N",
    )
    sample_every: int | None = setting(
        None,
        "print a sample every N steps; 0: never; default: after the first step and at each validation",
        minimum=0,
        metavar="N",
    )
    sample_prompt: str | None = setting(
        None, "prompt for the samples; default: none, or 'def ' for Python", metavar="TEXT"
    )
    seed: int = setting(
        1, "random seed for the weights, dropout and samples", minimum=0, maximum=2**63 - 1, metavar="N"
    )
    track: str = setting(
        "none",
        "also log the metrics to a tracker: trackio, tensorboard or wandb",
        choices=("none", "trackio", "tensorboard", "wandb"),
    )
    quiet: bool = setting(False, "print only errors")


@dataclass(frozen=True)
class SamplingConfig:
    """How the next token is chosen from the model's distribution."""

    temperature: float | tuple[float, float] = setting(
        0.8,
        "below 1: more predictable text; above 1: more surprising; 0: always the most likely token",
        flag_help="; 0.3:1.0 rises over the length",
        minimum=0,
        maximum=MAX_TEMPERATURE,
        parse=parse_temperature,
        metavar="T",
    )
    top_k: int = setting(0, "sample from the k most likely tokens; 0: all", minimum=0, metavar="K")
    top_p: float = setting(
        1.0,
        "sample from the most likely tokens that together have this probability; 1: all",
        above=0,
        maximum=1,
        metavar="P",
    )
    min_p: float = setting(
        0.0,
        "ignore tokens less likely than this fraction of the most likely one; 0: none",
        minimum=0,
        maximum=1,
        metavar="P",
    )
    typical_p: float = setting(
        1.0,
        "sample from the most typical tokens (by surprisal) that together have this probability; 1: all",
        above=0,
        maximum=1,
        metavar="P",
    )
    repetition_penalty: float = setting(
        1.0,
        "above 1: tokens in the penalty window become less likely",
        minimum=0.001,
        maximum=1000,
        metavar="R",
    )
    presence_penalty: float = setting(
        0.0,
        "subtracted from the logit of every token in the penalty window",
        minimum=-1000,
        maximum=1000,
        metavar="R",
    )
    frequency_penalty: float = setting(
        0.0,
        "subtracted from a token's logit for each time it occurs in the penalty window",
        minimum=-1000,
        maximum=1000,
        metavar="R",
    )
    repetition_window: int = setting(
        64,
        "number of recent tokens, prompt included, that the penalties look at",
        minimum=1,
        maximum=1_000_000_000,
        metavar="N",
    )
    no_repeat_ngram: int = setting(
        0, "never repeat a sequence of n tokens; 0: no limit", minimum=0, metavar="N"
    )
    greedy: bool = setting(False, "always choose the most likely token")


@dataclass(frozen=True)
class SearchConfig:
    """Beam search, which looks for the most likely text instead of sampling."""

    beams: int = setting(
        1,
        "search for the most likely text with N beams instead of sampling",
        minimum=1,
        maximum=100_000,
        metavar="N",
    )
    length_penalty: float = setting(
        1.0,
        "divide a text's log-probability by its length in tokens to the power of A",
        minimum=-10,
        maximum=10,
        metavar="A",
    )


@dataclass(frozen=True)
class EvaluationConfig:
    """Which text is scored."""

    dataset: tuple[str, ...] | None = setting(
        None,
        "Hub id, file, folder, glob or '-' (standard input); repeatable; default: the text held out during"
        " training",
        metavar="X",
    )
    split: str | None = setting(
        None,
        "split name or a fraction (0.1: the last tenth); default: test, else validation, else everything",
        metavar="SPLIT",
    )


@dataclass(frozen=True)
class DynamicConfig:
    """Dynamic evaluation: the model keeps learning from the text it is scored on."""

    dynamic_rate: float = setting(
        1e-3, "learning rate of the update after each segment", above=0, maximum=1000
    )
    dynamic_decay: float = setting(
        0.003, "decay toward the trained weights after each segment", minimum=0, maximum=1
    )
    dynamic_segment: int = setting(20, "tokens per segment", minimum=1, metavar="N")


@dataclass(frozen=True)
class CacheConfig:
    """The neural cache: predictions are mixed with what followed similar states in recent text."""

    cache_window: int = setting(
        2000, "number of recent tokens in the cache", minimum=1, maximum=1_000_000_000, metavar="N"
    )
    cache_theta: float = setting(
        0.5, "how strongly similar hidden states are preferred", minimum=0, maximum=1000
    )
    cache_lambda: float = setting(0.2, "weight of the cache in the prediction", above=0, below=1)


GROUPS = {"data": DataConfig, "model": ModelConfig, "training": TrainingConfig}


@dataclass(frozen=True)
class RunConfig:
    """All settings of one training run."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()

    @classmethod
    def from_flat(cls, values: Mapping[str, Any], where: str = "the settings") -> RunConfig:
        """Build and validate the settings from {'hidden_size': 256, ...}; missing ones are defaults.

        Raises UserError for an unknown name, a wrong type or a value out of range.
        """
        known = {name: group for group, c in GROUPS.items() for name in settings_of(c)}
        groups: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
        for name, value in values.items():
            if name not in known:
                raise UserError(f"{where}: unknown setting '{name}'{did_you_mean(name, known)}.")
            groups[known[name]][name] = value
        config = cls(**{group: build(GROUPS[group], groups[group]) for group in GROUPS})
        config.check()
        return config

    def check(self) -> None:
        """Raises UserError for settings that cannot be combined."""
        data, training = self.data, self.training
        if data.mix and len(data.mix) != len(data.dataset):
            raise UserError(
                f"--mix has {len(data.mix)} proportions, but --dataset is given {len(data.dataset)} times;"
                " give one proportion for each."
            )
        if data.streaming and (data.max_chars or training.epochs):
            flag = "--max-chars" if data.max_chars else "--epochs"
            raise UserError(f"{flag} needs the whole text; it cannot be combined with --streaming.")
        budgets = [name for name in BUDGETS if getattr(training, name)]
        if len(budgets) > 1:
            flags = " and ".join(map(flag_of, budgets))
            raise UserError(f"{flags} cannot be combined; choose one budget.")

    def flat(self) -> dict[str, Any]:
        """The settings as one flat dictionary, in the order of the groups."""
        return {k: v for group in GROUPS for k, v in dataclasses.asdict(getattr(self, group)).items()}
