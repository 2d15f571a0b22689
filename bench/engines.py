"""Tokens a second of each engine, on whole solutions and on the steps of searches, for models of three sizes.

"whole" draws independent solutions, many of each prompt. "steps" grows trees: each prefix is continued by four requests
of a few tokens, and one of the four is continued next, as beam search does. policy-xs writes real solutions; the larger
models are made up, with random weights, and write until their limit. "arithmetic" is the share of the engine's seconds
that matrix products take: what is left is overhead and, for some part, memory. vLLM runs where it is installed.

All engines use the threads that a run gives them: transformers one for a small model, vLLM its own number.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tts.models.open import open_policy
from tts.models.sampling import ModelPolicy
from tts.models.vllm import vllm_package
from tts.policy import Sampling
from tts.problems import load_problems
from tts.tiny import MODELS

MADE_UP = {"1 M": (128, 5), "30 M": (512, 9)}  # width and layers
TOKENS = {"policy-xs": 64_000, "1 M": 24_000, "30 M": 2_000}  # to draw, about
LENGTH, STEP, DEPTH = 47, 9, 5  # tokens of a solution and of a step, steps
PROMPTS, CHILDREN = 32, 4
ROW = "{:10} {:13} {:>9} {:>6} {:>9} {:>6} {:>11}"


def main() -> None:
    """Print one table; ratios are to the first engine."""
    engines = ["transformers", *(["vllm"] if vllm_package()[0] else [])]
    print(f"tokens a second; {PROMPTS} prompts, solutions of {LENGTH} tokens, steps of {STEP}; ratio to transformers")
    print(ROW.format("model", "engine", "whole", "ratio", "steps", "ratio", "arithmetic"))
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("policy-xs", *MADE_UP):
            model = name if name not in MADE_UP else str(make_up(Path(scratch, name.replace(" ", "")), *MADE_UP[name]))
            first: tuple[float, float] | None = None
            for engine in engines:
                whole, steps, share = asyncio.run(measure(open_policy(model, engine=engine), TOKENS[name]))
                first = first or (whole, steps)
                ratios = (f"{first[0] / whole:.2f}", f"{first[1] / steps:.2f}")
                cells = f"{whole:,.0f}", ratios[0], f"{steps:,.0f}", ratios[1], share
                print(ROW.format(name, engine, *cells), flush=True)


def make_up(folder: Path, width: int, layers: int) -> Path:
    """A random Llama with the tokenizer of the embedded models."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shutil.copytree(MODELS / "policy-xs", folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    torch.manual_seed(0)
    heads = width // 32
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=1,
        bos_token_id=None,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


async def measure(policy: ModelPolicy, tokens: int) -> tuple[float, float, str]:
    """(tokens a second on whole solutions, on steps, the share of matrix products in the former)."""
    prompts = [policy.prompt(problem.text) for problem in load_problems("tiny/dev", n=PROMPTS)]
    await whole(policy, prompts, 1)  # loads the model
    each = max(1, tokens // LENGTH // PROMPTS)
    of_whole = await rate(policy, whole(policy, prompts, each))
    of_steps = await rate(policy, *(grow(policy, prompt, each) for prompt in prompts))
    share = "-"
    if policy.engine == "transformers":
        from torch._C._profiler import _ExperimentalConfig
        from torch.profiler import ProfilerActivity, profile

        began = time.thread_time(), time.process_time()
        with profile(
            activities=[ProfilerActivity.CPU], experimental_config=_ExperimentalConfig(profile_all_threads=True)
        ) as profiled:
            await whole(policy, prompts, max(1, each // 4))
        spent = time.process_time() - began[1] - (time.thread_time() - began[0])  # of the engine's thread
        products = ("aten::mm", "aten::bmm", "aten::addmm", "aten::linear")
        seconds = sum(row.self_cpu_time_total for row in profiled.key_averages() if row.key in products) / 1e6
        share = f"{seconds / spent:.0%}"
    await policy.close()
    return of_whole, of_steps, share


async def rate(policy: ModelPolicy, *work) -> float:
    """Tokens a second while work is done."""
    tokens, began = policy.counts["decoded"], time.perf_counter()
    await asyncio.gather(*work)
    return (policy.counts["decoded"] - tokens) / (time.perf_counter() - began)


async def whole(policy: ModelPolicy, prompts: Sequence[tuple[int, ...]], each: int) -> None:
    """`each` solutions of every prompt."""
    seeds = iter(range(each * len(prompts)))
    requests = [(prompt, Sampling(max_tokens=LENGTH, seed=next(seeds))) for prompt in prompts for _ in range(each)]
    await asyncio.gather(*(policy.sample(*request) for request in requests))


async def grow(policy: ModelPolicy, prompt: tuple[int, ...], each: int) -> None:
    """Trees of one prompt, about `each` leaves in all."""
    prefixes = [prompt] * max(1, each // CHILDREN)
    for depth in range(DEPTH):
        requests = [
            policy.sample(prefix, Sampling(max_tokens=STEP, seed=hash((depth, i, child)) % 2**32), stop="\n\n")
            for i, prefix in enumerate(prefixes)
            for child in range(CHILDREN)
        ]
        drawn = await asyncio.gather(*requests)
        prefixes = [
            prefix + one.token_ids
            for prefix, one in zip(prefixes, drawn[::CHILDREN], strict=True)
            if one.finish != "end" and one.token_ids
        ]
