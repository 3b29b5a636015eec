"""The model card: the README.md of a model folder, which the Hugging Face Hub displays."""

from __future__ import annotations

from typing import Any

from lm.model.direction import Direction


def model_card(name: str, facts: dict[str, Any]) -> str:
    """The README.md of a model that `lm.load(name)` loads."""
    model, trained_on, validation = facts["model"], facts.get("trained_on"), facts.get("validation")
    backward = Direction(model["direction"]) is Direction.BACKWARD
    lines = [
        "---",
        "library_name: lm",
        "pipeline_tag: text-generation",
        f"tags: [{model['cell']}, recurrent, language-model, {facts['tokenizer']}-level]",
        "---",
        f"# {name.split('/')[-1]}",
        "",
        f"{model['cell'].upper()} language model with {_count(model['layers'], 'layer')} of"
        f" {model['hidden_size']} units: {facts['parameters']:,} parameters, a vocabulary of"
        f" {facts['vocab_size']:,} tokens ({facts['tokenizer']}).",
    ]
    if backward:
        lines += ["", "The model reads right to left: it generates the text before a prompt."]
    if trained_on:
        lines += [
            "",
            f"Trained on `{trained_on['dataset']}`: {_count(trained_on['characters'], 'character')} in"
            f" {_count(trained_on['documents'], 'document')}.",
        ]
    if validation:
        lines += [
            "",
            "| validation | |",
            "|---|---|",
            f"| loss (nats per token) | {validation['loss']:.4f} |",
            f"| perplexity | {validation['perplexity']:.2f} |",
            f"| bits per character | {validation['bits_per_character']:.4f} |",
            f"| bits per byte | {validation['bits_per_byte']:.4f} |",
        ]
    lines += ["", "```python", "import lm", "", f'model = lm.load("{name}")']
    if backward:
        lines.append("print(model.generate(max_new_tokens=400)[0].text)")
    else:
        lines += [
            "for piece in model.stream(max_new_tokens=400):",
            '    print(piece.text, end="", flush=True)',
        ]
    return "\n".join([*lines, "```", ""])


def _count(number: int, noun: str) -> str:
    """'1 layer', '2 layers'."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
