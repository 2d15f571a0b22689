"""What every test stands on: one thread, no network, no store or engine of the person who runs them."""

from __future__ import annotations

import os
import signal

os.environ["OMP_NUM_THREADS"] = "1"  # two busy threads on two busy cores are several times slower than one
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"
# A shell starts what runs in the background with interrupts ignored, and the tests send some.
signal.signal(signal.SIGINT, signal.default_int_handler)
for name in ("TTS_STORE", "TTS_FIGURES", "TTS_ENGINES"):
    os.environ.pop(name, None)

import pytest  # noqa: E402


@pytest.fixture(autouse=True)
def _own_store(tmp_path, monkeypatch):
    monkeypatch.setenv("TTS_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("TTS_FIGURES", str(tmp_path / "figures"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    from importlib.util import find_spec

    if find_spec("vllm") is None:
        for item in items:
            if item.get_closest_marker("vllm"):
                item.add_marker(pytest.mark.skip(reason="vLLM is not installed: it serves on Linux with AVX2 or a GPU"))
