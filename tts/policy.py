"""What a policy is: something that continues a prefix of token ids.

A policy works on token ids, never on text, because text tokenises differently at the edge where two steps meet
(".\\n\\n" is one Llama token, "." + "\\n\\n" are two): a step is continued from the very tokens that were sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

# Why a completion ended: the model ended its turn, the stop string appeared, or it ran out of tokens or context.
Finish = Literal["end", "stop", "length"]


@dataclass(frozen=True)
class Completion:
    """One continuation of a prefix.

    token_ids  the sampled ids, the end-of-turn token left out; prefix + token_ids is the prefix of the next step
    text       token_ids decoded, with the stop string in it if it appeared
    logprob    sum over all sampled tokens (the end-of-turn token counts) of their natural log-probability under the
               untempered model
    finish     "end", "stop" or "length"; finished means "end", which is not the same as out of tokens
    """

    token_ids: tuple[int, ...]
    text: str
    logprob: float
    finish: Finish


class Policy(Protocol):
    """The one interface that the strategies know; a scripted fake of a dozen lines implements it in the tests."""

    name: str  # what figures and records call it
    fingerprint: str  # of the weights, tokenizer and template: two policies with the same one give the same samples
    context: int  # tokens a prompt and its completion may have together

    def prompt(self, problem: str) -> tuple[int, ...]:
        """The chat prompt of a problem's text as token ids, up to where the assistant begins to speak."""

    async def sample(
        self,
        prefix: Sequence[int],
        *,
        seed: int,
        temperature: float,
        top_p: float = 1.0,
        max_tokens: int,
        stop: str | None = None,
    ) -> Completion:
        """Continue prefix up to stop, the end of the turn, max_tokens or the context, whichever comes first.

        The result depends on the arguments alone, never on what else is running: each request has its own seed.
        temperature 0 is greedy. Raises EngineError when the engine fails.
        """

    async def close(self) -> None:
        """Let go of the engine; the next sample() starts it again."""
