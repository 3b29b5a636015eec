"""Settings of the training recipe and its budget."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lm.config.settings import Auto, parse_duration, setting

DEFAULT_TIME = 120.0  # seconds of training if no budget is set
BUDGETS = ("steps", "epochs", "max_time")  # of which a run has at most one
RUNS = Path("runs")  # default folder of the runs


@dataclass(frozen=True)
class TrainingConfig:
    """The training recipe and its budget."""

    batch_size: int | Auto = setting(
        "auto",
        "number of parallel text streams, over all processes; auto: 32 (64 or 128 on a CUDA GPU),"
        " fewer for a short text",
        minimum=1,
        metavar="N",
    )
    accumulate: int = setting(
        1,
        "compute each step in N micro-batches (gradient accumulation): less memory, and the same result"
        " but for rounding and the dropout masks",
        minimum=1,
        metavar="N",
    )
    bptt: int | Auto = setting(
        "auto",
        "window length of truncated backpropagation through time, in tokens; auto: 64, less for a short text",
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
    sampled_softmax: int | Auto = setting(
        "auto",
        "normalize training predictions over N token types, half of them the most frequent, half drawn at"
        " random; 0: over all; auto: a sample on a CPU if there are more than 6,000",
        minimum=0,
        metavar="N",
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
        "auto: bf16 where the hardware is fast at it, fp16 where a GPU is faster at that, else fp32;"
        " tf32: fp32 with faster, less precise matrix products on a GPU",
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
        "save a checkpoint for --resume every N steps; default: every 30 to 60 s and at each validation",
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
    quiet: bool = setting(False, "print only errors, and what could not be saved")

    @property
    def time_budget(self) -> float:
        """The budget in seconds, if it is not one of steps or epochs."""
        return self.max_time or DEFAULT_TIME
