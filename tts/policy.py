r"""What a policy is: something that continues a prefix of token ids.

A policy works on token ids, never on text, because text tokenises differently at the edge where two steps meet
(".\n\n" is one Llama token, "." + "\n\n" are two): a step is continued from the very tokens that were sampled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tts.errors import InputError

# Why a completion ended: the model ended its turn, the stop string appeared, or it ran out of tokens or context.
Finish = Literal["end", "stop", "length"]

DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")


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
    prompt_settings: Mapping[str, str]  # what else determines prompt(): the system prompt and the template's date
    provenance: Mapping[str, str]  # engine, device, dtype, version: recorded with results, no part of their keys

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


def open_policy(
    model: str,
    *,
    name: str = "",
    engine: str = "auto",
    revision: str = "main",
    system_prompt: str = "",
    dtype: str = "auto",
    max_context: int = 0,
    max_num_seqs: int = 0,
    gpu_memory_utilization: float = 0.9,
) -> Policy:
    """A policy by name, checked but not loaded: the engine starts at the first sample().

    model                   the short name of an embedded model, a directory in the hub's format, or a hub id as
                            "owner/name" or "owner/name@revision"
    name                    what figures and records call it; "" for the model's own name
    engine                  "vllm", "transformers", or "auto": see tts.engines.choose_engine
    revision                of a hub id that names none; pinned to the commit that it is now
    system_prompt           "" for none
    dtype                   "auto" (float32 on a CPU, the weights' own type on a GPU), or one of DTYPES
    max_context             tokens of prompt and completion; 0 for the model's own limit, 4,096 at most
    max_num_seqs            requests decoded at once; 0 for the engine's own number
    gpu_memory_utilization  the share of the GPU's memory that vLLM takes
    Raises InputError for anything wrong with these, before a model is loaded.
    """
    from tts.engines import choose_engine
    from tts.engines.model import open_model

    if dtype not in DTYPES:
        raise InputError(f"dtype={dtype!r} is unknown: choose one of {', '.join(DTYPES)}")
    if not 0 < gpu_memory_utilization <= 1:
        raise InputError(f"gpu_memory_utilization={gpu_memory_utilization}: give a share above 0, at most 1")
    if max_num_seqs < 0:
        raise InputError(f"max_num_seqs={max_num_seqs}: give the number of requests decoded at once, or 0")
    chosen, _ = choose_engine(engine)
    if dtype == "float64" and chosen == "vllm":
        raise InputError("dtype='float64' is for engine='transformers' alone: choose float32, or that engine")
    files = open_model(model, revision=revision, max_context=max_context, name=name)
    if chosen == "vllm":
        from tts.engines.vllm import VllmPolicy

        return VllmPolicy(
            files,
            system_prompt=system_prompt,
            dtype=dtype,
            max_num_seqs=max_num_seqs,
            gpu_memory_utilization=gpu_memory_utilization,
        )
    from tts.engines.transformers import TransformersPolicy

    return TransformersPolicy(files, system_prompt=system_prompt, dtype=dtype, max_num_seqs=max_num_seqs)
