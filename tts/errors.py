"""The kinds of error a user meets."""


class InputError(ValueError):
    """A parameter or a file is wrong: one line that names it, says what was wrong and what to do."""


class EngineError(RuntimeError):
    """An engine failed while serving a request; the caller may try again."""


class ContextExceeded(EngineError):
    """A solution is longer than the scorer's context: it has no score, and trying again changes nothing."""
