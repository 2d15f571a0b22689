"""Our results in the schema of the writeup's published completions (published.py): Parquet files and a data card.

    python -m tts.results.export FOLDER [--store store] [--problems tiny/test] [--policy policy-xs] [--prm prm]

Everything that the store has of this policy and PRM is written, a config a run: samples with scores as best-of-N, beam
search and DVTS. A folder so made can be replayed (`replay: FOLDER`). Nothing is pushed; the card says how to.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path

from tts import voting
from tts.answers import canonical_keys, extract_answer
from tts.errors import InputError
from tts.models.open import open_policy, open_prm
from tts.policy import Policy
from tts.prm import StepScorer
from tts.problems import Problem, load_problems
from tts.reductions import reduce_scores
from tts.results.collect import text_hash
from tts.results.published import METHODS
from tts.results.store import Record, Store, Table
from tts.tree import Search

ROWS = 50  # in a row group of Parquet, and in memory at once
FILE = "train-00000-of-00001.parquet"
RULES = {"weighted": voting.weighted, "maj": None, "naive": voting.vanilla}  # as the columns name them

CARD = """---
configs:
{configs}
---
# {name}

Solutions by {policy} of {problems}, with a score a step by {prm}, made by `tts` and written by `tts.results.export`.
The schema is that of the data sets that the writeup "Scaling test-time compute with open models" published, but:

- `pred_*@n` are votes among the first n by canonical answers; a completion without a box has no vote;
- `scores` has a score a step, none for what stands after a blank line at the end;
- a search returns finished solutions, at most N; those of DVTS are a tree's last M steps, unfinished ones too;
- `finished` says of each completion whether the model ended its turn;
- a solution that could not be made is an empty text.

To publish it: `hf upload OWNER/{name} FOLDER/{name} --repo-type dataset`
"""


def export(
    store: Store,
    folder: str | Path,
    problems: Sequence[Problem],
    policy: Policy,
    prm: StepScorer,
    *,
    source: str,
) -> list[Path]:
    """Write all configs of a policy and a PRM below folder, and return their files. Existing files are replaced.

    source: what the problems are called in the configs' names. A run that lacks some of the problems is left out, which
    is said on stderr. Raises InputError where the store has nothing of them.
    """
    made: list[Path] = []
    scores = store.table("scores", {"prm": prm.fingerprint}).read()
    for kind in ("samples", "searches"):
        for table in _tables(store, kind):
            settings = table.settings
            if settings["policy"] != policy.fingerprint or settings.get("prm", prm.fingerprint) != prm.fingerprint:
                continue
            if not settings["temperature"] or settings.get("drop_duplicates"):
                continue  # the schema has no name for these
            if not (found := _best_of_n(table, problems, scores) if kind == "samples" else _searches(table, problems)):
                print(f"export: {table.folder} lacks some of these problems or scores: left out", file=sys.stderr)
                continue
            n, solved = found
            method = settings.get("strategy", "best_of_n")
            path = (
                Path(folder) / f"{policy.name}-{METHODS[method]}-completions" / config_name(source, n, settings) / FILE
            )
            _write(path, _rows(problems, solved, n))
            made.append(path)
    if not made:
        raise InputError(f"export: {store.folder} has no results of {policy.name} with {prm.name} on these problems")
    for dataset in {path.parents[1] for path in made}:
        _write_card(dataset, policy=policy.name, prm=prm.name, problems=source)
    return made


def config_name(source: str, n: int, settings: Mapping[str, object]) -> str:
    """The name of a run's config. source: of the problems; settings: those of the store's table."""
    drawn = f"{re.sub('[^A-Za-z0-9.-]', '_', source)}--T-{settings['temperature']}--top_p-{settings['top_p']}--n-{n}"
    if "strategy" in settings:
        how = f"--m-{settings['width']}--iters-{settings['depth']}--look-{settings.get('lookahead', 0)}"
    else:
        how = f"--max_tokens-{settings['max_tokens']}--bsz-1"
    return f"{drawn}{how}--seed-{settings['seed']}--agg_strategy-last"


def _tables(store: Store, kind: str) -> Iterator[Table]:
    for file in sorted(store.folder.glob(f"{kind}/*/settings.json")):
        yield store.table(kind, json.loads(file.read_text(encoding="utf-8")))


Completed = tuple[str, list[float], int, bool]  # text, scores, tokens, finished
Solved = dict[str, list[Completed]]  # by problem


def _best_of_n(table: Table, problems: Sequence[Problem], scores: Mapping[tuple, Record]) -> tuple[int, Solved] | None:
    """N and the samples of each problem; None where one has no sample, or a sample has no score on record."""
    records = table.read()
    counts = dict.fromkeys(problems, 0)
    for problem in problems:
        while (problem.hash, counts[problem]) in records:
            counts[problem] += 1
    n, found = min(counts.values()), {}
    for problem in problems:
        texts = [records[problem.hash, i].get("text") or "" for i in range(n)]
        scored = [scores.get((problem.hash, text_hash(text))) for text in texts]
        if not all(record or not text for record, text in zip(scored, texts, strict=True)):
            return None
        tokens = [records[problem.hash, i].get("tokens") or 0 for i in range(n)]
        every = [record.get("scores", []) if record else [] for record in scored]
        ended = [records[problem.hash, i]["finish"] == "end" for i in range(n)]
        found[problem.id] = list(zip(texts, every, tokens, ended, strict=True))
    return (n, found) if n else None


def _searches(table: Table, problems: Sequence[Problem]) -> tuple[int, Solved] | None:
    records = table.read()
    if not all((problem.hash,) in records for problem in problems):
        return None
    found = {}
    for problem in problems:
        kept = records[(problem.hash,)].get("search")
        search = Search.from_dict(kept) if kept else None
        found[problem.id] = list(_returned(search)) if search else []
    return table.settings["n"], found


def _returned(search: Search) -> Iterator[Completed]:
    """What a search returns in the published form: of DVTS all children of a tree's last expansion."""
    solutions = {solution.path: solution for solution in search.solutions}
    if search.strategy != "dvts":
        yield from ((one.text, one.scores, one.tokens, True) for one in search.solutions)
        return
    nodes = {node.path: node for node in search.nodes}
    last = {path[0]: len(path) for path in sorted(nodes, key=len)}
    for path in nodes:
        if len(path) == last[path[0]]:
            steps = [nodes[path[:length]] for length in range(2, len(path) + 1)]
            if path in solutions:
                yield solutions[path].text, solutions[path].scores, solutions[path].tokens, True
            else:
                scores = [step.score for step in steps if step.text.strip() and step.score is not None]
                yield "".join(step.text for step in steps), scores, sum(step.tokens for step in steps), False


