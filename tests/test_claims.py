"""Verdicts by hand, rows from differences, and the README's ledger against the figures' data."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tts.companion import ledger
from tts.errors import InputError

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("rule", "low", "high", "verdict"),
    [
        ("above", 0.001, 0.1, "reproduced"),
        ("above", -0.05, 0.019, "not reproduced"),
        ("above", -0.05, 0.03, "too few problems to judge"),
        ("below", -0.1, -0.001, "reproduced"),
        ("below", -0.019, 0.05, "not reproduced"),
        ("below", -0.03, 0.05, "too few problems to judge"),
        ("reaches", -0.019, 0.05, "reproduced"),
        ("reaches", -0.1, -0.021, "not reproduced"),
        ("reaches", -0.05, 0.05, "too few problems to judge"),
        ("flat", -0.01, 0.019, "reproduced"),
        ("flat", 0.021, 0.1, "not reproduced"),
        ("flat", 0.01, 0.03, "too few problems to judge"),
    ],
)
def test_verdicts(rule, low, high, verdict):
    assert claims.judge(rule, low, high) == verdict


def test_every_claim_has_a_rule_that_is_explained():
    assert {claim.rule for claim in claims.CLAIMS.values()} == set(claims.RULES)


def test_rows_leave_out_what_is_not_a_number_and_widen_for_several_parts():
    difference = np.array([0.5] * 10 + [0.0] * 10 + [np.nan] * 5)
    [one] = claims.rows("4b", {"N = 64": difference}).itertuples()
    assert (one.problems, one.ours, one.verdict) == (20, 0.25, "not reproduced")
    four = claims.rows("2a", {f"N = {n}": difference for n in (4, 16, 64, 256)})
    assert (four.low < one.low).all()
    assert (four.high > one.high).all()
    with pytest.raises(InputError, match="claim '9z' is not in the ledger"):
        claims.rows("9z", {})


def test_the_ledger_on_disk(tmp_path):
    up = np.array([0.1, 0.2, 0.3] * 9)
    saved = claims.save(
        [claims.rows("6a", {"N = 4": up}), claims.rows("6b", {"N = 64": -up})],
        notebook="06",
        figure="10_all_methods",
        folder=tmp_path,
    )
    claims.save([claims.rows("1a", {"N = 64": up})], notebook="01", figure="05_majority_voting", folder=tmp_path)
    claims.save(
        [claims.rows("1a", {"N = 256": up})], notebook="01", figure="05_majority_voting", folder=tmp_path / "full"
    )
    assert len(saved) == 2
    assert claims.read(tmp_path).claim.tolist() == ["1a", "6a", "6b"]
    assert claims.save([], notebook="07", figure="x", folder=tmp_path).empty
    table = claims.markdown(tmp_path)
    assert "+20.0 [" in table
    assert "not reproduced" in table
    assert table.count("N = 256") == 1  # a part that only the full run has is a line of its own
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{claims.BEGIN}\nold\n{claims.END}\nafter\n")
    claims.update_readme(readme, tmp_path)
    assert readme.read_text() == f"before\n{claims.BEGIN}\n{table}\n{claims.END}\nafter\n"


def test_the_default_run_asks_every_claim_in_one_notebook():
    asked = claims.read(ROOT / "figures").groupby("claim").notebook.nunique().to_dict()
    assert asked == dict.fromkeys(claims.CLAIMS, 1)


def test_rows_may_name_their_own_figure(tmp_path):
    up = np.array([0.1, 0.2, 0.3] * 9)
    own = claims.rows("5", {"N = 64": up}).assign(figure="08_collapse")
    found = claims.save([claims.rows("3a", {"N = 4": up}), own], notebook="04", figure="08_beam", folder=tmp_path)
    assert found.figure.tolist() == ["08_beam", "08_collapse"]
    assert "(" + tmp_path.name + "/08_collapse.png)" in claims.markdown(tmp_path)


def test_the_readme_says_what_the_data_say():
    text = (ROOT / "README.md").read_text()
    assert claims.BEGIN in text
    assert text.split(claims.BEGIN)[1].split(claims.END)[0].strip() == claims.markdown(ROOT / "figures")


def test_intervals_cover_what_they_should():
    """200 simulated benchmarks of 200 problems, true difference 0.05: about 95 % of the intervals hold it."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        a, b = rng.random((2, 200))
        difference = (a < 0.55).astype(float) - (b < 0.5)
        [row] = claims.rows("1a", {"N = 64": difference}).itertuples()
        held += row.low <= 0.05 <= row.high
    assert 0.9 <= held / 200 <= 0.99
    assert isinstance(claims.rows("1a", {}), pd.DataFrame)
