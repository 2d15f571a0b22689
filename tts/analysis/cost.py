"""What a run costs: tokens decoded, prefilled, scored and spared by a cache, and the FLOPs of policy and PRM.

There are two ways to count: measured() reads the engines' own counters; independent() and searched() compute from
stored results what the work needs at least, every token of the tree once, which is the same with every engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from tts.analysis.curves import pass_at_k
from tts.errors import InputError
from tts.models.flops import NO_MODEL, Size
from tts.tree import Search


@dataclass(frozen=True)
class Usage:
    """Tokens and FLOPs of some work; sums and differences are taken number by number."""

    decoded: int = 0  # sampled by the policy, those of dropped branches too
    prefilled: int = 0  # of prompts and prefixes that the policy had to read
    scored: int = 0  # read by the PRM
    cached: int = 0  # that policy and PRM did not read again, because a cache held them
    policy_flops: int = 0
    prm_flops: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def __sub__(self, other: Usage) -> Usage:
        return Usage(*(a - b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def __str__(self) -> str:
        return (
            f"{self.decoded:,} tokens decoded, {self.prefilled:,} prefilled, {self.scored:,} scored, "
            f"{self.cached:,} from caches; FLOPs: policy {self.policy_flops:.2e}, PRM {self.prm_flops:.2e}"
        )

    def to_dict(self) -> dict[str, int]:
        """As plain JSON data; Usage(**record) is the inverse."""
        return asdict(self)


def size_of(engine: object) -> Size | None:
    """The size of a policy's or scorer's model; None where FLOPs aren't known: see Checkpoint.size."""
    return getattr(getattr(engine, "checkpoint", engine), "size", None)  # a scripted one has none


def measured(policy: object = None, prm: object = None) -> Usage:
    """What the engines of a policy and a scorer have counted since they were opened; subtract to get one run's part.

    A policy or scorer without counters, such as a scripted one, counts as nothing.
    """
    decoding, scoring = (getattr(engine, "counts", {}) for engine in (policy, prm))
    policy_flops = prm_flops = 0
    if decoding and (size := size_of(policy)):
        tokens = decoding["decoded"] + decoding["prefilled"]
        policy_flops = size.total(tokens, decoding["attended"], decoding["decoded"])
    if scoring and (size := size_of(prm)):
        prm_flops = size.total(scoring["scored"], scoring["attended"], 0)
    return Usage(
        decoded=decoding.get("decoded", 0),
        prefilled=decoding.get("prefilled", 0),
        scored=scoring.get("scored", 0),
        cached=decoding.get("cached", 0) + scoring.get("cached", 0),
        policy_flops=policy_flops,
        prm_flops=prm_flops,
    )


def independent(prompt: int, tokens: Sequence[int], *, policy: Size, prm: Size | None = None) -> Usage:
    """What N independent solutions need: the prompt once by either model, each solution decoded and, with a PRM, read.

    prompt and tokens are lengths in the policy's tokens, which stand for the PRM's too; its template is left out.
    """
    decode = sum(policy.flops(n, prompt, logits=n) for n in tokens)
    return Usage(
        decoded=sum(tokens),
        prefilled=prompt,
        scored=prompt + sum(tokens) if prm not in (None, NO_MODEL) else 0,
        policy_flops=policy.flops(prompt) + decode,
        prm_flops=prm.flops(prompt) + sum(prm.flops(n, prompt) for n in tokens) if prm else 0,
    )


def searched(prompt: int, search: Search, *, policy: Size, prm: Size, once: bool = True) -> Usage:
    """What a search needs: the prompt once by either model, each step of the tree decoded once and scored once.

    Equal steps after equal steps are scored once, or with once=False as often as they were drawn. The tokens of
    a lookahead count too, each as if it saw the prompt alone. Lengths are in the policy's tokens, which stand for the
    PRM's too; its template is left out.
    """
    before: dict[tuple[int, ...], int] = {}  # node -> tokens up to its end, the prompt's included
    texts: dict[tuple[int, ...], tuple[str, ...]] = {}
    decode = read = drawn = scored = new = 0
    seen = set()
    for node in search.nodes:  # by path: a parent comes before its children
        past = before.get(node.path[:-1], prompt)
        before[node.path] = past + node.tokens
        texts[node.path] = (*texts.get(node.path[:-1], ()), node.text.strip())
        drawn += node.tokens
        decode += policy.flops(node.tokens, past, logits=node.tokens)
        if node.score is not None and node.text.strip():
            is_new = texts[node.path] not in seen
            seen.add(texts[node.path])
            new += node.tokens * is_new
            if is_new or not once:
                scored += node.tokens
                read += prm.flops(node.tokens, past)
    ahead = search.generated - drawn
    ahead_scored = search.scored - new if ahead else 0
    return Usage(
        decoded=search.generated,
        prefilled=prompt,
        scored=prompt + scored + ahead_scored if prm != NO_MODEL else 0,
        policy_flops=policy.flops(prompt) + decode + policy.total(ahead, ahead * prompt, ahead),
        prm_flops=prm.flops(prompt) + read + prm.total(ahead_scored, ahead_scored * prompt, 0),
    )


