"""The bench of the transport: its requests, its bookkeeping with a scripted replica, and its made-up device by hand."""

import asyncio
import itertools
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from bench import transport
from tts.models.engines import Engines


def test_alternatives_share_their_prefix_and_every_score_is_new():
    steps = list(itertools.islice(transport.LOADS["steps"].requests(0), 8))
    assert [one[0] for one in steps[:4]] == [steps[0][0]] * 4
    assert steps[4][0] != steps[0][0]
    assert len({one[1] for one in steps}) == 8, "seeds"
    scores = [one[0] for one in itertools.islice(transport.LOADS["scores"].requests(0), 2 * transport.PROBLEMS)]
    assert len(set(map(tuple, scores))) == len(scores)
    assert scores[transport.PROBLEMS][: transport.PROMPT] == scores[0][: transport.PROMPT], "a problem's prompt"
    assert round(transport.LOADS["steps"].most) == 2133, "256 / 0.003 / 40"


def test_processor_time_of_a_process_counts_what_it_started():
    work = "import time\nwhile time.process_time() < 0.3: pass\nprint('done', flush=True)\ntime.sleep(60)"
    before = transport.spent(os.getpid())["front"]
    process = subprocess.Popen([sys.executable, "-c", work], stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        assert transport.spent(os.getpid())["front"] - before > 0.25
        assert transport.spent(process.pid).total() > 0.25
    finally:
        process.kill()
        process.communicate()


def test_a_row_by_hand(tmp_path, monkeypatch):
    """A device that is at work half of the time, in steps of four sequences."""
    monkeypatch.setattr(transport, "IN_FLIGHT", 4)
    seen = transport.counters(tmp_path / "counters", "w+")

    class Replica:
        label, provenance = "scripted", {}

        async def open(self):
            pass

        async def send(self, kind, arguments):
            await asyncio.sleep(0.02)
            seen[:] += (0.25, 0.0025, 10, 1)  # a quarter of a step of 10 ms, in each 20 ms
            return []

        async def mark(self):
            return None

        async def close(self):
            pass

    load, engines = transport.LOADS["scores"], Engines([Replica()])
    row = asyncio.run(transport.measure(engines, load, os.getpid(), tmp_path, 0.5))
    assert 100 < int(row[0]) <= 200
    assert 45 <= int(row[1].rstrip("%")) <= 80
    assert row[2] == "4"


@pytest.mark.vllm
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit, which vLLM imports
def test_the_made_up_device_by_hand(tmp_path, monkeypatch):
    """A prompt of 5 tokens read in two parts, then one token; beside it a score, which gets the tokens it asks for."""
    from bench._made_up import TOKEN, Device

    file = tmp_path / "counters"
    transport.counters(file, "w+").flush()
    monkeypatch.setenv("TTS_MADE_UP", f"0.01 100 {file}")
    device = Device.__new__(Device)
    device.vllm_config = SimpleNamespace(scheduler_config=SimpleNamespace(async_scheduling=False))
    device._init_executor()

    def new(name, length, rated=None, done=0):
        params = SimpleNamespace(logprob_token_ids=rated)
        return SimpleNamespace(
            req_id=name, prompt_token_ids=[1] * length, sampling_params=params, num_computed_tokens=done
        )

    def step(tokens, *, fresh=(), old=()):
        cached = SimpleNamespace(req_ids=[name for name, _ in old], num_computed_tokens=[done for _, done in old])
        scheduled = SimpleNamespace(
            scheduled_new_reqs=list(fresh),
            scheduled_cached_reqs=cached,
            num_scheduled_tokens=tokens,
            total_num_scheduled_tokens=sum(tokens.values()),
            finished_req_ids=set(),
        )
        assert device.execute_model(scheduled, non_block=True).result() is None
        return device.sample_tokens(None, non_block=True)

    began = time.perf_counter()
    first = step({"a": 3, "b": 4}, fresh=[new("a", 5), new("b", 6, [10, 12, 12], done=2)])
    second = step({"a": 2}, old=[("a", 3)])
    assert not second.done()
    outputs = [first.result(), second.result()]
    assert time.perf_counter() - began == pytest.approx(0.07 + 0.02, abs=0.05)
    assert outputs[0].sampled_token_ids == [[], [TOKEN]]
    assert outputs[0].logprobs.logprob_token_ids[1].tolist() == [TOKEN, 10, 12, 12]
    assert outputs[1].sampled_token_ids == [[TOKEN]]
    assert transport.counters(file, "r").tolist() == pytest.approx([2, 0.09, 9, 3])
    assert device.vllm_config.scheduler_config.async_scheduling
