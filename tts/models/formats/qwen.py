"""Qwen2.5-Math-PRM's format: the solution is the assistant's turn of a dialogue, with "<extra_0>" after each step.

A head with two classes reads these tokens; the score is the probability of the second class. The dialogue has the
system prompt that the model was trained with. (The card of Qwen/Qwen2.5-Math-PRM-7B, arXiv 2501.07301.)
"""

from __future__ import annotations

from collections.abc import Sequence

from tts.models.checkpoint import MARKS
from tts.models.formats.layout import Layout
from tts.models.formats.text import Text

SEPARATOR = "<extra_0>"
SYSTEM = r"Please reason step by step, and put your final answer within \boxed{}."


class QwenPRM:
    """For Qwen2ForProcessRewardModel."""

    name = "qwen2.5-math-prm"
    head = "classes"

    def __init__(self, text: Text) -> None:
        self._text = text
        self._separator = text.token(SEPARATOR)
        if self._separator is None:
            raise text.wrong(f"its tokenizer has no token {SEPARATOR}, at which format {self.name} reads the scores")
        problem, solution, _ = MARKS
        first, _, rest = text.conversation([problem, solution], system=SYSTEM).partition(problem)
        middle, found, _ = rest.partition(solution)
        start, ids, self._before = text.cut(first)
        self._first = (*text.encode(start), *ids)
        self._after, self._middle, self._before_steps = text.cut(middle)
        if not found or not self._middle:
            raise text.wrong(f"format {self.name} needs a chat template with special tokens between the turns")

    @staticmethod
    def fits(text: Text) -> bool:
        """The architecture tells."""
        return "Qwen2ForProcessRewardModel" in text.architectures

    def layout(self, problem: str, steps: Sequence[str]) -> Layout:
        """See Format.layout."""
        ids, positions = [*self._first, *self._text.encode(self._before + problem.strip() + self._after)], []
        ids += self._middle
        for i, step in enumerate(steps):
            ids += self._text.encode(step if i else self._before_steps + step)
            ids.append(self._separator)
            positions.append(len(ids) - 1)
        return Layout(tuple(ids), tuple(positions))
