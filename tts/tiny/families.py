"""The kinds of problems: seven subjects, five levels, each kind with all its valid routes to the answer.

A family is a function of a random generator and a level that draws the numbers of one problem. The level sets how many
steps a solution takes and how large its numbers are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import comb, gcd, isqrt, lcm
from random import Random

from .notation import (
    Route,
    accumulate,
    add,
    any_order,
    frac,
    fraction_forms,
    linear,
    long_product,
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
    """Three wordings for "work out this expression"."""
    return f"Compute ${expression}$.", f"What is ${expression}$?", f"Find the value of ${expression}$."


# --- Prealgebra ---


@family("Prealgebra", 1, 2, 3, 4, 5)
def order_of_operations(rng: Random, level: int) -> Draft:
    """Sums and differences of products."""
    products = {1: 1, 2: 2, 3: 2, 4: 3, 5: 4}[level]
    high = {1: 49, 2: 59, 3: 99, 4: 99, 5: 99}[level]
    pairs = [(rng.randint(11, high), rng.randint(3, 9)) for _ in range(products)]
    signs = [1] + [rng.choice((1, -1)) for _ in range(products - 1)]
    ways = long_product if level <= 3 else lambda a, b: [(mul(a, b),)]
    parts = [([(f"{a}\\cdot{b}={a * b}",)] if s < 0 else ways(a, b), s * a * b) for s, (a, b) in zip(signs, pairs)]
    text = "".join(("+" if s > 0 else "-") + f"{a}\\cdot{b}" for s, (a, b) in zip(signs, pairs)).lstrip("+")
    numbers = [n for s, (a, b) in zip(signs, pairs) for n in (s * a, b)]
    if level in (1, 3):
        c = nonzero(rng, -99, 99)
        parts.append(([()], c))
        text += signed(c)
        numbers.append(c)
    value = sum(v for _, v in parts)
    return Draft(asked(text), tuple(numbers), total(parts), (str(value),))


@family("Prealgebra", 2, 4, 5)
def add_fractions(rng: Random, level: int) -> Draft:
    """Sums of two or three fractions, over the least or the plain common denominator."""
    n = 2 if level == 2 else 3
    high = {2: 9, 4: 8, 5: 12}[level]
    terms = []
    while len(terms) < n:
        bottom = rng.randint(2, high)
        top = rng.randint(1, bottom + 3)
        if gcd(top, bottom) == 1 and bottom not in [b for _, b in terms]:
            terms.append((top if not terms else rng.choice((1, -1)) * top, bottom))
    value = sum(Fraction(*t) for t in terms)
    least, plain = lcm(*(b for _, b in terms)), 1
    for _, b in terms:
        plain *= b
    routes = []
    for common in dict.fromkeys((least, plain) if n == 2 else (least,)):
        top = sum(t * (common // b) for t, b in terms)
        each = [[(f"{frac(abs(t), b)}={frac(abs(t) * (common // b), common)}",)] for t, b in terms if b != common]
        tops = [t * (common // b) for t, b in terms]
        end = [*accumulate(tops)]
        if frac(top, common) != num(value):
            end.append(f"{frac(top, common)}={num(value)}")
        routes += any_order(each, [tuple(end)])
    text = "".join(("-" if t < 0 else "+") + frac(abs(t), b) for t, b in terms).lstrip("+")
    return Draft(asked(text), tuple(n for t in terms for n in t), routes, fraction_forms(value))


@family("Prealgebra", 1, 3)
def fraction_of(rng: Random, level: int) -> Draft:
    """A fraction of a whole, dividing or multiplying first; level 3 takes a second part away."""
    bottom = rng.randint(3, 9)
    top = rng.randint(2, bottom - 1)
    unit = rng.randint(7, 40 if level == 1 else 70)
    whole = bottom * unit
    part = top * unit
    ways: list[Route] = [
        (f"{whole}/{bottom}={unit}", f"{top}\\cdot{unit}={part}"),
        (f"{top}\\cdot{whole}={top * whole}", f"{top * whole}/{bottom}={part}"),
    ]
    if level == 1:
        texts = (f"What is $\\frac{{{top}}}{{{bottom}}}$ of ${whole}$?", *asked(f"\\frac{{{top}}}{{{bottom}}}\\cdot{whole}")[:1])
        return Draft(texts, (top, bottom, whole), ways, (str(part),))
    extra, price = rng.randint(11, 60), rng.randint(3, 9)
    value = (whole - part + extra) * price
    left = add(whole, -part)
    ways = [(*w, left, add(whole - part, extra), mul(whole - part + extra, price)) for w in ways]
    texts = (
        f"A shop has ${whole}$ pens, sells $\\frac{{{top}}}{{{bottom}}}$ of them, gets ${extra}$ more and then sells all "
        f"at ${price}$ each. How much does it get for these?",
        f"Of ${whole}$ pens $\\frac{{{top}}}{{{bottom}}}$ are sold, then ${extra}$ more come. What do the pens cost now "
        f"at ${price}$ each?",
    )
    return Draft(texts, (top, bottom, whole, extra, price), ways, (str(value),))


# --- Algebra ---


@family("Algebra", 1, 2, 3, 4)
def linear_equation(rng: Random, level: int) -> Draft:
    """ax + b = cx + d, with a parenthesis from level 3 on; the answer may be a fraction at level 4."""
    wording = lambda s: (f"Solve ${s}$ for $x$.", f"Find $x$ if ${s}$.", f"If ${s}$, what is $x$?")  # noqa: E731
    a, b = rng.randint(2, 9), nonzero(rng, -60, 60)
    if level == 1:
        x = nonzero(rng, -15, 30)
        d = a * x + b
        return Draft(wording(f"{linear(a, b)}={d}"), (a, b, d), [(f"{linear(a, 0)}={d - b}", f"x={x}")], (str(x),))
    c = rng.choice([n for n in range(2, 10) if n != a])
    if level == 2:
        x = nonzero(rng, -15, 25)
        d = a * x + b - c * x
        ends = (f"{linear(a - c, 0)}={d - b}", *((f"x={x}",) if a - c != 1 else ()))
        routes = [(f"{linear(a - c, b)}={d}", *ends), (f"{linear(a, 0)}={linear(c, d - b)}", *ends)]
        return Draft(wording(f"{linear(a, b)}={linear(c, d)}"), (a, b, c, d), routes, (str(x),))
    b = nonzero(rng, -15, 15)
    if level == 3:
        x = nonzero(rng, -12, 20)
        d = a * (x + b) - c * x
        opened = f"{linear(a, a * b)}={linear(c, d)}"
        ends = (f"{linear(a - c, 0)}={d - a * b}", *((f"x={x}",) if a - c != 1 else ()))
        routes = [(opened, f"{linear(a - c, a * b)}={d}", *ends), (opened, f"{linear(a, 0)}={linear(c, d - a * b)}", *ends)]
        return Draft(wording(f"{a}({linear(1, b)})={linear(c, d)}"), (a, b, c, d), routes, (str(x),))
    d, e = nonzero(rng, -12, 12), nonzero(rng, -99, 99)
    total_x, constant = a + c, a * b + c * d
    x = Fraction(e - constant, total_x)
    first, second = f"{a}({linear(1, b)})={linear(a, a * b)}", f"{c}({linear(1, d)})={linear(c, c * d)}"
    tail = [f"{linear(total_x, constant)}={e}"] if constant else []
    tail += [f"{linear(total_x, 0)}={e - constant}"]
    if x.denominator != total_x:
        tail.append(f"x={frac(e - constant, total_x)}={num(x)}" if x.denominator != 1 else f"x={num(x)}")
    else:
        tail.append(f"x={num(x)}")
    routes = any_order([[(first,)], [(second,)]], [tuple(tail)])
    text = f"{a}({linear(1, b)})+{c}({linear(1, d)})={e}"
    return Draft(wording(text), (a, b, c, d, e), routes, fraction_forms(x))


@family("Algebra", 2, 3, 5)
def composition(rng: Random, level: int) -> Draft:
    """Composed linear functions, at a point or as an expression."""
    a, c = rng.randint(2, 9), rng.randint(2, 9)
    b, d = nonzero(rng, -20, 20), nonzero(rng, -20, 20)
    given = f"Let $f(x)={linear(a, b)}$ and $g(x)={linear(c, d)}$."
    if level == 2:
        k = nonzero(rng, -9, 12)
        inner = c * k + d
        value = a * inner + b
        routes = [
            (f"g({k})={inner}", mul(a, inner), add(a * inner, b)),
            (mul(c, k), add(c * k, d), f"f({inner})={value}"),
        ]
        return Draft((f"{given} Find $f(g({k}))$.", f"{given} What is $f(g({k}))$?"), (a, b, c, d, k), routes, (str(value),))
    if level == 3:
        inside = f"f(g(x))={a}({linear(c, d)}){signed(b)}"
        routes = [
            (inside, f"{a}({linear(c, d)})={linear(a * c, a * d)}", add(a * d, b)),
            (inside, mul(a, c), mul(a, d), add(a * d, b)),
        ]
        p, q = a * c, a * d + b
        forms = (linear(p, q), *((f"{q}+{p}x",) if q else ()))
        return Draft((f"{given} Find $f(g(x))$.", f"{given} Write $f(g(x))$ out."), (a, b, c, d), routes, forms)
    k = nonzero(rng, -6, 8)
    g1, f1 = c * k + d, a * k + b
    f2, g2 = a * g1 + b, c * f1 + d
    left = [(f"g({k})={g1}", f"f({g1})={f2}"), (mul(c, k), add(c * k, d), mul(a, g1), add(a * g1, b))]
    right = [(f"f({k})={f1}", f"g({f1})={g2}"), (mul(a, k), add(a * k, b), mul(c, f1), add(c * f1, d))]
    routes = [
        tuple(step for way in order for step in way) + (add(f2, -g2),)
        for i in range(2)
        for order in ((left[i], right[i]), (right[i], left[i]))
    ]
    ask = f"f(g({k}))-g(f({k}))"
    return Draft((f"{given} Find ${ask}$.", f"{given} What is ${ask}$?"), (a, b, c, d, k), routes, (str(f2 - g2),))


@family("Algebra", 4, 5)
def linear_system(rng: Random, level: int) -> Draft:
    """Two equations in x and y, by eliminating either."""
    high = 4 if level == 4 else 7
    while True:
        a, b, c, d = rng.randint(1, high), nonzero(rng, -high, high), rng.randint(1, high), nonzero(rng, -high, high)
        det = a * d - b * c
        if abs(det) > 1 and len({a, c}) + len({abs(b), abs(d)}) > 2:
            break
    x, y = nonzero(rng, -9, 12), nonzero(rng, -9, 12)
    e, f = a * x + b * y, c * x + d * y

    def side(p: int, q: int) -> str:
        return linear(p, 0) + ("" if q == 0 else ("+" if q > 0 else "-") + ("" if abs(q) == 1 else str(abs(q))) + "y")

    # Multiply the first by d and the second by b, then subtract: y is gone; by c and a: x is gone.
    no_y = (f"{linear(a * d, 0)}{signed(-b * c)}x={e * d}{signed(-f * b)}", f"{linear(det, 0)}={e * d - f * b}", f"x={x}")
    no_x = (f"{linear(a * d, 0, 'y')}{signed(-b * c)}y={a * f}{signed(-c * e)}", f"{linear(det, 0, 'y')}={a * f - c * e}", f"y={y}")
    # Then put the known unknown back.
    from_x = ([f"{linear(b, 0, 'y')}={e - a * x}"] if b != 1 else []) + [f"y={y}"]
    from_y = ([f"{linear(a, 0)}={e - b * y}"] if a != 1 else []) + [f"x={x}"]
    routes = [(*no_y, *from_x), (*no_x, *from_y)]
    system = f"{side(a, b)}={e}$ and ${side(c, d)}={f}"
    texts = (f"Solve ${system}$ for $(x,y)$.", f"Find $(x,y)$ if ${system}$.")
    return Draft(texts, (a, b, c, d, e, f), routes, tuple_forms((x, y)))


# --- Counting & Probability ---


@family("Counting & Probability", 1, 2, 3, 4, 5)
def drawing_balls(rng: Random, level: int) -> Draft:
    """Balls drawn from a bag; from level 3 on two draws without replacement."""
    red, blue, green = (rng.randint(2, 12) for _ in range(3))
    if level in (1, 2):
        scale = 1 if level == 1 else rng.randint(2, 5)
        red, blue, green = red * scale, blue * scale, green * scale
        n = red + blue + green
        good = red if level == 1 else blue + green
        p = Fraction(good, n)
        sums = [tuple(accumulate(o)) for o in ((red, blue, green), (green, blue, red))]
        end = (f"P={frac(good, n)}",) + ((f"{frac(good, n)}={num(p)}",) if p.denominator != n else ())
        ways = [(add(blue, green),)] if level == 2 else [()]
        routes = any_order([ways, sums], [end]) if level == 2 else [s + end for s in sums]
        what = "red" if level == 1 else "not red"
        bag = f"${red}$ red, ${blue}$ blue and ${green}$ green balls"
        texts = (f"A bag has {bag}. What is the probability that a ball is {what}?", f"From {bag} one is drawn. Find the probability that it is {what}.")
        return Draft(texts, (red, blue, green), routes, fraction_forms(p))
    n = red + blue + green
    bag = f"${red}$ red, ${blue}$ blue and ${green}$ green balls"
    pairs = n * (n - 1)
    count = accumulate((red, blue, green))
    whole = [(*count, f"{n}\\cdot{n - 1}={pairs}")]
    if level == 3:
        good, what = red * (red - 1), "both are red"
        ways = [[(f"{red}\\cdot{red - 1}={good}",)], whole]
    elif level == 4:
        good, what = 2 * red * blue, "one is red and one is blue"
        ways = [[(mul(red, blue), mul(2, red * blue)), (mul(2, red), mul(2 * red, blue))], whole]
    else:
        same = [([(f"{c}\\cdot{c - 1}={c * (c - 1)}",)], c * (c - 1)) for c in (red, blue, green)]
        good, what = sum(v for _, v in same), "both have one colour"
        ways = [total(same), whole]
    p = Fraction(good, pairs)
    end = (f"P={frac(good, pairs)}", f"{frac(good, pairs)}={num(p)}") if p.denominator != pairs else (f"P={num(p)}",)
    routes = any_order(ways, [end])
    texts = (f"Two balls are drawn from {bag}. What is the probability that {what}?", f"A bag has {bag}; two are taken. Find the probability that {what}.")
    return Draft(texts, (red, blue, green), routes, fraction_forms(p))


@family("Counting & Probability", 1, 2, 3, 4, 5)
def committees(rng: Random, level: int) -> Draft:
    """Choices multiplied and added."""
    if level == 1:
        a, b, c = sorted(rng.randint(2, 15) for _ in range(3))
        routes = [(mul(a, b), mul(a * b, c)), (mul(b, c), mul(b * c, a)), (mul(a, c), mul(a * c, b))]
        goods = f"${a}$ hats, ${b}$ shirts and ${c}$ coats"
        texts = (f"How many outfits can be made of {goods}?", f"Ann has {goods}. In how many ways can she dress?")
        return Draft(texts, (a, b, c), list(dict.fromkeys(routes)), (str(a * b * c),))
    high = {2: 9, 3: 10, 4: 10, 5: 9}[level]
    m, w = rng.randint(4, high), rng.randint(4, high)
    a, b = rng.randint(2, 3), rng.randint(1, 2)

    def choose(n: int, k: int) -> Route:
        return (f"\\binom{{{n}}}{{{k}}}={comb(n, k)}",)

    def choose_long(n: int, k: int) -> Route:
        if k == 2:
            return (f"{n}\\cdot{n - 1}={n * (n - 1)}", f"{n * (n - 1)}/2={comb(n, 2)}")
        return choose(n, k)

    p, q = comb(m, a), comb(w, b)
    both = f"${a}$ of ${m}$ men and ${b}$ of ${w}$ women"
    if level in (2, 3):
        routes = any_order([[choose(m, a), choose_long(m, a)], [choose(w, b), choose_long(w, b)]], [(mul(p, q),)])
        numbers, value = (m, a, w, b), p * q
        if level == 2:
            texts = (f"In how many ways can {both} be chosen?", f"How many teams have {both}?")
        else:
            jobs = rng.randint(3, 6)
            value *= jobs
            routes = [(*r, mul(p * q, jobs)) for r in routes]
            numbers = (*numbers, jobs)
            texts = (f"A team needs {both} and one of ${jobs}$ flags. How many ways are there?",)
        return Draft(texts, numbers, list(dict.fromkeys(routes)), (str(value),))
    r, s = comb(m, b), comb(w, a)
    one = (*choose(m, a), *choose(w, b), mul(p, q))
    two = (*choose(m, b), *choose(w, a), mul(r, s))
    size = a + b
    if level == 4 and a != b:
        routes = any_order([[one], [two]], [(add(p * q, r * s),)]) + [(*two, *one, add(r * s, p * q))]
        texts = (f"How many teams of ${a}$ men and ${b}$ women, or ${b}$ men and ${a}$ women, can be made of ${m}$ men and ${w}$ women?",)
        return Draft(texts, (m, w, a, b), list(dict.fromkeys(routes)), (str(p * q + r * s),))
    # At least one woman: all teams less those of men alone, or case by case.
    whole, men = comb(m + w, size), comb(m, size)
    short = (add(m, w), f"\\binom{{{m + w}}}{{{size}}}={whole}", f"\\binom{{{m}}}{{{size}}}={men}", add(whole, -men))
    terms = [comb(m, size - k) * comb(w, k) for k in range(1, size + 1)]
    cases = tuple(f"{comb(m, size - k)}\\cdot{comb(w, k)}={t}" for k, t in zip(range(1, size + 1), terms))
    routes = [short, cases + tuple(accumulate(terms))]
    texts = (
        f"How many teams of ${size}$ with at least one woman can be made of ${m}$ men and ${w}$ women?",
        f"From ${m}$ men and ${w}$ women choose ${size}$ with one woman or more. In how many ways?",
    )
    return Draft(texts, (m, w, size), routes, (str(whole - men),))


# --- Geometry ---


@family("Geometry", 1, 2)
def rectangles(rng: Random, level: int) -> Draft:
    """Area or perimeter of a rectangle, or area of a triangle."""
    a, b = rng.randint(11, 60), rng.randint(3, 30)
    kind = rng.choice(("area", "perimeter")) if level == 1 else "triangle"
    if kind == "area":
        b = rng.randint(3, 9)
        routes, value = long_product(a, b), a * b
        texts = (f"What is the area of a ${a}$ by ${b}$ rectangle?", f"A rectangle has sides ${a}$ and ${b}$. Find its area.")
    elif kind == "perimeter":
        routes = [(add(a, b), f"2\\cdot{a + b}={2 * (a + b)}"), (mul(2, a), mul(2, b), add(2 * a, 2 * b))]
        value = 2 * (a + b)
        texts = (f"What is the perimeter of a ${a}$ by ${b}$ rectangle?", f"A rectangle has sides ${a}$ and ${b}$. Find its perimeter.")
    else:
        a, b = 2 * rng.randint(6, 30), rng.randint(4, 19)
        routes, value = [(mul(a, b), f"{a * b}/2={a * b // 2}"), (f"{a}/2={a // 2}", mul(a // 2, b))], a * b // 2
        texts = (f"A triangle has base ${a}$ and height ${b}$. Find its area.", f"What is the area of a triangle with base ${a}$ and height ${b}$?")
    return Draft(texts, (a, b), routes, (str(value),))


@family("Geometry", 1, 2, 3)
def midpoint_or_distance(rng: Random, level: int) -> Draft:
    """Midpoint at level 1, image of a point at 2, distance as a root at 3."""
    x, y = nonzero(rng, -15, 15), nonzero(rng, -15, 15)
    if level == 1:
        u, v = x + 2 * nonzero(rng, -12, 12), y + 2 * nonzero(rng, -12, 12)
        one, two = (add(x, u), f"{x + u}/2={(x + u) // 2}"), (add(y, v), f"{y + v}/2={(y + v) // 2}")
        routes = any_order([[one], [two]])
        texts = (f"Find the midpoint of $({x},{y})$ and $({u},{v})$.", f"What point is halfway from $({x},{y})$ to $({u},{v})$?")
        return Draft(texts, (x, y, u, v), routes, tuple_forms(((x + u) // 2, (y + v) // 2)))
    if level == 2:
        k, u, v = rng.randint(2, 7), nonzero(rng, -20, 20), nonzero(rng, -20, 20)
        one, two = (mul(k, x), add(k * x, u)), (mul(k, y), add(k * y, v))
        routes = any_order([[one], [two]])
        texts = (f"Scale $({x},{y})$ by ${k}$ from the origin, then move it by $({u},{v})$. Where is it?",)
        return Draft(texts, (x, y, k, u, v), routes, tuple_forms((k * x + u, k * y + v)))
    while True:
        dx, dy = nonzero(rng, -14, 14), nonzero(rng, -14, 14)
        square = dx * dx + dy * dy
        k = max(i for i in range(1, isqrt(square) + 1) if square % (i * i) == 0)
        if k > 1:
            break
    u, v = x + dx, y + dy
    rest = square // (k * k)
    root = str(k) if rest == 1 else f"{k}\\sqrt{{{rest}}}"
    groups = [[(add(u, -x), f"{par(dx)}^2={dx * dx}")], [(add(v, -y), f"{par(dy)}^2={dy * dy}")]]
    routes = any_order(groups, [(add(dx * dx, dy * dy), f"\\sqrt{{{square}}}={root}")])
    texts = (f"Find the distance between $({x},{y})$ and $({u},{v})$.", f"How far is $({u},{v})$ from $({x},{y})$?")
    return Draft(texts, (x, y, u, v), routes, (root,))


@family("Geometry", 3, 4)
def corner_cut(rng: Random, level: int) -> Draft:
    """An L-shape: cut it in two, either way, or take the corner off the whole; level 4 adds a price."""
    w, h = rng.randint(12, 40), rng.randint(8, 19)
    a, b = rng.randint(3, w - 4 if w < 20 else 16), rng.randint(2, h - 3)
    area = w * h - a * b
    whole = (mul(w, h), mul(a, b), add(w * h, -a * b))
    upright = (add(w, -a), mul(w - a, h), add(h, -b), mul(a, h - b), add((w - a) * h, a * (h - b)))
    flat = (add(h, -b), mul(w, h - b), add(w, -a), mul(w - a, b), add(w * (h - b), (w - a) * b))
    routes: list[Route] = [whole, upright, flat]
    shape = f"A ${w}$ by ${h}$ sheet has a ${a}$ by ${b}$ corner cut off."
    if level == 3:
        return Draft((f"{shape} What area is left?", f"{shape} Find its area."), (w, h, a, b), routes, (str(area),))
    c = rng.randint(3, 9)
    routes = [(*r, mul(area, c)) for r in routes]
    return Draft((f"{shape} What does it cost at ${c}$ a unit of area?",), (w, h, a, b, c), routes, (str(area * c),))


@family("Geometry", 4, 5)
def boxes(rng: Random, level: int) -> Draft:
    """Surface of a box at level 4; two boxes' volumes at level 5."""
    a, b, c = rng.randint(3, 15), rng.randint(3, 15), rng.randint(3, 15)
    if level == 4:
        faces = [([(mul(p, q),)], p * q) for p, q in ((a, b), (b, c), (a, c))]
        s = a * b + b * c + a * c
        routes = [(*r, f"2\\cdot{s}={2 * s}") for r in total(faces)]
        routes += [(mul(a, b), mul(b, c), mul(a, c), *(f"2\\cdot{v}={2 * v}" for _, v in faces), *accumulate([2 * v for _, v in faces]))]
        texts = (f"What is the surface area of a ${a}$ by ${b}$ by ${c}$ box?", f"Find the surface area of a box with edges ${a}$, ${b}$ and ${c}$.")
        return Draft(texts, (a, b, c), list(dict.fromkeys(routes)), (str(2 * s),))
    d, e, f = rng.randint(3, 15), rng.randint(3, 15), rng.randint(3, 15)
    one = [(mul(a, b), mul(a * b, c)), (mul(b, c), mul(b * c, a))]
    two = [(mul(d, e), mul(d * e, f)), (mul(e, f), mul(e * f, d))]
    routes = total([(one, a * b * c), (two, d * e * f)])
    texts = (f"A ${a}$ by ${b}$ by ${c}$ box and a ${d}$ by ${e}$ by ${f}$ box are filled. What is the total volume?",)
    return Draft(texts, (a, b, c, d, e, f), routes, (str(a * b * c + d * e * f),))


