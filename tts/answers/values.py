"""The key of one expression: parsed by latex2sympy2_extended, evaluated here.

The parser only builds a tree. SymPy doesn't evaluate, simplify or compare it, because these steps can hang. Here
the tree is evaluated with exact rationals and, from the first root or constant on, with mpmath at two precisions that
must agree. So the limits below bound time and memory.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import reduce

import mpmath
import sympy
from antlr4.atn.PredictionMode import PredictionMode
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, _Latex2Sympy
from sympy.core.function import AppliedUndef

from tts.answers.form import Key, TooLargeError, UnreadableError, is_product, number_key

DIGITS = 15  # in the key of a constant that is not rational
PRECISIONS = (60, 120, 240)  # decimal digits in the computation, until two agree
POINTS = 3  # where expressions with symbols are evaluated
MAX_BITS = 1 << 17  # of an exact number
MAX_ARGUMENT = 1e6  # of a function that is not rational
MAX_INTEGER = 1 << 64  # of gcd, lcm and mod
MAX_FACTORIAL = 5000

Value = Fraction | mpmath.mpc


def scalar(text: str) -> Key:
    """The key of an expression, or of an equation "left=right". Raises UnreadableError."""
    if re.search(r"[0-9)]\s*_", text):
        raise UnreadableError("a base inside an expression")  # the parser would drop it
    if re.search(r"\^\s*(?:\{[^{}]*\}|[0-9]+|\w)\s*\^", text):
        raise UnreadableError("an exponent of an exponent without braces")
    if re.search(r":|'|\\prime|\\quad|[0-9.][eE][+-]?[0-9]", text):  # the parser would divide, drop or add
        raise UnreadableError("a ratio, a prime, a gap or scientific notation inside an expression")
    if r"\text" in text or not all(map(is_product, re.findall(r"(?<![A-Za-z\\])[A-Za-z]+", text))):
        raise UnreadableError("words")
    left, equals, right = text.partition("=")
    return _equation_key(_parse(left), _parse(right)) if equals else _expression_key(_parse(left))


# -- the parser -----------------------------------------------------------------------------------------------------


class _Parser(_Latex2Sympy):
    """The parser, without the evaluation that it does while it reads, and without its wrong readings."""

    def parse(self, latex_str: str) -> object:
        """Parse in two stages, as ANTLR advises: what the fast prediction accepts, the full one reads the same way."""
        try:
            self.mode = PredictionMode.SLL
            return super().parse(latex_str)
        except (UnreadableError, MemoryError):
            raise
        except Exception:  # a syntax error, or something that the fast prediction can't read
            self.mode = PredictionMode.LL
            return super().parse(latex_str)

    def create_parser(self, latex_str: str):
        parser = super().create_parser(latex_str)
        parser._interp.predictionMode = self.mode
        return parser

    def parse_number(self, text: str) -> sympy.Rational:
        return sympy.Rational(text.replace(",", "").lstrip("0") or "0")  # exact, not a float

    def convert_binom(self, binom):
        return sympy.binomial(self.convert_expr(binom.upper), self.convert_expr(binom.lower), evaluate=False)

    def handle_gcd_lcm(self, f, args):
        return sympy.Function(f)(*args)

    def handle_exp(self, func):
        power = func.supexpr()
        if power is None:
            return sympy.E
        exponent = self.convert_expr(power.expr()) if power.expr() else self.convert_atom(power.atom())
        return sympy.exp(exponent, evaluate=False)

    def convert_mp(self, mp):
        """Quotients. 1/2x is ambiguous."""
        if mp.DIV():
            divisor = mp.mp(1).unary() if hasattr(mp, "mp") else mp.mp_nofunc(1).unary_nofunc()
            if divisor.getChildCount() > 1 and divisor.getChild(0).getText() not in "+-":
                raise UnreadableError("a product after a slash")
        return super().convert_mp(mp)

    def convert_postfix_list(self, arr, i=0):
        r"""Factors side by side; only 1\frac{1}{2} is a sum. (The parser adds in (3)(4) and "3 4" too.)"""
        factors = [self.convert_postfix(factor) for factor in arr[i:]]
        texts = [factor.getText() for factor in arr[i:]]
        if len(factors) == 1 and isinstance(factors[0], sympy.Basic | sympy.MatrixBase):
            return factors[0]
        if not all(isinstance(factor, sympy.Expr) for factor in factors):
            raise UnreadableError("a derivative or a matrix")
        if any(b[0] in ".0123456789" and not _CLOSED_POWER.search(a) for a, b in zip(texts, texts[1:])):
            raise UnreadableError("numbers side by side")
        if mixed := _MIXED_NUMBER.fullmatch("".join(texts[:2])):
            if len(texts) > 2 or int(mixed[1]) >= int(mixed[2]):
                raise UnreadableError("a mixed number or a product")
            return sympy.Add(*factors, evaluate=False)
        return sympy.Mul(*factors, evaluate=False)


_MIXED_NUMBER = re.compile(r"[0-9]+\\frac\{([0-9]+)\}\{([0-9]+)\}")
_CLOSED_POWER = re.compile(r"\^\{[^{}]*\}$")
_RAISED = re.compile(r"\\[A-Za-z]+|([A-DF-Za-df-z])(?=\s*\^)")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_NO_FUNCTIONS = {r"\frac", r"\sqrt", r"\cdot", r"\times", r"\pi"}
_CONFIG = ConversionConfig(lowercase_symbols=False)


def _parse(text: str) -> sympy.Basic:
    text = re.sub(r"(?<![A-Za-z\\])([A-Za-z]?)d(?=\s*[A-Za-z])", r"\1 d * ", text)  # "dx" would be a differential
    if set(_COMMAND.findall(text)) <= _NO_FUNCTIONS:  # the parser is slow at x^2, not at {x}^2
        text = _RAISED.sub(lambda match: f"{{{match[1]}}}" if match[1] else match[0], text)
    try:
        tree = _Parser(config=_CONFIG).parse(text)
    except (UnreadableError, MemoryError):
        raise
    except Exception as error:  # the parser raises Exception itself, and SymPy raises many kinds on strange trees
        raise UnreadableError(f"not parsed: {type(error).__name__}") from None
    if not isinstance(tree, sympy.Expr):
        raise UnreadableError(f"no expression: {type(tree).__name__}")
    return tree


# -- keys -----------------------------------------------------------------------------------------------------------


def _expression_key(tree: sympy.Basic) -> Key:
    """The values of the expression at fixed points. Points differ from symbol to symbol, so the key needs no names."""
    names = _symbols(tree)
    points = [_point(names, index) for index in range(POINTS if names else 1)]
    keys = [_number_key(value) for value in _settled(lambda: [evaluate(tree, point) for point in points])]
    return keys[0] if len(set(keys)) == 1 else ("expression", *keys)  # x - x + 5 is 5


def _equation_key(left: sympy.Basic, right: sympy.Basic) -> Key:
    """An equation is its left minus its right side, up to a constant factor."""
    names = _symbols(left) | _symbols(right)
    points = [_point(names, index) for index in range(POINTS + 1)]

    def ratios() -> list[Value]:
        first, *rest = (_plus(evaluate(left, point), _times(Fraction(-1), evaluate(right, point))) for point in points)
        return [_quotient(value, first) for value in rest]

    return ("equation", *(_number_key(value) for value in _settled(ratios)))


def _symbols(tree: sympy.Basic) -> set[str]:
    return {name for node in sympy.preorder_traversal(tree) if (name := _name(node)) and name != "i"}


def _point(names: set[str], index: int) -> dict[str, Fraction]:
    """A fixed rational for each symbol, negative at the second point, so that |x| is not x."""
    point = {}
    for name in names:
        digest = hashlib.sha256(f"{name} {index}".encode()).digest()
        top, bottom = (int.from_bytes(digest[k : k + 4]) % 9000 + 1000 for k in (0, 4))
        point[name] = Fraction(-top if index == 1 else top, bottom)
    return point


def _number_key(value: Value) -> Key:
    if isinstance(value, Fraction):
        return number_key(value)
    real, imaginary = (_digits(part) for part in (value.real, value.imag))
    return ("real", real) if imaginary == "0" else ("complex", real, imaginary)


def _digits(part: mpmath.mpf) -> str:
    rational = _rational(part)
    return mpmath.nstr(part, DIGITS) if rational is None else str(rational)


# -- evaluation -----------------------------------------------------------------------------------------------------


def evaluate(node: sympy.Basic, point: Mapping[str, Fraction]) -> Value:
    """The value of a tree at a point: exact while it is rational, then at mpmath's current precision."""
    if isinstance(node, sympy.Rational):
        return Fraction(int(node.p), int(node.q))
    if node is sympy.pi or node is sympy.E:
        return mpmath.mpc(mpmath.pi if node is sympy.pi else mpmath.e)
    name = _name(node)
    if name and not node.args:
        return mpmath.mpc(0, 1) if name == "i" else point[name]
    values = [evaluate(argument, point) for argument in node.args]
    if name and len(values) == 1:  # x(y) is read as a function of y
        return _times(point[name] if name != "i" else mpmath.mpc(0, 1), values[0])
    operation = _OPERATIONS.get(str(node.func) if isinstance(node, AppliedUndef) else type(node))
    if operation is None:
        raise UnreadableError(f"no value: {type(node).__name__}")
    return operation(*values)


