"""The work of a problem: which steps are right where, and one worked example.

Checking is exact because the right steps of every state can be listed. There are two kinds of work: a chain, whose
steps are given one after the other, and a sum, whose parts may be taken in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Protocol

from .notation import add, mul

State = tuple  # what is known after some right steps; hashable


class Work(Protocol):
    """The work of one problem; a formula is the mathematics of a step, the boxed answer is no step of the work."""

    @property
    def start(self) -> State: ...

    def moves(self, state: State) -> dict[str, State]:
        """Every right next formula, and the state that it leads to; none once the work is done."""
        ...

    def example(self, rng: Random) -> list[str]:
        """The formulas of one right solution."""
        ...


@dataclass(frozen=True)
class Chain:
    """Steps in a fixed order; the state is how many are done."""

    formulas: tuple[str, ...]
    start: State = (0,)

    def moves(self, state: State) -> dict[str, State]:
        (done,) = state
        return {self.formulas[done]: (done + 1,)} if done < len(self.formulas) else {}

    def example(self, rng: Random) -> list[str]:
        return list(self.formulas)


@dataclass(frozen=True)
class Sum:
    """The sum of numbers and products, reduced modulo m where there is one.

    The state is the numbers at hand, sorted, and the products not worked out yet. A right step adds two of the numbers,
    works a product out, or takes the modulus off a number that is at least m. The work is done when one number is left,
    below m.
    """

    parts: tuple[int | tuple[int, int], ...]  # in the order of the problem's text
    modulus: int = 0

    @property
    def start(self) -> State:
        numbers = sorted(p for p in self.parts if isinstance(p, int))
        return tuple(numbers), tuple(sorted(p for p in self.parts if not isinstance(p, int)))

    def moves(self, state: State) -> dict[str, State]:
        numbers, products = state
        found = {}
        for i, a in enumerate(numbers):
            rest = numbers[:i] + numbers[i + 1 :]
            if self.modulus and a >= self.modulus:
                found[add(a, -self.modulus)] = (tuple(sorted((*rest, a - self.modulus))), products)
            for j, b in enumerate(rest):
                others = rest[:j] + rest[j + 1 :]
                found[add(a, b)] = (tuple(sorted((*others, a + b))), products)
        for i, (a, b) in enumerate(products):
            others = products[:i] + products[i + 1 :]
            found[mul(a, b)] = (tuple(sorted((*numbers, a * b))), others)
        return found

    def example(self, rng: Random) -> list[str]:
        """From the first part on or from the last; products when they are needed or all at first; a total is reduced
        as soon as it is large enough."""
        order = self.parts[:: rng.choice((1, -1))]
        early = rng.random() < 0.5
        first, steps, total = [], [], None
        for part in order:
            if isinstance(part, int):
                value = part
            else:
                value = part[0] * part[1]
                (first if early else steps).append(mul(*part))
            if total is not None:
                steps.append(add(total, value))
            total = value if total is None else total + value
            if self.modulus and total >= self.modulus:
                steps.append(add(total, -self.modulus))
                total -= self.modulus
        return first + steps


@dataclass(frozen=True)
class Both:
    """Two pieces of work, the first before the second; the state is which one and how far it has got."""

    first: Work
    second: Work

    @property
    def start(self) -> State:
        return 1, self.first.start

    def moves(self, state: State) -> dict[str, State]:
        at, inner = state
        if at == 2:
            return {formula: (2, after) for formula, after in self.second.moves(inner).items()}
        found = self.first.moves(inner).items()
        return {formula: (1, after) if self.first.moves(after) else (2, self.second.start) for formula, after in found}

    def example(self, rng: Random) -> list[str]:
        return self.first.example(rng) + self.second.example(rng)
