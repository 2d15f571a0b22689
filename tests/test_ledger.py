"""Verdicts and each claim by hand, intervals by simulation, and the README's ledger against the figures' data."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tts.companion import ledger, ledger_table
from tts.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
QUINTILE = np.repeat([1, 2, 3, 4, 5], 2)  # ten problems


def column(*values):
    """A value a quintile, for both of its problems: (10,)."""
    return np.repeat(np.array(values, float), 2)


ZERO, HALF, ONE = (np.full(10, value) for value in (0.0, 0.5, 1.0))


def ours(rows):
    """Part -> the mean difference of a claim's rows."""
    return dict(zip(rows.part, rows.ours.round(10), strict=True))


@pytest.mark.parametrize(
    ("criterion", "low", "high", "verdict"),
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
def test_verdicts(criterion, low, high, verdict):
    assert ledger.judge(criterion, low, high) == verdict


# A claim's function, its arguments, and what it must find: part -> difference. Worked out by hand.
BY_HAND = {
    "1a": (ledger.claim_1a, ({4: ZERO, 64: HALF}, column(0, 0, 0, 0, 1)), {"N = 64": 0.3}),
    "1b": (ledger.claim_1b, ({16: ZERO, 32: HALF, 64: column(1, 1, 1, 1, 0)},), {"N = 32 to 64": 0.3}),
    "2a": (
        ledger.claim_2a,
        ({1: ONE, 4: HALF, 16: ONE, 32: ZERO}, {1: ZERO, 4: ZERO, 16: HALF, 32: ONE}),
        {"N = 4": 0.5, "N = 16": 0.5},
    ),
    "2b": (
        ledger.claim_2b,
        ({4: HALF, 16: ONE, 32: ONE}, {4: column(1, 1, 0, 0, 0), 16: ONE, 32: ZERO}),
        {"N = 32 against 4": 0.9},
    ),
    "2c": (
        ledger.claim_2c,
        ({32: ZERO, 64: HALF}, {32: ONE, 64: HALF}),
        {"weighted, N = 32 to 64": 0.5, "vanilla, N = 32 to 64": -0.5},
    ),
    "2d": (
        ledger.claim_2d,
        ({4: ONE, 16: HALF}, ("m", column(1, 1, 1, 1, 0))),
        {"weighted at N = 16 against greedy m": -0.3},
    ),
    "3a": (ledger.claim_3a, ({4: HALF, 16: ONE}, {4: ONE, 16: column(1, 0, 0, 0, 0)}), {"N = 4 against 16": 0.3}),
    "3b": (
        ledger.claim_3b,
        ({4: ONE, 16: ZERO, 64: ONE}, ("m", column(1, 0, 0, 0, 0))),
        {"N = 32 (interpolated) against greedy m": 0.3},
    ),
    "4a": (
        ledger.claim_4a,
        ({4: column(0, 0, 1, 0, 1), 16: ONE}, {4: ZERO, 16: column(0, 0, 0, 1, 0)}, QUINTILE),
        {"quintile 3": 1.0, "quintile 4": 0.0, "quintile 5": 1.0},
    ),
    "4b": (
        ledger.claim_4b,
        ({4: ONE, 16: column(0, 1, 1, 1, 1)}, {4: ZERO, 16: ONE}, QUINTILE),
        {"quintile 1, N = 16": -1.0},
    ),
    "4c": (
        ledger.claim_4c,
        (
            {4: ZERO, 16: HALF, 64: ONE},  # majority
            {4: ONE, 16: column(0, 1, 0, 0, 0), 64: ZERO},  # Best-of-N
            {4: HALF, 16: ZERO, 64: ZERO},  # beam search
            QUINTILE,
        ),
        {"quintile 2, N < 64": (-0.75 + 0.0) / 2},
    ),
    "4d": (
        ledger.claim_4d,
        ({4: ZERO, 16: column(0, 1, 0, 0, 0)}, {4: ONE, 16: HALF}, QUINTILE),
        {"quintile 2, N = 16": 0.5},
    ),
    "5": (
        ledger.claim_5,
        ({4: np.full(10, 1), 16: np.full(10, 4)}, {4: np.full(10, 4), 16: np.full(10, 12)}),
        {"N = 16": -0.5},
    ),
    "6a": (
        ledger.claim_6a,
        ({4: ONE, 16: HALF, 64: ZERO}, {4: HALF, 16: HALF, 64: ONE}),
        {"N = 4": 0.5, "N = 16": 0.0},
    ),
    "6b": (ledger.claim_6b, ({4: ONE, 64: ZERO}, {4: ZERO, 64: HALF}), {"N = 64": 0.5}),
    "6c": (
        ledger.claim_6c,
        ({64: HALF}, {64: column(1, 0.5, 0, 1, 1)}, QUINTILE),
        {"quintile 1, N = 64": 0.5, "quintile 2, N = 64": 0.0, "quintile 3, N = 64": -0.5},
    ),
    "7": (ledger.claim_7, ({4: HALF, 16: ONE}, {4: ZERO, 16: column(1, 1, 1, 1, 0)}), {"N = 4": 0.5, "N = 16": 0.2}),
    "8a": (ledger.claim_8a, ("xs", {4: ONE, 16: HALF}, ("m", column(1, 0, 0, 0, 0))), {"xs, N = 16, against m": 0.3}),
    "8b": (ledger.claim_8b, ("s", {4: HALF}, ("l", ONE)), {"s, N = 4, against l": -0.5}),
}


@pytest.mark.parametrize("name", ledger.CLAIMS)
def test_each_claim_by_hand(name):
    function, arguments, expected = BY_HAND[name]
    rows = function(*arguments)
    assert ours(rows) == pytest.approx(expected)
    assert set(rows.claim) == {name}
    assert set(rows.problems) == {2 if name in ("4a", "4b", "4c", "4d", "6c") else 10}
    for row in rows.itertuples():  # the verdict is the criterion's, by the row's own interval
        assert row.verdict == ledger.judge(ledger.CLAIMS[name].criterion, row.low, row.high)


@pytest.mark.parametrize(
    ("rows", "needs"),
    [
        (lambda: ledger.claim_1a({64: ONE}, None), "greedy_models"),
        (lambda: ledger.claim_1b({16: ONE, 32: ONE}), "n_max of 64"),
        (lambda: ledger.claim_2b({4: ONE}, {4: ONE}), "n_max above 4"),
        (lambda: ledger.claim_2c({16: ONE, 32: ONE}, {16: ONE, 32: ONE}), "n_max of 64"),
        (lambda: ledger.claim_2d({64: ONE}, None), "plays 8B"),
        (lambda: ledger.claim_3a({4: ONE}, {4: ONE}), "n_max of 16"),
        (lambda: ledger.claim_3b({4: ONE, 16: ONE}, ("m", ONE)), "n_max of 64"),
        (lambda: ledger.claim_3b({16: ONE, 64: ONE}, None), "plays 8B"),
        (lambda: ledger.claim_4b({4: ONE}, {4: ONE}, QUINTILE), "n_max of 16"),
        (lambda: ledger.claim_4c({4: ONE}, {4: ONE}, {4: ONE}, QUINTILE), "n_max of 16"),
        (lambda: ledger.claim_4d({4: ONE}, {4: ONE}, QUINTILE), "n_max of 16"),
        (lambda: ledger.claim_6b({16: ONE}, {16: ONE}), "n_max of 64"),
        (lambda: ledger.claim_6c({16: ONE}, {16: ONE}, QUINTILE), "n_max of 64"),
        (lambda: ledger.claim_8a("xs", {4: ONE}, None), "plays 8B"),
        (lambda: ledger.claim_8b("s", {4: ONE}, None), "plays 70B"),
    ],
)
def test_a_claim_that_cannot_be_asked_says_what_it_needs(rows, needs, tmp_path):
    [row] = rows().itertuples()
    assert row.verdict.startswith("not asked: ")
    assert needs in row.verdict
    shown = ledger_table.save([rows()], notebook="01", folder=tmp_path)
    assert len(shown) == 1  # the notebook shows it ...
    assert not list(tmp_path.iterdir())  # ... and the ledger has no row


def test_claim_7_allows_for_the_choice():
    """Deviations times sqrt 2, the mean as it is."""
    gain = np.array([[0.0, 1.0], [1.0, 3.0]])
    widened = ledger.allow_for_choice(gain)
    assert widened.mean(axis=0) == pytest.approx([0.5, 2.0])
    assert widened - gain.mean(axis=0) == pytest.approx(2**0.5 * (gain - gain.mean(axis=0)))
    curves = {4: column(0, 1, 0, 1, 0)}, {4: ZERO}
    [wide] = ledger.claim_7(*curves).itertuples()
    [plain] = ledger.rows("7", {"N = 4": curves[0][4]}).itertuples()
    assert wide.ours == pytest.approx(plain.ours)
    assert wide.high - wide.low > plain.high - plain.low


def test_rows_leave_out_what_is_not_a_number_and_widen_for_several_parts():
    difference = np.array([0.5] * 10 + [0.0] * 10 + [np.nan] * 5)
    [one] = ledger.rows("4b", {"N = 64": difference}).itertuples()
    assert (one.problems, one.ours, one.verdict) == (20, 0.25, "not reproduced")
    four = ledger.rows("2a", {f"N = {n}": difference for n in (4, 16, 64, 256)})
    assert (four.low < one.low).all()
    assert (four.high > one.high).all()
    with pytest.raises(InputError, match="claim '9z' is not in the ledger"):
        ledger.rows("9z", {})
    with pytest.raises(InputError, match="no problem has a difference"):
        ledger.rows("4b", {"N = 64": difference[-5:]})


def test_rules_say_what_is_computed_and_when_it_counts():
    lines = ledger_table.rules("1a", "7").splitlines()
    assert lines[0] == ("- **1a** majority at the largest N - greedy of the same policy: " + ledger.CRITERIA["above"])
    assert len(lines) == 2
    assert {claim.criterion for claim in ledger.CLAIMS.values()} == set(ledger.CRITERIA)


def test_the_ledger_on_disk(tmp_path):
    up = column(0.1, 0.2, 0.3, 0.1, 0.3)
    beam, dvts = {4: up, 64: up}, {4: ZERO, 64: ZERO}
    saved = ledger_table.save(
        [ledger.claim_6a(beam, dvts), ledger.claim_6b(beam, dvts)], notebook="06", folder=tmp_path
    )
    ledger_table.save([ledger.claim_1a({64: up}, ZERO)], notebook="01", folder=tmp_path)
    ledger_table.save([ledger.claim_1a({256: up}, ZERO)], notebook="01", folder=tmp_path / "full")
    ledger_table.save([ledger.claim_5({4: up}, {4: up})], notebook="04", folder=tmp_path)
    assert len(saved) == 2
    found = ledger_table.read(tmp_path)
    assert found.claim.tolist() == ["1a", "5", "6a", "6b"]
    assert found.figure.tolist() == ["05_majority_voting", "08_collapse", "10_all_methods", "10_all_methods"]
    assert found.notebook.tolist() == ["01", "04", "06", "06"]
    table = ledger_table.markdown(tmp_path)
    assert "+20.0 [" in table
    assert f"({tmp_path.name}/08_collapse.png)" in table
    assert table.count("N = 256") == 1  # a part that only the full run has is a line of its own
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{ledger_table.BEGIN}\nold\n{ledger_table.END}\nafter\n")
    ledger_table.update_readme(readme, tmp_path)
    assert readme.read_text() == f"before\n{ledger_table.BEGIN}\n{table}\n{ledger_table.END}\nafter\n"
    assert ledger_table.read(tmp_path / "none").empty


def test_the_default_run_asks_every_claim_in_one_notebook():
    asked = ledger_table.read(ROOT / "figures").groupby("claim").notebook.nunique().to_dict()
    assert asked == dict.fromkeys(ledger.CLAIMS, 1)


def test_the_readme_says_what_the_data_say():
    text = (ROOT / "README.md").read_text()
    assert ledger_table.BEGIN in text
    shown = text.split(ledger_table.BEGIN)[1].split(ledger_table.END)[0].strip()
    assert shown == ledger_table.markdown(ROOT / "figures")


@pytest.mark.slow
def test_intervals_cover_what_they_should():
    """200 simulated benchmarks of 200 problems, true difference 0.05: about 95 % of the intervals hold it."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        a, b = rng.random((2, 200))
        [row] = ledger.claim_1a({64: (a < 0.55).astype(float)}, b < 0.5).itertuples()
        held += row.low <= 0.05 <= row.high
    assert 0.9 <= held / 200 <= 0.99
    assert isinstance(ledger.rows("1a", {}), pd.DataFrame)