def _name(node: object) -> str | None:
    """The symbol that a node stands for."""
    if isinstance(node, sympy.Symbol) or node in (sympy.I, sympy.EulerGamma):
        return str(node)  # the parser reads "I" as the imaginary unit and "i" as a symbol; here it is the reverse
    return str(node.func) if isinstance(node, AppliedUndef) and str(node.func) not in _OPERATIONS else None


def _approximate(value: Value) -> mpmath.mpc:
    return mpmath.mpc(mpmath.mpf(value.numerator) / value.denominator) if isinstance(value, Fraction) else value


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise TooLargeError("an exact number")
    return value


def _exact(*values: Value) -> bool:
    return all(isinstance(value, Fraction) for value in values)


def _plus(a: Value, b: Value) -> Value:
    return _bounded(a + b) if _exact(a, b) else _approximate(a) + _approximate(b)


def _times(a: Value, b: Value) -> Value:
    return _bounded(a * b) if _exact(a, b) else _approximate(a) * _approximate(b)


def _quotient(a: Value, b: Value) -> Value:
    if not b:
        raise UnreadableError("division by zero")
    return _bounded(a / b) if _exact(a, b) else _approximate(a) / _approximate(b)


def _folded(operation: Callable[[Value, Value], Value]) -> Callable[..., Value]:
    return lambda *values: reduce(operation, values)


