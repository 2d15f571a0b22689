"""The published completions measured: inputs that an embedded world can mirror, and our votes beside theirs.

    python -m tts.companion.published [--replay HuggingFaceH4] [--problems ...] [--policies A,B] [--votes]

Without --votes: the rows of `python -m tts.tiny.mirror`, a column a policy, and what only these data can say about the
verifier and about beam search. With it: our votes beside those that were published or recomputed by others, by the
reference's rule (the first n completions), and why single problems differ.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from tts import voting
from tts.analysis.grading import gold_keys, grade_searches
from tts.analysis.inputs import sample_rows, search_rows
from tts.answers import canonical_keys, extract_answer
from tts.companion.parameters import load_profile, names_of, store_folder
from tts.companion.writeup import RECOMPUTED
from tts.errors import InputError
from tts.experiment import samples_of, searches_of, seeds_to
from tts.policy import Sampling
from tts.problems import Problem, load_problems
from tts.results.published import (
    METHODS,
    Config,
    NotPublishedError,
    evals,
    finished,
    short_name,
    solved_rows,
    steps_and_scores,
)
from tts.results.replay import PublishedScorer, ReplayStore, published_policy
from tts.strategies import beam_search

RECOMPUTED_FOR = "Llama-3.2-1B-Instruct"
RULES = {"naive": "vanilla", "weighted": "weighted", "maj": "majority"}  # their names of the votes -> ours

# Why their vote chose another answer than ours; the first that holds counts.
REASONS = {
    "empty step": "their score of a completion is that of what follows a blank line at its end, which is nothing",
    "unfinished": "their answer is only in steps of DVTS that did not finish",
    "no box": "their answer is not boxed: it was read from a phrase, from the last number, or is empty",
    "grouping": "their groups of equal answers differ: their canonical form depends on the answers that came before",
}


# --- Inputs -------------------------------------------------------------------------------------------------------


async def inputs(
    store: ReplayStore, policy: str, prm: str, *, seeds: Mapping[int, int], sampling: Sampling
) -> dict[str, str]:
    """The rows of one policy: independent samples of all seeds, and beam search at the N that are published."""
    problems, model, scorer = list(store.problems.values()), published_policy(policy), PublishedScorer(short_name(prm))
    found = store.plan_samples(model, seeds)
    tables = await samples_of(problems, model, scorer, store, seeds=found, sampling=sampling)
    n_max = max(found.values())
    rows = sample_rows(tables, problems, n_max=n_max)
    solutions = {}
    for n in sorted({config.n for config in store.configs(model.name, "beam_search") if config.n <= n_max}):
        try:
            first, *_ = await searches_of(
                problems, beam_search, model, scorer, store, n=n, seeds=found, sampling=sampling
            )
            solutions[n] = grade_searches(first, problems)
        except NotPublishedError:
            pass  # said by then
    return rows | (search_rows(solutions, tables[0], problems) if solutions else {})


# --- Votes --------------------------------------------------------------------------------------------------------


def votes(config: Config, problems: Mapping[str, Problem]) -> pd.DataFrame:
    """Our votes of one config beside theirs, among the first n completions: a row for each n and rule.

    Columns: method, N (of the config), seed, n, rule; ours, in [0, 1]; published, the accuracy in the sibling config;
    read, that of the published choices by our grading; pass@N; and for each of REASONS the problems in which it made
    them choose another answer. NaN where nothing was published.
    """
    theirs = {row["n"]: row for row in evals(config)}
    ns = sorted({n for n in theirs if n <= config.n} | {config.n})
    columns = [f"pred_{rule}@{n}" for n in ns for rule in RULES] + ["agg_scores"]
    gold = gold_keys(list(problems.values()))
    right = {(n, rule): [] for n in ns for rule in RULES}
    read = {key: [] for key in right}
    why = {key: Counter() for key in right}
    covered = []
    for problem, row in solved_rows(config, problems, columns):
        texts = row["completions"]
        keys = [one.key for one in canonical_keys([extract_answer(text) for text in texts])]
        whole = finished(row) if config.method == "dvts" else [True] * len(texts)
        last = [_last_score(*pair, config.depth) for pair in zip(texts, row["scores"], strict=True)]
        covered.append(gold[problem.id] in keys)
        for n, rule in right:
            voting_keys = [key if ok else None for key, ok in zip(keys[:n], whole[:n], strict=True)]
            chosen = _vote(rule, voting_keys, last[:n])
            right[n, rule].append(chosen is not None and chosen == gold[problem.id])
            said = row.get(f"pred_{rule}@{n}")
            if said is None:
                continue
            [other] = canonical_keys([extract_answer(said)])
            read[n, rule].append(other.key is not None and other.key == gold[problem.id])
            if other.key != chosen:
                scores = row.get("agg_scores") or last
                why[n, rule][_reason(rule, other.key, voting_keys, keys[:n], scores[:n])] += 1
    rows = [
        {"method": config.method, "N": config.n, "seed": config.seed, "n": n, "rule": rule}
        | {"ours": np.mean(right[n, rule]), "published": _share(theirs.get(n, {}).get(f"acc_{rule}"))}
        | {"read": np.mean(read[n, rule]) if read[n, rule] else np.nan, "pass@N": np.mean(covered)}
        | {reason: why[n, rule][reason] if read[n, rule] else np.nan for reason in REASONS}
        for n, rule in right
    ]
    return pd.DataFrame(rows)


def _last_score(text: str, scores: Sequence[float], depth: int) -> float:
    """The score of a completion's last step that says something."""
    found = steps_and_scores(text, scores, depth=depth)
    return ([0.0] + (found[1] if found else list(scores)))[-1]


