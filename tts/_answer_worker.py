"""Reads scalars with latex2sympy2_extended and gives them a value of ours; run as a process of its own by tts.answers.

The parser only builds a tree (nothing is evaluated, simplified or compared by SymPy); evaluate() walks that tree with exact
rationals and, where a root or a constant makes that impossible, with mpmath at two precisions that must agree. So time and
memory are bounded by the limits below rather than by what SymPy might try.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from fractions import Fraction

import mpmath
import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, _Latex2Sympy

from tts._answer_form import Key, TooLarge, Unreadable, number_key, read

MEMORY = 2 << 30  # bytes of address space a worker may have
CPU_SECONDS = 10  # for one answer
DIGITS = 15  # a constant that is not rational is known by its first 15 digits
PRECISIONS = (60, 120, 240)  # decimal digits it is computed with, until two agree
MAX_BITS = 1 << 17  # of an exact number
POINTS = 3  # where expressions with symbols are evaluated

Value = Fraction | mpmath.mpc


class _Parser(_Latex2Sympy):
    """The parser, with what it evaluates or reads wrongly put right."""

    def parse_number(self, text: str) -> sympy.Rational:
        return sympy.Rational(text.replace(",", "").lstrip("0") or "0")  # exact, not a float

    def convert_binom(self, binom):
        return sympy.binomial(self.convert_expr(binom.upper), self.convert_expr(binom.lower), evaluate=False)

    def handle_gcd_lcm(self, f, args):
        return sympy.Function(f)(*args)

    def handle_exp(self, func):
        sup = func.supexpr()
        if sup is None:
            return sympy.E
        return sympy.exp(self.convert_expr(sup.expr()) if sup.expr() else self.convert_atom(sup.atom()), evaluate=False)

    def convert_postfix_list(self, arr, i=0):
        """Factors side by side. Only "1\\frac{1}{2}" is a mixed number: (3)(4) is 12, and "3 4" is nothing."""
        factors = [self.convert_postfix(factor) for factor in arr[i:]]
        texts = [factor.getText() for factor in arr[i:]]
        if len(factors) == 1:
            return factors[0]
        if any(isinstance(factor, list) for factor in factors):
            raise Unreadable("derivative")
        if any(right[:1].isdigit() or right[:1] == "." for right in texts[1:]):
            raise Unreadable("numbers side by side")
        if len(factors) == 2 and texts[0].isdigit() and re.fullmatch(r"\\frac\{\d+\}\{\d+\}", texts[1]):
            return sympy.Add(*factors, evaluate=False)
        return sympy.Mul(*factors, evaluate=False)


_CONFIG = ConversionConfig(lowercase_symbols=False)
_WORDS = re.compile(r"\\[A-Za-z]+|[A-Za-z]{3,}")


def scalar(text: str) -> Key:
    """The key of one expression, or of one equation "left=right". Raises Unreadable."""
    for word in _WORDS.findall(text):
        if word[0] != "\\" and not _is_product(word):
            raise Unreadable("words")
    left, equals, right = text.partition("=")
    try:
        tree = _parse(left) - _parse(right) if equals else _parse(left)
    except (Unreadable, MemoryError):
        raise
    except Exception as error:  # the parser raises bare Exception, and whatever a strange tree makes SymPy raise
        raise Unreadable(f"not parsed: {type(error).__name__}") from None
    return _key(tree, equation=bool(equals))


def _is_product(word: str) -> bool:
    """xyz and abc are products, "odd" and "Evelyn" are words."""
    letters = sorted(word)
    return len(word) <= 4 and [chr(ord(letters[0]) + i) for i in range(len(letters))] == letters


def _parse(text: str) -> sympy.Basic:
    text = re.sub(r"(?<![A-Za-z\\])([A-EH-Za-eh-z])\s*\(", r"\1 \\cdot (", text)  # a(b+1) is a product, f(x) is not
    return _Parser(config=_CONFIG).parse(text)


def _key(tree: sympy.Basic, *, equation: bool) -> Key:
    symbols = sorted(_symbols(tree))
    if not symbols and not equation:
        (value,) = _settled(lambda: [evaluate(tree, {})])
        return _number_key(value)
    points = [{name: _point(name, index) for name in symbols} for index in range(POINTS + equation)]

    def values() -> list[Value]:
        found = [evaluate(tree, point) for point in points]
        if equation:  # the same equation times a constant is the same equation
            if not found[0]:
                raise Unreadable("both sides are equal")
            found = [_divide(value, found[0]) for value in found[1:]]
        return found

    keys = [_number_key(value) for value in _settled(values)]
    if not equation and len(set(keys)) == 1:  # x - x + 5
        return keys[0]
    return ("equation" if equation else "expression", ",".join(symbols), *keys)


def _symbols(tree: sympy.Basic) -> set[str]:
    return {str(leaf) for leaf in sympy.preorder_traversal(tree) if _is_symbol(leaf)} - {"i"}


def _is_symbol(leaf: object) -> bool:
    return isinstance(leaf, sympy.Symbol) or leaf in (sympy.I, sympy.EulerGamma)


def _point(name: str, index: int) -> Fraction:
    """A fixed rational for a symbol: below 0 at the second point, so that |x| is not x."""
    digest = hashlib.sha256(f"{name} {index}".encode()).digest()
    size = Fraction(int.from_bytes(digest[:4]) % 9000 + 1000, int.from_bytes(digest[4:8]) % 9000 + 1000)
    return -size if index == 1 else size


# -- values ---------------------------------------------------------------------------------------------------------------


def evaluate(node: sympy.Basic, point: Mapping[str, Fraction]) -> Value:
    """The value of a tree at a point: exact as long as it is rational, at mpmath's current precision otherwise."""
    if isinstance(node, sympy.Rational):
        return Fraction(int(node.p), int(node.q))
    if node is sympy.pi:
        return mpmath.mpc(mpmath.pi)
    if node is sympy.E:
        return mpmath.mpc(mpmath.e)
    if _is_symbol(node):
        return mpmath.mpc(0, 1) if str(node) == "i" else point[str(node)]
    if not node.args or not isinstance(node, (sympy.Expr, sympy.Mod)):
        raise Unreadable(f"no value: {type(node).__name__}")
    if isinstance(node, sympy.Function) and type(node) not in _FUNCTIONS and str(node.func) not in _NAMED:
        raise Unreadable(f"no value: {node.func}")
    values = [evaluate(argument, point) for argument in node.args]
    if isinstance(node, sympy.Add):
        return _fold(lambda a, b: a + b, values)
    if isinstance(node, sympy.Mul):
        return _fold(lambda a, b: a * b, values)
    if isinstance(node, sympy.Pow):
        return _power(*values)
    if isinstance(node, sympy.UnevaluatedExpr):
        return values[0]
    function = _FUNCTIONS.get(type(node)) or _NAMED.get(str(node.func))
    if function is None:
        raise Unreadable(f"no value: {type(node).__name__}")
    return function(*values)


