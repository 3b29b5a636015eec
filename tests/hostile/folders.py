"""Nearly 300 kinds of hostile model folders, each a small change to a good one.

`KINDS` maps the name of each to the function that makes it from a good folder, and to what `lm.load` says: a
part of its message, or None if the model is sound where it matters, so that it loads.
"""

from __future__ import annotations

import base64
import json
import math
import os
import shutil
import socket
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from lm.config.schema import ModelConfig
from lm.language_model import LanguageModel
from lm.model.network import RecurrentLM
from lm.tokenization.vocabulary import train_tokenizer

Damage = Callable[[Path], object]
TEXT = "the sea was calm and a small boat went out\n" * 20
# What programs send to a model: its run of a letter is what some patterns cannot match in time.
PROMPT = "the sea " + "a" * 40 + "b"
KINDS: dict[str, tuple[Damage, str | None]] = {}
_HUGE = 60_000


def make_good(folder: Path) -> None:
    """A run of a tiny model, with everything that the page shows."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer("char", iter([TEXT]))
    network = RecurrentLM(ModelConfig(hidden_size=8), tokenizer.vocab_size)
    metrics = {"loss": 2.5, "perplexity": 12.2, "bits_per_character": 3.6, "bits_per_byte": 3.6}
    facts = {"trained_on": {"dataset": "x", "characters": 17, "documents": 3}, "validation": metrics}
    LanguageModel(network, tokenizer, facts).save(folder)
    config(lambda values: values.pop("sha256", None))(folder)  # an attacker can write matching digests
    training = folder / "training"
    (training / "checkpoint").mkdir(parents=True)
    records = [
        {"step": step, "tokens": 100 * step, "seconds": step, "validation_loss": 3 - step / 4}
        for step in range(1, 4)
    ]
    (training / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (training / "loss.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    (training / "checkpoint" / "progress.json").write_text('{"corpus": "x", "finished": true}')


def add(group: str, message: str | None, **kinds: Damage) -> None:
    """Add kinds with the same message."""
    for name, damage in kinds.items():
        KINDS[f"{group}-{name.replace('_', '-')}"] = damage, message


def with_file(file: str, content: bytes | str) -> Damage:
    """Replace the content of a file."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / file).write_bytes(data)


def sparse(file: str, size: int) -> Damage:
    """Extend a file to `size` bytes that take no space on the disk."""

    def extend(folder: Path) -> None:
        with open(folder / file, "ab") as opened:
            opened.truncate(size)

    return extend


def instead(file: str, make: Callable[[Path], object]) -> Damage:
    """Delete a file and make something else of its name."""

    def replace(folder: Path) -> None:
        (folder / file).unlink()
        make(folder / file)

    return replace


def link(target: str) -> Callable[[Path], None]:
    """Make a symbolic link."""
    return lambda path: path.symlink_to(target)


def fifo(path: Path) -> None:
    """Make a named pipe that nobody writes to."""
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    """Make a socket that nobody listens to."""
    here = os.getcwd()
    os.chdir(path.parent)  # the address of a socket has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def outside(content: str) -> Callable[[Path], None]:
    """Make a link to a good file outside the folder."""

    def make(path: Path) -> None:
        target = next(parent for parent in path.parents if parent.name == "runs").with_name("outside")
        target.write_text(content)
        path.symlink_to(target)

    return make


def moved_out(file: str) -> Damage:
    """Move a file out of the folder and leave a link to it."""

    def move(folder: Path) -> None:
        target = folder.parents[1] / "moved"
        shutil.move(folder / file, target)
        (folder / file).symlink_to(target)

    return move


def edited(file: str, change: Callable[[Any], object]) -> Damage:
    """Change the values in a JSON file."""

    def damage(folder: Path) -> None:
        values = json.loads((folder / file).read_text())
        change(values)
        (folder / file).write_text(json.dumps(values))

    return damage


config = partial(edited, "config.json")


def fact(name: str, value: Any) -> Damage:
    return config(lambda values: values.update({name: value}))


def setting(name: str, value: Any) -> Damage:
    return config(lambda values: values["model"].update({name: value}))


def inside(section: str, name: str, value: Any) -> Damage:
    return config(lambda values: values[section].update({name: value}))


