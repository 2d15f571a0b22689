"""The host and its clients, with a stand-in for vLLM in a real process: it ends, takes long, or won't start."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from tts.errors import EngineError, InputError
from tts.models import engines, host
from tts.models.host import running_hosts, stop_hosts
from tts.models.open import open_policy
from tts.policy import Sampling


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch, tmp_path):
    """Clients start tests/fake_host.py in the place of the host."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).parent / "fake_host.py"} "$@"\n')
    python.chmod(0o755)
    for module in ("vllm", "open"):
        monkeypatch.setattr(f"tts.models.{module}.vllm_package", lambda: ("pytest", False))
    monkeypatch.setattr(engines, "PAUSE", 0.01)
    with tempfile.TemporaryDirectory(prefix="tts-test-") as path:  # a short path, for the sockets
        monkeypatch.setenv("TTS_ENGINES", path)
        monkeypatch.setattr(sys, "executable", str(python))
        yield
        stop_hosts()


def draw(*firsts, **settings):
    """A sample for each first token of a prompt; errors are returned."""

    async def run():
        policy = open_policy("policy-xs", engine="vllm", **settings)
        asked = (policy.sample((first, 5, 6), Sampling(seed=i, max_tokens=9)) for i, first in enumerate(firsts))
        try:
            return await asyncio.gather(*asked, return_exceptions=True)
        finally:
            await policy.close()

    return asyncio.run(run())


def test_a_host_that_dies_is_started_again_and_its_requests_go_on(capfd):
    found = draw(5, 6, 151, *range(10, 40))
    assert [one.token_ids[-1] for one in found] == [2 + i for i in range(33)]
    said = capfd.readouterr().err
    assert said.count("starting vLLM for policy-xs") == 2
    assert "the engine host died while it served this request (see " in said


def test_a_request_that_always_ends_the_host_is_one_line_and_the_next_run_goes_on(capfd):
    [bad] = draw(150)
    assert isinstance(bad, EngineError)
    assert "the engine host died while it served this request (see " in str(bad)
    assert "\n" not in str(bad)
    assert capfd.readouterr().err.count("starting vLLM for policy-xs") == engines.TRIES
    [good] = draw(5)
    assert good.finish == "end"


@pytest.mark.slow
def test_steps_count_as_progress():
    """An answer takes longer than patience allows: the host says every second that it has gone on."""
    [found] = draw(152, patience=6.0)
    assert found.finish == "end"


def test_vllms_error_about_memory_is_one_line(monkeypatch):
    monkeypatch.setenv("FAKE_MEMORY", "1")
    [error] = draw(5)
    assert isinstance(error, EngineError)
    assert str(error).startswith(
        "vLLM for policy-xs did not start (ValueError: Free memory on device cuda:0 (10.5/79.1 GiB) on startup is less "
        "than desired GPU memory utilization (0.9, 71.2 GiB)."
    )
    assert "\n" not in str(error)
    assert running_hosts() == []


@pytest.fixture
def _on_gpus(monkeypatch):
    for module in ("vllm", "open"):
        monkeypatch.setattr(f"tts.models.{module}.vllm_package", lambda: ("pytest", True))


@pytest.mark.usefixtures("_on_gpus")
def test_each_group_of_gpus_is_a_replica():
    """Two replicas of two GPUs each; the problems are divided among them, and each has its own devices."""
    found = draw(*range(5, 45), devices=[["0", "1"], ["2", "3"]], gpu_memory_utilization=0.4)
    assert [one.token_ids[-1] for one in found] == [2 + i for i in range(40)]
    specs = [json.loads(spec_file.read_text()) for spec_file, _ in running_hosts()]
    assert sorted(spec["devices"] for spec in specs) == ["0,1", "2,3"]
    assert {spec["settings"]["tensor_parallel_size"] for spec in specs} == {2}
    assert {spec["settings"]["gpu_memory_utilization"] for spec in specs} == {0.4}


@pytest.mark.usefixtures("_on_gpus")
def test_problems_of_a_host_that_does_not_start_again_go_on_at_another(monkeypatch, capfd):
    async def run():
        policy = open_policy("policy-xs", engine="vllm", devices=[["0"], ["1"]])
        asked = [((first, 5, 6), Sampling(seed=first, max_tokens=9)) for first in range(5, 45)]
        before = await asyncio.gather(*(policy.sample(*one) for one in asked))
        monkeypatch.setenv("FAKE_MEMORY", "1")  # no host starts any more
        os.kill(running_hosts()[0][1], signal.SIGKILL)
        after = await asyncio.gather(*(policy.sample(*one) for one in asked))
        assert len(running_hosts()) == 1
        await policy.close()
        return before, after

    before, after = asyncio.run(run())
    assert after == before
    said = capfd.readouterr().err
    assert "its problems go on at 1 other(s)" in said


@pytest.mark.usefixtures("_on_gpus")
def test_a_replica_that_does_not_start_at_first_is_said_before_anything_is_sampled(monkeypatch):
    monkeypatch.setenv("FAKE_MEMORY", "1")
    [error] = draw(5, devices=[["0"], ["1"]])
    assert str(error).startswith("vLLM for policy-xs did not start (ValueError: Free memory")


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ("01", r"^devices='01': give the GPUs of each replica, such as"),
        (["0", "1"], r"^devices=\['0', '1'\]: give the GPUs of each replica"),
        ([["0", "1"], ["1"]], "GPU 1 stands there twice: name each once$"),
    ],
)
def test_devices_that_are_no_groups(devices, message):
    with pytest.raises(InputError, match=message):
        open_policy("policy-xs", devices=devices)


def test_stop_ids_are_looked_up_in_a_set(monkeypatch):
    """588 of Llama 3's tokens hold a blank line, and vLLM looks every token up in what it is given."""

    class Params(SimpleNamespace):
        def __init__(self, **given):
            super().__init__(**given | {"stop_token_ids": given.get("stop_token_ids") or []})

    fake = SimpleNamespace(SamplingParams=Params, RequestOutputKind=SimpleNamespace(FINAL_ONLY=2))
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", fake)
    _, params = host.sample_params([1, 2], 0, 0.8, 1.0, 8, None, list(range(588)))
    assert host._sampling_params(params).stop_token_ids == frozenset(range(588))
    assert host._sampling_params(host.score_params([1], 5, 6)[1]).stop_token_ids == frozenset()
