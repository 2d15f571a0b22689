"""The errors a user meets, and the check of whole-number settings that many functions share."""

from numbers import Integral


class InputError(ValueError):
    """A parameter or a file is wrong. The message is one line: what it is, what was wrong, what to do."""


class EngineError(RuntimeError):
    """An engine failed while serving a request; the caller may try again."""


class ContextExceeded(EngineError):
    """A solution is longer than the scorer's context: it has no score, and trying again changes nothing."""


def first_line(error: Exception) -> str:
    """The first line of an error's message; the name of its type where it has none."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def check_counts(least: int = 1, **counts: int) -> None:
    """Raise InputError unless each of counts (name=value) is a whole number of at least `least`."""
    for name, value in counts.items():
        if not isinstance(value, Integral) or value < least:
            raise InputError(f"{name} is {value!r}: it must be a whole number, {least} or more")