def raw_fact(name: str, value: str) -> Damage:
    """Add a fact whose JSON Python would not write."""

    def damage(folder: Path) -> None:
        text = (folder / "config.json").read_text().rstrip().removesuffix("}")
        (folder / "config.json").write_text(f'{text}, "{name}": {value}}}')

    return damage


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    """Change the weights."""

    def damage(folder: Path) -> None:
        path = folder / "model.safetensors"
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
        change(tensors)
        save_file(tensors, path)

    return damage


def converted(dtype: torch.dtype) -> Damage:
    return weights(lambda tensors: tensors.update({n: t.to(dtype) for n, t in tensors.items()}))


def header(change: Callable[[dict[str, Any]], object], length: int | None = None) -> Damage:
    """Change the header of the weights, but not the numbers; `length` is what it says its length is."""

    def damage(folder: Path) -> None:
        data = (folder / "model.safetensors").read_bytes()
        size = int.from_bytes(data[:8], "little")
        values = json.loads(data[8 : 8 + size])
        change(values)
        described = json.dumps(values).encode()
        start = struct.pack("<Q", len(described) if length is None else length)
        (folder / "model.safetensors").write_bytes(start + described + data[8 + size :])

    return damage


def many_tensors(folder: Path) -> None:
    """A header of 100,000 tensors without numbers."""
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    described = json.dumps({f"t{number}": entry for number in range(100_000)}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(described)) + described)


