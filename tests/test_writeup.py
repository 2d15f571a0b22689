"""The writeup's numbers: those of the sources, beside ours where both are known."""

from pathlib import Path

import pandas as pd
import pytest

from tts.companion import writeup

FACTS = Path(__file__).parents[2] / "shared" / "reference" / "FACTS.md"


def test_numbers_by_hand():
    found = writeup.numbers("best_of_n_weighted", "dvts")
    at = {(row.method, row.n): row.accuracy for row in found.itertuples() if row.n == 64}
    assert at == {("best_of_n_weighted", 64): 0.494, ("dvts", 64): 0.539}
    assert sorted(found[found.n == 256].accuracy) == [0.475, 0.505, 0.544]  # two sources of one, and one of the other
    greedy = found[found.n.isna()]
    assert dict(zip(greedy.label, greedy.accuracy, strict=True)) == {"1B": 0.26, "3B": 0.414, "8B": 0.498, "70B": 0.652}
    assert found.source.str.len().gt(0).all()
    assert writeup.numbers("majority", greedy=False).n.notna().all()
    assert writeup.numbers("beam_search", coverage=True, greedy=False).accuracy.tolist() == [0.536, 0.649, 0.721]
    assert writeup.numbers("no such method", greedy=False).empty


@pytest.mark.skipif(not FACTS.exists(), reason="the sources' page stands beside a development checkout only")
def test_every_number_stands_in_the_sources():
    text = FACTS.read_text(encoding="utf-8")
    for known in (writeup.ACCURACY, writeup.COVERAGE):
        for curve in known.values():
            assert all(f"{value}" in text for value in curve.values())
    assert all(f"{value}" in text for value in (*writeup.GREEDY_ACCURACY.values(), *writeup.QUINTILE_EDGES))


def test_tables_have_a_column_of_the_writeup_where_it_has_a_number():
    rows = [("majority", 4, 0.2), ("majority", 5, 0.3), ("two folds", 4, 0.4)]
    table = writeup.beside(pd.DataFrame(rows, columns=["method", "n", "accuracy"]))
    assert list(table) == [("majority voting", "ours"), ("majority voting", "writeup"), ("two folds", "ours")]
    assert table.loc[4].tolist() == ["20.0%", "29.6%", "40.0%"]
    assert table.loc[5].tolist() == ["30.0%", "", ""]
    both = writeup.beside(pd.DataFrame([("best_of_n_weighted", 256, 0.4)], columns=["method", "n", "accuracy"]))
    assert both.iloc[0].tolist() == ["40.0%", "50.5% / 47.5%"]


def test_baselines_play_the_writeups_by_their_place():
    lines = pd.DataFrame({"method": ["greedy a", "greedy b"], "accuracy": 0.5, "low": 0.4, "high": 0.6})
    table = writeup.greedy_beside(lines)
    assert table.plays.tolist() == ["1B", "3B"]
    assert table.writeup.tolist() == ["26.0%", "41.4%"]
    five = writeup.greedy_beside(pd.concat([lines] * 3).head(5))
    assert five.plays.tolist() == ["1B", "3B", "8B", "70B", ""]
    assert writeup.greedy_beside(lines.head(0)).empty
