"""Math-Shepherd's format: a problem, a space, and the steps, one a line, each with the tag " ки" at its end.

The score of step k is the probability of "+" against "-" as the token after its tag. The text itself goes on without
this token. (arXiv 2312.08935 and the card of peiyi9979/math-shepherd-mistral-7b-prm.)
"""

from __future__ import annotations

from collections.abc import Sequence

from tts.models.formats.layout import Layout, TokenHead
from tts.models.formats.text import Text

TAG = " ки"
ANSWERS = "+ -"  # as on the model's card: SentencePiece puts a space before each


class MathShepherd:
    """For a causal language model whose tokenizer has the tag as one token."""

    name = "math-shepherd"

    def __init__(self, text: Text) -> None:
        self._text = text
        self._tag = _tag(text)
        answers = text.encode(ANSWERS)
        if self._tag is None or len(answers) != 2:
            raise text.wrong(f"its tokenizer has no single tokens for {TAG!r} and {ANSWERS!r}")
        self.head = TokenHead(*answers)

    @staticmethod
    def fits(text: Text) -> bool:
        """The tag is one token, and the model has no chat template or is a Mistral."""
        if not text.is_causal or _tag(text) is None:
            return False
        return "MistralForCausalLM" in text.architectures or not text.has_template

    def layout(self, problem: str, steps: Sequence[str]) -> Layout:
        """See Format.layout. The text is encoded at once, because SentencePiece encodes its first word differently."""
        whole, tag_ends = problem.strip(), []
        for i, step in enumerate(steps):
            whole += ("\n" if i else " ") + step + TAG
            tag_ends.append(len(whole))
        ids, token_ends = self._text.encode_whole(whole)
        at = {end: position for position, end in enumerate(token_ends)}
        positions = tuple(at.get(end, -1) for end in tag_ends)
        if any(ids[position] != self._tag for position in positions):
            raise self._text.wrong(f"its tokenizer joins the tag {TAG!r} to the text around it")
        return Layout(ids[: positions[-1] + 1], positions)


def _tag(text: Text) -> int | None:
    """The tag's token after a word; None if it isn't a single token."""
    bare, tagged = text.encode("1"), text.encode("1" + TAG)
    return tagged[-1] if tagged[:-1] == bare and len(tagged) == len(bare) + 1 else None
