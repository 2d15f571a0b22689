"""The vLLM engine through its host process: parity with transformers, sharing, and what happens when things are killed.

Three starts of the engine in all (about 15 s each); every test works alone, because a host starts when it is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from engine_kernel import interrupt_and_run_again
from engine_models import mixed, request, sample_all, save_model
from scipy.stats import chi2_contingency

from tts.errors import EngineError, InputError
from tts.models.host import is_locked, running_hosts, runtime_directory, stop_hosts
from tts.models.open import open_policy

pytestmark = [pytest.mark.vllm, pytest.mark.engine, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def engines():
    """A runtime directory of these tests alone, with a short path, whose hosts are ended."""
    path = tempfile.mkdtemp(prefix="tts-test-")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTS_ENGINES", path)
        patch.setenv("TTS_ENGINE_IDLE", "600")
        yield Path(path)
        stop_hosts()
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "tiny")


def open_(directory, engine="vllm"):
    return open_policy(str(directory), engine=engine)


def wait_until(condition) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.05)


CLIENT = """
import asyncio, json, sys
from tts.models.open import open_policy
from tts.policy import Sampling

async def main():
    policy = open_policy(sys.argv[1], engine="vllm")
    prompt = policy.prompt("find the sum")
    draws = await asyncio.gather(*(policy.sample(prompt, Sampling(max_tokens=20, seed=s)) for s in range(20)))
    print(json.dumps([c.token_ids for c in draws]), flush=True)
    if sys.argv[2] == "stay":
        while True:
            await policy.sample(prompt, Sampling(max_tokens=200, seed=1))
    await policy.close()

