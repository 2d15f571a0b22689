"""How long it takes to find, key and vote on the answers of 500 problems x 256 solutions.

The solutions are made up here (no model run is that large in the default profile): texts of the length that a 1B model
writes, whose boxes hold answers in the mixture of the MATH-500 golds, right and wrong ones in several spellings, some
of them no mathematics and some missing. Their number, and that of the different ones, is printed with the times.
"""

from __future__ import annotations

import os
import random
import resource
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

import tts.answers
from tts.analysis.curves import powers_of_two, vote_curve
from tts.analysis.grading import answer_codes
from tts.answers import STATUSES, canonical_keys, extract_answer
from tts.answers.pool import POOL
from tts.voting import majority, vanilla, weighted

PROBLEMS, SOLUTIONS = 500, 256
DRAWS = 200  # random orders that a curve averages over, as the notebooks do
STEP = (
    "## Step 1: Use what is given\nSince $a^{2} + b^{2} = c^{2}$ we find \\[c = \\frac{a}{b} \\cdot \\sqrt{3}.\\]\n\n"
)

# (share among the golds in percent, an answer's spellings; k counts a problem's different answers)
KINDS = (
    (62, ("{k}", "{k}.0", "{k:,}", "x = {k}", r"{k} \text{{ units}}", r"{k}^\circ")),
    (14, (r"\frac{{{k}}}{{7}}", r"\dfrac{{{k}}}{{7}}", "{k}/7", r"x = \frac{{{k}}}{{7}}")),
    (8, (r"{k}\sqrt{{3}}", r"{k} \sqrt{{3}}", r"\sqrt{{3}} \cdot {k}", r"{k}\pi", r"\frac{{{k}\pi}}{{2}}")),
    (6, ("({k}, -2)", r"\left({k}, -2\right)", r"({k}, \frac{{1}}{{2}})", "({k},2]")),
    (6, ("x^2 + {k}x - 1", "{k}x + x^2 - 1", "y = x^2 + {k}x - 1", r"\frac{{x+{k}}}{{2}}")),
    (3, ("{k}, 5", "5, {k}", r"\{{5, {k}\}}", r"{k} \pm \sqrt{{2}}", "{k} - {k}i")),
    (1, (r"\text{{Evelyn}}", "Evelyn", r"\text{{no solution}}", "I am not sure about {k}")),
)


def made_up_solutions() -> list[list[str]]:
    """PROBLEMS x SOLUTIONS texts; the answers of a problem are spread as a weak model's are (many that occur once)."""
    draw = random.Random(0)
    texts = []
    for _ in range(PROBLEMS):
        spellings = draw.choices([spelled for _, spelled in KINDS], [share for share, _ in KINDS])[0]
        first = draw.randint(1, 2000)
        row = []
        for _ in range(SOLUTIONS):
            text = STEP * draw.randint(3, 12)
            if draw.random() > 0.1:  # the others have no box
                answer = draw.choice(spellings).format(k=first + int(draw.paretovariate(0.7)) % 1000)
                text += f"The final answer is: $\\boxed{{{answer}}}$. I hope it is correct."
            row.append(text)
        texts.append(row)
    return texts


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print how long the block took, and the processor time of this process and of children that ended in it."""
    start, busy = time.perf_counter(), _processor_seconds()
    yield
    print(f"{what:<50} {time.perf_counter() - start:8.2f} s {_processor_seconds() - busy:8.2f} s", flush=True)


def _processor_seconds() -> float:
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(used.ru_utime + used.ru_stime for used in usage)


def main() -> None:
    """Print the times, that of the parser apart."""
    workers = min(2, os.cpu_count() or 1)
    texts = made_up_solutions()
    flat = [text for row in texts for text in row]
    tts.answers._cache.clear()
    POOL.close()

    length = sum(map(len, flat)) / len(flat)
    print(f"{PROBLEMS} problems x {SOLUTIONS} solutions of {length:.0f} characters; {workers} workers")
    print(f"{'':<50} {'wall':>10} {'processor':>10}")
    with timed("find the boxes"):
        answers = [extract_answer(text) for text in flat]
    different = sorted({answer for answer in answers if answer is not None})
    with timed("read the different ones without the parser"):
        parsed = sum(tts.answers._quick(answer)[1] is None for answer in different)
    with timed("all of that with the parser, workers started too"):
        canonical_keys(different, workers=workers)
        POOL.close()
    with timed("look up the keys of all"):
        found = canonical_keys(answers)
    statuses = Counter(result.status for result in found)
    print(
        f"  of {len(found):,} answers {', '.join(f'{statuses[name]:,} {name}' for name in STATUSES if statuses[name])}"
    )
    print(f"  {len(different):,} different ones, {parsed:,} of them for the parser")

    keys = [[result.key for result in found[p * SOLUTIONS : (p + 1) * SOLUTIONS]] for p in range(PROBLEMS)]
    scores = np.random.default_rng(0).random((PROBLEMS, SOLUTIONS))
    ns = powers_of_two(SOLUTIONS)
    with timed(f"tts.voting: the first n, {len(ns)} n x 3 rules"):
        for row, row_scores in zip(keys, scores.tolist(), strict=True):
            for n in ns:
                majority(row[:n])
                weighted(row[:n], row_scores[:n])
                vanilla(row[:n], row_scores[:n])
    with timed("codes of the keys"):
        codes, gold = answer_codes(keys, [row[0] for row in keys])
    with timed(f"tts.analysis.curves: {DRAWS} random orders, {len(ns)} n x 3 rules"):
        for rule in ("majority", "weighted", "vanilla"):
            vote_curve(codes, gold, ns, rule=rule, scores=scores, draws=DRAWS)


if __name__ == "__main__":
    main()