def mean_flops(
    searches: Sequence[Search | None], prompts: Mapping[str, int], *, policy: Size, prm: Size, once: bool = True
) -> float:
    """Mean FLOPs of one search a problem, policy and PRM together, as searched() counts them; a failed one costs 0."""
    used = [searched(prompts[one.problem], one, policy=policy, prm=prm, once=once) for one in searches if one]
    return sum(one.policy_flops + one.prm_flops for one in used) / len(searches)


def by_budget(
    samples: pd.DataFrame, prompts: Mapping[str, int], ns: Sequence[int], *, policy: Size, prm: Size
) -> pd.DataFrame:
    """FLOPs a problem of N independent solutions, means over problems: one row for each of ns.

    samples: columns problem, text, tokens; prompts: problem -> length in tokens. The columns: decoding, to write N
    solutions; reading, to score the different texts among them once; reading_all, to score each of the N. The prompt is
    read once by either model.
    """
    return by_problem(samples, prompts, ns, policy=policy, prm=prm).groupby(level="n").mean()


def by_problem(
    samples: pd.DataFrame, prompts: Mapping[str, int], ns: Sequence[int], *, policy: Size, prm: Size
) -> pd.DataFrame:
    """The same for each problem: rows (problem, n), the problems in the order of samples."""
    tables = {}
    for problem, rows in samples.groupby("problem", sort=False):
        prompt, lengths = prompts[problem], rows.tokens.astype(int)
        share = np.array(ns) / len(rows)
        written = sum(policy.flops(n, prompt, logits=n) for n in lengths)
        different = lengths.groupby(rows.text).first()
        is_among = pass_at_k(rows.text.to_numpy() == different.index.to_numpy()[:, None], ns)  # (texts, len(ns))
        once = np.array([prm.flops(n, prompt) for n in different]) @ is_among
        every = share * sum(prm.flops(n, prompt) for n in lengths)
        columns = {
            "decoding": policy.flops(prompt) + share * written,
            "reading": prm.flops(prompt) + once,
            "reading_all": prm.flops(prompt) + every,
        }
        tables[problem] = pd.DataFrame(columns, index=pd.Index(ns, name="n"))
    return pd.concat(tables, names=["problem"])


def at_cost(values: np.ndarray, costs: Sequence[float], cost: float) -> np.ndarray:
    """Accuracy of each problem at a cost between two points of a curve, (P, points) -> (P,): linear in log cost.

    costs: of the points, rising, such as mean FLOPs. Beyond the last point it is that point's accuracy, as if nothing
    were done with the rest; below the first one NaN, since nothing so cheap was run.
    """
    values, logs = np.asarray(values, float), np.log(np.asarray(costs, float))
    if len(logs) != values.shape[1] or (np.diff(logs) <= 0).any():
        raise InputError(f"costs {list(costs)}: give one for each of {values.shape[1]} points, rising")
    if np.log(cost) < logs[0] - 1e-9:
        return np.full(len(values), np.nan)
    place = np.interp(np.log(cost), logs, np.arange(len(logs)))
    low = min(int(place), len(logs) - 1)
    high = min(low + 1, len(logs) - 1)
    return values[:, low] + (place - low) * (values[:, high] - values[:, low])


def of_samples(samples: pd.DataFrame, policy: object, prm: object) -> str:
    """What independent samples of all problems and their scores need, in words: tokens and, where known, FLOPs.

    samples: columns problem, tokens, prompt_tokens (tts.results.collect.sample); each solution is read once by the PRM.
    """
    made = samples.dropna(subset=["tokens"]).astype({"tokens": int, "prompt_tokens": int})
    sizes = {"policy": size_of(policy), "prm": size_of(prm)}
    if unknown := [model.name for model, size in zip((policy, prm), sizes.values(), strict=True) if not size]:
        return f"{made.tokens.sum():,} tokens decoded; FLOPs are not known for {' and '.join(unknown)}"
    of_problems = [
        independent(int(one.prompt_tokens.iloc[0]), one.tokens.tolist(), **sizes) for _, one in made.groupby("problem")
    ]
    return str(sum(of_problems, Usage()))