def _fold(operation: Callable, values: list[Value]) -> Value:
    total = values[0]
    for value in values[1:]:
        if isinstance(total, Fraction) and isinstance(value, Fraction):
            total = _bounded(operation(total, value))
        else:
            total = operation(_approximate(total), _approximate(value))
    return total


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise TooLarge("too large")
    return value


def _approximate(value: Value) -> mpmath.mpc:
    return mpmath.mpc(mpmath.mpf(value.numerator) / value.denominator) if isinstance(value, Fraction) else value


def _divide(a: Value, b: Value) -> Value:
    if not b:
        raise Unreadable("division by zero")
    return _bounded(a / b) if isinstance(a, Fraction) and isinstance(b, Fraction) else _approximate(a) / _approximate(b)


def _power(base: Value, exponent: Value) -> Value:
    if not base:
        if isinstance(exponent, Fraction) and exponent >= 0:
            return Fraction(int(exponent == 0))
        raise Unreadable("division by zero")
    if isinstance(exponent, Fraction):
        bits = max(base.numerator.bit_length(), base.denominator.bit_length()) if isinstance(base, Fraction) else 2
        if abs(exponent) * bits > MAX_BITS or exponent.denominator > 1000:
            raise TooLarge("too large")
        if isinstance(base, Fraction):
            if exponent.denominator == 1:
                return base**exponent.numerator
            if (root := _exact_root(base, exponent.denominator)) is not None:
                return root**exponent.numerator
        # an odd root of a negative number is the real one: \sqrt[3]{-8} is -2
        if exponent.denominator % 2 and exponent.denominator > 1 and _is_negative(base):
            size = mpmath.power(-_approximate(base), _approximate(exponent))
            return -size if exponent.numerator % 2 else size
    exponent, base = _approximate(exponent), _approximate(base)
    _within(abs(exponent) * abs(mpmath.log(base)))
    return mpmath.power(base, exponent)