@family("Geometry", 5)
def triangle_by_points(rng: Random, level: int) -> Draft:
    """Area of a triangle with one corner moved to the origin."""
    while True:
        x, y = nonzero(rng, -9, 9), nonzero(rng, -9, 9)
        p, q, r, s = (nonzero(rng, -12, 12) for _ in range(4))
        cross = p * s - q * r
        if cross:
            break
    a, b = (x + p, y + q), (x + r, y + s)
    move_a, move_b = (add(a[0], -x), add(a[1], -y)), (add(b[0], -x), add(b[1], -y))
    one, two = mul(p, s), mul(q, r)
    area = Fraction(abs(cross), 2)
    ends = [(o, t, add(p * s, -q * r), f"\\frac{{{abs(cross)}}}{{2}}={num(area)}") for o, t in ((one, two),)]
    ends += [(two, one, *ends[0][2:])]
    if area.denominator != 1:
        ends = [e[:-1] for e in ends]
    routes = any_order([[move_a], [move_b]], ends)
    points = f"$({x},{y})$, $({a[0]},{a[1]})$ and $({b[0]},{b[1]})$"
    texts = (f"Find the area of the triangle with corners {points}.", f"A triangle has corners {points}. What is its area?")
    return Draft(texts, (x, y, *a, *b), routes, fraction_forms(area))


