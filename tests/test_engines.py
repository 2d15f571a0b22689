"""The transformers engine: what a sample is, and that it depends on its own arguments alone."""

from __future__ import annotations

import asyncio
import math
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from engine_kernel import interrupt_and_run_again
from engine_models import mixed, request, sample_all, save_model
from scipy.stats import chisquare
from transformers import AutoModelForCausalLM

from tts.errors import EngineError, InputError
from tts.models.open import open_policy
from tts.models.transformers_policy import TransformersPolicy, _InPacks
from tts.policy import Completion

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def oracle(directory):
    return AutoModelForCausalLM.from_pretrained(directory, dtype="float64").eval()


def open_(directory, **settings) -> TransformersPolicy:
    return open_policy(str(directory), engine="transformers", **{"dtype": "float64", **settings})


def test_same_seed_same_text_in_any_batch_and_order(directory):
    policy = open_(directory)
    requests = mixed(policy)
    want = sample_all(policy, requests)
    order = random.Random(2).sample(range(len(requests)), len(requests))
    for size in (7, 128):
        got = sample_all(open_(directory, max_num_seqs=size), [requests[i] for i in order])
        for i, completion in zip(order, got, strict=True):
            assert completion.token_ids == want[i].token_ids
            assert completion.text == want[i].text
            assert completion.finish == want[i].finish
            assert completion.logprob == pytest.approx(want[i].logprob, abs=1e-9)
    for i in (3, 40):
        assert sample_all(open_(directory), [requests[i]])[0].token_ids == want[i].token_ids


def test_different_seeds_differ(directory):
    policy = open_(directory)
    prompt = policy.prompt("add 1 and 2")
    texts = {c.token_ids for c in sample_all(policy, [request(prompt, seed) for seed in range(50)])}
    assert len(texts) == 50


def test_greedy_and_logprob_against_plain_forward_passes(directory, oracle):
    policy = open_(directory)
    prompts = [policy.prompt("take " * i + "the sum") for i in range(5)]
    for prompt, completion in zip(
        prompts, sample_all(policy, [request(p, temperature=0.0, max_tokens=12) for p in prompts]), strict=True
    ):
        ids, total = list(prompt), 0.0
        while len(ids) < len(prompt) + 12:
            with torch.no_grad():
                logprobs = oracle(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
            ids.append(int(logprobs.argmax()))
            total += float(logprobs[ids[-1]])
            if ids[-1] == 5:
                break
        ended = ids[-1] == 5
        assert completion.token_ids == tuple(ids[len(prompt) : -1 if ended else None])
        assert completion.finish == ("end" if ended else "length")
        assert completion.logprob == pytest.approx(total, abs=1e-4)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 1.0), (1.0, 0.7)])
