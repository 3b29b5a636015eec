"""Words that several messages and pages need."""

PYTHON_LIBRARY = "the source code of Python's standard library"  # what `--dataset python` is


def plural(count: int, noun: str) -> str:
    """'1 layer', '2 layers'."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
