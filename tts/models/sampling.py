"""What the policies of all engines share (see tts.policy.Policy): everything except the model's forward pass."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from tts.errors import InputError
from tts.models.checkpoint import DATE, Checkpoint
from tts.models.flops import attended
from tts.policy import Completion, Sampling


class ModelPolicy:
    """What all policies share (see tts.policy.Policy); an engine adds generate(), close(), progress."""

    engine: str

    def __init__(self, checkpoint: Checkpoint, *, system_prompt: str, provenance: dict[str, str]) -> None:
        self.checkpoint = checkpoint
        self.name = checkpoint.name
        self.fingerprint = checkpoint.fingerprint
        self.context = checkpoint.context
        self.prompt_settings = {"system_prompt": system_prompt, "date": DATE}
        self.provenance = {"engine": self.engine, **provenance}
        # Tokens so far: decoded ones, and those of prefixes that were prefilled or came from the engine's cache.
        self.counts: Counter[str] = Counter(decoded=0, prefilled=0, cached=0, attended=0)

    @property
    def progress(self) -> object:
        """Something that changes as long as the engine starts, reads or writes (tts.results.collect)."""
        raise NotImplementedError

    def prompt(self, problem: str) -> tuple[int, ...]:
        """See Policy.prompt."""
        return self.checkpoint.prompt(problem, system_prompt=self.prompt_settings["system_prompt"])

    async def sample(self, prefix: Sequence[int], sampling: Sampling, *, stop: str | None = None) -> Completion:
        """See Policy.sample. A full context gives an empty completion with finish "length"."""
        if not prefix:
            raise InputError("prefix is empty: give at least one token id")
        room = min(sampling.max_tokens, self.context - len(prefix))
        if room <= 0:
            return Completion((), "", 0.0, "length")
        ids, logprobs, cached = await self.generate(prefix, replace(sampling, max_tokens=room), stop)
        self.checkpoint.check_numbers(logprobs, self.provenance["dtype"])
        self.counts.update(
            decoded=len(ids),
            prefilled=len(prefix) - cached,
            cached=cached,
            attended=attended(len(prefix) - cached + len(ids), cached),
        )
        kept = ids[:-1] if ids[-1] in self.checkpoint.ends else ids
        if (position := self.checkpoint.stop_position(kept, stop)) is not None:
            return Completion(
                tuple(ids[:position]), self.checkpoint.decode(ids[:position]), math.fsum(logprobs[:position]), "stop"
            )
        finish = "end" if len(kept) < len(ids) else "length"
        return Completion(tuple(kept), self.checkpoint.decode(kept), math.fsum(logprobs), finish)

    async def generate(
        self, prefix: Sequence[int], sampling: Sampling, stop: str | None
    ) -> tuple[Sequence[int], Sequence[float], int]:
        """(ids, the log-probability of each, how many prefix tokens came from a cache).

        At least one id, up to and including the end of the turn. Ids may go on after the stop string: sample() cuts.
        """
        raise NotImplementedError
