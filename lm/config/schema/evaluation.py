"""Settings of evaluation: which text is scored, and how scores adapt to it."""

from __future__ import annotations

from dataclasses import dataclass

from lm.config.settings import setting


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
    """The continuous cache: predictions are mixed with what followed similar states in recent text."""

    cache_window: int = setting(
        2000, "number of recent tokens in the cache", minimum=1, maximum=1_000_000_000, metavar="N"
    )
    cache_theta: float = setting(
        0.5, "how strongly similar hidden states are preferred", minimum=0, maximum=1000
    )
    cache_lambda: float = setting(0.2, "weight of the cache in the prediction", above=0, below=1)
