"""Settings of generation: sampling and beam search."""

from __future__ import annotations

from dataclasses import dataclass

from lm.config.settings import MAX_TEMPERATURE, parse_temperature, setting

FILTERS = ("top_k", "top_p", "min_p", "typical_p")  # which limit the tokens to draw from
PENALTIES = ("repetition_penalty", "presence_penalty", "frequency_penalty")


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

    @property
    def penalized(self) -> bool:
        """Whether there is a penalty."""
        return any(getattr(self, name) != getattr(SamplingConfig, name) for name in PENALTIES)


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
