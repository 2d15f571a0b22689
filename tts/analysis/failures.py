"""Where a search lost the right answer: never drawn, dropped by the verifier, or outvoted.

The first two can be told apart with exact step labels alone, which only the embedded problems have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from tts.tree import Search

Labels = Callable[[Sequence[str]], Sequence[bool] | None]  # steps of a solution -> whether each is right

CAUSES = ("voted for", "outvoted", "dropped by the verifier", "never drawn")
UNLABELLED = ("voted for", "outvoted", "no right answer returned")  # where no step can be checked


def by_depth(search: Search, labels: Labels) -> pd.DataFrame:
    """What a search drew and went on with at each depth, and how much of it was right: one row a depth, from 1.

    Columns drawn, drawn_right, kept, kept_right: steps, equal ones counted as often as they were drawn. A step is right
    if it and all before it are; where no labels are known, the columns of right ones are NaN. Kept are those that were
    expanded and those that end a solution that was returned.
    """
    texts: dict[tuple[int, ...], tuple[str, ...]] = {}
    known: dict[tuple[str, ...], bool] = {(): True}  # steps -> whether all of them are right
    rows, is_known = [], True
    for node in search.nodes:  # by path: a parent comes before its children
        before = texts.get(node.path[:-1], ())
        steps = texts[node.path] = (*before, node.text) if node.text.strip() else before
        if steps not in known:  # what follows a wrong step is wrong
            found = labels(steps)
            is_known = is_known and found is not None
            known[steps] = known[before] and all(found or [False])
        right, kept = known[steps], node.fate in ("kept", "solution")
        rows.append((len(node.path) - 1, 1, right, kept, kept and right))
    table = pd.DataFrame(rows, columns=["depth", "drawn", "drawn_right", "kept", "kept_right"])
    table = table.groupby("depth").sum().astype(int)
    return table if is_known else table.assign(drawn_right=np.nan, kept_right=np.nan)


def cause(depths: pd.DataFrame, *, voted: bool, returned: bool) -> str:
    """Why a search's vote is right or wrong, one of CAUSES, or of UNLABELLED where no step could be checked.

    depths: by_depth() of it. voted: whether the answer that won is right; returned: whether any returned solution is.
    Where none is, the first depth at which nothing right is left decides: something right had been drawn there, or not.
    """
    if voted:
        return CAUSES[0]
    if returned:
        return CAUSES[1]
    if depths.kept_right.isna().any():
        return UNLABELLED[2]
    lost = depths[depths.kept_right == 0]
    return CAUSES[2] if len(lost) and lost.drawn_right.iloc[0] > 0 else CAUSES[3]
