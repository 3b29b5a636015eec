"""RecurrentLMForCausalLM: a network of lm for transformers, with the recurrent state as its cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lm.config.resolved import NetworkConfig
from lm.model.base import Network
from lm.model.cells import State

# What transformers calls a cache: "past_key_values", or "cache" in newer versions.
CACHE = next(field.name for field in fields(CausalLMOutputWithPast) if field.name not in ("loss", "logits"))


class RecurrentLMConfig(PretrainedConfig):
    """A config.json of lm, with the keys of transformers in addition.

    `model` has the settings of the network. `hidden_size`, `num_hidden_layers` and `tie_word_embeddings` only
    repeat some of them under the names that other programs look for.

    Args:
        model: the fields of NetworkConfig.
        vocab_size: number of tokens.
        bos_token_id: the token with which the tokenizer begins a text.
        start_token_id: the token that the network reads in its place.
        eos_token_id: the token that ends a text, if any.
        pad_token_id: the token with which the tokenizer pads. It can also be part of a text: only an
            `attention_mask` says what is padding.
    """

    model_type = "recurrent_lm"
    keys_to_ignore_at_inference = ["past_key_values", "cache"]  # noqa: RUF012

    def __init__(
        self,
        model: dict[str, Any] | None = None,
        vocab_size: int = 1,
        bos_token_id: int | None = None,
        start_token_id: int | None = None,
        eos_token_id: int | None = None,
        pad_token_id: int | None = None,
        **others: Any,
    ):
        # The digest of the weights that this was loaded with is not that of those to be saved.
        super().__init__(**{key: value for key, value in others.items() if key != "sha256"})
        settings = self.settings_of(model or {})
        self.model = asdict(settings)
        self.hidden_size, self.num_hidden_layers = settings.hidden_size, settings.layers
        self.tie_word_embeddings = settings.tie
        self.vocab_size = vocab_size
        self.bos_token_id, self.start_token_id = bos_token_id, start_token_id
        self.eos_token_id, self.pad_token_id = eos_token_id, pad_token_id

    @staticmethod
    def settings_of(model: dict[str, Any]) -> NetworkConfig:
        """The settings in a config.json. Models without `residual` precede residual connections."""
        known = {field.name for field in fields(NetworkConfig)}
        given = {name: value for name, value in model.items() if name in known and value is not None}
        return NetworkConfig(**{"residual": False, **given})


class RecurrentState:
    """The state after the tokens read so far: the cache of transformers. Its size does not grow.

    Attributes:
        parts: tensors (layers, batch, hidden): (h,) for RNN and GRU, (h, c) for LSTM.
        length: number of tokens read, padding included.
    """

    is_compileable = False
    is_linear = (True,)  # a state of constant size, such as Mamba's

    def __init__(self, parts: State, length: int):
        self.parts, self.length = parts, length

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """`length`, under transformers' name."""
        return self.length

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Replace the state of row i by that of row `beam_idx[i]`: beam search continues these."""
        self.parts = tuple(part.index_select(1, beam_idx.to(part.device)) for part in self.parts)


class RecurrentLMForCausalLM(PreTrainedModel, GenerationMixin, Network):
    """The network of lm with transformers' interface. In float32 its logits are those of lm, bit for bit.

    Raises ValueError for a model that reads right to left.
    """

    config: RecurrentLMConfig
    post_init: Callable[[], None]
    loss_function: Callable[..., Tensor]

    config_class = RecurrentLMConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    _is_stateful = True  # a state cannot be rewound: no assisted generation
    _no_split_modules: list[str] = []  # noqa: RUF012
    _tied_weights_keys = {"decoder.weight": "embedding.weight"}  # noqa: RUF012

    def __init__(self, config: RecurrentLMConfig):
        settings = config.settings_of(config.model)
        if settings.direction == "backward":
            raise ValueError(
                "this model reads right to left, which transformers cannot: load it with lm.load(...)."
            )
        super().__init__(config)
        self._connect(settings, config.vocab_size)
        self.post_init()

    @classmethod
    def from_pretrained(cls, *arguments: Any, **options: Any) -> Any:
        """Load a model, as `PreTrainedModel.from_pretrained` does.

        The weights that it reads on a CPU are views of the file, at any address. torch's own begin at
        multiples of 64 bytes, which oneMKL requires for the same bits each time.
        """
        loaded = super().from_pretrained(*arguments, **options)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        for weight in model.parameters():
            if weight.device.type == "cpu":
                weight.data = weight.data.clone()
        return loaded

    def get_input_embeddings(self) -> nn.Embedding:
        """The embedding of the tokens."""
        return self.embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the embedding of the tokens."""
        self.embedding = value

    def get_output_embeddings(self) -> nn.Linear:
        """The decoder, whose bias is not tied."""
        return self.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the decoder."""
        self.decoder = new_embeddings

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: RecurrentState | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        cache: RecurrentState | None = None,
        **others: Any,
    ) -> CausalLMOutputWithPast | tuple:
        """Predict the token after each of `input_ids`.

        Args:
            input_ids: (batch, time) int64.
            attention_mask: (batch, time) or, with a state, (batch, length + time); 0 for padding, anywhere.
            past_key_values: the state after the tokens before; also as `cache`.
            labels: (batch, time) int64, usually `input_ids`: the result then has the mean loss in nats of all
                but the first token, without those that are -100 or follow padding.
            use_cache: whether to return the state.
            return_dict: False returns a tuple.
            logits_to_keep: compute logits of only that many last tokens, or of the tokens at these indices.

        Returns logits (batch, time, vocab), where padding repeats those before it, and the state.
        """
        if others.get("output_hidden_states"):
            raise ValueError(
                "the hidden states are not among the outputs: lm.insight.trace.trace_text returns them."
            )
        state = past_key_values if cache is None else cache
        time = input_ids.shape[1]
        mask = None
        if attention_mask is not None:
            if attention_mask.dim() != 2 or attention_mask.shape[1] < time:
                raise ValueError(
                    f"attention_mask must be (batch, time) for {time} tokens, got {[*attention_mask.shape]}."
                )
            mask = attention_mask[:, -time:].bool()
        present, repeated = mask, None
        begins: Tensor | None = None  # the rows (batch,) of which nothing has been read
        if state is None:
            begins = torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
        elif attention_mask is not None and attention_mask.shape[1] > time:
            begins = ~attention_mask[:, :-time].bool().any(dim=1)
        if begins is not None and begins.any():
            input_ids, mask, repeated = self._starting(input_ids, mask, begins)
        hidden, parts = self._read(input_ids, mask, None if state is None else state.parts)
        kept = logits_to_keep if isinstance(logits_to_keep, Tensor) else slice(-logits_to_keep or None, None)
        logits = self.decode(self.drop_output(hidden)[kept]).transpose(0, 1).contiguous()
        if repeated is not None:
            logits = self._given(logits, repeated[:, kept])
        loss = None
        if labels is not None:
            # Padding predicts nothing, and a given bos is not predicted. The first label never counts.
            for unused in (None if present is None else ~present, repeated):
                if unused is not None:
                    labels = labels.masked_fill(unused.roll(1, dims=1).to(labels.device), -100)
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.vocab_size, **others
            )
        after = RecurrentState(parts, time + (0 if state is None else state.length))
        output = CausalLMOutputWithPast(
            loss=loss, logits=logits, **{CACHE: None if use_cache is False else after}
        )
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return output if as_dict else output.to_tuple()

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """The arguments of `forward` for the tokens that the state has not read."""
        state = kwargs.get(CACHE)
        if state is not None:
            # The mask covers all tokens, even if the caller has passed only those after the state.
            total = input_ids.shape[1] if attention_mask is None else attention_mask.shape[1]
            input_ids = input_ids[:, -max(total - state.length, 1) :]
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, CACHE: state}
        return inputs | {name: kwargs[name] for name in ("use_cache", "logits_to_keep") if name in kwargs}

    def _prepare_attention_mask_for_generation(self, inputs_tensor: Tensor, *_: Any, **__: Any) -> Tensor:
        """The mask for `generate` without one. transformers would take each `pad_token_id` for padding, which
        in a word model is the end of a line."""
        return torch.ones(inputs_tensor.shape[:2], dtype=torch.long, device=inputs_tensor.device)

    def _get_stopping_criteria(self, *arguments: Any, **options: Any) -> Any:
        """The criteria of `generate`. For `stop_strings`, transformers looks for the letters a to f in what
        the tokenizer decodes."""
        try:
            return super()._get_stopping_criteria(*arguments, **options)
        except ValueError as error:
            if "substring not found" not in str(error):
                raise
            raise ValueError(
                "stop_strings requires a tokenizer that knows the letters a to f, and not one of words: use"
                " stopping_criteria."
            ) from error

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """Asked by `generate`, which would otherwise create a cache of keys and values."""
        return False

    def _init_weights(self, module: nn.Module) -> None:
        """Called by transformers for each module, even if some of its weights have been loaded."""
        if not any(getattr(weight, "_is_hf_initialized", False) for weight in module.parameters()):
            self._initialize(module)

    def _starting(
        self, tokens: Tensor, mask: Tensor | None, begins: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Texts that begin with bos -> tokens with the start token in its place, what to read of them, and
        where a further bos follows, which is not read. Rows (batch,) outside `begins` continue a text.

        Some programs begin a text with bos although the tokenizer already has: lm-eval and surprisal. As in
        `model.score`, the further one is given rather than predicted. Where bos ends no text, such as in a
        word model, it can be the first token of one: a line break.
        """
        bos, start = self.config.bos_token_id, self.config.start_token_id
        if start is None:
            return tokens, mask, None
        present = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        leading = ((tokens == bos) | ~present).cumprod(dim=1).bool() & present & begins[:, None]
        tokens = torch.where(leading, start, tokens)
        repeated = torch.zeros_like(leading)
        repeated[:, :-1] = leading[:, :-1] & leading[:, 1:]
        # Without a mask, padding with 0, which can be bos, looks the same: after it, there is no text.
        repeated &= ~(leading | ~present).all(dim=1)[:, None]
        if self.config.eos_token_id != bos or not repeated.any():
            return tokens, mask, None
        return tokens, present & ~repeated, repeated

    def _given(self, logits: Tensor, repeated: Tensor) -> Tensor:
        """logits (batch, time, vocab), in which bos is certain where `repeated` (batch, time)."""
        certain = torch.full_like(logits[0, 0], torch.finfo(logits.dtype).min)
        certain[self.config.bos_token_id] = 0
        return torch.where(repeated[:, :, None], certain, logits)

    def _read(self, tokens: Tensor, mask: Tensor | None, state: State | None) -> tuple[Tensor, State]:
        """tokens (batch, time), of which only those in `mask` (batch, time) are read -> hidden states of the
        last layer (time, batch, hidden), repeated where there is padding and zero before the first token, and
        final state."""
        if mask is None or mask.all():
            return self.hidden_states(tokens, state)
        batch, time = tokens.shape
        state = self.recurrent.zero_state(self.embedding.weight, batch) if state is None else state
        hidden = state[0].new_zeros(time, batch, self.recurrent.config.hidden_size)
        # In each span of time, the same rows are read.
        changes = (mask[:, 1:] != mask[:, :-1]).any(dim=0).nonzero()[:, 0] + 1
        bounds = [0, *changes.tolist(), time]
        for begin, end in pairwise(bounds):
            if begin:  # `generate` draws the first token from the last position, even if that is padding
                hidden[begin:end] = hidden[begin - 1]
            rows = mask[:, begin].nonzero()[:, 0]
            if not len(rows):
                continue
            read, after = self.hidden_states(tokens[rows, begin:end], tuple(part[:, rows] for part in state))
            hidden[begin:end, rows] = read.to(hidden.dtype)
            state = tuple(
                part.index_copy(1, rows, new.to(part.dtype)) for part, new in zip(state, after, strict=True)
            )
        return hidden, state


# Trainer looks here for whether to shift the labels, for label smoothing.
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[RecurrentLMConfig.model_type] = RecurrentLMForCausalLM.__name__
