"""Network: the modules of a language model, how they are connected, and how their weights are drawn."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lm.config.resolved import NetworkConfig
from lm.model.cells import State, split_gates
from lm.model.layers import RecurrentLayers, drop


class Network(nn.Module):
    """Embedding -> recurrent layers -> decoder.

    A subclass calls `_connect` in its constructor. `RecurrentLM` is the one that lm trains and generates
    with, and the model in lm/transformers/modeling.py is the one for transformers.

    The recurrent state is an argument and a result, never stored in the module. It is a tuple of tensors
    (layers, batch, hidden): (h,) for RNN and GRU, (h, c) for LSTM.
    """

    embedding: nn.Embedding

    def _connect(self, config: NetworkConfig, vocab_size: int) -> None:
        """Create the modules, with weights that `_initialize` has yet to draw."""
        hidden, width = config.hidden_size, config.embedding_size
        if torch.get_default_device().type == "meta":  # nn.Embedding would import much of torch to draw it
            self.embedding = nn.Embedding.from_pretrained(torch.empty(vocab_size, width), freeze=False)
        else:
            self.embedding = nn.Embedding(vocab_size, width)
        self.recurrent = RecurrentLayers(config, width)
        # A decoder tied to an embedding of another width needs a map to that width.
        self.projection = nn.Linear(hidden, width, bias=False) if config.tie and width != hidden else None
        self.decoder = nn.Linear(width if config.tie else hidden, vocab_size)
        if config.tie:
            self.decoder.weight = self.embedding.weight

    def hidden_states(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """tokens (batch, time) int64 -> hidden states of the last layer (time, batch, hidden), final state.

        In training, `embedding_dropout` drops the vectors of whole token types (Gal & Ghahramani 2016,
        arXiv:1512.05287) and `input_dropout` drops units of the first layer's input.
        """
        config = self.recurrent.config
        embedded = self.embedding(tokens.t())  # the module itself: adapters replace it or hook into it
        if self.training and config.embedding_dropout:
            kept = F.dropout(embedded.new_ones(self.embedding.num_embeddings, 1), config.embedding_dropout)
            embedded = embedded * F.embedding(tokens.t(), kept)
        embedded = drop(embedded, config.input_dropout, config.locked_dropout, self.training)
        return self.recurrent(embedded, state)

    def drop_output(self, hidden: Tensor) -> Tensor:
        """Dropout on the decoder's input (time, batch, hidden), in training."""
        config = self.recurrent.config
        return drop(hidden, config.output_dropout, config.locked_dropout, self.training)

    def decode(self, hidden: Tensor) -> Tensor:
        """hidden (..., hidden) -> logits (..., vocab)."""
        return self.decoder(hidden if self.projection is None else self.projection(hidden))

    def _initialize(self, module: nn.Module) -> None:
        """Draw the weights of one of the modules."""
        config = self.recurrent.config
        # Untied vectors of unit scale drive the gates from the first step on, which saves a plateau of a
        # hundred steps. Tied vectors also produce the logits and must be small.
        if module is self.embedding:
            nn.init.normal_(self.embedding.weight)
        elif module is self.decoder:
            nn.init.normal_(self.decoder.weight, std=0.1 if config.tie else config.hidden_size**-0.5)
            nn.init.zeros_(self.decoder.bias)
        elif module is self.recurrent:
            self._initialize_recurrent()

    @torch.no_grad()
    def _initialize_recurrent(self) -> None:
        config = self.recurrent.config
        for name, weight in self.recurrent.named_parameters():
            for gate in weight.split(config.hidden_size):
                if name.startswith("weight_hh"):
                    nn.init.orthogonal_(gate)
                elif name.startswith("weight_ih"):
                    nn.init.xavier_uniform_(gate)
                else:
                    nn.init.zeros_(gate)
            if config.cell == "lstm" and name.startswith("bias_hh"):
                # With an open forget gate the memory reaches far from the first step on (Jozefowicz et al.
                # 2015, "An Empirical Exploration of Recurrent Network Architectures").
                split_gates("lstm", weight, dim=0)["f"].fill_(1.0)
