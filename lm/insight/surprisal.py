"""The surprisal of each token and word of a text under a model.

>>> import lm
>>> from lm.insight.surprisal import score_text
>>> scored = score_text(lm.load("runs/hamlet"), "To be, or not to be")
>>> scored.metrics.bits_per_character.value
>>> scored.per_word()["surprisal"]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from lm.config.schema import CacheConfig, DynamicConfig
from lm.data.values import with_line_feeds
from lm.errors import UserError
from lm.evaluation.dynamic import dynamic_losses
from lm.evaluation.scores import score_tokens
from lm.evaluation.text_losses import losses_of_texts
from lm.evaluation.token_losses import token_losses
from lm.evaluation.validation import Validation
from lm.insight.scored_text import ScoredText
from lm.language_model import LanguageModel, require_one_network
from lm.model.device import Precision, choose_precision
from lm.tokenization.documents import SEPARATOR
from lm.tokenization.tokenizer import Tokenizer


def score_text(
    model: LanguageModel,
    text: str | bytes,
    *,
    dynamic: DynamicConfig | None = None,
    cache: CacheConfig | None = None,
    reset: bool = False,
    precision: str | Precision = "fp32",
    progress: Callable[[float], None] = lambda fraction: None,
) -> ScoredText:
    """Score each token of a text, or of documents in UTF-8 with SEPARATOR between them.

    A document is read after the end of the one before, as in training, or with `reset` from the zero state;
    its end is then not predicted. `precision` and `progress` are as in `score_texts`.

    With `dynamic` evaluation or a continuous `cache`, the scores adapt to the text read so far, or with
    `reset` to what has been read of the document; the model itself does not change. Raises UserError for an
    ensemble or a model with clamped units, and if the text is empty or entirely unknown to the model.
    """
    require_one_network(model, "score a text")
    if isinstance(precision, str):
        precision = choose_precision(precision, model.device)
    data, tokens = encode_known(model.tokenizer, text)
    if reset:
        documents = [model.tokenizer.encode_bytes(document) for document in data.split(SEPARATOR)]
        each = _score_each(model, documents, precision, progress, dynamic=dynamic, cache=cache)
        return ScoredText(model.tokenizer, data, *each)
    if dynamic or cache:
        losses = dynamic_losses(
            model.network,
            tokens,
            model.start_token,
            dynamic=dynamic,
            cache=cache,
            precision=precision,
            progress=progress,
        )
    else:
        losses = token_losses(
            model.network, tokens, model.start_token, precision=precision, progress=progress
        )
    return ScoredText(model.tokenizer, data, tokens, losses)


def score_texts(
    model: LanguageModel,
    texts: Iterable[str],
    *,
    precision: str = "fp32",
    progress: Callable[[float], None] = lambda fraction: None,
) -> list[ScoredText]:
    """Score many texts at once, each by itself: as `model.score` does, but many times as fast.

    >>> for scored in lm.score_texts(model, ["The sea was calm.", "The boat"]):
    ...     print(scored.bits.sum(), scored.token_texts, scored.per_word()["surprisal"])

    Args:
        texts: each read from the zero state, after the model's start token, with its line breaks as they
            are. Characters and words that the model does not know are scored as <unk>; an empty text has no
            tokens.
        precision: of the matrix products: "fp32", "bf16", "tf32" (on a GPU) or "auto".
        progress: called with the fraction that is done.

    Returns a `ScoredText` for each text, in their order, with the `tokens` of `model.score` and arrays
    (tokens,) of their `losses` (nats), `logprobs` (nats) and `bits`. In fp32, these are those of
    `model.score` and do not depend on the other texts; on a CPU with torch 2.13, to the last bit.

    Raises UserError for an ensemble, and if `texts` is not a list of strings.
    """
    require_one_network(model, "score a text")
    documents = list(texts) if isinstance(texts, Iterable) else [texts]  # an iterator is read only once
    if isinstance(texts, str | Mapping) or not all(isinstance(document, str) for document in documents):
        raise UserError("lm.score_texts takes a list of texts, each a str.")
    encoded = [model.tokenizer.encode(document) for document in documents]
    chosen = choose_precision(precision, model.device)
    tokens, losses, bounds = _score_each(model, encoded, chosen, progress)
    spans = pairwise(bounds.tolist())
    return [
        ScoredText(model.tokenizer, document.encode("utf-8", "replace"), tokens[begin:end], losses[begin:end])
        for document, (begin, end) in zip(documents, spans, strict=True)
    ]


def entropies(model: LanguageModel, scored: ScoredText) -> np.ndarray:
    """The entropy (tokens,) in bits of the model's prediction at each token of a text that it has scored: the
    surprisal that it expects there. Not for scores that adapt to the text.

    Raises UserError for an ensemble or a model with clamped units.
    """
    require_one_network(model, "score a text")
    bounds = np.array([0, len(scored.tokens)]) if scored.bounds is None else scored.bounds
    result = np.zeros(len(scored.tokens))
    for begin, end in pairwise(bounds.tolist()):
        found = score_tokens(model.network, scored.tokens[begin:end], model.start_token)
        nats = [entropy for _, _, entropy, _ in found] if end > begin else []
        result[begin:end] = np.array(model.direction.reorder(nats)) / math.log(2)
    return result


def _score_each(
    model: LanguageModel,
    encoded: list[np.ndarray],
    precision: Precision,
    progress: Callable[[float], None],
    **adaptations: Any,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The tokens (tokens,) of all texts, their losses (tokens,) and the bounds (texts + 1,) of each text.

    With `adaptations` (`dynamic` and `cache` of `score_text`), the model adapts to each text by itself.
    """
    bounds: np.ndarray = np.cumsum([0, *map(len, encoded)])
    tokens = np.concatenate([np.zeros(0, model.tokenizer.dtype), *encoded])
    network, start = model.network, model.start_token
    if not any(adaptations.values()):
        losses = losses_of_texts(network, tokens, bounds, start, precision=precision, progress=progress)
        return tokens, losses, bounds
    losses = np.zeros(len(tokens))
    for begin, end in pairwise(bounds.tolist()):
        losses[begin:end] = dynamic_losses(
            network, tokens[begin:end], start, precision=precision, **adaptations
        )
        progress(end / max(len(tokens), 1))
    return tokens, losses, bounds


