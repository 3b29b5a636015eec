"""What errors of the Hugging Face Hub mean: no access, no such repository or revision, no network."""

from __future__ import annotations

# Has the classes of huggingface_hub.errors, and imports them, with an HTTP client, only when they are used.
from huggingface_hub import utils as errors


def refusal(error: Exception, repository: str, missing: str, revision: str | None = None) -> str | None:
    """One sentence on why the Hub denies access to a `repository` such as "Hub model 'me/hamlet'".

    `missing` if it does not exist or is hidden from the user, and None for other errors.
    """
    if isinstance(error, errors.GatedRepoError):  # a kind of RepositoryNotFoundError
        return (
            f"the {repository} requires you to accept its terms: do that on its page, then run"
            " `hf auth login`."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return (
            f"the {repository} has no revision '{revision}'; its page lists the branches, tags and commits."
        )
    return missing if isinstance(error, errors.RepositoryNotFoundError) else None


def is_network_error(error: BaseException) -> bool:
    """Whether an error comes from the network, so that trying again later may help."""
    # The common base of a client's own errors, whichever client the libraries use.
    client = [base for base in errors.HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"]
    return isinstance(error, (ConnectionError, TimeoutError, *client))
