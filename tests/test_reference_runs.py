"""Real runs of the reference code: from the same completions and scores, its own selections."""

import json
from pathlib import Path

import pytest
from reference import extract_answer, predictions

from tts.answers import canonical_key
from tts.reductions import reduce_scores

RUNS = Path(__file__).resolve().parents[2] / "shared" / "data" / "reference_runs"
needs_runs = pytest.mark.skipif(not RUNS.is_dir(), reason=f"needs the reference's runs in {RUNS}")
FILES = ("bayesprm_beam4", "bayesprm_prev", "rajlm10", "scatyf3_llama3b_n4")
COLUMNS = [(method, n) for method in ("weighted", "maj", "naive") for n in (1, 2, 4)]

# Where the reference names its choice in other words than the completion did: (file, problem): (completion, why).
DEFECTS = {
    ("scatyf3_llama3b_n4", "test/intermediate_algebra/1994.json"): (
        r"2p + \frac{1}{2}q - \frac{11}{3}",
        r"2p+\frac{1}{2}\frac{11}{3}",
        "its list of units to drop has an entry that eats the `q -` of a formula, so the answer changes its value",
    ),
}


def rows():
    for name in FILES:
        for line in (RUNS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            yield name, json.loads(line)


@needs_runs
@pytest.mark.parametrize(("method", "n"), COLUMNS)
def test_its_selection(method, n):
    compared = 0
    for name, row in rows():
        theirs = row[f"pred_{method}@{n}"].removeprefix(r"\boxed{").removesuffix("}")
        ours = predictions(row["completions"], row["agg_scores"], n=n)[method]
        said, written, why = DEFECTS.get((name, row["unique_id"]), (None, None, None))
        if (ours, theirs) != (said, written):
            assert canonical_key(ours) == canonical_key(theirs), (name, row["unique_id"])
        else:
            assert canonical_key(ours) != canonical_key(theirs), f"no difference any more: {why}"
        compared += 1
    assert compared == 31


@needs_runs
def test_the_score_of_a_completion_is_that_of_its_last_step():
    for name, row in rows():
        assert [reduce_scores(steps, "last") for steps in row["scores"]] == row["agg_scores"], name


@needs_runs
def test_every_defect_is_met():
    met = {(name, row["unique_id"]) for name, row in rows()}
    assert set(DEFECTS) <= met


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"Therefore, the final answer is: $\boxed{5}$. I hope it is correct.", "5"),
        ("So the final answer is $5$. I hope it is correct. ", "5"),
        (r"\boxed{\frac{1}{2}} or \boxed{x_{1}}", "x_{1}"),
        (r"\boxed{12", "12"),  # cut off, taken as it is
        (r"\boxed 7$ it is", "7"),
        ("The answer is 42.", "42"),
        ("It is 1,234, not -5.5 of them", "-5.5"),  # the last number
        ("nothing", ""),
    ],
)
def test_extraction(text, answer):
    assert extract_answer(text) == answer


def test_ties_and_empty_answers():
    completions = ["no", r"\boxed{1}", r"\boxed{2}", "nothing"]
    assert predictions(completions, [0.1, 0.5, 0.5, 0.1], n=3) == {"weighted": "1", "maj": "", "naive": "1"}
    assert predictions(completions, [0.1, 0.5, 0.5, 0.1], n=4)["maj"] == ""  # "no answer" wins the vote
