"""Skywork-o1-Open-PRM's format: a problem, a line break, the solution's lines; a value at each line break.

The score of a step is the sigmoid of the value at the line break after its last line. Lines are encoded one by one,
and blank lines are left out. (github.com/SkyworkAI/skywork-o1-prm-inference.)
"""

from __future__ import annotations

from collections.abc import Sequence

from tts.models.formats.layout import Layout
from tts.models.formats.text import Text


class Skywork:
    """For Qwen2ForPrmModel."""

    name = "skywork"
    head = "value"

    def __init__(self, text: Text) -> None:
        self._text = text
        self._start = () if text.start is None else (text.start,)
        self._line_break = text.encode("\n")
        if len(self._line_break) != 1:
            raise text.wrong(
                f"its tokenizer has no single token for a line break, at which format {self.name} reads the scores"
            )

    @staticmethod
    def fits(text: Text) -> bool:
        """The architecture tells."""
        return "Qwen2ForPrmModel" in text.architectures

    def layout(self, problem: str, steps: Sequence[str]) -> Layout:
        """See Format.layout."""
        ids, positions = [*self._start, *self._text.encode(problem.strip() + "\n")], []
        for step in steps:
            for line in filter(str.strip, step.split("\n")):
                ids += self._text.encode(line) + self._line_break
            positions.append(len(ids) - 1)
        return Layout(tuple(ids), tuple(positions))
