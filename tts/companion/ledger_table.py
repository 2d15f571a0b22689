"""The ledger on disk and on the page: a CSV a notebook, the whole table in figures/, and the README's short one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tts.companion.ledger import CLAIMS, COLUMNS, CRITERIA, OURS, Claim, Verdict

DEFAULT = "default run"
# The runs whose figures are committed: as the table calls them -> folder below figures/.
RUNS = {"full run": "full", "N to 256": "n256", "replay run": "replay", DEFAULT: ""}

# Why a claim is not reproduced, in ten words at most. The README shows a reason where a run's verdict is one of TOLD.
REASONS: dict[str, str] = {
    "2c": "vanilla falls: the highest of many scores is overrated (03)",
    "3a": "with exact too: few draws a step (what we learned)",
    "3b": "with prm-strong it does, at 64 (what we learned)",
    "6a": "with exact verifier it is, at 16 (what we learned)",
    "7": "at 4 beam search is best in most quintiles (07)",
    "8b": "right answers there, not picked (08)",
    "9e": "the PRM is ten times as large as the policy",
    "9h": "to double N in one fifth, two must halve theirs",
    "9j": "its AUC is below that of the likelihood alone",
}
TOLD = ("not reproduced", "does not hold", "no difference beyond 2 points")
BEYOND = "beyond the writeup"

# A claim with several parts says that all of them hold, so the first of these verdicts that a part has is the claim's.
WORST_FIRST: tuple[Verdict | str, ...] = (
    "not reproduced",
    "does not hold",
    "no difference beyond 2 points",
    "too few problems to judge",
    "reproduced",
    "holds",
)

BEGIN, END = "<!-- ledger: begin (made by run_all.sh) -->", "<!-- ledger: end -->"


def rules(*names: str) -> str:
    """What is computed for these claims and when each counts as reproduced, as a Markdown list."""
    found = {name: CLAIMS[name] for name in names}
    return "\n".join(f"- **{name}** {claim.estimand}: {_criterion(claim)}" for name, claim in found.items())


def _criterion(claim: Claim) -> str:
    words = CRITERIA[claim.criterion]
    for verdict in reversed(OURS) if claim.beyond else ():  # "not reproduced" has "reproduced" in it
        words = words.replace(verdict, OURS[verdict])
    return words


def save(tables: Sequence[pd.DataFrame], *, notebook: str, folder: str | Path, mirrors: bool) -> pd.DataFrame:
    """Write a notebook's rows (tts.companion.ledger) to folder/claims-NN.csv and return them.

    notebook: its number, "01". mirrors: whether the run is one of the embedded world that mirrors the real experiment;
    then the column `basis` says "matched" where this world was made to match the claim, and "predicted" elsewhere, and
    else it is empty. For a claim of our own it says "beyond the writeup" in any run. Claims that were not asked have no
    row in the file; where none was, there is no file.
    """
    found = pd.concat(tables, ignore_index=True)
    known = {name: "matched" if claim.matched else "predicted" for name, claim in CLAIMS.items()}
    found["basis"] = [BEYOND if CLAIMS[name].beyond else known[name] if mirrors else "" for name in found.claim]
    asked = found[found.problems > 0]
    asked = asked.assign(figure=[CLAIMS[name].figure for name in asked.claim], notebook=notebook)
    if len(asked):
        Path(folder).mkdir(parents=True, exist_ok=True)
        path = Path(folder) / f"claims-{notebook}.csv"
        asked.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    return found


def show(found: pd.DataFrame) -> object:
    """The rows as a notebook displays them, without a column of words in which nothing stands."""
    shown = found[[*COLUMNS, "basis"]].rename(columns={"number": "its number"})
    shown = shown.drop(columns=[name for name in ("its number", "part", "basis") if not any(shown[name].fillna(""))])
    styler = shown.style.format("{:+.1%}", subset=["ours", "low", "high"], na_rep="").hide(axis="index")
    both = '<a href="../figures/ledger.md">the ledger</a> has all runs'
    return styler.set_caption(f"Verdicts of this run. In the full run, with more problems, some change: {both}.")


def read(folder: str | Path) -> pd.DataFrame:
    """All rows that the notebooks of a run wrote into a figures folder, in the ledger's order; no text is ""."""
    files = sorted(Path(folder).glob("claims-[0-9][0-9].csv"))
    columns = [*COLUMNS, "basis", "figure", "notebook"]
    if not files:
        return pd.DataFrame(columns=columns)
    found = pd.concat([pd.read_csv(file, dtype={"claim": str, "notebook": str}) for file in files], ignore_index=True)
    found = found.reindex(columns=columns)  # a file that an earlier version wrote lacks some
    texts = ["number", "part", "basis"]
    found[texts] = found[texts].astype(object).fillna("")
    return found.sort_values("claim", key=lambda column: column.map(list(CLAIMS).index), kind="stable")