# --- Number Theory ---


@family("Number Theory", 1, 2, 3, 4, 5)
def remainders(rng: Random, level: int) -> Draft:
    """Remainders of sums of products, reducing before or after multiplying."""
    m = rng.randint(5, 9) if level == 1 else rng.randint(6, 13)
    n = {1: 1, 2: 1, 3: 2, 4: 1, 5: 2}[level]
    pairs = [(rng.randint(12, 49 if level < 4 else 99), rng.randint(3, 9) if level < 4 else rng.randint(11, 29)) for _ in range(n)]
    constant = rng.randint(11, 99) if level in (2, 4) else 0

    def mod(a: int) -> str:
        return f"{a}\\equiv{a % m}"

    def late(a: int, b: int) -> Route:
        return (mul(a, b), *((mod(a * b),) if a * b >= m else ()))

    def early(a: int, b: int) -> Route:
        small = [mod(v) for v in (a, b) if v >= m]
        return (*small, *late(a % m, b % m))

    groups = [[late(a, b), early(a, b)] if level < 4 else [early(a, b)] for a, b in pairs]
    values = [a * b % m for a, b in pairs]
    if constant:
        groups.append([(mod(constant),)] if constant >= m else [()])
        values.append(constant % m)
    s = sum(values)
    end = (*accumulate(values), *((mod(s),) if s >= m else ())) if len(values) > 1 else ()
    routes = any_order(groups, [end])
    text = "+".join(f"{a}\\cdot{b}" for a, b in pairs) + (f"+{constant}" if constant else "")
    texts = (f"What is the remainder when ${text}$ is divided by ${m}$?", f"Find ${text}$ modulo ${m}$.")
    return Draft(texts, (m, *(v for p in pairs for v in p), constant), routes, (str(s % m),))