def test_first_tokens_follow_the_softmax(directory, oracle, temperature, top_p):
    policy = open_(directory)
    prompt = policy.prompt("find the value")
    with torch.no_grad():
        logprobs = oracle(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
    p = (logprobs / temperature).softmax(-1).numpy()
    order = np.argsort(-p)
    inside = order[: int(np.searchsorted(np.cumsum(p[order]), top_p)) + 1]
    p = np.where(np.isin(np.arange(len(p)), inside), p, 0) / p[inside].sum()
    n = 4000
    drawn = sample_all(
        policy, [request(prompt, seed, temperature=temperature, top_p=top_p, max_tokens=1) for seed in range(n)]
    )
    ids = [c.token_ids[0] if c.token_ids else 5 for c in drawn]
    counts = np.bincount(ids, minlength=len(p))
    assert counts[p == 0].sum() == 0
    large = n * p >= 5  # the chi-square test wants at least five expected in each cell; the rest is one cell
    observed = [*counts[large], counts[~large].sum()]
    expected = [*(n * p[large]), n * p[~large].sum()]
    if expected[-1] == 0:
        observed, expected = observed[:-1], expected[:-1]
    assert chisquare(observed, expected).pvalue > 1e-3
    for c in drawn[:20]:  # the log-probability is the untempered model's
        token = c.token_ids[0] if c.token_ids else 5
        assert c.logprob == pytest.approx(float(logprobs[token]), abs=1e-4)


def test_stop_string_is_part_of_the_completion(directory):
    policy = open_(directory)
    prompt = policy.prompt("find the value")
    stopped = sample_all(policy, [request(prompt, seed, stop="e", max_tokens=60) for seed in range(60)])
    free = sample_all(policy, [request(prompt, seed, max_tokens=60) for seed in range(60)])
    for a, b in zip(stopped, free, strict=True):
        assert b.token_ids[: len(a.token_ids)] == a.token_ids  # stopping only cuts
        assert a.finish == ("stop" if "e" in b.text else b.finish)
        if a.finish == "stop":
            assert "e" in a.text
            assert "e" not in policy.checkpoint.decode(a.token_ids[:-1])
            assert a.logprob >= b.logprob
    assert {c.finish for c in stopped} >= {"stop"}


def test_end_of_turn_counts_in_the_logprob_but_is_no_token(directory, oracle):
    policy = open_(directory)
    prompt = policy.prompt("find the value")
    drawn = sample_all(policy, [request(prompt, s, temperature=1.0, max_tokens=200) for s in range(40)])
    ended = [c for c in drawn if c.finish == "end"]
    assert ended
    for c in ended:
        assert 5 not in c.token_ids
        ids = torch.tensor([[*prompt, *c.token_ids, 5]])
        with torch.no_grad():
            logprobs = oracle(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        assert c.logprob == pytest.approx(float(logprobs.gather(1, ids[0, len(prompt) :, None]).sum()), abs=1e-4)


def test_length_and_context_end(directory):
    policy = open_(directory)  # its context is 256
    prompt = policy.prompt("find the value")
    rest = 256 - len(prompt)
    some = sample_all(policy, [request(prompt, s, max_tokens=3) for s in range(10)])
    assert all(len(c.token_ids) == 3 for c in some if c.finish == "length")
    full = sample_all(policy, [request(prompt, s, max_tokens=9999) for s in range(40)])
    assert {len(c.token_ids) for c in full if c.finish == "length"} == {rest}
    long = (*prompt, *[20] * rest)
    assert sample_all(policy, [request(long)]) == [Completion((), "", 0.0, "length")]


def test_empty_completion(directory):
    policy = open_(directory)
    prompt = policy.prompt("find the value")
    one = sample_all(policy, [request(prompt, s, temperature=2.0, max_tokens=5) for s in range(2000)])
    empty = [c for c in one if c.finish == "end" and not c.token_ids]
    assert empty
    assert all(c.text == "" and c.logprob < 0 for c in empty)


def test_a_step_is_continued_from_its_ids(directory):
    policy = open_(directory)
    prompt = policy.prompt("find the value")
    whole = sample_all(policy, [request(prompt, temperature=0.0, max_tokens=20)])[0]
    first = sample_all(policy, [request(prompt, temperature=0.0, max_tokens=8)])[0]
    rest = sample_all(policy, [request((*prompt, *first.token_ids), temperature=0.0, max_tokens=12)])[0]
    assert first.token_ids + rest.token_ids == whole.token_ids
    assert first.logprob + rest.logprob == pytest.approx(whole.logprob)


def test_float32_agrees_with_float64(directory):
    policy = open_(directory)
    requests = mixed(policy)
    exact, usual = sample_all(policy, requests), sample_all(open_(directory, dtype="float32"), requests)
    assert [c.token_ids for c in usual] == [c.token_ids for c in exact]
    assert [c.logprob for c in usual] == pytest.approx([c.logprob for c in exact], abs=1e-3)


def test_an_empty_prefix_is_refused(directory):
    policy = open_(directory)
    with pytest.raises(InputError, match="prefix is empty"):
        sample_all(policy, [request(())])


def test_an_engine_that_fails_says_so_and_works_again(directory, monkeypatch):
    policy = open_(directory)
    prompt = policy.prompt("add")

    def broken(self):
        raise MemoryError("no memory left\nlong trace")

    async def run():
        with monkeypatch.context() as patch:
            patch.setattr(_InPacks, "step", broken)
            with pytest.raises(EngineError, match="MemoryError: no memory left$"):
                await policy.sample(**request(prompt))
        result = await policy.sample(**request(prompt))
        await policy.close()
        await policy.close()
        again = await policy.sample(**request(prompt))  # close() is no end
        await policy.close()
        return result, again

    result, again = asyncio.run(run())
    assert result == again


def test_logits_that_are_not_numbers_are_refused(directory, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(directory)
    model.model.norm.weight.data[:] = torch.nan
    broken = shutil.copytree(directory, tmp_path / "broken")
    model.save_pretrained(broken)
    with pytest.raises(InputError, match=r"^policy_model=broken: its results are not numbers \(NaN\).*float32"):
        sample_all(open_(broken), [request((1, 2))])


def test_a_cancelled_request_harms_no_other(directory):
    policy = open_(directory)
    prompt = policy.prompt("add")

    async def run():
        tasks = [asyncio.ensure_future(policy.sample(**request(prompt, s, max_tokens=200))) for s in range(20)]
        await asyncio.sleep(0.02)
        for task in tasks[::2]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        await policy.close()
        return done

    done = asyncio.run(run())
    assert sum(isinstance(c, asyncio.CancelledError) for c in done[::2]) > 0
    want = sample_all(open_(directory), [request(prompt, s, max_tokens=200) for s in range(20)])
    assert [c.token_ids for c in done[1::2]] == [c.token_ids for c in want[1::2]]


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["pass", "await policy.close()", "tasks.pop().cancel()", "raise SystemExit(0)"])
def test_a_script_may_end_at_any_moment(directory, ending):
    code = f"""
import asyncio
from tts.models.open import open_policy
from tts.policy import Sampling

async def main():
    policy = open_policy({str(directory)!r}, engine="transformers")
    await policy.sample((1, 2, 20), Sampling(1.0, 1.0, 200, seed=0))
    tasks = [asyncio.ensure_future(policy.sample((1, 2, 20), Sampling(1.0, 1.0, 200, seed=s))) for s in range(100)]
    await asyncio.sleep(0.02)
    {ending}

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.kernel
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_interrupted_cell_runs_again(directory):
    interrupt_and_run_again(directory, "transformers")


def test_counts_every_token(directory):
    policy = open_(directory)
    prompt = policy.prompt("add")
    drawn = sample_all(policy, [request(prompt, s) for s in range(10)])
    assert policy.counts["decoded"] == sum(len(c.token_ids) + (c.finish == "end") for c in drawn)
    assert policy.counts["prefilled"] == len(prompt) + 9  # the prompt once, its last token by each request
    assert policy.counts["cached"] == 9 * (len(prompt) - 1)
    assert all(math.isfinite(c.logprob) for c in drawn)
