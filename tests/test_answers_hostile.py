"""Answers that are out to break something: each ends in a status, and the pool lives on and knows that 1/2 is 0.5."""

import os
import threading

import pytest

from tts.answers import STATUSES, canonical_key, canonical_keys, extract_answer
from tts.answers.pool import POOL

N = 1_000_000

HOSTILE = {
    "nesting": [
        "(" * 15 + "x" + ")" * 15,
        "(" * 8 + "x" + ")" * 8,
        "(" * N,
        ")" * 300,
        "{" * 50 + "1" + "}" * 50,
        "[" * 8 + "1" + "]" * 8,
        r"\frac{1}{1+" * 20 + "x" + "}" * 20,
        r"\sqrt{" * 100 + "2" + "}" * 100,
        r"\left(" * 30 + "1" + r"\right)" * 30,
        r"\sin(" * 8 + "x" + ")" * 8,
        "|" * 200,
        "||x||y||z||",
        r"\{" * 50 + r"\}" * 50,
        "([{" * 2 + "x" + "}])" * 2,
        "(]" * 8,
    ],
    "towers": [
        "9^{9^{9^{9^9}}}",
        "9^9^9^9",
        "10^{10^{10}}",
        "2^{2^{2^{2^{2^2}}}}",
        "x^" * 50 + "x",
        "x^{x^{x^{x}}}",
        "a_" * 50 + "1",
        "9^{999999999}",
        "(9^{99999})^{99999}",
        "(1/3)^{-9999999999}",
        "2^{-2^{99}}",
        "x^{99999999999}",
        "(x+1)^{100000}",
        r"\sqrt[9999999]{2}",
        "e^{e^{e^{e}}}",
        "e^{e^{99}}",
        r"\pi^{\pi^{\pi^\pi}}",
        "0^{0^{0}}",
        "0^{-1}",
    ],
    "factorials": [
        "100000!",
        "99999999999!",
        "9!!!!!!!",
        "((9!)!)!",
        "(9999)!",
        "5000!",
        "5001!",
        "2004!/2003!",
        "(-5)!",
        "2.5!",
        "x!",
        r"\binom{1000000000}{500000000}",
        r"\binom{5000}{2500}",
        r"\dbinom{99999}{2}",
        r"{99999 \choose 500}",
        r"\binom{-5}{2}",
        r"\binom{x}{2}",
    ],
    "sums and integrals": [
        r"\sum_{n=1}^{\infty} \frac{1}{n^2}",
        r"\sum_{j=1}^{\infty} \sum_{k=1}^{\infty} \frac{1}{(j+k)^3}",
        r"\int_0^1 x^x dx",
        r"\iiint e^{x^2} dx",
        r"\prod_{k=1}^{10^{10}} k",
        r"\lim_{x \to 0} \frac{\sin x}{x}",
        r"\frac{d}{dx} x^x",
        r"\frac{\partial}{\partial x} x",
        r"\bigcup_{n} A_n",
    ],
    "TeX programs": [
        r"\def\x{\x\x}\x",
        r"\newcommand{\a}{\a\a}\a",
        r"\loop\iftrue\repeat",
        r"\input{/etc/passwd}",
        r"\write18{touch hostile}",
        r"\immediate\write18{ls}",
        r"\csname end\endcsname",
        r"\catcode`\%=12",
        r"\openout1=hostile.txt",
        r"\let\a\b",
        r"\href{file:///etc/passwd}{5}",
        r"\unknowncommand{5}",
        "\\" * 400,
        r"\begin{verbatim}5\end{verbatim}",
        r"\end{pmatrix}\begin{pmatrix}",
        r"\begin{pmatrix}",
    ],
    "Python": [
        "__import__('os').system('touch hostile')",
        "open('hostile','w').write('x')",
        'exec(\'open("hostile","w")\')',
        "().__class__.__bases__[0].__subclasses__()",
        "lambda: 1",
        "[x for x in range(10**9)]",
        "'x' * 10**10",
        "import os",
        "eval(input())",
        "exit()",
        "os.kill(os.getppid(), 9)",
        "while True: pass",
        "{x: y}",
        "f'{1/0}'",
        r"\text{__import__('os')}",
        r"\operatorname{eye}(100000)",
        r"\operatorname{zeros}(100000, 100000)",
        r"\operatorname{diag}(1,2,3)",
        "S(1)/0",
        "factorint(10**60+7)",
    ],
    "characters": [
        "\x00",
        "1\x002",
        "5\x1b[2J",
        "\ud800",
        "1\u202e2",
        "\u200b5",
        "\ufeff5",
        "５",
        "٣",
        "१२",
        "𝟓",
        "5\u0301",
        "五",
        "①",
        "😀",
        "\n\n\n",
        "5\u00a0",
        "½½",
        "1e999999999",
        "\uffff",
        "\x7f",
        "İ",
    ],
    "digits": [
        "9" * N,
        "0." + "3" * N,
        "9" * 101,
        "9" * 100,
        "1" + "0" * 99,
        "0" * 300,
        "1,000" * 100,
        ",".join(["1"] * 300),
        ",".join(["1"] * 99),
        "1e999",
        "1e-999",
        "0." + "0" * 99 + "1",
        r"0.\overline{" + "3" * 90 + "}",
        "1/" * 100 + "1",
        "0/0",
        r"\frac{0}{0}",
        "1_1",
        "9_8",
        "1_{99}",
        "1_{0}",
    ],
    "matrices": [
        r"\begin{pmatrix}" + r"1 & 2 \\" * 1000 + r"\end{pmatrix}",
        r"\begin{pmatrix}" + " & ".join("1" * 90) + r"\end{pmatrix}",
        r"\begin{pmatrix} 1 & 2 \\ 3 \end{pmatrix}",
        r"\begin{pmatrix} \end{pmatrix}",
        r"\begin{vmatrix} 1 & 2 \\ 3 & 4 \end{vmatrix}",
        r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}^{1000000}",
        r"\begin{pmatrix}\begin{pmatrix}1\end{pmatrix}\end{pmatrix}",
        r"\begin{cases} x & x > 0 \\ -x & x < 0 \end{cases}",
    ],
    "undefined": [
        r"\frac{1}{0}",
        r"\log 0",
        r"\log_1 2",
        r"\tan \frac{\pi}{2}",
        r"\infty - \infty",
        r"\frac{\infty}{\infty}",
        r"\sin(10^{1000})",
        r"\lfloor 10^{99} \pi \rfloor",
        r"\lfloor i \rfloor",
        r"\gcd(x, 2)",
        r"\gcd(2^{70}, 2)",
        r"7 \mod 0",
        r"10^{99} \mod 7",
        r"\sqrt{-\sqrt{-\sqrt{-1}}}",
        r"\arcsin(10)",
        r"x^\circ",
    ],
    "nonsense": [
        "+",
        "=",
        "==",
        "x=",
        "=x=",
        ",",
        ",,,",
        ";;",
        "()",
        r"\{",
        "&&",
        "^",
        "_",
        "^_^",
        "!",
        "'",
        "$$",
        ".",
        "-",
        "--5",
        "5--",
        "x<",
        "<<>>",
        "a<b<c<d<e",
        "a=b=c=d",
        r"\pm\pm 1",
        r"\pm",
        ":",
        "1:",
        r"\cup",
        r"\in",
        r"\frac",
        r"\frac{1}",
        r"\sqrt",
        r"\text",
        r"\text{",
        r"\boxed{5}",
        "The answer is 5",
        "x+" * 190 + "1",
        "-" * 390 + "1",
        "x" * 400,
        r"\sin " * 90 + "x",
        "|x|+" * 4 + "1",
        "3!" * 3,
        "2(" * 8 + "x" + ")" * 8,
        "f(" * 8 + "x" + ")" * 8,
        r"\text{" * 8 + "x" + "}" * 8,
        "\\frac" * 70,
        "\\text{a" * 50,
        " " * 399 + "5",
        r"{\frac{" * 50,
    ],
}