def _is_negative(value: Value) -> bool:
    return value < 0 if isinstance(value, Fraction) else value.imag == 0 and value.real < 0


def _exact_root(base: Fraction, degree: int) -> Fraction | None:
    if base < 0 and degree % 2 == 0:
        return None
    parts = [sympy.integer_nthroot(part, degree) for part in (abs(base.numerator), base.denominator)]
    if not all(exact for _, exact in parts):
        return None
    return Fraction(int(parts[0][0]), int(parts[1][0])) * (-1 if base < 0 else 1)


def _within(size: mpmath.mpf) -> None:
    if not size < 1e6:
        raise TooLarge("too large")


def _real(value: Value) -> Fraction | mpmath.mpf:
    if isinstance(value, Fraction):
        return value
    if value.imag != 0:
        raise Unreadable("not real")
    return value.real


def _integer(value: Value, limit: int) -> int:
    if not isinstance(value, Fraction) or value.denominator != 1 or abs(value) > limit:
        raise Unreadable("not a small integer")
    return int(value)


def _function(function: Callable) -> Callable[..., Value]:
    """A function of mpmath, as one of values; its argument must not be so large that its digits are lost."""

    def apply(*values: Value) -> Value:
        arguments = [_approximate(value) for value in values]
        for argument in arguments:
            _within(abs(argument))
        try:
            return mpmath.mpc(function(*arguments))
        except (ValueError, ZeroDivisionError, OverflowError):
            raise Unreadable("not defined there") from None

    return apply


def _logarithm(value: Value, base: Value | None = None) -> Value:
    if not value or (base is not None and base in (0, 1)):
        raise Unreadable("not defined there")
    if base is None:
        return mpmath.log(_approximate(value))
    return _divide(mpmath.log(_approximate(value)), mpmath.log(_approximate(base)))


def _factorial(value: Value) -> Value:
    n = _integer(value, 5000)
    if n < 0:
        raise Unreadable("not defined there")
    return _bounded(Fraction(sympy.factorial(n).p))


def _binomial(n: Value, k: Value) -> Value:
    return _bounded(Fraction(int(sympy.binomial(_integer(n, 5000), _integer(k, 5000)))))


def _absolute(value: Value) -> Value:
    return abs(value) if isinstance(value, Fraction) else mpmath.mpc(abs(value))


def _rounded(rounding: Callable) -> Callable[[Value], Value]:
    def apply(value: Value) -> Value:
        real = _real(value)
        _within(abs(real))
        return Fraction(int(rounding(real)))

    return apply


def _modulo(value: Value, modulus: Value) -> Value:
    if not modulus:
        raise Unreadable("division by zero")
    return Fraction(_integer(value, 1 << 64) % _integer(modulus, 1 << 64))


def _of_integers(function: Callable) -> Callable[..., Value]:
    return lambda *values: Fraction(function(*(_integer(value, 1 << 64) for value in values)))


def _of_reals(function: Callable) -> Callable[..., Value]:
    def apply(*values: Value) -> Value:
        return function(values, key=lambda value: _approximate(value).real if _real(value) is not None else 0)

    return apply


