"""What searching costs: our schedule against two others, against the floor, and how it grows with N and depth.

- Seconds: beam search (and DVTS once) over the same problems with the same models on three schedules: ours, the
  reference's as published (a), ours in lock-step over all problems (b): see bench._baselines. The policy of (a) is on
  vLLM, the engine that it was published for, where vLLM is installed; so its solutions are other ones than ours.
- Floor: decoding alone plus scoring alone, the very requests of our run with nothing else to wait for, at full batch.
  Its share of our seconds may pass 1, because we decode and score at the same time.
- Tokens: read by the scorer, over those of our tree in its own tokens (the problem once, each distinct step once; below
  1 where it reads once what siblings begin with in common);
  decoded, prefilled and found in its cache by the policy, over those of all steps of our tree. "rest" is the part of
  the prefilled ones that lies behind the last whole block of a prefix, which vLLM's cache can't hold.
- Growth: steps of a forced length until a forced depth, which the engines really decode and score.

Engines are warm and the policy has read the prompts before; every run has a scorer that remembers nothing yet.
TTS_BENCH_PROBLEMS (50), TTS_BENCH_N (4,16,64), TTS_BENCH_POLICY (policy-xs), TTS_BENCH_PRM (prm), TTS_BENCH_ENGINE
(auto) and TTS_BENCH_PUBLISHED (the engine of (a): vllm where it is installed) change what is measured.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench._baselines import lock_step, published
from tts.errors import InputError
from tts.models.open import open_policy, open_prm
from tts.models.sampling import ModelPolicy
from tts.models.scoring import OPENINGS, ModelScorer, common
from tts.models.vllm import vllm_package
from tts.policy import Completion, Policy, Sampling
from tts.prm import StepScorer
from tts.problems import Problem, load_problems
from tts.results import collect
from tts.strategies import beam_search, dvts
from tts.tree import Search, together

STRATEGIES = {"beam_search": beam_search, "dvts": dvts}
AT_ONCE = inspect.signature(collect.search).parameters["concurrency"].default  # problems in flight
BLOCKS = {"cpu": 32, "gpu": 16}  # tokens: vLLM shares the keys and values of prefixes in whole blocks
SEED, WARM_UP_SEED = 0, 1
GROWTH_N, GROWTH_DEPTHS, GROWTH_PROBLEMS = (4, 16, 64, 256), (5, 10, 20), 2
USUAL_N, USUAL_DEPTH = 16, 10  # the one while the other grows
STEP_TOKENS, HOT = 16, 2.0  # few steps end before their length at this temperature

TIMES = "{:12}{:>4} {:>8} {:>8} {:>6} {:>5} {:>8} {:>6} {:>5} {:>8} {:>8} {:>6}"
TOKENS = "{:12}{:>4} {:>8} {:>6} {:>6} {:>16} {:>10} {:>7} {:>7}"
GROWN = "{:12}{:>4} {:>8} {:>8} {:>8}"

# (problems, strategy, policy, prm, n=, sampling=) -> a search for each problem
Schedule = Callable[..., Awaitable[list[Search]]]


def main() -> None:
    """Print the three tables."""
    ns = [_number("TTS_BENCH_N", word) for word in (os.environ.get("TTS_BENCH_N") or "4,16,64").split(",")]
    count = _number("TTS_BENCH_PROBLEMS", os.environ.get("TTS_BENCH_PROBLEMS") or "50")
    asyncio.run(print_all(load_problems("tiny/dev", n=count), ns))


def _number(name: str, word: str) -> int:
    if not word.strip().isdecimal() or int(word) < 1:
        raise InputError(f"{name} has {word.strip()!r}: give whole numbers, 1 or more")
    return int(word)


async def print_all(problems: Sequence[Problem], ns: Sequence[int]) -> None:
    """Measure and print: beam search for each of ns, DVTS for the middle one."""
    model = os.environ.get("TTS_BENCH_POLICY") or "policy-xs"
    policy = open_policy(model, engine=os.environ.get("TTS_BENCH_ENGINE") or "auto")
    scorer = await open_scorer()
    published_engine = os.environ.get("TTS_BENCH_PUBLISHED") or ("vllm" if vllm_package()[0] else "transformers")
    same_engine = published_engine == policy.engine
    other = policy if same_engine else open_policy(model, engine=published_engine)
    for one in {policy, other}:
        await at_once(problems, "beam_search", one, scorer, n=USUAL_N, sampling=Sampling(seed=WARM_UP_SEED))

    engines = ", ".join(f"{engine.name} on {engine.provenance['engine']}" for engine in (policy, scorer))
    print(f"{engines}; (a) on {other.engine}; {len(problems)} problems; seconds a problem, ratios to ours")
    print("same: share of problems with the solutions of ours; floor: (decode + score) / ours")
    columns = ("ours", "(a)", "ratio", "same", "(b)", "ratio", "same", "decode", "score", "floor")
    print(TIMES.format("", "N", *columns), flush=True)
    rows = [("beam_search", n) for n in ns] + [("dvts", ns[len(ns) // 2])]
    measured = [await print_times(problems, strategy, policy, other, n) for strategy, n in rows]

    print("\ntokens, over those of our tree")
    print(TOKENS.format("", "N", "scored", "(a)", "(b)", "policy: decoded", "prefilled", "rest", "cached"))
    for (strategy, n), (rest, ours, *others) in zip(rows, measured, strict=True):
        tree = sum(tree_tokens(scorer, problem.text, search) for problem, search in zip(problems, ours.searches))
        drawn = sum(search.generated for search in ours.searches)
        scored = (f"{run.prm['scored'] / tree:.2f}" for run in (ours, *others))
        decoded, prefilled, cached = (ours.policy[kind] for kind in ("decoded", "prefilled", "cached"))
        read = (f"{tokens / drawn:.2f}" for tokens in (decoded, prefilled, rest, cached))
        print(TOKENS.format(strategy, n, *scored, *read), flush=True)

    few = problems[:GROWTH_PROBLEMS]
    print(f"\ngrowth: beam search over {len(few)} problems, steps of {STEP_TOKENS} tokens")
    print(GROWN.format("", "", "seconds", "decoded", "scored"))
    await print_growth("N", {n: (n, USUAL_DEPTH) for n in GROWTH_N if n <= 4 * max(ns)}, few, policy)
    await print_growth("depth", {depth: (USUAL_N, depth) for depth in GROWTH_DEPTHS}, few, policy)
    await scorer.close()
    await other.close()
    await policy.close()


async def open_scorer(*, prefix_cache: bool = True) -> ModelScorer:
    """A scorer whose model is loaded and which remembers no problem's scores."""
    scorer = open_prm(
        os.environ.get("TTS_BENCH_PRM") or "prm",
        engine=os.environ.get("TTS_BENCH_ENGINE") or "auto",
        prefix_cache=prefix_cache,
    )
    await scorer.score("Warm up", ["1"])
    return scorer


