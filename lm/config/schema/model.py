"""Settings of the network."""

from __future__ import annotations

from dataclasses import dataclass

from lm.config.settings import Auto, setting

CELL_NAMES = ("rnn", "gru", "lstm")
AUTOMATIC_DROPOUTS = ("dropout", "output_dropout", "input_dropout", "weight_dropout")


@dataclass(frozen=True)
class ModelConfig:
    """The architecture of the network."""

    cell: str = setting("lstm", "type of the recurrent cell", choices=CELL_NAMES)
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
