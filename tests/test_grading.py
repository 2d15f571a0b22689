"""Grading by hand: each sample has exactly one outcome, and votes see the same answers as grades."""

import pandas as pd

from tts.analysis.grading import answer_codes, grade, outcome_shares, score_array, solutions_frame, vote_codes
from tts.problems import Problem
from tts.tree import Search, Solution

PROBLEMS = [Problem(id="half", text="1/2?", answer="\\frac{1}{2}"), Problem(id="two", text="1+1?", answer="2")]
SAMPLES = pd.DataFrame(
    [
        ("half", 0, "so \\boxed{0.5}", "end"),
        ("half", 1, "so \\boxed{\\dfrac12}", "end"),
        ("half", 2, "so \\boxed{2}", "end"),
        ("half", 3, "so it is 0.5", "end"),
        ("two", 0, "so \\boxed{2", "length"),
        ("two", 1, "first \\boxed{3}, no: \\boxed{2}", "length"),
        ("two", 2, "so \\boxed{}", "end"),
        ("two", 3, None, "failed"),
    ],
    columns=["problem", "index", "text", "finish"],
)


def test_outcomes_by_hand():
    graded = grade(SAMPLES, PROBLEMS)
    outcomes = ["right", "right", "wrong", "unboxed", "truncated", "right", "unboxed", "failed"]
    assert graded.outcome.tolist() == outcomes
    assert graded.correct.tolist() == [outcome == "right" for outcome in outcomes]
    assert graded.answer.tolist()[:3] == ["0.5", "\\dfrac12", "2"]
    shares = outcome_shares(graded)
    assert shares.to_dict() == {"right": 3 / 8, "wrong": 1 / 8, "unboxed": 2 / 8, "truncated": 1 / 8, "failed": 1 / 8}


def test_answer_codes_by_hand():
    codes, gold = answer_codes([["x", None, "y", "x"], [None, "z", "z", "w"]], ["y", "q"])
    assert codes.tolist() == [[0, -1, 1, 0], [-1, 0, 0, 1]]
    assert gold.tolist() == [1, -2]


def test_votes_and_grades_agree():
    graded = grade(SAMPLES, PROBLEMS)
    codes, gold = vote_codes(graded, PROBLEMS)
    assert codes.tolist() == [[0, 0, 1, -1], [-1, 0, -1, -1]]
    assert gold.tolist() == [0, 0]
    assert (codes == gold[:, None]).ravel().tolist() == graded.correct.tolist()


def test_votes_follow_the_order_of_problems_not_of_rows():
    graded = grade(SAMPLES, PROBLEMS)
    codes, _ = vote_codes(graded, PROBLEMS[::-1])
    assert codes.tolist() == [[-1, 0, -1, -1], [0, 0, 1, -1]]


def test_a_search_without_solutions_keeps_its_problem():
    found = Solution("so \\boxed{2}", ["so \\boxed{2}"], [0.25], 5, -1.0, "end", (0, 1))
    searches = [None, Search("dvts", "two", 4, [found, found], ["finished"])]
    graded = grade(solutions_frame(searches, PROBLEMS), PROBLEMS)
    assert graded["problem"].tolist() == ["two", "two"]
    codes, gold = vote_codes(graded, PROBLEMS)
    assert (codes == gold[:, None]).tolist() == [[False, False], [True, True]]
    assert score_array(graded, PROBLEMS, "last").tolist() == [[0.0, 0.0], [0.25, 0.25]]


def test_no_search_returned_anything():
    graded = grade(solutions_frame([None, None], PROBLEMS), PROBLEMS)
    codes, gold = vote_codes(graded, PROBLEMS)
    assert codes.tolist() == [[-1], [-1]]
    assert score_array(graded, PROBLEMS, "min").tolist() == [[0.0], [0.0]]