# --- Three schedules and the floor ----------------------------------------------------------------


async def at_once(
    problems: Sequence[Problem], strategy: str, policy: Policy, prm: StepScorer, *, n: int, sampling: Sampling
) -> list[Search]:
    """Our schedule, that of tts.results.collect.search: so many problems in flight, and none waits for another."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(problem: Problem) -> Search:
        async with places:
            return await STRATEGIES[strategy](problem, policy, prm, n=n, sampling=sampling)

    return await together(one(problem) for problem in problems)


@dataclass(frozen=True)
class Run:
    """One strategy over all problems on one schedule."""

    searches: list[Search]
    seconds: float
    policy: Mapping[str, int]  # what was counted meanwhile: see ModelPolicy.counts
    prm: Mapping[str, int]  # and ModelScorer.counts


async def print_times(
    problems: Sequence[Problem], strategy: str, policy: ModelPolicy, other: ModelPolicy, n: int
) -> tuple[int, Run, Run, Run]:
    """Measure the three schedules and the floor, and print the row. other: the policy of (a).

    Returns the tokens of our prefixes behind their last whole blocks, and the runs: ours, (a), (b).
    """
    again = await open_scorer(prefix_cache=False)
    published_run = await timed(published, problems, strategy, other, Afresh(again), n)
    await again.close()

    fresh = await open_scorer()
    lock_step_run = await timed(lock_step, problems, strategy, policy, fresh, n)
    await fresh.close()

    fresh = await open_scorer()
    drawing, scoring = NotedPolicy(policy), NotedScorer(fresh)
    ours = await timed(at_once, problems, strategy, drawing, scoring, n)
    await fresh.close()

    fresh = await open_scorer()
    decode, score = await drawing.replay(), await scoring.replay(fresh)
    await fresh.close()

    cells = [f"{ours.seconds / len(problems):.3f}"]
    for other in (published_run, lock_step_run):
        same = [texts(a) == texts(b) for a, b in zip(ours.searches, other.searches, strict=True)]
        cells += [f"{other.seconds / len(problems):.3f}", f"{other.seconds / ours.seconds:.2f}", f"{np.mean(same):.2f}"]
    cells += [f"{seconds / len(problems):.3f}" for seconds in (decode, score)]
    print(TIMES.format(strategy, n, *cells, f"{(decode + score) / ours.seconds:.2f}"), flush=True)
    return drawing.rest(), ours, published_run, lock_step_run


def texts(search: Search) -> list[str]:
    """The solutions, without numbers that another batch rounds otherwise."""
    return [solution.text for solution in search.solutions]


async def timed(
    schedule: Schedule, problems: Sequence[Problem], strategy: str, policy: ModelPolicy, prm: ModelScorer, n: int
) -> Run:
    """A schedule's searches, with what they cost."""
    before = policy.counts.copy(), prm.counts.copy()
    began = time.perf_counter()
    searches = await schedule(problems, strategy, policy, prm, n=n, sampling=Sampling(seed=SEED))
    seconds = time.perf_counter() - began
    return Run(searches, seconds, *(engine.counts - old for engine, old in zip((policy, prm), before, strict=True)))