def _rows(problems: Sequence[Problem], solved: Solved, n: int) -> Iterator[dict[str, object]]:
    ns = [2**i for i in range(n.bit_length()) if 2**i <= n]
    for problem in problems:
        texts, scores, tokens, ended = ([one[part] for one in solved[problem.id]] for part in range(4))
        last = [reduce_scores(one, "last") for one in scores]
        answers = [extract_answer(text) for text in texts]
        keys = [found.key for found in canonical_keys(answers)]
        row = {
            "problem": problem.text,
            "solution": problem.solution,
            "answer": problem.answer,
            "subject": problem.subject,
            "level": problem.level,
            "unique_id": problem.id,
            "completions": texts,
            "pred": texts[max(range(len(last)), key=last.__getitem__)] if texts else "",
            "completion_tokens": tokens,
            "finished": ended,
            "scores": scores,
            "agg_scores": last,
        }
        for k in ns:
            for name, rule in RULES.items():
                vote = partial(rule, scores=last[:k]) if rule else voting.majority
                chosen = vote(keys[:k])
                said = answers[keys.index(chosen)] if chosen is not None else ""
                row[f"pred_{name}@{k}"] = f"\\boxed{{{said}}}"
        yield row


def _write(path: Path, rows: Iterable[dict[str, object]]) -> None:
    """A Parquet file, whole or not at all."""
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    draft, rows = path.with_suffix(".tmp"), iter(rows)
    try:
        first = next(rows)
        names = {name: pyarrow.string() for name in first} | {
            "level": pyarrow.int64(),
            "completions": pyarrow.list_(pyarrow.string()),
            "completion_tokens": pyarrow.list_(pyarrow.int64()),
            "finished": pyarrow.list_(pyarrow.bool_()),
            "scores": pyarrow.list_(pyarrow.list_(pyarrow.float64())),
            "agg_scores": pyarrow.list_(pyarrow.float64()),
        }
        schema = pyarrow.schema(list(names.items()))
        with pyarrow.parquet.ParquetWriter(draft, schema) as writer:
            rows = chain([first], rows)
            while batch := list(islice(rows, ROWS)):
                writer.write_table(pyarrow.Table.from_pylist(batch, schema=schema))
        draft.replace(path)
    except OSError as error:
        raise InputError(
            f"export: can't write {path} ({error.strerror}): free some space or name another folder"
        ) from error
    finally:
        draft.unlink(missing_ok=True)


def _write_card(dataset: Path, **about: str) -> None:
    names = sorted(path.parent.name for path in dataset.glob(f"*/{FILE}"))
    lines = [f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}/{FILE}" for name in names]
    text = CARD.format(configs="\n".join(lines), name=dataset.name, **about)
    (dataset / "README.md").write_text(text, encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line and export."""
    parser = argparse.ArgumentParser(prog="python -m tts.results.export", description=__doc__.split("\n")[0])
    parser.add_argument("folder", help="where the data sets go")
    parser.add_argument("--store", default="store", help="folder of the results")
    parser.add_argument("--problems", default="tiny/test", help="as in a notebook")
    parser.add_argument("--n-problems", type=int, default=0, help="the first so many; 0 for all")
    parser.add_argument("--policy", default="policy-xs", help="policy_model of the notebooks")
    parser.add_argument("--prm", default="prm", help="prm_model of the notebooks")
    given = parser.parse_args(argv)
    try:
        problems = load_problems(given.problems, n=given.n_problems)
        policy = open_policy(given.policy, parameter="--policy", engine="transformers")
        prm = open_prm(given.prm, parameter="--prm", engine="transformers")
        made = export(Store(given.store), given.folder, problems, policy, prm, source=given.problems)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(made)} configs, {sum(path.stat().st_size for path in made) / 1e6:.1f} MB:")
    print(*(str(path.parent) for path in made), sep="\n")
    for dataset in sorted({path.parents[1].name for path in made}):
        print(f"to publish it: hf upload OWNER/{dataset} {Path(given.folder) / dataset} --repo-type dataset")
    return 0


if __name__ == "__main__":
    sys.exit(main())