def _vote(rule: str, keys: Sequence[object], scores: Sequence[float]) -> object:
    return voting.majority(keys) if rule == "maj" else getattr(voting, RULES[rule])(keys, scores)


def _reason(rule: str, other: object, ours: Sequence[object], every: Sequence[object], theirs: Sequence[float]) -> str:
    """A key of REASONS. other: their answer's key; ours: the keys that vote here; every: unfinished ones too."""
    if other is not None and other == _vote(rule, ours, theirs):
        return "empty step"
    if other is not None and other in every and other not in ours:
        return "unfinished"
    return "grouping" if other in ours and other is not None else "no box"


def _share(value: float | None) -> float:
    """An accuracy in [0, 1], which the sibling configs have in [0, 1] or in per cent."""
    return np.nan if value is None else float(value) / (100 if value > 1 else 1)


def recomputed(found: pd.DataFrame) -> pd.DataFrame:
    """Our votes at n = N over seeds beside RECOMPUTED, in points: a row for each run and rule."""
    rows = []
    for (method, n), theirs in RECOMPUTED.items():
        mine = found[(found.method == method) & (n == found.N) & (found.n == n)]
        if not len(mine):
            continue
        for rule, value in zip((*RULES, "pass@N"), theirs, strict=True):
            of_rule = mine[mine.rule == rule] if rule in RULES else mine[mine.rule == "maj"]
            ours = 100 * of_rule["ours" if rule in RULES else "pass@N"]
            reasons = of_rule[list(REASONS)].sum() if rule in RULES else pd.Series(dtype=float)
            said = ", ".join(f"{name} {count:.0f}" for name, count in reasons.items() if count)
            rows.append((METHODS[method], n, rule, value, ours.mean(), ours.std(ddof=0), ours.mean() - value, said))
    columns = ["run", "N", "vote", "recomputed", "ours", "sd over seeds", "difference", "problems that differ, and why"]
    return pd.DataFrame(rows, columns=columns)


# --- The command --------------------------------------------------------------------------------------------------


