"""What the notebooks' sentences say holds in the committed figures' points, and their cells are short.

A sentence about a result stands in STATEMENTS with its check. Sentences about how something works need none.
"""

import re
import statistics
from pathlib import Path

import nbformat
import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
LONGEST, MEDIAN = 15, 7  # lines of a code cell


def points(name):
    """The committed points of a figure, without the writeup's."""
    table = pd.read_csv(ROOT / "figures" / f"{name}.csv")
    return table[table.source.isna()] if "source" in table else table


def at(table, method, value="accuracy"):
    """N -> value of a method."""
    rows = table[(table.method == method) & table.n.notna()]
    return rows.set_index("n")[value]


def level_up_to_two():
    majority = at(points("05_majority_voting"), "majority")
    return abs(majority[2] - majority[1]) < 0.005 and majority.iloc[-1] > majority[2]


def often_among_the_samples():
    table = points("05_majority_voting")
    return at(table, "pass_at_n").iloc[-1] > at(table, "majority").iloc[-1] + 0.1


def missing_against_independent_samples():
    table = points("08_collapse")
    by_kind = [(at(rows, "beam_search", "value"), at(rows, "majority", "value")) for _, rows in table.groupby("kind")]
    return all((beam < alone).all() for beam, alone in by_kind)


# notebook, words that stand in it, whether they hold
STATEMENTS = [
    ("01", "The vote is level up to N = 2, as it has to be, and then rises", level_up_to_two),
    ("01", "A right answer is often among the samples, and the vote does not find it.", often_among_the_samples),
    ("04", "at a larger N what is missing against independent samples", missing_against_independent_samples),
]


@pytest.mark.parametrize(("number", "words", "holds"), STATEMENTS, ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_said_holds(number, words, holds):
    [path] = [path for path in NOTEBOOKS if path.name.startswith(number)]
    prose = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    assert words in re.sub(r"\s+", " ", " ".join(prose)), "the sentence was changed: change its check as well"
    assert holds(), f"{path.name} says: {words}"


def code_cells(path):
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", [])]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_are_short(path):
    lines = [len(cell.source.splitlines()) for cell in code_cells(path)]
    assert max(lines) <= LONGEST, code_cells(path)[lines.index(max(lines))].source
    assert statistics.median(lines) <= MEDIAN


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_two_exercises_with_folded_answers(path):
    cells = nbformat.read(path, as_version=4).cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert re.search(r"^## \d+\. Exercises$", prose, re.MULTILINE)
    assert prose.count("\n**1.** ") == prose.count("\n**2.** ") == 1 or prose.count("**2.** ") == 1
    assert sum("show.folded(" in cell.source for cell in code_cells(path)) == 2


def test_every_notebook_links_what_is_not_reproduced():
    assert (ROOT / "notebooks" / "NOT_REPRODUCED.md").exists()
    for path in NOTEBOOKS:
        assert "(NOT_REPRODUCED.md)" in path.read_text(encoding="utf-8"), path.name
