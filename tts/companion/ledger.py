"""The ledger: what each claim of the writeup means here, when it counts as reproduced, and the rows that say so.

Everything above `judge` was written down before a search was run on the test split and depends on no result. The
claims are those of the writeup, in its order; a claim with several parts has a letter for each. All differences are
paired (same problems), in points of accuracy unless said otherwise, with 95 % bootstrap intervals over problems; where
a claim is asked at several budgets the intervals are widened after Bonferroni, so that all of them hold at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from tts.analysis.intervals import mean_interval
from tts.errors import InputError

MARGIN = 0.02  # two points: what "reaches" may fall short by and "flattens" may still gain

Rule = Literal["above", "below", "reaches", "flat"]
Verdict = Literal["reproduced", "not reproduced", "too few problems to judge"]

RULES: dict[Rule, str] = {
    "above": "reproduced if the whole interval is above 0; not if all of it is below 2 points (and not above 0)",
    "below": "reproduced if the whole interval is below 0; not if all of it is above -2 points (and not below 0)",
    "reaches": "reproduced if the whole interval is above -2 points; not if all of it is below that",
    "flat": "reproduced if the whole interval is below 2 points; not if all of it is above that",
}


@dataclass(frozen=True)
class Claim:
    """One row of the ledger as it was written down beforehand."""

    says: str  # the writeup, in our words
    estimand: str  # what is computed
    rule: Rule


CLAIMS = {
    "1a": Claim(
        "Majority voting clearly beats greedy", "majority at the largest N - greedy of the same policy", "above"
    ),
    "1b": Claim("It flattens at about N = 64", "majority at 64 - at 32 (at the last doubling where N goes on)", "flat"),
    "2a": Claim("Weighted Best-of-N always beats vanilla", "weighted - vanilla at N = 4, 16, 64, 256", "above"),
    "2b": Claim("... most at large N", "(weighted - vanilla) at the largest N - the same at N = 4", "above"),
    "2c": Claim("Both flatten by the largest N", "weighted and vanilla, each: the last doubling of N", "flat"),
    "2d": Claim("Both stay below greedy 8B", "weighted at the largest N - greedy of the policy that plays 8B", "below"),
    "3a": Claim(
        "Beam search at N = 4 reaches Best-of-N at 16", "beam search at 4 - weighted Best-of-N at 16", "reaches"
    ),
    "3b": Claim(
        "Beam search reaches greedy 8B at about N = 32",
        "beam search at 32 (between 16 and 64 in log2 N) - greedy of the policy that plays 8B",
        "reaches",
    ),
    "4a": Claim(
        "Beam search gains consistently on quintiles 3-5",
        "beam search - weighted Best-of-N, mean over all budgets, in quintiles 3, 4, 5",
        "above",
    ),
    "4b": Claim(
        "On easy problems at large N beam search is worse than Best-of-N",
        "beam search - weighted Best-of-N at the largest N in quintile 1",
        "below",
    ),
    "4c": Claim(
        "In quintile 2 majority is the worst at every N but the largest",
        "majority - the mean of Best-of-N and beam search, mean over all budgets but the largest, in quintile 2",
        "below",
    ),
    "4d": Claim(
        "In quintile 2 Best-of-N is ahead of beam search at the largest N",
        "weighted Best-of-N - beam search at the largest N in quintile 2",
        "above",
    ),
    "5": Claim(
        "Beam search loses diversity: the tree collapses",
        "distinct solutions among N = largest, as a share of N: beam search - independent samples",
        "below",
    ),
    "6a": Claim("Beam search is better at small N", "beam search - DVTS at N = 4 and 16", "above"),
    "6b": Claim("DVTS is better at large N", "DVTS - beam search at the largest N", "above"),
    "6c": Claim(
        "DVTS gains on easy and medium problems at large N",
        "DVTS - beam search at the largest N in quintiles 1, 2, 3",
        "above",
    ),
    "7": Claim(
        "Compute-optimal beats each single method",
        "compute-optimal, chosen on one fold and measured on the other - the best single method, chosen likewise",
        "above",
    ),
    "8a": Claim("1B with compute-optimal passes 8B", "compute-optimal at the largest N - greedy of policy 8B", "above"),
    "8b": Claim(
        "3B with compute-optimal passes 70B",
        "second policy: compute-optimal at its largest N - greedy of the policy that plays 70B",
        "above",
    ),
}


COLUMNS = ["claim", "writeup", "part", "problems", "ours", "low", "high", "verdict"]


def judge(rule: Rule, low: float, high: float) -> Verdict:
    """The verdict that an interval gives under a rule; accuracies and differences in [-1, 1]."""
    if rule in ("below", "flat"):  # mirror images
        sign = {"below": "above", "flat": "reaches"}
        return judge(sign[rule], -high, -low)
    bar = 0.0 if rule == "above" else -MARGIN
    if low > bar:
        return "reproduced"
    return "not reproduced" if high < (MARGIN if rule == "above" else bar) else "too few problems to judge"


def rows(claim: str, differences: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """One row a part: differences maps what is asked (such as "N = 16") to a paired difference a problem, (P,).

    The parts' intervals hold together: each is at the level 1 - 0.05 / parts. NaN is a problem that the part leaves
    out, such as one of another quintile.
    """
    if claim not in CLAIMS:
        raise InputError(f"claim {claim!r} is not in the ledger: choose one of {', '.join(CLAIMS)}")
    found = CLAIMS[claim]
    table = []
    for part, values in differences.items():
        values = np.asarray(values, float)
        values = values[~np.isnan(values)]
        if not len(values):
            raise InputError(f"claim {claim}, {part}: no problem has a difference; give more problems")
        # One problem more each way (after Agresti and Min 2005): equal differences of a few problems prove nothing.
        _, low, high = mean_interval(np.append(values, [1.0, -1.0]), level=1 - 0.05 / len(differences))
        ours = values.mean()
        table.append((claim, found.says, part, len(values), ours, low, high, judge(found.rule, low, high)))
    return pd.DataFrame(table, columns=COLUMNS)


def save(tables: Sequence[pd.DataFrame], *, notebook: str, figure: str, folder: str | Path) -> pd.DataFrame:
    """Write a notebook's rows to folder/claims-NN.csv, for the ledger, and return them; no rows write nothing.

    notebook: its number, "01"; figure: the name of the figure that shows them, for rows that have no column `figure`.
    """
    tables = [table for table in tables if len(table)]
    if not tables:
        return rows("1a", {}).assign(figure="", notebook="")
    tables = [table if "figure" in table else table.assign(figure=figure) for table in tables]
    found = pd.concat(tables, ignore_index=True).assign(notebook=notebook)
    Path(folder).mkdir(parents=True, exist_ok=True)
    found.to_csv(Path(folder) / f"claims-{notebook}.csv", index=False, float_format="%.6g", lineterminator="\n")
    return found


def show(found: pd.DataFrame) -> object:
    """The rows as a notebook displays them."""
    return found[COLUMNS].style.format("{:+.1%}", subset=["ours", "low", "high"]).hide(axis="index")


def read(folder: str | Path) -> pd.DataFrame:
    """All rows that the notebooks of a run wrote into a figures folder, in the ledger's order."""
    files = sorted(Path(folder).glob("claims-[0-9][0-9].csv"))
    if not files:
        return rows("1a", {}).assign(figure="", notebook="")
    found = pd.concat([pd.read_csv(file, dtype={"claim": str, "notebook": str}) for file in files], ignore_index=True)
    return found.sort_values("claim", key=lambda column: column.map(list(CLAIMS).index), kind="stable")


