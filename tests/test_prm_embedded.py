"""The embedded reward models, as a notebook opens them."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys

import pytest

from tts.errors import InputError
from tts.models.open import open_prm
from tts.problems import load_problems
from tts.tiny import MODELS
from tts.tree import split_steps

pytestmark = pytest.mark.engine

TRAINED = [name for name in ("prm", "prm-strong", "prm-weak") if (MODELS / name / "model.safetensors").is_file()]
if not TRAINED:
    pytest.skip("no reward model is in tts/tiny/models: train one with tts.tiny.train prm", allow_module_level=True)


def scored(name, problems, solutions):
    scorer = open_prm(name)

    async def run():
        calls = [scorer.score(problem.text, steps) for problem, steps in zip(problems, solutions, strict=True)]
        try:
            return await asyncio.gather(*calls)
        finally:
            await scorer.close()

    return asyncio.run(run())


@pytest.mark.parametrize("name", TRAINED)
def test_a_wrong_answer_scores_less(name):
    problems = load_problems("tiny/dev", n=40)
    right = [split_steps(problem.solution) for problem in problems]
    wrong = [[*steps[:-1], re.sub(r"\d+", lambda n: str(int(n[0]) + 1), steps[-1])] for steps in right]
    assert all(a != b for a, b in zip(right, wrong, strict=True))
    ends = [[scores[-1] for scores in scored(name, problems, solutions)] for solutions in (right, wrong)]
    assert sum(ends[0]) > sum(ends[1])


@pytest.mark.parametrize("name", TRAINED)
def test_its_format_is_named_and_small_models_run_on_transformers(name):
    scorer = open_prm(name)
    assert scorer.format.name == "rlhflow"
    assert scorer.provenance["engine"] == "transformers"


def test_an_embedded_policy_is_refused():
    policies = sorted(folder.name for folder in MODELS.glob("policy-*"))
    with pytest.raises(InputError, match=f"prm_model={policies[0]} puts .* plain policy"):
        scored(policies[0], load_problems("tiny/dev", n=1), [["1"]])


LEAVE = """
import asyncio
from tts.models.open import open_prm

async def main():
    for _ in range(3):
        scorer = open_prm("prm", engine="transformers")
        await scorer.score("1 + 1?", ["1 + 1 = 2"])
        await scorer.close()
    scorer = open_prm("prm", engine="transformers")
    await scorer.score("1 + 1?", ["1 + 1 = 2"])
    busy = [asyncio.create_task(scorer.score("1 + 1?", [f"1 + {i} = 2"] * 20)) for i in range(40)]
    await asyncio.sleep(0.05)
    assert not all(task.done() for task in busy)

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.skipif("prm" not in TRAINED, reason="the reward model prm is not in tts/tiny/models")
def test_a_process_may_end_at_once_after_closing_scorers_and_while_one_is_busy():
    done = subprocess.run([sys.executable, "-c", LEAVE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "terminate" not in done.stderr
