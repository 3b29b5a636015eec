"""Train a recurrent language model.

lm train                                     two minutes on Python's own standard library
lm train --dataset my.txt --max-time 10m
lm train --resume                            continue the newest run
torchrun --nproc-per-node 2 -m lm train      two processes; see docs/scaling.md
"""

import argparse
from dataclasses import replace
from pathlib import Path

from lm.cli.parser import add_settings, make_parser
from lm.config.presets import describe, preset
from lm.config.schema import GROUPS, RunConfig
from lm.config.settings import flag_of
from lm.distributed import Ranks, joined_ranks
from lm.errors import UserError

TITLES = {"data": "the text", "model": "the network", "training": "the recipe and its budget"}
# What may differ between a run and its resumption: nothing that changes the result.
FREE_ON_RESUME = {"device", "quiet", "save_every", "out", "track", "accumulate"}
# What may differ between the ranks: where something lies on each machine. The text itself is compared.
FREE_BETWEEN_RANKS = {"dataset", "tokenizer", "init_from", "out", "quiet", "track"}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = make_parser("train", __doc__ or "")
    parser.add_argument(
        "--preset", metavar="NAME", help=f"a named recipe, which the other settings override: {describe()}"
    )
    parser.add_argument("--config", metavar="FILE", help="read settings from a YAML file")
    parser.add_argument("--print-config", action="store_true", help="print the settings and exit")
    parser.add_argument(
        "--find-lr", action="store_true",
        help="try rising learning rates for 200 steps, draw the loss into ./find-lr.svg and suggest one",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace a run of the same name")
    parser.add_argument(
        "--resume", nargs="?", const=None, metavar="DIR",
        help="go on exactly where a run stopped; without DIR: the newest in runs/",
    )  # fmt: skip
    for group, config_class in GROUPS.items():
        add_settings(parser, config_class, TITLES[group])
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    with joined_ranks() as ranks:
        given = vars(parse(arguments))
        ranks.check_same({"--resume": "resume" in given}, "start all of them by one command.")
        return begin(given, ranks)


def begin(given: dict, ranks: Ranks) -> int:
    names = ("preset", "config", "print_config", "find_lr", "overwrite")
    actions = {name: given.pop(name, None) for name in names}
    if actions["find_lr"] and not ranks.alone:
        raise UserError("--find-lr is of one process: start it without torchrun.")
    if "resume" in given:
        if actions["find_lr"]:
            raise UserError("--find-lr and --resume contradict each other: a resumed run keeps its rate.")
        return resume(given.pop("resume"), given, ranks)

    from lm.run_folder import read_config

    file = actions["config"]
    recipe = preset(actions["preset"]) if actions["preset"] else {}
    values = {**recipe, **(read_config(Path(file)) if file else {}), **given}
    if values.get("init_from"):
        from lm.training.finetune import with_model_settings

        values = with_model_settings(values)
    config = RunConfig.from_flat(values, where=file or "the settings")
    check_settings(config, ranks)
    if actions["print_config"]:
        import yaml

        if ranks.first:
            print(yaml.safe_dump(config.flat(), sort_keys=False, allow_unicode=True), end="")
        return 0

    from lm.data.corpus import open_corpus
    from lm.run_folder import check_out
    from lm.training.progress import Display
    from lm.training.tracking import check_installed

    overwrite = bool(actions["overwrite"])
    if ranks.first:
        check_installed(config.training.track)
        if not actions["find_lr"]:
            check_out(config, overwrite)
    display = Display(config.training.quiet or not ranks.first)
    with display.progress() as progress:
        corpus = ranks.one_on_each_machine(lambda: open_corpus(config.data, progress))
    if actions["find_lr"]:
        from lm.training.find_lr import find_rate

        find_rate(config, corpus, display)
        return 0
    from lm.training.loop import train  # with torch: mistakes are told before that second

    return train(config, display, corpus, overwrite=overwrite, ranks=ranks)


def check_settings(config: RunConfig, ranks: Ranks) -> None:
    """Raise UserError if the ranks are to do different things."""
    if "-" in config.data.dataset and not ranks.alone:
        raise UserError("--dataset - is read by one process: write the text into a file for several.")
    settings = config.flat().items()
    shared = {flag_of(name): value for name, value in settings if name not in FREE_BETWEEN_RANKS}
    ranks.check_same(shared, "start all of them with the same settings.")


def resume(folder: str | None, given: dict, ranks: Ranks) -> int:
    from lm.run_folder import Run, find_run, read_config

    # Of several machines only the first one needs to have the run.
    stopped = Run(Path(ranks.from_first(lambda: str(find_run(folder).folder))))
    values = ranks.from_first(lambda: read_config(stopped.config))
    saved = RunConfig.from_flat(values, where=str(stopped.config)).flat()
    wanted = RunConfig.from_flat({**saved, **given})
    check_settings(wanted, ranks)
    changed = [n for n, value in wanted.flat().items() if n not in FREE_ON_RESUME and saved[n] != value]
    if changed:
        flags = ", ".join(map(flag_of, changed))
        raise UserError(f"a resumed run keeps its settings; leave out {flags}, or start a new run.")
    if wanted.training.init_from and Path(wanted.data.tokenizer).name == "tokenizer.json":
        # That model may be gone, but the run holds its tokenizer too.
        known = replace(wanted.data, tokenizer=str(stopped.folder / "tokenizer.json"))
        wanted = replace(wanted, data=known)
    from lm.training.tracking import check_installed

    if ranks.first:
        check_installed(wanted.training.track)
    from lm.training.loop import train
    from lm.training.progress import Display

    return train(wanted, Display(wanted.training.quiet or not ranks.first), resume=stopped, ranks=ranks)
