"""The kinds of problems: seven subjects, five levels, each kind with its work.

Every problem asks for two calculations of one kind, and its answer is the pair of their results. A calculation is a few
steps of the same few sorts (sums, differences, products, quotients, remainders). So no single step decides a problem,
and a wrong step seldom leads to the right answer or to the answer of another wrong step. A level sets how many steps a
solution takes and how large the numbers get.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from .notation import add, mul, polynomial, signed
from .work import Both, Chain, Sum, Work


@dataclass(frozen=True)
class Calculation:
    """One half of a problem: how it is asked, the numbers that identify it, its work, its result."""

    asked: str
    numbers: tuple[int, ...]
    work: Work
    result: int


@dataclass(frozen=True)
class Draft:
    """One problem: numbers identify it within its family."""

    text: str
    numbers: tuple[int, ...]
    work: Work
    answers: tuple[str, ...]  # the forms that the boxed answer may take, the canonical one first


Family = Callable[[Random, int], Draft]
FAMILIES: dict[str, Family] = {}
STEPS = {1: (2, 3), 2: (3, 2), 3: (3, 3), 4: (3, 4), 5: (4, 3)}  # of the two calculations, by level
LARGEST = {1: 30, 2: 40, 3: 50, 4: 60, 5: 75}  # no number of a level's solution is larger
OPERANDS = {1: (6, 9), 2: (7, 12), 3: (9, 15), 4: (10, 18), 5: (12, 25)}  # a problem's are of one size


def family(subject: str, wording: str) -> Callable[[Callable[..., Calculation]], Callable[..., Calculation]]:
    """Register a kind of calculation as the family of a subject.

    wording: the problem's text with {0} and {1} for the calculations. The calculation is a function of a random
    generator, its number of steps, the largest number that it may meet, and the size of its operands.
    """

    def register(calculation: Callable[..., Calculation]) -> Callable[..., Calculation]:
        def draw(rng: Random, level: int) -> Draft:
            size = rng.choice(OPERANDS[level])
            counts = rng.sample(STEPS[level], 2)
            first, second = (calculation(rng, count, LARGEST[level], size) for count in counts)
            pair = f"{first.result},{second.result}"
            return Draft(
                text=wording.format(first.asked, second.asked),
                numbers=first.numbers + second.numbers,
                work=Both(first.work, second.work),
                answers=(f"({pair})", f"\\left({pair}\\right)"),
            )

        draw.__name__ = calculation.__name__
        FAMILIES[subject] = draw
        return calculation

    return register


def amount(rng: Random, size: int, most: int) -> int:
    """A number from about a third of size to size, but at most `most`."""
    high = min(size, most)
    return rng.randint(min(max(1, size // 3), high), high)


@family("Prealgebra", "Start at {0}. Start at {1}.")
def running_total(rng: Random, count: int, limit: int, size: int) -> Calculation:
    """A number that is changed again and again."""
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
    return Calculation(f"${start}$: {', '.join(asks)}", tuple(numbers), Chain(tuple(steps)), value)


@family("Algebra", "Solve {0} and {1}.")
def nested_equation(rng: Random, count: int, limit: int, size: int) -> Calculation:
    """An equation such as 3(x + 4) - 7 = 20, undone from the outside in."""
    x = value = rng.randint(1, limit // 2)
    shown, steps, numbers = "x", [], []
    product = True  # whether the last operation was a product
    for _ in range(count):
        factors = [k for k in range(2, 6) if value * k <= limit]
        if not product and factors and value > 1 and rng.random() < 0.25:
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
    return Calculation(f"${shown}={value}$", (*numbers, value), Chain(tuple(reversed(steps))), x)


@family("Counting & Probability", "Count the pairs in {0} and in {1}.")
def outfits(rng: Random, count: int, limit: int, size: int) -> Calculation:
    """How many ways there are in several cases together: a sum of products."""
    products, single = {2: (1, 1), 3: rng.choice(((1, 2), (2, 0))), 4: (2, 1)}[count]
    limit = max(limit, 40)
    while True:
        pairs = [(rng.randint(2, 9), rng.randint(2, 5)) for _ in range(products)]
        if (left := limit - sum(a * b for a, b in pairs)) >= 4 * single:
            break
    singles = [amount(rng, size, left // single) for _ in range(single)]
    result = sum(a * b for a, b in pairs) + sum(singles)
    asked = ", ".join([f"${a}$ by ${b}$" for a, b in pairs] + [f"${c}$" for c in singles])
    numbers = (*(n for pair in pairs for n in pair), *singles)
    return Calculation(asked, numbers, Sum((*pairs, *singles)), result)


@family("Geometry", "Find the perimeters with sides {0} and {1}.")
def perimeter(rng: Random, count: int, limit: int, size: int) -> Calculation:
    """The perimeter of a polygon."""
    size = min(size, 3 * limit // (2 * count + 2))
    while sum(sides := [amount(rng, size, limit) for _ in range(count + 1)]) > limit:
        pass
    return Calculation(", ".join(f"${s}$" for s in sides), tuple(sides), Sum(tuple(sides)), sum(sides))


@family("Number Theory", "Find {0} and {1}.")
def remainder(rng: Random, count: int, limit: int, size: int) -> Calculation:
    """The remainder of a sum, reduced whenever it is large enough."""
    while True:
        m = rng.randint(size, 2 * size)
        terms = {2: 2, 3: 3, 4: rng.choice((3, 4))}[count]
        numbers = [amount(rng, size, m - 1) for _ in range(terms)]
        work = Sum(tuple(numbers), modulus=m)
        if len(work.example(rng)) == count:
            break
    return Calculation(f"${'+'.join(map(str, numbers))}$ modulo ${m}$", (m, *numbers), work, sum(numbers) % m)


@family("Intermediate Algebra", "Find {0} and {1}.")
def polynomial_value(rng: Random, count: int, limit: int, size: int) -> Calculation:
    """A polynomial at a small number, by Horner's scheme."""
    while True:
        k = rng.randint(2, 5)
        c = [1 if count % 2 else rng.randint(2, 7)]  # a leading 1 saves a product
        steps, value = [], c[0]
        for _ in range((count + 1) // 2):
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
            if len(steps) == count:
                break
    return Calculation(f"${polynomial(c)}$ at $x={k}$", (*c, k), Chain(tuple(steps)), value)


@family("Precalculus", "Compute {0} and {1}.")
def dot_product(rng: Random, count: int, limit: int, size: int) -> Calculation:
    """The dot product of two vectors."""
    while True:
        u = [rng.randint(2, 2 + limit // 10) for _ in range(2 + (limit > 60 and count == 4))]
        v = [rng.choice((1, 1, 1, 1, -1)) * rng.randint(2, 5) for _ in u]
        values = [a * b for a, b in zip(u, v)]
        if sum(max(x, 0) for x in values) <= limit and sum(min(x, 0) for x in values) >= -limit // 2:
            break
    asked = f"$({','.join(map(str, u))})\\cdot({','.join(map(str, v))})$"
    return Calculation(asked, (*u, *v), Sum(tuple(zip(u, v))), sum(values))
