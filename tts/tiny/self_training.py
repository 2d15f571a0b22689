"""A policy fine-tuned in rounds, on right solutions that it found: `python -m tts.tiny.self_training FOLDER`.

A round draws solutions of new training problems, keeps those with the right answer, and trains the first policy,
policy-xs, on all that the rounds so far have kept; the next round draws with the policy that comes out. To go on in
rounds is ReST (arXiv 2308.08998); to start from the first weights each time is ReST-EM (arXiv 2312.06585). Training
data of three sources are compared:
- search: DVTS with a process reward model;
- samples: independent samples, as many a problem as DVTS returns;
- original: new worked examples, drawn as those of the policy's first training, with another seed.
In each round search and samples keep equally many solutions, and original has as many tokens as search.

What was drawn is in FOLDER/results, and a trained policy lies under a name that says what it depends on: a run that is
stopped goes on where it stopped, and one that finds all of it trains nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from ..analysis import cost
from ..analysis.grading import by_problem, grade_searches
from ..errors import InputError, check_counts
from ..experiment import samples_of, searches_of
from ..models.open import open_policy, open_prm
from ..policy import Policy, Sampling
from ..prm import StepScorer
from ..problems import Problem
from ..results.collect import Strategy
from ..results.store import Store
from ..strategies import dvts
from . import MODELS
from .batches import Examples, gather
from .heads import BASE
from .hub import export, load
from .loop import fit
from .policy_training import example, policy_examples, policy_loss
from .problems import draw

DRAWN = ("search", "samples")  # sources that the policy draws itself
SOURCES = (*DRAWN, "original")
ROUNDS = 2
MOST = 4  # right solutions of a problem that are kept
VERSION = 1  # of how a policy is trained: raise it with every change
RATE, PASSES, BATCH, WARM = 3e-4, 4, 1024, 20_000  # of fine-tuning; chosen on the development split, without a search
PROBLEMS_SEED, ORIGINAL_SEED = 40_000, 500  # streams that no other training draws from

Solution = tuple[Problem, str]


def training_problems(count: int, *, seed: int, round_: int) -> list[Problem]:
    """The training problems of a round: each round and each seed has a part of the stream of its own."""
    check_counts(train_problems=count)
    first = count * (round_ - 1)
    found = []
    for index in range(first, first + count):
        made = draw("train", PROBLEMS_SEED + seed, index)
        found.append(Problem(f"train/{seed}/{index}", made.text, made.answers[0], "", made.subject, made.level))
    return found


def right_solutions(graded: pd.DataFrame, problems: Sequence[Problem], *, most: int = MOST) -> list[Solution]:
    """Different right solutions, `most` a problem at most: the first of every problem, then every second, and so on.

    graded: see tts.analysis.grading.grade. To cut the list short takes from the problems with many solutions first.
    """
    right = graded[graded.correct]
    texts = by_problem(right, right.text)
    different = {problem: list(dict.fromkeys(map(str.strip, texts.get(problem.id, []))))[:most] for problem in problems}
    return [(one, of[place]) for place in range(most) for one, of in different.items() if place < len(of)]


def fine_tuned(folder: Path, name: str, data: Examples, *, base: Path, seed: int) -> Path:
    """The folder of the base policy after training on data, in the Hub's format; made now where it is not there."""
    recipe = repr((VERSION, RATE, PASSES, BATCH, WARM, seed)).encode()
    weights = (base / "model.safetensors").read_bytes()
    parts = (recipe, weights, data.tokens.tobytes(), data.starts.tobytes())
    out = folder / f"{name}-{hashlib.sha256(b''.join(parts)).hexdigest()[:12]}"
    if out.exists():
        return out
    print(f"policy {name}: training on {len(data):,} solutions", file=sys.stderr, flush=True)
    work, part = folder / "work" / out.name, folder / "work" / f"{out.name}.part"
    policy, codec = load(base)
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # fastest for a model this small
    try:
        fit(
            policy,
            policy_loss(policy),
            data,
            tokens=PASSES * len(data.tokens),
            batch=BATCH,
            learning_rate=RATE,
            warm=WARM,
            seed=seed,
            folder=work,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    finally:
        torch.set_num_threads(before)
    export(policy, codec.tokenizer, part)
    part.replace(out)  # last: a folder with this name is whole
    shutil.rmtree(work)
    return out


async def self_trained(
    folder: Path,
    prm: StepScorer,
    *,
    search: Strategy = dvts,
    problems: int,
    n: int,
    seed: int = 0,
    rounds: int = ROUNDS,
    base: Path = MODELS / BASE,
    engine: str = "auto",
    drawing: Mapping[str, object] | None = None,
) -> tuple[dict[tuple[int, str], Path], pd.DataFrame, dict[tuple[int, str], list[Solution]]]:
    """The policies of all rounds, by (round, source); what is known of their training data, a row each; and the right
    solutions that each round added, of search and samples.

    search, prm: the strategy with its settings, and its verifier, which is closed at the end. problems, n: of each
    round, and solutions of each. seed: of problems, draws and the order of training. base: the folder of the policy
    that every training starts from. engine: of the policies, when they draw. drawing: what else samples_of and
    searches_of take.
    Columns of the rows: round, source, right (different right solutions, most a problem at most), solutions (of those,
    what this round added), of_problems (that they solve), solved (share of the round's problems with a right one),
    tokens (of one pass over all rounds so far), flops (to draw this round's solutions and, in a search, to score them).
    original has tokens alone.
    """
    store, (_, codec) = Store(folder / "results"), load(base)
    policies, kept, rows = {}, {}, []
    for round_ in range(1, rounds + 1):
        asked = training_problems(problems, seed=seed, round_=round_)
        right, paid = {}, {}
        for source in DRAWN:
            folder_of = str(policies.get((round_ - 1, source), base))
            policy = open_policy(folder_of, name=f"{base.name}, {source}", engine=engine)
            drawn, paid[source] = await _drawn(source, asked, policy, prm, store, search, n, seed, drawing or {})
            right[source] = right_solutions(drawn, asked)
        few, data = min(map(len, right.values())), {}
        for source in DRAWN:
            kept[round_, source] = right[source][:few]
            so_far = [one for (_, whose), solutions in kept.items() if whose == source for one in solutions]
            if not so_far:
                raise InputError(
                    f"train_problems: nothing right was found on {problems} problems: give more, or a larger N"
                )
            data[source] = gather([example(codec, problem.text, text) for problem, text in so_far])
        data["original"] = policy_examples(codec, tokens=len(data["search"].tokens), seed=ORIGINAL_SEED + seed)
        for source in SOURCES:
            policies[round_, source] = fine_tuned(
                folder, f"{source}-{seed}-{round_}", data[source], base=base, seed=seed
            )
            row = {"round": round_, "source": source, "tokens": len(data[source].tokens)}
            if source in DRAWN:
                row |= {"right": len(right[source]), "solutions": few, "of_problems": solved(kept[round_, source])}
                row |= {"solved": solved(right[source]) / len(asked), "flops": paid[source]}
            rows.append(row)
    await prm.close()
    return policies, pd.DataFrame(rows), kept


def solved(solutions: Sequence[Solution]) -> int:
    """How many different problems right solutions are of."""
    return len({problem.id for problem, _ in solutions})


async def _drawn(
    source: str,
    problems: Sequence[Problem],
    policy: Policy,
    prm: StepScorer,
    store: Store,
    search: Strategy,
    n: int,
    seed: int,
    drawing: Mapping[str, object],
) -> tuple[pd.DataFrame, float]:
    """Graded solutions of a source, and the FLOPs of them all: of policy and PRM. Closes the policy."""
    prompts = {problem.id: len(policy.prompt(problem.text)) for problem in problems}
    sizes = {"policy": cost.size_of(policy), "prm": cost.size_of(prm)}
    if source == "search":
        [searches] = await searches_of(problems, search, policy, prm, store, n=n, seeds={seed: n}, **drawing)
        drawn, each = grade_searches(searches, problems), cost.mean_flops(searches, prompts, **sizes)
    else:
        [drawn] = await samples_of(problems, policy, None, store, seeds={seed: n}, **drawing)
        each = cost.by_budget(drawn.fillna({"text": "", "tokens": 0}), prompts, [n], **sizes).decoding[n]
    await policy.close()
    return drawn, each * len(problems)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="where all of it is kept; the notebook's is store/self-training")
    parser.add_argument("--problems", type=int, default=300, help="of a round")
    parser.add_argument("--n", type=int, default=16, help="solutions of a problem")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    args = parser.parse_args()
    own = {"search": partial(dvts, beam_width=4, depth=40), "drawing": {"sampling": Sampling(max_tokens=256)}}
    for seed in args.seeds:  # own: the notebook's
        made = self_trained(args.folder, open_prm("prm"), problems=args.problems, n=args.n, seed=seed, **own)
        try:
            _, facts, _ = asyncio.run(made)
        except InputError as error:
            parser.error(str(error))
        print(facts.assign(seed=seed).to_string(index=False))


if __name__ == "__main__":
    main()
