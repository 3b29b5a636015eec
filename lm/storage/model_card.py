"""The model card: the README.md of a model folder, which the Hugging Face Hub displays.

It is written from config.json alone, which anyone may have made: values of other types than lm writes are
left out, and text is quoted so that it becomes neither Markdown nor YAML of its own.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Sequence
from typing import Any

import huggingface_hub
from huggingface_hub.utils import yaml_dump

from lm.config.settings import arguments
from lm.console.escaping import printable
from lm.console.wording import PYTHON_LIBRARY, plural
from lm.errors import UserError, one_line
from lm.model.cells import CELLS
from lm.model.direction import Direction
from lm.storage.model_hub import HUB_ID

_HUB = "https://huggingface.co"
_METRICS = {  # with the digits to show
    "loss": ("loss (nats per token)", 4),
    "perplexity": ("perplexity", 2),
    "bits_per_character": ("bits per character", 4),
    "bits_per_byte": ("bits per byte", 4),
}
_MORE = re.compile(r"[\d,]+ more")  # the last name of a text that consists of too many files to name
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*|code|multilingual")


def model_card(name: str, facts: dict[str, Any]) -> str:
    """The README.md of a model that `lm.load(name)` loads and that config.json describes as `facts`."""
    sections = [
        _description(facts),
        *_training_data(_section(facts, "trained_on")),
        _usage(name, facts),
        *_results(facts),
        _limitations(facts),
        *_training_command(_section(facts, "trained_on")),
        _weights(facts["model"]),
    ]
    return f"---\n{_metadata(name, facts).to_yaml()}\n---{_title(name)}\n" + "\n\n".join(sections) + "\n"


def renamed(card: str, old: str, new: str) -> str:
    """A card with another name of the model, wherever `model_card` writes it."""
    for written in (_title, _load, _from_pretrained, _index_entry):
        card = card.replace(written(old), written(new))
    return card


def checked_license(license: str) -> str:
    """The identifier of a license. Raises UserError if the Hub would reject it."""
    if not isinstance(license, str) or not _LICENSE.fullmatch(license):
        raise UserError(
            f"license must be an identifier of the Hub such as 'mit' or 'cc-by-4.0', got {_shown(license)}."
        )
    return license


def checked_languages(language: str | Sequence[str]) -> list[str]:
    """The codes of one or several languages. Raises UserError if the Hub would reject it."""
    languages = [language] if isinstance(language, str) else list(language)
    for one in languages:
        if not isinstance(one, str) or not _LANGUAGE.fullmatch(one):
            raise UserError(
                f"language must be a code such as 'en' or 'yue', 'code' or 'multilingual', got {_shown(one)}."
            )
    return languages


def _metadata(name: str, facts: dict[str, Any]) -> huggingface_hub.ModelCardData:
    trained_on, results = _section(facts, "trained_on"), _eval_results(facts)
    datasets = _hub_datasets(trained_on)
    license, languages = facts.get("license"), _languages(facts, datasets)
    return huggingface_hub.ModelCardData(
        library_name="lm",
        pipeline_tag="text-generation",
        license=license if isinstance(license, str) and _LICENSE.fullmatch(license) else None,
        language=languages or None,
        datasets=[dataset["id"] for dataset in datasets] or None,
        base_model=_hub_id(trained_on.get("base_model")),
        tags=[facts["model"]["cell"], "recurrent", "language-model", f"{facts['tokenizer']}-level"],
        model_name=_short(name) if results else None,
        eval_results=results or None,
    )


def _languages(facts: dict[str, Any], datasets: list[dict[str, Any]]) -> list[str]:
    """What the user said, else what the datasets on the Hub say; "code" for Python's library."""
    given = facts.get("language")
    if not given and _section(facts, "trained_on").get("dataset") == "python":
        given = ["code"]
    found = given or [code for dataset in datasets for code in _list(dataset.get("language"))]
    codes = (code for code in _list(found) if isinstance(code, str) and _LANGUAGE.fullmatch(code))
    return list(dict.fromkeys(codes))


def _eval_results(facts: dict[str, Any]) -> list[huggingface_hub.EvalResult]:
    trained_on = _section(facts, "trained_on")
    dataset, datasets = one_line(str(trained_on.get("dataset") or "")) or "unknown", _hub_datasets(trained_on)
    only = datasets[0] if len(datasets) == 1 and datasets[0]["id"] == dataset else {}
    return [
        huggingface_hub.EvalResult(
            task_type="text-generation",
            task_name="Language modeling",
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_config=_text(only.get("config")),
            dataset_revision=_text(only.get("revision")),
            dataset_split=split,
            metric_type=metric,
            metric_name=_METRICS[metric][0],
            metric_value=float(f"{value:.6g}"),
        )
        for split in ("validation", "test")
        for metric, value in _metrics(facts, split).items()
    ]