asyncio.run(main())
"""


def start_client(directory, mode) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(directory), mode],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_processes_share_one_host_which_outlives_an_interrupt(directory):
    clients = [start_client(directory, mode) for mode in ("stay", "stay", "go")]  # all want to start the host
    texts = [json.loads(client.stdout.readline()) for client in clients]
    assert texts[0] == texts[1] == texts[2]
    [(_, pid)] = running_hosts()
    assert clients[2].wait() == 0
    os.killpg(clients[0].pid, signal.SIGINT)  # what Jupyter does to a kernel
    os.killpg(clients[1].pid, signal.SIGKILL)  # and what a crash does, with a request on its way
    said = "".join(client.communicate()[1] for client in clients)
    assert [client.wait() for client in clients] == [-signal.SIGINT, -signal.SIGKILL, 0]
    assert said.count("starting vLLM for tiny") == 1
    policy = open_(directory)
    again = sample_all(policy, [request(policy.prompt("find the sum"), s, max_tokens=20) for s in range(20)])
    assert [list(c.token_ids) for c in again] == texts[0]
    assert [number for _, number in running_hosts()] == [pid]
    wait_until(lambda: "0 client(s), 0 waiting" in command("list"))  # the killed client's request was dropped
    assert f"tiny: process {pid}" in command("list")


@pytest.mark.kernel
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_interrupted_cell_runs_again_on_the_same_host(directory):
    before = running_hosts()
    interrupt_and_run_again(directory, "vllm")
    after = running_hosts()
    assert len(after) == 1
    assert not before or after == before


def command(word) -> str:
    return subprocess.run(
        [sys.executable, "-m", "tts.models.host", word], capture_output=True, text=True, check=True
    ).stdout


def test_greedy_ids_agree_with_transformers(directory):
    fast, plain = open_(directory), open_(directory, "transformers")
    prompts = [fast.prompt("take " * (i % 9) + f"the sum of {i}") for i in range(40)]
    requests = [
        request(p, temperature=0.0, max_tokens=50, stop=(None, "\n\n", "e")[i % 3]) for i, p in enumerate(prompts)
    ]
    for a, b in zip(sample_all(fast, requests), sample_all(plain, requests), strict=True):
        assert a.token_ids == b.token_ids
        assert (a.text, a.finish) == (b.text, b.finish)
        assert a.logprob == pytest.approx(b.logprob, abs=1e-3)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.8)])
def test_sampled_first_tokens_agree_with_transformers(directory, temperature, top_p):
    fast, plain = open_(directory), open_(directory, "transformers")
    prompt = fast.prompt("find the value")
    requests = [request(prompt, s, temperature=temperature, top_p=top_p, max_tokens=1) for s in range(3000)]
    counts: dict[tuple[int, ...], list[int]] = {}
    logprobs: dict[tuple[int, ...], list[float]] = {}
    for side, policy in enumerate((fast, plain)):
        for c in sample_all(policy, requests):
            counts.setdefault(c.token_ids, [0, 0])[side] += 1
            logprobs.setdefault(c.token_ids, []).append(c.logprob)
    for values in logprobs.values():  # both report the untempered model's
        assert max(values) - min(values) < 1e-4
    large = [pair for pair in counts.values() if sum(pair) >= 10]
    rest = [sum(pair[side] for pair in counts.values() if sum(pair) < 10) for side in (0, 1)]
    table = [*large, rest] if sum(rest) >= 10 else large
    assert len(table) > 3
    assert chi2_contingency(table).pvalue > 1e-3


def test_same_seed_same_text_in_any_batch_and_order(directory):
    policy = open_(directory)
    requests = mixed(policy, 150)
    want = sample_all(policy, requests)
    order = random.Random(2).sample(range(150), 150)
    got = sample_all(open_(directory), [requests[i] for i in order])
    assert [c.token_ids for c in got] == [want[i].token_ids for i in order]
    assert [c.finish for c in got] == [want[i].finish for i in order]
    alone = [sample_all(policy, [requests[i]])[0] for i in range(5)]
    assert [c.token_ids for c in alone] == [c.token_ids for c in want[:5]]
    assert len({c.token_ids for c in sample_all(policy, [request(policy.prompt("add 2"), s) for s in range(50)])}) == 50


def test_stop_strings_length_context_and_nothing(directory):
    policy = open_(directory)
    prompt = policy.prompt("find the value")
    rest = 256 - len(prompt)
    for stop in ("e", "th", "\n"):
        free = sample_all(policy, [request(prompt, s, max_tokens=60) for s in range(40)])
        stopped = sample_all(policy, [request(prompt, s, max_tokens=60, stop=stop) for s in range(40)])
        for a, b in zip(stopped, free, strict=True):
            assert b.token_ids[: len(a.token_ids)] == a.token_ids
            assert a.finish == ("stop" if stop in b.text else b.finish)
            if a.finish == "stop":
                assert stop in a.text
                assert stop not in policy.checkpoint.decode(a.token_ids[:-1])
    full = sample_all(policy, [request(prompt, s, max_tokens=9999) for s in range(20)])
    assert {len(c.token_ids) for c in full if c.finish == "length"} <= {rest}
    last, none = sample_all(policy, [request((*prompt, *[20] * (rest - 1))), request((*prompt, *[20] * rest))])
    assert len(last.token_ids) <= 1
    assert (none.token_ids, none.finish) == ((), "length")


def test_prefixes_are_read_from_the_cache(directory):
    policy = open_(directory)
    prompt = policy.prompt("find the sum of the product " * 6)
    sample_all(policy, [request(prompt)])
    sample_all(policy, [request(prompt, 1)])
    assert policy.counts["cached"] == len(prompt) // 32 * 32
    assert policy.counts["prefilled"] == 2 * len(prompt) - policy.counts["cached"]


def test_cancelled_requests_are_aborted(directory):
    async def run():
        policy = open_(directory)
        prompt = policy.prompt("add")
        await policy.sample(**request(prompt))
        tasks = [asyncio.ensure_future(policy.sample(**request(prompt, s, max_tokens=200))) for s in range(400)]
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(c, asyncio.CancelledError) for c in done) > 300
        result = await policy.sample(**request(prompt, 7))
        await policy.close()
        return policy, result

    policy, result = asyncio.run(run())
    assert sample_all(policy, [request(policy.prompt("add"), 7)]) == [result]


def test_a_bad_request_harms_no_other(directory):
    async def run():
        policy = open_(directory)
        prompt = policy.prompt("add")
        good, bad = await asyncio.gather(
            policy.sample(**request(prompt)), policy.sample(**request((1, 10**6))), return_exceptions=True
        )
        await policy.close()
        return good, bad

    good, bad = asyncio.run(run())
    assert good.text
    assert isinstance(bad, EngineError)
    assert "refused" in str(bad)


def test_killed_engine_starts_again_and_goes_on_until_it_is_told_to_stop(directory, capfd):
    async def run():
        policy = open_(directory)
        prompt = policy.prompt("find the value")
        before = await policy.sample(**request(prompt))
        [(spec_file, pid)] = running_hosts()
        tasks = [asyncio.ensure_future(policy.sample(**request(prompt, s, max_tokens=200))) for s in range(300)]
        await asyncio.sleep(0.1)
        os.kill(pid, signal.SIGKILL)
        done = await asyncio.gather(*tasks)
        assert await policy.sample(**request(prompt)) == before  # a new host
        assert [await policy.sample(**request(prompt, s, max_tokens=200)) for s in range(5)] == done[:5]
        [(_, other)] = running_hosts()
        assert other != pid
        assert "1 engine host(s) stopped" in command("stop")
        assert not is_locked(spec_file.with_suffix(".lock"))
        with pytest.raises(ProcessLookupError):
            os.killpg(other, 0)  # its process group is empty
        await policy.close()

    asyncio.run(run())
    said = capfd.readouterr().err
    assert re.search(r"^the engine host died while it served this request \(see .+\.log\): trying again$", said, re.M)
    assert "starting vLLM for tiny" in said
    assert running_hosts() == []
    assert command("list") == ""


def test_host_ends_by_itself_when_nobody_is_there(directory, monkeypatch):
    monkeypatch.setenv("TTS_ENGINE_IDLE", "0.5")
    policy = open_(directory)
    sample_all(policy, [request(policy.prompt("add"))])
    wait_until(lambda: running_hosts() == [])


def test_a_model_that_vllm_can_not_load_is_one_clear_line(directory, tmp_path):
    broken = Path(shutil.copytree(directory, tmp_path / "broken"))
    (broken / "model.safetensors").write_bytes(b"no weights")
    policy = open_(broken)
    with pytest.raises(EngineError, match=r"^vLLM for broken did not start \(.+\): see .+\.log$"):
        sample_all(policy, [request((1, 2, 3))])


def test_runtime_directory_is_private_and_short(monkeypatch, tmp_path):
    monkeypatch.setenv("TTS_ENGINES", str(tmp_path / ("x" * 90)))
    with pytest.raises(InputError, match="too long"):
        runtime_directory()
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    monkeypatch.setenv("TTS_ENGINES", str(open_to_all))
    with pytest.raises(InputError, match="open to other users"):
        runtime_directory()
    private = Path(tempfile.mkdtemp(prefix="tts-test-"))
    monkeypatch.setenv("TTS_ENGINES", str(private))
    with contextlib.closing(os.scandir(runtime_directory())) as entries:
        assert list(entries) == []
    private.rmdir()
