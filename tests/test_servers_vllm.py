"""vLLM's own server, twice, as real processes: parity with transformers, and one that is killed in mid-run."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
import urllib.request
from contextlib import ExitStack, suppress

import pytest
from processes import started

from tts.models.open import open_policy, open_prm
from tts.policy import Sampling
from tts.problems import load_problems
from tts.results import collect
from tts.results.store import Store
from tts.tiny import __path__ as tiny

pytestmark = [pytest.mark.vllm, pytest.mark.engine, pytest.mark.slow]
SETTINGS = (
    "--tokens-only --enable-prompt-tokens-details --disable-uvicorn-access-log --dtype float32 --enforce-eager "
    "--block-size 32 --kv-cache-memory-bytes 134217728 --no-enable-chunked-prefill --max-num-batched-tokens 8192 "
    "--max-num-seqs 64 --host 127.0.0.1"
).split()  # docs/servers.md
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "TORCH_COMPILE_DISABLE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
PROBLEMS = load_problems("tiny/dev", n=24)


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """Two servers of one policy: (URL, process) each. A process leads a group of its own, with vLLM's core in it."""
    folder = tmp_path_factory.mktemp("logs")
    with ExitStack() as stack:
        found = []
        for number in range(2):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            log = stack.enter_context((folder / f"{number}.log").open("w"))
            arguments = ("--model", f"{tiny[0]}/models/policy-xs", "--port", str(port), *SETTINGS)
            process = stack.enter_context(
                started(
                    *("-m", "vllm.entrypoints.openai.api_server", *arguments),
                    env=os.environ | ENVIRONMENT,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )
            stack.callback(kill, process)
            found.append((f"http://127.0.0.1:{port}", process))
            wait_for(*found[-1])  # one after the other: each measures the memory that is free
        yield found


def wait_for(url, process):
    end = time.monotonic() + 3600
    while True:
        with suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
            return
        assert process.poll() is None, "it did not start"
        assert time.monotonic() < end, "it never came up"
        time.sleep(0.5)


def kill(process):
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def test_ids_and_scores_agree_with_transformers(servers):
    async def ask(policy, prm):
        sampling = Sampling(temperature=0.0, max_tokens=60)
        prompts = [policy.prompt(problem.text) for problem in PROBLEMS]
        drawn = await asyncio.gather(
            *(policy.sample(prompt, sampling, stop=(None, "\n\n")[i % 2]) for i, prompt in enumerate(prompts))
        )
        steps = ["Then $3+4=7$.\n\n", "So $7-2=5$.\n\n", "So $\\boxed{5}$."]
        scores = await asyncio.gather(*(prm.score(problem.text, steps) for problem in PROBLEMS))
        await policy.close()
        await prm.close()
        return drawn, scores

    url, _ = servers[0]
    # As a scorer it is a poor one, but its two log-probabilities are as good as any.
    form = open_prm("prm", engine="transformers").format.name
    policy, prm = open_policy("policy-xs", server=url), open_prm("policy-xs", format=form, server=url)
    ours, our_scores = asyncio.run(ask(policy, prm))
    plain = {"engine": "transformers"}
    theirs, their_scores = asyncio.run(
        ask(open_policy("policy-xs", **plain), open_prm("policy-xs", format=form, **plain))
    )
    for a, b in zip(ours, theirs, strict=True):
        assert (a.token_ids, a.text, a.finish) == (b.token_ids, b.text, b.finish)
        assert a.logprob == pytest.approx(b.logprob, abs=1e-3)
    for a, b in zip(our_scores, their_scores, strict=True):
        assert a == pytest.approx(b, abs=1e-4)
    assert prm.counts["cached"] > 0
    assert policy.provenance["version"].startswith("0.")


def test_one_of_two_servers_is_killed_in_mid_run_and_each_sample_is_stored_once(servers, tmp_path, capfd):
    (one, _), (other, process) = servers
    sampling, n = Sampling(max_tokens=200), 24

    async def disturbed():
        policy = open_policy("policy-xs", server=f"{one}, {other}")
        task = asyncio.ensure_future(collect.sample(PROBLEMS, policy, store, n=n, sampling=sampling))
        while policy.counts["decoded"] < 2_000:
            assert not task.done(), "too early"
            await asyncio.sleep(0.01)
        kill(process)
        found = await task
        await policy.close()
        return found

    async def plain():
        policy = open_policy("policy-xs", server=one)
        found = await collect.sample(PROBLEMS, policy, Store(tmp_path / "plain"), n=n, sampling=sampling)
        await policy.close()
        return found

    store = Store(tmp_path / "store")
    found = asyncio.run(disturbed())
    assert "its problems go on at 1 other(s)" in capfd.readouterr().err
    assert found.text.notna().all()
    [file] = (tmp_path / "store").glob("samples/*/records.jsonl")
    assert len(file.read_text().splitlines()) == len(PROBLEMS) * n == len(found)
    expected = asyncio.run(plain())
    assert (found.text == expected.text).mean() > 0.98, "rounding alone may change a token, one in many thousands"
