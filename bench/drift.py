"""How far a verifier's scores and votes move when its weights have 8 bits, as where its own do not fit on a GPU.

The policy's solutions are read from the store, drawn where they are missing, and scored in several precisions, the
first of which the others are compared with. On a GPU vLLM scores them, as a run does. vLLM 0.32 does not get its 8 bits
going on a CPU, so there transformers' model computes with numbers that are rounded as vLLM rounds them: to
float8_e4m3fn, weights with one scale a matrix (queries, keys and values are one, as are the MLP's gate and its
neighbour), and the inputs of these matrices with one a token, which GPUs since Ada do; older ones take them in 16 bits.
Embeddings and heads stay.

TTS_BENCH_PROFILE (default) names the profile whose policy, verifier, problems and settings of sampling are taken;
TTS_BENCH_PROBLEMS (50) and the first of TTS_BENCH_N (16) say how many problems and how many solutions of each.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tts.analysis.grading import by_problem, gold_keys, grade
from tts.companion.parameters import MACHINE, load_profile, store_folder
from tts.models.checkpoint import LONGEST_PRM, Checkpoint, open_checkpoint
from tts.models.formats import Layout, find_format
from tts.models.heads import load_head
from tts.models.open import has_gpu, open_policy, open_prm
from tts.models.reading import Reader, Row
from tts.models.scoring import ModelScorer
from tts.policy import Sampling
from tts.problems import Problem, load_problems
from tts.reductions import reduce_scores
from tts.results import collect
from tts.results.store import Store
from tts.voting import weighted

if TYPE_CHECKING:
    from torch import Tensor, nn

ON_GPU = {"as it is": {}, "8 bits": {"quantization": "fp8"}}
ON_CPU = {
    "32 bits": {},
    "16 bits": {"dtype": "bfloat16"},
    "8 bits, weights alone": {"dtype": "bfloat16", "scale_of": "matrix"},
    "8 bits": {"dtype": "bfloat16", "scale_of": "matrix", "inputs": True},
    "8 bits, a scale a row": {"dtype": "bfloat16", "scale_of": "row", "inputs": True},
}
LARGEST = 448  # of float8_e4m3fn
ONE_MATRIX = {"q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "gate_proj": "gate_up", "up_proj": "gate_up"}
ROW = "{:22} {:>8} {:>8} {:>8} {:>8} {:>11} {:>9}"


def main() -> None:
    """Print one table."""
    profile = os.environ.get("TTS_BENCH_PROFILE") or "default"
    count = int(os.environ.get("TTS_BENCH_PROBLEMS") or "50")
    n = int((os.environ.get("TTS_BENCH_N") or "16").split(",")[0])
    given = MACHINE | load_profile("default") | load_profile(profile)
    problems = load_problems(given["problems"], n=count)
    tables = asyncio.run(score_all(given, problems, n))
    print(f"{given['prm_model']}: {len(problems)} problems, {n} solutions of {given['policy_model']} each")
    print(ROW.format("precision", "steps", "mean", "99 %", "largest", "other votes", "accuracy"))
    for name, cells in compare(tables, problems, given["reduction"]).items():
        print(ROW.format(name, *cells))


async def score_all(given: Mapping, problems: Sequence[Problem], n: int) -> dict[str, pd.DataFrame]:
    """The solutions, graded and scored: a table for each precision."""
    sampling = Sampling(given["temperature"], given["top_p"], given["max_tokens"], given["seed"])
    policy = open_policy(given["policy_model"], engine=given["engine"], system_prompt=given["system_prompt"])
    limits, store = {"concurrency": given["concurrency"]}, Store(store_folder(given["store"]))
    drawn = grade(await collect.sample(problems, policy, store, n=n, sampling=sampling, **limits), problems)
    await policy.close()
    tables = {}
    with tempfile.TemporaryDirectory() as scratch:
        for i, (name, prm) in enumerate(scorers(given["prm_model"], problems)):
            tables[name] = await collect.score(problems, drawn, prm, Store(f"{scratch}/{i}"), **limits)
            await prm.close()
    return tables


def scorers(model: str, problems: Sequence[Problem]) -> Iterator[tuple[str, ModelScorer]]:
    """The verifier in each precision; only one of them is loaded at a time."""
    if has_gpu():
        for name, settings in ON_GPU.items():
            yield name, open_prm(model, engine="vllm", problems=problems, **settings)
    else:
        checkpoint = open_checkpoint(model, parameter="prm_model", longest=LONGEST_PRM, chat=False)
        for name, settings in ON_CPU.items():
            yield name, Rounded(checkpoint, **settings)


class Rounded(ModelScorer):
    """A verifier on transformers, one solution at a time, whose layers compute with numbers of 8 bits.

    scale_of: "matrix" or "row" of the weights; "" to leave them. inputs: whether the layers' inputs are rounded too.
    """

    engine = "transformers"

    def __init__(
        self, checkpoint: Checkpoint, *, dtype: str = "float32", scale_of: str = "", inputs: bool = False
    ) -> None:
        prm_format = find_format(checkpoint)
        super().__init__(checkpoint, prm_format, provenance={"dtype": dtype})
        head = load_head(checkpoint, prm_format, dtype=dtype, check_policy=False)
        if scale_of:
            round_layers(head.model, scale_of=scale_of, inputs=inputs)
        self._reader = Reader(head, head.device)

    @property
    def progress(self) -> object:
        """See ModelScorer.progress."""
        return self.counts["scored"]

    async def compute(self, layout: Layout, first: int, shared: int) -> list[float]:
        """See ModelScorer.compute."""
        self.count(len(layout.ids), 0)
        [(scores, _)] = self._reader.read([Row(layout.ids, None, tuple(layout.positions[first:]), keep=False)])
        return scores

    async def close(self) -> None:
        """There is nothing to close."""


def round_layers(model: nn.Module, *, scale_of: str, inputs: bool) -> None:
    """Round the weights of the layers' matrices in place, as vLLM does when it loads them; see Rounded."""
    from torch import cat, nn, no_grad

    matrices: dict[tuple[str, str], list[nn.Linear]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and "layers." in name:
            parent, _, leaf = name.rpartition(".")
            matrices.setdefault((parent, ONE_MATRIX.get(leaf, leaf)), []).append(module)
            if inputs:
                module.register_forward_pre_hook(lambda _, given: (rounded(given[0], dim=-1), *given[1:]))
    with no_grad():
        for parts in matrices.values():
            weights = rounded(cat([part.weight for part in parts]), dim=-1 if scale_of == "row" else None)
            for part, new in zip(parts, weights.split([len(part.weight) for part in parts]), strict=True):
                part.weight.copy_(new)


def rounded(numbers: Tensor, *, dim: int | None) -> Tensor:
    """To the nearest that 8 bits and a scale can say: one scale along dim, or one for all of them."""
    import torch

    exact = numbers.float()
    largest = exact.abs().amax() if dim is None else exact.abs().amax(dim, keepdim=True)
    scale = (largest / LARGEST).clamp_min(1e-12)
    return ((exact / scale).to(torch.float8_e4m3fn).float() * scale).to(numbers.dtype)


def compare(tables: Mapping[str, pd.DataFrame], problems: Sequence[Problem], reduction: str) -> dict[str, list[str]]:
    """A row for each table: steps scored, how far their scores are from the first table's, and how the votes go.

    "99 %" is the difference that 99 of 100 steps stay below; "other votes" the share of problems whose weighted vote
    has another answer than the first table's.
    """
    gold, rows = gold_keys(problems), {}
    found = {name: (_scores(table), _votes(table, problems, reduction)) for name, table in tables.items()}
    first, first_votes = next(iter(found.values()))
    for name, (scores, votes) in found.items():
        moved = np.abs(scores - first)
        other = np.mean([one != as_it_is for one, as_it_is in zip(votes, first_votes, strict=True)])
        right = np.mean([vote is not None and vote == gold[p.id] for vote, p in zip(votes, problems, strict=True)])
        sizes = [f"{size:.4f}" for size in (moved.mean(), np.quantile(moved, 0.99), moved.max())]
        rows[name] = [f"{len(scores):,}", *sizes, f"{100 * other:.1f} %", f"{100 * right:.1f} %"]
    return rows


def _scores(table: pd.DataFrame) -> np.ndarray:
    """The scores of all steps of all solutions."""
    return np.array([score for one in table.scores for score in one])


def _votes(table: pd.DataFrame, problems: Sequence[Problem], reduction: str) -> list[Hashable | None]:
    """The answer that each problem's weighted vote chooses."""
    keys, scores = by_problem(table, table.key), by_problem(table, table.scores)
    return [weighted(keys[p.id], [reduce_scores(one, reduction) for one in scores[p.id]]) for p in problems]