def table(columns: Mapping[str, Mapping[str, str]]) -> str:
    """Columns of named rows as a Markdown table."""
    lines = ["|  | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row in dict.fromkeys(key for column in columns.values() for key in column):
        lines.append(f"| {row} | " + " | ".join(column.get(row, "") for column in columns.values()) + " |")
    return "\n".join(lines)


def frame_table(frame: pd.DataFrame) -> str:
    """A frame as a Markdown table; numbers with one digit after the point, nothing for NaN."""
    cells = frame.map(
        lambda cell: "" if cell is None or cell != cell else f"{cell:.1f}" if isinstance(cell, float) else str(cell)
    )
    lines = ["| " + " | ".join(cells.columns) + " |", "|---" * len(cells.columns) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in cells.to_numpy())])


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line and print the tables."""
    profile = load_profile("replay")
    policies = ", ".join(short_name(profile[name]) for name in ("policy_model", "second_model"))
    parser = argparse.ArgumentParser(prog="python -m tts.companion.published", description=__doc__.split("\n")[0])
    parser.add_argument("--replay", default=profile["replay"], help="hub owner or folder of the data sets")
    parser.add_argument("--problems", default=profile["problems"], help="as in a notebook")
    parser.add_argument("--n-problems", type=int, default=0, help="the first so many; 0 for all")
    parser.add_argument("--policies", default=policies, help="whose completions (default: %(default)s)")
    parser.add_argument("--n-max", type=int, default=profile["n_max"], help="samples a problem (default: %(default)s)")
    parser.add_argument("--n-seeds", type=int, default=profile["n_seeds"], help="seeds (default: %(default)s)")
    parser.add_argument("--max-tokens", type=int, default=profile["max_tokens"], help="of a solution")
    parser.add_argument("--votes", action="store_true", help="our votes beside theirs instead")
    given = parser.parse_args(argv)
    names = names_of(given.policies)
    try:
        benchmark = load_problems(given.problems)
        problems = load_problems(given.problems, n=given.n_problems)
        store = ReplayStore(store_folder(), given.replay, problems, benchmark=benchmark)
        if given.votes:
            _print_votes(store, names)
            return 0
        seeds = seeds_to(given.n_max, seed=0, n_seeds=given.n_seeds, seeds_n_max=given.n_max)
        sampling, columns = replace(Sampling(), max_tokens=given.max_tokens), {}
        for name in names:
            try:
                columns[name] = asyncio.run(inputs(store, name, profile["prm_model"], seeds=seeds, sampling=sampling))
            except InputError as error:
                if name == names[0]:
                    raise
                store.say(f"{error}; that policy is left out")
        print(table(columns))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _print_votes(store: ReplayStore, names: Sequence[str]) -> None:
    for name in names:
        found = []
        for config in (config for method in METHODS for config in store.configs(name, method)):
            try:
                found.append(votes(config, store.problems))
            except NotPublishedError as error:
                store.say(f"{error}; it is left out")
        if not found:
            raise InputError(f"replay: {store.source} has no completions of {name} that can be read")
        every = pd.concat(found, ignore_index=True)
        print(f"## {name}\n\nAmong the first n completions, means over seeds, in per cent:\n")
        grouped = every.groupby(["method", "N", "n", "rule"], sort=False)
        means = 100 * grouped[["ours", "read", "published"]].mean()
        means["ours - published"] = means.ours - means.published
        reasons = grouped[list(REASONS)].sum(min_count=1)
        print(frame_table(means.join(reasons).reset_index()))
        if name == RECOMPUTED_FOR and len(beside := recomputed(every)):
            print(f"\nBeside what third parties recomputed, in per cent:\n\n{frame_table(beside)}")
    print("\n" + "\n".join(f"- {reason}: {words}" for reason, words in REASONS.items()))
    print("- read - published: the published accuracy was graded by another parser than tts.answers")


if __name__ == "__main__":
    sys.exit(main())