def by_claim(figures: str | Path) -> str:
    """The README's table: one row a claim, with its number from the first of RUNS that has the claim, and all verdicts.

    A claim with several parts shows the last part that has the claim's verdict (WORST_FIRST), and says how many parts
    have it. A run without a verdict has no column, and a claim of our own a row only where it was asked. Replays are
    left out: the long table has them.
    """
    found = {run: read(Path(figures) / folder) for run, folder in RUNS.items() if folder != "replay"}
    found = {run: rows for run, rows in found.items() if len(rows)}
    table = [("the writeup", "its number", "ours", *found, "why")]
    table.append(("---",) * len(table[0]))
    for claim, known in CLAIMS.items():
        of_run = {run: _deciding(rows[rows.claim == claim]) for run, rows in found.items()}
        asked = [run for run in of_run if len(of_run[run][1])]
        if not asked and known.beyond:
            continue
        says, ours, reason = f"{claim} {known.says}", "", ""
        if asked:
            run = asked[0]
            row = of_run[run][1].iloc[-1]
            link = "/".join(filter(None, (Path(figures).name, RUNS[run], f"{row.figure}.png")))
            says, ours = f"[{claim}]({link}) {known.says}", f"{_points(row)}, {row.part}"
            ours += f" ({run})" if run != next(iter(found)) else ""
            reason = REASONS.get(claim, "") if any(verdict in TOLD for verdict, *_ in of_run.values()) else ""
        number = BEYOND if known.beyond else known.number.split(":")[0]  # how it was measured is in the long table
        verdicts = [
            f"{verdict} ({len(deciding)} of {parts} parts)" if parts > 1 else verdict
            for verdict, deciding, parts in of_run.values()
        ]
        table.append((says, number, ours, *verdicts, reason))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in table)


def _deciding(rows: pd.DataFrame) -> tuple[str, pd.DataFrame, int]:
    """A claim's verdict by all its parts in one run, the parts that have it, and how many parts were asked."""
    rows = rows[rows.verdict.isin(WORST_FIRST)]
    verdict = next((one for one in WORST_FIRST if one in set(rows.verdict)), "not asked")
    return verdict, rows[rows.verdict == verdict], len(rows)


def markdown(figures: str | Path, *, only: str = "") -> str:
    """The whole ledger as a Markdown table: the rows of all RUNS side by side.

    A run has its columns where its folder has rows; the default run has them always. only: one run's name in RUNS; then
    the table has that run alone, and its links are those of a page in that run's folder.
    """
    folders = {name: Path(figures) / folder for name, folder in RUNS.items() if only in ("", name)}
    found = {
        name: {(row.claim, row.part): row for row in read(folder).itertuples()} for name, folder in folders.items()
    }
    found = {name: rows for name, rows in found.items() if rows or name == DEFAULT}
    runs = [head for name in found for head in (name, "verdict")]
    heads = ["", "the writeup", "its number", "basis", "asked", *runs, "shown in"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    said = set()
    # The default run's order of parts first; sorting is stable.
    keys = dict.fromkeys(key for name in reversed(found) for key in found[name])
    for claim, part in sorted(keys, key=lambda key: list(CLAIMS).index(key[0])):
        of_runs = {name: rows.get((claim, part)) for name, rows in found.items()}
        shown_in, row = next((name, row) for name, row in of_runs.items() if row)
        basis = next((one.basis for one in of_runs.values() if one and one.basis), "")
        first = claim not in said
        said.add(claim)
        cells = [claim * first, row.writeup * first, row.number * first, basis * first, part]
        for one in of_runs.values():
            cells += [_points(one), one.verdict] if one else ["", ""]
        link = "/".join(filter(None, ("" if only else RUNS[shown_in], f"{row.figure}.png")))
        lines.append("| " + " | ".join([*cells, f"[{row.notebook}]({link})"]) + " |")
    return "\n".join(lines)


def _points(row: object) -> str:
    return f"{100 * row.ours:+.1f} [{100 * row.low:+.1f}, {100 * row.high:+.1f}]"


ABOUT = """# The ledger of claims

Every part of every claim. Differences are in points of accuracy (claim 5: of the share of N; 9l, 9m: of AUC) with 95 %
intervals over problems, widened so that all parts of a claim hold together. *Matched*: the embedded models were made to
agree with the real experiment in this. *Predicted*: they were not. *Beyond the writeup*: a question of our own, whose
rule was written down before it was asked. A verdict that begins with *comparison* is no claim: it is the same question,
asked of another method. *Full run*: `--profile full`, 3,000 problems, N to 64 ([how it was
made]({up}figures/full/README.md)). *N to 256*: `--profile n256`, the first 1,000 of them ([how it was
made]({up}figures/n256/README.md)). Both have five seeds to N = 16 and one beyond. *Default run*: 500 problems, one
seed, N to 64 (policy-s to 16). Where verifiers, lookahead or trained policies are compared (9a to 9c, 9i, the searches
of 9k and 9n to 9p), there are 500 problems in the full run, and 100 in the default one.
[The rules]({up}tts/companion/README.md) say what is computed, when a claim is reproduced, and where the writeup's
numbers come from.
"""


def write_pages(figures: str | Path) -> None:
    """Write figures/ledger.md, with all RUNS side by side, and a ledger.md of its own for each run but the default.

    No page is written where there are no rows.
    """
    runs = {run: Path(figures) / folder for run, folder in RUNS.items()}
    runs = {run: folder for run, folder in runs.items() if not read(folder).empty}
    pages = {folder: (run, "../../") for run, folder in runs.items() if run != DEFAULT}
    if runs:
        pages[Path(figures)] = ("", "../")
    for folder, (only, up) in pages.items():
        text = f"{ABOUT.format(up=up)}\n{markdown(figures, only=only)}\n"
        (folder / "ledger.md").write_text(text, encoding="utf-8")


def update_readme(readme: Path, figures: str | Path) -> None:
    """Write the short table between the README's markers; a README without them is left as it is."""
    text = readme.read_text(encoding="utf-8")
    if BEGIN in text and END in text:
        head, rest = text.split(BEGIN, 1)
        tail = rest.split(END, 1)[1]
        readme.write_text(f"{head}{BEGIN}\n{by_claim(figures)}\n{END}{tail}", encoding="utf-8")
