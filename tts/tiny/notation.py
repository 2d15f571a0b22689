"""LaTeX for numbers, sums and products, and the routes that a calculation may take."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import permutations, product

Route = tuple[str, ...]  # the mathematical content of each step, the boxed one left out


def num(value: Fraction | int) -> str:
    """An integer or a fraction in lowest terms: "-7" or "-\\frac{3}{4}"."""
    value = Fraction(value)
    return str(value.numerator) if value.denominator == 1 else frac(value.numerator, value.denominator)


def frac(top: int, bottom: int) -> str:
    """A fraction as it stands, not reduced."""
    return f"{'-' if top < 0 else ''}\\frac{{{abs(top)}}}{{{bottom}}}"


def par(value: Fraction | int) -> str:
    """A number as a right-hand factor: negative ones in parentheses."""
    return f"({num(value)})" if value < 0 else num(value)


def signed(value: Fraction | int) -> str:
    """A number as a later term of a sum: "+3" or "-3"."""
    return f"{'-' if value < 0 else '+'}{num(abs(value))}"


def add(a: Fraction | int, b: Fraction | int) -> str:
    """The step a + b = c."""
    return f"{num(a)}{signed(b)}={num(a + b)}"


def mul(a: Fraction | int, b: Fraction | int) -> str:
    """The step a * b = c."""
    return f"{num(a)}\\cdot{par(b)}={num(a * b)}"


def linear(a: int, b: int, x: str = "x") -> str:
    """ax + b, zero terms and unit coefficients left out."""
    if a == 0:
        return str(b)
    head = {1: x, -1: f"-{x}"}.get(a, f"{a}{x}")
    return head + (signed(b) if b else "")


def polynomial(coefficients: Sequence[int], x: str = "x") -> str:
    """Highest power first; zero terms and unit coefficients left out."""
    text = ""
    for power, c in zip(range(len(coefficients) - 1, -1, -1), coefficients, strict=True):
        if c == 0:
            continue
        symbol = "" if power == 0 else x if power == 1 else f"{x}^{power}"
        body = symbol if abs(c) == 1 and power else f"{abs(c)}{symbol}"
        text += ("-" if c < 0 else "+" if text else "") + body
    return text or "0"


def accumulate(values: Sequence[Fraction | int]) -> list[str]:
    """The steps that add values from left to right."""
    steps, total = [], values[0]
    for value in values[1:]:
        steps.append(add(total, value))
        total += value
    return steps


def total(parts: Sequence[tuple[Route, int]]) -> list[Route]:
    """The routes to a sum of parts, each given as its work (none for a plain number) and its value.

    Adding as one goes, or working everything out first.
    """
    running: list[str] = []
    value = 0
    for i, (work, part) in enumerate(parts):
        running += work if i == 0 else (*work, add(value, part))
        value += part
    first = [step for work, _ in parts for step in work]
    return list(dict.fromkeys((tuple(running), (*first, *accumulate([part for _, part in parts])))))


def any_order(groups: Sequence[Sequence[Route]], then: Sequence[Route] = ((),)) -> list[Route]:
    """All routes that do every group once, in any order and any of its ways, and then one of `then`."""
    routes: dict[Route, None] = {}
    for order in permutations(groups):
        for ways in product(*order):
            for end in then:
                routes[tuple(step for way in ways for step in way) + tuple(end)] = None
    return list(routes)


def fraction_forms(value: Fraction | int) -> tuple[str, ...]:
    """The ways to write an integer or a fraction as an answer, the canonical one first."""
    text = num(value)
    if Fraction(value).denominator == 1:
        return (text,)
    value = Fraction(value)
    return (text, text.replace("\\frac", "\\dfrac"), f"{value.numerator}/{value.denominator}")


def tuple_forms(values: Sequence[Fraction | int], left: str = "(", right: str = ")") -> tuple[str, ...]:
    """The ways to write a tuple or an interval as an answer."""
    return (
        left + ", ".join(map(num, values)) + right,
        left + ",".join(map(num, values)) + right,
    )
