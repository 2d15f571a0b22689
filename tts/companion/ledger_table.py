"""The ledger on disk and on the page: a CSV a notebook, and the table in the README."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tts.companion.ledger import CLAIMS, COLUMNS, CRITERIA

DEFAULT = "default run"
RUNS = {"full run": "full", "replay run": "replay", DEFAULT: ""}  # as the table calls them -> folder below figures/

BEGIN, END = "<!-- ledger: begin (made by run_all.sh) -->", "<!-- ledger: end -->"


def rules(*names: str) -> str:
    """What is computed for these claims and when each counts as reproduced, as a Markdown list."""
    found = {name: CLAIMS[name] for name in names}
    return "\n".join(f"- **{name}** {claim.estimand}: {CRITERIA[claim.criterion]}" for name, claim in found.items())


def save(tables: Sequence[pd.DataFrame], *, notebook: str, folder: str | Path, mirrors: bool) -> pd.DataFrame:
    """Write a notebook's rows (tts.companion.ledger) to folder/claims-NN.csv and return them.

    notebook: its number, "01". mirrors: whether the run is one of the embedded world that mirrors the real experiment;
    then the column `basis` says "matched" where this world was made to match the claim, and "predicted" elsewhere, and
    else it is empty. Claims that were not asked have no row in the file; where none was, there is no file.
    """
    found = pd.concat(tables, ignore_index=True)
    known = {name: "matched" if claim.matched else "predicted" for name, claim in CLAIMS.items()}
    found["basis"] = [known[name] if mirrors else "" for name in found.claim]
    asked = found[found.problems > 0]
    asked = asked.assign(figure=[CLAIMS[name].figure for name in asked.claim], notebook=notebook)
    if len(asked):
        Path(folder).mkdir(parents=True, exist_ok=True)
        path = Path(folder) / f"claims-{notebook}.csv"
        asked.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    return found


def show(found: pd.DataFrame) -> object:
    """The rows as a notebook displays them."""
    shown = found[[*COLUMNS, "basis"]].rename(columns={"number": "its number"})
    return shown.style.format("{:+.1%}", subset=["ours", "low", "high"], na_rep="").hide(axis="index")


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


def markdown(figures: str | Path) -> str:
    """The ledger as a Markdown table: the rows of figures/full/, figures/replay/ and figures/ side by side.

    A run has its columns where its folder has rows; the default run has them always.
    """
    folders = {name: Path(figures) / folder for name, folder in RUNS.items()}
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
        folder = "/".join(filter(None, (Path(figures).name, RUNS[shown_in])))
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