def _description(facts: dict[str, Any]) -> str:
    model, tokenizer = facts["model"], facts["tokenizer"]
    text = (
        f"{model['cell'].upper()} language model with {plural(model['layers'], 'layer')} of"
        f" {model['hidden_size']} units: {facts['parameters']:,} parameters, a vocabulary of"
        f" {plural(facts['vocab_size'], 'token')} ({tokenizer})."
    )
    if _is_backward(facts):
        text += " The model reads right to left: it generates the text before a prompt."
    return text


def _training_data(trained_on: dict[str, Any]) -> list[str]:
    """Paragraphs about the text, and the model that fine-tuning started from."""
    paragraphs = []
    if dataset := _text(trained_on.get("dataset")):
        counts = [
            plural(trained_on[name], noun)
            for name, noun in (("characters", "character"), ("documents", "document"))
            if isinstance(trained_on.get(name), int)
        ]
        of = f": {' in '.join(counts)}" if counts else ""
        what = f", {PYTHON_LIBRARY}" if dataset == "python" else ""
        paragraphs.append(f"Trained on {_code(dataset)}{what}{of}.")
    for found in _hub_datasets(trained_on):
        license = _text(found.get("license"))
        text = f"Dataset: [{found['id']}]({_HUB}/datasets/{found['id']})"
        paragraphs.append(text + (f", license {_code(license)}." if license else "."))
    if base := _hub_id(trained_on.get("base_model")):
        paragraphs.append(f"Fine-tuned from [{base}]({_HUB}/{base}).")
    elif base := _text(trained_on.get("init_from")):
        paragraphs.append(f"Fine-tuned from {_code(base)}.")
    return paragraphs


def _usage(name: str, facts: dict[str, Any]) -> str:
    lines = ["import lm", "", f"model = {_load(name)}"]
    if _is_backward(facts):
        lines.append("print(model.generate(max_new_tokens=400)[0].text)")
    else:
        lines += [
            "for piece in model.stream(max_new_tokens=400):",
            '    print(piece.text, end="", flush=True)',
        ]
    parts = ["## Use", _block("bash", "pip install recurrent-lm"), _block("python", "\n".join(lines))]
    if "auto_map" in facts:  # written by save(remote_code=True)
        lines = [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f"tokenizer = AutoTokenizer{_from_pretrained(name)}",
            f"model = AutoModelForCausalLM{_from_pretrained(name)}",
        ]
        parts += ["With transformers, and without lm:", _block("python", "\n".join(lines))]
    return "\n\n".join(parts)


def _results(facts: dict[str, Any]) -> list[str]:
    found = {split: _metrics(facts, split) for split in ("validation", "test")}
    found = {split: metrics for split, metrics in found.items() if metrics}
    if not found:
        return []
    rows = [f"| metric | {' | '.join(found)} |", "|---" * (1 + len(found)) + "|"]
    for metric, (label, digits) in _METRICS.items():
        if any(metric in metrics for metrics in found.values()):
            cells = [
                f"{metrics[metric]:.{digits}f}" if metric in metrics else "" for metrics in found.values()
            ]
            rows.append(f"| {label} | {' | '.join(cells)} |")
    unknown = [_number(_section(facts, split).get("unknown_fraction")) or 0.0 for split in found]
    if any(unknown):
        rows.append(f"| tokens that are `<unk>` | {' | '.join(f'{value:.2%}' for value in unknown)} |")
    table, note = "\n".join(rows), "The weights are those with the lowest validation loss during training."
    return [f"## Results\n\n{table}\n\n{note}"]


def _limitations(facts: dict[str, Any]) -> str:
    model, kind = facts["model"], facts["tokenizer"]
    numbers = model["layers"] * model["hidden_size"] * len(CELLS[model["cell"]].states)
    items = [
        "The model continues text in the style of its training data. It follows no instructions, and what it"
        " states may be false.",
        "It may repeat passages of its training data verbatim, including what is offensive or private there.",
        f"It remembers a text as {numbers:,} numbers, its recurrent state, and forgets details of long ones.",
    ]
    if kind in ("char", "word"):
        what = "Characters" if kind == "char" else "Words"
        items.append(f"{what} that are not in its vocabulary become `<unk>`.")
    return "## Limitations\n\n" + "\n".join(f"- {item}" for item in items)


def _training_command(trained_on: dict[str, Any]) -> list[str]:
    settings = trained_on.get("settings")
    if not isinstance(settings, dict) or not settings:
        return []
    known = {name: value for name, value in settings.items() if isinstance(name, str) and name.isidentifier()}
    _, *others = _list(known.get("dataset")) or [None]
    too_many = bool(others) and _MORE.fullmatch(str(others[-1])) is not None
    if too_many:
        known["dataset"] = ["FILES"]
    command = printable(shlex.join(["lm", "train", *arguments(known)]))
    text = f"## Training\n\n{_block('bash', command)}"
    if too_many:
        text += "\n\nReplace `FILES` with the names of all files, including those that are not listed above."
    if "max_time" in known or not {"steps", "epochs"} & known.keys():
        text += "\n\nThe budget is a time: how many steps it allows depends on the machine."
    if extended := [step for step in _list(trained_on.get("extended_at_steps")) if isinstance(step, int)]:
        steps = ", ".join(f"{step:,}" for step in extended)
        text += (
            f"\n\nThe run had another budget until step {steps}, and with it other learning rates: the"
            " command trains a similar model, not the same one."
        )
    return [text]