@family("Number Theory", 2, 3, 4)
def euclid(rng: Random, level: int) -> Draft:
    """Greatest common divisor by Euclid's algorithm; least common multiple from it at levels 3 and 4."""
    g = rng.randint(2, 15)
    while True:
        a, b = g * rng.randint(5, 19), g * rng.randint(3, 12)
        if a > b and a % b and gcd(a, b) == g and (level != 2 or b < 99):
            break
    steps, p, q = [], a, b
    while p % q:
        steps.append(f"{p}={p // q}\\cdot{q}+{p % q}")
        p, q = q, p % q
    steps.append(f"\\gcd({a},{b})={g}")
    if level == 2:
        return Draft((f"Find $\\gcd({a},{b})$.", f"What is the greatest common divisor of ${a}$ and ${b}$?"), (a, b), [tuple(steps)], (str(g),))
    whole = lcm(a, b)
    ends = [(f"{a}/{g}={a // g}", mul(a // g, b)), (f"{b}/{g}={b // g}", mul(b // g, a))]
    routes = [(*steps, *e) for e in ends]
    if level == 3:
        return Draft((f"Find the least common multiple of ${a}$ and ${b}$.", f"What is $\\text{{lcm}}({a},{b})$?"), (a, b), routes, (str(whole),))
    routes = [(*r, add(whole, g)) for r in routes]
    return Draft((f"Find $\\text{{lcm}}({a},{b})+\\gcd({a},{b})$.", f"What is $\\gcd({a},{b})+\\text{{lcm}}({a},{b})$?"), (a, b), routes, (str(whole + g),))


@family("Number Theory", 3, 5)
def number_bases(rng: Random, level: int) -> Draft:
    """A number from base b; at level 5 on to another base."""
    base = rng.randint(4, 9)
    digits = [rng.randint(1, base - 1), *(rng.randint(0, base - 1) for _ in range(2))]
    powers = [base**2, base, 1]
    terms = [d * p for d, p in zip(digits, powers)]
    value = sum(terms)
    written = "".join(map(str, digits))
    by_powers = (f"{digits[0]}\\cdot{base**2}={terms[0]}", f"{digits[1]}\\cdot{base}={terms[1]}", *accumulate(terms))
    first = digits[0] * base
    horner = (f"{digits[0]}\\cdot{base}={first}", add(first, digits[1]), mul(first + digits[1], base), add((first + digits[1]) * base, digits[2]))
    routes: list[Route] = [by_powers, horner]
    if level == 3:
        return Draft((f"Write ${written}_{base}$ in base 10.", f"What is ${written}_{base}$ as a base 10 number?"), (base, *digits), routes, (str(value),))
    target = rng.choice([t for t in range(3, 10) if t != base])
    steps, rest, out = [], value, ""
    while rest:
        steps.append(f"{rest}={rest // target}\\cdot{target}+{rest % target}")
        out, rest = str(rest % target) + out, rest // target
    routes = [(*r, *steps) for r in routes]
    texts = (f"Write ${written}_{base}$ in base ${target}$.", f"Convert ${written}_{base}$ to base ${target}$.")
    return Draft(texts, (base, *digits, target), routes, (f"{out}_{target}", f"{out}_{{{target}}}"))


# --- Intermediate Algebra ---


@family("Intermediate Algebra", 1, 2, 3, 4, 5)
def polynomial_value(rng: Random, level: int) -> Draft:
    """A polynomial at a point, by Horner's scheme or term by term."""
    degree = {1: 2, 2: 2, 3: 3, 4: 3, 5: 4}[level]
    high = {1: 9, 2: 12, 3: 9, 4: 12, 5: 9}[level]
    c = [1 if level == 1 else rng.randint(2, 7), *(nonzero(rng, -high, high) for _ in range(degree))]
    k = rng.randint(2, 12) if level == 1 else nonzero(rng, -9, 9) if level == 2 else nonzero(rng, -5, 5)
    horner, value = [], c[0]
    for d in c[1:]:
        if value not in (0, 1) and abs(k) != 1:
            horner.append(mul(value, k))
        horner.append(add(value * k, d))
        value = value * k + d
    powers = [f"{par(k)}^{p}={k**p}" for p in range(2, degree + 1)]
    terms = [a * k**p for a, p in zip(c, range(degree, -1, -1))]
    products = [mul(a, k**p) for a, p in zip(c, range(degree, 0, -1)) if a != 1]
    routes: list[Route] = [tuple(horner), (*powers, *products, *accumulate(terms))]
    p = polynomial(c)
    texts = (f"If $p(x)={p}$, what is $p({k})$?", f"Find ${p}$ at $x={k}$.")
    return Draft(texts, (*c, k), routes, (str(value),))


@family("Intermediate Algebra", 2, 3, 4)
def inequalities(rng: Random, level: int) -> Draft:
    """Linear absolute values and quadratics; the answer is an interval."""
    strict = rng.random() < 0.5
    sign, left, right = ("<", "(", ")") if strict else ("\\le", "[", "]")
    wording = lambda s: (f"Solve ${s}$. Write an interval.", f"For which $x$ is ${s}$? Give an interval.")  # noqa: E731
    if level == 3:
        low = nonzero(rng, -12, 9)
        high = low + rng.randint(2, 14)
        if high == 0:
            high += 1
        s, p = low + high, low * high
        text = f"{polynomial((1, -s, p))}{sign}0"
        factored = f"(x{signed(-low)})(x{signed(-high)}){sign}0"
        routes: list[Route] = [(mul(low, high), add(low, high), factored), (factored, f"x={low},x={high}")]
        return Draft(wording(text), (s, p), routes, tuple_forms((low, high), left, right))
    a = rng.randint(2, 6) if level == 2 else rng.randint(2, 12)
    b, c = nonzero(rng, -30, 30), rng.randint(2, 50)
    if level == 2:
        b, c = a * nonzero(rng, -9, 9), a * rng.randint(2, 14)
    low, high = Fraction(-c - b, a), Fraction(c - b, a)
    unfold = f"{-c}{sign}{linear(a, b)}{sign}{c}"
    shifted = f"{-c - b}{sign}{linear(a, 0)}{sign}{c - b}"
    lows = f"{linear(a, 0)}={-c}{signed(-b)}={-c - b}"
    highs = f"{linear(a, 0)}={c}{signed(-b)}={c - b}"
    ends = [tuple(f"x={num(v)}" for v in o) for o in ((low, high), (high, low))]
    routes = [(unfold, shifted, *ends[0]), (lows, ends[0][0], highs, ends[0][1]), (highs, ends[1][0], lows, ends[1][1])]
    return Draft(wording(f"|{linear(a, b)}|{sign}{c}"), (a, b, c), routes, tuple_forms((low, high), left, right))


@family("Intermediate Algebra", 1, 3, 4, 5)
def sequences(rng: Random, level: int) -> Draft:
    """Terms and sums of arithmetic progressions, and recursions at level 5."""
    a, d = rng.randint(2, 30), rng.randint(3, 12)
    n = rng.randint(8, 40)
    last = a + (n - 1) * d
    step = (add(n, -1), mul(n - 1, d), add((n - 1) * d, a))
    given = f"An arithmetic sequence starts ${a},{a + d},{a + 2 * d}$."
    if level == 1:
        return Draft((f"{given} Find term ${n}$.", f"{given} What is its term number ${n}$?"), (a, d, n), [step], (str(last),))
    if level in (3, 4):
        if level == 3:
            a, d, n = rng.randint(1, 15), rng.randint(2, 9), 2 * rng.randint(4, 9)
            last = a + (n - 1) * d
            step = (add(n, -1), mul(n - 1, d), add((n - 1) * d, a))
            given = f"An arithmetic sequence starts ${a},{a + d},{a + 2 * d}$."
        both, s = a + last, n * (a + last) // 2
        ends = [(add(a, last), mul(both, n), f"{both * n}/2={s}")]
        if n % 2 == 0:
            ends.append((add(a, last), f"{n}/2={n // 2}", mul(both, n // 2)))
        texts = (f"{given} Find the sum of ${n}$ terms.", f"{given} What do its first ${n}$ terms add up to?")
        return Draft(texts, (a, d, n), [step + e for e in ends], (str(s),))
    p, q, x = rng.randint(2, 3), nonzero(rng, -9, 9), rng.randint(2, 9)
    steps, value, count = [], x, rng.randint(4, 5)
    for _ in range(count - 1):
        steps += [mul(p, value), add(p * value, q)]
        value = p * value + q
    short = tuple(f"a_{i}={v}" for i, v in zip(range(2, count + 1), [int(s.rpartition("=")[2]) for s in steps[1::2]]))
    texts = (f"Let $a_1={x}$ and $a_{{n+1}}={p}a_n{signed(q)}$. Find $a_{count}$.",)
    return Draft(texts, (p, q, x, count), [tuple(steps), short], (str(value),))


# --- Precalculus ---


@family("Precalculus", 1, 2, 3, 4, 5)
def complex_numbers(rng: Random, level: int) -> Draft:
    """Sums, products and powers of complex numbers."""
    high = 40 if level == 1 else 9
    a, b, c, d = (nonzero(rng, -high, high) for _ in range(4))

    def z(p: int, q: int) -> str:
        return str(p) if q == 0 else linear(q, 0, "i") if p == 0 else f"{p}{'-' if q < 0 else '+'}{'' if abs(q) == 1 else abs(q)}i"

    def forms(p: int, q: int) -> tuple[str, ...]:
        return (z(p, q), *((f"{linear(q, 0, 'i')}{signed(p)}",) if p and q else ()))

    def product_parts(a: int, b: int, c: int, d: int) -> tuple[list[Route], int, int]:
        real, imaginary = a * c - b * d, a * d + b * c
        one, two = (mul(a, c), mul(b, d), add(a * c, -b * d)), (mul(a, d), mul(b, c), add(a * d, b * c))
        return any_order([[one], [two]]), real, imaginary

    if level == 1:
        text = f"({z(a, b)})-({z(c, d)})"
        return Draft(asked(text), (a, b, c, d), any_order([[(add(a, -c),)], [(add(b, -d),)]]), forms(a - c, b - d))
    routes, real, imaginary = product_parts(a, b, c, d)
    text = f"({z(a, b)})({z(c, d)})"
    if level == 2:
        return Draft(asked(text), (a, b, c, d), routes, forms(real, imaginary))
    if level == 3:
        e, f = nonzero(rng, -50, 50), nonzero(rng, -50, 50)
        routes = [(*r, *end) for r in routes for end in any_order([[(add(real, e),)], [(add(imaginary, f),)]])]
        return Draft(asked(f"{text}+({z(e, f)})"), (a, b, c, d, e, f), routes, forms(real + e, imaginary + f))
    if level == 4:
        square = (a * a - b * b, 2 * a * b)
        first = (f"{par(a)}^2={a * a}", f"{par(b)}^2={b * b}", add(a * a, -b * b))
        second = (mul(a, b), mul(2, a * b))
        c, d = nonzero(rng, -30, 30), nonzero(rng, -30, 30)
        ends = any_order([[(add(square[0], c),)], [(add(square[1], d),)]])
        routes = any_order([[first], [second]], ends)
        return Draft(asked(f"({z(a, b)})^2+({z(c, d)})"), (a, b, c, d), routes, forms(square[0] + c, square[1] + d))
    k = rng.randint(3, 9)
    routes = [(*r, *end) for r in routes for end in any_order([[(mul(k, real),)], [(mul(k, imaginary),)]])]
    return Draft(asked(f"{k}{text}"), (a, b, c, d, k), routes, forms(k * real, k * imaginary))


@family("Precalculus", 1, 2, 3, 4, 5)
def vectors(rng: Random, level: int) -> Draft:
    """Combinations, dot products, determinants and cross products."""
    high = 9 if level < 4 else 7
    u, v = ([nonzero(rng, -high, high) for _ in range(3)] for _ in range(2))

    def vec(w: list[int]) -> str:
        return "(" + ",".join(map(str, w)) + ")"

    if level == 1:
        k, u, v = rng.randint(2, 9), u[:2], [nonzero(rng, -30, 30) for _ in range(2)]
        value = [k * x + y for x, y in zip(u, v)]
        routes = any_order([[(mul(k, x), add(k * x, y))] for x, y in zip(u, v)])
        return Draft(asked(f"{k}{vec(u)}+{vec(v)}"), (k, *u, *v), routes, tuple_forms(value))
    if level in (2, 3):
        if level == 2:
            u, v = [nonzero(rng, -15, 15) for _ in range(2)], [nonzero(rng, -9, 9) for _ in range(2)]
        parts = [([(mul(x, y),)], x * y) for x, y in zip(u, v)]
        value = sum(p[1] for p in parts)
        ask = f"{vec(u)}\\cdot{vec(v)}"
        return Draft((f"Compute the dot product ${ask}$.", f"What is ${ask}$?"), (*u, *v), total(parts), (str(value),))
    if level == 4:
        k, u, v, w = rng.randint(2, 5), u[:2], v[:2], [nonzero(rng, -9, 9) for _ in range(2)]
        both = [k * x + y for x, y in zip(u, v)]
        groups = [[(mul(k, x), add(k * x, y))] for x, y in zip(u, v)]
        ends = [r for r in total([([(mul(x, y),)], x * y) for x, y in zip(both, w)]) if r[-1].startswith(num(both[0] * w[0]))]
        ask = f"({k}{vec(u)}+{vec(v)})\\cdot{vec(w)}"
        value = both[0] * w[0] + both[1] * w[1]
        return Draft(asked(ask), (k, *u, *v, *w), any_order(groups, ends), (str(value),))
    value, groups = [], []
    for i, j in ((1, 2), (2, 0), (0, 1)):
        p, q = u[i] * v[j], u[j] * v[i]
        groups.append([(mul(u[i], v[j]), mul(u[j], v[i]), add(p, -q))])
        value.append(p - q)
    routes = [tuple(s for g in order for s in g[0]) for order in (groups, groups[::-1])]
    return Draft(asked(f"{vec(u)}\\times{vec(v)}"), (*u, *v), routes, tuple_forms(value))