def _power(base: Value, exponent: Value) -> Value:
    if not base:
        if _exact(exponent) and exponent >= 0:
            return Fraction(int(exponent == 0))
        raise UnreadableError("division by zero")
    if _exact(base, exponent):
        if abs(exponent) * max(base.numerator.bit_length(), base.denominator.bit_length()) > MAX_BITS:
            raise TooLargeError("a power")
        if (root := _exact_root(base, exponent.denominator)) is not None:
            return root**exponent.numerator
    if _exact(exponent) and exponent.denominator % 2 and exponent.denominator > 1 and _is_negative(base):
        size = _power(-base, exponent)  # an odd root of a negative number is the real one: \sqrt[3]{-8} is -2
        return -size if exponent.numerator % 2 else size
    base, exponent = _approximate(base), _approximate(exponent)
    _check_argument(exponent * mpmath.log(base))
    return mpmath.power(base, exponent)


def _is_negative(value: Value) -> bool:
    return value < 0 if _exact(value) else value.imag == 0 and value.real < 0


def _exact_root(base: Fraction, degree: int) -> Fraction | None:
    if degree == 1:
        return base
    if base < 0 or degree > 100:
        return None
    (top, top_is_exact), (bottom, bottom_is_exact) = (
        sympy.integer_nthroot(part, degree) for part in (base.numerator, base.denominator)
    )
    return Fraction(int(top), int(bottom)) if top_is_exact and bottom_is_exact else None


def _check_argument(value: mpmath.mpc) -> None:
    if not abs(value) < MAX_ARGUMENT:
        raise TooLargeError("an argument")


def _function(function: Callable) -> Callable[..., Value]:
    def apply(value: Value) -> Value:
        argument = _approximate(value)
        _check_argument(argument)
        try:
            return mpmath.mpc(function(argument))
        except (ValueError, ZeroDivisionError, OverflowError):
            raise UnreadableError("not defined there") from None

    return apply


def _logarithm(value: Value, base: Value | None = None) -> Value:
    if not value or base == 0 or base == 1:
        raise UnreadableError("not defined there")
    logarithm = mpmath.log(_approximate(value))
    return logarithm if base is None else _quotient(logarithm, mpmath.log(_approximate(base)))


def _integer(value: Value, limit: int = MAX_INTEGER) -> int:
    if not _exact(value) or value.denominator != 1:
        raise UnreadableError("not an integer")
    if abs(value) > limit:
        raise TooLargeError("an integer")
    return int(value)


