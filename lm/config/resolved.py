"""Settings with a number in place of every `auto`: what a network is built from and a training runs with."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from lm.config.schema import AUTOMATIC_DROPOUTS, ModelConfig, RunConfig, TrainingConfig
from lm.errors import UserError


@dataclass(frozen=True)
class NetworkConfig(ModelConfig):
    """A ModelConfig with every `auto` resolved to a number: what a network is built from."""

    hidden_size: int = 0
    embedding_size: int = 0
    dropout: float = 0.0
    input_dropout: float = 0.0
    output_dropout: float = 0.0
    weight_dropout: float = 0.0

    @classmethod
    def of(cls, config: ModelConfig) -> NetworkConfig:
        """Resolve `auto` dropouts to 0 and an `auto` embedding size to the hidden size.

        Raises UserError if the hidden size is still `auto`; lm/training/auto.py chooses it.
        """
        if config.hidden_size == "auto":
            raise UserError("--hidden-size auto is chosen when training starts; set a number here.")
        values = asdict(config)
        values |= {name: 0.0 for name in AUTOMATIC_DROPOUTS if values[name] == "auto"}
        if values["embedding_size"] == "auto":
            values["embedding_size"] = values["hidden_size"]
        return cls(**values)


@dataclass(frozen=True)
class RecipeConfig(TrainingConfig):
    """A TrainingConfig with every `auto` resolved to a number."""

    batch_size: int = 0
    bptt: int = 0
    lr: float = 0.0
    sampled_softmax: int = 0


@dataclass(frozen=True)
class ResolvedConfig(RunConfig):
    """A RunConfig with every `auto` resolved to a number: what training runs with."""

    model: NetworkConfig = NetworkConfig()
    training: RecipeConfig = RecipeConfig()

    @classmethod
    def of(cls, config: RunConfig) -> ResolvedConfig:
        """`config`, which must not have any `auto` left but those NetworkConfig.of resolves."""
        return cls(config.data, NetworkConfig.of(config.model), RecipeConfig(**asdict(config.training)))