BEGIN, END = "<!-- ledger: begin (made by run_all.sh) -->", "<!-- ledger: end -->"


def markdown(figures: str | Path) -> str:
    """The ledger as a Markdown table: that of the `full` profile in figures/full/, and beside it that of figures/."""
    here, there = (
        {(row.claim, row.part): row for row in read(folder).itertuples()}
        for folder in (figures, Path(figures) / "full")
    )
    runs = ["full run", "verdict"] * bool(there) + ["default run", "verdict"]
    heads = ["", "the writeup", "asked", *runs, "shown in"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    said = set()
    for claim, part in sorted({**here, **there}, key=lambda key: list(CLAIMS).index(key[0])):  # stable: parts in order
        mine, other = here.get((claim, part)), there.get((claim, part))
        row, first = other or mine, claim not in said
        said.add(claim)
        cells = [claim * first, row.writeup * first, part]
        for found in (other, mine) if there else (mine,):
            cells += [_points(found), found.verdict] if found else ["", ""]
        folder = Path(figures).name + "/full" * bool(other)
        lines.append("| " + " | ".join([*cells, f"[{row.notebook}]({folder}/{row.figure}.png)"]) + " |")
    return "\n".join(lines)


def _points(row: object) -> str:
    return f"{100 * row.ours:+.1f} [{100 * row.low:+.1f}, {100 * row.high:+.1f}]"


def update_readme(readme: Path, figures: str | Path) -> None:
    """Write the ledger between the README's markers; a README without them is left as it is."""
    text = readme.read_text(encoding="utf-8")
    if BEGIN in text and END in text:
        head, rest = text.split(BEGIN, 1)
        tail = rest.split(END, 1)[1]
        readme.write_text(f"{head}{BEGIN}\n{markdown(figures)}\n{END}{tail}", encoding="utf-8")