def _factorial(value: Value) -> Value:
    n = _integer(value, MAX_FACTORIAL)
    if n < 0:
        raise UnreadableError("not defined there")
    return _bounded(Fraction(math.factorial(n)))


def _binomial(n: Value, k: Value) -> Value:
    n, k = _integer(n, MAX_FACTORIAL), _integer(k, MAX_FACTORIAL)
    if n < 0 or k < 0:
        raise UnreadableError("not defined there")
    return Fraction(math.comb(n, k))


def _real(value: Value) -> Fraction | mpmath.mpf:
    if _exact(value):
        return value
    if value.imag:
        raise UnreadableError("not real")
    return value.real


def _rounded(rounding: Callable) -> Callable[[Value], Value]:
    def apply(value: Value) -> Value:
        real = _real(value)
        _check_argument(real)
        return Fraction(int(rounding(real)))

    return apply


def _modulo(value: Value, modulus: Value) -> Value:
    if not modulus:
        raise UnreadableError("division by zero")
    return Fraction(_integer(value) % _integer(modulus))


def _extreme(choose: Callable) -> Callable[..., Value]:
    return lambda *values: choose(
        values, key=lambda value: _approximate(_real(value)).real if _exact(value) else _real(value)
    )


_SAME_NAME = ("sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "acot", "asec", "acsc")
_SAME_NAME += ("sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "exp")
_OPERATIONS: dict[object, Callable[..., Value]] = {
    **{getattr(sympy, name): _function(getattr(mpmath, name)) for name in _SAME_NAME},
    sympy.Add: _folded(_plus),
    sympy.Mul: _folded(_times),
    sympy.Pow: _power,
    sympy.log: _logarithm,
    sympy.Abs: lambda value: abs(value) if _exact(value) else mpmath.mpc(abs(value)),
    sympy.factorial: _factorial,
    sympy.binomial: _binomial,
    sympy.floor: _rounded(math.floor),
    sympy.ceiling: _rounded(math.ceil),
    sympy.Mod: _modulo,
    sympy.Max: _extreme(max),
    sympy.Min: _extreme(min),
    "gcd": lambda *values: Fraction(math.gcd(*map(_integer, values))),
    "lcm": lambda *values: Fraction(math.lcm(*map(_integer, values))),
}


# -- digits that can be trusted -------------------------------------------------------------------------------------


def _settled(compute: Callable[[], list[Value]]) -> list[Value]:
    """The values of compute() at the first precision that agrees with the one before. Rationals are recognised."""
    before: list[Value] | None = None
    for precision in PRECISIONS:
        with mpmath.workdps(precision):
            values = compute()
            if _exact(*values):
                return values
            settled = [_agreed(rough, fine) for rough, fine in zip(before or [], values, strict=bool(before))]
            if settled and None not in settled:
                return settled
            before = values
    raise UnreadableError("its digits depend on the precision")


def _agreed(rough: Value, fine: Value) -> Value | None:
    r"""What two precisions agree on, as a rational if it is one: \sqrt{2}\sqrt{8} is 4. None if they disagree."""
    rough, fine = _approximate(rough), _approximate(fine)
    parts = [_agreed_part(rough.real, fine.real), _agreed_part(rough.imag, fine.imag)]
    if None in parts:
        return None
    rational = _rational(parts[0])
    return mpmath.mpc(*parts) if rational is None or parts[1] else rational


def _agreed_part(rough: mpmath.mpf, fine: mpmath.mpf) -> mpmath.mpf | None:
    r"""fine, if 40 digits agree. 0, if it is rounding error: \sqrt{8} - 2\sqrt{2} shrinks with the precision, e^{-100}
    doesn't. Else None.
    """
    if abs(rough - fine) <= mpmath.mpf(10) ** -40 * abs(fine):
        return fine
    return mpmath.mpf(0) if abs(fine) < mpmath.mpf(10) ** -40 * min(1, abs(rough)) else None


def _rational(part: mpmath.mpf) -> Fraction | None:
    """The rational that equals part to 80 digits, if its denominator has at most 12 digits."""
    if not part:
        return Fraction(0)
    if not 2.0**-80 < abs(part) < 2.0**80:
        return None
    sign, mantissa, exponent, _ = part._mpf_
    exact = Fraction(-int(mantissa) if sign else int(mantissa)) * Fraction(2) ** int(exponent)
    near = exact.limit_denominator(10**12)
    return near if abs(exact - near) < Fraction(1, 10**80) else None
