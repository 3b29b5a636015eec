"""Parameters that clients send although they change nothing: defaults that mean "off", and labels.

The values are those that clients of OpenAI, vLLM, llama.cpp and text-generation-webui send when their user
has set nothing.
"""

from __future__ import annotations

import json
from typing import Any

# These never change the text: labels for a provider's records, and hints for its caches.
_LABELS = (
    "user",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "cache_prompt",
    "cache_salt",
    "request_id",
)
# Settings of a method below, without effect while it is off.
_DETAILS = (
    *("mirostat_tau", "mirostat_eta", "xtc_threshold"),
    *("dry_base", "dry_allowed_length", "dry_sequence_breakers", "dry_penalty_last_n"),
    *("dynatemp_low", "dynatemp_high", "dynatemp_exponent", "smoothing_curve"),
)
# Parameters that this server has, too; elsewhere they have one more value for "off".
_ALSO_OFF: dict[str, tuple[Any, ...]] = {
    "top_k": (-1,),
    "seed": (-1,),  # a random one
    "logprobs": (False,),
    "logit_bias": ([],),
    "best_of": (1,),
}
# Parameters that this server does not have.
_OFF: dict[str, tuple[Any, ...]] = {
    # OpenAI
    "suffix": ("",),
    "store": (False,),
    "service_tier": ("auto", "default"),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    # vLLM
    "use_beam_search": (False,),
    "length_penalty": (1,),
    "early_stopping": (False,),
    "stop_token_ids": ([],),
    "bad_words": ([],),
    "include_stop_str_in_output": (False,),
    "ignore_eos": (False,),
    "min_tokens": (0,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "add_special_tokens": (True,),
    "return_tokens_as_token_ids": (False,),
    "return_token_ids": (False,),
    "logits_processors": ([],),
    "priority": (0,),
    # llama.cpp
    "repeat_penalty": (1,),
    "n_probs": (0,),
    "n_keep": (0,),
    "min_keep": (0,),
    "id_slot": (-1,),
    "mirostat": (0,),
    "tfs_z": (1,),
    "top_n_sigma": (-1, 0),
    "dynatemp_range": (0,),
    "xtc_probability": (0,),
    "dry_multiplier": (0,),
    "grammar": ("",),
    # text-generation-webui
    "do_sample": (True,),
    "dynamic_temperature": (False,),
    "temperature_last": (False,),
    "smoothing_factor": (0,),
    "mirostat_mode": (0,),
    "tfs": (1,),
    "top_a": (0,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "encoder_repetition_penalty": (1,),
    "no_repeat_ngram_size": (0,),
    "penalty_alpha": (0,),
    "guidance_scale": (1,),
    "negative_prompt": ("",),
    "min_length": (0,),
    "num_beams": (1,),
    "ban_eos_token": (False,),
    "add_bos_token": (True,),
    "custom_token_bans": ("",),
    "grammar_string": ("",),
}


def without_defaults(body: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a request that have an effect. null means the default, as in OpenAI's API."""
    return {
        name: value
        for name, value in body.items()
        if value is not None and name not in _LABELS and name not in _DETAILS and not _is_off(name, value)
    }


def unsupported(name: str) -> str | None:
    """Why a parameter with this value is rejected, if it is one that this server does not have."""
    if name == "messages":
        return "'messages' belongs to a chat, and these models continue text: send a 'prompt'."
    if name not in _OFF:
        return None
    return f"'{name}' is not supported here: omit it, or set it to {json.dumps(_OFF[name][0])}."


def _is_off(name: str, value: Any) -> bool:
    # In Python, False == 0.
    return any(
        value == off and isinstance(value, bool) == isinstance(off, bool)
        for off in _OFF.get(name) or _ALSO_OFF.get(name, ())
    )
