"""A vote that stops early: by hand, its bound by simulation, and in the orders of the other votes."""

import numpy as np

from tts.analysis.curves import orders
from tts.analysis.stopping import decided, early_vote, stops_at


def first_stop(keys, error):
    return next((n for n in range(1, len(keys) + 1) if decided(keys[:n], error)), None)


def test_by_hand():
    """All alike: 2^(n+1) / (n+1) * (1 - 2^-(n+1)) after n later wins, at least 2 / error: 40 at 5 %, 200 at 1 %."""
    assert first_stop(["a"] * 64, 0.05) == 9  # 511 / 9 = 56.8; one before 255 / 8 = 31.9
    assert first_stop(["a"] * 64, 0.01) == 12  # 4095 / 12 = 341; one before 2047 / 11 = 186
    assert first_stop(["a", "b"] * 100, 0.05) is None
    assert first_stop([None] * 100, 0.05) is None
    assert not decided([], 0.05)


def test_a_late_answer_needs_more():
    """The second that appears needs 6 / error = 120 of later wins alone: 2^11 / 11 = 186, one before 102."""
    assert first_stop(["b"] + ["a"] * 64, 0.05) == 1 + 11
    assert first_stop(["b", None] + ["a"] * 64, 0.05) == 2 + 11, "no answer neither wins nor loses"


def test_a_wrong_answer_is_seldom_decided():
    """The worst case, two answers that are hardly apart, looked at after every draw: at most 10 % are wrong."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(300):
        keys = ["m" if draw < 0.505 else "a" for draw in rng.random(60)]
        stop = first_stop(keys, 0.1)
        wrong += stop is not None and keys[:stop].count("a") > stop / 2
    assert wrong <= 45  # 30, and three standard deviations


def test_it_stops_early_where_one_answer_leads():
    rng = np.random.default_rng(0)
    stops = [first_stop(list(rng.choice(list("mab"), 64, p=[0.8, 0.1, 0.1])), 0.05) for _ in range(50)]
    assert sum(stop is not None and stop < 40 for stop in stops) >= 40


def test_it_looks_now_and_then():
    assert stops_at(["a"] * 64, 0.05) == 12  # decided at 9, seen at 12
    assert stops_at(["a"] * 64, 0.05, at_once=1) == 9
    assert stops_at(["a"] * 10, 0.05) == 10, "nothing is decided at 4 and 8, and 10 are all"
    assert stops_at(["a", "b"] * 8, 0.05) == 16


def test_problems_in_the_orders_of_the_other_votes():
    """A problem that always says the same stops at 12; one without answers takes all; a mixed one by its own order."""
    codes = np.array([[0] * 20, [-1] * 20, [0] * 6 + [1] * 14])
    answer, taken = early_vote(codes, 0.05, draws=3, seed=5)
    assert taken[:, 0].tolist() == [12] * 3
    assert taken[:, 1].tolist() == [20] * 3
    assert answer[:, :2].tolist() == [[0, -1]] * 3
    for i, order in enumerate(orders(3, 20, 3, 5)):
        keys = codes[2][order[2]].tolist()
        assert taken[i, 2] == stops_at(keys, 0.05)
        seen = keys[: taken[i, 2]]
        assert answer[i, 2] == max(dict.fromkeys(seen), key=seen.count)
