"""The one file with which transformers loads a model without lm: `push_to_hub(..., remote_code=True)`.

It consists of the modules that compute a network, one after another, so that the network has a single
implementation. They import only torch, transformers, Python's library and each other.
"""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

from lm.config.resolved import NetworkConfig

REMOTE_CODE = "modeling_recurrent_lm.py"
# In config.json: where transformers finds its classes.
AUTO_MAP = {
    "AutoConfig": "modeling_recurrent_lm.RecurrentLMConfig",
    "AutoModelForCausalLM": "modeling_recurrent_lm.RecurrentLMForCausalLM",
}
_MODULES = ("cells", "onednn", "cpu_kernels", "layers", "base", "modeling")  # each uses those before it
_HEADER = '''"""A recurrent language model, trained with lm (`pip install recurrent-lm`).

This is all the code that transformers needs to load the model, with `trust_remote_code=True`.
"""

from __future__ import annotations

'''


def remote_code() -> str:
    """The content of REMOTE_CODE."""
    imports = {"from dataclasses": {"dataclass"}}
    bodies = [_settings()]
    for name in _MODULES:
        package = "transformers" if name == "modeling" else "model"
        source = (Path(__file__).parents[1] / package / f"{name}.py").read_text(encoding="utf-8")
        bodies.append(_body(source, imports))
    return _HEADER + _written(imports) + "\n\n\n" + "\n\n\n".join(bodies) + "\n"


def _body(source: str, imports: dict[str, set[str]]) -> str:
    """What follows the imports of a module. Adds those of other packages to `imports`: names by "from x"."""
    tree, end, modules = ast.parse(source), 0, []
    for node in tree.body:
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        end = node.end_lineno or 0
        names = [ast.unparse(alias) for alias in node.names]
        if isinstance(node, ast.Import):
            imports.setdefault("", set()).update(names)
        elif not (node.module or "").startswith(("lm.", "__future__")):
            imports.setdefault(f"from {node.module}", set()).update(names)
        modules += [name for name in names if name in _MODULES]
    body = "\n".join(source.splitlines()[end:]).strip()
    for module in modules:  # "onednn.supports" is "supports" in the same file
        body = re.sub(rf"\b{module}\.(?=\w)", "", body)
    return body


def _written(imports: dict[str, set[str]]) -> str:
    plain = [f"import {name}" for name in sorted(imports[""])]
    others = {start: names for start, names in sorted(imports.items()) if start}
    return "\n".join(
        [*plain, *(f"{start} import {', '.join(sorted(names))}" for start, names in others.items())]
    )


def _settings() -> str:
    """NetworkConfig without what validates and resolves settings."""
    settings = (f"    {f.name}: {f.type} = {f.default!r}" for f in dataclasses.fields(NetworkConfig))
    return "\n".join(["@dataclass(frozen=True)", "class NetworkConfig:", *settings])
