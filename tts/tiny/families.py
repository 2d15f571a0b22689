"""The kinds of problems: seven subjects, five levels, each kind with all its valid routes to the answer.

A family is a function of a random generator and a level that draws the numbers of one problem. Numbers stay small; the
level sets how many steps a solution takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt
from random import Random

from .notation import (
    Route,
    accumulate,
    add,
    any_order,
    frac,
    fraction_forms,
    linear,
    mul,
    num,
    par,
    polynomial,
    signed,
    total,
    tuple_forms,
)


@dataclass(frozen=True)
class Draft:
    """One problem before it is worded: numbers identify it within its family, whatever the wording."""

    texts: tuple[str, ...]  # equivalent wordings
    numbers: tuple[int, ...]
    routes: list[Route]
    answers: tuple[str, ...]  # the forms that the boxed answer may take, the canonical one first


Family = Callable[[Random, int], Draft]
FAMILIES: dict[str, list[tuple[Family, tuple[int, ...]]]] = {}


def family(subject: str, *levels: int) -> Callable[[Family], Family]:
    """Register a family for the levels of a subject that it can fill."""

    def register(function: Family) -> Family:
        FAMILIES.setdefault(subject, []).append((function, levels))
        return function

    return register


def nonzero(rng: Random, low: int, high: int) -> int:
    """A number between low and high that is not 0."""
    while not (value := rng.randint(low, high)):
        pass
    return value


def asked(expression: str) -> tuple[str, ...]:
    """Two wordings for "work out this expression"."""
    return f"Compute ${expression}$.", f"What is ${expression}$?"


@family("Prealgebra", 1, 2, 3, 4, 5)
def order_of_operations(rng: Random, level: int) -> Draft:
    """Products of digits and plain numbers, added and subtracted."""
    kinds = {1: "pn", 2: "pp", 3: "ppn", 4: "ppp", 5: "pppn"}[level]
    numbers, parts, text = [], [], ""
    for i, kind in enumerate(kinds):
        sign = 1 if i == 0 else rng.choice((1, -1))
        if kind == "p":
            a, b = rng.randint(2, 12), rng.randint(2, 9)
            parts.append(((f"{a}\\cdot{b}={a * b}",), sign * a * b))
            numbers += [a, b]
            shown = f"{a}\\cdot{b}"
        else:
            a = rng.randint(2, 50)
            parts.append(((), sign * a))
            numbers.append(a)
            shown = str(a)
        text += ("" if i == 0 else "+" if sign > 0 else "-") + shown
    return Draft(asked(text), tuple(numbers), total(parts), (str(sum(v for _, v in parts)),))


@family("Algebra", 1, 2, 3, 4, 5)
def linear_equation(rng: Random, level: int) -> Draft:
    """ax + b = cx + d, with parentheses from level 3 on; the answer may be a fraction at level 5."""
    a = rng.randint(2, 9)
    if level == 1:
        x, b = rng.randint(1, 12), nonzero(rng, -20, 30)
        left, right, numbers = linear(a, b), str(a * x + b), (a, b, a * x + b)
        routes = [(f"{a}x={a * x}", f"x={x}")]
        return Draft((f"Solve ${left}={right}$.",), numbers, routes, (str(x),))
    if level in (2, 4):
        c = rng.randint(1, a - 1)
        x, b = rng.randint(1, 12), nonzero(rng, -9, 9)
        opened = a * b if level == 4 else b
        d = a * x + opened - c * x
        last = (f"{linear(a - c, 0)}={d - opened}",) + ((f"x={x}",) if a - c > 1 else ())
        routes = [
            (f"{linear(a - c, opened)}={d}", *last),  # the unknowns to the left first
            (f"{a}x={linear(c, d - opened)}", *last),  # or the numbers to the right
        ]
        left = linear(a, b)
        if level == 4:
            left = f"{a}({linear(1, b)})"
            routes = [(f"{linear(a, opened)}={linear(c, d)}", *r) for r in routes]
        return Draft((f"Solve ${left}={linear(c, d)}$.",), (a, b, c, d), routes, (str(x),))
    x, b = rng.randint(1, 12), nonzero(rng, -9, 9)
    if level == 3:
        e = nonzero(rng, -9, 20)
        right = a * (x + b) + e
        routes = [
            (f"{a}({linear(1, b)})={right - e}", f"{linear(1, b)}={x + b}", f"x={x}"),
            (f"{linear(a, a * b + e)}={right}", f"{a}x={a * x}", f"x={x}"),
        ]
        return Draft((f"Solve ${a}({linear(1, b)}){signed(e)}={right}$.",), (a, b, e, right), routes, (str(x),))
    c, d, e = rng.randint(2, 9), nonzero(rng, -9, 9), nonzero(rng, -20, 60)
    constant = a * b + c * d
    value = Fraction(e - constant, a + c)
    first, second = f"{a}({linear(1, b)})={linear(a, a * b)}", f"{c}({linear(1, d)})={linear(c, c * d)}"
    tail = [f"{linear(a + c, constant)}={e}"] + ([f"{a + c}x={e - constant}"] if constant else [])
    routes = any_order([[(first,)], [(second,)]], [(*tail, f"x={num(value)}")])
    text = f"Solve ${a}({linear(1, b)})+{c}({linear(1, d)})={e}$."
    return Draft((text,), (a, b, c, d, e), routes, fraction_forms(value))


@family("Counting & Probability", 1, 2, 3, 4, 5)
def drawing_balls(rng: Random, level: int) -> Draft:
    """One or two balls from a bag of three colours."""
    red, blue, green = (rng.randint(2, 9) for _ in range(3))
    n = red + blue + green
    orders = [tuple(accumulate(o)) for o in ((red, blue, green), (green, blue, red))]
    bag = f"A bag has ${red}$ red, ${blue}$ blue, ${green}$ green balls."
    if level <= 3:
        good = red if level == 1 else blue + green
        what = "red" if level == 1 else "not red"
        head: Route = () if level == 1 else (add(blue, green),)
        texts: tuple[str, ...] = (f"{bag} Find the chance of {what}.",)
        if level == 3:
            extra = rng.randint(2, 9)
            good, n2 = red + extra, n + extra
            end = (add(red, extra), f"{n}+{extra}={n2}", f"P={frac(good, n2)}")
            texts = (f"{bag} Add ${extra}$ red. Find the chance of red.",)
            n, numbers = n2, (red, blue, green, extra)
        else:
            end, numbers = (*head, f"P={frac(good, n)}"), (red, blue, green)
        p = Fraction(good, n)
    else:
        if level == 4:
            good, what = red * (red - 1), "two reds"
            top: Route = (mul(red, red - 1),)
        else:
            good, what = 2 * red * blue, "one red and one blue"
            top = (mul(red, blue), f"2\\cdot{red * blue}={good}")
        texts = (f"{bag} Draw two. Find the chance of {what}.",)
        end = (*top, f"{n}\\cdot{n - 1}={n * (n - 1)}", f"P={frac(good, n * (n - 1))}")
        p, n, numbers = Fraction(good, n * (n - 1)), n * (n - 1), (red, blue, green)
    if p.denominator != n:
        end = (*end, f"P={num(p)}")
    return Draft(texts, numbers, [o + end for o in orders], fraction_forms(p))


@family("Geometry", 1)
def rectangle(rng: Random, level: int) -> Draft:
    """Perimeter of a rectangle."""
    a, b = rng.randint(3, 40), rng.randint(3, 30)
    routes = [(add(a, b), mul(2, a + b)), (mul(2, a), mul(2, b), add(2 * a, 2 * b))]
    return Draft((f"Find the perimeter of a ${a}$ by ${b}$ rectangle.",), (a, b), routes, (str(2 * (a + b)),))


@family("Geometry", 2)
def corner_cut(rng: Random, level: int) -> Draft:
    """A rectangle without a corner: the corner off the whole, or cut in two."""
    w, h = rng.randint(6, 12), rng.randint(5, 9)
    a, b = rng.randint(2, w - 2), rng.randint(2, h - 2)
    routes = [
        (mul(w, h), mul(a, b), add(w * h, -a * b)),
        (add(w, -a), mul(w - a, h), add(h, -b), mul(a, h - b), add((w - a) * h, a * (h - b))),
    ]
    text = f"A ${w}$ by ${h}$ sheet loses a ${a}$ by ${b}$ corner. Find its area."
    return Draft((text,), (w, h, a, b), routes, (str(w * h - a * b),))


@family("Geometry", 3)
def midpoint(rng: Random, level: int) -> Draft:
    """The midpoint of two points."""
    x, y, u, v = (rng.randint(1, 30) for _ in range(4))
    u, v = u + (x + u) % 2, v + (y + v) % 2
    one, two = (add(x, u), f"{x + u}/2={(x + u) // 2}"), (add(y, v), f"{y + v}/2={(y + v) // 2}")
    answers = tuple_forms(((x + u) // 2, (y + v) // 2))
    return Draft(
        (f"Find the midpoint of $({x},{y})$ and $({u},{v})$.",), (x, y, u, v), any_order([[one], [two]]), answers
    )


@family("Geometry", 4)
def box_surface(rng: Random, level: int) -> Draft:
    """The surface of a box."""
    a, b, c = (rng.randint(2, 12) for _ in range(3))
    faces = [((mul(p, q),), p * q) for p, q in ((a, b), (b, c), (a, c))]
    s = a * b + b * c + a * c
    routes = [(*r, mul(2, s)) for r in total(faces)]
    return Draft((f"Find the surface area of a ${a}$ by ${b}$ by ${c}$ box.",), (a, b, c), routes, (str(2 * s),))


@family("Geometry", 5)
def distance(rng: Random, level: int) -> Draft:
    """The distance between two points, as a root in lowest terms."""
    x, y = rng.randint(1, 12), rng.randint(1, 12)
    while True:
        dx, dy = nonzero(rng, -9, 9), nonzero(rng, -9, 9)
        square = dx * dx + dy * dy
        k = max(i for i in range(1, isqrt(square) + 1) if square % (i * i) == 0)
        if k > 1:
            break
    u, v, rest = x + dx, y + dy, square // (k * k)
    root = str(k) if rest == 1 else f"{k}\\sqrt{{{rest}}}"
    groups = [[(add(u, -x), f"{par(dx)}^2={dx * dx}")], [(add(v, -y), f"{par(dy)}^2={dy * dy}")]]
    routes = any_order(groups, [(add(dx * dx, dy * dy), f"\\sqrt{{{square}}}={root}")])
    return Draft((f"Find the distance from $({x},{y})$ to $({u},{v})$.",), (x, y, u, v), routes, (root,))


@family("Number Theory", 1, 2, 3, 4, 5)
def remainders(rng: Random, level: int) -> Draft:
    """Remainders of products and sums, reducing at the end or as soon as possible."""
    m = rng.randint(3, 9)
    kinds = {1: "n", 2: "p", 3: "pn", 4: "pp", 5: "ppn"}[level]
    if level == 1:
        a, b = rng.randint(5, 50), rng.randint(5, 49)
        routes = [(add(a, b), f"{a + b}\\equiv{(a + b) % m}")]
        return Draft((f"Find ${a}+{b}$ modulo ${m}$.",), (m, a, b), routes, (str((a + b) % m),))
    numbers, shown, late, early, values = [m], [], [], [], []
    for kind in kinds:
        a, b = rng.randint(3, 12), rng.randint(3, 9)
        if kind == "n":
            a, b = rng.randint(10, 50), 1
        value = a * b
        work = (mul(a, b),) if kind == "p" else ()
        shown.append(f"{a}\\cdot{b}" if kind == "p" else str(a))
        numbers += [a, b] if kind == "p" else [a]
        late.append((work, value))
        early.append(((*work, *((f"{value}\\equiv{value % m}",) if value >= m else ())), value % m))
        values.append(value)

    def reduced(parts: list[tuple[Route, int]]) -> list[Route]:
        s = sum(v for _, v in parts)
        return [(*r, *((f"{s}\\equiv{s % m}",) if s >= m else ())) for r in total(parts)]

    routes = reduced(early) + reduced(late)
    return Draft((f"Find ${'+'.join(shown)}$ modulo ${m}$.",), tuple(numbers), routes, (str(sum(values) % m),))


@family("Intermediate Algebra", 1, 3)
def absolute_values(rng: Random, level: int) -> Draft:
    """Linear absolute values; the answer is an interval."""
    strict = rng.random() < 0.5
    sign, left, right = ("<", "(", ")") if strict else ("\\le", "[", "]")
    a = 1 if level == 1 else rng.randint(2, 6)
    b, c = a * nonzero(rng, -9, 9), a * rng.randint(2, 30 if level == 1 else 12)
    low, high = (-c - b) // a, (c - b) // a
    ends = [(f"{linear(a, b)}={e}", *((f"{a}x={e - b}",) if a > 1 else ()), f"x={(e - b) // a}") for e in (-c, c)]
    answers = tuple_forms((low, high), left, right)
    return Draft((f"Solve $|{linear(a, b)}|{sign}{c}$.",), (a, b, c), any_order([[ends[0]], [ends[1]]]), answers)


@family("Intermediate Algebra", 2, 4, 5)
def polynomial_value(rng: Random, level: int) -> Draft:
    """A polynomial at a small number, by Horner's scheme or term by term."""
    degree = 2 if level == 2 else 3
    c = [1 if level == 4 else rng.randint(2, 5), *(nonzero(rng, -9, 9) for _ in range(degree))]
    k = rng.randint(2, 6) if level == 2 else rng.choice((2, 3, 4, -2) if level == 5 else (2, 3, 4))
    horner, value = [], c[0]
    for d in c[1:]:
        if value not in (0, 1):
            horner.append(mul(value, k))
        horner.append(add(value * k, d))
        value = value * k + d
    powers = [f"{par(k)}^{p}={k**p}" for p in range(2, degree + 1)]
    terms = [a * k**p for a, p in zip(c, range(degree, -1, -1))]
    products = [mul(a, k**p) for a, p in zip(c, range(degree, 0, -1)) if a != 1]
    routes: list[Route] = [tuple(horner), (*powers, *products, *accumulate(terms))]
    return Draft((f"Find ${polynomial(c)}$ at $x={k}$.",), (*c, k), routes, (str(value),))


