"""The vLLM scorer: the scores of the transformers scorer, each format, whole and step by step."""

from __future__ import annotations

import asyncio
import random
import tempfile

import prm_models
import pytest
from test_prm import SOLUTIONS, TOLERANCE, scored, step_by_step

from tts.errors import ContextExceeded, InputError
from tts.models.formats import TokenHead
from tts.models.open import open_prm
from tts.models.scoring import common

pytestmark = [pytest.mark.vllm, pytest.mark.engine, pytest.mark.slow]
FORMATS = ("rlhflow", "math-shepherd")


@pytest.fixture(scope="module", autouse=True)
def _engines():
    from tts.models.host import stop_hosts

    # A short path: a socket's has 107 bytes.
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as path:
        patch.setenv("TTS_ENGINES", path)
        yield
        stop_hosts()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """One model for both formats, so that one host serves all of this file: Math-Shepherd's with a chat template."""
    shape = {"hidden_size": 64, "num_attention_heads": 2}  # heads of 32, the smallest that vLLM takes on a CPU
    return prm_models.math_shepherd(tmp_path_factory.mktemp("model") / "both", chat=prm_models.CHAT, **shape)


def open_it(folder, engine="vllm", **settings):
    return open_prm(str(folder), engine=engine, **settings)


@pytest.mark.parametrize("name", FORMATS)
def test_both_engines_give_the_same_scores(both, name):
    expected = scored(open_it(both, "transformers", format=name), *SOLUTIONS)
    scorer = open_it(both, format=name)
    for ours, theirs in zip(scored(scorer, *SOLUTIONS), expected, strict=True):
        assert ours == pytest.approx(theirs, abs=TOLERANCE)
    assert scorer.counts["cached"] > 0, "the steps of a whole solution share its prefix"
    for steps, theirs in zip(SOLUTIONS, expected, strict=True):
        assert step_by_step(open_it(both, format=name), steps) == pytest.approx(theirs, abs=TOLERANCE)


def test_a_head_with_classes_gives_the_same_scores(tmp_path):
    """Qwen2.5-Math-PRM: a pooling model for vLLM, one request a solution, with its prefix from the cache."""
    folder = prm_models.qwen(tmp_path / "qwen", width=64)
    expected = scored(open_it(folder, "transformers"), *SOLUTIONS)
    scorer = open_it(folder)
    for ours, theirs in zip(scored(scorer, *SOLUTIONS), expected, strict=True):
        assert ours == pytest.approx(theirs, abs=TOLERANCE)
    again = open_it(folder)
    for steps, theirs in zip(SOLUTIONS, expected, strict=True):
        assert step_by_step(again, steps) == pytest.approx(theirs, abs=TOLERANCE)
    assert again.counts["cached"] > 0
    whole = open_it(folder)  # whose every block is in the cache, without the logits that belong to it
    assert scored(whole, *SOLUTIONS) == [pytest.approx(one, abs=TOLERANCE) for one in expected]


def test_a_plain_policy_is_refused_at_the_first_score(both):
    scorer = open_it(both, format="rlhflow")
    scorer._check_policy = True  # as where the format was not named
    assert scored(scorer, ["a"])
    scorer._check_policy, scorer._head = True, TokenHead(good=scorer._head.good - 5, bad=scorer._head.bad - 5)
    with pytest.raises(InputError, match="plain policy"):
        scored(scorer, ["b"])


def test_a_solution_longer_than_the_context_reaches_no_engine(both):
    with pytest.raises(ContextExceeded, match="context 255"):
        scored(open_it(both, format="rlhflow"), ["a" * 300])


def test_formats_with_a_head_of_their_own_are_for_transformers(tmp_path):
    folder = prm_models.skywork(tmp_path / "prm")
    with pytest.raises(InputError, match="format skywork is for engine='transformers' alone"):
        open_it(folder)
    assert open_it(folder, "auto").provenance["engine"] == "transformers"
    with pytest.raises(InputError, match="float64"):
        open_it(prm_models.rlhflow(tmp_path / "other"), dtype="float64")


BLOCK = 32  # tokens, on a CPU


def test_whole_solutions_are_read_once_with_a_small_cache_and_256_in_flight(both, monkeypatch):
    """Each step reads its own tokens and those behind the last whole block before it; 1.1 times that, all in all."""
    monkeypatch.setattr("tts.models.vllm._cache_bytes", lambda *_: 2 << 20)  # 2,048 tokens; the solutions have 23,000
    rng = random.Random(1)
    steps = [f"{rng.randrange(100)} + {rng.randrange(100)} = {rng.randrange(100)}" for _ in range(40)]
    solutions = {(f"What is {i % 16} + 3?", tuple(rng.sample(steps, 5))) for i in range(256)}
    prm = open_it(both, format="rlhflow")

    async def run():
        await asyncio.gather(*(prm.score(problem, one) for problem, one in solutions))
        await prm.close()

    asyncio.run(run())
    least, beginnings = 0, set()
    for problem, one in solutions:
        layout = prm.format.layout(problem, [step.strip() for step in one])
        shared = common(prm._beginning(problem), layout.ids) if problem in beginnings else 0
        beginnings.add(problem)
        for before, position in zip((shared, *(p + 1 for p in layout.positions)), layout.positions, strict=False):
            least += position + 1 - before // BLOCK * BLOCK
    assert sum(len(prm.format.layout(*one).ids) for one in solutions) > 20_000, "far more than the cache holds"
    assert prm.counts["scored"] <= 1.1 * least
