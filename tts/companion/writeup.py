"""The writeup's numbers, to stand beside ours: Llama-3.2-1B with an 8B PRM on MATH-500, from the sources named.

The writeup itself prints few numbers. Most are third parties' recomputations from the completions that its authors
published; the greedy baselines are another paper's, and some values were read off the chart of an independent rerun.
"""

from __future__ import annotations

import pandas as pd

from tts.companion.ledger import GREEDY, REGRADED, RERUN
from tts.plots.style import LABELS
from tts.results import published

# REGRADED, in %, over five seeds: (method, N) -> accuracy by each vote, and coverage of the solutions.
VOTES = ("vanilla", "weighted", "majority", "coverage")
RECOMPUTED = {
    ("beam_search", 16): (46.4, 48.3, 48.2, 53.6),
    ("beam_search", 64): (48.3, 51.1, 50.9, 64.9),
    ("beam_search", 256): (48.7, 52.2, 51.9, 72.1),
    ("dvts", 256): (49.7, 54.4, 53.3, 84.5),
    ("best_of_n", 256): (42.5, 47.5, 43.7, 87.6),
}


def _recomputed(method: str, vote: str) -> dict[int, float]:
    return {n: row[VOTES.index(vote)] for (of, n), row in RECOMPUTED.items() if of == method}


# Accuracy in % by method, N and source. Searches vote weighted.
ACCURACY: dict[tuple[str, str], dict[int, float]] = {
    ("majority", f"{REGRADED}, seed 0"): {
        **{1: 23.2, 4: 29.6, 8: 35.9, 16: 40.0},
        **{32: 42.4, 64: 43.7, 128: 44.3, 256: 44.8},
    },
    ("pass_at_n", REGRADED): {
        **{1: 23.9, 2: 34.7, 4: 46.0, 8: 56.6, 16: 66.0},
        **{32: 74.2, 64: 81.0, 128: 86.1, 256: 89.6},
    },
    ("best_of_n_vanilla", REGRADED): _recomputed("best_of_n", "vanilla"),
    ("best_of_n_weighted", RERUN): {1: 25.8, 4: 38.9, 16: 46.9, 64: 49.4, 256: 50.5},
    ("best_of_n_weighted", REGRADED): _recomputed("best_of_n", "weighted"),
    ("beam_search", REGRADED): _recomputed("beam_search", "weighted"),
    ("dvts", RERUN): {16: 48.7, 64: 53.9},
    ("dvts", REGRADED): _recomputed("dvts", "weighted"),
}
# The share of problems with a right answer among what a search returned, in %.
COVERAGE: dict[tuple[str, str], dict[int, float]] = {
    ("pass_at_n", REGRADED): ACCURACY["pass_at_n", REGRADED],
    ("beam_search", REGRADED): _recomputed("beam_search", "coverage"),
    ("dvts", REGRADED): _recomputed("dvts", "coverage"),
}
# Greedy decoding in %, by the model's size; our baselines play them in this order.
GREEDY_ACCURACY = {name.split("-")[-2]: round(100 * share, 1) for name, (share, _) in published.GREEDY.items()}
QUINTILE_EDGES = (0.4942, 0.1902, 0.0641, 0.0133)  # pass@1 between neighbouring quintiles, easiest first (REGRADED)


def numbers(*methods: str, coverage: bool = False, greedy: bool = True) -> pd.DataFrame:
    """The writeup's numbers for these methods: columns method, n, accuracy in [0, 1], label, source.

    coverage: the share of problems with a right answer among the solutions, in place of accuracy. greedy: the four
    greedy baselines as well, which have no n; their label is the model's size.
    """
    known = COVERAGE if coverage else ACCURACY
    rows = [
        (method, n, value / 100, "", source)
        for (method, source), curve in known.items()
        if method in methods
        for n, value in curve.items()
    ]
    rows += [(f"greedy {size}", None, value / 100, size, GREEDY) for size, value in GREEDY_ACCURACY.items() if greedy]
    types = {"method": str, "n": float, "accuracy": float, "label": str, "source": str}
    return pd.DataFrame(rows, columns=list(types)).astype(types)


def beside(points: pd.DataFrame, *, coverage: bool = False) -> pd.DataFrame:
    """Our accuracies with the writeup's beside them, in words: a row for each N, two columns for each method.

    points: columns method, n, accuracy, as tts.analysis.curves.intervals makes them. A method of which the writeup's
    models have no number at any of these N has one column. Two numbers in one cell are from two sources.
    """
    ours = points.pivot(index="n", columns="method", values="accuracy")[list(dict.fromkeys(points.method))]
    theirs = numbers(*ours.columns, coverage=coverage, greedy=False)
    theirs["text"] = theirs.accuracy.map("{:.1%}".format)
    said = theirs.groupby(["n", "method"]).text.agg(" / ".join).unstack().reindex(ours.index)
    columns = {}
    for method in ours:
        label = LABELS.get(method, method)
        columns[label, "ours"] = ours[method].map("{:.1%}".format).where(ours[method].notna(), "")
        if method in said and said[method].notna().any():
            columns[label, "writeup"] = said[method].fillna("")
    return pd.DataFrame(columns).rename_axis("N")


def greedy_beside(lines: pd.DataFrame) -> pd.DataFrame:
    """Our greedy baselines (tts.analysis.curves.greedy_points) with the ones that they play, by their place."""
    plays = list(GREEDY_ACCURACY)[: len(lines)] + [""] * (len(lines) - len(GREEDY_ACCURACY))
    writeup = [f"{GREEDY_ACCURACY[name]:.1f}%" if name else "" for name in plays]
    interval = [f"[{row.low:.1%}, {row.high:.1%}]" for row in lines.itertuples()]
    ours = lines.accuracy.map("{:.1%}".format).tolist()
    table = {"policy": lines.method, "ours": ours, "95 % interval": interval, "plays": plays, "writeup": writeup}
    return pd.DataFrame(table).set_index("policy")
