"""Errors that a person can act on: one line that says what was wrong, where, and what to do."""


class UserError(Exception):
    """A mistake in the input. The scripts print its one line to standard error and exit with 2."""


class DataError(UserError):
    """The text could not be found or read."""


class ModelError(UserError):
    """A saved model or a run is missing, damaged or of another kind."""


def one_line(error: BaseException | str, limit: int = 200) -> str:
    """The message of `error` folded into one line, for quoting inside a UserError."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
