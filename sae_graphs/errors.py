"""The errors that a user can cause.

Each message is one line: what was given, what was expected, what to do.
"""

from collections.abc import Iterable

STOPPED = 130  # exit status after Ctrl-C


class SaeGraphsError(Exception):
    """A user's mistake: the message is one line and complete; the command line exits with 2."""


class UnknownFeatureError(SaeGraphsError):
    """A feature that a graph, a layer or a prompt does not hold."""


class GraphFileError(SaeGraphsError):
    """A saved graph that is missing, damaged or of another schema."""


class SAELoadError(SaeGraphsError):
    """SAEs that cannot be loaded, or that do not belong to the model."""


class ModelLoadError(SaeGraphsError):
    """A model or tokenizer that cannot be loaded."""


class HubError(SaeGraphsError):
    """Something that cannot be fetched from the Hugging Face hub."""


class CannotSplitError(SaeGraphsError):
    """The parts of a change cannot be told apart; the message is the reason."""


def quoted(values: Iterable[object], limit: int = 6) -> str:
    """A short, readable list for a message: `a, b, c, ... (12 in all)`."""
    items = [str(value) for value in values]
    shown = ", ".join(items[:limit])
    return shown if len(items) <= limit else f"{shown}, ... ({len(items)} in all)"
