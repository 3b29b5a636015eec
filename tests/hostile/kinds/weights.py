"""Hostile model.safetensors: damaged headers, and weights of other names, shapes, types and values."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.hostile.damage import BRACKETS, ESCAPE, Damage, Kinds, add_kinds, edited, sparse, with_file

KINDS: Kinds = {}
add = partial(add_kinds, KINDS)


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
    sizes = {"hidden_size": hidden, "layers": 1, "embedding_size": 8}
    edited("config.json", lambda values: values["model"].update(sizes))(folder)
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
    header_brackets=with_file("model.safetensors", struct.pack("<Q", 200_000) + BRACKETS.encode()),
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
    escape=weights(lambda tensors: tensors.update({ESCAPE: torch.ones(3)})),
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
    "but this machine has",
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
