"""A folder in the schema of the published completions, made of a few words: problems p0, p1, ... with the answer 1."""

import json
import random

import pyarrow
import pyarrow.parquet

from tts.problems import Problem

POLICY = "Llama-3.2-1B-Instruct"
METHODS = {"best_of_n": "best-of-N", "beam_search": "beam-search", "dvts": "DVTS"}


def problems(count=6):
    return [Problem(id=f"test/p{i}", text=f"What is {i}?", answer="1", level=1 + i % 5) for i in range(count)]


def name_of(method, n, seed, *, max_tokens=2048):
    how = f"max_tokens-{max_tokens}--bsz-8" if method == "best_of_n" else "m-4--iters-40--look-0"
    return f"HuggingFaceH4_MATH-500--T-0.8--top_p-1.0--n-{n}--{how}--seed-{seed}--agg_strategy-last"


def solution(draw, *, first=None):
    """Two or three steps and a score each; the answer is 1 or 2."""
    middle = [f"step {draw.randrange(9)}" for _ in range(draw.randrange(2))]
    steps = [first or f"begin {draw.randrange(9)}", *middle, f"so \\boxed{{{draw.choice('112')}}}"]
    return "\n\n".join(steps), [round(draw.random(), 3) for _ in steps]


def trees(draw, n):
    """n completions in trees of four, the last of each unfinished: its step ends at a blank line."""
    found = []
    for tree in range(n // 4):
        shared, scores = f"tree {tree}\n\nmore {draw.randrange(9)}\n\n", [draw.random(), draw.random()]
        for child in range(4):
            last = "not yet 7\n\n" if child == 3 else f"child {child}: \\boxed{{{draw.choice('12')}}}"
            found.append((shared + last, [*scores, draw.random(), *[0.9] * (child == 3)]))  # the reference's empty step
    return found


def rows(method, n, seed, *, of):
    draw = random.Random(f"{method}{n}{seed}")
    for problem in of:
        pairs = trees(draw, n) if method == "dvts" else [solution(draw) for _ in range(n)]
        texts, scores = [list(part) for part in zip(*pairs)]
        row = {"problem": problem.text, "solution": "", "answer": problem.answer, "subject": "Algebra", "level": 1}
        row |= {"unique_id": problem.id, "completions": texts, "scores": scores, "pred": texts[0]}
        row |= {"completion_tokens": [len(text) for text in texts]} if method == "best_of_n" else {}
        yield row | {"agg_scores": [one[-1] for one in scores]}


def write(folder, method, n, seed, *, of, suffix=".parquet", change=list, policy=POLICY, name=""):
    """One config; change: from its rows to the rows that are written. Returns the file."""
    config = folder / f"{policy}-{METHODS[method]}-completions" / (name or name_of(method, n, seed))
    found = change(list(rows(method, n, seed, of=of)))
    if suffix == ".jsonl":
        config.parent.mkdir(parents=True, exist_ok=True)
        path = config.with_name(config.name + suffix)
        path.write_text("".join(json.dumps(row) + "\n" for row in found))
    else:
        config.mkdir(parents=True)
        path = config / "train-00000-of-00001.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(found), path)
    return path


def write_all(folder, *, of, n=16, seeds=(0, 1), searches=(4, 16)):
    """All strategies: Best-of-N and DVTS at n alone, beam search at each N."""
    for seed in seeds:
        write(folder, "best_of_n", n, seed, of=of)
        write(folder, "dvts", n, seed, of=of)
        for budget in searches:
            write(folder, "beam_search", budget, seed, of=of)


def evals(folder, method, n, seed, accuracies):
    """The sibling config: n -> (naive, weighted, maj)."""
    found = [dict(zip(("n", "acc_naive", "acc_weighted", "acc_maj"), (k, *of_k))) for k, of_k in accuracies.items()]
    path = folder / f"{POLICY}-{METHODS[method]}-completions" / f"{name_of(method, n, seed)}--evals.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