@family("Precalculus", 1, 2, 4)
def vectors(rng: Random, level: int) -> Draft:
    """Sums and multiples of vectors, and dot products."""
    if level == 4:
        u, v = ([nonzero(rng, -9, 9) for _ in range(3)] for _ in range(2))
        routes = total([((mul(x, y),), x * y) for x, y in zip(u, v)])
        ask = f"({','.join(map(str, u))})\\cdot({','.join(map(str, v))})"
        return Draft(asked(ask), (*u, *v), routes, (str(sum(x * y for x, y in zip(u, v))),))
    k = 1 if level == 1 else rng.randint(2, 9)
    u, v = ([rng.randint(1, 9 if level == 2 else 30), nonzero(rng, -9, 30)] for _ in range(2))
    if level == 1:
        routes = any_order([[(add(x, y),)] for x, y in zip(u, v)])
    else:
        routes = any_order([[(mul(k, x), add(k * x, y))] for x, y in zip(u, v)])
    ask = f"{'' if k == 1 else k}({u[0]},{u[1]})+({v[0]},{v[1]})"
    return Draft(asked(ask), (k, *u, *v), routes, tuple_forms([k * x + y for x, y in zip(u, v)]))


@family("Precalculus", 3, 5)
def complex_numbers(rng: Random, level: int) -> Draft:
    """Products of complex numbers; at level 3 the first is real."""

    def z(p: int, q: int) -> str:
        return str(p) if q == 0 else linear(q, 0, "i") if p == 0 else f"{p}{signed(q) if abs(q) > 1 else '-+'[q > 0]}i"

    def forms(p: int, q: int) -> tuple[str, ...]:
        return (z(p, q), *((f"{linear(q, 0, 'i')}{signed(p)}",) if p and q else ()))

    a, b, c, d = (nonzero(rng, -9, 9) for _ in range(4))
    if level == 3:
        k, a = rng.randint(2, 9), abs(a)
        p, q = k * a + c, k * b + d
        routes = any_order([[(mul(k, a), add(k * a, c))], [(mul(k, b), add(k * b, d))]])
        return Draft(asked(f"{k}({z(a, b)})+({z(c, d)})"), (k, a, b, c, d), routes, forms(p, q))
    a, c = abs(a), abs(c)
    p, q = a * c - b * d, a * d + b * c
    one, two = (mul(a, c), mul(b, d), add(a * c, -b * d)), (mul(a, d), mul(b, c), add(a * d, b * c))
    return Draft(asked(f"({z(a, b)})({z(c, d)})"), (a, b, c, d), any_order([[one], [two]]), forms(p, q))
