"""Errors that the user can fix. Their message is one line: what is wrong, where, and what to do."""


class UserError(Exception):
    """Invalid input. Scripts print its message to standard error and exit with 2."""


class DataError(UserError):
    """Text that does not exist or cannot be read."""


class ModelError(UserError):
    """A saved model or a run that is missing, damaged or incompatible."""


def one_line(error: BaseException | str, limit: int = 200) -> str:
    """The message of `error` on one line of at most `limit` characters, to quote in a UserError.

    Control characters become U+FFFD. An exception without a message is quoted by its name.
    """
    text = " ".join(str(error).split())
    if not text and isinstance(error, BaseException):
        text = type(error).__name__
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
