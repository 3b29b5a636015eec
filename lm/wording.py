"""Words of messages that depend on a number."""


def plural(count: int, noun: str) -> str:
    """'1 layer', '2 layers'."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
