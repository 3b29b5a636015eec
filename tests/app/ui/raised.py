"""The messages that the code can raise or warn with, as templates: each value is `{}`."""

import ast
import itertools
from pathlib import Path

ROOT = Path(__file__).parents[3]
ERRORS = {"UserError", "DataError", "EncodingError", "ModelError", "NoColumnError"}
_MOST = 64  # alternatives of one message


def templates_of(*folders):
    """(file, line, template) for each alternative of each message."""
    for folder in folders:
        path = ROOT / folder
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            tree = ast.parse(file.read_text("utf-8"))
            for function, call in _calls(tree):
                if _speaks(call, file) and call.args:
                    for template in _templates(
                        call.args[-1 if isinstance(call.func, ast.Attribute) else 0], function
                    ):
                        yield file.relative_to(ROOT).as_posix(), call.lineno, template


def constants_of(*folders):
    """All strings in the code, one a line."""
    found = []
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        nodes = ast.walk(ast.parse(path.read_text("utf-8")))
        found += [
            node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
    return "\n".join(found)


def _speaks(call, file):
    """Whether an argument of a call is a message."""
    if isinstance(call.func, ast.Attribute):  # a warning, or one in a list
        lists = file.name in ("report.py", "estimate.py")
        return call.func.attr == "warn" or (lists and call.func.attr == "append")
    return getattr(call.func, "id", "") in ERRORS


def _calls(tree):
    """Each call, with the innermost function that contains it."""
    scopes = [(None, tree)]
    while scopes:
        function, node = scopes.pop()
        for child in ast.iter_child_nodes(node):
            inner = child if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) else function
            if isinstance(child, ast.Call):
                yield function, child
            scopes.append((inner, child))


def _templates(node, function, depth=0):
    """The texts that an expression can evaluate to, with `{}` for each value known only at run time."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.FormattedValue):
        found = _templates(node.value, function, depth)
        return found if node.format_spec is None else ["{}"]
    if isinstance(node, ast.JoinedStr):
        return _joined([_templates(part, function, depth) for part in node.values])
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _joined([_templates(side, function, depth) for side in (node.left, node.right)])
    if isinstance(node, ast.IfExp):
        return _templates(node.body, function, depth) + _templates(node.orelse, function, depth)
    if isinstance(node, ast.BoolOp):
        return [text for value in node.values for text in _templates(value, function, depth)]
    if isinstance(node, ast.Name) and function and depth < 3:
        return _of_variable(node.id, function, depth + 1) or ["{}"]
    return ["{}"]


def _of_variable(name, function, depth):
    """The texts that are assigned to a variable, if they contain words."""
    found = []
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and any(getattr(t, "id", "") == name for t in node.targets):
            found += _templates(node.value, function, depth)
        elif isinstance(node, ast.AugAssign) and getattr(node.target, "id", "") == name:
            return []  # it grows
    return list(dict.fromkeys(found)) if found != ["{}"] else []


def _joined(parts):
    texts = ("".join(choice) for choice in itertools.islice(itertools.product(*parts), _MOST))
    return list(dict.fromkeys(texts))
