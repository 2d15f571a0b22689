"""What must hold for every answer: its key is an equivalence, and stays when the answer is only spelled differently."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tts.answers
from tts.answers import canonical_keys, extract_answer
from tts.answers.form import UnreadableError, read
from tts.answers.guards import refuse
from tts.answers.spelling import normalise
from tts.answers.values import scalar  # in this process: these answers are ours


def with_examples(count):
    """So many examples, the same in every run."""
    return settings(max_examples=count, derandomize=True, database=None, deadline=None)


digits = st.integers(0, 9999).map(str)
letters = st.sampled_from("abknrtxyz")
numbers = st.one_of(
    digits, st.decimals(0, 99, places=2).map(str), st.tuples(digits, st.integers(1, 99)).map("\\frac{%s}{%s}".__mod__)
)
constants = st.one_of(
    st.integers(2, 30).map(r"\sqrt{{{}}}".format), st.sampled_from([r"\pi", "e", "i", r"\sqrt[3]{2}", r"\ln 3"])
)


def combined(parts):
    pairs = st.tuples(parts, parts)
    return st.one_of(
        pairs.map("%s + %s".__mod__),
        pairs.map("%s - (%s)".__mod__),
        pairs.map(r"(%s) \cdot (%s)".__mod__),
        pairs.map(r"\frac{%s}{1 + (%s)^2}".__mod__),
        st.tuples(parts, st.integers(2, 3)).map("(%s)^{%s}".__mod__),
        parts.map("-({})".format),
    )


scalars = st.recursive(st.one_of(numbers, letters, constants), combined, max_leaves=4)
constant_scalars = st.recursive(st.one_of(numbers, constants), combined, max_leaves=4)
answers = st.one_of(
    scalars,
    st.lists(numbers, min_size=2, max_size=4).map(", ".join),
    st.lists(scalars, min_size=2, max_size=3).map(lambda items: f"({', '.join(items)})"),
    st.lists(numbers, min_size=1, max_size=3).map(lambda items: rf"\{{{', '.join(items)}\}}"),
    st.tuples(st.sampled_from("(["), constant_scalars, constant_scalars, st.sampled_from(")]")).map(
        "%s%s, %s%s".__mod__
    ),
    st.tuples(letters, scalars).map("%s = %s".__mod__),
    st.lists(constant_scalars, min_size=1, max_size=3).map(
        lambda rows: r"\begin{pmatrix}" + r" \\ ".join(rows) + r"\end{pmatrix}"
    ),
)

# Spellings of one thing.
REWRITINGS = {
    "space outside": lambda text: f"  {text} ",
    "a full stop": lambda text: f"{text}.",
    "dollars": lambda text: f"${text}$",
    "fractions for display": lambda text: text.replace(r"\frac", r"\dfrac"),
    "fractions for text": lambda text: text.replace(r"\frac", r"\tfrac"),
    "sizes": lambda text: text.replace("(", r"\left(").replace(")", r"\right)"),
    "big sizes": lambda text: text.replace("(", r"\bigl( ").replace(")", r"\bigr)"),
    "spaces": lambda text: text.replace(" ", r"\, "),
    "more spaces": lambda text: text.replace(" ", r" \; ~"),
    "times": lambda text: text.replace(r"\cdot", r"\times"),
    "minus": lambda text: text.replace("-", "−"),
    "display": lambda text: r"\displaystyle " + text,
    "parentheses": lambda text: text if "," in text or "=" in text or "begin" in text else f"({text})",
    "braces": lambda text: f"{{{text}}}",
    "brackets of matrices": lambda text: text.replace("pmatrix", "bmatrix"),
}


def key(answer):
    text = normalise(answer)
    assert not refuse(answer)
    assert not refuse(text)
    try:
        return read(text, scalar)
    except UnreadableError as error:
        return ("text", str(error))


@pytest.mark.slow
@with_examples(30)
@given(answers)
def test_rewriting_keeps_the_key(answer):
    want = key(answer)
    for name, rewrite in REWRITINGS.items():
        assert key(rewrite(answer)) == want, name


@with_examples(40)
@given(st.integers(1000, 10**15))
def test_thousands_separators(number):
    for separator in (",", r",\!", "{,}", r"\,", r",\! "):
        assert key(f"{number:,}".replace(",", separator)) == key(str(number))


@pytest.mark.slow
@with_examples(25)
@given(scalars, scalars)
def test_sums_and_products_have_no_order(a, b):
    assert key(f"({a}) + ({b})") == key(f"({b}) + ({a})")
    assert key(rf"({a}) \cdot ({b})") == key(rf"({b}) \cdot ({a})")
    assert key(f"({a}) - ({b})") == key(f"-({b}) + ({a})")


@with_examples(40)
@given(st.lists(numbers, min_size=2, max_size=5, unique_by=key), st.randoms())
def test_lists_have_no_order_and_points_have(items, random):
    shuffled = random.sample(items, len(items))
    if len(items) > 3 or "," not in normalise(",".join(items)):
        return  # "1,234" is a number
    assert key(", ".join(items)) == key(", ".join(shuffled)) == key(rf"\{{{', '.join(items)}\}}")
    assert (key(f"({', '.join(items)})") == key(f"({', '.join(shuffled)})")) == (items == shuffled)


@with_examples(100)
@given(st.fractions(), st.fractions())
def test_rationals_are_equal_exactly_when_they_are(a, b):
    written = [rf"\frac{{{value.numerator}}}{{{value.denominator}}}" for value in (a, b)]
    assert (key(written[0]) == key(written[1])) == (a == b)


@with_examples(40)
@given(st.integers(0, 10**9), st.integers(1, 40))
def test_a_decimal_is_its_fraction_and_no_neighbour(number, places):
    decimal = f"{number // 10**places}.{number % 10**places:0{places}d}"
    assert key(decimal) == key(rf"\frac{{{number}}}{{{10**places}}}")
    assert key(decimal) == key(decimal + "0") != key(decimal + "1")


@with_examples(200)
@given(st.text(max_size=60) | st.text(alphabet="\\{}()[]^_=<>,;:!|&$.-+/ 0123456789ixyfractsqrtpm", max_size=60))
def test_any_text_at_all_has_one_key_or_none(text):
    """Everything before the parser: it raises nothing, and what it makes of a text it makes of that text again."""
    if refuse(text):
        return
    spelled = normalise(text)
    try:
        first = read(spelled, lambda inside: ("inside", inside))
    except UnreadableError:
        return
    assert first == read(normalise(text), lambda inside: ("inside", inside))
    assert hash(first) is not None


@with_examples(200)
@given(st.text(alphabet="\\{}boxedf 5$\n", max_size=80))
def test_any_box_at_all(text):
    answer = extract_answer(text)
    assert answer is None or answer in text
    if "{" not in text and not text.endswith("\\"):
        assert extract_answer(text + r" \boxed{7}") == "7"


def test_the_keys_are_an_equivalence_that_no_order_changes(monkeypatch):
    """Reflexive, symmetric and transitive on answers of all kinds together, whichever is read first."""
    draw = random.Random(0)
    pool = [
        r"\frac{1}{2}",
        "0.5",
        r"50\%",
        "50",
        "1,2",
        "2,1",
        "(1,2)",
        "(2,1)",
        r"\{1,2\}",
        "12",
        "x=0.5",
        "odd",
        "dod",
        "52_8",
    ]
    pool += [
        "52_7",
        "52",
        "3:4",
        "6:8",
        "0.75",
        "5",
        "0.05",
        r"5\%",
        "1/2004",
        "1/2006",
        "(a+5)(b+2)",
        "5b+10",
        "ab+5b+2a+10",
    ]
    groups = []
    for _ in range(3):
        draw.shuffle(pool)
        monkeypatch.setattr(tts.answers, "_cache", {})
        keys = dict(zip(pool, (found.key for found in canonical_keys(pool)), strict=True))
        groups.append({frozenset(a for a in pool if keys[a] == keys[b]) for b in pool})
        for a, b, c in itertools.product(pool, repeat=3):
            assert keys[a] == keys[a]
            assert keys[a] != keys[b] or keys[b] != keys[c] or keys[a] == keys[c]
    assert groups[0] == groups[1] == groups[2]
    assert sum(map(len, groups[0])) == len(pool)