@pytest.fixture(scope="module", autouse=True)
def in_an_empty_folder(tmp_path_factory):
    """No answer writes a file where the parent or a worker is."""
    POOL.close()  # the workers are started in the folder
    before, folder = os.getcwd(), tmp_path_factory.mktemp("hostile")
    os.chdir(folder)
    yield
    os.chdir(before)
    POOL.close()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("kind", HOSTILE)
def test_every_hostile_answer_ends_in_a_status(kind):
    found = canonical_keys(HOSTILE[kind])
    assert {result.status for result in found} <= set(STATUSES)
    assert all((result.key is None) == (result.status in ("empty", "none")) for result in found)
    assert canonical_key(r"\frac{1}{2} \cdot x") == canonical_key("0.5x")


def test_boxes_that_are_never_closed_take_linear_time():
    assert extract_answer(r"\boxed{" * 100_000) is None
    assert extract_answer(r"\boxed{" * 1000 + "}" * 1000) == ""
    assert extract_answer(r"\boxed " * 100_000) is None
    assert extract_answer(r"\boxed 1" * 100_000 + r"\boxed{5}") == "5"
    assert extract_answer("{" * N + r"\boxed{5}" + "}" * N) == "5"
    assert extract_answer("\\" * N + r" \boxed{5}") == "5"


def test_from_many_threads_at_once():
    answers = [answer for kind in HOSTILE.values() for answer in kind] + [rf"{n}\sqrt{{7}}" for n in range(2, 30)]
    want, got = canonical_keys(answers), []
    threads = [threading.Thread(target=lambda: got.append(canonical_keys(answers))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [want] * 4
