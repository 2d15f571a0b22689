"""The kinds of problems: seven subjects, five levels, each kind with its work.

Every kind is a calculation of several steps of the same few sorts (sums, differences, products, quotients, remainders),
so that no single step decides a problem. A level sets how many steps a solution takes and how large the numbers get. A
family is a function of a random generator and a level that draws the numbers of one problem.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from .notation import add, mul, polynomial, signed
from .work import Chain, Sum, Work


@dataclass(frozen=True)
class Draft:
    """One problem before it is worded: numbers identify it within its family, whatever the wording."""

    texts: tuple[str, ...]  # equivalent wordings
    numbers: tuple[int, ...]
    work: Work
    answers: tuple[str, ...]  # the forms that the boxed answer may take, the canonical one first


Family = Callable[[Random, int], Draft]
FAMILIES: dict[str, Family] = {}
LARGEST = {1: 25, 2: 30, 3: 40, 4: 60, 5: 99}  # no number of a level's solution is larger
OPERANDS = {1: (4, 9), 2: (6, 9), 3: (9, 12), 4: (9, 15, 25), 5: (12, 20, 40)}  # a problem's are of one size


def family(subject: str) -> Callable[[Family], Family]:
    """Register the family of a subject."""

    def register(function: Family) -> Family:
        FAMILIES[subject] = function
        return function

    return register


def amount(rng: Random, size: int, most: int) -> int:
    """A number from about a third of size to size, but at most `most`."""
    high = min(size, most)
    return rng.randint(min(max(1, size // 3), high), high)


@family("Prealgebra")
def running_total(rng: Random, level: int) -> Draft:
    """A number that is changed again and again."""
    limit, count = LARGEST[level], {1: 4, 2: 5, 3: 6, 4: 7, 5: 9}[level]
    size = rng.choice(OPERANDS[level])
    value = start = rng.randint(2, limit // 2)
    steps, asks, numbers = [], [], [start]
    for _ in range(count):
        factors = [k for k in range(2, 6) if value * k <= limit]
        kind = rng.choice("++--*")
        if kind == "*" and factors and value > 1:
            k = rng.choice(factors)
            step, ask, value = mul(value, k), f"times ${k}$", value * k
        elif (kind == "-" or value == limit) and value > 1:
            k = amount(rng, size, value - 1)
            step, ask, value = add(value, -k), f"minus ${k}$", value - k
        else:
            k = amount(rng, size, limit - value)
            step, ask, value = add(value, k), f"plus ${k}$", value + k
        steps.append(step)
        asks.append(ask)
        numbers.append(k)
    text = f"Start at ${start}$: {', '.join(asks)}."
    return Draft((text,), tuple(numbers), Chain(tuple(steps)), (str(value),))


@family("Algebra")
def nested_equation(rng: Random, level: int) -> Draft:
    """An equation such as 3(x + 4) - 7 = 20, undone from the outside in."""
    limit, count = LARGEST[level], {1: 4, 2: 5, 3: 6, 4: 7, 5: 9}[level]
    size = rng.choice(OPERANDS[level])
    x = value = rng.randint(1, limit // 2)
    shown, steps, numbers = "x", [], []
    product = True  # whether the last operation was a product
    for _ in range(count):
        factors = [k for k in range(2, 6) if value * k <= limit]
        if not product and factors and value > 1 and rng.random() < 0.4:
            k = rng.choice(factors)
            shown = f"{k}({shown})"
            steps.append(f"{value * k}/{k}={value}")
            value, product = value * k, True
        else:
            down = value > 1 and (rng.random() < 0.5 or value == limit)
            k = -amount(rng, size, value - 1) if down else amount(rng, size, limit - value)
            shown, product = shown + signed(k), False
            steps.append(add(value + k, -k))
            value += k
        numbers.append(k)
    text = f"Solve ${shown}={value}$."
    return Draft((text,), (*numbers, value), Chain(tuple(reversed(steps))), (str(x), f"x={x}"))


def products_within(rng: Random, count: int, limit: int) -> list[tuple[int, int]]:
    """`count` pairs of factors whose products add up to at most limit."""
    while True:
        pairs = [(rng.randint(2, 9), rng.randint(2, 5)) for _ in range(count)]
        if sum(a * b for a, b in pairs) <= limit:
            return pairs


@family("Counting & Probability")
def outfits(rng: Random, level: int) -> Draft:
    """How many ways there are in several cases together: a sum of products."""
    count, single = {1: (2, 1), 2: (2, 2), 3: (3, 1), 4: (3, 2), 5: (4, 2)}[level]
    limit = max(LARGEST[level], 40)
    size = rng.choice(OPERANDS[level])
    pairs = products_within(rng, count, limit - 4 * single)
    singles = [amount(rng, size, (limit - sum(a * b for a, b in pairs)) // single) for _ in range(single)]
    text = ", ".join([f"${a}$ by ${b}$" for a, b in pairs] + [f"${c}$" for c in singles])
    answer = sum(a * b for a, b in pairs) + sum(singles)
    numbers = (*(n for pair in pairs for n in pair), *singles)
    return Draft((f"Count the pairs in {text}.",), numbers, Sum((*pairs, *singles)), (str(answer),))


@family("Geometry")
def perimeter(rng: Random, level: int) -> Draft:
    """The perimeter of a polygon."""
    count, limit = {1: 5, 2: 6, 3: 7, 4: 8, 5: 10}[level], LARGEST[level]
    size = min(rng.choice(OPERANDS[level]), 3 * limit // (2 * count))
    while sum(sides := [amount(rng, size, limit) for _ in range(count)]) > limit:
        pass
    text = f"Find the perimeter with sides {', '.join(f'${s}$' for s in sides)}."
    return Draft((text,), tuple(sides), Sum(tuple(sides)), (str(sum(sides)),))


@family("Number Theory")
def remainder(rng: Random, level: int) -> Draft:
    """The remainder of a sum, reduced on the way or at the end."""
    count, limit = {1: 4, 2: 5, 3: 5, 4: 6, 5: 7}[level], LARGEST[level]
    size, m = rng.choice(OPERANDS[level]), rng.randint(limit // 3, 2 * limit // 3)
    terms = [amount(rng, size, m - 1) for _ in range(count)]
    text = f"Find ${'+'.join(map(str, terms))}$ modulo ${m}$."
    return Draft((text,), (m, *terms), Sum(tuple(terms), modulus=m), (str(sum(terms) % m),))


@family("Intermediate Algebra")
def polynomial_value(rng: Random, level: int) -> Draft:
    """A polynomial at a small number, by Horner's scheme."""
    size, limit, degree = rng.choice(OPERANDS[level]), LARGEST[level], {1: 2, 2: 3, 3: 3, 4: 4, 5: 5}[level]
    while True:
        k = rng.randint(2, 4)
        c = [rng.randint(1, 5)]
        steps, value = [], c[0]
        for _ in range(degree):
            if value * k > limit:
                break
            down = rng.random() < 0.5 or value * k == limit
            d = -amount(rng, size, value * k - 1) if down else amount(rng, size, limit - value * k)
            if value > 1:
                steps.append(mul(value, k))
            steps.append(add(value * k, d))
            c.append(d)
            value = value * k + d
        else:
            break
    return Draft((f"Find ${polynomial(c)}$ at $x={k}$.",), (*c, k), Chain(tuple(steps)), (str(value),))


@family("Precalculus")
def dot_product(rng: Random, level: int) -> Draft:
    """The dot product of two vectors."""
    count, limit = {1: 3, 2: 3, 3: 4, 4: 4, 5: 5}[level], max(LARGEST[level], 40)
    while True:
        u = [rng.randint(2, 9) for _ in range(count)]
        v = [rng.choice((1, 1, -1)) * rng.randint(2, 5) for _ in range(count)]
        values = [a * b for a, b in zip(u, v)]
        if sum(max(x, 0) for x in values) <= limit and sum(min(x, 0) for x in values) >= -limit // 2:
            break
    ask = f"({','.join(map(str, u))})\\cdot({','.join(map(str, v))})"
    return Draft((f"Compute ${ask}$.",), (*u, *v), Sum(tuple(zip(u, v))), (str(sum(values)),))
