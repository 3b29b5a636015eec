"""LanguageModel: a trained network with its tokenizer, and `lm.load`.

Training, the CLI, the web UI, the API and notebooks all work with this object.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lm.config.schema import SearchConfig
from lm.config.settings import build, whole_number
from lm.console.wording import plural
from lm.errors import UserError, one_line
from lm.evaluation.scores import Score, Scores, score_tokens
from lm.files.atomic import writing
from lm.files.paths import expanded
from lm.generation.clamp import Clamp, ClampedDecoder
from lm.generation.decoder import Decoder, NetworkDecoder
from lm.generation.ensemble import Ensemble
from lm.generation.request import Request, check_search, seed_or_random, seeds_from
from lm.generation.text_generator import Completion, Continuation, Pieces, TextGenerator, text_or_ids
from lm.model.device import choose_device, choose_precision
from lm.model.direction import Direction
from lm.model.network import RecurrentLM
from lm.session import Session
from lm.storage.loading import read_model
from lm.storage.model_card import checked_languages, checked_license
from lm.storage.model_folder import find_model
from lm.storage.model_hub import Token, create_repository, upload
from lm.storage.run_folder import Run, read_metrics
from lm.storage.saving import save_model
from lm.tokenization.special_tokens import is_single_document
from lm.tokenization.tokenizer import Tokenizer


def load(
    model: str | Path,
    device: str | torch.device = "auto",
    precision: str = "fp32",
    *,
    revision: str | None = None,
    token: Token = None,
    local_files_only: bool = False,
) -> LanguageModel:
    """Load a model. `from_pretrained` of `LanguageModel` is the same function.

    Args:
        model: a run, a saved folder, a Hub id such as "me/hamlet" or "me/hamlet@v1", or "pretrained": the
            small model that ships with lm.
        device: "cpu", "cuda", "cuda:1" (the second GPU), "mps" or "auto": a GPU if there is one, except for
            int8.
        precision: that of the weights for generation: "fp32", "bf16", "tf32" or "fp16" (on a GPU), "int8"
            (on a CPU) or "auto".
        revision: a branch, tag or commit of a Hub model; default: its main branch.
        token: an access token of the Hub, for private and gated models; True: the token that `hf auth login`
            stores; False: none; default: the stored one, if any.
        local_files_only: use only the files of a Hub model that are on this disk already. Like `token`, this
            has no effect on other models.

    Raises ModelError if there is no such model or revision, if it is damaged or of a newer format, or if the
    Hub does not grant access to it or cannot be reached, and UserError for a device or precision that this
    machine does not have, and if `model` is not a name.
    """
    if not isinstance(model, str | os.PathLike):
        raise UserError(
            f"lm.load takes the folder or the Hub id of a model, got {one_line(repr(model), 60)}."
        )
    target = choose_device("cpu" if (device, precision) == ("auto", "int8") else device)
    folder = find_model(model, revision, token, local_files_only)
    network, tokenizer, facts = read_model(folder)
    if precision != "int8":
        precision = choose_precision(precision, target).value
    loaded = LanguageModel(network.to(target), tokenizer, facts, precision)
    loaded.name, loaded.folder = str(model), folder
    return loaded


class LanguageModel:
    """A network and its tokenizer. `facts` describes its training, as config.json does.

    `name` is what was passed to `lm.load`, and `folder` has the files of the model. They are "" and None for
    a model that was not loaded.

    A `backward` model reads right to left: the text that it generates ends where the prompt begins.
    """

    from_pretrained = staticmethod(load)

    def __init__(
        self,
        network: RecurrentLM,
        tokenizer: Tokenizer,
        facts: dict[str, Any] | None = None,
        precision: str = "fp32",
        decoder: Decoder | None = None,
    ):
        self.network, self.tokenizer, self.facts = network, tokenizer, facts or {}
        self.name = ""
        self.folder: Path | None = None
        self.device = network.device
        self.direction = network.direction
        self.generator = TextGenerator(
            decoder or NetworkDecoder(network, precision),
            tokenizer,
            self.direction,
            single_document=is_single_document(self.facts),
        )

    def __repr__(self) -> str:
        """LanguageModel('runs/a', lstm, 2 layers of 512 units, 3.3M parameters, char, …)."""
        config = self.network.config
        parts = [repr(self.name)] if self.name else []
        decoder = self.generator.decoder
        parts += ["ensemble"] if isinstance(decoder, Ensemble) else []
        parts += [config.cell, f"{plural(config.layers, 'layer')} of {config.hidden_size} units"]
        parts += [f"{_rounded(self.network.parameter_count())} parameters", self.tokenizer.kind]
        parts += ["right to left"] if self.backward else []
        parts += [plural(len(decoder.clamps), "clamped unit")] if isinstance(decoder, ClampedDecoder) else []
        bits = (self.facts.get("validation") or {}).get("bits_per_character")
        if bits is not None and isinstance(decoder, NetworkDecoder):  # measured without others or clamps
            parts.append(f"{bits:.2f} bits per character")
        return f"LanguageModel({', '.join(parts)})"

    @property
    def history(self) -> list[dict[str, Any]]:
        """The metrics of the run in `folder`: one dictionary for each line of its metrics.jsonl, ready for
        `pandas.DataFrame`. Empty for a model whose folder is not a run."""
        return read_metrics(Run(self.folder)) if self.folder else []

    @property
    def backward(self) -> bool:
        """Whether the model reads right to left."""
        return self.direction is Direction.BACKWARD

    @property
    def start_token(self) -> int:
        """The token that precedes every text."""
        return self.generator.start_token

    def mixed_with(self, others: Sequence[tuple[LanguageModel, float]]) -> LanguageModel:
        """An ensemble of this model and others with their weights: the average of their probabilities.

        This model's weight is one minus the sum of the others. Raises UserError unless all have the same
        vocabulary, direction and device.
        """
        others = list(others) if isinstance(others, Iterable) else [others]
        if not all(map(_has_weight, others)):
            raise UserError("mixed_with takes a list of models with their weights, such as [(model, 0.3)].")
        vocabulary = self.tokenizer.backend.get_vocab()
        if any(other.tokenizer.backend.get_vocab() != vocabulary for other, _ in others):
            raise UserError("models can be mixed only if they have the same vocabulary.")
        if any(other.direction != self.direction or other.device != self.device for other, _ in others):
            raise UserError("models can be mixed only if they have the same direction and device.")
        weights = [weight for _, weight in others]
        if not (all(weight > 0 for weight in weights) and sum(weights) < 1):
            raise UserError("the weights of mixed-in models must be positive and sum to less than 1.")
        decoders = [self.generator.decoder, *(other.generator.decoder for other, _ in others)]
        ensemble = Ensemble(decoders, [1 - sum(weights), *weights])
        return LanguageModel(self.network, self.tokenizer, self.facts, decoder=ensemble)

    def clamped(self, *clamps: Clamp) -> LanguageModel:
        """This model with units held at fixed values, in everything that it reads and generates; see `Clamp`.

        The weights are shared. Like an ensemble, the result can only generate. With the same seed it draws
        the same random numbers as this model, so that texts differ by the effect of the clamps alone.

        >>> model.clamped(lm.Clamp(layer=1, unit=42, value=0.0)).generate("To be", seed=1)

        Raises UserError for a unit or value that does not exist, a state that is clamped twice, an ensemble,
        and a model with clamped units.
        """
        decoder = self.generator.decoder
        if not isinstance(decoder, NetworkDecoder):
            raise UserError("units can be clamped only in a single model without clamped units.")
        return LanguageModel(
            self.network, self.tokenizer, self.facts, decoder=ClampedDecoder(decoder, clamps)
        )

    def stream(
        self, prompt: str | Sequence[int] = "", *, seed: int | None = None, **settings: Any
    ) -> Continuation:
        """Continue `prompt`, a text or its token ids, yielding a Piece for each token as it is generated. As
        the last line of a notebook's cell, it prints the text instead, as it is generated.

        `settings` are the fields of Request and SamplingConfig: max_new_tokens, stop, temperature, top_p, …
        Without a `seed`, each call generates another text. The text ends after `max_new_tokens`, before a
        `stop` string, or where the model ends the document.

        Token ids are used unchanged, except that a leading <eos> is read as the start of the text.

        Raises UserError for settings out of range, for ids outside the vocabulary, for characters missing
        from it with unknown="error", and for a backward model, whose text can be read only when complete.
        """
        prompt = text_or_ids(prompt)
        return Continuation(self.stream_all([prompt], [seed], **settings), self.generator.text_of(prompt))

    def stream_all(
        self, prompts: Iterable[str | Sequence[int]], seeds: Sequence[int | None], **settings: Any
    ) -> Pieces:
        """Continue each of `prompts` with its seed, in one batch. See `stream`."""
        self.generator.require_forward()
        chosen = [seed_or_random(seed) for seed in seeds]
        return self.generator.stream(prompts, chosen, Request.from_settings(settings))

    def generate(
        self,
        prompt: str | Sequence[str | Sequence[int]] = "",
        *,
        num_samples: int = 1,
        seed: int | None = None,
        beams: int = 1,
        length_penalty: float = 1.0,
        **settings: Any,
    ) -> list[Completion]:
        """Continue `prompt`, or each of several prompts, `num_samples` times, in one batch.

        A prompt is a text or a list of token ids; a single list of ids is given as a list of one list.

        Sample i is what `stream`, whose settings also apply, generates with the seed `seed + i`. With
        `beams` above one, the samples are the best that a beam search of that width finds, without sampling
        settings; there may be fewer. The text of a backward model precedes the prompt.

        Raises UserError for settings out of range, or without an effect on a beam search.
        """
        if not isinstance(prompt, str | Iterable) or isinstance(prompt, Mapping):
            raise UserError(f"a text must be a string or a list of token ids, got {prompt!r}.")
        prompts = [text_or_ids(one) for one in ([prompt] if isinstance(prompt, str) else prompt)]
        num_samples = whole_number("num_samples", num_samples, 1)
        request = Request.from_settings(settings)
        search = build(SearchConfig, {"beams": beams, "length_penalty": length_penalty})
        check_search(search, request.sampling, seed)
        if search.beams > 1:
            return [
                completion
                for one in prompts
                for completion in self.generator.search(
                    one, search.beams, num_samples, search.length_penalty, request
                )
            ]
        repeated = [one for one in prompts for _ in range(num_samples)]
        return self.generator.generate(repeated, seeds_from(seed, len(repeated)), request)

    def session(self) -> Session:
        """An empty text and the model's state after it: to feed, sample, fork and rewind."""
        return Session(self)

    def score(self, text: str | Sequence[int], *, unknown: str = "replace", alternatives: int = 0) -> Scores:
        """Log-probability (nats), rank (from 1) and entropy (nats) of each token of `text`, in text order,
        with the `alternatives` most likely tokens at its position. A notebook displays this as colored text.

        The text may be given as token ids, which are used unchanged, except that a leading <eos> is read as
        the start of the text. It is given rather than predicted: its log-probability is 0.

        `unknown` is as for `encode`. Raises UserError for an ensemble, for ids outside the vocabulary, and
        for characters missing from it with unknown="error".
        """
        return Scores(
            self.direction.reorder(list(self.stream_scores(text, unknown, alternatives))), self.tokenizer
        )

    def stream_scores(
        self, text: str | Sequence[int], unknown: str = "replace", alternatives: int = 0
    ) -> Generator[Score]:
        """What `score` returns, as it is computed and in reading order."""
        require_one_network(self, "score a text")
        text, alternatives = text_or_ids(text), whole_number("alternatives", alternatives, 0)
        tokens: np.ndarray = np.array(self.encode(text, unknown), self.tokenizer.dtype)
        name = self.tokenizer.token_name
        if self.generator.starts_explicitly(text):
            yield Score(name(self.tokenizer.eos), self.tokenizer.eos, 0.0, 1, 0.0)
        found = score_tokens(self.network, tokens, self.start_token, alternatives)
        for token, (logprob, rank, entropy, best) in zip(self.direction.reorder(tokens), found, strict=True):
            others = tuple((name(other), p) for other, p in best)
            yield Score(name(token), int(token), logprob, rank, entropy, others)

    def encode(self, text: str | Sequence[int], unknown: str = "replace") -> list[int]:
        """The tokens of `text`. Characters missing from the vocabulary become <unk> ("replace"), are left
        out ("skip") or raise UserError ("error")."""
        return self.generator.encode(text, unknown)

    def save(
        self,
        folder: str | Path,
        *,
        half: bool = False,
        remote_code: bool = False,
        license: str | None = None,
        language: str | Sequence[str] | None = None,
    ) -> None:
        """Write the files of a model, which lm/storage/model_folder.py lists. `save_pretrained` is the same.

        Args:
            half: store the weights as float16, in half the space.
            remote_code: as for `push_to_hub`.
            license: for the model card and config.json, such as "mit"; default: that of the loaded model, if
                any.
            language: codes of the text's languages, such as "en"; default: those of the loaded model or of a
                dataset on the Hub, if any.

        Raises UserError for an ensemble, a model with clamped units, an invalid license or language,
        `remote_code` of a backward model, weights that float16 cannot represent, and a folder that cannot be
        written.
        """
        facts = self._facts_to_save(license, language, remote_code)
        dtype = torch.float16 if half else torch.float32
        with writing(folder):
            folder = expanded(folder)
            save_model(folder, self.network, self.tokenizer, facts, dtype, remote_code=remote_code)

    save_pretrained = save

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: Token = None,
        commit_message: str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        remote_code: bool = False,
        license: str | None = None,
        language: str | Sequence[str] | None = None,
    ) -> str:
        """Upload the model to the Hugging Face Hub, creating the repository if there is none.

        Args:
            repo_id: "me/hamlet", or "hamlet" for a model of the user whose token it is.
            private: whether a new repository is private; default: the default of its owner.
            token: an access token with write access; True or default: the one that `hf auth login` stores.
            commit_message: the first line of the commit.
            revision: the branch to upload to, which is created if there is none; default: main.
            create_pr: open a pull request for the main branch instead of changing it.
            remote_code: also upload the code with which transformers loads the model without lm:
                `AutoModelForCausalLM.from_pretrained(repo_id, trust_remote_code=True)`.
            license: as for `save`.
            language: as for `save`.

        Returns the URL of the repository or of the pull request. Raises UserError if that fails.
        """
        facts = self._facts_to_save(license, language, remote_code)
        if create_pr and revision is not None:
            raise UserError("a pull request is for the main branch: leave out `revision` or `create_pr`.")
        repository = create_repository(repo_id, private, token)
        with tempfile.TemporaryDirectory() as folder:
            name = repository.repo_id
            with writing(folder):
                save_model(folder, self.network, self.tokenizer, facts, name=name, remote_code=remote_code)
            commit = upload(folder, name, token, commit_message, revision, create_pr)
        return str(commit.pr_url or repository)

    def _facts_to_save(
        self, license: str | None, language: str | Sequence[str] | None, remote_code: bool
    ) -> dict[str, Any]:
        """The facts with another license or language, if one is given. Raises UserError if it is not valid,
        for an ensemble, and for a backward model that is to have code for transformers."""
        require_one_network(self, "be saved")
        if remote_code and self.backward:
            raise UserError("transformers has no models that read right to left: leave out `remote_code`.")
        facts = dict(self.facts)
        if license is not None:
            facts["license"] = checked_license(license)
        if language is not None:
            facts["language"] = checked_languages(language)
        return facts


def require_one_network(model: LanguageModel, action: str) -> None:
    """Raise UserError for an ensemble or a model with clamped units, which cannot `action`, and for
    anything that is not a LanguageModel, such as a name."""
    if not isinstance(model, LanguageModel):
        raise UserError(f"a model is needed, such as lm.load('runs/mine'), got {one_line(repr(model), 60)}.")
    decoder = model.generator.decoder
    if isinstance(decoder, Ensemble):
        raise UserError(f"an ensemble can only generate, not {action}: use one of its models.")
    if isinstance(decoder, ClampedDecoder):
        raise UserError(f"a model with clamped units can only generate, not {action}: use it unclamped.")


def _has_weight(other: Any) -> bool:
    """Whether `other` is a pair of a model and a number."""
    is_pair = isinstance(other, Sequence) and len(other) == 2
    return is_pair and isinstance(other[0], LanguageModel) and isinstance(other[1], Real)


def _rounded(number: int) -> str:
    """'3.3M', '950k', '950'."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.2g}{unit}" if number < 10 * size else f"{number / size:.0f}{unit}"
    return str(number)
