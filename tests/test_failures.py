"""Where a search lost the right answer, worked by hand."""

import asyncio

import pytest
from fakes import PROBLEM, ScriptedPolicy, ScriptedScorer, by_last, table

from tts.analysis.failures import CAUSES, UNLABELLED, by_depth, cause
from tts.strategies import beam_search

DRAWS = {
    "": ["a\n\n", "b\n\n", "a\n\n", "c\n\n"],
    "a\n\n": ["d\n\n", "e\n\n"],
    "b\n\n": ["f\n\n", "g\n\n"],
    "b\n\nf\n\n": ["h$", "i$"],
    "b\n\ng\n\n": ["h$", "i$"],
    "a\n\nd\n\n": ["h$", "i$"],
}


def searched(**scores):
    scorer = ScriptedScorer(by_last(h=0.5, i=0.5, c=0.1, e=0.1, **scores))
    return asyncio.run(beam_search(PROBLEM, ScriptedPolicy(table(DRAWS)), scorer, n=4, beam_width=2))


def only(*right):
    """The labels where these letters are right steps, and nothing after a wrong one is."""
    return lambda steps: [all(step.strip() in right for step in steps[: k + 1]) for k in range(len(steps))]


def test_depths_by_hand():
    """a is drawn twice and kept once, b is kept; then both of b's children win over d, a's right one."""
    depths = by_depth(searched(a=0.6, b=0.8, d=0.2, f=0.7, g=0.7), only("a", "d", "h"))
    assert depths.index.tolist() == [1, 2, 3]
    assert depths.drawn.tolist() == [4, 4, 4]
    assert depths.drawn_right.tolist() == [2, 1, 0]
    assert depths.kept.tolist() == [2, 2, 4]
    assert depths.kept_right.tolist() == [1, 0, 0]
    assert cause(depths, voted=False, returned=False) == "dropped by the verifier"


def test_what_follows_a_wrong_step_is_wrong_whatever_the_labels_say():
    search = searched(a=0.6, b=0.8, d=0.2, f=0.7, g=0.7)
    depths = by_depth(search, lambda steps: [steps[-1].strip() != "b"] * len(steps))
    assert depths.drawn_right.tolist() == [3, 2, 0]  # d and e, not f and g


def test_one_solution_without_labels_leaves_no_counts_of_right_steps():
    search = searched(a=0.6, b=0.8, d=0.2, f=0.7, g=0.7)
    depths = by_depth(search, lambda steps: None if steps[0].strip() == "a" else [False] * len(steps))
    assert depths.drawn.tolist() == [4, 4, 4]
    assert depths[["drawn_right", "kept_right"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("labels", "voted", "returned", "expected"),
    [
        (only("a", "d"), True, True, "voted for"),
        (only("a", "d"), False, True, "outvoted"),
        (only("a", "d"), False, False, "dropped by the verifier"),
        (only("x"), False, False, "never drawn"),
        (only("b", "x"), False, False, "never drawn"),
        (lambda steps: None, True, True, "voted for"),
        (lambda steps: None, False, True, "outvoted"),
        (lambda steps: None, False, False, "no right answer returned"),
    ],
)
def test_causes(labels, voted, returned, expected):
    depths = by_depth(searched(a=0.6, b=0.8, d=0.2, f=0.7, g=0.7), labels)
    assert cause(depths, voted=voted, returned=returned) == expected
    assert expected in (*CAUSES, *UNLABELLED)
