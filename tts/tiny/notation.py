"""LaTeX for numbers, terms, sums and products."""

from __future__ import annotations

from collections.abc import Sequence


def par(value: int) -> str:
    """A number as a right-hand factor: negative ones in parentheses."""
    return f"({value})" if value < 0 else str(value)


def signed(value: int) -> str:
    """A number as a later term of a sum: "+3" or "-3"."""
    return f"{value:+d}"


def add(a: int, b: int) -> str:
    """The step a + b = c."""
    return f"{a}{b:+d}={a + b}"


def mul(a: int, b: int) -> str:
    """The step a * b = c."""
    return f"{a}\\cdot{par(b)}={a * b}"


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
