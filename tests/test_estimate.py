"""What a run would make: the table by hand, and a little that is really measured.

That the list of what each notebook collects is right stands in test_notebooks.py, where the notebooks run.
"""

import asyncio
import os

import pytest
from toys import ROOT

from tts.companion.estimate import COLLECTS, Cost, Part, different, estimate, measure, missing, table
from tts.companion.parameters import load_profile, notebooks, prms_of
from tts.companion.plan import plan

OTHERS = prms_of("prm", load_profile("default")["other_prms"])[1:]


def test_the_table_by_hand():
    """Rows of equal work are added up (seeds), N counts, and the sum is of all."""
    sample, search = Cost(50, 0, 0.03, 300), Cost(40, 10, 0.06, 1500)
    parts = [
        Part("01_majority_voting", "xs: samples", 12_800, cost=sample),
        Part("01_majority_voting", "xs: samples", 3_200, cost=sample),
        Part("04_beam_search", "prm: scored solutions", 5_000.4, exact=False, cost=Cost(0, 60, 0.012, 200)),
        Part("04_beam_search", "xs: beam_search, N = 16, M = 4", 100, 16, cost=search),
    ]
    assert table(
        parts, ["01_majority_voting", "04_beam_search", "05_difficulty", "99_mine"], ["a note"]
    ).splitlines() == [
        "notebook            would make                      records  decoded  scored  minutes   MB",
        "01_majority_voting  xs: samples                      16,000    800 k       -      8.0  4.8",
        "04_beam_search      prm: scored solutions            ~5,000        -   300 k      1.0  1.0",
        "                    xs: beam_search, N = 16, M = 4      100     64 k    16 k      1.6  2.4",
        "05_difficulty       nothing, all is there",
        "99_mine             what this table doesn't know",
        "all                                                 ~21,100    864 k   316 k     10.6  8.2",
        "a note",
    ]


def test_what_a_notebook_trains_is_named_and_not_counted():
    made = [Part("10_self_training", "xs: samples", 160, cost=Cost(50, 0, 0.03, 300))]
    for parts in ([], made):
        rows = table(parts, ["10_self_training"]).splitlines()
        assert rows[-2].strip().removeprefix("10_self_training  ").startswith("not counted: its rounds of training")
        assert not any("all is there" in row for row in rows)


def test_how_many_are_different_grows_as_a_power():
    """Of 2 samples 1.5 are different, of 4 2.5: of 8 as many times more again."""
    drawn = [["a", "b", "a", "c"], ["a", "a", "b", "b"]]
    assert different(drawn, 8) == pytest.approx(2.5 * 2.5 / 1.5)
    assert different(drawn, 4) == pytest.approx(2.5)
    assert different([["a"], ["b"]], 3) == 3, "of a single one nothing can be said"


def test_it_knows_every_notebook():
    assert list(COLLECTS) == [path.stem for path in notebooks()]


@pytest.fixture
def smoke(monkeypatch):
    monkeypatch.chdir(ROOT)
    return lambda only: plan(profile="smoke", only=only, changes=["n_max=16", "n_problems=10"])


@pytest.mark.slow
def test_what_an_earlier_notebook_makes_is_not_counted_again(smoke):
    alone = asyncio.run(missing(smoke("03")))
    assert [(one.what, one.records) for one in alone] == [
        ("policy-xs: samples", 160),
        ("prm: scored solutions", 160),
        *((f"policy-{size}: greedy solutions", 10) for size in ("xs", "s", "m", "l")),
        *((f"{name}: scored solutions", 160) for name in OTHERS),
    ]
    both = asyncio.run(missing(smoke("02,03")))
    assert {one.what for one in both if one.notebook == "02_scoring_steps"} == {one.what for one in alone[:2]}
    assert [one.what for one in both[2:]] == [one.what for one in alone[2:]]


@pytest.mark.slow
def test_searches_that_look_ahead_are_named(smoke):
    lacks = asyncio.run(missing(smoke("09")))
    searches = [one.what for one in lacks if "beam_search" in one.what and "with prm," in one.what]
    assert searches == [
        "policy-xs: beam_search with prm, N = 4, M = 4",
        "policy-xs: beam_search with prm, N = 16, M = 4",
        *(f"policy-xs: beam_search looking {k} ahead with prm, N = {n}, M = 4" for k in (1, 2) for n in (4, 16)),
    ]


@pytest.mark.engine
def test_a_little_is_measured_and_nothing_stored(smoke):
    """Of scores that wait for samples, those of the samples that were just measured are made."""
    lacks = asyncio.run(missing(smoke("02")))
    samples, scores = lacks
    assert sum(scores.unsampled.values()) == scores.records == samples.records
    costs, shares, notes = asyncio.run(measure(lacks))
    assert costs[samples.kind].decoded > 10 > 0 == costs[samples.kind].scored
    assert costs[scores.kind].scored > 10 > 0 == costs[scores.kind].decoded
    assert all(cost.seconds > 0 and cost.bytes > 50 for cost in costs.values())
    [share] = shares.values()
    assert 1 / 16 <= share <= 1  # of the solutions that differ
    assert len(notes) == 2 + 2 + 2
    assert not os.path.exists(os.environ["TTS_STORE"])
    text = estimate(smoke("02"))
    assert text.count("policy-xs: samples") == text.count("prm: scored solutions") == 2
