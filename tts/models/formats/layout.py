"""What a format is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from tts.models.formats.text import Text


@dataclass(frozen=True)
class Layout:
    """A problem and some of its steps as tokens."""

    ids: tuple[int, ...]  # up to the last score position
    positions: tuple[int, ...]  # the index in ids at which each step's score is read, ascending


@dataclass(frozen=True)
class TokenHead:
    """The score is the softmax over the logits of two tokens: the probability of the good one."""

    good: int
    bad: int


# The other heads replace the language model's: two classes (the second is "good"), or one value through a sigmoid.
Head = TokenHead | Literal["classes", "value"]


class Format(Protocol):
    """One way to show a process reward model a problem and its steps."""

    name: ClassVar[str]
    head: Head

    def __init__(self, text: Text) -> None:
        """Set up for a model's tokenizer. Raises InputError if it lacks what the format needs."""

    @staticmethod
    def fits(text: Text) -> bool:
        """Whether config and tokenizer belong to a model of this format."""

    def layout(self, problem: str, steps: Sequence[str]) -> Layout:
        """The tokens of at least one step, stripped and none of them blank.

        The layout of the first k steps is a prefix of the layout of all steps.
        """
