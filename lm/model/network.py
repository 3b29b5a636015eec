"""RecurrentLM: the network that lm trains and generates with."""

from __future__ import annotations

import torch
from torch import Tensor

from lm.config.resolved import NetworkConfig
from lm.config.schema import ModelConfig
from lm.model.base import Network
from lm.model.cells import State
from lm.model.direction import Direction
from lm.model.loss import TypeSample, cross_entropies, decoder_loss, sampled_loss


class RecurrentLM(Network):
    """A network that reads token ids and predicts the next one after each. See `Network` for its state."""

    def __init__(self, config: ModelConfig, vocab_size: int):
        super().__init__()
        self.config, self.vocab_size = NetworkConfig.of(config), vocab_size
        self.direction = Direction(self.config.direction)
        self._connect(self.config, vocab_size)
        if not self.embedding.weight.is_meta:
            for module in (self.embedding, self.decoder, self.recurrent):
                self._initialize(module)

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
        return self.decode(self.drop_output(hidden)).transpose(0, 1), state

    def loss(
        self,
        inputs: Tensor,
        targets: Tensor,
        state: State | None = None,
        sample: TypeSample | None = None,
    ) -> tuple[Tensor, Tensor, State]:
        """inputs, targets (batch, time) int64 -> mean loss (nats per token), activation penalties, final
        state; without storing all logits. With a `sample`, the loss is estimated from it.

        The penalties (Merity et al. 2017, arXiv:1708.02182) are `activation_reg` times the mean square of
        the decoder's input and `temporal_activation_reg` times that of the change of the hidden state from
        step to step.
        """
        config = self.config
        hidden, state = self.hidden_states(inputs, state)
        dropped = self.drop_output(hidden)
        projected = dropped if self.projection is None else self.projection(dropped)
        decoding = projected.flatten(0, 1), self.decoder.weight, self.decoder.bias, targets.t().flatten()
        loss = sampled_loss(*decoding, sample) if sample else decoder_loss(*decoding)
        penalty = loss.new_zeros(())
        if config.activation_reg:
            penalty = penalty + config.activation_reg * dropped.float().square().mean()
        if config.temporal_activation_reg:
            change = (hidden[1:] - hidden[:-1]).float()
            penalty = penalty + config.temporal_activation_reg * change.square().mean()
        return loss, penalty, state

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.embedding.weight.device

    def token_losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """hidden (rows, hidden), targets (rows,) int64 -> the loss (rows,) of each target in nats, without
        storing all logits."""
        return cross_entropies(self.decode, self.vocab_size, hidden, targets)

    def stored_weights(self) -> dict[str, Tensor]:
        """The weights by name, as they are saved: a tied matrix appears once."""
        weights = dict(self.state_dict())
        if self.config.tie:
            del weights["decoder.weight"]
        return weights

    def parameter_count(self) -> int:
        """The number of weights; a tied matrix counts once."""
        return sum(p.numel() for p in self.parameters())
