"""The searches that notebooks 04 and 06 write out by hand are the module's, on the toy tree and on random ones."""

import asyncio
import random
from pathlib import Path

import nbformat
import pytest

from tts.companion import toy
from tts.strategies import beam_search, dvts

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def by_hand(number):
    """The function in the cell that is tagged `toy`."""
    [path] = NOTEBOOKS.glob(f"{number}_*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    [cell] = [cell for cell in cells if "toy" in cell.metadata.get("tags", [])]
    names = {}
    exec(cell.source, names)
    return next(value for name, value in names.items() if name.startswith("plain_"))


def plain_beam(tree, n, m):
    *_, (_, _, finished) = by_hand("04")(tree, n, m)
    return [[step for step, _ in branch[1:]] for branch in finished]


def plain_trees(tree, n, m):
    last = {number: children for number, children, _ in by_hand("06")(tree, n, m)}
    ends = [child for children in last.values() for child in children if child[-1][0] not in tree]
    return [[step for step, _ in branch[1:]] for branch in ends]


def module(strategy, tree, n, m):
    found = asyncio.run(strategy(toy.PROBLEM, toy.Policy(tree), toy.Scorer(tree), n=n, beam_width=m))
    return [[step.strip() for step in one.steps] for one in found.solutions]


def grown(seed, n):
    """A tree with n draws after each step, three steps deep; of the others some end a solution, never all."""
    draw, tree = random.Random(seed), {}
    level = [""]
    for _ in range(3):
        after = {step: [f"{step}/{i}" for i in range(n)] for step in level}
        tree |= {step: [(child, draw.random()) for child in children] for step, children in after.items()}
        level = [one for children in after.values() for i, one in enumerate(children) if not i or draw.random() < 0.7]
    return tree


@pytest.mark.parametrize(("strategy", "plain"), [(beam_search, plain_beam), (dvts, plain_trees)])
def test_the_toy_is_searched_alike(strategy, plain):
    assert module(strategy, toy.TREE, 4, 2) == plain(toy.TREE, 4, 2)


@pytest.mark.parametrize(("strategy", "plain"), [(beam_search, plain_beam), (dvts, plain_trees)])
@pytest.mark.parametrize(("n", "m"), [(4, 2), (4, 4), (6, 2), (8, 4)])
def test_random_trees_are_searched_alike(strategy, plain, n, m):
    for seed in range(10):
        tree = grown(seed, n)
        assert module(strategy, tree, n, m) == plain(tree, n, m), seed


def test_beam_search_loses_the_toys_answer_and_dvts_finds_it():
    """What both notebooks say."""
    ends = {strategy: [steps[-1] for steps in module(strategy, toy.TREE, 4, 2)] for strategy in (beam_search, dvts)}
    assert not toy.RIGHT & set(ends[beam_search])
    assert toy.RIGHT & set(ends[dvts]) == {"20-6=14"}
    assert toy.right(["2+3=5\n\n", "5*4=20\n\n", "20-6=14"]) == [True, True, True]
    assert toy.right(["3*4=12\n\n"]) == [False]
