"""RecurrentLM: embedding -> recurrent layers -> decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lm.config.resolved import NetworkConfig
from lm.config.schema import ModelConfig
from lm.model.cells import State, split_gates
from lm.model.direction import Direction
from lm.model.layers import RecurrentLayers, drop
from lm.model.loss import decoder_loss, token_losses


class RecurrentLM(nn.Module):
    """A network that reads token ids and predicts the next one after each.

    The recurrent state is an argument and a result of `forward`, never stored in the module. It is a tuple
    of tensors (layers, batch, hidden): (h,) for RNN and GRU, (h, c) for LSTM.
    """

    def __init__(self, config: ModelConfig, vocab_size: int):
        super().__init__()
        self.config, self.vocab_size = NetworkConfig.of(config), vocab_size
        self.direction = Direction(self.config.direction)
        hidden, width = self.config.hidden_size, self.config.embedding_size
        if torch.get_default_device().type == "meta":  # nn.Embedding would import much of torch to draw it
            self.embedding = nn.Embedding.from_pretrained(torch.empty(vocab_size, width), freeze=False)
        else:
            self.embedding = nn.Embedding(vocab_size, width)
        self.recurrent = RecurrentLayers(self.config, width)
        # A decoder tied to an embedding of another width needs a map to that width.
        self.projection = nn.Linear(hidden, width, bias=False) if config.tie and width != hidden else None
        self.decoder = nn.Linear(width if config.tie else hidden, vocab_size)
        if config.tie:
            self.decoder.weight = self.embedding.weight
        if not self.embedding.weight.is_meta:
            self._initialize()

    @classmethod
    def without_weights(cls, config: ModelConfig, vocab_size: int) -> RecurrentLM:
        """A network whose weights have shapes but no memory, on the meta device.

        Raises UserError for settings that no network can have, and RuntimeError if a weight would have too
        many numbers for torch.
        """
        with torch.device("meta"):
            return cls(config, vocab_size)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """tokens (batch, time) int64 -> logits (batch, time, vocab), final state."""
        hidden, state = self.hidden_states(tokens, state)
        return self.decode(self._drop_output(hidden)).transpose(0, 1), state

    def hidden_states(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """tokens (batch, time) int64 -> hidden states of the last layer (time, batch, hidden), final state.

        In training, `embedding_dropout` drops the vectors of whole token types (Gal & Ghahramani 2016,
        arXiv:1512.05287) and `input_dropout` drops units of the first layer's input.
        """
        config, weight = self.config, self.embedding.weight
        if self.training and config.embedding_dropout:
            weight = weight * F.dropout(weight.new_ones(len(weight), 1), config.embedding_dropout)
        embedded = F.embedding(tokens.t(), weight)
        embedded = drop(embedded, config.input_dropout, config.locked_dropout, self.training)
        return self.recurrent(embedded, state)

    def loss(
        self, inputs: Tensor, targets: Tensor, state: State | None = None
    ) -> tuple[Tensor, Tensor, State]:
        """inputs, targets (batch, time) int64 -> mean loss (nats per token), activation penalties, final
        state; without storing all logits.

        The penalties (Merity et al. 2017, arXiv:1708.02182) are `activation_reg` times the mean square of
        the decoder's input and `temporal_activation_reg` times that of the change of the hidden state from
        step to step.
        """
        config = self.config
        hidden, state = self.hidden_states(inputs, state)
        dropped = self._drop_output(hidden)
        projected = dropped if self.projection is None else self.projection(dropped)
        loss = decoder_loss(
            projected.flatten(0, 1), self.decoder.weight, self.decoder.bias, targets.t().flatten()
        )
        penalty = loss.new_zeros(())
        if config.activation_reg:
            penalty = penalty + config.activation_reg * dropped.float().square().mean()
        if config.temporal_activation_reg:
            change = (hidden[1:] - hidden[:-1]).float()
            penalty = penalty + config.temporal_activation_reg * change.square().mean()
        return loss, penalty, state

    def _drop_output(self, hidden: Tensor) -> Tensor:
        return drop(hidden, self.config.output_dropout, self.config.locked_dropout, self.training)

    def decode(self, hidden: Tensor) -> Tensor:
        """hidden (..., hidden) -> logits (..., vocab)."""
        return self.decoder(hidden if self.projection is None else self.projection(hidden))

    def token_losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """hidden (rows, hidden), targets (rows,) int64 -> the loss (rows,) of each target in nats, without
        storing all logits."""
        return token_losses(self.decode, self.vocab_size, hidden, targets)

    def parameter_count(self) -> int:
        """The number of weights; a tied matrix counts once."""
        return sum(p.numel() for p in self.parameters())

    @torch.no_grad()
    def _initialize(self) -> None:
        hidden = self.config.hidden_size
        # Untied vectors of unit scale drive the gates from the first step on, which saves a plateau of a
        # hundred steps. Tied vectors also produce the logits and must be small.
        nn.init.normal_(self.embedding.weight)
        nn.init.normal_(self.decoder.weight, std=0.1 if self.config.tie else hidden**-0.5)
        nn.init.zeros_(self.decoder.bias)
        for name, weight in self.recurrent.named_parameters():
            if weight.dim() == 1:
                nn.init.zeros_(weight)
            elif name.startswith("weight_hh"):
                for block in weight.split(hidden):
                    nn.init.orthogonal_(block)
            else:
                for block in weight.split(hidden):
                    nn.init.xavier_uniform_(block)
            if self.config.cell == "lstm" and name.startswith("bias_hh"):
                # With an open forget gate the memory reaches far from the first step on (Jozefowicz et al.
                # 2015, "An Empirical Exploration of Recurrent Network Architectures").
                split_gates("lstm", weight, dim=0)["f"].fill_(1.0)