def _functions() -> dict[type, Callable[..., Value]]:
    import math

    names = "sin cos tan cot sec csc asin acos atan acot asec acsc sinh cosh tanh asinh acosh atanh exp".split()
    table: dict[type, Callable[..., Value]] = {getattr(sympy, name): _function(getattr(mpmath, name)) for name in names}
    table |= {
        sympy.log: _logarithm,
        sympy.Abs: _absolute,
        sympy.factorial: _factorial,
        sympy.binomial: _binomial,
        sympy.floor: _rounded(math.floor),
        sympy.ceiling: _rounded(math.ceil),
        sympy.Mod: _modulo,
        sympy.Max: _of_reals(max),
        sympy.Min: _of_reals(min),
    }
    return table


_FUNCTIONS = _functions()


def _named() -> dict[str, Callable[..., Value]]:
    import math

    return {"gcd": _of_integers(math.gcd), "lcm": _of_integers(math.lcm)}


_NAMED = _named()


def _settled(compute: Callable[[], list[Value]]) -> list[Value]:
    """What compute() gives, at a precision at which its digits no longer depend on the precision."""
    before = None
    for precision in PRECISIONS:
        with mpmath.workdps(precision):
            values = compute()
            if all(isinstance(value, Fraction) for value in values):
                return values
            if before is not None and all(map(_agree, before, values)):
                return [_recognised(value) for value in values]
            before = values
    raise Unreadable("its digits depend on the precision")


def _agree(a: Value, b: Value) -> bool:
    if isinstance(a, Fraction) or isinstance(b, Fraction):
        return a == b
    return all(_agree_real(x, y, abs(b)) for x, y in ((a.real, b.real), (a.imag, b.imag)))


def _agree_real(a: mpmath.mpf, b: mpmath.mpf, size: mpmath.mpf) -> bool:
    """Equal to 40 digits, or nothing but rounding: \\sqrt{8} - 2\\sqrt{2} shrinks with the precision, e^{-100} doesn't."""
    if abs(a - b) <= mpmath.mpf(10) ** -40 * abs(b):
        return True
    return abs(b) < mpmath.mpf(10) ** -100 and abs(b) < mpmath.mpf(10) ** -40 * abs(a)


def _recognised(value: Value) -> Value:
    """A rational that a root or a constant led to, as the rational it is: \\sqrt{2}\\sqrt{8} is 4."""
    if isinstance(value, Fraction):
        return value
    parts = [_rational_near(part) for part in (value.real, value.imag)]
    if parts[0] is not None and parts[1] == 0:
        return parts[0]
    return mpmath.mpc(
        *(part if known is None else _approximate(known).real for part, known in zip((value.real, value.imag), parts))
    )


def _rational_near(part: mpmath.mpf) -> Fraction | None:
    if abs(part) < mpmath.mpf(10) ** -100:
        return Fraction(0)
    if not -100 < mpmath.log(abs(part), 2) < 100:
        return None
    sign, man, exponent, _ = part._mpf_
    exact = Fraction(-int(man) if sign else int(man)) * Fraction(2) ** int(exponent)
    near = exact.limit_denominator(10**12)
    return near if abs(exact - near) < Fraction(1, 10**80) else None


def _number_key(value: Value) -> Key:
    if isinstance(value, Fraction):
        return number_key(value)
    real, imaginary = (_digits(part) for part in (value.real, value.imag))
    return ("real", real) if imaginary == "0" else ("complex", real, imaginary)


def _digits(part: mpmath.mpf) -> str:
    known = _rational_near(part)
    return mpmath.nstr(part, DIGITS) if known is None else str(known)


# -- the process ----------------------------------------------------------------------------------------------------------


def main() -> None:
    """Answers (JSON strings, normalised) on standard input, [key or null, status] for each on standard output."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    replies = os.fdopen(os.dup(1), "w")
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)  # nothing that a library prints can pass for a reply
    os.dup2(devnull, 2)
    replies.write("ready\n")
    replies.flush()
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # ends this process, whatever it is doing
        try:
            reply = [read(json.loads(line), scalar), "parsed"]
        except TooLarge:
            reply = [None, "rejected"]
        except (Unreadable, RecursionError):
            reply = [None, "text"]
        signal.setitimer(signal.ITIMER_PROF, 0)
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