def sparse_weights(folder: Path) -> None:
    """Weights larger than the memory, of which the disk stores nothing, and a config.json that agrees."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    hidden = math.isqrt(memory // 16) + 100
    setting("hidden_size", hidden)(folder)
    setting("layers", 1)(folder)
    setting("embedding_size", 8)(folder)
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    shapes = {
        "embedding.weight": [rows, 8],
        "recurrent.weight_ih_l0": [4 * hidden, 8],
        "recurrent.weight_hh_l0": [4 * hidden, hidden],
        "recurrent.bias_ih_l0": [4 * hidden],
        "recurrent.bias_hh_l0": [4 * hidden],
        "decoder.weight": [rows, hidden],
        "decoder.bias": [rows],
    }
    described, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * torch.Size(shape).numel()
        described[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(described).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


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


def renamed(name: str | bytes) -> Damage:
    def rename(folder: Path) -> None:
        os.rename(folder, os.path.join(os.fsencode(folder.parent), os.fsencode(name)))

    return rename


def dated(file: str, seconds: float) -> Damage:
    return lambda folder: os.utime(folder / file, (seconds, seconds))


_BRACKETS = "[" * 200_000
_BOMB = "[" * 1000 + "]" * 1000
_BIG = "1" + "0" * 400
_ESCAPE = "\x1b]0;pwned\x07\x1b[31m"
_CATASTROPHE = "(a+)+$"

# config.json as a file
add(
    "config",
    "config.json is damaged",
    brackets=with_file("config.json", _BRACKETS),
    closed_brackets=with_file("config.json", _BOMB),
    objects=with_file("config.json", '{"a":' * 100_000),
    deep_fact=raw_fact("x", _BOMB),
    empty=with_file("config.json", ""),
    null=with_file("config.json", "null"),
    number=with_file("config.json", "1"),
    list=with_file("config.json", "[]"),
    string=with_file("config.json", '"config"'),
    truncated=lambda folder: os.truncate(folder / "config.json", 50),
    trailing=lambda folder: (folder / "config.json").open("a").write("{}"),
    binary=with_file("config.json", os.urandom(3000)),
    zeros=with_file("config.json", bytes(3000)),
    latin=with_file("config.json", b'{"a": "\xe9"}'),
    utf16=lambda folder: (folder / "config.json").write_text("{}", encoding="utf-16"),
    surrogate=raw_fact("tokenizer", '"\\ud800"'),
    surrogate_key=raw_fact("\\ud800", "1"),
    integer_400=raw_fact("parameters", _BIG),
    integer_5000=raw_fact("parameters", "9" * 5000),
    integer_negative=raw_fact("vocab_size", "-" + _BIG),
    integer_layers=raw_fact("model", f'{{"layers": {_BIG}}}'),
    not_json=with_file("config.json", "layers: 2"),
)
add(
    "config",
    "bytes; the limit is",
    large=with_file("config.json", " " * 5_000_000 + "{}"),
    sparse=sparse("config.json", 100 << 30),
)
add("config", "has no format_version", no_object=with_file("config.json", "{}"))
add(
    "config",
    "is not a regular file",
    directory=instead("config.json", Path.mkdir),
    fifo=instead("config.json", fifo),
    socket=instead("config.json", unix_socket),
    loop=instead("config.json", link("config.json")),
)
add(
    "config",
    "is a link that leaves its folder",
    link=moved_out("config.json"),
    link_passwd=instead("config.json", link("/etc/passwd")),
    link_zero=instead("config.json", link("/dev/zero")),
    link_up=instead("config.json", link("../other/config.json")),
    link_process=instead("config.json", link("/proc/self/environ")),
    dangling=instead("config.json", link("/nowhere")),
)
add("config", "not a model folder", missing=lambda folder: (folder / "config.json").unlink())

# what config.json says
add(
    "facts",
    "has no format_version",
    version_string=fact("format_version", "1"),
    version_list=fact("format_version", [1]),
    version_null=fact("format_version", None),
)
add("facts", "update lm", version_new=fact("format_version", 10**9))
add(
    "facts",
    "does not describe a model",
    model_missing=config(lambda values: values.pop("model")),
    model_null=fact("model", None),
    model_list=fact("model", [1, 2]),
    model_string=fact("model", "lstm"),
    model_number=fact("model", 5),
    cell_list=setting("cell", ["lstm"]),
    cell_object=setting("cell", {"a": 1}),
    cell_unknown=setting("cell", "transformer"),
    cell_escape=setting("cell", _ESCAPE),
    cell_long=setting("cell", "x" * 100_000),
    layers_string=setting("layers", "two"),
    layers_list=setting("layers", [2] * 10_000),
    layers_zero=setting("layers", 0),
    layers_negative=setting("layers", -1),
    layers_billion=setting("layers", 1_000_000_000),
    layers_2_to_62=setting("layers", 2**62),
    layers_half=setting("layers", 2.5),
    layers_true=setting("layers", True),
    layers_nan=setting("layers", float("nan")),
    hidden_zero=setting("hidden_size", 0),
    hidden_auto=setting("hidden_size", "auto"),
    hidden_long=setting("hidden_size", "9" * 5000),
    hidden_object=setting("hidden_size", {}),
    dropout_nan=setting("dropout", float("nan")),
    dropout_infinite=setting("dropout", float("inf")),
    dropout_two=setting("dropout", 2),
    dropout_list=setting("dropout", []),
    residual_string=setting("residual", "yes"),
    tie_string=setting("tie", "yes"),
    direction=setting("direction", "sideways"),
    implementation=setting("cell_implementation", "../../x"),
)
add(
    "facts",
    "do not match its config.json",
    layers_thousand=setting("layers", 1000),
    layers_three=setting("layers", 3),
    hidden_60000=setting("hidden_size", _HUGE),
    hidden_million=setting("hidden_size", 1_000_000),
    hidden_nine=setting("hidden_size", 9),
    embedding_million=setting("embedding_size", 1_000_000),
    tied=setting("tie", True),
    cell_gru=setting("cell", "gru"),
)
add(
    "facts",
    "too large for any network",
    hidden_2_to_62=setting("hidden_size", 2**62),
    embedding_2_to_62=setting("embedding_size", 2**62),
)
add(
    "facts",
    "has the wrong type",
    trained_on_list=fact("trained_on", ["x"]),
    trained_on_string=fact("trained_on", "x"),
    trained_on_number=fact("trained_on", 5),
    dataset_number=inside("trained_on", "dataset", 5),
    dataset_list=inside("trained_on", "dataset", ["x"]),
    documents_string=inside("trained_on", "documents", "many"),
    characters_list=inside("trained_on", "characters", []),
    validation_list=fact("validation", [1]),
    validation_string=fact("validation", "good"),
    loss_string=inside("validation", "loss", "low"),
    loss_list=inside("validation", "bits_per_character", [1]),
)
add(
    "facts",
    "SHA-256 is not the one stored with it",
    digest_wrong=fact("sha256", {"model.safetensors": "0" * 64}),
    digest_list=fact("sha256", ["0", {}, None]),
    digest_number=fact("sha256", 10**15),
    digest_object=fact("sha256", {"model.safetensors": {"a": [{}]}}),
)
add(
    "facts",
    None,
    parameters_string=fact("parameters", "many"),
    parameters_float=fact("parameters", 1e300),
    parameters_list=fact("parameters", [1] * 1000),
    tokenizer_object=fact("tokenizer", {"a": {"b": []}}),
    tokenizer_long=fact("tokenizer", "x" * 500_000),
    tokenizer_escape=fact("tokenizer", _ESCAPE),
    vocab_size_negative=fact("vocab_size", -5),
    vocab_size_true=fact("vocab_size", True),
    dataset_long=inside("trained_on", "dataset", "/x" * 100_000),
    dataset_html=inside("trained_on", "dataset", "<script>alert(1)</script>"),
    dataset_escape=inside("trained_on", "dataset", _ESCAPE),
    validation_nan=inside("validation", "loss", float("nan")),
    validation_infinite=inside("validation", "perplexity", float("inf")),
    validation_zero=inside("validation", "bits_per_character", 0),
    validation_empty=fact("validation", {}),
    trained_on_null=fact("trained_on", None),
    float_overflow=raw_fact("seconds", "1e999"),
    digest_null=fact("sha256", {"model.safetensors": None}),
    duplicates=raw_fact("format_version", "1"),
    many_facts=fact("x", dict.fromkeys(map(str, range(50_000)), 0)),
)

# model.safetensors
add("weights", "model.safetensors is missing", missing=lambda folder: (folder / "model.safetensors").unlink())
add(
    "weights",
    "is damaged or truncated",
    empty=with_file("model.safetensors", b""),
    three_bytes=with_file("model.safetensors", b"abc"),
    eight_zeros=with_file("model.safetensors", bytes(8)),
    half=lambda folder: os.truncate(folder / "model.safetensors", 2000),
    trailing=lambda folder: (folder / "model.safetensors").open("ab").write(b"x" * 1000),
    pickled=lambda folder: torch.save({"a": torch.ones(3)}, folder / "model.safetensors"),
    random=with_file("model.safetensors", os.urandom(5000)),
    header_exabyte=header(lambda values: None, 2**63),
    header_99_megabytes=header(lambda values: None, 99_000_000),
    header_short=header(lambda values: None, 10),
    header_brackets=with_file("model.safetensors", struct.pack("<Q", 200_000) + _BRACKETS.encode()),
    header_list=with_file("model.safetensors", struct.pack("<Q", 2) + b"[]"),
    header_not_utf8=with_file("model.safetensors", struct.pack("<Q", 8) + b"{\xff\xff\xff\xff\xff\xff}"),
    offsets_outside=header(lambda v: v["decoder.bias"].update(data_offsets=[0, 10**12])),
    offsets_reversed=header(lambda v: v["decoder.bias"].update(data_offsets=[64, 0])),
    offsets_negative=header(lambda v: v["decoder.bias"].update(data_offsets=[-64, 0])),
    offsets_shared=header(
        lambda v: v["decoder.bias"].update(data_offsets=v["embedding.weight"]["data_offsets"])
    ),
    shape_overflow=header(lambda v: v["decoder.bias"].update(shape=[2**40, 2**40])),
    shape_huge=header(lambda v: v["decoder.bias"].update(shape=[10**12])),
    shape_negative=header(lambda v: v["decoder.bias"].update(shape=[-1, -4])),
    shape_string=header(lambda v: v["decoder.bias"].update(shape="x")),
    type_unknown=header(lambda v: v["decoder.bias"].update(dtype="F31")),
)
add("weights", "its header has", header_sparse=lambda folder: (
    with_file("model.safetensors", struct.pack("<Q", 90_000_000) + b"{")(folder),
    sparse("model.safetensors", 1 << 30)(folder),
))  # fmt: skip
add(
    "weights",
    "do not match its config.json",
    none=weights(dict.clear),
    missing_one=weights(lambda tensors: tensors.pop("decoder.bias")),
    one_more=weights(lambda tensors: tensors.update(extra=torch.ones(3))),
    escape=weights(lambda tensors: tensors.update({_ESCAPE: torch.ones(3)})),
    long_name=weights(lambda tensors: tensors.update({"x" * 100_000: torch.ones(3)})),
    transposed=weights(lambda t: t.update({"decoder.weight": t["decoder.weight"].t().contiguous()})),
    flat=weights(lambda t: t.update({n: tensor.flatten() for n, tensor in t.items()})),
    scalar=weights(lambda t: t.update({"embedding.weight": torch.tensor(1.0)})),
    no_rows=weights(lambda t: t.update({"embedding.weight": torch.ones(0, 8)})),
    five_axes=weights(lambda t: t.update({"embedding.weight": torch.ones(2, 1, 1, 2, 8)})),
    many=many_tensors,
    other_rows=weights(lambda t: t.update({"embedding.weight": torch.ones(3, 8)})),
)
add(
    "weights",
    "numbers that are not finite",
    nan=weights(lambda t: t["recurrent.weight_hh_l0"][0].fill_(float("nan"))),
    all_nan=weights(lambda t: [tensor.fill_(float("nan")) for tensor in t.values()]),
    infinite=weights(lambda t: t["decoder.bias"][:1].fill_(float("inf"))),
    enormous=weights(lambda t: [tensor.fill_(3e38) for tensor in t.values()]),
    enormous_mixed=weights(lambda t: [tensor.mul_(1e37) for tensor in t.values()]),
    negative_infinite=weights(lambda t: t["embedding.weight"][-1].fill_(-float("inf"))),
)
add(
    "weights",
    "numbers of type",
    integers=converted(torch.int64),
    booleans=converted(torch.bool),
    bytes=converted(torch.uint8),
    complex=converted(torch.complex64),
)
add(
    "weights",
    "this machine's memory has",
    sparse=sparse("model.safetensors", 8 << 40),
    sparse_and_consistent=sparse_weights,
)
add(
    "weights",
    None,
    half_precision=converted(torch.float16),
    bfloat16=converted(torch.bfloat16),
    double=converted(torch.float64),
    zeros=weights(lambda t: [tensor.zero_() for tensor in t.values()]),
    large=weights(lambda t: [tensor.fill_(1e15) for tensor in t.values()]),
    large_mixed=weights(lambda t: [tensor.clamp_(-10, 10).mul_(1e14) for tensor in t.values()]),
    tiny=weights(lambda t: [tensor.fill_(1e-45) for tensor in t.values()]),
)
add(
    "weights",
    "is not a regular file",
    directory=instead("model.safetensors", Path.mkdir),
    fifo=instead("model.safetensors", fifo),
)
add(
    "weights",
    "is a link that leaves its folder",
    link=moved_out("model.safetensors"),
    link_zero=instead("model.safetensors", link("/dev/zero")),
    dangling=instead("model.safetensors", link("/nowhere/x")),
)

# tokenizer.json
add("tokenizer", "tokenizer.json is missing", missing=lambda folder: (folder / "tokenizer.json").unlink())
add(
    "tokenizer",
    "is not a readable tokenizer",
    empty=with_file("tokenizer.json", ""),
    null=with_file("tokenizer.json", "null"),
    list=with_file("tokenizer.json", "[]"),
    brackets=with_file("tokenizer.json", _BRACKETS),
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
add(
    "tokenizer",
    "is not a regular file",
    directory=instead("tokenizer.json", Path.mkdir),
    fifo=instead("tokenizer.json", fifo),
)
add(
    "tokenizer",
    "is a link that leaves its folder",
    link=moved_out("tokenizer.json"),
    link_shadow=instead("tokenizer.json", link("/etc/shadow")),
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

# README.md
add(
    "card",
    None,
    missing=lambda folder: (folder / "README.md").unlink(),
    link_passwd=instead("README.md", link("/etc/passwd")),
    link_zero=instead("README.md", link("/dev/zero")),
    link=instead("README.md", outside("SECRET")),
    fifo=instead("README.md", fifo),
    directory=instead("README.md", Path.mkdir),
    sparse=sparse("README.md", 100 << 30),
    binary=with_file("README.md", os.urandom(100_000)),
    script=with_file("README.md", "<script>alert(1)</script> [x](javascript:alert(1)) ![y](http://z/)"),
    quotes=with_file("README.md", ">" * 190_000 + "x"),
    brackets=with_file("README.md", "[" * 190_000),
    links=with_file("README.md", "[a](" * 45_000),
    images=with_file("README.md", "![" * 90_000),
    stars=with_file("README.md", "*a **b " * 27_000),
    ticks=with_file("README.md", "".join("`" * n + " " for n in range(1, 600))),
    lists=with_file("README.md", "\n".join(" " * n + "- x" for n in range(600))),
    table=with_file("README.md", "|" * 1000 + "\n" + "|-" * 1000 + "|\n" + ("|" * 1000 + "\n") * 180),
    angles=with_file("README.md", "<" * 190_000),
    front_matter=with_file("README.md", "---\n" + "a: &a [*a]\n" * 15_000),
    references=with_file("README.md", "".join(f"[{n}]: x\n" for n in range(12_000)) + "[1]" * 12_000),
)

# training/
add(
    "training",
    None,
    curve_passwd=instead("training/loss.svg", link("/etc/passwd")),
    curve_fifo=instead("training/loss.svg", fifo),
    curve_sparse=sparse("training/loss.svg", 100 << 30),
    metrics_link=instead("training/metrics.jsonl", outside("SECRET")),
    metrics_zero=instead("training/metrics.jsonl", link("/dev/zero")),
    metrics_fifo=instead("training/metrics.jsonl", fifo),
    metrics_sparse=sparse("training/metrics.jsonl", 100 << 30),
    metrics_deep=with_file("training/metrics.jsonl", _BRACKETS + "\n"),
    metrics_numbers=with_file(
        "training/metrics.jsonl", f'{{"step": {_BIG}, "tokens": {_BIG}, "validation_loss": {_BIG}}}\n' * 3
    ),
    metrics_list=with_file("training/metrics.jsonl", "[1]\n[2]\n"),
    metrics_strings=with_file("training/metrics.jsonl", '{"step": "x", "validation_loss": {}}\n' * 3),
    metrics_binary=with_file("training/metrics.jsonl", os.urandom(10_000)),
    progress_fifo=instead("training/checkpoint/progress.json", fifo),
    progress_deep=with_file("training/checkpoint/progress.json", _BRACKETS),
    progress_list=with_file("training/checkpoint/progress.json", "[]"),
    lock_fifo=lambda folder: fifo(folder / "training" / "lock"),
    lock_zero=lambda folder: link("/dev/zero")(folder / "training" / "lock"),
    lock_deep=with_file("training/lock", "[" * 900),
    lock_number=with_file("training/lock", f'{{"process": {_BIG}, "host": {_BIG}}}'),
    elsewhere=lambda folder: (shutil.rmtree(folder / "training"), (folder / "training").symlink_to("/etc")),
    file=lambda folder: (shutil.rmtree(folder / "training"), (folder / "training").touch()),
)

# the folder itself
add(
    "folder",
    None,
    from_1970=dated("model.safetensors", 0),
    from_1900=dated("model.safetensors", -2_200_000_000),
    from_the_future=dated("model.safetensors", 15_000_000_000),
    name_html=renamed("<img src=x onerror=alert(1)>"),
    name_escape=renamed(f"a{_ESCAPE}b"),
    name_newline=renamed("a\nb"),
    name_right_to_left=renamed("a\u202eb"),
    name_long=renamed("x" * 200),
    name_dash=renamed("--help"),
    more_files=lambda folder: [(folder / f"x{number}").touch() for number in range(2000)],
)
add("folder", "not valid UTF-8", name_not_utf8=renamed(b"a\xff"))
add(
    "folder",
    "",
    empty=lambda folder: (shutil.rmtree(folder), folder.mkdir()),
    loop=lambda folder: (shutil.rmtree(folder), folder.symlink_to(folder)),
    dangling=lambda folder: (shutil.rmtree(folder), folder.symlink_to("/nowhere")),
    file=lambda folder: (shutil.rmtree(folder), folder.touch()),
    fifo=lambda folder: (shutil.rmtree(folder), os.mkfifo(folder)),
)