class Afresh:
    """A scorer without a memory, as the reference's: every step of every solution is computed in each call."""

    def __init__(self, scorer: ModelScorer) -> None:
        self._scorer, self.counts = scorer, scorer.counts

    async def score(self, problem: str, steps: Sequence[str], *, known: Sequence[float] = ()) -> list[float]:
        """See StepScorer.score; what is known is computed again."""
        layout = self._scorer.format.layout(problem, [step.strip() for step in steps])
        return await self._scorer.compute(layout, 0, 0)


class NotedPolicy:
    """A policy that notes its requests."""

    def __init__(self, policy: ModelPolicy) -> None:
        self._policy, self._requests = policy, []
        self.name, self.context, self.counts, self.prompt = policy.name, policy.context, policy.counts, policy.prompt

    def rest(self) -> int:
        """The tokens of all prefixes behind their last whole blocks, at least one of each; an engine without: all."""
        sizes = [len(prefix) for prefix, *_ in self._requests]
        block = BLOCKS.get(self._policy.provenance.get("device", ""), max(sizes))
        return sum((size - 1) % block + 1 for size in sizes)

    async def sample(self, prefix: Sequence[int], sampling: Sampling, *, stop: str | None = None) -> Completion:
        """See Policy.sample."""
        self._requests.append((prefix, sampling, stop))
        return await self._policy.sample(prefix, sampling, stop=stop)

    async def replay(self) -> float:
        """Seconds that the same requests take at once."""
        began = time.perf_counter()
        await together(self._policy.sample(prefix, sampling, stop=stop) for prefix, sampling, stop in self._requests)
        return time.perf_counter() - began


