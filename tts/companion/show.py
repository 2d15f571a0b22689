"""What the notebooks display again and again: a module's own source, a problem, a table of shares, a folded answer."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import pandas as pd
from IPython.display import HTML, Code, Markdown

from tts import voting
from tts.analysis.cost import size_of
from tts.analysis.intervals import mean_interval
from tts.answers import spelled
from tts.companion import ledger_table
from tts.plots.style import LABELS
from tts.policy import Policy
from tts.problems import Problem
from tts.reductions import reduce_scores


def source(*objects: object) -> Code:
    """The source of functions, classes or modules, as it runs."""
    return Code("\n\n".join(inspect.getsource(one) for one in objects), language="python")


def problem(one: Problem) -> Markdown:
    """A problem with its gold answer."""
    level = f", level {one.level}" if one.level else ""
    about = f"**{one.subject or 'Problem'}**{level}, id `{one.id}`"
    return Markdown(f"{about}\n\n{one.text}\n\n**Gold answer**: ${one.answer}$")


def rules(*names: str) -> Markdown:
    """What is computed for these claims of the ledger, and when each counts as reproduced."""
    return Markdown(ledger_table.rules(*names))


def shares(table: pd.DataFrame | pd.Series, caption: str = "", *, signed: Sequence[object] = ()) -> object:
    """A table of numbers in [-1, 1] in per cent, with signs in these columns; other columns are shown as they are."""
    table = table.to_frame("share").T if isinstance(table, pd.Series) else table
    floats = [name for name in table if pd.api.types.is_float_dtype(table[name])]
    styler = table.style.format("{:.1%}", subset=floats, na_rep="-")
    styler = styler.format("{:+.1%}", subset=[name for name in signed if name in table], na_rep="-")
    return styler.set_caption(caption) if caption else styler


def named(table: pd.DataFrame | pd.Series, **labels: str) -> pd.DataFrame:
    """The table with the legend's labels in place of methods' names: in its index, its columns and its cells.

    labels: method -> another label, for this table alone.
    """
    words = LABELS | labels
    table = table.to_frame() if isinstance(table, pd.Series) else table
    return table.rename(index=words, columns=words).map(
        lambda cell: words.get(cell, cell) if isinstance(cell, str) else cell
    )


def differences(parts: Mapping[object, Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """Means of paired differences with their 95 % intervals, in words: row -> column -> (problems,)."""
    rows = {row: {name: interval(*mean_interval(v)) for name, v in of.items()} for row, of in parts.items()}
    return pd.DataFrame(rows).T


def interval(mean: float, low: float, high: float) -> str:
    """A difference and its interval as text, such as "+1.2% [-0.3%, +2.7%]"; all three in [-1, 1]."""
    return f"{mean:+.1%} [{low:+.1%}, {high:+.1%}]"


def folded(answer: object) -> HTML:
    """An exercise's answer, closed until it is clicked: a table, or text."""
    inside = answer._repr_html_() if hasattr(answer, "_repr_html_") else f"<p>{escape(str(answer))}</p>"
    return HTML(f"<details><summary><b>Answer, from this run</b></summary>{inside}</details>")


def model(policy: Policy) -> dict[str, object]:
    """What a policy is, by its files: sizes, and how it was trained where the files say so."""
    checkpoint = getattr(policy, "checkpoint", None)
    size = size_of(policy)
    if checkpoint is None or size is None:
        return {}
    found = {"weights": f"{size.weights + size.head:,}"}
    names = {"layers": "num_hidden_layers", "width": "hidden_size", "vocabulary": "vocab_size"}
    found |= {name: checkpoint.config.get(key, "") for name, key in names.items()}
    trained = checkpoint.path / "training.json"
    if trained.exists():
        found |= {"tokens in training": f"{json.loads(trained.read_text(encoding='utf-8')).get('tokens', 0):,}"}
    return found


def tokens(policy: Policy, text: str) -> str:
    """A text as a policy's tokenizer cuts it: its tokens with a space between them."""
    checkpoint = getattr(policy, "checkpoint", None)
    if checkpoint is None:
        return f"{policy.name} has no tokenizer here."
    return " ".join(checkpoint.tokenizer.encode(text, add_special_tokens=False).tokens)


def ballots(tables: Mapping[str, pd.DataFrame], reduction: str, *, most: int = 6) -> object:
    """The answers to one problem as votes and verifier see them: label -> graded solutions with their step scores.

    Each table shows its `most` answers with the most votes, and those that some rule chose, in the spelling that is
    read (tts.answers). A solution without an answer has no vote. reduction: of the step scores (tts.reductions).
    """
    parts = []
    for label, graded in tables.items():
        keys, scores = list(graded.key), [reduce_scores(steps, reduction) for steps in graded.scores]
        chosen = {"majority": voting.majority(keys)}
        chosen |= {rule: getattr(voting, rule)(keys, scores) for rule in ("weighted", "vanilla")}
        of_answer = graded.assign(score=scores).dropna(subset=["key"]).groupby("key", sort=False)
        seen = of_answer.agg(
            answer=("answer", lambda given: spelled(given.iloc[0])),
            right=("correct", "first"),
            votes=("index", "size"),
            total=("score", "sum"),
            best=("score", "max"),
        )
        seen["chosen by"] = [", ".join(rule for rule, key in chosen.items() if key == answer) for answer in seen.index]
        seen = seen.sort_values("votes", ascending=False, kind="stable")
        top = [i < most or bool(by) for i, by in enumerate(seen["chosen by"])]
        parts.append(seen.loc[top].assign(of=label))
    table = (
        pd.concat(parts).set_index(["of", "answer"]).rename(columns={"total": "sum of scores", "best": "best score"})
    )
    return table.style.format(precision=2)
