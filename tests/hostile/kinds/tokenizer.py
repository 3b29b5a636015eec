"""Hostile tokenizer.json: damaged, without the tokens of the model, or taking forever for some texts."""

from __future__ import annotations

import base64
import json
from functools import partial
from typing import Any

from tests.hostile.damage import BRACKETS, Damage, Kinds, add_kinds, edited, sparse, with_file

KINDS: Kinds = {}
add = partial(add_kinds, KINDS)
_CATASTROPHE = "(a+)+$"

tokenizer = partial(edited, "tokenizer.json")


def section(name: str, value: Any) -> Damage:
    return tokenizer(lambda values: values.update({name: value}))


def vocabulary(**model: Any) -> Damage:
    """Replace the model of the tokenizer by one with as many tokens; `model` may contain `vocab`."""

    def change(values: dict[str, Any]) -> None:
        old = values["model"]["vocab"]
        values["model"] = {"vocab": old, "unk_token": None, "merges": [], **model}

    return tokenizer(change)


def pieces(**model: Any) -> Damage:
    """Replace the model of the tokenizer by a Unigram with as many tokens."""

    def change(values: dict[str, Any]) -> None:
        vocab = [[token, -1.0] for token in values["model"]["vocab"]]
        values["model"] = {"type": "Unigram", "unk_id": 0, "vocab": vocab, **model}

    return tokenizer(change)


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def added(content: str, number: int, **options: bool) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": number, "content": content, **flags, **options}


def charsmap(content: bytes) -> dict[str, Any]:
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(content).decode()}