def _weights(model: dict[str, Any]) -> str:
    cell, layers, hidden, tied = model["cell"], model["layers"], model["hidden_size"], model["tie"]
    residual, projected = model["residual"] and layers > 1, tied and model["embedding_size"] != hidden
    module, gates = f"nn.{cell.upper()}", ", ".join(CELLS[cell].gates)
    sentences = [
        "`model.safetensors` has the names and shapes of torch's modules:",
        f"`embedding.*` those of `nn.Embedding`, `recurrent.*` those of `{module}` with"
        f" {plural(layers, 'layer')}, `decoder.*` those of `nn.Linear`.",
    ]
    if len(CELLS[cell].gates) > 1:
        sentences.append(f"The gates are in torch's order: {gates}.")
    if tied:
        sentences.append("The decoder shares its weight with the embedding.")
    if projected:
        sentences.append("`projection` maps the hidden states to the size of the embedding.")
    if residual:
        sentences.append(
            f"But `{module}` has no residual connections: here, the input of every layer except the first is"
            " added to its output."
        )
    if model["direction"] == "backward":
        sentences.append("The tokens of a text are read from the last to the first.")
    sentences.append("Every text begins with the `start_token_id` of `config.json`.")
    sentences.append("Dropout applies only to training.")
    lines = [
        "import torch",
        "from safetensors.torch import load_file",
        "from torch import nn",
        "from torch.nn import functional as F",
        "",
        'weights = {name: weight.float() for name, weight in load_file("model.safetensors").items()}',
        "",
        "",
        "@torch.no_grad()",
        "def logits(tokens):",
        '    """tokens (time,) int64 -> logits (time, vocabulary) of the token after each"""',
        '    x = F.embedding(tokens, weights["embedding.weight"])',
        f"    for k in range({layers}):",
        f"        layer = {module}(x.shape[-1], {hidden})",
        '        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")',
        '        layer.load_state_dict({f"{name}_l0": weights[f"recurrent.{name}_l{k}"] for name in names})',
        "        output, _ = layer(x)",
        "        x = x + output if k > 0 else output" if residual else "        x = output",
        *(['    x = F.linear(x, weights["projection.weight"])'] if projected else []),
        f'    return F.linear(x, weights["{"embedding" if tied else "decoder"}.weight"],'
        ' weights["decoder.bias"])',
    ]
    text, code = " ".join(sentences), _block("python", "\n".join(lines))
    return f"## Weights\n\n{text}\n\n{code}"


def _title(name: str) -> str:
    return "\n# " + re.sub(r"([\\`*_\[\]<>&#|~])", r"\\\1", _short(name)) + "\n"


def _load(name: str) -> str:
    return f"lm.load({_string(name)})"


def _from_pretrained(name: str) -> str:
    return f".from_pretrained({_string(name)}, trust_remote_code=True)"


def _index_entry(name: str) -> str:
    return "\n" + yaml_dump([{"name": _short(name)}])


def _string(text: str) -> str:
    """`text` as a string of Python."""
    return json.dumps(text, ensure_ascii=False) if text.isprintable() else repr(text)


def _short(name: str) -> str:
    """The name of a Hub model without its owner, on one line."""
    return one_line(name).split("/")[-1]


def _metrics(facts: dict[str, Any], split: str) -> dict[str, float]:
    """The finite results on a split."""
    found = _section(facts, split)
    values = {metric: _number(found.get(metric)) for metric in _METRICS}
    return {metric: value for metric, value in values.items() if value is not None}


def _number(value: Any) -> float | None:
    """A finite number, None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None


def _hub_datasets(trained_on: dict[str, Any]) -> list[dict[str, Any]]:
    found = _list(trained_on.get("hub_datasets"))
    return [dataset for dataset in found if isinstance(dataset, dict) and _hub_id(dataset.get("id"))]


def _hub_id(value: Any) -> str | None:
    return value if isinstance(value, str) and HUB_ID.fullmatch(value) else None


def _is_backward(facts: dict[str, Any]) -> bool:
    return Direction(facts["model"]["direction"]) is Direction.BACKWARD


def _section(facts: dict[str, Any], name: str) -> dict[str, Any]:
    value = facts.get(name)
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    return (one_line(value) or None) if isinstance(value, str) else None


def _shown(value: Any) -> str:
    return one_line(repr(value), 60)


def _code(text: str) -> str:
    """`text` as inline code, whatever it contains."""
    fence = _fence(text, 1)
    space = " " if "`" in text or text != text.strip() else ""
    return f"{fence}{space}{text}{space}{fence}"


def _block(language: str, code: str) -> str:
    """A block of code, whatever it contains."""
    fence = _fence(code, 3)
    return f"{fence}{language}\n{code}\n{fence}"


def _fence(text: str, least: int) -> str:
    """More backticks than there are in a row in `text`."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    return "`" * max(least, longest + 1)