def evaluate(model: LanguageModel, texts: str | Iterable[str]) -> Validation:
    """How well a model predicts a text, or several documents: what `lm evaluate --dataset` prints for a file.

    >>> lm.evaluate(model, "To be, or not to be").bits_per_character

    Of several documents, each starts after the end of the one before, as in training. `score_text` also has
    confidence intervals, and the surprisal of each token and word.

    Raises UserError for an ensemble, and if the text is empty or nothing in it is in the vocabulary.
    """
    require_one_network(model, "score a text")
    documents = list(texts) if isinstance(texts, Iterable) and not isinstance(texts, str) else [texts]
    if isinstance(texts, Mapping) or not all(isinstance(document, str) for document in documents):
        raise UserError("lm.evaluate takes a text or a list of texts, each a str.")
    text = SEPARATOR.join(_as_read(document) for document in documents if document)
    scored = score_text(model, text)
    metrics = {name: estimate.value for name, estimate in vars(scored.metrics).items()}
    return Validation(**metrics, tokens=len(scored.tokens))


def encode_known(tokenizer: Tokenizer, text: str | bytes) -> tuple[bytes, np.ndarray]:
    """The text as UTF-8, with the line breaks of a file that has been read, and its tokens (tokens,).

    Raises UserError if the text is empty or no text, or if none of it is known to the tokenizer.
    """
    if isinstance(text, str):
        text = _as_read(text)
    if not isinstance(text, bytes):
        raise UserError("the text to score must be a str or bytes.")
    tokens = tokenizer.encode_bytes(text)
    if not len(tokens):
        raise UserError("the text is empty.")
    if tokenizer.count_unknown(tokens):
        known = np.setdiff1d(tokens, [tokenizer.unk, tokenizer.eos])
        if not tokenizer.decode(known).strip():
            unit = {"char": "characters", "word": "words"}.get(tokenizer.kind, "tokens")
            raise UserError(
                f"the model knows none of the {unit} of this text: choose one similar to its training text."
            )
    return text, tokens


def _as_read(text: str) -> bytes:
    """The UTF-8 of a text, with the line breaks of a file that has been read."""
    return with_line_feeds(text).encode("utf-8", "replace")
