"""Settings of the text: where it comes from, and how it is read and tokenized."""

from __future__ import annotations

from dataclasses import dataclass

from lm.config.settings import parse_mix, setting


@dataclass(frozen=True)
class DataConfig:
    """Where the text comes from and how it is tokenized."""

    dataset: tuple[str, ...] = setting(
        ("python",),
        "Hub id, file, folder, glob, '-' (standard input) or 'python' (the source code of Python's"
        " standard library); repeatable",
        metavar="X",
    )
    mix: tuple[float, ...] | None = setting(
        None,
        "proportion of each --dataset in the training data, such as 0.7,0.3; default: all of each",
        parse=parse_mix,
        metavar="SHARES",
    )
    dataset_config: str | None = setting(
        None, "configuration of a Hub dataset, or of a folder whose README.md declares some", metavar="NAME"
    )
    dataset_revision: str | None = setting(None, "commit, branch or tag of a Hub dataset", metavar="NAME")
    text_column: str | None = setting(
        None,
        "column that contains the text, or a field of its objects such as translation.en; default: detected"
        " automatically",
        metavar="NAME",
    )
    json_field: str | None = setting(
        None,
        "where in a JSON file the list of rows is, such as data; default: detected automatically",
        metavar="NAME",
    )
    header: bool = setting(True, "the first row of CSV and TSV names the columns")
    train_split: str = setting("train", "split to train on", metavar="NAME")
    validation_split: str | None = setting(
        None,
        "split name or a fraction such as 0.1; default: the dataset's own split, else the last 10%",
        metavar="SPLIT",
    )
    test_split: str | None = setting(
        None,
        "split name or a fraction to hold out of training; scored once, at the end",
        metavar="SPLIT",
    )
    streaming: bool = setting(
        False, "stream the text while training and store none of it; for text that does not fit on the disk"
    )
    shuffle_buffer: int = setting(
        1000, "documents in the shuffle buffer of --streaming", minimum=1, metavar="N"
    )
    max_chars: int | None = setting(
        None, "use only the first N characters of each split", minimum=2, metavar="N"
    )
    encoding: str | None = setting(
        None,
        "encoding of text files and tables, such as cp1252 or gb18030; default: UTF-8, or UTF-16 or UTF-32"
        " where a file clearly is one of them",
        metavar="NAME",
    )
    encoding_errors: str = setting(
        "strict", "what to do with bytes that are not valid in the encoding", choices=("strict", "replace")
    )
    document_separator: str | None = setting(
        None,
        "what separates documents within a text file: line, blank-line, or a string such as '\\n***\\n' or"
        " '<|endoftext|>'; default: a file is one document",
        metavar="STRING",
    )
    tokenizer: str = setting(
        "char",
        "char, byte, bpe, unigram or word, or an existing tokenizer: a tokenizer.json or a Hub id",
        metavar="T",
    )
    vocab_size: int | None = setting(
        None,
        "maximum vocabulary size; default: 4096 for bpe and unigram, 65536 for word, no limit for char",
        minimum=3,
        maximum=10_000_000,
        metavar="N",
    )
    min_frequency: int = setting(
        1,
        "minimum number of occurrences: rarer characters and words become <unk>, rarer bpe pairs are not"
        " merged",
        minimum=1,
        metavar="N",
    )
    data_report: bool = setting(False, "print more about the text: its most and least common characters")

    def __post_init__(self) -> None:
        if isinstance(self.dataset, str):  # DataConfig(dataset="my.txt")
            object.__setattr__(self, "dataset", (self.dataset,))