add(
    "tokenizer",
    "is not a readable tokenizer",
    empty=with_file("tokenizer.json", ""),
    null=with_file("tokenizer.json", "null"),
    list=with_file("tokenizer.json", "[]"),
    brackets=with_file("tokenizer.json", BRACKETS),
    million_lists=with_file("tokenizer.json", "[" + "[]," * 5_000_000 + "[]]"),
    no_model=tokenizer(lambda values: values.pop("model")),
    model_list=section("model", []),
    model_deep=section("model", json.loads("[" * 60 + "]" * 60)),
    type_unknown=vocabulary(type="Transformer"),
    negative_id=vocabulary(type="WordLevel", vocab={"<eos>": -1}),
    float_id=vocabulary(type="WordLevel", vocab={"<eos>": 0.5}),
    id_2_to_40=vocabulary(type="WordLevel", vocab={"<eos>": 2**40}),
    surrogate=with_file("tokenizer.json", '{"model": {"type": "WordLevel", "vocab": {"\\ud800": 0}}}'),
    long_token=vocabulary(type="WordLevel", vocab={"x" * 1_000_000: 0, "<eos>": 1}),
    bad_regex=section("pre_tokenizer", split("(")),
    long_regex=section("pre_tokenizer", split("a|" * 50_000)),
    splits_nothing=section("pre_tokenizer", {"type": "FixedLength", "length": 0}),
    grows_thousandfold=section("normalizer", replace({"String": "a"}, "x" * 1000)),
    grows_in_steps=section(
        "normalizer", {"type": "Sequence", "normalizers": [replace({"String": "a"}, "a" * 10)] * 5}
    ),
    grows_by_doubling=section(
        "pre_tokenizer",
        {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
            ]
            * 30,
        },
    ),
    grows_when_decoded=section(
        "decoder", {"type": "Sequence", "decoders": [replace({"String": "a"}, "a" * 10)] * 6}
    ),
    grows_at_the_start=section("normalizer", {"type": "Prepend", "prepend": "x" * 10_000_000}),
    many_parts=section("normalizer", {"type": "Sequence", "normalizers": [{"type": "Lowercase"}] * 10_000}),
    charsmap_short=section("normalizer", charsmap(b"")),
    charsmap_three=section("normalizer", charsmap(b"\0\0\0")),
    charsmap_gigabytes=section("normalizer", charsmap(b"\xff\xff\xff\xff\xff")),
    charsmap_not_base64=section("normalizer", {"type": "Precompiled", "precompiled_charsmap": "\xe9"}),
    charsmap_number=section("normalizer", {"type": "Precompiled", "precompiled_charsmap": 5}),
    merge_unknown=vocabulary(type="BPE", merges=["a zzz"]),
    merge_cut_in_a_character=vocabulary(
        type="BPE",
        vocab={"<eos>": 0, "a": 1, "é": 2, "aé": 3},
        merges=["a é"],
        continuing_subword_prefix="#",
    ),
    merge_shorter_than_the_prefix=vocabulary(
        type="BPE",
        vocab={"<eos>": 0, "a": 1, "##b": 2},
        merges=[["a", "##b"]],
        continuing_subword_prefix="#" * 10,
    ),
    dropout=vocabulary(type="BPE", dropout=2.0),
    unknown_id=pieces(unk_id=10**6),
    word_of_a_billion=vocabulary(
        type="WordPiece", unk_token="<unk>", continuing_subword_prefix="", max_input_chars_per_word=10**9
    ),
    added_long=section("added_tokens", [added("x" * 2_000_000, 3)]),
    added_many=section("added_tokens", [added("a" * (n % 500 + 1) + str(n), n) for n in range(9000)]),
)
add(
    "tokenizer",
    "has no <eos> token",
    no_eos=vocabulary(type="WordLevel", unk_token="a", vocab={"a": 0}),
    no_tokens=vocabulary(type="WordLevel", unk_token="a", vocab={}),
    no_pieces=pieces(vocab=[], unk_id=None),
)
add(
    "tokenizer",
    "has an id of",
    id_2_to_32=vocabulary(type="WordLevel", unk_token="<eos>", vocab={"<eos>": 2**32 - 1}),
    id_2_to_32_less_2=vocabulary(type="WordLevel", unk_token="<eos>", vocab={"<eos>": 2**32 - 2}),
)
add(
    "tokenizer",
    "do not match its tokenizer.json",
    id_5000=tokenizer(lambda values: values["model"]["vocab"].update(zebra=5000)),
    one_more=tokenizer(lambda v: v["model"]["vocab"].update(zebra=len(v["model"]["vocab"]))),
    fewer=vocabulary(type="WordLevel", unk_token="a", vocab={"<eos>": 0, "a": 1}),
    added_id=section("added_tokens", [added("zebra", 2**32 - 1)]),
)
add(
    "tokenizer",
    "bytes; the limit is",
    large=lambda folder: (folder / "tokenizer.json").open("a").write(" " * 70_000_000),
    sparse=sparse("tokenizer.json", 100 << 30),
)
# These load, but some texts are beyond them.
add(
    "tokenizer",
    None,
    catastrophic_split=section("pre_tokenizer", split(_CATASTROPHE)),
    catastrophic_normalizer=section("normalizer", replace({"Regex": _CATASTROPHE}, "x")),
    catastrophic_decoder=section("decoder", replace({"Regex": _CATASTROPHE}, "x")),
    back_reference=section("pre_tokenizer", split(r"(a*)*\1b")),
    empty_pattern=section("normalizer", replace({"String": ""}, "x")),
    empty_split=section("pre_tokenizer", split("")),
    deep_regex=section("pre_tokenizer", split("(" * 1500 + "a" + ")" * 1500)),
    repeated=section("pre_tokenizer", split("((a{1000}){1000}){1000}")),
    charsmap_outside=section("normalizer", charsmap(b"\x04\0\0\0\xff\xff\xff\x3f")),
    strip_decoder=section("decoder", {"type": "Strip", "content": "a", "start": 10**9, "stop": 10**9}),
    word_decoder=section("decoder", {"type": "WordPiece", "prefix": "", "cleanup": True}),
    padding=section(
        "padding",
        {
            "strategy": {"Fixed": 10**9},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "a",
        },
    ),
    truncation=section(
        "truncation", {"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 0}
    ),
    template=section(
        "post_processor",
        {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "q", "type_id": 0}}],
            "pair": [],
            "special_tokens": {},
        },
    ),
    unknown_unknown=vocabulary(type="BPE", unk_token="zebra"),
    no_unknown=vocabulary(type="WordLevel", unk_token="zebra"),
    infinite_scores=tokenizer(
        lambda v: v.update(
            model={
                "type": "Unigram",
                "unk_id": 0,
                "vocab": [[token, (-1) ** n * 1e308] for n, token in enumerate(v["model"]["vocab"])],
            }
        )
    ),
    prefix=vocabulary(type="BPE", continuing_subword_prefix="é", unk_token="<unk>"),
    suffix=vocabulary(type="BPE", end_of_word_suffix="x" * 4000, unk_token="<unk>"),
)
