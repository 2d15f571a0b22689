"""What a step scorer is: a process reward model (PRM) that says how likely each step of a solution is to be right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from tts.errors import InputError
from tts.policy import DTYPES


class StepScorer(Protocol):
    """The one interface that the strategies know; a scripted fake implements it in the tests."""

    name: str  # what figures and records call it
    fingerprint: str  # of the weights, tokenizer and format: two scorers with the same one give the same scores
    provenance: Mapping[str, str]  # engine, dtype, version: recorded with results, no part of their keys

    async def score(self, problem: str, steps: Sequence[str], *, known: Sequence[float] = ()) -> list[float]:
        """One score in [0, 1] for each step, given the problem and all earlier steps.

        known holds the scores of the first len(known) steps, from an earlier call: they come back as given and only the
        rest is computed. White space at a step's ends means nothing; a step of white space alone has the score of the
        step before it. Raises EngineError when the engine fails, and of these ContextExceeded where the solution is
        longer than the scorer's context.
        """

    async def close(self) -> None:
        """Let go of the model; the next score() loads it again."""


def open_prm(
    model: str,
    *,
    name: str = "",
    format: str = "auto",  # noqa: A002 - the field's word, and nothing in here formats
    engine: str = "auto",
    revision: str = "main",
    dtype: str = "auto",
    max_context: int = 0,
    batch_tokens: int = 0,
    prefix_cache: bool = True,
    gpu_memory_utilization: float = 0.45,
) -> StepScorer:
    """A step scorer by name, checked but not loaded: the engine starts at the first score().

    model         the short name of an embedded model, a directory in the hub's format, or a hub id as "owner/name" or
                  "owner/name@revision"
    name          what figures and records call it; "" for the model's own name
    format        how it reads steps: a name in tts.formats.FORMATS, or "auto" to find it from config and tokenizer (and
                  to refuse, at the first score, a model that answers like a plain policy)
    engine        "vllm", "transformers", or "auto": transformers for a small model (64 MiB), for which the
                  bench has it ahead, and for formats that vLLM can't read; else see tts.engines.choose_engine
    revision      of a hub id that names none; pinned to the commit that it is now
    dtype         "auto" (float32 on a CPU, the weights' own type on a GPU), or one of tts.policy.DTYPES
    max_context   tokens of problem and solution; 0 for the model's own limit, 4,096 at most
    batch_tokens  tokens of a batch with its padding (transformers); 0 for the engine's own number
    prefix_cache  keep what was computed for partial solutions, so that the next step costs its own tokens only
    gpu_memory_utilization  the share of the GPU's memory that vLLM takes; the policy's vLLM takes its own beside it
    Raises InputError for anything wrong with these, before a model is loaded.
    """
    from tts.engines import choose_engine
    from tts.engines.model import open_model
    from tts.formats import TokenHead, find_format

    if dtype not in DTYPES:
        raise InputError(f"dtype={dtype!r} is unknown: choose one of {', '.join(DTYPES)}")
    if batch_tokens < 0:
        raise InputError(f"batch_tokens={batch_tokens}: give the number of tokens of a batch, or 0")
    if not 0 < gpu_memory_utilization <= 1:
        raise InputError(f"gpu_memory_utilization={gpu_memory_utilization}: give a share above 0, at most 1")
    chosen, _ = choose_engine(engine)
    try:
        files = open_model(model, revision=revision, max_context=max_context, name=name, chat=False)
    except InputError as error:
        raise InputError(str(error).replace("policy_model", "prm_model")) from None
    layout_of = find_format(files, format)
    named = format != "auto" or "prm_format" in files.config  # whoever names it vouches for it
    reads_tokens = isinstance(layout_of.head, TokenHead)
    if engine == "auto" and (files.is_small or not reads_tokens or dtype == "float64"):
        chosen = "transformers"
    if chosen == "vllm":
        from tts.engines.scoring_vllm import VllmScorer
        from tts.engines.vllm import VllmClient

        if not reads_tokens or dtype == "float64":
            what = "dtype='float64'" if reads_tokens else f"format {layout_of.name}"
            raise InputError(f"{what} is for engine='transformers' alone: choose that engine for {files.name}")
        client = VllmClient(
            files,
            dtype=dtype,
            max_num_seqs=0,
            gpu_memory_utilization=gpu_memory_utilization,
            prefix_cache=prefix_cache,
        )
        return VllmScorer(files, layout_of, client=client, check_policy=not named)
    from tts.engines.scoring_transformers import TransformersScorer

    return TransformersScorer(
        files, layout_of, dtype=dtype, batch_tokens=batch_tokens, prefix_cache=prefix_cache, check_policy=not named
    )
