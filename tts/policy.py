r"""What a policy is: something that continues a prefix of token ids.

A policy works on token ids, never on text, because text tokenises differently at the edge between two steps
(".\n\n" is one Llama token, "." + "\n\n" are two): a step is continued from the very tokens that were sampled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Literal, Protocol

from tts.errors import InputError, check_counts

# Why a completion ended: the model ended its turn, the stop string appeared, or it ran out of tokens or context.
Finish = Literal["end", "stop", "length"]


@dataclass(frozen=True)
class Sampling:
    """How text is drawn. Together with the prefix it determines a completion; it is checked when it is made."""

    temperature: float = 0.8  # 0 is greedy
    top_p: float = 1.0  # nucleus: the smallest set of tokens with at least this probability
    max_tokens: int = 2048  # of one solution, over all its steps
    seed: int = 0  # of a run; each request's own seed is hashed from it (tts.seeds)

    def __post_init__(self):
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"temperature is {self.temperature}: it must be 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}: it must be above 0 and at most 1")
        check_counts(max_tokens=self.max_tokens)
        if not isinstance(self.seed, Integral):
            raise InputError(f"seed is {self.seed!r}: it must be a whole number")


@dataclass(frozen=True)
class Completion:
    """One continuation of a prefix."""

    token_ids: tuple[int, ...]  # sampled, without the end-of-turn token: prefix + token_ids is the next step's prefix
    text: str  # token_ids decoded, with the stop string in it if it appeared
    logprob: float  # natural log-probability of all sampled tokens, end of turn included, at temperature 1
    finish: Finish  # finished means "end", which is not the same as out of tokens


class Policy(Protocol):
    """The one interface that the strategies know; a scripted fake of a dozen lines implements it in the tests."""

    name: str  # what figures and records call it
    fingerprint: str  # of weights, tokenizer and template: policies with equal fingerprints give equal samples
    context: int  # tokens a prompt and its completion may have together
    prompt_settings: Mapping[str, str]  # what else determines prompt(): the system prompt and the template's date
    provenance: Mapping[str, str]  # engine, device, dtype, version: recorded with results, no part of their keys

    def prompt(self, problem: str) -> tuple[int, ...]:
        """The chat prompt of a problem's text as token ids, up to where the assistant begins to speak."""

    async def sample(self, prefix: Sequence[int], sampling: Sampling, *, stop: str | None = None) -> Completion:
        """Continue prefix up to stop, the end of the turn, max_tokens or the context, whichever comes first.

        The result depends on the arguments alone, never on what else is running: each request has its own seed.
        Raises EngineError when the engine fails.
        """

    async def close(self) -> None:
        """Let go of the engine; the next sample() starts it again."""
