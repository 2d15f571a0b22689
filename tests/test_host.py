"""The host and its clients, with a stand-in for vLLM in a real process: it ends, takes long, or won't start."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import pytest

from tts.errors import EngineError
from tts.models import engines
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