class NotedScorer:
    """A scorer that notes its requests."""

    def __init__(self, scorer: ModelScorer) -> None:
        self._scorer, self._requests = scorer, []
        self.counts = scorer.counts

    async def score(self, problem: str, steps: Sequence[str], *, known: Sequence[float] = ()) -> list[float]:
        """See StepScorer.score."""
        self._requests.append((problem, list(steps), list(known)))
        return await self._scorer.score(problem, steps, known=known)

    async def replay(self, scorer: ModelScorer) -> float:
        """Seconds that the same requests take another scorer, all first steps at once, then all second ones, ..."""
        began = time.perf_counter()
        for length in sorted({len(steps) for _, steps, _ in self._requests}):
            await together(
                scorer.score(problem, steps, known=known)
                for problem, steps, known in self._requests
                if len(steps) == length
            )
        return time.perf_counter() - began


def tree_tokens(scorer: ModelScorer, problem: str, search: Search) -> int:
    """The scorer's tokens of a tree: the problem once, each distinct step that was scored once, with its template."""

    def layout(steps: Sequence[str]) -> tuple[int, ...]:
        return scorer.format.layout(problem, steps).ids

    first, *others = (layout([step]) for step in OPENINGS)
    begin = min(common(first, other) for other in others)
    shown: dict[tuple[int, ...], tuple[str, ...]] = {}  # node -> its steps; parents come before their children
    for node in search.nodes:
        step = node.text.strip()
        shown[node.path] = (*shown.get(node.path[:-1], ()), *([step] if step else []))
    scored = {shown[node.path] for node in search.nodes if node.score is not None} - {()}
    return begin + sum(len(layout(steps)) - (len(layout(steps[:-1])) if steps[1:] else begin) for steps in scored)


# --- Growth ---------------------------------------------------------------------------------------


class Forced:
    """A policy whose steps all have STEP_TOKENS tokens and whose solutions all have `depth` steps."""

    def __init__(self, policy: ModelPolicy, problem: Problem, depth: int) -> None:
        self._policy, self._depth = policy, depth
        prompt = policy.prompt(problem.text)
        self._begin, self._word = len(prompt), prompt[len(prompt) // 2]
        self.name, self.context, self.prompt = policy.name, policy.context, policy.prompt

    async def sample(self, prefix: Sequence[int], sampling: Sampling, **_: object) -> Completion:
        """A step that the policy really decodes: where it ends the turn too early it goes on after a word put there."""
        ids, seed = (), sampling.seed
        while len(ids) < STEP_TOKENS:
            room = Sampling(temperature=HOT, max_tokens=STEP_TOKENS - len(ids), seed=seed)
            drawn = await self._policy.sample((*prefix, *ids), room)
            ids, seed = (ids + drawn.token_ids + (self._word,))[:STEP_TOKENS], seed + 1
        last = len(prefix) + STEP_TOKENS == self._begin + STEP_TOKENS * self._depth
        text = self._policy.checkpoint.decode(ids).strip() or "0"
        return Completion(ids, f"{text}\n\n", drawn.logprob, "end" if last else "stop")


async def print_growth(
    name: str, sizes: Mapping[int, tuple[int, int]], problems: Sequence[Problem], policy: ModelPolicy
) -> None:
    """One row for each (N, depth), and the exponents: seconds and tokens grow with this power of what is varied."""
    measured = []
    for value, (n, depth) in sizes.items():
        scorer = await open_scorer()
        decoded, scored, began = policy.counts["decoded"], scorer.counts["scored"], time.perf_counter()
        await together(
            beam_search(problem, Forced(policy, problem, depth), scorer, n=n, sampling=Sampling(seed=SEED))
            for problem in problems
        )
        seconds = time.perf_counter() - began
        measured.append((seconds, policy.counts["decoded"] - decoded, scorer.counts["scored"] - scored))
        await scorer.close()
        print(GROWN.format(name, value, f"{seconds:.2f}", *(f"{tokens:,}" for tokens in measured[-1][1:])), flush=True)
    exponents = np.polyfit(np.log(list(sizes)), np.log(measured), 1)[0]
    print(GROWN.format("  exponent", "", *(f"{exponent:.2f}" for exponent in exponents)), flush=True)
